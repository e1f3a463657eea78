//! Looks for the beginnings of what is decoded as it comes, where the gate saw a sign of it. Called by [`super::pairs`] and
//! [`super::dumps`].
//!
//! Promises: a stretch is looked at with all that decides about its last byte, so that it makes no difference how the text was cut.

use super::Window;
use super::layer::AGAIN;
use crate::decode::gate::Gate;
use crate::decode::pairs::Read;

/// Bytes that are searched before the gate is asked again.
pub(super) const STRETCH: usize = 512;

/// Moves `at` to where something begins that the gate has this flag for, and says what; without it, to where something may.
/// `decides` bytes tell whether it does; `look` has the byte before the text, the text, and whether that ends there, and says where in
/// the first [`STRETCH`] bytes something begins.
pub(super) fn find<T>(
    at: &mut u64,
    (window, last): (&Window<'_>, bool),
    (gate, flag): (&Gate, u16),
    decides: usize,
    look: impl Fn(Option<u8>, &[u8], bool) -> (usize, Read<T>),
) -> Option<T> {
    let (fresh, end) = (window.fresh(), window.end());
    while *at < end {
        if *at >= fresh {
            *at = gate.next(flag, *at, AGAIN as u64, end);
        }
        let before = at.checked_sub(1).and_then(|at| window.byte(at));
        let stop = (*at + (STRETCH + decides) as u64).min(end);
        let (skip, found) = window.with(*at..stop, |text| look(before, text, last && stop == end));
        *at += skip as u64;
        match found {
            Read::Yes(found) => return Some(found),
            Read::More => return None,
            Read::No => {}
        }
    }
    None
}
