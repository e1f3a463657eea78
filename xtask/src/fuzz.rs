//! `fuzz`: runs a fuzz target of the scan engine or of the proxy's parsers with cargo-fuzz and rustup's nightly, and installs cargo-fuzz when it is
//! missing.
//!
//! The address sanitizer is off: it would have to be linked into vectorscan's C++ as well, and the Rust has no `unsafe`.
//! It begins with the rules, or with the messages in `pipelock-user/fuzz/seeds`. What a target learned is kept under the target
//! folder and used again; what broke one is beside it.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// Targets of the scan engine.
const SCAN: [&str; 5] = ["normalise", "decode", "stream", "rules", "bundle"];
/// Targets of the proxy.
const PROXY: [&str; 7] = ["hello", "dns", "http", "websocket", "multipart", "push", "ssh"];

/// Run a fuzz target for some time. Ends with an error when it finds something, and says where the
/// input is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `normalise`: views; `decode`: codecs; `stream`: cuts, and engine against oracle; `rules`: rule files; `bundle`:
    /// signed bundles. Of the proxy `hello`: TLS hellos; `dns`: queries; `http`: the framing of HTTP/1.1; `websocket`: frames;
    /// `multipart`: forms that leave; `push`: what a push of git's changes; `ssh`: handshakes.
    #[arg(value_parser = [&SCAN[..], &PROXY].concat())]
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
    let seeds = folder.join("seeds").join(&args.target);
    let all = if is_scan { rules()? } else { messages(&args.target)? };
    // Those of a checkout before are no longer what the targets read.
    if seeds.exists() {
        fs::remove_dir_all(&seeds).with_context(|| seeds.display().to_string())?;
    }
    fs::create_dir_all(&seeds).with_context(|| seeds.display().to_string())?;
    for (at, seed) in all.iter().enumerate() {
        fs::write(seeds.join(format!("{at:04}")), seed)?;
    }
    let corpus = folder.join("corpus").join(&args.target);
    fs::create_dir_all(&corpus).with_context(|| corpus.display().to_string())?;
    let artifacts = folder.join("artifacts").join(&args.target);
    fs::create_dir_all(&artifacts).with_context(|| artifacts.display().to_string())?;
    let mut go = fuzz();
    go.arg("run").args(options).arg(&folder).arg(&args.target).arg(&corpus).arg(&seeds).arg("--");
    go.arg(format!("-max_total_time={}", args.seconds));
    go.arg(format!("-artifact_prefix={}/", artifacts.display()));
    go.args(["-max_len=4096", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]);
    run::check(&mut go)?;
    run::line(&format!("fuzz: {} ran {} seconds and found nothing", args.target, args.seconds));
    Ok(())
}

/// What targets of the scan engine begin with. One for each rule: its lines, in which are its examples.
fn rules() -> Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for file in run::files(&run::root().join("pipelock-user/scan/rules"))? {
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        seeds.extend(text.split("\n  - ").map(|rule| format!("rules:\n  - {rule}").into_bytes()));
    }
    Ok(seeds)
}

/// What a target of the proxy begins with: the messages that are kept for it, whole and cut.
fn messages(target: &str) -> Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for file in run::files(&run::root().join("pipelock-user/fuzz/seeds").join(target))? {
        let message = fs::read(&file).with_context(|| file.display().to_string())?;
        seeds.extend([&[][..], &[1, 2, 40]].map(|cuts| seed(target, cuts, &message)));
        seeds.dedup();
    }
    Ok(seeds)
}

/// A message as the target takes it apart, by the crate `arbitrary`: numbers lowest byte first; of a list each member after an
/// odd byte, and an even one where it ends; what is left is the message.
fn seed(target: &str, cuts: &[u8], message: &[u8]) -> Vec<u8> {
    let mut seed = Vec::new();
    if target == "multipart" {
        // Where the secret goes: behind the message, or into it.
        let at = if cuts.is_empty() { message.len() } else { message.len() / 2 };
        seed.extend(u16::try_from(at).unwrap_or(u16::MAX).to_le_bytes());
    }
    if target != "dns" {
        seed.extend(cuts.iter().flat_map(|cut| [1, *cut]));
        seed.push(0);
    }
    seed.extend(message);
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_the_proxy_has_something_to_begin_with() {
        for target in PROXY {
            assert!(messages(target).is_ok_and(|seeds| seeds.len() > 8), "{target}");
        }
    }

    #[test]
    fn seeds_begin_with_numbers_and_cuts() {
        assert_eq!(seed("dns", &[], b"ab"), b"ab");
        assert_eq!(seed("http", &[], b"ab"), b"\0ab");
        assert_eq!(seed("hello", &[7, 9], b"ab"), b"\x01\x07\x01\x09\0ab");
        assert_eq!(seed("multipart", &[], b"ab"), b"\x02\0\0ab");
    }
}
