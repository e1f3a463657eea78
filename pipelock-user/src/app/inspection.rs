//! What a policy needs to have contents read: its scanners, and the values that they look for.
//!
//! Called by `tls::rules_of`. It promises that a policy which scans nothing loads nothing, and that a reload that looks for the same
//! values keeps its scanners, and with them what they remember of the session.

use std::path::PathBuf;
use std::sync::Arc;

use crate::inspect::{Inspection, InspectionError};
use crate::policy::Policy;
use crate::proxy::Rules;

/// What the agent has in its environment.
#[derive(Clone)]
pub enum Environment {
    /// Ours, which the command gets from us.
    OfTheAgent,
    /// Nothing that we know of: ours is ours alone.
    Own,
    /// What its processes were found with.
    Of(Arc<[(String, Vec<u8>)]>),
}

/// The scanners of a policy; none when it scans nothing.
///
/// # Errors
/// [`InspectionError`].
pub(super) fn inspection(
    policy: &Policy,
    former: Option<&Rules>,
    environment: &Environment,
) -> Result<Option<Arc<Inspection>>, InspectionError> {
    if !policy.rules().iter().any(|rule| rule.scan()) {
        return Ok(None);
    }
    let dlp = policy.dlp();
    if let Some(former) = former
        && former.policy.dlp() == dlp
        && dlp.secrets_files.is_empty()
        && former.inspect.is_some()
    {
        return Ok(former.inspect.clone());
    }
    let variables: Arc<[(String, Vec<u8>)]> = match environment {
        Environment::OfTheAgent if dlp.scan_env => {
            let named = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
                Some((name.into_string().ok()?, value.into_encoded_bytes()))
            };
            std::env::vars_os().filter_map(named).collect()
        }
        Environment::Of(variables) if dlp.scan_env => variables.clone(),
        _ => Arc::default(),
    };
    Inspection::new(policy, &variables, cache_folder()).map(Arc::new).map(Some)
}

/// Where compiled rules are kept: the folder that systemd gives a service, root's, or the user's own.
fn cache_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = if let Some(given) = variable("CACHE_DIRECTORY") {
        given
    } else if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/cache/pipelock")
    } else {
        variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?.join("pipelock")
    };
    folder.is_absolute().then(|| folder.join("rules"))
}
