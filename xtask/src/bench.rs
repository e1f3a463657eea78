//! `bench`: builds everything for speed and runs a suite of the bench crate.

use anyhow::Result;

use crate::run;

/// Measure, beside peers and beside nothing, in one run; the table goes to stdout and to bench/results.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `kernel`: connects, transparent requests, starts. Needs root; HAProxy is measured when it is installed.
    /// `proxy`: requests, connections, transfers and events through the proxy, beside HAProxy, squid and mitmproxy (`MITMDUMP`
    /// names its program) where they are installed. Needs root.
    /// `scan`: the scan engine beside a bare pass of vectorscan and the regex crate.
    /// `detect CORPUS [TREE…]`: recall and false alarms on sets of texts and source trees.
    #[arg(value_parser = ["kernel", "proxy", "scan", "detect"])]
    suite: String,
    /// Only this part, which is printed and not written down: `connect`, `http` or `start` of kernel, a word of the rows of
    /// proxy.
    #[arg(long)]
    part: Option<String>,
    /// What the suite wants to know.
    arguments: Vec<String>,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let mut build = run::cargo();
    build.args(["build", "--release", "--package", "pipelock-bench"]);
    if matches!(args.suite.as_str(), "kernel" | "proxy") {
        run::need_root(&format!("bench {}", args.suite))?;
        build.args(["--package", "pipelock-user"]);
    }
    run::say("building for speed; the first time takes minutes");
    run::check(&mut build)?;
    let folder = run::target_dir()?.join("release");
    let table = run::output(
        std::process::Command::new(folder.join("pipelock-bench"))
            .arg(&args.suite)
            .args(&args.part)
            .args(&args.arguments)
            .current_dir(run::root())
            .env("PIPELOCK_BIN", folder.join("pipelock")),
    )?;
    run::line(table.trim_end());
    Ok(())
}
