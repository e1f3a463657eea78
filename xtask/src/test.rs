//! `test`: sets everything up, then runs every check and every test there is, and adds them up.

use anyhow::{Result, bail};

use crate::tally::Tally;
use crate::{e2e, rooms, run, setup, size};

/// Set everything up and run every test: style, lints, documentation, layout, unit, integration, end to end.
///
/// Ends with a line "N passed, N failed". A check that fails counts as one failed test; one that passes is not counted.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out the end-to-end tests, which need root.
    #[arg(long)]
    no_e2e: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    if run::is_root() && !args.no_e2e {
        setup::e2e()?
    } else {
        setup::base()?
    }
    let mut tally = Tally::default();
    let mut broken = Vec::new();

    let mut checks: Vec<(&str, Result<()>)> = Vec::new();
    let mut check = |name, done: Result<()>| {
        if let Err(error) = &done {
            run::say(&format!("{name}: {error:#}"));
        }
        checks.push((name, done));
    };
    let cargo = |words: &[&str]| run::check(run::cargo().args(words));
    run::say("checks");
    check("fmt", cargo(&["fmt", "--all", "--check"]));
    check("rooms", rooms::main(&rooms::Args {}));
    check("size", size::main(&size::Args {}));
    check("clippy", cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny=warnings"]));
    let doc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"];
    check("doc", run::check(run::cargo().args(doc).env("RUSTDOCFLAGS", "--deny=warnings")));
    for (name, _) in checks.iter().filter(|(_, done)| done.is_err()) {
        tally.failed += 1;
        broken.push(*name);
    }

    run::say("unit and integration tests");
    let mut plain = Tally::default();
    let status = run::watch(run::cargo().args(["test", "--locked", "--no-fail-fast"]), |line| plain.read(line))?;
    tally.add(plain, status.success());
    if !status.success() {
        broken.push("cargo test");
    }
    if run::is_root() {
        run::say("unit tests that need root");
        let mut rooted = Tally::default();
        let words = ["test", "--package", "pipelock-user", "--lib", "--locked", "--no-fail-fast", "--", "--ignored"];
        let status = run::watch(run::cargo().args(words), |line| rooted.read(line))?;
        tally.add(rooted, status.success());
        if !status.success() {
            broken.push("unit tests that need root");
        }
    } else {
        run::say(&format!("{} tests were not run: they need root, or only measure", plain.ignored));
    }

    if !args.no_e2e {
        match e2e::run(None) {
            Ok(done) => {
                tally.add(done.tally, done.is_ok);
                if !done.is_ok {
                    broken.push("e2e");
                }
            }
            Err(error) => {
                run::say(&format!("e2e: {error:#}"));
                tally.failed += 1;
                broken.push("e2e");
            }
        }
    }
    run::line(&format!("{} passed, {} failed", tally.passed, tally.failed));
    if !broken.is_empty() {
        bail!("failed: {}", broken.join(", "));
    }
    Ok(())
}
