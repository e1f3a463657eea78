//! `pipelock attach`, `reload` and `detach`: the same enforcement for a cgroup that exists.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::daemon::{Readiness, daemonize};
use super::run::RequireLevel;
use super::{Failure, keys, output};
use crate::app::state::State;
use crate::app::{Ended, Namespace, Recorded, Serving, Session, SessionConfig};
use crate::kernel::{Attachment, Level, Pinned, attachment_id};
use crate::policy::{Listen, Policy};
use crate::sandbox::caps::{Cap, drop_after_load};
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::held::{HeldOptions, settle};
use crate::sandbox::netns::{in_netns, netns_of};

/// How often the cgroup is looked for.
const WATCH: Duration = Duration::from_millis(500);
/// How long the processes may take to stop while their cgroup is taken over.
const FREEZE: Duration = Duration::from_secs(2);
/// How long a server may take to write its last receipts.
const DETACH_TIMEOUT: Duration = Duration::from_secs(30);

/// Attach to a cgroup that exists: a container, a CI step, a systemd scope.
///
/// The processes in it keep running and are enforced from now on; network sockets they already hold are destroyed, and the
/// attach is refused (and said) when one cannot be. Stays in the foreground until SIGTERM or SIGINT, or until the cgroup is
/// removed; then detaches and completes the evidence. If the proxy of an earlier attach was killed, its pinned programs are
/// taken over without a gap, and the evidence says so. SIGHUP reads the policy again. Needs root.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sudo pipelock attach --cgroup /sys/fs/cgroup/system.slice/agent.service --policy p.yaml\n  \
                        sudo pipelock attach --cgroup \"$CGROUP\" --policy p.yaml --detach && … && sudo pipelock detach --cgroup \"$CGROUP\""
)]
pub(super) struct Args {
    /// The cgroup's folder.
    #[arg(long, value_name = "PATH")]
    cgroup: PathBuf,
    /// The policy file; without one nothing is allowed.
    #[arg(long, short, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where the evidence goes; must not hold any yet [default: ./pipelock-evidence/ATTACHMENT-RUN].
    #[arg(long, short, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// The key that signs (see keygen); without one a key is made for this run only.
    #[arg(long, short, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Refuse to attach when this kernel gives less.
    #[arg(long, value_enum, default_value = "full")]
    require_level: RequireLevel,
    /// Attach even when a process holds a socket that can be neither destroyed nor enforced; the evidence says so.
    #[arg(long)]
    force: bool,
    /// Go into the background once everything is in force; `pipelock detach` ends it.
    #[arg(long)]
    detach: bool,
    /// Where --detach writes the process id.
    #[arg(long, value_name = "FILE", requires = "detach")]
    pid_file: Option<PathBuf>,
}

