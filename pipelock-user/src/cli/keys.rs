//! Finding the policy and the key that the verbs share.

use std::path::Path;

use pipelock_receipt::SigningKey;

use super::{Failure, output};
use crate::policy::Policy;

/// The policy of the file, or the one that allows nothing; says what it warns of unless `quiet`.
pub(super) fn policy(path: Option<&Path>, quiet: bool) -> Result<Policy, Failure> {
    let policy = match path {
        Some(path) => Policy::load(path).map_err(Failure::usage)?,
        None => {
            if !quiet {
                output::note("no --policy: nothing is allowed");
            }
            Policy::deny_all()
        }
    };
    if !quiet {
        warn(&policy);
    }
    Ok(policy)
}

/// Says what is to be known of the policy: what it does not do, or not as it looks.
pub(super) fn warn(policy: &Policy) {
    for warning in policy.warnings() {
        output::note(&format!("warning: {warning}"));
    }
}

/// The key of the file, or one for this run only.
pub(super) fn signing_key(path: Option<&Path>) -> Result<SigningKey, Failure> {
    match path {
        Some(path) => SigningKey::load(path).map_err(Failure::usage),
        None => Ok(SigningKey::generate()?),
    }
}

/// Eight hex digits that tell runs apart.
pub(super) fn run_id() -> Result<String, Failure> {
    let mut random = [0u8; 4];
    getrandom::fill(&mut random)?;
    Ok(format!("{:08x}", u32::from_be_bytes(random)))
}
