//! Leaves out of a decompressed text what only says again what was just said: rows of a plain image, runs of one byte. Called by
//! [`super::output`], so that those cost little and are no bomb.
//!
//! What is left out is a whole number of periods behind at least [`BLOCK`] bytes of the same, which were read: nothing can be found
//! in it that is not found before it, and what follows follows the same bytes as in the whole text. Who counts bytes would miss
//! some: nothing is left out while the text below has something open that is no text, nor of what is all text, which may be the
//! code of such a thing. Promises: what is left does not depend on how the text was cut; memory of a few [`BLOCK`]s.

use memchr::memmem;

/// Bytes that come before anything is left out: most texts are shorter, and pay nothing.
const FIRST: u64 = 1 << 16;
/// Bytes that must have a period, and the longest one: a row of an image of 4096 points is 16 KiB.
const BLOCK: usize = 1 << 14;
/// Bytes by which a period is looked for.
const PROBE: usize = 64;
/// How many places are tried.
const PLACES: usize = 16;

/// What is known of the text so far.
#[derive(Debug, Default)]
pub(super) struct Periods {
    /// Bytes before anything is looked at.
    before: u64,
    /// The last bytes that were handed on.
    history: Vec<u8>,
    /// How many of them came since the last look.
    since: usize,
    /// The period of what comes, while it has one.
    period: Option<Period>,
    /// Bytes that were left out.
    left_out: u64,
}

#[derive(Debug)]
struct Period {
    length: usize,
    /// Bytes that were left out so far.
    skipped: u64,
}

impl Periods {
    /// Hands on what of `out` is new, in order; `give` says whether something is open then.
    pub(super) fn take<E>(&mut self, out: &[u8], mut give: impl FnMut(&[u8]) -> Result<bool, E>) -> Result<(), E> {
        let first = usize::try_from(FIRST - self.before).unwrap_or(usize::MAX).min(out.len());
        let (passed, mut rest) = out.split_at(first);
        self.before += first as u64;
        if !passed.is_empty() {
            give(passed)?;
        }
        while !rest.is_empty() {
            if let Some(period) = &mut self.period {
                let same = again(&self.history, period, rest);
                period.skipped += same as u64;
                self.left_out += same as u64;
                rest = &rest[same..];
                if !rest.is_empty() {
                    self.end(&mut give)?;
                }
                continue;
            }
            let (part, behind) = rest.split_at(rest.len().min(BLOCK - self.since));
            let is_open = give(part)?;
            self.keep(part);
            rest = behind;
            if self.since == BLOCK {
                self.since = 0;
                if is_open {
                    continue;
                }
                self.period = period(&self.history).map(|length| Period { length, skipped: 0 });
            }
        }
        Ok(())
    }

    /// Bytes that were left out so far.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What has a period ends: hands on what of the last one was begun, so that what follows stands behind the bytes that were
    /// there.
    pub(super) fn end<E>(&mut self, mut give: impl FnMut(&[u8]) -> Result<bool, E>) -> Result<(), E> {
        let Some(period) = self.period.take() else { return Ok(()) };
        let begun = (period.skipped % period.length as u64) as usize;
        let start = self.history.len() - period.length;
        let part = self.history[start..start + begun].to_vec();
        if begun > 0 {
            give(&part)?;
        }
        self.keep(&part);
        self.since = 0;
        self.left_out -= begun as u64;
        Ok(())
    }

    fn keep(&mut self, part: &[u8]) {
        self.since += part.len();
        if self.history.is_empty() {
            self.history.reserve_exact(4 * BLOCK);
        } else if self.history.len() + part.len() > 4 * BLOCK {
            // A block, and its period before it.
            self.history.drain(..self.history.len() - 2 * BLOCK);
        }
        self.history.extend_from_slice(part);
    }

    /// Bytes it takes beside itself.
    pub(super) fn memory(&self) -> usize {
        self.history.capacity()
    }
}

