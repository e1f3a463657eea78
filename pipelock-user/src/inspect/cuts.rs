//! What is to be taken out of a text, in order. Called by `reader`; it promises that no two places overlap.

use std::collections::VecDeque;
use std::ops::Range;

/// Makes what overlaps one.
pub(super) fn merge(cuts: &mut VecDeque<(Range<u64>, String)>) {
    let mut sorted: Vec<_> = cuts.drain(..).collect();
    sorted.sort_by_key(|(cut, _)| (cut.start, cut.end));
    for (cut, placeholder) in sorted {
        match cuts.back_mut() {
            Some((last, _)) if cut.start < last.end => last.end = last.end.max(cut.end),
            _ => cuts.push_back((cut, placeholder)),
        }
    }
}
