//! Finds one token, or a few, repeated over and over: a flood that pushes instructions out of the reader's attention or
//! makes it derail. Called by [`crate::detect`] for every text. Promises a cost of a few nanoseconds for every 64 bytes
//! of ordinary text, and the same floods however the text is cut.

use std::ops::Range;

use crate::bits;
use crate::stream::Window;

/// Distance between the places that are tried; a flood is longer, and what of it stands before the place where it was noticed must be
/// shorter than one.
const STRIDE: u64 = 64;
/// Bytes that must come again.
const SAMPLE: u64 = 8;
/// Longest unit of repetition, in bytes.
pub(crate) const MAX_UNIT: u64 = bits::BLOCK as u64;
/// Repetitions that make a flood, …
const MIN_TIMES: u64 = 10;
/// … and bytes: what is left of one before the place where it was noticed is none itself.
const MIN_BYTES: u64 = 140;
/// A longer flood is reported in parts of so many bytes, so that nobody waits for its end.
const PART: u64 = 4096;

/// The floods of one text.
#[derive(Debug, Default)]
pub(crate) struct Floods {
    /// The next place that is tried.
    at: u64,
    going: Option<Going>,
}

/// A repetition that goes on.
#[derive(Debug)]
struct Going {
    /// Where it was noticed, or the part began that is not reported yet.
    start: u64,
    unit: u64,
    /// Everything before is compared.
    at: u64,
    /// Bytes it takes to be a flood, counted from `start`.
    needed: u64,
}

impl Floods {
    /// Takes the new piece of `window`; calls `found` with the bytes of each flood and the length of its unit. A flood
    /// counts from where it was noticed, at most two units and [`STRIDE`] bytes behind its start.
    pub(crate) fn push(&mut self, window: &Window<'_>, last: bool, mut found: impl FnMut(Range<u64>, u64)) {
        self.at = self.at.max(STRIDE / 2);
        loop {
            if let Some(going) = &mut self.going {
                let same = |at: &u64| window.byte(*at).is_some() && window.byte(*at) == window.byte(at - going.unit);
                let ended = going.at + (going.at..window.end()).take_while(same).count() as u64;
                going.at = ended;
                while going.needed < PART && going.at - going.start >= PART {
                    found(going.start..going.start + PART, going.unit);
                    (going.start, going.needed) = (going.start + PART, 1);
                }
                if ended == window.end() && !last {
                    return;
                }
                if ended - going.start >= going.needed {
                    found(going.start..ended, going.unit);
                }
                self.at = self.at.max(ended.next_multiple_of(STRIDE) + STRIDE / 2);
                self.going = None;
            }
            while self.going.is_none() {
                if self.at + SAMPLE > window.end() {
                    return;
                }
                let at = self.at;
                self.at += STRIDE;
                let from = at.saturating_sub(MAX_UNIT + STRIDE).max(window.start());
                self.going = window.with(from..at + SAMPLE, |text| begun(text, at - from)).map(|(unit, back)| Going {
                    start: at,
                    unit,
                    at: at + SAMPLE,
                    needed: (unit * MIN_TIMES).max(MIN_BYTES).saturating_sub(back).max(SAMPLE),
                });
            }
        }
    }

    /// Where the first flood may start that is not over yet, in a text of which `end` bytes came.
    pub(crate) fn hold(&self, end: u64) -> u64 {
        self.going.as_ref().map_or(self.at.min(end), |going| going.start)
    }
}

