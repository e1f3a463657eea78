//! `pipelock attach`: the same enforcement as `run` for a cgroup that exists.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use pipelock_receipt::Folder;
use tokio::signal::unix::{SignalKind, signal};

use super::daemon::{Readiness, daemonize};
use super::prompt::{self, Agent, Terminal};
use super::reload::{reload_policy, reload_signal};
use super::session::{SessionArgs, refuse_nested};
use super::{Failure, output};
use crate::app::lock::Lock;
use crate::app::state::{self, State};
use crate::app::{Ended, Environment, Namespace, Recorded, Serving, Session, SessionConfig, runtime};
use crate::kernel::{Attachment, Level, Pinned, attachment_id};
use crate::policy::{Listen, Policy};
use crate::recorder::Place;
use crate::sandbox::caps::{Cap, drop_after_load, held_by};
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::environ::Environments;
use crate::sandbox::held::{HeldError, HeldOptions, settle};
use crate::sandbox::limits;
use crate::sandbox::netns::{in_netns, netns_of};
use crate::telemetry;

/// How often the cgroup is looked for.
const WATCH: Duration = Duration::from_millis(500);
/// How long the processes may take to stop while their cgroup is taken over.
const FREEZE: Duration = Duration::from_secs(2);

/// How often the sockets that processes hold are looked at before the attach is refused for them, and how far apart.
const SETTLE_TRIES: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(10);

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
    #[command(flatten)]
    session: SessionArgs,
    /// Attach even when a process holds a socket that can be neither destroyed nor enforced; the evidence says so.
    #[arg(long)]
    force: bool,
    /// Go into the background once everything is in force; `pipelock detach` ends it.
    #[arg(long)]
    detach: bool,
    /// Where --detach writes the process id [default: /run/pipelock/ATTACHMENT.pid].
    #[arg(long, value_name = "FILE", requires = "detach")]
    pid_file: Option<PathBuf>,
}

