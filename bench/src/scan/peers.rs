//! Other scanners beside ours, installed from their registries into a folder of the cache; one that does not install is said to be
//! missing. Called by the `scan` suite.
//!
//! Hyperscan gets our own patterns and makes one bare pass: that is the ceiling. The others bring their own rules and run
//! as programs; what they take for an empty file is subtracted, so that their start does not count.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::measure::child;

/// Peers that are there.
pub(crate) struct Peers {
    folder: PathBuf,
    /// What could not be installed, and why.
    pub(crate) missing: Vec<String>,
}

/// What a peer took.
pub(crate) struct Taken {
    pub(crate) name: &'static str,
    /// For an empty file.
    pub(crate) start: Duration,
    /// For the text, without that.
    pub(crate) text: Duration,
}

/// Makes the command that scans a file.
type Start = Box<dyn Fn(&Path) -> Command>;

const PYTHON: [&str; 3] = ["hyperscan", "detect-secrets", "kingfisher-bin"];
const GITLEAKS: &str = "github.com/zricethezav/gitleaks/v8@v8.30.1";

impl Peers {
    /// Installs what is missing.
    ///
    /// # Errors
    /// When there is no folder for it.
    pub(crate) fn install() -> Result<Self> {
        let home = std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")?;
        let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
        let folder = cache.join("pipelock/scan-peers");
        std::fs::create_dir_all(&folder)?;
        let mut peers = Self { folder, missing: Vec::new() };
        let python = peers.folder.join("venv/bin/python");
        if !python.exists() {
            peers.attempt("Python", Command::new("python3").args(["-m", "venv"]).arg(peers.folder.join("venv")));
        }
        for package in PYTHON {
            let shown = child(Command::new(&python).args(["-m", "pip", "show", "--quiet", package]), &[0]);
            if shown.is_err() {
                peers.attempt(package, Command::new(&python).args(["-m", "pip", "install", "--quiet", package]));
            }
        }
        if !peers.folder.join("bin/gitleaks").exists() {
            let go = if Path::new("/usr/local/go/bin/go").exists() { "/usr/local/go/bin/go" } else { "go" };
            let bin = peers.folder.join("bin");
            peers.attempt("gitleaks", Command::new(go).args(["install", GITLEAKS]).env("GOBIN", bin));
        }
        Ok(peers)
    }

    fn attempt(&mut self, name: &str, command: &mut Command) {
        let why = match command.output() {
            Ok(done) if done.status.success() => return,
            Ok(done) => String::from_utf8_lossy(&done.stderr).lines().last().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        };
        self.missing.push(format!("{name} ({why})"));
    }

    /// One bare pass of Python's hyperscan with `patterns` over each of `files`: its version and the best time of each; `None`
    /// when it is missing.
    pub(crate) fn hyperscan(&mut self, patterns: &[String], files: &[PathBuf]) -> Option<(String, Vec<Duration>)> {
        let list = self.folder.join("patterns.txt");
        let run = || -> Result<_> {
            std::fs::write(&list, patterns.join("\n"))?;
            let mut python = Command::new(self.folder.join("venv/bin/python"));
            let done = python.args(["-c", include_str!("hyperscan.py")]).arg(&list).args(files).output()?;
            let text = String::from_utf8_lossy(&done.stdout).into_owned();
            let mut lines = text.lines();
            let version = lines.next().with_context(|| String::from_utf8_lossy(&done.stderr).into_owned())?.to_owned();
            let times = lines.map(|line| Ok(Duration::from_nanos(line.parse()?))).collect::<Result<_>>()?;
            Ok((version, times))
        };
        let result = run();
        result.map_err(|error| self.missing.push(format!("hyperscan ({error})"))).ok()
    }

    /// The scanners that are programs, on a file. One thread each.
    ///
    /// # Errors
    /// When the empty file cannot be written.
    pub(crate) fn programs(&mut self, text: &Path) -> Result<Vec<Taken>> {
        let empty = self.folder.join("empty.txt");
        std::fs::write(&empty, "")?;
        let kingfisher = self.folder.join("venv/bin/kingfisher");
        let detect = self.folder.join("venv/bin/detect-secrets");
        let gitleaks = self.folder.join("bin/gitleaks");
        let commands: [(&'static str, Start); 3] = [
            (
                "kingfisher",
                Box::new(move |file| {
                    let mut command = Command::new(&kingfisher);
                    command.args(["scan", "--quiet", "--jobs", "1", "--no-validate", "--no-update-check"]).arg(file);
                    command
                }),
            ),
            (
                "detect-secrets",
                Box::new(move |file| {
                    let mut command = Command::new(&detect);
                    command.args(["-c", "1", "scan", "--no-verify", "--all-files"]).arg(file);
                    command
                }),
            ),
            (
                "gitleaks",
                Box::new(move |file| {
                    let mut command = Command::new(&gitleaks);
                    command.args(["dir", "--no-banner", "--log-level", "error"]).arg(file).env("GOMAXPROCS", "1");
                    command
                }),
            ),
        ];
        let mut taken = Vec::new();
        for (name, command) in commands {
            // Codes for findings are no failures.
            let codes = [0, 1, 200, 205];
            let times = child(&mut command(&empty), &codes)
                .and_then(|(start, _)| Ok((start, child(&mut command(text), &codes)?.0)));
            match times {
                Ok((start, all)) => taken.push(Taken { name, start, text: all.saturating_sub(start) }),
                Err(error) => self.missing.push(format!("{name} ({error})")),
            }
        }
        Ok(taken)
    }
}
