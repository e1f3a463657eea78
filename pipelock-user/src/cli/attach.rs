//! `pipelock attach` and `pipelock detach`: the same enforcement for a cgroup that exists.

use std::path::PathBuf;

use super::{Failure, output};

/// Attach to a cgroup that exists.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The cgroup's folder.
    #[arg(long, value_name = "PATH")]
    cgroup: PathBuf,
}

/// Detach from a cgroup.
#[derive(Debug, clap::Args)]
pub(super) struct DetachArgs {
    /// The cgroup's folder.
    #[arg(long, value_name = "PATH")]
    cgroup: PathBuf,
}

pub(super) fn attach(args: Args) -> Result<u8, Failure> {
    output::note(&args.cgroup.display().to_string());
    Ok(1)
}

pub(super) fn detach(args: DetachArgs) -> Result<u8, Failure> {
    output::note(&args.cgroup.display().to_string());
    Ok(1)
}
