//! `pipelock sign`: signs a bundle of rules, for `pipelock scan --rules-bundle`.

use std::path::PathBuf;

use pipelock_receipt::SigningKey;

use super::scan::bundle;
use super::{Failure, output};

/// Sign a bundle of rules.
///
/// Checks the bundle as `pipelock scan --rules-bundle` will, writes its signature to FILE.sig and prints the public key in
/// hex. Whoever uses it needs FILE, FILE.sig and the public key, which must reach them on another way than the bundle.
///
/// A bundle is a YAML file: `format_version: 2`, a `name`, a `monotonic_version` that counts up with each edition,
/// `expires_at: 2027-12-31T00:00:00Z`, and `rules` with `id`, `name`, `kind` (dlp or injection), `class`, `severity`,
/// `pattern`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundle.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The key that signs; `pipelock keygen` makes one. Not the one that signs evidence: who has that one watches the agent.
    #[arg(long, short, value_name = "FILE")]
    key: PathBuf,
}

pub(super) fn sign(args: &Args) -> Result<u8, Failure> {
    let key = SigningKey::load(&args.key).map_err(Failure::usage)?;
    let signed = bundle::sign(&args.file, &key)?;
    output::note(&format!("wrote {}", signed.display()));
    output::line(&key.public().hex());
    Ok(0)
}
