//! How much information a session has sent in values it was free to choose, within a sliding window.
//!
//! The engine records every outbound value (query values, path segments, labels, arguments) that no rule explains. A
//! value sent before tells little: it costs only the choice among those sent lately, so that the same key in every
//! request does not use the budget up. So it is with the pieces of values: those that are words cost nothing, and those that
//! the session was given cost what taking the next link of a list does. Short ones, which would soon all be known, always cost
//! what they may tell.

use super::given::{self, Given, Piece};
use super::table::Table;
use crate::entropy;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

/// Steps in which the window slides.
const STEPS: u64 = 16;
/// Values of a session that are remembered, to know what is new.
const REMEMBERED: usize = 128;
/// Bits that a repeated value costs: the choice of one in [`REMEMBERED`].
const REPEATED_BITS: f64 = 7.0;
/// Bits that a piece costs which the session was given: who follows links does so in their order, but for leaving some out.
const GIVEN_BITS: f64 = 2.0;

/// Places of a session of which the latest value is known.
const PLACES: usize = 64;

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
    /// What came last at each place; the one that is known longest makes room.
    latest: VecDeque<Latest>,
}

/// What came last at a place.
#[derive(Debug)]
struct Latest {
    place: u64,
    value: u64,
    /// How often in a row.
    times: u32,
    /// The number at its end, and what stands before that.
    number: Option<(u64, u64)>,
}

/// The number at the end of a value, which no zero begins, and how long what stands before it is.
fn counted(value: &[u8]) -> Option<(usize, u64)> {
    let digits = value.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (before, number) = value.split_at(value.len() - digits);
    let number = std::str::from_utf8(number).ok().filter(|number| !number.starts_with('0'))?;
    Some((before.len(), number.parse().ok()?))
}

impl Session {
    fn knows(&self, hash: u64) -> bool {
        self.remembered[..self.count.min(REMEMBERED)].contains(&hash)
    }

    fn remember(&mut self, hash: u64) {
        self.remembered[self.count % REMEMBERED] = hash;
        self.count += 1;
    }

    /// What a value costs that comes at this place.
    fn cost(&mut self, hasher: &RandomState, place: u64, value: &[u8], given: Option<&Given>) -> f64 {
        let follows = self.follows(hasher, place, value);
        let alone = self.alone(hasher, value, given);
        follows.map_or(alone, |follows| follows.min(alone))
    }

    /// What it costs behind the value that came last at its place; none if it has nothing to do with that.
    fn follows(&mut self, hasher: &RandomState, place: u64, value: &[u8]) -> Option<f64> {
        let whole = hasher.hash_one(value);
        let number = counted(value).map(|(stem, number)| (hasher.hash_one(&value[..stem]), number));
        let Some(latest) = self.latest.iter_mut().find(|latest| latest.place == place) else {
            if self.latest.len() >= PLACES {
                self.latest.pop_front();
            }
            self.latest.push_back(Latest { place, value: whole, times: 1, number });
            return None;
        };
        if latest.value == whole {
            latest.times = latest.times.saturating_add(1);
            // That it would come again was the more to be expected the more often it had (the rule of succession).
            return Some((1.0 + 1.0 / f64::from(latest.times)).log2());
        }
        let last = latest.number;
        *latest = Latest { place, value: whole, times: 1, number };
        match (last, number) {
            // How far, and in which direction.
            (Some((stem, last)), Some((same, number))) if stem == same => {
                Some((last.abs_diff(number) as f64).log2() + 1.0)
            }
            _ => None,
        }
    }

