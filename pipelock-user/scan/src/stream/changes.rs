//! Where the bytes of a view come from. Called by [`super::view`] and [`super::runs`], which note every change, and ask for
//! the place of a match.
//!
//! Between changes a view is its source, byte for byte; so only the changes are kept, neighbours of the same kind as one.

use std::collections::VecDeque;
use std::ops::Range;

use crate::finding::Step;

/// The changes of a view, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    list: VecDeque<Change>,
    /// Source offset of the view's first byte.
    origin: u64,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    /// Offset in the view, and how many bytes.
    out: u64,
    out_len: u32,
    /// Offset in the source, and how many bytes.
    source: u64,
    source_len: u32,
    step: Step,
}

impl Change {
    /// Source bytes of one byte of the view, when all have the same number.
    fn ratio(&self) -> Option<u32> {
        (self.out_len > 0 && self.source_len.is_multiple_of(self.out_len)).then(|| self.source_len / self.out_len)
    }

    fn out_end(&self) -> u64 {
        self.out + u64::from(self.out_len)
    }

    fn source_end(&self) -> u64 {
        self.source + u64::from(self.source_len)
    }
}

impl Changes {
    /// Starts over: the view's first byte is the source's at `origin`.
    pub(crate) fn reset(&mut self, origin: u64) {
        self.list.clear();
        self.origin = origin;
    }

    /// Notes that `source_len` bytes at `source` became `out_len` bytes at `out`. Changes that end more than `keep` bytes
    /// before are forgotten.
    pub(crate) fn note(&mut self, out: u64, out_len: u32, source: u64, source_len: u32, step: Step, keep: u64) {
        let new = Change { out, out_len, source, source_len, step };
        if let Some(last) = self.list.back_mut() {
            let touching = last.out_end() == out && last.source_end() == source && last.step == step;
            let alike = last.ratio().is_some() && last.ratio() == new.ratio() || last.out_len == 0 && out_len == 0;
            if touching && alike && last.out_len < 1 << 24 && last.source_len < 1 << 24 {
                last.out_len += out_len;
                last.source_len += source_len;
                return;
            }
        }
        while self.list.len() > 1 && self.list.front().is_some_and(|first| first.out_end() + keep < out) {
            self.list.pop_front();
        }
        self.list.push_back(new);
    }

    /// The kinds of the changes in `span` and right before it, where a word may begin by them; without any, of those right
    /// behind it. `None` when there are none at all.
    pub(crate) fn touching(&self, span: &Range<u64>) -> Option<Vec<Step>> {
        let near = self.list.iter().rev().take_while(|change| change.out_end() >= span.start);
        let (mut steps, mut behind) = (Vec::new(), Vec::new());
        for change in near {
            // Who needs to know what comes behind has seen it; for others it would depend on the cut.
            let to = if change.out < span.end { &mut steps } else { &mut behind };
            if change.out <= span.end && !to.contains(&change.step) {
                to.push(change.step);
            }
        }
        let mut steps = if steps.is_empty() { behind } else { steps };
        steps.reverse();
        (!steps.is_empty()).then_some(steps)
    }

    /// The source of `span`.
    pub(crate) fn source_of(&self, span: &Range<u64>) -> Range<u64> {
        self.source_start(span.start)..self.source_end(span.end)
    }

    /// Where the byte at `at` begins in the source.
    pub(crate) fn source_start(&self, at: u64) -> u64 {
        let Some(change) = self.before(at) else { return self.origin + at };
        if at >= change.out_end() {
            return change.source_end() + (at - change.out_end());
        }
        change.source + change.ratio().map_or(0, |ratio| u64::from(ratio) * (at - change.out))
    }

    /// Where the byte before `end` ends in the source.
    fn source_end(&self, end: u64) -> u64 {
        let Some(last) = end.checked_sub(1) else { return self.origin };
        let Some(change) = self.before(last) else { return self.origin + end };
        if last >= change.out_end() {
            return change.source_end() + (end - change.out_end());
        }
        change.ratio().map_or(change.source_end(), |ratio| change.source + u64::from(ratio) * (end - change.out))
    }

    /// Bytes it takes beside itself.
    pub(crate) fn memory(&self) -> usize {
        self.list.capacity() * size_of::<Change>()
    }

    fn before(&self, at: u64) -> Option<&Change> {
        let after = self.list.partition_point(|change| change.out <= at);
        self.list.get(after.checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_through_changes() {
        // "ab%41%42c" + a deleted byte + "d" at offset 10 of the source.
        let mut changes = Changes::default();
        changes.reset(10);
        changes.note(2, 1, 12, 3, Step::Percent, 100);
        changes.note(3, 1, 15, 3, Step::Percent, 100);
        changes.note(5, 0, 19, 1, Step::Invisible, 100);
        assert_eq!(changes.list.len(), 2);
        assert_eq!([(1..3), (3..5), (4..6)].map(|span| changes.source_of(&span)), [11..15, 15..19, 18..21]);
        assert_eq!(changes.touching(&(0..1)), None);
        assert_eq!(changes.touching(&(0..2)), Some(vec![Step::Percent]));
        assert_eq!(changes.touching(&(3..5)), Some(vec![Step::Percent]));
        assert_eq!(changes.touching(&(4..6)), Some(vec![Step::Percent, Step::Invisible]));
        assert_eq!(changes.touching(&(5..6)), Some(vec![Step::Invisible]));
        assert_eq!(changes.touching(&(6..7)), None);
    }
}
