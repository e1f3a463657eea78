//! `pipelock detach`: the explicit end of an attachment, also of one whose proxy is dead.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::attach::prepare;
use super::{Failure, keys, output, session};
use crate::app::state::State;
use crate::kernel::{Attachment, Level, Pinned, attachment_id};
use crate::policy::Policy;
use crate::sandbox::cgroup::Cgroup;

/// How long a server may take to write its last receipts.
const TIMEOUT: Duration = Duration::from_secs(30);

/// End an attachment: detach the programs and complete the evidence.
///
/// If its proxy is dead, this takes its place for a moment and writes what the kernel recorded meanwhile into evidence of
/// its own, so that detaching is never silent. Needs root.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The cgroup's folder.
    #[arg(long, value_name = "PATH")]
    cgroup: PathBuf,
    /// Where the evidence goes if the proxy is dead.
    #[arg(long, short, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// The key that signs it.
    #[arg(long, short, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(super) fn detach(args: Args) -> Result<u8, Failure> {
    let cgroup = Cgroup::open(&args.cgroup)?;
    let id = attachment_id(cgroup.id());
    if let Some(state) = State::read(&id).filter(State::is_alive) {
        if state.mode == "run" {
            return Err(format!("{} belongs to `pipelock run` (process {}); end its command", id, state.pid).into());
        }
        kill(Pid::from_raw(state.pid), Signal::SIGTERM)?;
        if session::wait_for(TIMEOUT, || (!state.is_alive()).then_some(())).is_none() {
            return Err(format!("process {} has not ended in {TIMEOUT:?}", state.pid).into());
        }
        if !state.evidence.join("receipts.json").exists() {
            let evidence = state.evidence.display();
            return Err(
                format!("detached, but the evidence in {evidence} is not complete; see its pipelock.log").into()
            );
        }
        output::note(&format!("detached; evidence in {}", state.evidence.display()));
        return Ok(0);
    }
    match Attachment::pinned(&id) {
        Pinned::Absent => Err(format!("nothing is attached to {}", args.cgroup.display()).into()),
        Pinned::Dead => {
            Attachment::detach(&id)?;
            State::remove(&id);
            output::note("removed what was left of a cgroup that is gone");
            Ok(0)
        }
        Pinned::Live(_) => {
            let key = keys::signing_key(args.key.as_deref())?;
            let evidence = session::evidence_folder(args.evidence.as_deref(), &id)?;
            // The command of a `run` was never meant to be free; its cgroup is ours.
            let is_run = State::read(&id).is_some_and(|state| state.mode == "run");
            if is_run {
                cgroup.kill_all()?;
                cgroup.wait_empty(TIMEOUT)?;
                output::note("ended what the command of `pipelock run` left running");
            }
            let recorded = prepare(&cgroup, Policy::deny_all(), key, evidence, Level::Redirect, true)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let ended = runtime.block_on(async {
                Ok::<_, Failure>(recorded.serve()?.end("detached after the proxy was lost").await?)
            })?;
            output::note("the proxy was dead; what the kernel recorded meanwhile is in evidence of its own");
            output::ended(&ended);
            if is_run {
                cgroup.remove()?;
            }
            Ok(0)
        }
    }
}
