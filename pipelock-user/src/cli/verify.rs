//! `pipelock verify`: the offline verifier.

use std::path::{Path, PathBuf};

use pipelock_receipt::folder::{DOCUMENT, EVIDENCE};
use pipelock_receipt::{Options, PublicKey, verify_path};

use super::{Failure, SECURITY, files, output};

/// Verify evidence offline: signatures, chain, and one receipt for every flow that the kernel counted.
///
/// Reports what is missing, extra, altered, reordered or truncated, each with the flow it belongs to. Exit code 0 when
/// everything holds, 3 when it does not. Without --public-key the evidence can only be found to agree with itself, which
/// is no proof of who wrote it: exit code 3 unless --allow-unpinned is given.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The evidence folder.
    #[arg(value_name = "DIR", required_unless_present = "receipt_chain", conflicts_with = "receipt_chain")]
    folder: Option<PathBuf>,
    /// The chain: evidence.jsonl or receipts.json. If its sibling is in the same folder, both must agree.
    #[arg(long, value_name = "FILE")]
    receipt_chain: Option<PathBuf>,
    /// The policy that must have been in force: a file with its hash, or the 64 hex digits.
    #[arg(long, value_name = "FILE|HEX")]
    policy_hash: Option<String>,
    /// The key that must have signed: a PEM or hex file, or the 64 hex digits.
    #[arg(long, value_name = "FILE|HEX")]
    public_key: Option<String>,
    /// Accept evidence that agrees with itself although no key was given.
    #[arg(long, conflicts_with = "public_key")]
    allow_unpinned: bool,
    /// Write the report as JSON to this file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the report as JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: &Args) -> Result<u8, Failure> {
    let path =
        args.folder.as_ref().or(args.receipt_chain.as_ref()).ok_or_else(|| Failure::usage("no evidence given"))?;
    let options = Options {
        key: args.public_key.as_deref().map(public_key).transpose()?,
        policy_hash: args.policy_hash.as_deref().map(policy_hash).transpose()?,
    };
    // A chain file beside its sibling: both are read, and must say the same.
    let both = path.parent().filter(|_| path.is_file()).filter(|folder| {
        let named = |name: &str| path.file_name().is_some_and(|file| file == name);
        (named(DOCUMENT) || named(EVIDENCE)) && folder.join(DOCUMENT).exists() && folder.join(EVIDENCE).exists()
    });
    let target = match both {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    };
    let report = verify_path(target, &options).map_err(|error| format!("{}: {error}", target.display()))?;
    let json = serde_json::to_string_pretty(&report)?;
    if let Some(file) = &args.output {
        files::replace(file, &format!("{json}\n"))?;
    }
    if args.json {
        output::line(&json);
    } else {
        output::line(report.render().trim_end());
    }
    let accepted = report.ok && (options.key.is_some() || args.allow_unpinned);
    if report.ok && !accepted {
        output::note("no --public-key: anyone could have written this evidence; give the key, or --allow-unpinned");
    }
    Ok(if accepted { 0 } else { SECURITY })
}

fn public_key(text: &str) -> Result<PublicKey, Failure> {
    match PublicKey::parse(text) {
        Ok(key) => Ok(key),
        Err(_) => PublicKey::load(Path::new(text)).map_err(Failure::usage),
    }
}

fn policy_hash(text: &str) -> Result<String, Failure> {
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let read = if is_hash(text) {
        text.to_owned()
    } else {
        std::fs::read_to_string(text).map_err(|error| Failure::usage(format!("{text}: {error}")))?
    };
    let hash = read.trim().to_ascii_lowercase();
    if is_hash(&hash) { Ok(hash) } else { Err(Failure::usage(format!("{text} does not hold 64 hex digits"))) }
}
