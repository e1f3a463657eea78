//! Sets an attachment up: programs, listeners, policy in the kernel, the chain's first receipt, the tasks that serve.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipelock_common::{Config, KernelReason, LAYOUT, SockState, sock_flag};
use pipelock_receipt::SigningKey;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::sync::watch as latest;

use super::addresses::follow_addresses;
use super::capsule::{Facts, capsule};
use super::denials::Denials;
use super::flows::{Base, settle_base, write_flows};
use super::inspection::Environment;
use super::joints::{DnsReceipts, Generations, KernelOrigins, PolicyNames, RulesLookup};
use super::listeners::Namespace;
use super::lock::Lock;
use super::server::start_time;
use super::serving::Serving;
use super::state::{FOLDER, State};
use super::tls::enforced;
use super::trust::TrustFolder;
use super::watch::{self, Kernel, Watch, Watched};
use crate::flow::PolicyId;
use crate::inspect::InspectionError;
use crate::kernel::{Attachment, KernelError, Ledger, Level, Maps, Plan, finished_flows};
use crate::policy::{Listen, Policy};
use crate::proxy::dns::{DnsState, Pool, SeenNames, serve_tcp, serve_udp};
use crate::proxy::{CaError, Proxy, Rules, Trust, serve};
use crate::recorder::{OpenChain, Place, RecorderConfig, RecorderError};
use crate::sandbox::cgroup::{Cgroup, CgroupError};
use crate::sandbox::held::KeptSocket;
use crate::sandbox::served::AgentSockets;
use crate::telemetry::{Door, DoorError};

