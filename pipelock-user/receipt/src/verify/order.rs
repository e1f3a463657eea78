//! Puts numbered things back in order: which are missing, which came late, which came twice.
//!
//! Used for the receipts of a chain and for the recorder entries around them. A thing whose signature does not hold has
//! no number that could be believed; it takes the place that its neighbours leave open, so that one edited receipt is
//! one problem and not three.

use std::collections::BTreeMap;

/// Most bad things that are remembered one by one between two good ones.
const MAX_PENDING: usize = 1000;

/// Where a numbered thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Right behind the one before.
    Next,
    /// Behind a gap.
    Skipped,
    /// Fills a gap that was left earlier.
    Late,
    /// Its number was there already.
    Twice,
}

/// Bad things with the number that each one takes; `None` when there is no place for it.
pub(super) type Placed<T> = Vec<(T, Option<u64>)>;

/// Follows one sequence that should read 0, 1, 2 …
pub(super) struct Order<T> {
    expected: u64,
    /// Missing so far: first number → first number behind.
    gaps: BTreeMap<u64, u64>,
    /// Bad things since the last good one, each with the number it claims.
    pending: Vec<(T, Option<u64>)>,
    /// Bad things beyond [`MAX_PENDING`], and how many of those there were in all.
    unlisted: u64,
    dropped: u64,
}

impl<T> Order<T> {
    pub(super) fn new() -> Self {
        Self { expected: 0, gaps: BTreeMap::new(), pending: Vec::new(), unlisted: 0, dropped: 0 }
    }

    /// A thing whose number cannot be believed.
    pub(super) fn bad(&mut self, thing: T, claimed: Option<u64>) {
        if self.pending.len() < MAX_PENDING {
            self.pending.push((thing, claimed));
        } else {
            self.unlisted += 1;
            self.dropped += 1;
        }
    }

    /// A thing whose number holds. Also returns the bad things before it, placed.
    pub(super) fn good(&mut self, number: u64) -> (Place, Placed<T>) {
        if number < self.expected {
            let place = if self.fill_gap(number) { Place::Late } else { Place::Twice };
            return (place, Vec::new());
        }
        let disturbed = number > self.expected;
        let placed = self.place_pending(number);
        let place =
            if disturbed && self.gaps.values().any(|end| *end == number) { Place::Skipped } else { Place::Next };
        self.expected = number.saturating_add(1);
        (place, placed)
    }

    /// The end of the sequence: the bad things that are left take the next numbers if `open`, else none.
    pub(super) fn finish(&mut self, open: bool) -> Placed<T> {
        if !open {
            self.unlisted = 0;
            return self.pending.drain(..).map(|(thing, _)| (thing, None)).collect();
        }
        let mut next = self.expected;
        let placed = self
            .pending
            .drain(..)
            .map(|(thing, _)| {
                next = next.saturating_add(1);
                (thing, Some(next.saturating_sub(1)))
            })
            .collect();
        self.expected = next.saturating_add(self.unlisted);
        placed
    }

    /// The first number that was not seen yet.
    pub(super) fn expected(&self) -> u64 {
        self.expected
    }

    /// How many bad things there were that no list holds.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// True when nothing was missing or bad so far.
    pub(super) fn is_clean(&self) -> bool {
        self.gaps.is_empty() && self.pending.is_empty()
    }

    /// The numbers that are missing: first and how many.
    pub(super) fn missing(&self) -> impl Iterator<Item = (u64, u64)> {
        self.gaps.iter().map(|(first, end)| (*first, end.saturating_sub(*first)))
    }

