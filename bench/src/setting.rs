//! What the suites that measure pipelock share: the programs, a folder, the machine they ran on, and where the table goes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// The programs, and a folder that is removed with all that is in it.
pub(crate) struct Setting {
    pub(crate) pipelock: PathBuf,
    /// This program, where the agent, who is another user, can reach it.
    pub(crate) own: PathBuf,
    folder: tempfile::TempDir,
}

impl Setting {
    pub(crate) fn new() -> Result<Self> {
        let pipelock = std::env::var_os("PIPELOCK_BIN").context("PIPELOCK_BIN is not set; use cargo xtask bench")?;
        // Not where TMPDIR says, which may be closed to the agent.
        let folder = tempfile::tempdir_in("/tmp")?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let own = folder.path().join("pipelock-bench");
        std::fs::copy(std::env::current_exe()?, &own)?;
        Ok(Self { pipelock: pipelock.into(), own, folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Prints a suite's table, and writes it to bench/results when it is all of it.
pub(crate) fn tell(suite: &str, table: &str, is_whole: bool) -> Result<()> {
    println!("{table}");
    if is_whole {
        let results = Path::new("bench/results");
        std::fs::create_dir_all(results)?;
        std::fs::write(results.join(format!("{suite}.md")), table)?;
    }
    Ok(())
}

pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    format!("{cores} cores, Linux {kernel}")
}

/// The clock that events are timed by: the same for all processes of the machine.
pub(crate) fn now() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}
