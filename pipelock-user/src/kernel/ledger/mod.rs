//! Joins what the kernel saw of a flow with what the proxy made of it, and gives each flow out exactly once.
//!
//! The kernel's table of flows is the truth; the ring only says when to look. A flow is finished when the kernel closed
//! it and, if it was redirected, the proxy has reported or never accepted it. `app` passes finished flows to the
//! recorder and calls [`Ledger::settled`] when their receipts are written: only then does the kernel forget them.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pipelock_common::{FlowRecord, FlowState, KernelReason, Settled};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};

use super::maps::{Counters, Maps, from_addr};
use super::quota::Quota;
use crate::flow::{Account, Flow, FlowId, Host, Origin, Outcome, PolicyId, Reason, Target, Verdict, locked};

/// How long a redirected connection that the kernel closed may wait for the proxy to accept it.
const ACCEPT_GRACE: Duration = Duration::from_secs(2);
/// How long events are gathered once one has come. The kernel tells us of none while one waits: to be told costs whoever
/// closes a socket more than all else about the flow, and us a wake-up for each.
const GATHER: Duration = Duration::from_millis(4);
/// How often connections that wait to be accepted are looked at, and whether events were lost.
const SWEEP: Duration = Duration::from_millis(250);
/// Every so many of these the whole table is looked through, lost events or not.
const FULL_SWEEP: u32 = 16;
/// Finished flows on their way to the recorder; when they are this many, the ledger waits.
const QUEUE: usize = 1024;

/// What the ledger needs of the kernel; [`Maps`] in earnest, a table in tests.
pub trait FlowTable: Send + Sync + 'static {
    /// One flow; none when it is not there or still being filled in.
    fn flow(&self, flow_id: u64) -> Option<FlowRecord>;
    /// Every flow that waits for its receipt.
    fn pending(&self) -> Vec<FlowRecord>;
    /// The numbers of these, and of those that are still being filled in.
    fn ids(&self) -> Vec<u64>;
    /// Removes a flow.
    fn settle(&self, flow_id: u64);
    /// Says how much was removed.
    fn give_back(&self, settled: Settled);
    /// Forgets by which local end a flow can be found.
    fn forget_origin(&self, record: &FlowRecord);
    /// What the programs counted; none when that cannot be read.
    fn counters(&self) -> Option<Counters>;
    /// The ring that says which flows changed; without one they are found by looking through the table.
    fn take_events(&self) -> Option<aya::maps::RingBuf<aya::maps::MapData>>;
}

impl FlowTable for Maps {
    fn flow(&self, flow_id: u64) -> Option<FlowRecord> {
        Self::flow(self, flow_id)
    }
    fn pending(&self) -> Vec<FlowRecord> {
        Self::pending(self)
    }
    fn ids(&self) -> Vec<u64> {
        Self::ids(self)
    }
    fn settle(&self, flow_id: u64) {
        Self::settle(self, flow_id);
    }
    fn give_back(&self, settled: Settled) {
        Self::give_back(self, settled);
    }
    fn forget_origin(&self, record: &FlowRecord) {
        Self::forget_origin(self, record);
    }
    fn counters(&self) -> Option<Counters> {
        Self::counters(self).ok()
    }
    fn take_events(&self) -> Option<aya::maps::RingBuf<aya::maps::MapData>> {
        Self::take_events(self)
    }
}

/// A flow that is over.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What the kernel recorded.
    pub record: FlowRecord,
    /// What the proxy reported; for flows that never reach it, what the kernel's reason says.
    pub outcome: Outcome,
}

enum Entry {
    /// The proxy holds the connection; what it reports will be the outcome.
    Accepted,
    /// The proxy has reported.
    Reported(Outcome),
    /// The kernel closed it before the proxy accepted it.
    ClosedUnaccepted(Instant),
    /// Given out.
    Given,
}

