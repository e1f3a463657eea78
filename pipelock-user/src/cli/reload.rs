//! `pipelock reload`: another policy for an attachment that is served, and how its server hears of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, output, session};
use crate::app::Serving;
use crate::app::state::State;
use crate::kernel::attachment_id;
use crate::policy::Policy;
use crate::sandbox::cgroup::Cgroup;

/// How long a server may take to put a policy in force.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Make an attachment read its policy file again, and wait until it is in force.
///
/// A policy with mistakes changes nothing: the old one stays in force. Needs root.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The cgroup's folder.
    #[arg(long, value_name = "PATH")]
    cgroup: PathBuf,
}

/// The signal by which `pipelock reload` speaks to a server: SIGHUP will not do, since `run` passes that on to its command.
pub(super) fn reload_signal() -> i32 {
    libc::SIGRTMIN() + 2
}

/// Reads the policy file again; mistakes are logged, told to whoever asked, and change nothing.
pub(super) fn reload_policy(serving: &mut Serving, source: &str) {
    let result = match Policy::load(Path::new(source)) {
        Ok(policy) => serving.reload(policy).map_err(|error| error.to_string()),
        Err(errors) => Err(errors.to_string()),
    };
    if let Err(error) = &result {
        tracing::error!("the policy was not changed: {error}");
    }
    serving.answer_reload(result.err());
}

pub(super) fn reload(args: &Args) -> Result<u8, Failure> {
    let cgroup = Cgroup::open(&args.cgroup)?;
    let id = attachment_id(cgroup.id());
    let (before, server) = State::read(&id)
        .and_then(|state| state.server().map(|server| (state, server)))
        .ok_or_else(|| format!("nobody serves {}; see pipelock status", args.cgroup.display()))?;
    Policy::load(Path::new(&before.policy)).map_err(Failure::usage)?;
    server.signal(reload_signal())?;
    let answered = || State::read(&id).filter(|now| now.reloads > before.reloads || !server.is_alive());
    let state = session::wait_for(TIMEOUT, answered)
        .ok_or_else(|| format!("process {} has not answered in {TIMEOUT:?}; see its log", before.pid))?;
    if state.reloads == before.reloads {
        return Err(format!("process {} ended before it answered", before.pid).into());
    }
    if let Some(why) = state.reload_error {
        return Err(format!("the policy was not changed: {why}").into());
    }
    output::note(&format!("{} is in force, policy hash {}", state.policy, state.policy_hash));
    Ok(0)
}
