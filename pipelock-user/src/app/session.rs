//! One attachment from its opening receipt to its closing one.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pipelock_common::{Config, KernelReason, hook};
use pipelock_receipt::SigningKey;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::capsule::{Facts, capsule};
use super::joints::{DnsReceipts, Generations, KernelOrigins, PolicyNames};
use super::listeners::Namespace;
use super::state::{State, start_time};
use crate::flow::{FlowId, PolicyId, Reason};
use crate::kernel::{Attachment, Counters, Finished, KernelError, Ledger, Level, Maps, Plan, to_flow};
use crate::net::Resolver;
use crate::policy::{Listen, Policy};
use crate::proxy::dns::{DnsState, Pool, SeenNames, serve_tcp, serve_udp};
use crate::proxy::{Proxy, Rules, serve};
use crate::recorder::{
    Capsule, FlowFacts, KernelTotals, OpenChain, Recorder, RecorderConfig, RecorderError, Summary, wall_clock,
};

/// Flows whose receipts are on their way to the disk at a time.
const IN_FLIGHT: usize = 512;
/// How often the host's own addresses are read again.
const ADDRESSES: Duration = Duration::from_secs(5);
/// How long connections may take to end once the agent is gone.
const DRAIN: Duration = Duration::from_millis(300);

/// Why a session could not be set up or ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The kernel's side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A map could not be filled.
    #[error("the policy could not be put into the kernel: {0}")]
    Maps(#[from] aya::maps::MapError),
    /// The listeners.
    #[error("the proxy's listeners on loopback could not be bound: {0}")]
    Listen(#[source] std::io::Error),
    /// The evidence.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// The pool of addresses.
    #[error("no random numbers for the address pool: {0}")]
    Pool(#[from] crate::proxy::dns::PoolError),
    /// The folder's other files.
    #[error("the evidence folder is incomplete: {0}")]
    Folder(#[from] pipelock_receipt::folder::FolderError),
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
    /// The evidence folder.
    pub evidence: PathBuf,
    /// What the namespaces of the agent are, besides our own: listeners already bound in them.
    pub namespaces: Vec<Namespace>,
}

/// Programs attached, listeners bound, kernel filled; nothing recorded and nothing served yet.
pub struct Session {
    attachment: Attachment,
    maps: Arc<Maps>,
    namespaces: Vec<Namespace>,
    policy: Policy,
    evidence: PathBuf,
    mode: &'static str,
    cgroup_path: PathBuf,
    cgroup_id: u64,
    base: Base,
}

/// Where the counting of this session starts: at zero, or where a former proxy ended.
#[derive(Clone, Debug, Default)]
struct Base {
    counters: Counters,
    /// Flows that were recorded by the kernel and not yet by a receipt.
    pending: Vec<(u64, u8)>,
}

impl Session {
    /// Attaches and makes everything ready. From here on the cgroup is closed: it reaches the listeners and nothing else.
    ///
    /// # Errors
    /// [`SessionError`]; then nothing is left attached that was not attached before.
    pub fn prepare(config: SessionConfig) -> Result<Self, SessionError> {
        let plan = Plan { cgroup_id: config.cgroup_id, require: config.require };
        let (attachment, maps) = Attachment::attach(&config.cgroup.as_fd(), &plan)?;
        let is_new = !attachment.taken_over;
        let id = attachment.id.clone();
        let session = Self {
            attachment,
            maps: Arc::new(maps),
            namespaces: config.namespaces,
            policy: config.policy,
            evidence: config.evidence,
            mode: config.mode,
            cgroup_path: config.cgroup_path,
            cgroup_id: config.cgroup_id,
            base: Base::default(),
        };
        match session.fill() {
            Ok(session) => Ok(session),
            Err(error) => {
                if is_new {
                    let _ = Attachment::detach(&id);
                }
                Err(error)
            }
        }
    }

    fn fill(mut self) -> Result<Self, SessionError> {
        if self.attachment.taken_over {
            self.base = settle_base(&self.maps)?;
        }
        apply(&self.maps, &self.policy, 1)?;
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

    /// Detaches again, unless the state of a former proxy was taken over: that stays closed.
    pub fn abandon(self) {
        if !self.attachment.taken_over {
            let _ = Attachment::detach(&self.attachment.id);
        }
    }

    /// Opens the chain: the first receipt is on disk when this returns. Then the agent may start.
    ///
    /// # Errors
    /// [`SessionError::Recorder`]; the programs are detached again unless they were taken over.
    pub fn record(
        self,
        key: SigningKey,
        confinement: Value,
        contained_uid: Option<u32>,
    ) -> Result<Recorded, SessionError> {
        let facts = Facts {
            mode: self.mode,
            cgroup: self.cgroup_path.display().to_string(),
            cgroup_id: self.cgroup_id,
            policy: &self.policy,
            limits: self.policy.warnings(),
            confinement,
            taken_over: self.attachment.taken_over.then(|| self.base.pending.iter().map(|(id, _)| *id).collect()),
        };
        let Capsule(value) = capsule(&self.attachment, &facts);
        let chain = OpenChain::create(RecorderConfig {
            folder: self.evidence.clone(),
            key,
            policy_hash: self.policy.id().to_string(),
            capsule: Some(Capsule(value)),
            contained_uid,
        });
        match chain {
            Ok(chain) => Ok(Recorded { session: self, chain }),
            Err(error) => {
                if !self.attachment.taken_over {
                    let _ = Attachment::detach(&self.attachment.id);
                }
                Err(error.into())
            }
        }
    }
}

/// A session whose chain is open.
pub struct Recorded {
    session: Session,
    chain: OpenChain,
}

impl Recorded {
    /// Detaches again: for when the agent cannot be started.
    pub fn abandon(self) {
        let _ = Attachment::detach(&self.session.attachment.id);
    }

    /// Serves: must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn serve(self) -> Result<Serving, SessionError> {
        let Self { session, chain } = self;
        let Session { attachment, maps, namespaces, policy, base, evidence, mode, cgroup_path, .. } = session;
        let policy_source = policy.source().to_owned();
        let policy_hash = policy.id().to_string();
        let public_key = chain.public_key().hex();
        let (recorder, recorder_thread) = chain.start()?;
        let generations = Arc::new(Generations::default());
        generations.file(1, policy.id().clone());
        let pool = Arc::new(Pool::new(policy.dns_max_names())?);
        let seen = Arc::new(SeenNames::default());
        let (rules, watched) = watch::channel(Arc::new(rules_of(policy)));
        let ledger = Ledger::new(maps.clone());
        let origins = Arc::new(KernelOrigins {
            maps: maps.clone(),
            pool: pool.clone(),
            seen: seen.clone(),
            generations: generations.clone(),
        });
        let proxy = Proxy::new(watched.clone(), origins, ledger.clone(), recorder.clone());
        let mut tasks = Vec::new();
        let mut cookies = Vec::new();
        for namespace in namespaces {
            cookies.push(namespace.cookie);
            for listener in namespace.tcp {
                let listener = tokio::net::TcpListener::from_std(listener).map_err(SessionError::Listen)?;
                tasks.push(tokio::spawn(serve(listener, namespace.cookie, proxy.clone())));
            }
            let log = Arc::new(DnsReceipts::new(
                namespace.cookie,
                maps.clone(),
                ledger.clone(),
                recorder.clone(),
                generations.clone(),
            ));
            let lookup = Arc::new(RulesLookup(watched.clone()));
            let names = Arc::new(PolicyNames(watched.clone()));
            let state = Arc::new(DnsState::new(names, pool.clone(), seen.clone(), lookup, log));
            for dns in namespace.dns {
                let udp = tokio::net::UdpSocket::from_std(dns.udp).map_err(SessionError::Listen)?;
                let tcp = tokio::net::TcpListener::from_std(dns.tcp).map_err(SessionError::Listen)?;
                tasks.push(tokio::spawn(serve_udp(Arc::new(udp), state.clone())));
                tasks.push(tokio::spawn(serve_tcp(tcp, state.clone())));
            }
        }
        let (finished_tx, finished_rx) = Ledger::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let watching = tokio::spawn(ledger.clone().run(finished_tx, async {
            let _ = stopped.await;
        }));
        let writing = tokio::spawn(write_flows(finished_rx, recorder.clone(), ledger.clone(), generations.clone()));
        // Our own namespace is the one that can be read again without leaving it.
        if let Some(cookie) = cookies.first().copied() {
            tasks.push(tokio::spawn(follow_addresses(maps.clone(), cookie)));
        }
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let state = State {
            id: attachment.id.clone(),
            mode: mode.to_owned(),
            pid,
            pid_start: start_time(pid).unwrap_or(0),
            cgroup: cgroup_path,
            evidence: std::path::absolute(&evidence).unwrap_or_else(|_| evidence.clone()),
            policy: policy_source,
            policy_hash,
            level: attachment.level.to_string(),
            public_key,
        };
        if let Err(error) = state.write() {
            tracing::warn!(%error, "status and detach will not find this attachment");
        }
        Ok(Serving {
            attachment,
            maps,
            rules,
            generations,
            generation: 1,
            recorder,
            recorder_thread: Some(recorder_thread),
            tasks,
            stop: Some(stop),
            watching,
            writing,
            base,
            evidence,
        })
    }
}

/// A session in service.
pub struct Serving {
    attachment: Attachment,
    maps: Arc<Maps>,
    rules: watch::Sender<Arc<Rules>>,
    generations: Arc<Generations>,
    generation: u32,
    recorder: Recorder,
    recorder_thread: Option<std::thread::JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    stop: Option<oneshot::Sender<()>>,
    watching: JoinHandle<()>,
    writing: JoinHandle<FlowTally>,
    base: Base,
    evidence: PathBuf,
}

/// What a session came to.
#[derive(Debug)]
pub struct Ended {
    /// The chain.
    pub summary: Summary,
    /// The kernel's counters.
    pub counters: Counters,
    /// Flows with a receipt.
    pub flows: u64,
    /// Of these, allowed.
    pub allowed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct FlowTally {
    flows: u64,
    allowed: u64,
    lost: u64,
}

impl Serving {
    /// The attachment.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// The maps: for `status`.
    #[must_use]
    pub fn maps(&self) -> &Arc<Maps> {
        &self.maps
    }

    /// Puts another policy in force: the kernel first, then the proxy. Links are not touched.
    ///
    /// # Errors
    /// [`SessionError::Maps`]: the old policy stays in force in the proxy.
    pub fn reload(&mut self, policy: Policy) -> Result<(), SessionError> {
        let generation = self.generation.saturating_add(1);
        // Filed before any flow can carry the number.
        self.generations.file(generation, policy.id().clone());
        apply(&self.maps, &policy, generation)?;
        self.generation = generation;
        tracing::info!(policy = %policy.id(), generation, "policy in force");
        self.rules.send_replace(Arc::new(rules_of(policy)));
        Ok(())
    }

    /// Ends the session: detaches, writes the last receipts, closes the chain, completes the folder.
    ///
    /// The agent should be gone; what it still holds loses the way out when the listeners close, before the programs go.
    ///
    /// # Errors
    /// [`SessionError`]; the programs are detached in any case, and the chain ends where it broke.
    pub async fn end(mut self, reason: &str, mut is_gone: impl FnMut() -> bool) -> Result<Ended, SessionError> {
        // Connections of the dead end by themselves; what the kernel closes late is given a moment.
        let deadline = tokio::time::Instant::now() + DRAIN;
        while tokio::time::Instant::now() < deadline && !(is_gone() && self.maps.pending().is_empty()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
        // Guards of aborted connections report when their tasks are dropped; detaching stops the count.
        let detached = Attachment::detach(&self.attachment.id);
        State::remove(&self.attachment.id);
        tokio::task::yield_now().await;
        drop(self.stop.take());
        let _ = self.watching.await;
        let tally = self.writing.await.unwrap_or_default();
        let counters = self.maps.counters()?;
        self.recorder.totals(&totals(&counters, &self.base, tally)).await?;
        let summary = self.recorder.close(reason).await?;
        if let Some(thread) = self.recorder_thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
        let folder = self.evidence.clone();
        tokio::task::spawn_blocking(move || pipelock_receipt::write_folder(&folder))
            .await
            .map_err(|error| SessionError::Listen(std::io::Error::other(error)))??;
        detached?;
        Ok(Ended { summary, counters, flows: tally.flows, allowed: tally.allowed })
    }
}

pub(super) fn rules_of(policy: Policy) -> Rules {
    let hosts = policy.clone();
    let resolver = Resolver::new(Box::new(move |name| hosts.dns_hosts(name).map(<[_]>::to_vec)));
    Rules { policy, resolver }
}

fn apply(maps: &Maps, policy: &Policy, generation: u32) -> Result<(), SessionError> {
    maps.set_ports(
        policy.ports().iter().map(|range| (range.first(), range.last())),
        policy.loopback_ports().iter().copied(),
    )?;
    let listen_any = u32::from(policy.listen() == Listen::Any);
    maps.set_config(Config { listen_any, generation })?;
    Ok(())
}

/// Looks real addresses up with the resolver of the policy in force.
struct RulesLookup(watch::Receiver<Arc<Rules>>);

impl crate::proxy::dns::Lookup for RulesLookup {
    fn lookup<'a>(&'a self, name: &'a str) -> crate::proxy::dns::Found<'a> {
        let rules = self.0.borrow().clone();
        Box::pin(async move { rules.resolver.lookup(name).await })
    }
}

async fn follow_addresses(maps: Arc<Maps>, cookie: u64) {
    let mut tick = tokio::time::interval(ADDRESSES);
    loop {
        tick.tick().await;
        if let Ok(addresses) = crate::kernel::own_addresses()
            && let Err(error) = maps.set_own(cookie, &addresses)
        {
            tracing::warn!(%error, "the host's addresses could not be put into the kernel");
        }
    }
}

/// Takes finished flows to the recorder; the kernel forgets a flow when its receipt is written.
async fn write_flows(
    mut finished: mpsc::Receiver<Finished>,
    recorder: Recorder,
    ledger: Arc<Ledger>,
    generations: Arc<Generations>,
) -> FlowTally {
    let mut tally = FlowTally::default();
    let mut in_flight: VecDeque<(FlowId, oneshot::Receiver<()>)> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            written = async { in_flight.front_mut().map(|(_, written)| written)?.await.ok() }, if !in_flight.is_empty() => {
                if let Some((flow, _)) = in_flight.pop_front() {
                    if written.is_some() {
                        ledger.settled(flow);
                    } else {
                        tally.lost += 1;
                    }
                }
            }
            next = finished.recv(), if in_flight.len() < IN_FLIGHT => {
                let Some(flow) = next else { break };
                tally.flows += 1;
                tally.allowed += u64::from(!flow.outcome.verdict.is_block());
                let facts = facts_of(&flow, &generations);
                if flow.outcome.verdict.is_block() && flow.record.reason >= KernelReason::PortDenied as u8 {
                    log_denial(&facts, flow.outcome.verdict.reason);
                }
                match recorder.queue_flow(&facts, &flow.outcome).await {
                    Ok(written) => in_flight.push_back((FlowId(flow.record.flow_id), written)),
                    Err(_) => tally.lost += 1,
                }
            }
        }
    }
    for (flow, written) in in_flight {
        if written.await.is_ok() {
            ledger.settled(flow);
        } else {
            tally.lost += 1;
        }
    }
    tally
}

fn log_denial(facts: &FlowFacts, reason: Reason) {
    tracing::info!(
        flow = facts.flow.id.0,
        target = %facts.flow.target.original,
        comm = %facts.flow.origin.comm,
        pid = facts.flow.origin.pid,
        hook = facts.hook,
        verdict = "block",
        reason = %reason,
        "flow"
    );
}

fn facts_of(finished: &Finished, generations: &Generations) -> FlowFacts {
    let record = &finished.record;
    let policy: PolicyId = generations.find(record.generation);
    FlowFacts {
        flow: to_flow(record, finished.outcome.name.clone(), policy),
        protocol: match record.protocol {
            6 => "tcp".into(),
            17 => "udp".into(),
            1 => "icmp".into(),
            58 => "icmp6".into(),
            132 => "sctp".into(),
            136 => "udplite".into(),
            262 => "mptcp".into(),
            other => format!("ip{other}"),
        },
        hook: hook::name(record.hook),
        kernel_reason: KernelReason::from_u8(record.reason).map_or("unknown", kernel_code),
        local: crate::kernel::local_end(record),
        gid: record.gid,
        opened_ns: record.opened_ns,
        closed_ns: record.closed_ns,
        tx_bytes: record.tx_bytes,
        rx_bytes: record.rx_bytes,
        opened_at: wall_clock(record.opened_ns, boot_clock(), SystemTime::now()),
    }
}

/// The kernel's reason as a code: the redirects have words of their own, since the proxy decides those flows.
fn kernel_code(reason: KernelReason) -> &'static str {
    match reason {
        KernelReason::Redirect => "redirect",
        KernelReason::RedirectDns => "redirect_dns",
        other => Reason::from(other).code(),
    }
}

fn boot_clock() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        let secs = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
        secs.saturating_mul(1_000_000_000).saturating_add(nanos)
    })
}