/// The ledger of one attachment.
pub struct Ledger<T = Maps> {
    table: Arc<T>,
    quota: Mutex<Quota>,
    entries: Mutex<HashMap<u64, Entry>>,
    /// Flows that the proxy has reported since they were last looked at.
    reported: Mutex<Vec<u64>>,
    /// Flows whose receipts are written and that the kernel has forgotten. Their entries go when no record that was read
    /// before can still be on its way to [`Ledger::offer`]; earlier, such a record would be given out a second time.
    settled: Mutex<Vec<u64>>,
    changed: Notify,
}

impl<T: FlowTable> Ledger<T> {
    /// A ledger over this table, of which so much was given back before, after so many flows that were not recorded.
    /// `orphans` are redirected flows of a proxy that is gone: whatever it did with them, nobody can report it any more.
    #[must_use]
    pub fn new(table: Arc<T>, settled: Settled, unrecorded: u64, orphans: impl Iterator<Item = u64>) -> Arc<Self> {
        let orphan = || Entry::Reported(Outcome::unseen(Reason::ProxyLost));
        Arc::new(Self {
            table,
            quota: Mutex::new(Quota::new(settled, unrecorded, Instant::now())),
            entries: Mutex::new(orphans.map(|flow| (flow, orphan())).collect()),
            reported: Mutex::new(Vec::new()),
            settled: Mutex::new(Vec::new()),
            changed: Notify::new(),
        })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        locked(&self.entries)
    }

    /// The receipt of a flow is written: the kernel and the ledger forget it.
    pub fn settled(&self, flow: FlowId, is_denial: bool) {
        self.table.settle(flow.0);
        let mut quota = locked(&self.quota);
        self.table.give_back(quota.settle(is_denial, Instant::now()));
        drop(quota);
        locked(&self.settled).push(flow.0);
    }

    /// Tells the programs how much room there is now, if so many flows were not recorded.
    fn give_back(&self, unrecorded: Option<u64>) {
        let mut quota = locked(&self.quota);
        if let Some(count) = unrecorded {
            quota.unrecorded(count);
        }
        self.table.give_back(quota.at(Instant::now()));
    }

    /// Drops the entries of settled flows. Only between reading records and reading the next ones.
    fn forget_settled(&self) {
        let settled = std::mem::take(&mut *locked(&self.settled));
        let mut entries = self.entries();
        for flow in settled {
            entries.remove(&flow);
        }
    }

