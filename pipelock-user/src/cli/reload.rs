//! `pipelock reload`: another policy for an attachment that is served, and how its server hears of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Failure, output, session};
use crate::app::Serving;
use crate::app::state::State;
use crate::kernel::attachment_id;
use crate::policy::{Policy, PolicyErrors};
use crate::sandbox::cgroup::Cgroup;

/// How long a server may take to put a policy in force.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a server is asked when its answer is about another policy than the one that was read here.
const ROUNDS: u32 = 3;

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

/// What a reload puts in force: the file as it is now; without one nothing is allowed, as at the start.
pub(super) fn read(file: Option<&Path>) -> Result<Policy, PolicyErrors> {
    file.map_or_else(|| Ok(Policy::deny_all()), Policy::load)
}

/// Reads the policy file again; mistakes are logged, told to whoever asked, and change nothing.
pub(super) fn reload_policy(serving: &mut Serving, file: Option<&Path>) {
    let result = match read(file) {
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
    let mut rounds = ROUNDS;
    loop {
        let (before, server) = State::read(&id)
            .and_then(|state| state.server().map(|server| (state, server)))
            .ok_or_else(|| format!("nobody serves {}; see pipelock status", args.cgroup.display()))?;
        let wanted = read(before.policy_file.as_deref()).map_err(Failure::usage)?;
        server.signal(reload_signal())?;
        let answered = || State::read(&id).filter(|now| now.reloads > before.reloads || !server.is_alive());
        let state = session::wait_for(TIMEOUT, answered)
            .ok_or_else(|| format!("process {} has not answered in {TIMEOUT:?}; see its log", before.pid))?;
        if state.reloads == before.reloads {
            return Err(format!("process {} ended before it answered", before.pid).into());
        }
        rounds -= 1;
        match outcome(&state, &wanted.id().to_string()) {
            Ok(()) => {
                output::note(&format!("{} is in force, policy hash {}", state.policy, state.policy_hash));
                return Ok(0);
            }
            // It may have been the answer to somebody else, who asked before the file was what we read.
            Err(_) if rounds > 0 => {}
            Err(why) => return Err(format!("the policy was not changed: {why}").into()),
        }
    }
}

/// Whether the policy with the hash `wanted` is in force by this answer.
fn outcome(answer: &State, wanted: &str) -> Result<(), String> {
    match &answer.reload_error {
        Some(why) => Err(why.clone()),
        None if answer.policy_hash == wanted => Ok(()),
        None => {
            Err(format!("{} is in force, and the file is {wanted}; it changes while it is read", answer.policy_hash))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_somebody_else_is_not_taken_for_ours() {
        let answer = |hash: &str, error: Option<&str>| -> State {
            let state = serde_json::json!({
                "id": "cg-1", "mode": "attach", "pid": 1, "pid_start": 1, "cgroup": "/c", "evidence": "/e", "policy": "/p",
                "policy_hash": hash, "level": "full", "public_key": "", "reloads": 1, "reload_error": error,
            });
            serde_json::from_value(state).expect("a state")
        };
        assert_eq!(outcome(&answer("ours", None), "ours"), Ok(()));
        assert!(outcome(&answer("theirs", None), "ours").is_err());
        assert_eq!(outcome(&answer("ours", Some("no")), "ours"), Err("no".into()));
    }

    #[test]
    fn without_a_file_nothing_is_allowed_after_a_reload_either() {
        assert_eq!(read(None).expect("a policy").id(), Policy::deny_all().id());
        assert_eq!(Policy::deny_all().file(), None);
    }
}
