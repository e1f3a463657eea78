//! The cheap question before everything else: does the text hold any anchor at all? Used by the detector on every byte
//! of every text, so its cost is the cost of a clean text. Promises to report every anchor that stands where words may
//! stand; what it reports wakes the scorer, which decides.

use super::anchors::Anchors;
use super::around::{Around, Reach};
use super::packed::{Candidate, Group, Seen, bucket, hash, is_word, key, longer, within};
use super::tables::{Bytes, Map, Table, Unread, has};
use crate::bits;

/// Bytes that are looked at together.
const PART: usize = 4 * bits::BLOCK;

/// The gate for ASCII: a map of the first four bytes of every anchor. No step depends on the one before, which makes it
/// several times faster than an automaton.
#[derive(Debug)]
pub(crate) struct AsciiGate {
    /// By group, and within one in the order of [`Around::near`].
    listed: Table<Candidate>,
    /// By hash of the first four bytes of the marked word.
    groups: Table<Group>,
    /// Where in `groups` the keys begin whose hash has these upper bits.
    buckets: Table<u32>,
    /// One bit for each hash of the first six bytes of a word, …
    long: Box<Map>,
    /// … or of the first four of a shorter one.
    short: Box<Map>,
    /// What the candidates of each group see: most places are in none.
    seen: Box<Seen>,
    /// Whether an anchor may begin right behind a letter or a digit.
    inside: bool,
    /// The bytes other than letters and digits that an anchor begins with.
    marks: Bytes,
}

impl AsciiGate {
    /// What [`super::packed`] wrote: of the anchors, those that are plain.
    pub(crate) fn read(from: &mut Unread) -> Option<Self> {
        let (listed, groups, buckets) = (from.table()?, from.table()?, from.table()?);
        let (long, short, seen) = (Box::new(from.numbers()?), Box::new(from.numbers()?), Box::new(from.numbers()?));
        let inside = from.next()?.first() == Some(&1);
        Some(Self { listed, groups, buckets, long, short, seen, inside, marks: from.next()? })
    }

    /// Calls `found` with the place of every anchor of an ASCII `text`, in ascending order.
    pub(crate) fn each(&self, anchors: &Anchors, text: &str, mut found: impl FnMut(usize)) {
        let bytes = text.as_bytes();
        let mut before = 0;
        // One after the other, without a branch that depends on the text: where words begin, which of them the maps have.
        let (mut places, mut likely) = ([0u32; PART + 8], [0u32; PART + 8]);
        for (number, part) in bytes.chunks(PART).enumerate() {
            let (from, mut count) = (number * PART, 0);
            for (block, number) in bits::blocks(part).zip(0u32..) {
                let words = bits::of(&block, is_word);
                // An underscore goes with the letters, but no anchor begins with one.
                let mut starts = if self.inside { words } else { words & !(words << 1 | before) };
                before = words >> 63;
                for &mark in self.marks.iter() {
                    starts |= bits::of(&block, |byte| byte == mark);
                }
                count = bits::write(starts, number * bits::BLOCK as u32, &mut places, count);
            }
            let mut kept = 0;
            for &place in places.get(..count).unwrap_or_default() {
                let (known, _) = self.known(bytes, from + place as usize);
                if let Some(slot) = likely.get_mut(kept) {
                    *slot = place;
                }
                kept += usize::from(known);
            }
            let mut left = 0;
            for at in 0..kept {
                let place = likely.get(at).copied().unwrap_or_default();
                let is_near = self.is_near(bytes, from + place as usize);
                if let Some(slot) = likely.get_mut(left) {
                    *slot = place;
                }
                left += usize::from(is_near);
            }
            for &place in likely.get(..left).unwrap_or_default() {
                let at = from + place as usize;
                let (_, key) = self.known(bytes, at);
                if self.confirm(anchors, text, at, key) {
                    found(at);
                }
            }
        }
        // A short word may end the text.
        if let Some(at) = bytes.len().checked_sub(3)
            && let Some(&[a, b, c]) = bytes.get(at..).and_then(|tail| tail.first_chunk())
            && self.confirm(anchors, text, at, key([a, b, c, b' ']))
        {
            found(at);
        }
    }

    /// Whether a marked word may begin at `at`, and the key of what does.
    fn known(&self, bytes: &[u8], at: usize) -> (bool, u32) {
        let six = match bytes.get(at..at + 8).and_then(<[u8]>::first_chunk) {
            Some(eight) => u64::from_le_bytes(*eight),
            None => bytes.get(at..).unwrap_or_default().iter().rev().fold(0, |six, byte| six << 8 | u64::from(*byte)),
        };
        let key = key((six as u32).to_le_bytes());
        (has(&self.short, hash(key)) | has(&self.long, longer(key, ((six >> 32) as u16).to_le_bytes())), key)
    }

