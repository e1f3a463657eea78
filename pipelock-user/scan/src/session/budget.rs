//! How much information a session has sent in values it was free to choose, within a sliding window.
//!
//! The engine records every outbound value (query values, path segments, labels, arguments) that no rule explains. A
//! value sent before tells little: it costs only the choice among those sent lately, so that the same key in every
//! request does not use the budget up.

use super::table::Table;
use crate::entropy;
use std::hash::{BuildHasher, RandomState};

/// Steps in which the window slides.
const STEPS: u64 = 16;
/// Values of a session that are remembered, to know what is new.
const REMEMBERED: usize = 128;
/// Bits that a repeated value costs: the choice of one in [`REMEMBERED`].
const REPEATED_BITS: f64 = 7.0;

/// The settings of a [`Budget`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BudgetLimits {
    /// Bits a session may send within the window.
    pub bits: f64,
    /// The window, in milliseconds; 16 at least.
    pub window: u64,
    /// Sessions that are kept.
    pub sessions: usize,
}

impl Default for BudgetLimits {
    fn default() -> Self {
        Self { bits: 4096.0, window: 5 * 60 * 1000, sessions: 10_000 }
    }
}

/// Where a session stands after a value was recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// Bits sent within the window, this value included.
    pub bits: f64,
    /// Whether that is more than allowed.
    pub over: bool,
}

#[derive(Debug)]
struct Session {
    steps: [f64; STEPS as usize],
    /// The step that is being filled, counted from time zero.
    current: u64,
    remembered: [u64; REMEMBERED],
    /// Values remembered so far; the place of the next one, modulo [`REMEMBERED`].
    count: usize,
}

/// The budgets of all sessions.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    table: Table<Session>,
    /// Keyed, so that nobody outside can make two values look the same.
    hasher: RandomState,
}

impl Budget {
    /// Empty budgets under these limits.
    pub fn new(limits: BudgetLimits) -> Self {
        let limits = BudgetLimits { window: limits.window.max(STEPS), ..limits };
        Self { limits, table: Table::new(limits.sessions), hasher: RandomState::new() }
    }

    /// Records a value a session sends at `now` (milliseconds). Linear in the value.
    pub fn record(&mut self, session: u64, now: u64, value: &[u8]) -> Spent {
        let hash = self.hasher.hash_one(value);
        let step = now / (self.limits.window / STEPS);
        let state = self.table.entry(session, now, || Session {
            steps: [0.0; STEPS as usize],
            current: step,
            remembered: [0; REMEMBERED],
            count: 0,
        });
        for passed in 1..=step.saturating_sub(state.current).min(STEPS) {
            state.steps[((state.current + passed) % STEPS) as usize] = 0.0;
        }
        state.current = state.current.max(step);
        let known = state.remembered[..state.count.min(REMEMBERED)].contains(&hash);
        let full = entropy::bits(value);
        let cost = if known { full.min(REPEATED_BITS) } else { full };
        if !known {
            state.remembered[state.count % REMEMBERED] = hash;
            state.count += 1;
        }
        state.steps[(state.current % STEPS) as usize] += cost;
        let bits = state.steps.iter().sum();
        Spent { bits, over: bits > self.limits.bits }
    }

    /// Forgets a session that ended.
    pub fn end(&mut self, session: u64) {
        self.table.remove(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bits: f64) -> Budget {
        Budget::new(BudgetLimits { bits, window: 1600, sessions: 4 })
    }

    #[test]
    fn new_values_add_up_until_they_are_over() {
        let mut budget = budget(100.0);
        // 16 different bytes are 64 bits.
        assert_eq!(budget.record(1, 0, b"0123456789abcdef"), Spent { bits: 64.0, over: false });
        assert_eq!(budget.record(1, 10, b"ghijklmnopqrstuv"), Spent { bits: 128.0, over: true });
        assert!(!budget.record(2, 10, b"0123456789abcdef").over);
    }

    #[test]
    fn a_repeated_value_costs_the_choice_only() {
        let mut budget = budget(100.0);
        budget.record(1, 0, b"0123456789abcdef");
        assert_eq!(budget.record(1, 0, b"0123456789abcdef").bits, 64.0 + REPEATED_BITS);
    }

    #[test]
    fn the_window_slides() {
        let mut budget = budget(100.0);
        budget.record(1, 0, b"0123456789abcdef");
        assert_eq!(budget.record(1, 1599, b"").bits, 64.0);
        assert_eq!(budget.record(1, 1600, b"").bits, 0.0);
        // Back in time: nothing comes back, nothing panics.
        assert_eq!(budget.record(1, 3, b"").bits, 0.0);
    }

    #[test]
    fn any_limits_work() {
        let mut budget = Budget::new(BudgetLimits { bits: 0.0, window: 0, sessions: 0 });
        assert!(budget.record(1, u64::MAX, b"ab").over);
        assert!(!budget.record(2, 0, b"aa").over);
    }
}