    /// What it costs wherever it comes.
    fn alone(&mut self, hasher: &RandomState, value: &[u8], given: Option<&Given>) -> f64 {
        let full = entropy::bits(value);
        let whole = hasher.hash_one(value);
        if self.knows(whole) {
            return full.min(REPEATED_BITS);
        }
        let (mut cost, mut pieces, mut is_one, mut new) = (0.0, 0, false, Vec::new());
        for piece in given::pieces(value, given) {
            pieces += usize::from(!matches!(piece, Piece::Short(_)));
            match piece {
                Piece::Given => cost += GIVEN_BITS,
                Piece::Own(piece) if self.knows(hasher.hash_one(piece)) => cost += REPEATED_BITS,
                Piece::Own(piece) => {
                    is_one |= piece.len() == value.len();
                    self.remember(hasher.hash_one(piece));
                    new.extend_from_slice(piece);
                }
                Piece::Short(piece) => new.extend_from_slice(piece),
            }
        }
        if !is_one {
            self.remember(whole);
        }
        // What has no pieces that are known again is counted as it is.
        (if pieces == 0 { full } else { cost + entropy::bits(&new) }).min(full)
    }
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
        self.record_at(session, now, (0, value), None)
    }

    /// The same of a value at a place of its own, and of a session that was given something.
    pub(super) fn record_at(
        &mut self,
        session: u64,
        now: u64,
        (place, value): (u64, &[u8]),
        given: Option<&Given>,
    ) -> Spent {
        let step = now / (self.limits.window / STEPS);
        let state = self.table.entry(session, now, || Session {
            steps: [0.0; STEPS as usize],
            current: step,
            remembered: [0; REMEMBERED],
            count: 0,
            latest: VecDeque::new(),
        });
        for passed in 1..=step.saturating_sub(state.current).min(STEPS) {
            state.steps[((state.current + passed) % STEPS) as usize] = 0.0;
        }
        state.current = state.current.max(step);
        let cost = state.cost(&self.hasher, place, value, given);
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
        budget.record(1, 0, b"");
        assert_eq!(budget.record(1, 0, b"0123456789abcdef").bits, 64.0 + REPEATED_BITS);
    }

    #[test]
    fn who_polls_or_counts_says_little() {
        let mut budget = budget(1e9);
        let mut cost = |place: u64, value: &str| {
            let before = budget.record(1, 0, b"").bits;
            budget.record_at(1, 0, (place, value.as_bytes()), None).bits - before
        };
        let polled: f64 = (0..2000).map(|_| cost(1, "zq9xw3k7") + cost(2, "a8c1e5b2")).sum();
        assert!(polled < 100.0, "{polled}");
        // Forwards, backwards, and from afar.
        cost(3, "zq9xw-100000");
        assert_eq!(["zq9xw-100001", "zq9xw-100000", "zq9xw-100008"].map(|value| cost(3, value)), [1.0, 1.0, 4.0]);
        assert!(cost(3, "zq9xw-982451") > 15.0 && cost(4, "zq9xw-982452") > 15.0);
        // Numbers that are data, and another name before the same number.
        let data: f64 = (1..100_u64).map(|at| cost(5, &(at.wrapping_mul(0x9e37_79b9) % 100_000_000).to_string())).sum();
        assert!(data > 1500.0, "{data}");
        assert!(cost(3, "yrk4v-982452") > 10.0);
    }

    #[test]
    fn what_was_given_costs_the_choice_only_and_words_nothing() {
        let given = Given::default();
        super::super::Readings::default().push(&given, b"href=/4f9a2b7c1d/zq9xw3-1.0.whl", true);
        let mut budget = budget(1e9);
        let mut cost = |value: &[u8]| {
            let before = budget.record_at(1, 0, (0, b""), None).bits;
            budget.record_at(1, 0, (0, value), Some(&given)).bits - before
        };
        assert_eq!(cost(b"4f9a2b7c1d"), GIVEN_BITS);
        assert_eq!(cost(b"4f9a2b7c1d-zq9xw3-release.whl"), 2.0 * GIVEN_BITS);
        assert_eq!(cost(b"zq9xw3-0123456789abcdef"), GIVEN_BITS + 64.0);
        assert_eq!(cost(b"0123456789abcdef.release"), REPEATED_BITS);
        // A name that was given is one thing; what stands beside it, or beside what was said before, is not.
        assert_eq!(cost(b"zq9xw3-1.0.whl.metadata"), GIVEN_BITS);
        let beside = entropy::bits(b"a1b2cd3e4fg5h6i");
        let mut more = |value: &[u8]| (cost(value) - beside).round();
        assert_eq!(more(b"zq9xw3-a1b2c-d3e4f-g5h6i"), GIVEN_BITS);
        assert_eq!(more(b"0123456789abcdef-a1b2c-d3e4f-g5h6i"), REPEATED_BITS);
        // Cut into pieces it costs what it did whole.
        assert_eq!(more(b"ghijkl-mnopqr-stuvwx"), (entropy::bits(b"ghijklmnopqrstuvwx") - beside).round());
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
