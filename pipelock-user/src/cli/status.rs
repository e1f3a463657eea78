//! `pipelock status`: what is attached, and how it is.

use super::Failure;

/// Show what is attached, its counters and its health.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn status(args: &Args) -> Result<u8, Failure> {
    Ok(u8::from(args.json))
}
