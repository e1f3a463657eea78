//! The ledger over a table of its own: every order in which kernel, proxy and recorder can come.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// The kernel's side, as far as the ledger sees it.
#[derive(Default)]
struct Table {
    flows: Mutex<BTreeMap<u64, FlowRecord>>,
    settled: Mutex<Settled>,
    lost: AtomicU64,
    unrecorded: AtomicU64,
}

impl Table {
    fn put(&self, flow_id: u64, reason: KernelReason, state: FlowState) {
        let record = FlowRecord { flow_id, reason: reason as u8, state: state as u8, ..FlowRecord::EMPTY };
        locked(&self.flows).insert(flow_id, record);
    }

    fn close(&self, flow_id: u64) {
        if let Some(record) = locked(&self.flows).get_mut(&flow_id) {
            record.state = FlowState::Closed as u8;
        }
    }
}

impl FlowTable for Table {
    fn flow(&self, flow_id: u64) -> Option<FlowRecord> {
        locked(&self.flows).get(&flow_id).copied()
    }
    fn pending(&self) -> Vec<FlowRecord> {
        locked(&self.flows).values().copied().collect()
    }
    fn ids(&self) -> Vec<u64> {
        locked(&self.flows).keys().copied().collect()
    }
    fn settle(&self, flow_id: u64) {
        locked(&self.flows).remove(&flow_id);
    }
    fn give_back(&self, settled: Settled) {
        *locked(&self.settled) = settled;
    }
    fn forget_origin(&self, _record: &FlowRecord) {}
    fn counters(&self) -> Option<Counters> {
        let (events_lost, unrecorded) = (self.lost.load(Ordering::Relaxed), self.unrecorded.load(Ordering::Relaxed));
        Some(Counters { events_lost, unrecorded, ..Counters::default() })
    }
    fn take_events(&self) -> Option<aya::maps::RingBuf<aya::maps::MapData>> {
        None
    }
}

fn ledger() -> (Arc<Table>, Arc<Ledger<Table>>) {
    let table = Arc::new(Table::default());
    (table.clone(), Ledger::new(table, Settled::default(), 0, std::iter::empty()))
}

fn allowed() -> Outcome {
    Outcome { verdict: Verdict::allow(Reason::PolicyAllow, None), requests: 1, ..Outcome::unseen(Reason::Internal) }
}

/// What the ledger says of a flow as it stands in the table.
fn look(table: &Table, ledger: &Ledger<Table>, flow: u64) -> Option<Reason> {
    ledger.finish(&table.flow(flow)?, false).map(|outcome| outcome.verdict.reason)
}

/// Makes the grace of all flows that wait to be accepted run out.
fn wait_out_the_grace(ledger: &Ledger<Table>) {
    for entry in ledger.entries().values_mut() {
        if let Entry::ClosedUnaccepted(since) = entry {
            *since = since.checked_sub(ACCEPT_GRACE).expect("the machine runs for longer");
        }
    }
}

#[test]
fn a_denial_is_given_out_once_and_forgotten_when_settled() {
    let (table, ledger) = ledger();
    table.put(1, KernelReason::PortDenied, FlowState::Closed);
    let record = table.flow(1).expect("put");
    assert_eq!(look(&table, &ledger, 1), Some(Reason::PortDenied));
    assert_eq!(look(&table, &ledger, 1), None, "twice named by the ring");
    ledger.settled(FlowId(1), true);
    assert!(ledger.finish(&record, false).is_none(), "a record read before it was settled");
    ledger.forget_settled();
    assert!(ledger.entries().is_empty() && table.pending().is_empty());
    assert_eq!(locked(&table.settled).flows, 1);
}

#[test]
fn a_connection_that_is_closed_before_it_is_accepted_may_still_be_accepted() {
    let (table, ledger) = ledger();
    table.put(1, KernelReason::Redirect, FlowState::Closed);
    assert_eq!(look(&table, &ledger, 1), None);
    assert_eq!(look(&table, &ledger, 1), None, "the grace is not over");
    assert!(ledger.accept(FlowId(1)));
    wait_out_the_grace(&ledger);
    assert_eq!(look(&table, &ledger, 1), None, "the proxy has it");
    ledger.report(FlowId(1), allowed());
    assert_eq!(look(&table, &ledger, 1), Some(Reason::PolicyAllow));
}