/// End an attachment: detach the programs and complete the evidence.
///
/// If its proxy is dead, this takes its place for a moment and writes what the kernel recorded meanwhile into evidence of
/// its own, so that detaching is never silent. Needs root.
#[derive(Debug, clap::Args)]
pub(super) struct DetachArgs {
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

/// Make an attachment read its policy file again.
///
/// A policy with mistakes changes nothing: the old one stays in force, and the log says why. Needs root.
#[derive(Debug, clap::Args)]
pub(super) struct ReloadArgs {
    /// The cgroup's folder.
    #[arg(long, value_name = "PATH")]
    cgroup: PathBuf,
}

pub(super) fn attach(args: Args) -> Result<u8, Failure> {
    let policy = keys::policy(args.policy.as_deref())?;
    keys::warn(&policy);
    let key = keys::signing_key(args.key.as_deref())?;
    let cgroup = Cgroup::open(&args.cgroup)?;
    if cgroup.contains_self()? {
        return Err(Failure::usage(format!(
            "{} holds this very process, and the proxy must stay outside; attach to a cgroup of the agent's own",
            args.cgroup.display()
        )));
    }
    let id = attachment_id(cgroup.id());
    if let Some(state) = State::read(&id).filter(State::is_alive) {
        return Err(format!("{} is attached already, by process {}", args.cgroup.display(), state.pid).into());
    }
    let evidence = evidence_folder(args.evidence, &id)?;
    let readiness = if args.detach { Some(daemonize(&evidence, args.pid_file.as_deref())?) } else { None };
    match serve(&cgroup, policy, key, evidence, args.require_level.into(), args.force, readiness.as_ref()) {
        Ok(ended) => {
            tell(&ended);
            Ok(0)
        }
        Err(failure) => {
            if let Some(readiness) = &readiness {
                readiness.failed(&failure.text);
            }
            Err(failure)
        }
    }
}

fn serve(
    cgroup: &Cgroup,
    policy: Policy,
    key: pipelock_receipt::SigningKey,
    evidence: PathBuf,
    require: Level,
    force: bool,
    readiness: Option<&Readiness>,
) -> Result<Ended, Failure> {
    let source = policy.source().to_owned();
    let recorded = prepare(cgroup, policy, key, evidence, require, force)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut told = signal(SignalKind::from_raw(reload_signal()))?;
        let mut serving = recorded.serve()?;
        tell_start(&serving, cgroup);
        if let Some(readiness) = readiness {
            readiness.ready();
        }
        let mut watch = tokio::time::interval(WATCH);
        let reason = loop {
            tokio::select! {
                _ = terminate.recv() => break "detached",
                _ = interrupt.recv() => break "detached",
                _ = hangup.recv() => reload_policy(&mut serving, &source),
                _ = told.recv() => reload_policy(&mut serving, &source),
                _ = watch.tick() => if !cgroup.path().exists() { break "cgroup removed" },
            }
        };
        Ok(serving.end(reason).await?)
    })
}

fn prepare(
    cgroup: &Cgroup,
    policy: Policy,
    key: pipelock_receipt::SigningKey,
    evidence: PathBuf,
    require: Level,
    force: bool,
) -> Result<Recorded, Failure> {
    // The count of what a dead proxy left starts at one moment, which never comes while the agent goes on connecting.
    let stopped = match Attachment::pinned(&attachment_id(cgroup.id())) {
        Pinned::Live(_) => Some(cgroup.freeze(FREEZE)?),
        Pinned::Absent | Pinned::Dead => None,
    };
    let namespaces = namespaces(cgroup)?;
    let keep_listeners = policy.listen() == Listen::Any;
    let session = Session::prepare(SessionConfig {
        mode: "attach",
        cgroup: File::from(cgroup.fd().try_clone_to_owned()?),
        cgroup_path: cgroup.path().to_owned(),
        cgroup_id: cgroup.id(),
        require,
        policy,
        evidence,
        namespaces,
    })?;
    // What the processes already hold was opened without us. New sockets are caught already, so nothing slips between.
    let held = match settle(cgroup, HeldOptions { force, keep_listeners }) {
        Ok(held) => held,
        Err(error) => {
            session.abandon();
            return Err(error.into());
        }
    };
    drop(stopped);
    for socket in &held {
        output::note(&socket.to_string());
    }
    let held: Vec<String> = held.iter().map(ToString::to_string).collect();
    let recorded = session.record(key, serde_json::json!({ "held_sockets": held, "forced": force }), None)?;
    drop_after_load(&[Cap::DacOverride])?;
    Ok(recorded)
}

/// Listeners in our own network namespace and in each other one that the cgroup's processes are in.
fn namespaces(cgroup: &Cgroup) -> Result<Vec<Namespace>, Failure> {
    let bind = |error: std::io::Error| format!("binding on loopback: {error}");
    let mut found = vec![Namespace::bind().map_err(bind)?];
    let (own, _) = netns_of(i32::try_from(std::process::id())?)?;
    let mut known = BTreeSet::from([own]);
    for pid in cgroup.procs()? {
        // A process that has just ended needs no listeners.
        let Ok((inode, namespace)) = netns_of(pid) else { continue };
        if known.insert(inode) {
            found.push(in_netns(namespace.as_fd(), Namespace::bind)?.map_err(bind)?);
        }
    }
    Ok(found)
}

