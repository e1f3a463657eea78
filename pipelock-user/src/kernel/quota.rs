//! How much of the kernel's table of flows is given back, and how fast: the pace at which denials get receipts of their own.
//!
//! Kept by the ledger, which tells the programs. The programs give a record to a denial only while fewer than
//! [`DENIAL_QUOTA`](pipelock_common::DENIAL_QUOTA) of them count; the others they count by destination. A denial stops
//! counting when its receipt is written, but not faster than [`PACE`]: so a flood of refused connects costs neither the
//! time of the signer, for which the allowed flows wait too, nor the disk.

use std::time::{Duration, Instant};

use pipelock_common::Settled;

/// Denials that stop counting in one second, at most.
const PACE: u64 = 1_000;

/// What was settled, and what of it the programs know.
#[derive(Debug)]
pub(super) struct Quota {
    /// Denials whose receipts are written.
    denials: u64,
    /// Flows that were numbered and not recorded: nothing is there to be settled.
    unrecorded: u64,
    told: Settled,
    /// Up to when the pace is used up.
    paid_until: Instant,
}

impl Quota {
    /// At the beginning, or where a former proxy left it.
    pub(super) fn new(settled: Settled, unrecorded: u64, now: Instant) -> Self {
        Self { denials: settled.denials, unrecorded, told: settled, paid_until: now }
    }

    /// So many flows could not be recorded up to now: their places in the table are free.
    pub(super) fn unrecorded(&mut self, count: u64) {
        self.told.flows += count.saturating_sub(self.unrecorded);
        self.unrecorded = self.unrecorded.max(count);
    }

    /// A record was removed.
    pub(super) fn settle(&mut self, is_denial: bool, now: Instant) -> Settled {
        self.told.flows += 1;
        self.denials += u64::from(is_denial);
        self.at(now)
    }

    /// What the programs may know now.
    pub(super) fn at(&mut self, now: Instant) -> Settled {
        let owed = self.denials - self.told.denials;
        let elapsed = now.saturating_duration_since(self.paid_until);
        let earned = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX).saturating_mul(PACE) / 1_000_000;
        if earned >= owed {
            // Time without denials is not saved up: the quota itself is what a burst may use.
            self.paid_until = now;
            self.told.denials = self.denials;
        } else {
            self.paid_until += Duration::from_micros(earned * 1_000_000 / PACE);
            self.told.denials += earned;
        }
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_given_back_at_once_and_denials_at_the_pace() {
        let start = Instant::now();
        let mut quota = Quota::new(Settled::default(), 0, start);
        for _ in 0..5 {
            quota.settle(false, start);
        }
        for _ in 0..PACE * 3 {
            quota.settle(true, start);
        }
        assert_eq!(quota.at(start), Settled { flows: 5 + PACE * 3, denials: 0 });
        assert_eq!(quota.at(start + Duration::from_millis(500)).denials, PACE / 2);
        assert_eq!(quota.at(start + Duration::from_millis(500)).denials, PACE / 2, "paid once");
        assert_eq!(quota.at(start + Duration::from_secs(2)).denials, PACE * 2);
        assert_eq!(quota.at(start + Duration::from_secs(60)).denials, PACE * 3, "never more than were settled");
    }

    #[test]
    fn small_steps_lose_nothing() {
        let start = Instant::now();
        let mut quota = Quota::new(Settled { flows: 9, denials: 4 }, 0, start);
        for _ in 0..PACE * 2 {
            quota.settle(true, start);
        }
        for step in 1..=10_000_u32 {
            quota.at(start + Duration::from_micros(100) * step);
        }
        assert_eq!(quota.at(start + Duration::from_secs(1)).denials, 4 + PACE);
    }
}