    /// Whether what is around a marked word at `at` may be what is around it in an anchor.
    fn is_near(&self, bytes: &[u8], at: usize) -> bool {
        let Some((before, (first, behind))) =
            bytes.split_at_checked(at).and_then(|(before, word)| Some((before, word.split_first_chunk()?)))
        else {
            return false;
        };
        let (key, around) = (key(*first), Around::of(before, behind));
        Reach::COARSE.into_iter().fold(false, |any, reach| any | self.sees(key, reach, around.near(reach)))
    }

    /// Whether a candidate with this key that goes so far may see what is near.
    fn sees(&self, key: u32, reach: Reach, near: u64) -> bool {
        let (number, bits) = within(key, reach, near);
        self.seen.get(number).is_some_and(|seen| seen & bits == bits)
    }

    /// Whether an anchor really stands at `at`.
    fn confirm(&self, anchors: &Anchors, text: &str, at: usize, key: u32) -> bool {
        let (before, behind) = text.as_bytes().split_at(at);
        let around = Around::of(before, behind.get(4..).unwrap_or_default());
        let place = |bucket: usize| self.buckets.get(bucket).map_or(0, |at| at as usize);
        let groups = place(bucket(key))..place(bucket(key) + 1);
        self.groups.range(groups).filter(|group| group.key == key).any(|group| {
            let near = around.near(group.near);
            if !self.sees(key, group.near, near) {
                return false;
            }
            let listed = group.start as usize..group.end as usize;
            let seen = |candidate: &Candidate| candidate.around.near(group.near);
            let same = self.listed.partition_point(listed.clone(), |candidate| seen(candidate) < near);
            (self.listed.range(same..listed.end))
                .take_while(|candidate| seen(candidate) == near)
                .filter(|candidate| around.is(candidate.around, candidate.reach))
                .any(|candidate| anchors.stands(candidate.number as usize, text, at))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::folded::FoldedGate;
    use super::super::packed::pack;
    use super::super::plan::{Anchor, Plan};
    use super::*;

    fn gates() -> (Anchors, AsciiGate, FoldedGate) {
        let anchor = |text: &str, mark, open_right| Anchor {
            text: text.to_owned(),
            mark,
            open_left: text.starts_with('.'),
            open_right,
            plain: true,
        };
        let anchors = vec![
            anchor("god", 0, false),
            anchor("ignore", 0, false),
            anchor("live", 0, false),
            anchor("lives", 0, false),
            anchor("pass", 0, true),
            anchor(".ssh", 0, true),
            anchor("the user knows", 4, false),
        ];
        super::super::gates_of(anchors)
    }

    #[test]
    fn finds_words_only() {
        let (anchors, ascii, folded) = gates();
        for (text, expected) in [
            ("God, IGNORE it", vec![0, 5]),
            ("gods ignored; lives", vec![14]),
            ("password ~/.ssh", vec![0, 11]),
            ("my god", vec![3]),
            ("god", vec![0]),
            ("trespass", vec![]),
            ("the user knows", vec![4]),
            ("a user knows; bathe user knows", vec![]),
        ] {
            let (mut a, mut b) = (Vec::new(), Vec::new());
            ascii.each(&anchors, text, |at| a.push(at));
            folded.each(&anchors, &text.to_ascii_lowercase(), |span| b.push(span.start));
            assert_eq!(a, expected, "{text}");
            assert_eq!(b, expected, "{text}");
        }
        let short = Anchor { text: "ai".to_owned(), plain: true, ..Anchor::default() };
        assert!(pack(&Plan { anchors: vec![short], ..Plan::default() }).is_err());
    }

    #[test]
    fn white_space_does_not_matter() {
        let mut found = Vec::new();
        let (anchors, ascii, _) = gates();
        ascii.each(&anchors, "The \n user\tknows", |at| found.push(at));
        assert_eq!(found, [6]);
    }

    proptest! {
        #[test]
        fn both_gates_agree(text in "(god|ignore|live|s|pass|\\.ssh| |x|_|G|the user knows|the |user){0,30}") {
            let (anchors, ascii, folded) = gates();
            let (mut a, mut b) = (Vec::new(), Vec::new());
            ascii.each(&anchors, &text, |at| a.push(at));
            folded.each(&anchors, &text.to_ascii_lowercase(), |span| b.push(span.start));
            a.dedup();
            b.sort_unstable();
            b.dedup();
            prop_assert_eq!(a, b);
        }
    }
}