pub(super) fn attach(args: Args) -> Result<u8, Failure> {
    limits::prepare()?;
    let policy = args.session.policy(false)?;
    let key = args.session.key()?;
    let cgroup = Cgroup::open(&args.cgroup)?;
    if cgroup.contains_self()? {
        return Err(Failure::usage(format!(
            "{} holds this very process, and the proxy must stay outside; attach to a cgroup of the agent's own",
            args.cgroup.display()
        )));
    }
    let id = attachment_id(cgroup.id());
    if let Some(state) = State::read(&id).filter(|state| state.server().is_some()) {
        return Err(format!("{} is attached already, by process {}", args.cgroup.display(), state.pid).into());
    }
    // Before the evidence folder is made: who comes second leaves none.
    let lock = Lock::take(&id)?;
    refuse_nested(&cgroup)?;
    let path = args.session.evidence(&id)?;
    let pid_file = args.pid_file.unwrap_or_else(|| state::pid_file(&id));
    let (evidence, readiness) = if args.detach {
        let folder = Folder::make(&path)?;
        let readiness = daemonize(&folder, &pid_file)?;
        (Place::Held(folder), Some(readiness))
    } else {
        (Place::At(path), None)
    };
    let plan = Plan { policy, key, evidence, require: args.session.level(), force: args.force, lock };
    match serve(&cgroup, plan, readiness.as_ref()) {
        Ok(ended) => {
            output::ended(&ended);
            output::moved(&ended.summary.folder, ended.moved_from.as_deref());
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

/// How to attach.
pub(super) struct Plan {
    pub(super) policy: Policy,
    pub(super) key: pipelock_receipt::SigningKey,
    pub(super) evidence: Place,
    /// Refuse below this level.
    pub(super) require: Level,
    /// Also when sockets are held that cannot be enforced.
    pub(super) force: bool,
    pub(super) lock: Lock,
}

fn serve(cgroup: &Cgroup, plan: Plan, readiness: Option<&Readiness>) -> Result<Ended, Failure> {
    let file = plan.policy.file().map(Path::to_owned);
    // Until there are handlers, a signal waits: its default action would end us between attaching and serving.
    let awaited: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    awaited.thread_block()?;
    let recorded = prepare(cgroup, plan)?;
    let served = runtime::run(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut told = signal(SignalKind::from_raw(reload_signal()))?;
        awaited.thread_unblock()?;
        let mut serving = recorded.serve()?;
        Terminal::of(Agent::Attached(cgroup)).into_iter().for_each(|terminal| serving.ask_at(terminal));
        tell_start(&serving, cgroup);
        if let Some(readiness) = readiness {
            // Who waits for that may look at once for what was said before.
            telemetry::flush();
            readiness.ready();
        }
        let mut watch = tokio::time::interval(WATCH);
        let mut is_recording = true;
        let reason = loop {
            tokio::select! {
                _ = terminate.recv() => break "detached",
                _ = interrupt.recv() => break "detached",
                _ = hangup.recv() => reload_policy(&mut serving, file.as_deref()),
                _ = told.recv() => reload_policy(&mut serving, file.as_deref()),
                () = serving.evidence_lost(), if is_recording => is_recording = false,
                _ = watch.tick() => {
                    if !cgroup.path().exists() {
                        break "cgroup removed";
                    }
                    serving.check_pins();
                }
            }
        };
        Ok(serving.end(reason).await?)
    });
    prompt::settle();
    served?
}

/// Attaches, settles what the processes hold, and opens the chain; also for `detach` when the proxy is dead.
pub(super) fn prepare(cgroup: &Cgroup, plan: Plan) -> Result<Recorded, Failure> {
    let Plan { policy, key, evidence, require, force, lock } = plan;
    // The count of what a dead proxy left starts at one moment, which never comes while the agent goes on connecting.
    let stopped = match Attachment::pinned(&attachment_id(cgroup.id()))? {
        Pinned::Live(_) => Some(cgroup.freeze(FREEZE)?),
        Pinned::Absent | Pinned::Dead => None,
    };
    let namespaces = namespaces(cgroup)?;
    // Also where nothing is scanned, or nothing of it looked for: a reload may want that, and they are read only once.
    let environments = Environments::of(&cgroup.procs()?);
    if let Some(pid) = environments.unread.first().filter(|_| policy.dlp().scan_env) {
        output::note(&format!(
            "warning: the environment of process {pid} (of {} in all) could not be read to its end; name its secrets under \
             dlp.secrets_files",
            environments.unread.len()
        ));
    }
    let keep_listeners = policy.listen() == Listen::Any;
    let session = Session::prepare(SessionConfig {
        lock,
        ours: None,
        mode: "attach",
        cgroup: File::from(cgroup.fd().try_clone_to_owned()?),
        cgroup_path: cgroup.path().to_owned(),
        cgroup_id: cgroup.id(),
        require,
        policy,
        environment: Environment::Of(environments.variables.into()),
        namespaces,
    })?;
    // What the processes already hold was opened without us. New sockets are caught already, so nothing slips between.
    // A process that was just about to connect is no reason to refuse: it is let run on and looked at again.
    drop(stopped);
    let mut tries = 0;
    let held = loop {
        match settle(cgroup, HeldOptions { force, keep_listeners }, &mut |kept| session.adopt(kept)) {
            Ok(held) => break held,
            Err(HeldError::Refused(_)) if tries < SETTLE_TRIES => {
                tries += 1;
                std::thread::sleep(SETTLE_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    };
    for socket in &held {
        output::note(&socket.to_string());
    }
    let held: Vec<String> = held.iter().map(ToString::to_string).collect();
    let able = able_to_go_round(cgroup)?;
    if let Some(process) = able.first() {
        let more = match able.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        output::note(&format!(
            "warning: {process}{more} can send packets that no hook of a cgroup sees, or leave the cgroup; take these \
             capabilities from what runs there (--cap-drop NET_RAW of a container, CapabilityBoundingSet= of a unit), or use \
             `pipelock run`",
        ));
    }
    let confinement = serde_json::json!({
        "held_sockets": held,
        "forced": force,
        "able_to_go_round": able,
        // What the hooks of a cgroup cannot see; `run` closes it by other means.
        "not_confined": "processes with CAP_NET_RAW, CAP_SYS_ADMIN or the right to write the cgroup tree can send packets of \
                         their own or leave the cgroup",
    });
    let recorded = session.record(evidence, key, confinement, None)?;
    drop_after_load(&[Cap::DacOverride])?;
    Ok(recorded)
}

/// The processes whose capabilities lead round the hooks of a cgroup, as `pid (capabilities)`.
fn able_to_go_round(cgroup: &Cgroup) -> Result<Vec<String>, Failure> {
    let mut able = Vec::new();
    for pid in cgroup.procs()? {
        let held = held_by(pid, &[Cap::NetRaw, Cap::SysAdmin])?;
        if !held.is_empty() {
            let name = |cap: &Cap| if *cap == Cap::NetRaw { "CAP_NET_RAW" } else { "CAP_SYS_ADMIN" };
            able.push(format!("process {pid} ({})", held.iter().map(name).collect::<Vec<_>>().join(", ")));
        }
    }
    Ok(able)
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
