//! `fuzz`: runs a fuzz target of the scan engine or of the proxy's parsers with cargo-fuzz and rustup's nightly, and installs cargo-fuzz when it is
//! missing.
//!
//! The address sanitizer is off: it would have to be linked into vectorscan's C++ as well, and the Rust has no `unsafe`.
//! What a target learned is kept under the target folder and used again; what broke one is beside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// Targets of the scan engine.
const SCAN: [&str; 5] = ["normalise", "decode", "stream", "rules", "bundle"];
/// Targets of the proxy.
const PROXY: [&str; 5] = ["hello", "dns", "http", "websocket", "multipart"];

/// Run a fuzz target for some time. Ends with an error when it finds something, and says where the
/// input is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `normalise`: views; `decode`: codecs; `stream`: cuts, and engine against oracle; `rules`: rule files; `bundle`:
    /// signed bundles. Of the proxy `hello`: TLS hellos; `dns`: queries; `http`: the framing of HTTP/1.1; `websocket`: frames;
    /// `multipart`: forms that leave.
    #[arg(value_parser = [SCAN, PROXY].concat())]
    target: String,
    /// How long; 0 only builds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let installed = run::output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    if !installed.lines().any(|line| line.starts_with("nightly")) {
        bail!("fuzzing needs rustup's nightly: rustup toolchain install nightly");
    }
    let fuzz = || {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo", "fuzz"]).current_dir(run::root());
        command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
        command
    };
    if !fuzz().arg("--version").output().is_ok_and(|done| done.status.success()) {
        run::say("installing cargo-fuzz");
        run::check(run::cargo().args(["install", "--locked", "cargo-fuzz"]))?;
    }
    let folder = run::target_dir()?.join("fuzz");
    let is_scan = SCAN.contains(&args.target.as_str());
    let crate_folder = if is_scan { "pipelock-user/scan/fuzz" } else { "pipelock-user/fuzz" };
    let options = ["--fuzz-dir", crate_folder, "--sanitizer", "none", "--target-dir"];
    let mut build = fuzz();
    build.arg("build").args(options).arg(&folder).arg(&args.target);
    run::say("building the target; the first time takes minutes");
    run::check(&mut build)?;
    if args.seconds == 0 {
        return Ok(());
    }
    let seeds = folder.join("seeds");
    if is_scan {
        write_seeds(&seeds)?;
    }
    let corpus = folder.join("corpus").join(&args.target);
    fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
    let artifacts = folder.join("artifacts").join(&args.target);
    fs::create_dir_all(&artifacts).with_context(|| artifacts.display().to_string())?;
    let mut go = fuzz();
    go.arg("run").args(options).arg(&folder).arg(&args.target).arg(&corpus).args(is_scan.then_some(&seeds)).arg("--");
    go.arg(format!("-max_total_time={}", args.seconds));
    go.arg(format!("-artifact_prefix={}/", artifacts.display()));
    go.args(["-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    run::check(&mut go)?;
    run::line(&format!("fuzz: {} ran {} seconds and found nothing", args.target, args.seconds));
    Ok(())
}

/// One seed for each rule: its lines, in which are its examples.
fn write_seeds(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut count = 0;
    for file in run::files(&run::root().join("pipelock-user/scan/rules"))? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for rule in text.split("\n  - ") {
            fs::write(folder.join(format!("{count:04}")), format!("rules:\n  - {rule}"))?;
            count += 1;
        }
    }
    Ok(())
}
