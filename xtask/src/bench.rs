//! `bench`: builds pipelock as it is shipped and measures it.

use anyhow::Result;

use crate::run;

/// Measure a suite of pipelock-bench; results go to bench/results. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The suite.
    suite: String,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    run::need_root("bench")?;
    run::say("building pipelock (release)");
    run::check(run::cargo().args(["build", "--release", "--package", "pipelock-user", "--bin", "pipelock"]))?;
    let pipelock = run::target_dir()?.join("release/pipelock");
    let mut bench = run::cargo();
    bench.args(["run", "--release", "--package", "pipelock-bench", "--", &args.suite]).env("PIPELOCK_BIN", pipelock);
    run::check(&mut bench)
}
