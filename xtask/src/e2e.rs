//! `e2e`: builds pipelock and runs the tests that need root, cgroups and real clients.

use anyhow::{Result, bail};

use crate::tally::Tally;
use crate::{run, setup};

/// Run the end-to-end tests, which need root: real clients in cgroups of their own, on this kernel.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only tests with this in their names.
    filter: Option<String>,
}

/// What the end-to-end tests came to.
pub(crate) struct Done {
    /// Counted.
    pub(crate) tally: Tally,
    /// Everything passed, and in CI nothing was skipped.
    pub(crate) is_ok: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if run::is_root() {
        setup::e2e()?;
    }
    let done = run(args.filter.as_deref())?;
    run::line(&format!("{} passed, {} failed", done.tally.passed, done.tally.failed));
    if !done.is_ok {
        bail!("end-to-end tests failed");
    }
    Ok(())
}

/// Runs them; without root they are skipped, or fail in CI.
pub(crate) fn run(filter: Option<&str>) -> Result<Done> {
    if !run::is_root() {
        if run::is_ci() {
            run::need_root("e2e")?;
        }
        run::say("end-to-end tests skipped: they need root (cargo xtask e2e, as root)");
        return Ok(Done { tally: Tally::default(), is_ok: true });
    }
    let pipelock = run::build_pipelock()?;
    run::say("end-to-end tests");
    let mut cargo = run::cargo();
    cargo
        .args(["test", "--package", "pipelock-e2e", "--locked", "--no-fail-fast", "--"])
        .args(filter)
        // Each has a cgroup, a proxy and clients of its own; more at a time would only be slower and miss time limits.
        .arg("--test-threads=2")
        .env("PIPELOCK_BIN", &pipelock);
    let mut tally = Tally::default();
    let status = run::watch(&mut cargo, |line| tally.read(line))?;
    let mut is_ok = status.success();
    if run::is_ci() && tally.ignored > 0 {
        run::say(&format!("{} end-to-end tests were skipped, which in CI is a failure", tally.ignored));
        is_ok = false;
    }
    Ok(Done { tally, is_ok })
}