    /// Watches the kernel's table and gives finished flows out, until `stop`; then closes the rest as they stand.
    ///
    /// Everything still open at the end is given out with the reason the proxy gave, or `proxy_lost` for none.
    pub async fn run(self: Arc<Self>, mut out: mpsc::Sender<Finished>, stop: impl Future<Output = ()>) {
        let mut ring = self.table.take_events().and_then(|ring| {
            // SAFETY: the ring owns its descriptor, which stays the same and open as long as the ring lives.
            unsafe { AsyncFd::register(ring) }.ok()
        });
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        let mut ids = Vec::new();
        let mut sweeps = 0u32;
        let mut lost = 0;
        // When the events that wait are taken; none while nothing waits. Not in the branch: the others would begin it anew.
        let mut due: Option<tokio::time::Instant> = None;
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = wait(ring.as_mut()), if due.is_none() => due = Some(tokio::time::Instant::now() + GATHER),
                () = until(due), if due.is_some() => {
                    let is_all = drain(ring.as_mut(), &mut ids).await;
                    due = (!is_all).then(tokio::time::Instant::now);
                }
                () = self.changed.notified() => self.take_reported(&mut ids),
                _ = sweep.tick() => {
                    sweeps = sweeps.wrapping_add(1);
                    let counters = self.table.counters();
                    self.give_back(counters.as_ref().map(|counters| counters.unrecorded));
                    // Unknown is another number than before, so the table is looked through.
                    let lost_now = counters.map_or(u64::MAX, |counters| counters.events_lost);
                    if lost_now != lost || sweeps.is_multiple_of(FULL_SWEEP) {
                        lost = lost_now;
                        ids.extend(self.table.ids());
                    } else {
                        self.unaccepted(&mut ids);
                    }
                }
            }
            self.forget_settled();
            self.leave_out_given(&mut ids);
            for id in ids.drain(..) {
                if let Some(record) = self.table.flow(id)
                    && !self.offer(record, false, &mut out).await
                {
                    return;
                }
            }
        }
        self.forget_settled();
        for record in self.table.pending() {
            if !self.offer(record, true, &mut out).await {
                return;
            }
        }
    }

    /// Those that wait for their receipt only need not be read again.
    fn leave_out_given(&self, ids: &mut Vec<u64>) {
        let entries = self.entries();
        ids.retain(|id| !matches!(entries.get(id), Some(Entry::Given)));
    }

    fn take_reported(&self, ids: &mut Vec<u64>) {
        ids.append(&mut locked(&self.reported));
    }

    /// The flows that the kernel closed before the proxy accepted them.
    fn unaccepted(&self, ids: &mut Vec<u64>) {
        let waits = |entry: &Entry| matches!(entry, Entry::ClosedUnaccepted(_));
        ids.extend(self.entries().iter().filter(|(_, entry)| waits(entry)).map(|(id, _)| *id));
    }

    /// Gives a flow out if it is finished. False when nobody takes flows any more.
    async fn offer(&self, record: FlowRecord, is_last: bool, out: &mut mpsc::Sender<Finished>) -> bool {
        let Some(outcome) = self.finish(&record, is_last) else {
            return true;
        };
        self.table.forget_origin(&record);
        out.send(Finished { record, outcome }).await.is_ok()
    }

    fn finish(&self, record: &FlowRecord, is_last: bool) -> Option<Outcome> {
        let is_closed = record.state == FlowState::Closed as u8;
        let Some(reason) = KernelReason::from_u8(record.reason) else {
            return self.give(record.flow_id, Outcome::unseen(Reason::Internal));
        };
        let is_redirected = matches!(reason, KernelReason::Redirect | KernelReason::RedirectDns);
        if !is_redirected {
            let verdict = if reason.is_denial() {
                Verdict::block(reason.into(), "")
            } else {
                Verdict::allow(reason.into(), None)
            };
            let outcome = Outcome { verdict, name: None, carrier: "", requests: 0, policy: None, via: None };
            return if is_closed || is_last { self.give(record.flow_id, outcome) } else { None };
        }
        let mut entries = self.entries();
        let outcome = match entries.get(&record.flow_id) {
            Some(Entry::Given) => return None,
            Some(Entry::Reported(outcome)) if is_closed || is_last => outcome.clone(),
            Some(Entry::ClosedUnaccepted(since)) if is_last || since.elapsed() >= ACCEPT_GRACE => {
                Outcome::unseen(Reason::ClientAborted)
            }
            Some(Entry::Accepted) | None if is_last => Outcome::unseen(Reason::ProxyLost),
            None if is_closed => {
                entries.insert(record.flow_id, Entry::ClosedUnaccepted(Instant::now()));
                return None;
            }
            _ => return None,
        };
        entries.insert(record.flow_id, Entry::Given);
        Some(outcome)
    }

    fn give(&self, flow_id: u64, outcome: Outcome) -> Option<Outcome> {
        let before = self.entries().insert(flow_id, Entry::Given);
        (!matches!(before, Some(Entry::Given))).then_some(outcome)
    }
}

/// A channel of the size the ledger wants.
#[must_use]
pub fn finished_flows() -> (mpsc::Sender<Finished>, mpsc::Receiver<Finished>) {
    mpsc::channel(QUEUE)
}