/// Reads counters and pending flows of a former proxy at one moment: until numbers and counts agree twice.
fn settle_base(maps: &Maps) -> Result<Base, SessionError> {
    for _ in 0..200 {
        let counters = maps.counters()?;
        let mut pending: Vec<_> = maps.pending().iter().map(|record| (record.flow_id, record.reason)).collect();
        let counted: u64 = counters.by_reason.values().sum::<u64>() + counters.unrecorded;
        if counted == counters.flows && maps.counters()? == counters {
            pending.retain(|(id, _)| *id <= counters.flows);
            pending.sort_unstable();
            return Ok(Base { counters, pending });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(SessionError::Listen(std::io::Error::other(
        "the kernel's counters do not come to rest; stop the agent and try again",
    )))
}

/// What the closing record signs: counts of this session only, so that they equal its receipts.
fn totals(counters: &Counters, base: &Base, tally: FlowTally) -> KernelTotals {
    let mut by_reason = Map::new();
    for (reason, count) in &counters.by_reason {
        let before = base.counters.by_reason.get(reason).copied().unwrap_or(0);
        let pending = base.pending.iter().filter(|(_, code)| *code == *reason as u8).count() as u64;
        let count = count.saturating_sub(before) + pending;
        if count > 0 {
            by_reason.insert(kernel_code(*reason).into(), json!(count.to_string()));
        }
    }
    let since = |now: u64, before: u64| json!(now.saturating_sub(before).to_string());
    let mut value = Map::new();
    value.insert("flows".into(), json!(counters.flows.to_string()));
    value.insert("by_reason".into(), Value::Object(by_reason));
    value.insert("unrecorded".into(), since(counters.unrecorded, base.counters.unrecorded));
    value.insert("repeats".into(), since(counters.repeats, base.counters.repeats));
    value.insert("events_lost".into(), since(counters.events_lost, base.counters.events_lost));
    value.insert("probes".into(), since(counters.probes, base.counters.probes));
    value.insert("receipts_lost".into(), json!(tally.lost.to_string()));
    if base.counters.flows > 0 {
        value.insert("first".into(), json!((base.counters.flows + 1).to_string()));
        let pending: Vec<_> = base.pending.iter().map(|(id, _)| id.to_string()).collect();
        value.insert("taken_over".into(), json!(pending));
    }
    KernelTotals(Value::Object(value))
}
