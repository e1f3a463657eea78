//! `pipelock keygen`: makes a signing key and prints its public half.

use std::path::PathBuf;

use pipelock_receipt::SigningKey;

use super::{Failure, files, output};

/// Make an Ed25519 key that signs evidence.
///
/// Writes FILE (private, mode 0600), FILE.pub (PEM) and prints the public key in hex. Keep the private key out of the
/// agent's reach; give the public one to whoever verifies.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the private key goes; an existing file is never overwritten, nor is FILE.pub.
    #[arg(long, short, value_name = "FILE", default_value = "pipelock.key")]
    output: PathBuf,
}

pub(super) fn keygen(args: &Args) -> Result<u8, Failure> {
    let key = SigningKey::generate()?;
    key.save(&args.output)?;
    let public = args.output.with_added_extension("pub");
    if let Err(failure) = files::create(&public, &key.public().pem()) {
        // Just made, and of no use without the other half.
        let _ = std::fs::remove_file(&args.output);
        return Err(failure);
    }
    output::note(&format!("wrote {} and {}", args.output.display(), public.display()));
    output::line(&key.public().hex());
    Ok(0)
}