impl<T: FlowTable> Account for Ledger<T> {
    fn accept(&self, flow: FlowId) -> bool {
        match self.entries().entry(flow.0) {
            Slot::Vacant(slot) => {
                // A flow is removed from the table before its entry is: one that is in neither was settled while a datagram
                // of it was on its way, and an entry made now would stay for ever.
                let is_there = self.table.flow(flow.0).is_some();
                if is_there {
                    slot.insert(Entry::Accepted);
                }
                is_there
            }
            Slot::Occupied(mut slot) => match slot.get() {
                Entry::ClosedUnaccepted(_) => {
                    slot.insert(Entry::Accepted);
                    true
                }
                // UDP: one flow carries many datagrams, each "accepted".
                Entry::Accepted | Entry::Reported(_) => true,
                Entry::Given => false,
            },
        }
    }

    /// A later report replaces an earlier one: UDP reports with each datagram.
    fn report(&self, flow: FlowId, outcome: Outcome) {
        let mut entries = self.entries();
        match entries.get(&flow.0) {
            // Given out, or settled even: what was reported before is in its receipt, and each query has one of its own.
            None | Some(Entry::Given) => return,
            Some(Entry::Reported(earlier)) => {
                let requests = earlier.requests.saturating_add(outcome.requests);
                // One answer makes an answered flow, whatever was refused on it before or after.
                let kept = if earlier.verdict.is_block() { outcome } else { earlier.clone() };
                entries.insert(flow.0, Entry::Reported(Outcome { requests, ..kept }));
            }
            Some(Entry::Accepted | Entry::ClosedUnaccepted(_)) => {
                entries.insert(flow.0, Entry::Reported(outcome));
            }
        }
        drop(entries);
        locked(&self.reported).push(flow.0);
        self.changed.notify_one();
    }
}

type Ring = AsyncFd<aya::maps::RingBuf<aya::maps::MapData>>;

/// Waits for an event; for ever where there is no ring.
async fn wait(ring: Option<&mut Ring>) {
    let Some(ring) = ring else { return std::future::pending().await };
    if ring.readable_mut().await.is_err() {
        std::future::pending().await
    }
}

/// Waits until then.
async fn until(due: Option<tokio::time::Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

/// Collects the flows that the events name, each once; false when there are more. To be called when there is one.
async fn drain(ring: Option<&mut Ring>, ids: &mut Vec<u64>) -> bool {
    let Some(ring) = ring else { return true };
    let Ok(mut ready) = ring.readable_mut().await else { return true };
    while let Some(item) = ready.get_inner_mut().next() {
        if let Some(bytes) = item.first_chunk::<8>() {
            ids.push(u64::from_ne_bytes(*bytes));
        }
        if ids.len() >= QUEUE {
            ids.sort_unstable();
            ids.dedup();
            return false;
        }
    }
    ready.clear_ready();
    ids.sort_unstable();
    ids.dedup();
    true
}

/// The kernel's record as the rooms above speak of it.
#[must_use]
pub fn to_flow(record: &FlowRecord, name: Option<Host>, policy: PolicyId) -> Flow {
    let end = record.comm.iter().position(|byte| *byte == 0).unwrap_or(record.comm.len());
    let comm = String::from_utf8_lossy(record.comm.get(..end).unwrap_or_default()).into_owned();
    Flow {
        id: FlowId(record.flow_id),
        origin: Origin {
            cgroup_id: record.cgroup_id,
            netns_cookie: record.sock.netns,
            socket_cookie: record.sock.cookie,
            pid: record.pid,
            tgid: record.tgid,
            uid: record.uid,
            comm,
            identity: None,
            peer: None,
        },
        target: Target { name, original: std::net::SocketAddr::new(from_addr(record.dst), record.dst_port) },
        policy,
    }
}

/// The agent's end of a flow, if it ever had one.
#[must_use]
pub fn local_end(record: &FlowRecord) -> Option<std::net::SocketAddr> {
    (record.src_port != 0).then(|| std::net::SocketAddr::new(from_addr(record.src), record.src_port))
}

#[cfg(test)]
mod tests;