#[test]
fn nobody_accepts_what_was_given_up() {
    let (table, ledger) = ledger();
    table.put(1, KernelReason::Redirect, FlowState::Closed);
    assert_eq!(look(&table, &ledger, 1), None);
    wait_out_the_grace(&ledger);
    assert_eq!(look(&table, &ledger, 1), Some(Reason::ClientAborted));
    assert!(!ledger.accept(FlowId(1)), "given out");
    ledger.settled(FlowId(1), false);
    assert!(!ledger.accept(FlowId(1)), "settled");
    ledger.forget_settled();
    assert!(!ledger.accept(FlowId(1)), "forgotten");
    ledger.report(FlowId(1), allowed());
    assert!(ledger.entries().is_empty(), "nothing is left of it");
}

#[test]
fn a_late_datagram_of_a_settled_flow_leaves_nothing() {
    let (table, ledger) = ledger();
    table.put(1, KernelReason::RedirectDns, FlowState::Open);
    assert!(ledger.accept(FlowId(1)) && ledger.accept(FlowId(1)));
    ledger.report(FlowId(1), Outcome { requests: 1, ..Outcome::unseen(Reason::DnsDenied) });
    ledger.report(FlowId(1), allowed());
    table.close(1);
    let outcome = ledger.finish(&table.flow(1).expect("put"), false).expect("finished");
    assert_eq!((outcome.verdict.reason, outcome.requests), (Reason::PolicyAllow, 2), "one answer makes it answered");
    // The second datagram was taken, and is answered only now.
    ledger.settled(FlowId(1), false);
    ledger.forget_settled();
    ledger.report(FlowId(1), allowed());
    assert!(!ledger.accept(FlowId(1)));
    assert!(ledger.entries().is_empty());
}

#[test]
fn what_is_open_at_the_end_is_given_out_as_it_stands() {
    let (table, ledger) = ledger();
    for (flow, reason) in [(1, KernelReason::Redirect), (2, KernelReason::Redirect), (3, KernelReason::LoopbackOwn)] {
        table.put(flow, reason, FlowState::Established);
    }
    assert!(ledger.accept(FlowId(1)) && ledger.accept(FlowId(2)));
    ledger.report(FlowId(2), allowed());
    let last = |flow| ledger.finish(&table.flow(flow).expect("put"), true).map(|outcome| outcome.verdict.reason);
    assert_eq!(
        [last(1), last(2), last(3)],
        [Some(Reason::ProxyLost), Some(Reason::PolicyAllow), Some(Reason::LoopbackOwn)]
    );
    assert_eq!([last(1), last(2), last(3)], [None; 3]);
}

#[test]
fn flows_of_a_dead_proxy_are_its_own_until_they_end() {
    let table = Arc::new(Table::default());
    let ledger = Ledger::new(table.clone(), Settled { flows: 6, denials: 2 }, 3, [7, 8].into_iter());
    table.put(7, KernelReason::Redirect, FlowState::Closed);
    table.put(8, KernelReason::RedirectDns, FlowState::Established);
    assert_eq!(look(&table, &ledger, 7), Some(Reason::ProxyLost));
    assert_eq!(look(&table, &ledger, 8), None);
    table.close(8);
    assert_eq!(look(&table, &ledger, 8), Some(Reason::ProxyLost));
    ledger.settled(FlowId(7), false);
    assert_eq!(locked(&table.settled).flows, 7, "it goes on counting where the dead one stopped");
}

/// Its number is used up, and there is no record whose receipt would free the place again.
#[tokio::test(start_paused = true)]
async fn the_places_of_flows_that_were_not_recorded_are_given_back() {
    let table = Arc::new(Table::default());
    table.unrecorded.store(4, Ordering::Relaxed);
    let ledger = Ledger::new(table.clone(), Settled { flows: 6, denials: 2 }, 3, std::iter::empty());
    let (sender, _given) = finished_flows();
    let running = tokio::spawn(ledger.clone().run(sender, std::future::pending()));
    let given_back = async || {
        tokio::time::sleep(SWEEP * 2).await;
        locked(&table.settled).flows
    };
    assert_eq!(given_back().await, 7, "one since the beginning");
    table.unrecorded.store(9, Ordering::Relaxed);
    assert_eq!(given_back().await, 12);
    ledger.settled(FlowId(1), false);
    assert_eq!(given_back().await, 13, "none twice");
    running.abort();
}

