//! Takes finished flows to the recorder, and turns the kernel's counters into what the closing record signs.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use pipelock_common::{DenialKey, KernelReason, Settled, hook};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::joints::Generations;
use super::named::Named;
use super::refusals::Sockets;
use super::session::SessionError;
use crate::flow::{FlowId, Outcome, PolicyId, Reason, Verdict};
use crate::inspect::Inspection;
use crate::kernel::{Counters, Finished, Ledger, Maps, to_flow};
use crate::proxy::Rules;
use crate::recorder::{FlowFacts, KernelTotals, Recorder, wall_clock};

/// Flows whose receipts are on their way to the disk at a time.
const IN_FLIGHT: usize = 512;
/// How long flows wait, in all, for scanners that are on their way: what was named cannot be kept before they have read it, and
/// evidence must not wait for long.
const LOADING: Duration = Duration::from_secs(10);

/// Where the counting of this session starts: at zero, or where a former proxy ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    pub(super) counters: Counters,
    /// Flows that were recorded by the kernel and not yet by a receipt.
    pub(super) pending: Vec<(u64, u8)>,
    /// What of the table was given back.
    pub(super) settled: Settled,
    /// Denials counted without a record that have a receipt.
    pub(super) reported: HashMap<DenialKey, u64>,
}

/// What became of the flows of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FlowTally {
    /// Flows given out by the ledger.
    pub(super) flows: u64,
    /// Of these, allowed.
    pub(super) allowed: u64,
    /// Of these, without a receipt, because evidence could not be written any more.
    pub(super) lost: u64,
}

/// Takes finished flows to the recorder; the kernel forgets a flow when its receipt is written. What the agent has named, which may
/// be what was to leave, is kept without the secrets in it.
pub(super) async fn write_flows(
    mut finished: mpsc::Receiver<Finished>,
    recorder: Recorder,
    ledger: Arc<Ledger>,
    generations: Arc<Generations>,
    rules: watch::Receiver<Arc<Rules>>,
) -> FlowTally {
    let mut tally = FlowTally::default();
    let mut patience = Patience::default();
    let mut in_flight: VecDeque<(FlowId, bool, oneshot::Receiver<()>)> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            written = async { in_flight.front_mut().map(|(_, _, written)| written)?.await.ok() }, if !in_flight.is_empty() => {
                if let Some((flow, is_denial, _)) = in_flight.pop_front() {
                    if written.is_some() {
                        ledger.settled(flow, is_denial);
                    } else {
                        tally.lost += 1;
                    }
                }
            }
            next = finished.recv(), if in_flight.len() < IN_FLIGHT => {
                let Some(mut flow) = next else { break };
                let rules = rules.borrow().clone();
                patience.wait(&rules, &flow.outcome).await;
                spare(&rules, &mut flow.outcome);
                if flow.outcome.verdict.reason == Reason::ProxyLost && flow.record.tx_bytes > 0 {
                    // Nobody knows what of it was forwarded; "block" would say that nothing was.
                    flow.outcome.verdict = Verdict::let_out(Reason::ProxyLost, "the agent's bytes may have left");
                }
                tally.flows += 1;
                tally.allowed += u64::from(!flow.outcome.verdict.is_block());
                let facts = facts_of(&flow, &generations);
                let is_denial = is_denial(flow.record.reason);
                match recorder.queue_flow(&facts, &flow.outcome).await {
                    Ok(written) => in_flight.push_back((FlowId(flow.record.flow_id), is_denial, written)),
                    Err(_) => tally.lost += 1,
                }
            }
        }
    }
    for (flow, is_denial, written) in in_flight {
        if written.await.is_ok() {
            ledger.settled(flow, is_denial);
        } else {
            tally.lost += 1;
        }
    }
    tally
}

/// Waits for the scanners of a policy that are on their way, and no longer than [`LOADING`] for each.
#[derive(Default)]
struct Patience(Option<(Weak<Inspection>, Instant)>);

impl Patience {
    /// Waits if the outcome would be told less of without them.
    async fn wait(&mut self, rules: &Rules, outcome: &Outcome) {
        let Some(inspect) = rules.inspect.as_ref().filter(|inspect| inspect.now().is_none()) else { return };
        let is_early = outcome.name.as_ref().is_some_and(|name| Named::is_early(rules, name));
        if !is_early && outcome.verdict.detail.is_empty() {
            return;
        }
        let begun = self.0.as_ref().filter(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(inspect)));
        let due = begun.map_or_else(|| Instant::now() + LOADING, |(_, due)| *due);
        self.0 = Some((Arc::downgrade(inspect), due));
        let _ = tokio::time::timeout_at(due, inspect.ready(None)).await;
    }
}

