//! Writes receipts for the denials that the kernel counted without a record of their own: during a flood, one per
//! destination and interval, with the exact number.
//!
//! Started by `session`, ended by `serving` when the programs are detached. It promises that every counted denial is in
//! exactly one receipt of this run, also those that a former proxy left.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pipelock_common::{DenialCount, DenialKey, KernelReason, hook};

use super::flows::{boot_clock, kernel_code, protocol_name};
use super::joints::Generations;
use crate::flow::Reason;
use crate::kernel::{Maps, from_addr};
use crate::recorder::{DenialFacts, Recorder, wall_clock};

/// How often what was counted is written down.
const INTERVAL: Duration = Duration::from_secs(5);
/// Receipts on their way to the disk at a time.
const IN_FLIGHT: usize = 512;

/// What was counted, and what of it has receipts.
pub(super) struct Denials {
    maps: Arc<Maps>,
    recorder: Recorder,
    generations: Arc<Generations>,
    /// How many of each have a receipt.
    reported: HashMap<DenialKey, u64>,
    /// How many could not be written.
    lost: u64,
}

impl Denials {
    /// For these maps; `reported` is what a former proxy has written.
    pub(super) fn new(
        maps: Arc<Maps>,
        recorder: Recorder,
        generations: Arc<Generations>,
        reported: HashMap<DenialKey, u64>,
    ) -> Self {
        Self { maps, recorder, generations, reported, lost: 0 }
    }

    /// Writes what was counted, again and again, and once more at `stop`. Returns how many receipts could not be written.
    pub(super) async fn run(mut self, stop: impl Future<Output = ()>) -> u64 {
        tokio::pin!(stop);
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = 0;
        loop {
            let is_last = tokio::select! {
                () = &mut stop => true,
                _ = tick.tick() => false,
            };
            // Without a flood this costs one look at the counters.
            let now = self.maps.counters().map_or(u64::MAX, |counters| counters.counted.values().sum());
            if is_last || now != seen {
                seen = now;
                self.write().await;
            }
            if is_last {
                return self.lost;
            }
        }
    }

    async fn write(&mut self) {
        let now = (boot_clock(), SystemTime::now());
        let mut counted = self.maps.denials();
        counted.sort_unstable_by_key(|(_, count)| count.first_ns);
        let grown = |(key, count): &(DenialKey, DenialCount)| {
            count.count.saturating_sub(self.reported.get(key).copied().unwrap_or_default())
        };
        let owed: Vec<_> =
            counted.into_iter().map(|entry| (grown(&entry), entry)).filter(|(new, _)| *new > 0).collect();
        for part in owed.chunks(IN_FLIGHT) {
            let mut in_flight = Vec::with_capacity(part.len());
            for (new, (key, count)) in part {
                let facts = self.facts(key, count, *new, now);
                match self.recorder.queue_denials(&facts).await {
                    Ok(written) => in_flight.push((key, count.count, written)),
                    Err(_) => self.lost += 1,
                }
            }
            for (key, total, written) in in_flight {
                if written.await.is_ok() {
                    self.reported.insert(*key, total);
                    self.maps.set_reported(*key, total);
                } else {
                    self.lost += 1;
                }
            }
        }
    }

    fn facts(&self, key: &DenialKey, count: &DenialCount, new: u64, now: (u64, SystemTime)) -> DenialFacts {
        let reason = KernelReason::from_u8(key.reason);
        let is_rest = *key == DenialKey::rest(key.reason);
        let is_inbound = key.hook == hook::INGRESS;
        let end = count.comm.iter().position(|byte| *byte == 0).unwrap_or(count.comm.len());
        let last = wall_clock(count.last_ns, now.0, now.1);
        DenialFacts {
            count: new,
            target: (!is_rest).then(|| {
                std::net::SocketAddr::new(from_addr(key.dst), if is_inbound { count.peer_port } else { key.port })
            }),
            local: (!is_rest && is_inbound).then(|| std::net::SocketAddr::new(from_addr(count.src), key.port)),
            protocol: protocol_name(key.protocol),
            hook: hook::name(key.hook),
            reason: reason.map_or(Reason::Internal, Reason::from),
            kernel_reason: reason.map_or("unknown", kernel_code),
            comm: String::from_utf8_lossy(count.comm.get(..end).unwrap_or_default()).into_owned(),
            tgid: count.tgid,
            uid: count.uid,
            first_ns: count.first_ns,
            last_ns: count.last_ns,
            last_at: last,
            policy: (!is_rest).then(|| self.generations.find(key.generation)),
        }
    }
}
