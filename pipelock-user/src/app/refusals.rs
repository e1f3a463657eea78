//! Receipts for the sockets that the agent's system call filter refuses: the joint between the sandbox, which is asked,
//! and the recorder.
//!
//! Started by [`super::serving`] on a thread of its own. It promises that the first such call of a process is on record
//! before its caller sees the answer, that every later one is counted in a receipt at most [`HOLD`] later, and that the
//! number of calls is known at the end, or that it is known that it is not. An agent that asks in a loop, whatever it
//! asks for, costs twice [`MAX_KINDS`] and [`MAX_FOLDED`] receipts a second and one more at most: beyond the first, calls
//! are counted by family and type alone, and beyond the second together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::proxy::Rules;
use crate::recorder::{Recorder, SocketRecord};
use crate::sandbox::refusals::{RefusalListener, RefusedSocket};

/// How long repeats are counted before their receipt is written.
const HOLD: Duration = Duration::from_secs(1);
/// Different callers and sockets that are told apart within that time.
const MAX_KINDS: usize = 64;
/// Families and types that are told apart beyond that.
const MAX_FOLDED: usize = 16;

/// What became of the sockets that the system call filter refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sockets {
    /// Nobody asks us: the agent was there before us, and only the hooks close it in.
    NotAsked,
    /// So many were refused, all with receipts.
    Counted(u64),
    /// Some were refused without a receipt.
    Lost,
}

/// The thread that answers.
pub(super) struct Refusals {
    thread: JoinHandle<Option<u64>>,
    stop: Arc<AtomicBool>,
}

impl Refusals {
    pub(super) fn start(
        listener: RefusalListener,
        recorder: Recorder,
        rules: watch::Receiver<Arc<Rules>>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("refusals".into()).spawn(move || {
            let write = |refused: &RefusedSocket, count| {
                let record = describe(refused, count, &rules);
                // Evidence that can no longer be written ends the run elsewhere; the socket is refused in any case.
                let _ = recorder.socket_blocking(&record);
            };
            let mut counted = Counted::new(write);
            let served = listener.serve(&stopped, |refused| counted.take(refused));
            counted.flush();
            match served {
                Ok(()) => Some(counted.total),
                Err(error) => {
                    tracing::error!(%error, "sockets are refused without a receipt from here on");
                    None
                }
            }
        })?;
        Ok(Self { thread, stop })
    }

    /// Ends the thread, waits for it, and says what became of the refused sockets. The thread needs the recorder's, and
    /// nothing of the runtime.
    pub(super) fn end(self) -> Sockets {
        self.stop.store(true, Ordering::Release);
        self.thread.join().ok().flatten().map_or(Sockets::Lost, Sockets::Counted)
    }
}

fn describe(refused: &RefusedSocket, count: u64, rules: &watch::Receiver<Arc<Rules>>) -> SocketRecord {
    let (family, kind) = (refused.family_name(), refused.kind_name());
    SocketRecord {
        family,
        kind,
        protocol: refused.protocol,
        pid: refused.tid,
        tgid: refused.tgid,
        uid: refused.uid,
        comm: refused.comm.clone(),
        count,
        policy: rules.borrow().policy.id().clone(),
    }
}

/// Writes the first of a kind at once and counts its repeats.
struct Counted<W> {
    write: W,
    total: u64,
    /// Repeats that no receipt stands for yet.
    held: HashMap<RefusedSocket, u64>,
    since: Instant,
}

impl<W: FnMut(&RefusedSocket, u64)> Counted<W> {
    fn new(write: W) -> Self {
        Self { write, total: 0, held: HashMap::new(), since: Instant::now() }
    }

    fn take(&mut self, refused: Option<RefusedSocket>) {
        if self.since.elapsed() >= HOLD {
            self.flush();
        }
        if let Some(refused) = refused {
            self.add(refused);
        }
    }

    fn add(&mut self, mut refused: RefusedSocket) {
        self.total += 1;
        if self.held.len() >= MAX_KINDS && !self.held.contains_key(&refused) {
            refused = refused.of_its_kind();
            // All families by all types are a thousand.
            if self.held.len() >= MAX_KINDS + MAX_FOLDED && !self.held.contains_key(&refused) {
                refused = refused.of_any_kind();
            }
        }
        match self.held.entry(refused) {
            Entry::Occupied(mut repeats) => *repeats.get_mut() += 1,
            Entry::Vacant(first) if first.key().is_kind() => drop(first.insert(1)),
            Entry::Vacant(first) => {
                (self.write)(first.key(), 1);
                first.insert(0);
            }
        }
    }

    fn flush(&mut self) {
        self.since = Instant::now();
        for (refused, repeats) in self.held.drain().filter(|(_, repeats)| *repeats > 0) {
            (self.write)(&refused, repeats);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(tid: u32) -> RefusedSocket {
        let comm = "agent".to_owned();
        RefusedSocket { tid, tgid: 1, uid: 1000, comm, family: libc::AF_PACKET, kind: libc::SOCK_RAW, protocol: 3 }
    }

    #[test]
    fn repeats_are_counted_and_nothing_is_lost() {
        let mut written = Vec::new();
        let mut counted = Counted::new(|socket: &RefusedSocket, count| written.push((socket.tid, count)));
        for _ in 0..1000 {
            counted.add(refused(1));
        }
        counted.add(refused(2));
        // As if a second had gone by.
        counted.since = Instant::now().checked_sub(HOLD).unwrap();
        counted.take(None);
        counted.take(Some(refused(1)));
        counted.flush();
        assert_eq!(counted.total, 1002);
        assert_eq!(written, [(1, 1), (2, 1), (1, 999), (1, 1)]);
    }

    #[test]
    fn many_kinds_take_bounded_memory_and_few_receipts() {
        let (mut sum, mut receipts) = (0, 0);
        let mut counted = Counted::new(|_: &RefusedSocket, count| {
            sum += count;
            receipts += 1;
        });
        for protocol in 0..10_000 {
            counted.add(RefusedSocket { protocol, family: 1000 + protocol % 5000, ..refused(1) });
            assert!(counted.held.len() <= MAX_KINDS + 1);
        }
        counted.flush();
        assert_eq!((sum, receipts), (10_000, MAX_KINDS + 1));
    }

    #[test]
    fn valid_families_by_all_types_are_few_receipts_too() {
        let (mut sum, mut receipts) = (0, 0);
        let mut counted = Counted::new(|_: &RefusedSocket, count| {
            sum += count;
            receipts += 1;
        });
        for tid in 1..=3 {
            for (family, kind) in (0..46).flat_map(|family| (0..16).map(move |kind| (family, kind))) {
                counted.add(RefusedSocket { family, kind, ..refused(tid) });
            }
        }
        counted.flush();
        assert_eq!(sum, 3 * 46 * 16);
        assert!(receipts <= 2 * MAX_KINDS + MAX_FOLDED + 1, "{receipts}");
    }
}