/// The signal by which `pipelock reload` speaks to a server: SIGHUP will not do, since `run` passes that on to its command.
pub(super) fn reload_signal() -> i32 {
    libc::SIGRTMIN() + 2
}

/// Reads the policy file again; mistakes are logged and change nothing.
pub(super) fn reload_policy(serving: &mut Serving, source: &str) {
    match Policy::load(Path::new(source)) {
        Ok(policy) => {
            if let Err(error) = serving.reload(policy) {
                tracing::error!(%error, "the policy was not changed");
            }
        }
        Err(errors) => tracing::error!("the policy was not changed:\n{errors}"),
    }
}

pub(super) fn reload(args: &ReloadArgs) -> Result<u8, Failure> {
    let cgroup = Cgroup::open(&args.cgroup)?;
    let id = attachment_id(cgroup.id());
    let state = State::read(&id)
        .filter(State::is_alive)
        .ok_or_else(|| format!("nobody serves {}; see pipelock status", args.cgroup.display()))?;
    Policy::load(Path::new(&state.policy)).map_err(Failure::usage)?;
    // SAFETY: plain numbers; the process was just seen to be the one that wrote the state.
    if unsafe { libc::kill(state.pid, reload_signal()) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    output::note(&format!("told process {} to read {} again", state.pid, state.policy));
    Ok(0)
}

pub(super) fn detach(args: DetachArgs) -> Result<u8, Failure> {
    let cgroup = Cgroup::open(&args.cgroup)?;
    let id = attachment_id(cgroup.id());
    if let Some(state) = State::read(&id).filter(State::is_alive) {
        if state.mode == "run" {
            return Err(format!("{} belongs to `pipelock run` (process {}); end its command", id, state.pid).into());
        }
        kill(Pid::from_raw(state.pid), Signal::SIGTERM)?;
        let deadline = Instant::now() + DETACH_TIMEOUT;
        while state.is_alive() {
            if Instant::now() > deadline {
                return Err(format!("process {} has not ended in {DETACH_TIMEOUT:?}", state.pid).into());
            }
            std::thread::sleep(Duration::from_millis(10));
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
            let evidence = evidence_folder(args.evidence, &id)?;
            let recorded = prepare(&cgroup, Policy::deny_all(), key, evidence, Level::Redirect, true)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let ended = runtime.block_on(async {
                Ok::<_, Failure>(recorded.serve()?.end("detached after the proxy was lost").await?)
            })?;
            output::note("the proxy was dead; what the kernel recorded meanwhile is in evidence of its own");
            tell(&ended);
            Ok(0)
        }
    }
}

fn evidence_folder(given: Option<PathBuf>, id: &str) -> Result<PathBuf, Failure> {
    let folder = match given {
        Some(folder) => folder,
        None => PathBuf::from("pipelock-evidence").join(format!("{id}-{}", keys::run_id()?)),
    };
    Ok(std::path::absolute(folder)?)
}

fn tell_start(serving: &Serving, cgroup: &Cgroup) {
    let attachment = serving.attachment();
    let how = if attachment.taken_over { "taken over from a proxy that is gone" } else { "attached" };
    output::note(&format!(
        "{} {how}: level {}, {} hooks",
        cgroup.path().display(),
        attachment.level,
        attachment.hooks.len()
    ));
}

fn tell(ended: &Ended) {
    output::note(&format!(
        "{} flows: {} allowed, {} denied; {} receipts in {}",
        ended.flows,
        ended.allowed,
        ended.flows - ended.allowed,
        ended.summary.closed.receipt_count,
        ended.summary.folder.display()
    ));
}
