//! Finds one token, or a few, repeated over and over: a flood that pushes instructions out of the reader's attention or
//! makes it derail. Called by the detector on whole texts. Promises a cost of a few nanoseconds for every 64 bytes of
//! ordinary text.

use std::ops::Range;

/// Distance between the places that are tried; a flood is longer.
const STRIDE: usize = 64;
/// Longest unit of repetition, in bytes.
const MAX_UNIT: usize = 64;
/// Repetitions that make a flood.
const MIN_TIMES: usize = 10;

/// The floods in `text`, in order.
pub(crate) fn floods(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut at = STRIDE / 2;
    while at + 8 <= bytes.len() {
        match flood_at(bytes, at) {
            Some(flood) => {
                at = flood.end.max(at + STRIDE);
                let start = super::sentence::floor(text, flood.start);
                let end = super::sentence::floor(text, flood.end);
                if found.last().is_none_or(|last| last.end <= start) {
                    found.push(start..end);
                }
            }
            None => at += STRIDE,
        }
    }
    found
}

/// The flood around `at`, if there is one.
fn flood_at(bytes: &[u8], at: usize) -> Option<Range<usize>> {
    let sample = bytes.get(at..at + 8)?;
    let ahead = bytes.get(at + 1..(at + MAX_UNIT + 8).min(bytes.len()))?;
    let unit = ahead.windows(8).position(|window| window == sample)? + 1;
    let same = |i: usize| bytes.get(i).is_some() && bytes.get(i) == bytes.get(i + unit);
    let end = (at..).find(|&i| !same(i))? + unit;
    let start = (0..at).rev().find(|&i| !same(i)).map_or(0, |i| i + 1);
    let token = bytes.get(at..at + unit)?;
    (end - start >= unit * MIN_TIMES && is_wordy(token)).then_some(start..end)
}

/// Whether the unit is made of words: rules of dashes, tables of zeros and indentation repeat by nature.
fn is_wordy(unit: &[u8]) -> bool {
    // The lead byte 0xE2 is that of dashes, arrows and box drawing.
    if unit.contains(&0xE2) {
        return false;
    }
    let letter = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte >= 0x80;
    let mut kinds: Vec<u8> = unit.iter().filter(letter).copied().collect();
    let letters = kinds.len();
    kinds.sort_unstable();
    kinds.dedup();
    let plain = unit.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80 || b" .!?'\"-".contains(byte));
    plain && unit.contains(&b' ') && kinds.len() >= 3 && letters * 2 > unit.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::floods;

    #[test]
    fn floods_are_found_and_tables_are_not() {
        let flood = format!("before {} after", "sudo please ".repeat(12));
        let found = floods(&flood);
        assert_eq!(found.len(), 1);
        assert!(
            flood[found[0].clone()].starts_with("sudo please ") || flood[found[0].clone()].contains("sudo please sudo")
        );
        assert_eq!(floods(&"кошка ".repeat(20)).len(), 1);
        assert_eq!(floods(&"12345 ".repeat(30)).len(), 1);
        for table in ["-----", "0, 0, ", "| --- ", "        ", "ab", "00 00 ", "0x00, ", "│ "] {
            assert!(floods(&table.repeat(100)).is_empty(), "{table}");
        }
        assert!(floods(&"one two three ".repeat(4)).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(ab c|é|x ){0,200}\\PC{0,20}") {
            for flood in floods(&text) {
                prop_assert!(text.get(flood).is_some());
            }
        }
    }
}