/// Takes out of an outcome the secrets in what the agent has named. A name with one is left out: the address says where it went.
fn spare(rules: &Rules, outcome: &mut Outcome) {
    let named = Named::under(rules);
    outcome.verdict.detail = named.detail(std::mem::take(&mut outcome.verdict.detail));
    outcome.name = outcome.name.take().filter(|name| named.host(name).is_some_and(|kept| kept == name.to_string()));
}

/// Whether the programs took the flow's part of their quota of denials.
fn is_denial(reason: u8) -> bool {
    KernelReason::from_u8(reason).is_some_and(KernelReason::is_denial)
}

fn facts_of(finished: &Finished, generations: &Generations) -> FlowFacts {
    let record = &finished.record;
    let policy: PolicyId = generations.find(record.generation);
    FlowFacts {
        flow: to_flow(record, finished.outcome.name.clone(), policy),
        protocol: protocol_name(record.protocol),
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

/// An IPPROTO_* by name.
pub(super) fn protocol_name(protocol: u16) -> String {
    match protocol {
        6 => "tcp".into(),
        17 => "udp".into(),
        1 => "icmp".into(),
        58 => "icmp6".into(),
        132 => "sctp".into(),
        136 => "udplite".into(),
        262 => "mptcp".into(),
        other => format!("ip{other}"),
    }
}

/// The kernel's reason as a code: the redirects have words of their own, since the proxy decides those flows.
pub const fn kernel_code(reason: KernelReason) -> &'static str {
    match reason {
        KernelReason::Redirect => "redirect",
        KernelReason::RedirectDns => "redirect_dns",
        other => Reason::of_kernel(other).code(),
    }
}

pub(super) fn boot_clock() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        let secs = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
        secs.saturating_mul(1_000_000_000).saturating_add(nanos)
    })
}

