//! `pipelock detach`: the explicit end of an attachment, also of one whose proxy is dead or whose cgroup is gone.

use std::path::PathBuf;
use std::time::Duration;

use pipelock_receipt::folder::DOCUMENT;
use pipelock_receipt::{Folder, FolderError};

use super::attach::{Plan, prepare};
use super::{Failure, keys, output, run, session};
use crate::app::lock::Lock;
use crate::app::runtime;
use crate::app::server::Server;
use crate::app::state::State;
use crate::app::{Left, SessionError, TrustFolder};
use crate::kernel::{Attachment, KernelError, Level, Maps, Pinned, attachment_id, pin_root};
use crate::policy::Policy;
use crate::recorder::Place;
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::limits;

/// How long a server may take to write its last receipts.
const TIMEOUT: Duration = Duration::from_secs(30);

/// End an attachment: detach the programs and complete the evidence.
///
/// If its proxy is dead, this takes its place for a moment and writes what the kernel recorded meanwhile into evidence of
/// its own, so that detaching is never silent. If its cgroup is gone as well, it does the same with what is left, and removes that. The cgroup of a
/// `run` that was killed is removed too, also when nothing is attached to it any more; what lives in it is ended with --force
/// only. What a proxy that was killed has frozen, to ask somebody, goes on. Needs root.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Where the evidence goes if the proxy is dead.
    #[arg(long, short, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// The key that signs it.
    #[arg(long, short, value_name = "FILE")]
    key: Option<PathBuf>,
    /// End the processes in a cgroup that a killed `run` left; detach from a cgroup that lives but is not to be seen from here,
    /// whose processes are free then.
    #[arg(long)]
    force: bool,
}

/// What is to be detached.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// The cgroup's folder.
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// The attachment's name, as `status` shows it: also when the cgroup is gone.
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    id: Option<u64>,
}

/// The cgroup id in the name of an attachment. Only the one spelling is taken: the name becomes part of a path.
pub(super) fn parse_id(text: &str) -> Result<u64, String> {
    let number = text.strip_prefix("cg-").and_then(|number| number.parse().ok());
    number
        .filter(|number| attachment_id(*number) == text)
        .ok_or_else(|| "not the name of an attachment; `pipelock status` shows them (cg-12345)".to_owned())
}

pub(super) fn detach(args: Args) -> Result<u8, Failure> {
    let (number, opened) = match (&args.target.cgroup, args.target.id) {
        (Some(path), _) => {
            let cgroup = Cgroup::open(path).map_err(|error| {
                format!("{error}; if the cgroup is gone, `pipelock status` says how to detach what is left of it")
            })?;
            (cgroup.id(), Some(cgroup))
        }
        (None, Some(number)) => (number, None),
        (None, None) => return Err(Failure::usage("name a cgroup or an attachment")),
    };
    let ended = end(&args, number, opened);
    let id = attachment_id(number);
    // Who was killed has left what its agent's programs trust. Whoever comes next under this name writes it anew.
    if ended.is_ok()
        && let Ok(_lock) = Lock::take(&id)
        && matches!(Attachment::pinned(&id), Ok(Pinned::Absent))
    {
        TrustFolder::remove_left(&id);
    }
    ended
}

/// Ends the attachment of this number, whatever is left of it.
fn end(args: &Args, number: u64, opened: Option<Cgroup>) -> Result<u8, Failure> {
    let id = attachment_id(number);
    let served = State::read(&id);
    if let Some((state, server)) = served.as_ref().and_then(|state| Some((state, state.server()?))) {
        // Opened now: by the time the server has ended, somebody may have put another in its place.
        let evidence = Folder::open(&state.evidence);
        end_served(state, &server)?;
        if Attachment::pinned(&id)? == Pinned::Absent {
            return said(evidence);
        }
        output::note("the server ended without detaching");
    }
    // Before anything is looked at, so that of two who detach at once the second sees what the first has done.
    let lock = Lock::take(&id)?;
    let state = State::read(&id);
    let pinned = Attachment::pinned(&id)?;
    let cgroup = match opened {
        Some(cgroup) => Some(cgroup),
        None => Cgroup::by_id(number)?,
    };
    let is_run = run::is_of_run(state.as_ref(), cgroup.as_ref());
    let is_left = is_run && cgroup.as_ref().is_some_and(|cgroup| !cgroup.is_held());
    match (pinned, cgroup) {
        (Pinned::Live(live), Some(cgroup)) if live == number => end_unserved(args, &cgroup, is_run, lock),
        (Pinned::Live(live), None) if live == number => {
            // A removed cgroup lives in the kernel as long as a socket that was made in it, anywhere.
            if !args.force && Cgroup::lives(number)? {
                return Err(format!(
                    "the cgroup of {id} lives, but is not to be seen from here: it is in another cgroup namespace or below \
                     another mount. Detach it where it is seen; with --force it is detached all the same, and its \
                     processes are free"
                )
                .into());
            }
            output::note(&format!(
                "the cgroup of {id} is not to be found here; if it was not removed, its processes are free from now on"
            ));
            end_left(args, (number, true), state, "detached", lock)
        }
        (Pinned::Absent, Some(cgroup)) if state.is_none() && is_left => {
            remove_cgroup(&cgroup, args.force)?;
            Ok(0)
        }
        (Pinned::Absent, _) if state.is_none() && TrustFolder::is_left(&id) => {
            TrustFolder::remove_left(&id);
            output::note(&format!("nothing is attached under {id}; removed what its programs were told to trust"));
            Ok(0)
        }
        (Pinned::Absent, _) if state.is_none() => Err(format!("nothing is attached under {id}").into()),
        (_, cgroup) => {
            match cgroup {
                Some(cgroup) if is_left => remove_cgroup(&cgroup, args.force)?,
                Some(cgroup) => cgroup.thaw_left()?,
                None => {}
            }
            end_left(args, (number, false), state, "removed what was left of an attachment that holds nothing", lock)
        }
    }
}