/// How many bytes of `text` go on with the period behind `history`.
fn again(history: &[u8], period: &Period, text: &[u8]) -> usize {
    let last = &history[history.len() - period.length..];
    let (mut at, mut phase) = (0, (period.skipped % period.length as u64) as usize);
    while at < text.len() {
        let (want, have) = (&last[phase..], &text[at..]);
        let length = want.len().min(have.len());
        if want[..length] != have[..length] {
            return at + want.iter().zip(have).take_while(|(one, other)| one == other).count();
        }
        (at, phase) = (at + length, 0);
    }
    at
}

/// A period of the last [`BLOCK`] bytes: the distance from where they last change to where the same was before, as far as
/// that is told by a few places.
fn period(history: &[u8]) -> Option<usize> {
    let block = history.len().checked_sub(BLOCK)?;
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t');
    let holds = |length: usize| {
        let same = |before: usize| history[before..history.len() - length] == history[block..];
        block.checked_sub(length).is_some_and(same) && !history[history.len() - length..].iter().all(is_text)
    };
    // A run within a row would say nothing of the rows.
    let changes = (block + 1..history.len()).rev().find(|at| history[*at] != history[at - 1]);
    let Some(changes) = changes else { return holds(1).then_some(1) };
    let from = block.saturating_sub(PROBE);
    let probe = &history[changes.saturating_sub(PROBE).max(from)..=changes];
    let mut end = changes;
    for _ in 0..PLACES {
        let at = from + memmem::rfind(&history[from..end], probe)?;
        let length = changes + 1 - (at + probe.len());
        if holds(length) {
            return Some(length);
        }
        end = at + probe.len() - 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is left, how much was left out, and what would be left if it were cut there.
    fn left(text: &[u8], cuts: &[usize]) -> (Vec<u8>, usize) {
        let (mut periods, mut out, mut from) = (Periods::default(), Vec::new(), 0);
        let mut give = |part: &[u8]| {
            out.extend_from_slice(part);
            Ok::<bool, ()>(false)
        };
        for cut in cuts.iter().copied().chain([text.len()]) {
            periods.take(&text[from..cut], &mut give).unwrap();
            assert!(periods.memory() <= 4 * BLOCK);
            from = cut;
        }
        periods.end(&mut give).unwrap();
        let less = periods.left_out() as usize;
        assert_eq!(out.len() + less, text.len());
        (out, less)
    }

    #[test]
    fn rows_said_again_are_left_out() {
        let white = vec![0xff; 1 << 20];
        assert!(left(&white, &[]).0.len() <= FIRST as usize + 2 * BLOCK);
        let row: Vec<u8> = (0..11_521u32).map(|at| ((at * at) >> 7) as u8).collect();
        let (out, less) = left(&[row.repeat(50), b"token".to_vec(), row.repeat(50)].concat(), &[]);
        assert!(less > 60 * row.len(), "{less}");
        let at = memmem::find(&out, b"token").unwrap();
        assert_eq!(out[at - row.len()..at], row, "what stands before");
        assert_eq!(out[at + 5..at + 5 + row.len()], row);
        let noise: Vec<u8> = (0..400_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(left(&noise, &[]), (noise.clone(), 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn nothing_new_is_lost_and_cuts_change_nothing(
            parts in proptest::collection::vec((1usize..20_000, 0usize..90_000, any::<u32>()), 1..6),
            cuts in proptest::collection::vec(0usize..500_000, 0..9),
        ) {
            let mut text = Vec::new();
            for (length, most, seed) in parts {
                let unit: Vec<u8> = (0..length as u32).map(|at| (at.wrapping_mul(seed | 1) >> 9) as u8).collect();
                text.extend(unit.iter().cycle().take(most));
                text.extend(seed.to_be_bytes());
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (text.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = left(&text, &[]);
            prop_assert_eq!(&left(&text, &cuts), &whole);
            // Each stretch of the text is somewhere in what is left.
            let out = &whole.0;
            for at in (0..text.len().saturating_sub(2048)).step_by(1777) {
                prop_assert!(memmem::find(out, &text[at..at + 2048]).is_some(), "{}", at);
            }
        }
    }
}