/// Reads counters and pending flows of a former proxy as of one moment, which is when the last number was given out that is
/// counted. What is opened meanwhile, as packets from elsewhere can, has a higher number and is left to the ledger.
pub(super) fn settle_base(maps: &Maps) -> Result<Base, SessionError> {
    for _ in 0..200 {
        let counters = maps.counters()?;
        if counters.is_settled() {
            let pending = maps.pending().iter().map(|record| (record.flow_id, record.reason)).collect();
            return Ok(base_of(counters, pending, maps.reported().into_iter().collect()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(SessionError::Unrest)
}

/// What of the flows up to the last number counted waits for a receipt, and what was given back. Never more than there
/// was: the programs would take the table for overfull.
fn base_of(counters: Counters, mut pending: Vec<(u64, u8)>, reported: HashMap<DenialKey, u64>) -> Base {
    pending.retain(|(id, _)| *id <= counters.flows);
    pending.sort_unstable();
    pending.dedup();
    let denials: u64 =
        counters.by_reason.iter().filter(|(reason, _)| reason.is_denial()).map(|(_, count)| *count).sum();
    let waiting = pending.iter().filter(|(_, reason)| is_denial(*reason)).count() as u64;
    let settled = Settled {
        flows: counters.flows.saturating_sub(pending.len() as u64),
        denials: denials.saturating_sub(waiting),
    };
    Base { counters, pending, settled, reported }
}

/// What the closing record signs: counts of this session only, so that they equal its receipts.
pub(super) fn totals(
    counters: &Counters,
    base: &Base,
    tally: FlowTally,
    sockets: Sockets,
    (pins_removed, shown): (bool, &[PathBuf]),
) -> KernelTotals {
    let mut by_reason = Map::new();
    for (reason, count) in &counters.by_reason {
        let before = base.counters.by_reason.get(reason).copied().unwrap_or(0);
        let pending = base.pending.iter().filter(|(_, code)| *code == *reason as u8).count() as u64;
        let count = count.saturating_sub(before) + pending;
        if count > 0 {
            by_reason.insert(kernel_code(*reason).into(), json!(count.to_string()));
        }
    }
    // What a former proxy has no receipt for, this one owes.
    let mut counted = Map::new();
    for (reason, count) in &counters.counted {
        let reported = base.reported.iter().filter(|(key, _)| key.reason == *reason as u8).map(|(_, count)| *count);
        let count = count.saturating_sub(reported.sum());
        if count > 0 {
            counted.insert(kernel_code(*reason).into(), json!(count.to_string()));
        }
    }
    let since = |now: u64, before: u64| json!(now.saturating_sub(before).to_string());
    let mut value = Map::new();
    value.insert("flows".into(), json!(counters.flows.to_string()));
    value.insert("by_reason".into(), Value::Object(by_reason));
    value.insert("counted".into(), Value::Object(counted));
    value.insert("unrecorded".into(), since(counters.unrecorded, base.counters.unrecorded));
    value.insert("repeats".into(), since(counters.repeats, base.counters.repeats));
    value.insert("events_lost".into(), since(counters.events_lost, base.counters.events_lost));
    value.insert("probes".into(), since(counters.probes, base.counters.probes));
    value.insert("receipts_lost".into(), json!(tally.lost.to_string()));
    if pins_removed {
        value.insert("pins_removed".into(), json!(true));
    }
    if !shown.is_empty() {
        let files: Vec<String> = shown.iter().map(|file| file.display().to_string()).collect();
        value.insert("files_shown".into(), json!(files));
    }
    match sockets {
        Sockets::NotAsked => None,
        Sockets::Counted(count) => value.insert("sockets_refused".into(), json!(count.to_string())),
        Sockets::Lost => value.insert("sockets_lost".into(), json!(true)),
    };
    if base.counters.flows > 0 {
        value.insert("first".into(), json!((base.counters.flows + 1).to_string()));
        let pending: Vec<_> = base.pending.iter().map(|(id, _)| id.to_string()).collect();
        value.insert("taken_over".into(), json!(pending));
    }
    KernelTotals(Value::Object(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Host;
    use crate::inspect::KNOWN_FOR_TESTS;
    use crate::net::Resolver;
    use crate::policy::Policy;

    fn rules(inspect: Arc<Inspection>) -> Rules {
        Rules {
            policy: Policy::parse("version: 1\n", "test").expect("a policy"),
            resolver: Resolver::new(Box::new(|_| None)),
            hop: None,
            webhook: None,
            tls: None,
            inspect: Some(inspect),
        }
    }

    #[test]
    fn a_secret_that_was_named_is_not_kept() {
        let (read, unread) = (rules(Inspection::for_tests()), rules(Inspection::failed_for_tests()));
        let kept_by = |rules: &Rules, name: &str| {
            let detail = format!("no rule names {name}");
            let name = Host::parse(name).ok();
            let mut outcome = Outcome { name, ..Outcome::unseen(Reason::HostDenied) };
            outcome.verdict = Verdict::block(Reason::HostDenied, detail);
            spare(rules, &mut outcome);
            (outcome.name.map(|name| name.to_string()), outcome.verdict.detail)
        };
        let kept = |name: &str| kept_by(&read, name);
        assert_eq!(kept("a.example"), (Some("a.example".into()), "no rule names a.example".into()));
        let (name, detail) = kept(&format!("{KNOWN_FOR_TESTS}.example"));
        assert_eq!((name, detail.as_str()), (None, "no rule names <pipelock:credential:1>.example"));
        let (name, detail) = kept_by(&unread, &format!("{KNOWN_FOR_TESTS}.example"));
        assert!(name.is_none() && !detail.contains(KNOWN_FOR_TESTS), "{detail}");
    }

    /// For what a flow has named, and no longer than is bearable for all of them together.
    #[tokio::test(start_paused = true)]
    async fn flows_wait_for_scanners_that_are_on_their_way() {
        let rules = rules(Inspection::never_for_tests());
        let unseen = Outcome::unseen(Reason::HostDenied);
        let named = Outcome { name: Host::parse("a.example").ok(), ..unseen.clone() };
        let (mut patience, start) = (Patience::default(), Instant::now());
        patience.wait(&rules, &unseen).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "there is nothing to read");
        for _ in 0..3 {
            patience.wait(&rules, &named).await;
            assert_eq!(start.elapsed().as_secs(), LOADING.as_secs(), "all together");
        }
        patience.wait(&self::rules(Inspection::never_for_tests()), &named).await;
        assert_eq!(start.elapsed().as_secs(), 2 * LOADING.as_secs(), "others");
    }

    #[test]
    fn what_is_opened_after_the_snapshot_was_not_given_back() {
        let by_reason = [(KernelReason::Redirect, 5), (KernelReason::InboundDenied, 3)].into_iter().collect();
        let counters = Counters { by_reason, flows: 8, ..Counters::default() };
        assert!(counters.is_settled());
        let (allowed, denied) = (KernelReason::Redirect as u8, KernelReason::InboundDenied as u8);
        // 9 and 10 came while the table was read.
        let pending = vec![(9, denied), (4, allowed), (8, denied), (10, allowed)];
        let base = base_of(counters, pending, HashMap::new());
        assert_eq!(base.pending, [(4, allowed), (8, denied)]);
        assert_eq!((base.settled.flows, base.settled.denials), (6, 2));
    }
}