/// Removes the cgroup of a `run` that is gone, to which nothing is attached.
fn remove_cgroup(cgroup: &Cgroup, force: bool) -> Result<(), Failure> {
    let path = cgroup.path().display();
    if cgroup.is_populated()? {
        if !force {
            return Err(format!(
                "{path} was left by a `pipelock run` that was killed, nothing is attached to it, and processes live in it; \
                 --force ends them"
            )
            .into());
        }
        end_command(cgroup)?;
    }
    cgroup.remove()?;
    output::note(&format!("removed {path}, which a `pipelock run` that was killed had left"));
    Ok(())
}

/// Asks the server to end, and waits until it has.
fn end_served(state: &State, server: &Server) -> Result<(), Failure> {
    if state.mode == "run" {
        return Err(format!("{} belongs to `pipelock run` (process {}); end its command", state.id, state.pid).into());
    }
    match server.signal(libc::SIGTERM) {
        // It ended just now, which is what was wanted.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
        sent => sent?,
    }
    if !server.wait_end(TIMEOUT) {
        return Err(format!("process {} has not ended in {TIMEOUT:?}", state.pid).into());
    }
    Ok(())
}

/// Tells what a server left that ended and detached; `evidence` was opened while it lived.
fn said(evidence: Result<Folder, FolderError>) -> Result<u8, Failure> {
    let evidence =
        evidence.map_err(|error| format!("detached, but nobody can say whether the evidence is whole: {error}"))?;
    let moved = evidence.elsewhere();
    let now = moved.as_deref().unwrap_or(evidence.path());
    if !evidence.holds(DOCUMENT) {
        let now = now.display();
        return Err(format!("detached, but the evidence in {now} is not complete; see its pipelock.log").into());
    }
    output::note(&format!("detached; evidence in {}", now.display()));
    output::moved(now, moved.is_some().then(|| evidence.path()));
    Ok(0)
}

/// Takes the place of a server that is dead, and ends the session.
fn end_unserved(args: &Args, cgroup: &Cgroup, is_run: bool, lock: Lock) -> Result<u8, Failure> {
    limits::prepare()?;
    let id = attachment_id(cgroup.id());
    // Closed in as they are, they can wait for somebody to say so.
    if is_run && !args.force && cgroup.is_populated()? {
        return Err(format!(
            "{} was left by a `pipelock run` that was killed, and processes live in it, which reach nothing; --force ends them",
            cgroup.path().display()
        )
        .into());
    }
    match Attachment::open_maps(&id) {
        // What another version recorded cannot be read, so it is not evidence; that must not keep it attached for ever.
        Err(error @ KernelError::Layout { .. }) => {
            let why = nothing_to_read(error.into(), args.evidence.is_some())?;
            if is_run {
                end_command(cgroup)?;
            }
            output::note(&why);
            // As a proxy may have been killed while it asked somebody.
            cgroup.thaw_left()?;
            let code =
                remove_left(&id, "detached; what the kernel recorded after the proxy was lost has no receipts", lock)?;
            if is_run {
                cgroup.remove()?;
            }
            return Ok(code);
        }
        opened => drop(opened?),
    }
    let key = keys::signing_key(args.key.as_deref())?;
    let evidence = session::evidence_folder(args.evidence.as_deref(), &id)?;
    if is_run {
        end_command(cgroup)?;
    }
    let evidence = Place::At(evidence);
    let plan = Plan { policy: Policy::deny_all(), key, evidence, require: Level::Redirect, force: true, lock };
    let recorded = prepare(cgroup, plan)?;
    let ended = runtime::run_here(async {
        Ok::<_, Failure>(recorded.serve()?.end("detached after the proxy was lost").await?)
    })??;
    output::note("the proxy was dead; what the kernel recorded meanwhile is in evidence of its own");
    if !is_run && cgroup.is_frozen().unwrap_or(false) {
        output::note(&format!(
            "the cgroup is frozen, and not by pipelock as far as it says; to let it go on: echo 0 > {}/cgroup.freeze",
            cgroup.path().display()
        ));
    }
    output::ended(&ended);
    output::moved(&ended.summary.folder, ended.moved_from.as_deref());
    if is_run {
        cgroup.remove()?;
    }
    Ok(0)
}