    /// How many numbers are missing.
    pub(super) fn missing_count(&self) -> u64 {
        self.missing().fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    fn fill_gap(&mut self, number: u64) -> bool {
        let Some((first, end)) = self.gaps.range(..=number).next_back().map(|(first, end)| (*first, *end)) else {
            return false;
        };
        if number >= end {
            return false;
        }
        self.gaps.remove(&first);
        if first < number {
            self.gaps.insert(first, number);
        }
        if number + 1 < end {
            self.gaps.insert(number + 1, end);
        }
        true
    }

    /// Gives the pending bad things the numbers from `expected` up to `end`; what is left over of those is a gap.
    fn place_pending(&mut self, end: u64) -> Placed<T> {
        let mut next = self.expected;
        let mut left = u64::try_from(self.pending.len()).unwrap_or(u64::MAX).saturating_add(self.unlisted);
        let enough = end - next >= left;
        let mut placed = Vec::with_capacity(self.pending.len());
        for (thing, claimed) in std::mem::take(&mut self.pending) {
            left = left.saturating_sub(1);
            // A claim is taken at its word only if it leaves room for the others.
            let believed = claimed
                .filter(|claimed| *claimed >= next && *claimed < end.saturating_sub(if enough { left } else { 0 }));
            let number = match believed {
                Some(claimed) => Some(claimed),
                None if enough || (claimed.is_none() && next < end) => Some(next),
                None => None,
            };
            if let Some(number) = number {
                if next < number {
                    self.gaps.insert(next, number);
                }
                next = number + 1;
            }
            placed.push((thing, number));
        }
        next = next.saturating_add(std::mem::take(&mut self.unlisted)).min(end);
        if next < end {
            self.gaps.insert(next, end);
        }
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Places of the good ones, numbers that the bad ones take, what is missing.
    type Outcome = (Vec<Place>, Vec<Option<u64>>, Vec<(u64, u64)>);

    fn run(items: &[Result<u64, Option<u64>>]) -> Outcome {
        let (mut order, mut places, mut bad) = (Order::new(), Vec::new(), Vec::new());
        for item in items {
            match item {
                Ok(number) => {
                    let (place, placed) = order.good(*number);
                    places.push(place);
                    bad.extend(placed.into_iter().map(|((), number)| number));
                }
                Err(claimed) => order.bad((), *claimed),
            }
        }
        bad.extend(order.finish(true).into_iter().map(|((), number)| number));
        (places, bad, order.missing().collect())
    }

    #[test]
    fn one_change_is_one_finding() {
        use Place::{Late, Next, Skipped, Twice};
        assert_eq!(run(&[Ok(0), Ok(1), Ok(2)]), (vec![Next, Next, Next], vec![], vec![]));
        assert_eq!(run(&[Ok(0), Ok(3)]), (vec![Next, Skipped], vec![], vec![(1, 2)]));
        assert_eq!(run(&[Ok(0), Ok(2), Ok(1), Ok(3)]), (vec![Next, Skipped, Late, Next], vec![], vec![]));
        assert_eq!(run(&[Ok(0), Ok(1), Ok(1)]), (vec![Next, Next, Twice], vec![], vec![]));
        // Edited, whatever it claims; inserted; the last one; beside a deletion.
        for claimed in [None, Some(1), Some(7), Some(0)] {
            assert_eq!(run(&[Ok(0), Err(claimed), Ok(2)]), (vec![Next, Next], vec![Some(1)], vec![]));
        }
        assert_eq!(run(&[Ok(0), Err(Some(1)), Ok(1)]), (vec![Next, Next], vec![None], vec![]));
        assert_eq!(run(&[Ok(0), Err(Some(9))]), (vec![Next], vec![Some(1)], vec![]));
        assert_eq!(run(&[Ok(0), Err(Some(2)), Ok(3)]), (vec![Next, Next], vec![Some(2)], vec![(1, 1)]));
        assert_eq!(run(&[Ok(2)]), (vec![Skipped], vec![], vec![(0, 2)]));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_counted_once(items in proptest::collection::vec(
            prop_oneof![(0_u64..20).prop_map(Ok), proptest::option::of(0_u64..25).prop_map(Err)], 0..40)) {
            let (places, bad, missing) = run(&items);
            prop_assert_eq!(places.len() + bad.len(), items.len());
            // Every number up to the highest is present, taken by a bad one, or missing; none is two of these.
            let highest = items.iter().filter_map(|item| item.as_ref().ok()).max().copied();
            for number in 0..=highest.unwrap_or(0) {
                let present = items.contains(&Ok(number));
                let gone = missing.iter().any(|(first, count)| (*first..first + count).contains(&number));
                let taken = bad.iter().filter(|bad| **bad == Some(number)).count();
                if highest.is_some() {
                    prop_assert!(u32::from(present) + u32::from(gone) <= 1);
                    prop_assert!(present || gone || taken > 0, "{number} is nowhere");
                }
            }
        }

        #[test]
        fn huge_numbers_do_not_panic(numbers in proptest::collection::vec(any::<u64>(), 0..20)) {
            let mut order = Order::<()>::new();
            for number in numbers {
                order.bad((), Some(number.wrapping_add(3)));
                order.good(number);
                order.good(u64::MAX);
            }
            order.finish(true);
            order.missing_count();
        }
    }
}