/// Whether a repetition goes on at `at`: the length of its unit, and the bytes of it before. `text` ends [`SAMPLE`] bytes behind.
fn begun(text: &[u8], at: u64) -> Option<(u64, u64)> {
    let (before, sample) = text.split_at_checked(at as usize)?;
    let sample: &[u8; SAMPLE as usize] = sample.first_chunk()?;
    let again = |unit: &usize| text[before.len() - unit..].first_chunk() == Some(sample);
    let block = |behind: usize| text.get(behind..before.len() + behind)?.last_chunk::<{ bits::BLOCK }>();
    let unit = match (block(0), block(1), block(2)) {
        // Where three bytes stand again there is hardly ever anything but a repetition, so that few are compared.
        (Some(one), Some(two), Some(three)) => {
            let of = |block, wanted: u8| bits::of(block, |byte| byte == wanted);
            let mut places = of(one, sample[0]) & of(two, sample[1]) & of(three, sample[2]);
            std::iter::from_fn(|| {
                let unit = places.leading_zeros() + 1;
                places &= !(1u64.checked_shl(u64::BITS.checked_sub(unit)?)?);
                Some(unit as usize)
            })
            .find(again)?
        }
        _ => memchr::memrchr_iter(sample[0], before).map(|place| before.len() - place).find(again)?,
    };
    if !is_wordy(&before[before.len() - unit..]) {
        return None;
    }
    let back = (unit..before.len()).rev().take_while(|&place| before[place] == before[place - unit]).count();
    Some((unit as u64, (back + unit) as u64))
}

/// The floods in a whole text.
pub(crate) fn floods(text: &[u8]) -> Vec<Range<u64>> {
    let mut found = Vec::new();
    let window = Window { first: 0, old: &[], new: text };
    Floods::default().push(&window, true, |span, _| found.push(span));
    found
}

/// Whether the unit is made of words: rules of dashes, tables of zeros and indentation repeat by nature.
fn is_wordy(unit: &[u8]) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80;
    let plain = unit.iter().all(|byte| letter(*byte) || b" .!?'\"-".contains(byte));
    if !plain || !unit.contains(&b' ') {
        return false;
    }
    let (mut kinds, mut letters) = ([0u64; 4], 0);
    for byte in unit.iter().filter(|byte| letter(**byte)) {
        kinds[usize::from(byte >> 6)] |= 1 << (byte & 63);
        letters += 1;
    }
    if letters * 2 <= unit.len() || kinds.iter().map(|kinds| kinds.count_ones()).sum::<u32>() < 3 {
        return false;
    }
    // The lead byte 0xE2 is that of dashes, arrows and box drawing.
    if unit.is_ascii() || unit.contains(&0xE2) {
        return unit.is_ascii();
    }
    // Of binary data nothing is a word. The unit may begin within a character.
    let first = unit.iter().position(|byte| !(0x80..0xc0).contains(byte)).unwrap_or(0);
    std::str::from_utf8(&[&unit[first..], &unit[..first]].concat()).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn floods_are_found_and_tables_are_not() {
        for before in 0..100 {
            let flood = format!("{}{} after", "é".repeat(before), "sudo please ".repeat(12));
            assert_eq!(floods(flood.as_bytes()).len(), 1, "{before}");
        }
        assert_eq!(floods("кошка ".repeat(20).as_bytes()).len(), 1);
        assert_eq!(floods("12345 ".repeat(30).as_bytes()).len(), 1);
        for table in ["-----", "0, 0, ", "| --- ", "        ", "ab", "00 00 ", "0x00, ", "│ "] {
            assert!(floods(table.repeat(100).as_bytes()).is_empty(), "{table}");
        }
        assert!(floods("one two three ".repeat(4).as_bytes()).is_empty());
    }

    #[test]
    fn a_long_flood_comes_in_parts_that_touch() {
        let found = floods("sudo please ".repeat(1000).as_bytes());
        assert_eq!(found.len(), 3);
        assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(found[2].end, 12_000);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(text in "(ab c|é|x |yes no ){0,200}(sudo please ){0,40}\\PC{0,20}", size in 1usize..300) {
            let bytes = text.as_bytes();
            let (mut pieces, mut seeker, mut at) = (Vec::new(), Floods::default(), 0);
            for piece in bytes.chunks(size) {
                let window = Window { first: 0, old: &bytes[..at], new: piece };
                at += piece.len();
                seeker.push(&window, at == bytes.len(), |span, _| pieces.push(span));
            }
            prop_assert_eq!(pieces, floods(bytes));
        }
    }
}