#[tokio::test]
async fn flows_without_events_are_found_in_the_table() {
    let (table, ledger) = ledger();
    let (sender, mut given) = finished_flows();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(ledger.clone().run(sender, async {
        let _ = stopped.await;
    }));
    table.put(1, KernelReason::UdpDenied, FlowState::Closed);
    table.put(2, KernelReason::Redirect, FlowState::Open);
    table.lost.store(1, Ordering::Relaxed);
    let found = tokio::time::timeout(Duration::from_secs(10), given.recv()).await.expect("in time").expect("a flow");
    assert_eq!(found.record.flow_id, 1);
    drop(stop);
    let left = given.recv().await.expect("the open one, at the end");
    assert_eq!((left.record.flow_id, left.outcome.verdict.reason), (2, Reason::ProxyLost));
    running.await.expect("no panic");
    assert!(given.recv().await.is_none());
}

/// One step of anybody.
#[derive(Clone, Copy, Debug)]
enum Step {
    Close,
    Accept,
    Report,
    Read,
    Look,
    Settle,
    Forget,
    Grace,
}

proptest! {
    #[test]
    fn in_any_order_each_flow_is_given_out_exactly_once_and_nothing_stays(
        flows in prop::collection::vec(0..4_u8, 1..4),
        steps in prop::collection::vec((0..4_u64, 0..8_u8), 0..60),
    ) {
        let (table, ledger) = ledger();
        let kinds = [KernelReason::Redirect, KernelReason::RedirectDns, KernelReason::PortDenied, KernelReason::LoopbackOwn];
        for (flow, kind) in (1..).zip(&flows) {
            let reason = kinds[usize::from(*kind)];
            table.put(flow, reason, if reason.is_denial() { FlowState::Closed } else { FlowState::Open });
        }
        let count = flows.len() as u64;
        let mut given: BTreeMap<u64, u32> = BTreeMap::new();
        let mut to_settle = Vec::new();
        let mut read: Option<FlowRecord> = None;
        let all = [Step::Close, Step::Accept, Step::Report, Step::Read, Step::Look, Step::Settle, Step::Forget, Step::Grace];
        for (flow, step) in steps {
            let flow = 1 + flow % count;
            match all[usize::from(step)] {
                Step::Close => table.close(flow),
                Step::Accept => drop(ledger.accept(FlowId(flow))),
                Step::Report => ledger.report(FlowId(flow), allowed()),
                // The task reads a record, and others act before it looks at it.
                Step::Read => read = table.flow(flow),
                Step::Look => if let Some(record) = read.take()
                    && ledger.finish(&record, false).is_some() {
                    *given.entry(record.flow_id).or_default() += 1;
                    to_settle.push(record.flow_id);
                },
                Step::Settle => if let Some(flow) = to_settle.pop() {
                    ledger.settled(FlowId(flow), false);
                },
                // Never between reading a record and looking at it.
                Step::Forget => if read.is_none() {
                    ledger.forget_settled();
                },
                Step::Grace => wait_out_the_grace(&ledger),
            }
        }
        // The end, as `run` has it.
        for flow in to_settle.drain(..) {
            ledger.settled(FlowId(flow), false);
        }
        ledger.forget_settled();
        for record in table.pending() {
            if ledger.finish(&record, true).is_some() {
                *given.entry(record.flow_id).or_default() += 1;
            }
            ledger.settled(FlowId(record.flow_id), false);
        }
        ledger.forget_settled();
        prop_assert_eq!(given.len() as u64, count);
        prop_assert!(given.values().all(|times| *times == 1), "{:?}", given);
        prop_assert!(ledger.entries().is_empty());
        prop_assert_eq!(locked(&table.settled).flows, count);
    }
}