/// Why a session could not be set up or ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The kernel's side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A map could not be filled.
    #[error("the policy could not be put into the kernel: {0}")]
    Maps(#[from] aya::maps::MapError),
    /// The agent's cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The listeners.
    #[error("the proxy's listeners on loopback could not be bound: {0}")]
    Listen(#[source] std::io::Error),
    /// The folder of the state files.
    #[error("{FOLDER} cannot be made or written: {0}")]
    State(#[source] std::io::Error),
    /// What a former proxy left keeps changing.
    #[error("the kernel's counters do not come to rest; stop the agent and try again")]
    Unrest,
    /// A policy for clients of the explicit proxy alone.
    #[error(
        "default_deny: false is for clients of the explicit proxy (pipelock run without a command): the kernel denies what no \
         rule names. Remove it, and name the destinations under egress"
    )]
    DefaultAllow,
    /// The evidence.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// Where metrics can be read.
    #[error(transparent)]
    Metrics(#[from] DoorError),
    /// What TLS is opened with.
    #[error("TLS cannot be opened: {0}")]
    Tls(#[from] CaError),
    /// What the next hop is told of who asks.
    #[error(transparent)]
    NextHop(#[from] crate::net::LoginError),
    /// The secret of the webhook that is asked.
    #[error(transparent)]
    Webhook(#[from] crate::proxy::SecretError),
    /// What was hidden from a command is not any more.
    #[error(
        "{}: another file has taken its place, which was not hidden from the command: change what is in it, and start the command anew",
        .0.display()
    )]
    Shown(PathBuf),
    /// What a command has, its policy cannot keep from it any more.
    #[error(
        "{key}_env: the command was started with {name} in its environment; name a file instead ({key}_file), or start the command \
         anew"
    )]
    GivenAway {
        /// The key of the policy, without its end.
        key: &'static str,
        /// The variable.
        name: String,
    },
    /// What is looked for in contents.
    #[error(transparent)]
    Inspection(#[from] InspectionError),
    /// The files that the agent's programs read.
    #[error("the files by which the agent's programs trust pipelock cannot be written below /run: {0}")]
    Trust(#[source] std::io::Error),
    /// The pool of addresses.
    #[error("no random numbers for the address pool: {0}")]
    Pool(#[from] crate::proxy::dns::PoolError),
    /// The folder's other files.
    #[error("the evidence folder is incomplete: {0}")]
    Folder(#[from] pipelock_receipt::FolderError),
}

/// What a session is made from.
pub struct SessionConfig {
    /// `run` or `attach`.
    pub mode: &'static str,
    /// The open folder of the cgroup.
    pub cgroup: File,
    /// Its path, for the evidence.
    pub cgroup_path: PathBuf,
    /// Its id.
    pub cgroup_id: u64,
    /// Refuse below this level.
    pub require: Level,
    /// The policy.
    pub policy: Policy,
    /// What the agent has in its environment.
    pub environment: Environment,
    /// What the namespaces of the agent are, besides our own: listeners already bound in them.
    pub namespaces: Vec<Namespace>,
    /// The lock of the attachment, taken before anything was looked at.
    pub lock: Lock,
    /// The cgroup, if all that lives in it is ours to end (`run`).
    pub ours: Option<Cgroup>,
}

/// How long the processes of a cgroup of ours may take to die.
const KILL: Duration = Duration::from_secs(10);

/// Detaches what was attached anew when it is dropped: whatever the error on the way to serving it, no cgroup stays closed
/// with nobody to serve it. What was taken over from a former proxy stays closed.
///
/// The agent of a `run` is ended before: it is never free, not for the moment until somebody else ends it. If it cannot be
/// ended, it stays closed in.
pub(super) struct Undo {
    id: Option<String>,
    ours: Option<Cgroup>,
}

impl Undo {
    pub(super) fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(id) = &self.id else { return };
        if let Some(cgroup) = &self.ours
            && let Err(error) = cgroup.end(KILL)
        {
            tracing::error!(%error, id, "the command cannot be ended, so the programs stay attached");
            return;
        }
        let _ = Attachment::detach(id);
        State::remove(id);
    }
}

/// Programs attached, listeners bound, kernel filled; nothing recorded and nothing served yet. Dropped, it is detached
/// again, unless the state of a former proxy was taken over.
pub struct Session {
    attachment: Attachment,
    maps: Arc<Maps>,
    namespaces: Vec<Namespace>,
    rules: Rules,
    /// Where metrics can be read, bound already.
    door: Option<Door>,
    environment: Environment,
    agent: Arc<AgentSockets>,
    mode: &'static str,
    cgroup_path: PathBuf,
    cgroup_id: u64,
    base: Base,
    generation: u32,
    /// The last generation of a former proxy that its state file names, and the hash of that policy.
    former_policy: Option<(u32, String)>,
    /// Before the lock, so that it is done under it.
    undo: Undo,
    /// Held while the attachment is served, so that two never serve it at once.
    lock: Lock,
}

impl Session {
    /// Attaches and makes everything ready. From here on the cgroup is closed: it reaches the listeners and nothing else.
    ///
    /// # Errors
    /// [`SessionError`]; then nothing is left attached that was not attached before.
    pub fn prepare(config: SessionConfig) -> Result<Self, SessionError> {
        let plan = Plan { cgroup_id: config.cgroup_id, require: config.require };
        // First: nothing is attached when a file is missing.
        let agent = Arc::new(AgentSockets::of(Cgroup::open(&config.cgroup_path)?));
        let rules = enforced(config.policy, None, &config.environment, &agent)?;
        let door = watch::door(&rules.policy)?;
        State::try_room(&plan.id()).map_err(SessionError::State)?;
        let (attachment, maps) = Attachment::attach(&config.cgroup.as_fd(), &plan)?;
        let id = attachment.id.clone();
        let undo = Undo { id: (!attachment.taken_over).then(|| id.clone()), ours: config.ours };
        let session = Self {
            attachment,
            maps: Arc::new(maps),
            namespaces: config.namespaces,
            rules,
            door,
            environment: config.environment,
            agent,
            mode: config.mode,
            cgroup_path: config.cgroup_path,
            cgroup_id: config.cgroup_id,
            base: Base::default(),
            generation: 1,
            former_policy: State::read(&id).map(|state| (state.generation, state.policy_hash)),
            undo,
            lock: config.lock,
        };
        session.fill()
    }

    fn fill(mut self) -> Result<Self, SessionError> {
        if self.attachment.taken_over {
            self.base = settle_base(&self.maps)?;
        }
        self.maps.give_back(self.base.settled);
        self.maps.keep_rest()?;
        // Flows that a former proxy left carry its generations; ours come after.
        self.generation = self.maps.config()?.generation.saturating_add(1);
        apply(&self.maps, &self.rules.policy, self.generation)?;
        for namespace in &self.namespaces {
            self.maps.set_own(namespace.cookie, &namespace.own)?;
            self.maps.serve(namespace.cookie, namespace.ports, &namespace.sockets())?;
        }
        Ok(self)
    }

    /// The attachment.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Files by which the agent's programs trust the authority; none when TLS is not opened under this policy.
    ///
    /// # Errors
    /// [`SessionError::Tls`], [`SessionError::Trust`].
    pub fn trust(&self) -> Result<Option<TrustFolder>, SessionError> {
        let Some(tls) = &self.rules.tls else { return Ok(None) };
        let trust = Trust::gather(&self.rules.policy, tls.authority())?;
        TrustFolder::write(&self.attachment.id, &trust).map(Some).map_err(SessionError::Trust)
    }

    /// Makes a socket that the agent held before known to the programs as its own: what it listens for may come.
    ///
    /// # Errors
    /// When the kernel does not take the mark.
    pub fn adopt(&self, kept: &KeptSocket<'_>) -> std::io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let pid = u32::try_from(kept.pid).unwrap_or_default();
        let owner = std::fs::metadata(format!("/proc/{pid}")).map(|process| (process.uid(), process.gid()));
        let (uid, gid) = owner.unwrap_or_default();
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(kept.comm.bytes().take(15)) {
            *to = from;
        }
        let listening = if kept.is_listening { sock_flag::LISTENING } else { 0 };
        let flags = sock_flag::AGENT | listening;
        let state = SockState { flags, pid, tgid: pid, uid, gid, comm, cgroup_id: kept.cgroup_id, ..SockState::EMPTY };
        self.maps.adopt(&kept.socket, state).map_err(std::io::Error::other)
    }

    /// Opens the chain in this folder: the first receipt is on disk when this returns. Then the agent may start.
    ///
    /// # Errors
    /// [`SessionError::Recorder`]; the programs are detached again unless they were taken over.
    pub fn record(
        self,
        evidence: Place,
        key: SigningKey,
        confinement: Value,
        contained_uid: Option<u32>,
    ) -> Result<Recorded, SessionError> {
        let facts = Facts {
            mode: self.mode,
            cgroup: self.cgroup_path.display().to_string(),
            cgroup_id: self.cgroup_id,
            policy: &self.rules.policy,
            limits: self.rules.policy.warnings(),
            confinement,
            authority: self.rules.tls.as_ref().map(|tls| tls.authority().fingerprint()),
            taken_over: self.attachment.taken_over.then(|| self.base.pending.iter().map(|(id, _)| *id).collect()),
        };
        let chain = OpenChain::create(RecorderConfig {
            folder: evidence,
            key,
            policy_hash: self.rules.policy.id().to_string(),
            capsule: Some(capsule(&self.attachment, &facts)),
            contained_uid,
        });
        Ok(Recorded { session: self, chain: chain? })
    }
}

/// A session whose chain is open. Dropped, it is detached again as a [`Session`] is, and its chain stays open.
pub struct Recorded {
    session: Session,
    chain: OpenChain,
}

impl Recorded {
    /// Serves: must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn serve(self) -> Result<Serving, SessionError> {
        #[cfg(feature = "debug-ebpf")]
        crate::kernel::follow_log();
        let Self { session, chain } = self;
        let Session {
            attachment,
            maps,
            namespaces,
            rules,
            door,
            environment,
            agent,
            base,
            mode,
            cgroup_path,
            generation,
            former_policy,
            lock,
            // Dropped before the lock is, whatever the error.
            undo,
            ..
        } = session;
        if let Some(inspect) = &rules.inspect {
            // Beside all else, so that the first request need not wait.
            inspect.start();
        }
        let policy = rules.policy.clone();
        let policy_file = policy.file().map(std::path::Path::to_owned);
        let policy_name =
            policy_file.as_deref().map_or_else(|| policy.source().to_owned(), |path| path.display().to_string());
        let policy_hash = policy.id().to_string();
        let public_key = chain.public_key().hex();
        let evidence = chain.folder();
        let (recorder, recorder_thread) = chain.start()?;
        let generations = Arc::new(Generations::default());
        // Of the policies of a former proxy only the last is known; what was decided under others must not name it.
        if let Some((former, policy)) = former_policy.filter(|(former, _)| (1..generation).contains(former)) {
            generations.file(former, PolicyId(policy));
        }
        generations.file(generation, policy.id().clone());
        let pool = Arc::new(Pool::new(policy.dns_max_names())?);
        let seen = Arc::new(SeenNames::default());
        let (rules, watched) = latest::channel(Arc::new(rules));
        let redirected = [KernelReason::Redirect as u8, KernelReason::RedirectDns as u8];
        let orphans = base.pending.iter().filter(|(_, reason)| redirected.contains(reason)).map(|(flow, _)| *flow);
        let ledger = Ledger::new(maps.clone(), base.settled, base.counters.unrecorded, orphans);
        let origins = Arc::new(KernelOrigins {
            maps: maps.clone(),
            pool: pool.clone(),
            seen: seen.clone(),
            generations: generations.clone(),
        });
        let proxy = Proxy::new(watched.clone(), origins, ledger.clone(), recorder.clone());
        let kernel = Some(Kernel::of(&attachment, &maps));
        let watched_by =
            Watched { kernel, proxy: proxy.clone(), recorder: recorder.clone(), evidence: evidence.clone() };
        let watch = Watch::start(watched_by, door)?;
        watch::in_force(&policy, generation);
        let mut tasks = Vec::new();
        for namespace in namespaces {
            let Namespace { cookie, addresses, changes, .. } = namespace;
            tasks.push(tokio::spawn(follow_addresses(maps.clone(), cookie, addresses, changes)));
            for listener in namespace.tcp {
                let listener = tokio::net::TcpListener::from_std(listener).map_err(SessionError::Listen)?;
                tasks.push(tokio::spawn(serve(listener, namespace.cookie, proxy.clone())));
            }
            let log = Arc::new(DnsReceipts::new(
                namespace.cookie,
                namespace.ports,
                maps.clone(),
                ledger.clone(),
                recorder.clone(),
                generations.clone(),
                watched.clone(),
            ));
            let lookup = Arc::new(RulesLookup(watched.clone()));
            let names = Arc::new(PolicyNames(watched.clone()));
            let state = Arc::new(DnsState::new(names, pool.clone(), seen.clone(), lookup, log));
            for dns in namespace.dns {
                for udp in dns.udp {
                    let udp = tokio::net::UdpSocket::from_std(udp).map_err(SessionError::Listen)?;
                    tasks.push(tokio::spawn(serve_udp(Arc::new(udp), state.clone())));
                }
                let tcp = tokio::net::TcpListener::from_std(dns.tcp).map_err(SessionError::Listen)?;
                tasks.push(tokio::spawn(serve_tcp(tcp, state.clone())));
            }
        }
        let (finished_tx, finished_rx) = finished_flows();
        let (stop, stopped) = oneshot::channel::<()>();
        let watching = tokio::spawn(ledger.clone().run(finished_tx, async {
            let _ = stopped.await;
        }));
        let (stop_counting, counted) = oneshot::channel::<()>();
        let denials = Denials::new(maps.clone(), recorder.clone(), generations.clone(), base.reported.clone());
        let counting = tokio::spawn(denials.run(async {
            let _ = counted.await;
        }));
        let (writer, filed) = (recorder.clone(), generations.clone());
        let writing = tokio::spawn(write_flows(finished_rx, writer, ledger.clone(), filed, watched.clone()));
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let state = State {
            id: attachment.id.clone(),
            mode: mode.to_owned(),
            pid,
            pid_start: start_time(pid).unwrap_or(0),
            cgroup: cgroup_path,
            evidence: std::path::absolute(evidence.path()).unwrap_or_else(|_| evidence.path().to_owned()),
            policy: policy_name,
            policy_file,
            policy_hash,
            generation,
            level: attachment.level.to_string(),
            public_key,
            reloads: 0,
            reload_error: None,
            evidence_lost: false,
        };
        if let Err(error) = state.write() {
            tracing::warn!(%error, "status and detach will not find this attachment");
        }
        // A cgroup that existed before us stays closed when we are gone; a command that nobody serves is ended.
        let undo = if undo.ours.is_some() {
            Some(undo)
        } else {
            undo.keep();
            None
        };
        Ok(Serving {
            undo,
            attachment,
            maps,
            rules,
            watch,
            environment,
            agent,
            proxy,
            generations,
            generation,
            lock,
            recorder,
            recorder_thread,
            tasks,
            stop: Some(stop),
            stop_counting: Some(stop_counting),
            counting,
            watching,
            writing,
            base,
            evidence,
            refusals: None,
            refusals_lost: false,
            pins_removed: false,
            shown: Vec::new(),
        })
    }
}

/// Puts a policy into the kernel. The generation first: the programs read it after the ports, so no flow carries an older
/// one than that of the ports it was decided by.
pub(super) fn apply(maps: &Maps, policy: &Policy, generation: u32) -> Result<(), SessionError> {
    let listen_any = u32::from(policy.listen() == Listen::Any);
    maps.set_config(Config { listen_any, generation, layout: LAYOUT })?;
    maps.set_ports(
        policy.ports().iter().map(|range| (range.first(), range.last())),
        policy.loopback_ports().iter().copied(),
    )?;
    Ok(())
}