/// Ends what the command of a `run` left: it was never meant to be free, and its cgroup is ours.
fn end_command(cgroup: &Cgroup) -> Result<(), Failure> {
    cgroup.end(TIMEOUT)?;
    output::note("ended what the command of `pipelock run` left running");
    Ok(())
}

/// Ends an attachment whose cgroup is gone: what the kernel recorded is written into evidence, if there is anything, or a folder for it
/// was named.
fn end_left(
    args: &Args,
    (number, is_live): (u64, bool),
    state: Option<State>,
    said: &str,
    lock: Lock,
) -> Result<u8, Failure> {
    // Before anything is opened: what cannot be opened now may be the next time.
    limits::prepare()?;
    let id = attachment_id(number);
    let left = match Left::open(&id, number, state) {
        Ok(left) if left.waiting() > 0 || args.evidence.is_some() => left,
        Ok(_) => return remove_left(&id, said, lock),
        Err(error) => {
            let why = nothing_to_read(error, args.evidence.is_some())?;
            output::note(&format!("what the kernel recorded cannot be read, so there is no evidence of it: {why}"));
            return remove_left(&id, said, lock);
        }
    };
    let key = keys::signing_key(args.key.as_deref())?;
    let evidence = Place::At(session::evidence_folder(args.evidence.as_deref(), &id)?);
    let ended = runtime::run_here(left.write(evidence, key, is_live))??;
    State::remove(&id);
    drop(lock);
    output::note(said);
    output::note("what the kernel recorded after the proxy was lost is in evidence of its own");
    output::ended(&ended);
    output::moved(&ended.summary.folder, ended.moved_from.as_deref());
    Ok(0)
}

/// Why there will never be anything to read: pins without maps, or what another version has recorded. Evidence that somebody has asked for
/// is not left out without a word.
///
/// # Errors
/// What may pass, as too few descriptors or too little memory, is a reason to leave what is pinned as it is.
fn nothing_to_read(error: SessionError, is_wanted: bool) -> Result<String, Failure> {
    match error {
        SessionError::Kernel(error @ KernelError::Layout { .. }) if is_wanted => Err(format!(
            "{error}. What was recorded cannot be written as evidence; without --evidence it is removed, and there is none of it"
        )
        .into()),
        SessionError::Kernel(error @ KernelError::Layout { .. }) => Ok(error.to_string()),
        error => Err(error.into()),
    }
}

/// Removes what is left of an attachment whose programs hold nothing any more, or whose records cannot be read.
fn remove_left(id: &str, said: &str, lock: Lock) -> Result<u8, Failure> {
    let waiting = Maps::open(&pin_root().join(id)).map_or(0, |maps| maps.pending().len());
    Attachment::detach(id)?;
    State::remove(id);
    drop(lock);
    output::note(said);
    if waiting > 0 {
        // Nobody can sign for them any more; the evidence of the killed server is seen to be truncated.
        output::note(&format!("{waiting} flows were waiting for a receipt and have none"));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_an_attachment_is_taken() {
        assert_eq!(parse_id("cg-5"), Ok(5));
        for text in ["", "5", "cg-", "cg-05", "cg-+5", "cg-5/..", "../cg-5", "cg--1", "cg-18446744073709551616"] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_will_never_be_read_is_removed_unread() {
        let other = || SessionError::Kernel(KernelError::Layout { id: "cg-5".into(), found: "1".into() });
        assert!(nothing_to_read(other(), false).is_ok_and(|why| why.contains("another version")));
        assert!(nothing_to_read(other(), true).is_err_and(|failure| failure.text.contains("--evidence")));
        let few = || KernelError::File { path: "x".into(), source: std::io::Error::from_raw_os_error(libc::EMFILE) };
        for error in [SessionError::Unrest, SessionError::Kernel(few())] {
            assert!(nothing_to_read(error, false).is_err());
        }
    }

    #[test]
    fn the_evidence_is_looked_for_in_the_folder_that_was_opened() {
        let above = tempfile::tempdir().expect("a folder");
        let (path, aside) = (above.path().join("evidence"), above.path().join("aside"));
        let held = || {
            Folder::make(&path).expect("a folder");
            Folder::open(&path).expect("opened")
        };
        // What somebody put in its place is not believed.
        let folder = held();
        std::fs::rename(&path, &aside).expect("moved");
        Folder::make(&path).and_then(|other| other.create(DOCUMENT)).expect("another");
        let told = said(Ok(folder)).expect_err("the evidence is not complete");
        assert!(told.text.contains(&aside.display().to_string()), "{}", told.text);
        // What was moved is found.
        std::fs::remove_dir_all(&path).expect("removed");
        let folder = held();
        std::fs::remove_dir(&aside).expect("removed");
        std::fs::rename(&path, &aside).expect("moved");
        std::fs::write(aside.join(DOCUMENT), "").expect("written");
        assert_eq!(said(Ok(folder)).expect("complete"), 0);
        assert!(said(Folder::open(&path)).is_err_and(|failure| failure.text.contains("detached")));
    }
}
