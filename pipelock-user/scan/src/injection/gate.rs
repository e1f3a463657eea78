//! The cheap question before everything else: does the text hold any anchor at all? Used by the detector on every byte
//! of every text, so its cost is the cost of a clean text. Promises to report every anchor that stands where words may
//! stand; what it reports wakes the scorer, which decides.

use std::ops::Range;

use super::lexicon::bounded;
use super::plan::Anchor;
use crate::bits;

impl Anchor {
    /// From the marked word on.
    fn marked(&self) -> &[u8] {
        self.text.as_bytes().get(self.mark..).unwrap_or_default()
    }

    /// What stands before the marked word, and behind the first `skip` bytes of it.
    pub(super) fn around(&self, skip: usize) -> Around {
        let before = self.text.as_bytes().get(..self.mark).unwrap_or_default();
        Around::of(before, self.marked().get(skip..).unwrap_or_default())
    }

    /// Whether the anchor stands in `text` with its marked word at `at`: the case of ASCII letters and the amount of
    /// white space do not matter.
    pub(super) fn stands(&self, text: &str, at: usize) -> bool {
        let bytes = text.as_bytes();
        let mut end = at;
        for &wanted in self.marked() {
            match bytes.get(end) {
                Some(found) if wanted == b' ' && is_space(*found) => {
                    end += bytes.get(end..).map_or(0, |rest| rest.iter().take_while(|&&byte| is_space(byte)).count());
                }
                Some(found) if found.eq_ignore_ascii_case(&wanted) => end += 1,
                _ => return false,
            }
        }
        let mut start = at;
        for &wanted in self.text.as_bytes().get(..self.mark).unwrap_or_default().iter().rev() {
            match start.checked_sub(1).and_then(|before| bytes.get(before)) {
                Some(found) if wanted == b' ' && is_space(*found) => {
                    start -=
                        bytes.get(..start).map_or(0, |text| text.iter().rev().take_while(|&&b| is_space(b)).count());
                }
                Some(found) if found.eq_ignore_ascii_case(&wanted) => start -= 1,
                _ => return false,
            }
        }
        bounded(text, start, end, self.open_left, self.open_right)
    }
}

/// Eight bytes on either side of a place, the nearest one lowest, without regard to case and to the amount of white space;
/// zero where the text is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Around {
    left: u64,
    right: u64,
}

/// How many of the bytes on either side an anchor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reach {
    left: u8,
    right: u8,
}

impl Around {
    pub(super) fn of(before: &[u8], behind: &[u8]) -> Self {
        let left = before.last_chunk().and_then(|eight| single(u64::from_be_bytes(*eight)));
        let right = behind.first_chunk().and_then(|eight| single(u64::from_le_bytes(*eight)));
        Self {
            left: left.unwrap_or_else(|| first_eight(before.iter().rev())),
            right: right.unwrap_or_else(|| first_eight(behind.iter())),
        }
    }

    /// How far an anchor with this around it goes.
    pub(super) fn reach(self) -> Reach {
        let bytes = |side: u64| 8 - (side.leading_zeros() / u8::BITS) as u8;
        Reach { left: bytes(self.left), right: bytes(self.right) }
    }

    /// Whether it is `other`, as far as `reach` goes.
    pub(super) fn is(self, other: Self, reach: Reach) -> bool {
        (self.left ^ other.left) & lowest(reach.left) | (self.right ^ other.right) & lowest(reach.right) == 0
    }

    /// The nearest four bytes of each side, as far as `reach` goes.
    fn near(self, reach: Reach) -> u64 {
        let [left, right] = [(self.left, reach.left), (self.right, reach.right)]
            .map(|(side, bytes)| side & lowest(bytes) & u64::from(u32::MAX));
        left << u32::BITS | right
    }
}

impl Reach {
    /// What of it [`Around::near`] sees.
    fn near(self) -> Self {
        Self { left: self.left.min(4), right: self.right.min(4) }
    }
}

/// The mask of so many bytes.
fn lowest(bytes: u8) -> u64 {
    u64::MAX.checked_shr(u64::BITS - u32::from(bytes) * u8::BITS).unwrap_or_default()
}

/// What [`first_eight`] makes of eight bytes, when neither two spaces in a row nor control characters are among them.
fn single(eight: u64) -> Option<u64> {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    // The highest bit of each byte that is below 0x21; of one behind such a byte it may be wrong, which costs a closer look.
    let low = eight.wrapping_sub(each(0x21)) & !eight & each(0x80);
    let control = eight.wrapping_sub(each(0x20)) & !eight & each(0x80);
    (low & low >> 8 == 0 && control == 0).then_some(eight | each(0x20))
}

fn first_eight<'b>(bytes: impl Iterator<Item = &'b u8>) -> u64 {
    let (mut eight, mut shift, mut space) = (0, 0, false);
    for &byte in bytes {
        if is_space(byte) && std::mem::replace(&mut space, true) {
            continue;
        }
        space = is_space(byte);
        eight |= u64::from(if space { b' ' } else { byte | 0x20 }) << shift;
        shift += u8::BITS;
        if shift == u64::BITS {
            break;
        }
    }
    eight
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Bits of the hash of four bytes; a map of them takes 8 KiB, so that it stays in the first cache.
const BITS: u32 = 16;
const MAP: usize = 1 << (BITS - 6);
type Map = [u64; MAP];
/// Bits of it that choose a bucket.
const BUCKETS: u32 = 12;

/// Bytes that are looked at together.
const PART: usize = 16 * bits::BLOCK;

/// The gate for ASCII: a map of the first four bytes of every anchor. No step depends on the one before, which makes it
/// several times faster than an automaton.
#[derive(Debug)]
pub(crate) struct AsciiGate {
    /// One bit for each hash of the first six bytes of a word, …
    long: Box<Map>,
    /// … or of the first four of a shorter one.
    short: Box<Map>,
    /// By group, and within one in the order of [`Around::near`].
    listed: Vec<Candidate>,
    /// By hash of the first four bytes of the marked word.
    groups: Vec<Group>,
    /// One bit for each hash of a group and of what its candidates see: most places are in none.
    seen: Box<Map>,
    /// Where in `groups` the keys begin whose hash has these upper bits.
    buckets: Vec<u32>,
    anchors: Vec<Anchor>,
    /// Whether an anchor may begin right behind a letter or a digit.
    inside: bool,
    /// The bytes other than letters and digits that an anchor begins with.
    marks: Vec<u8>,
}

/// An anchor, and what tells at a glance that it does not stand at a place. Many share a word: the glance costs a
/// nanosecond, [`Anchor::stands`] twenty.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// The bytes before the marked word and behind its first four, as far as the anchor has any.
    around: Around,
    reach: Reach,
    number: u32,
}

/// Candidates that begin with the same four bytes and see as many of those nearest to them: what stands at a place says
/// which of them can, so that a search by halves finds them. Hundreds share some words.
#[derive(Clone, Debug)]
struct Group {
    /// The first four bytes of the marked word.
    key: u32,
    /// As [`Reach::near`] gives it.
    near: Reach,
    /// Where in `listed` they are.
    listed: Range<u32>,
}

impl AsciiGate {
    /// The gate for those of `anchors` that are plain.
    ///
    /// # Errors
    /// The first anchor whose marked word is too short.
    pub(crate) fn new(anchors: &[Anchor]) -> Result<Self, String> {
        let anchors: Vec<Anchor> =
            anchors.iter().filter(|anchor| anchor.plain && anchor.text.is_ascii()).cloned().collect();
        let mut listed = Vec::new();
        for (number, anchor) in (0u32..).zip(&anchors) {
            let around = anchor.around(4);
            let one = |around: Around| Candidate { around, reach: around.reach(), number };
            match *anchor.marked() {
                [a, b, c, d, ..] if d != b' ' => listed.push((key([a, b, c, d]), one(around))),
                // What follows a short word is anything but a letter.
                [a, b, c, ..] if c != b' ' && b != b' ' => listed.extend(
                    (0..0x80u8)
                        .filter(|&d| d & 0x20 != 0 && (anchor.open_right || !d.is_ascii_alphanumeric()))
                        .map(|d| (key([a, b, c, d]), one(Around { right: 0, ..around }))),
                ),
                _ => return Err(anchor.text.clone()),
            }
        }
        let group = |&(key, Candidate { reach, .. }): &(u32, Candidate)| (hash(key), key, reach.near());
        listed.sort_unstable_by_key(|one| (group(one), one.1.around.near(one.1.reach), one.1.number));
        let mut groups: Vec<Group> = Vec::new();
        for (at, (key, Candidate { reach, .. })) in (0u32..).zip(&listed) {
            match groups.last_mut() {
                Some(last) if (last.key, last.near) == (*key, reach.near()) => last.listed.end = at + 1,
                _ => groups.push(Group { key: *key, near: reach.near(), listed: at..at + 1 }),
            }
        }
        let mut buckets = vec![0u32; (1 << BUCKETS) + 1];
        for group in &groups {
            if let Some(count) = buckets.get_mut((hash(group.key) >> (BITS - BUCKETS)) + 1) {
                *count += 1;
            }
        }
        buckets.iter_mut().fold(0, |sum, count| {
            *count += sum;
            *count
        });
        let [mut long, mut short, mut seen] = [(); 3].map(|()| Box::new([0; MAP]));
        for &(key, Candidate { number, around, reach }) in &listed {
            set(&mut seen, within(key, reach.near(), around.near(reach)));
            match anchors.get(number as usize).map(|anchor| anchor.word().as_bytes()) {
                Some(&[_, _, _, _, e, f, ..]) => set(&mut long, longer(key, [e, f])),
                _ => set(&mut short, hash(key)),
            }
        }
        let listed = listed.into_iter().map(|(_, candidate)| candidate).collect();
        let before = |anchor: &Anchor| anchor.text.as_bytes().get(anchor.mark.wrapping_sub(1)).copied();
        let inside = |anchor: &Anchor| anchor.mark == 0 && anchor.open_left || before(anchor).is_some_and(word);
        let starts_as_word = |anchor: &&Anchor| anchor.marked().first().is_some_and(u8::is_ascii_alphanumeric);
        let inside = anchors.iter().filter(starts_as_word).any(inside);
        let mut marks: Vec<u8> = anchors.iter().filter_map(|anchor| anchor.marked().first().copied()).collect();
        marks.retain(|byte| !byte.is_ascii_alphanumeric());
        marks.sort_unstable();
        marks.dedup();
        Ok(Self { long, short, listed, groups, seen, buckets, anchors, inside, marks })
    }

    /// Calls `found` with the place of every anchor of an ASCII `text`, in ascending order.
    pub(crate) fn each(&self, text: &str, mut found: impl FnMut(usize)) {
        let bytes = text.as_bytes();
        let mut before = 0;
        // One after the other, without a branch that depends on the text: where words begin, which of them the maps have.
        let (mut places, mut likely) = ([0u32; PART + 8], [0u32; PART + 8]);
        for (number, part) in bytes.chunks(PART).enumerate() {
            let (from, mut count) = (number * PART, 0);
            for (block, number) in bits::blocks(part).zip(0u32..) {
                let words = bits::of(&block, word);
                // An underscore goes with the letters, but no anchor begins with one.
                let mut starts = if self.inside { words } else { words & !(words << 1 | before) };
                before = words >> 63;
                for &mark in &self.marks {
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
            for &place in likely.get(..kept).unwrap_or_default() {
                let at = from + place as usize;
                let (_, key) = self.known(bytes, at);
                if at + 4 <= bytes.len() && self.confirm(text, at, key) {
                    found(at);
                }
            }
        }
        // A short word may end the text.
        if let Some(at) = bytes.len().checked_sub(3)
            && let Some(&[a, b, c]) = bytes.get(at..).and_then(|tail| tail.first_chunk())
            && self.confirm(text, at, key([a, b, c, b' ']))
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

    /// Whether an anchor really stands at `at`.
    fn confirm(&self, text: &str, at: usize, key: u32) -> bool {
        let (before, behind) = text.as_bytes().split_at(at);
        let around = Around::of(before, behind.get(4..).unwrap_or_default());
        let bucket = hash(key) >> (BITS - BUCKETS);
        let place = |at: usize| self.buckets.get(at).map_or(0, |&at| at as usize);
        let groups = self.groups.get(place(bucket)..place(bucket + 1)).unwrap_or_default();
        groups.iter().filter(|group| group.key == key).any(|group| {
            let near = around.near(group.near);
            if !has(&self.seen, within(key, group.near, near)) {
                return false;
            }
            let listed = group.listed.start as usize..group.listed.end as usize;
            let listed = self.listed.get(listed).unwrap_or_default();
            let seen = |candidate: &Candidate| candidate.around.near(group.near);
            let same = listed.partition_point(|candidate| seen(candidate) < near);
            (listed.get(same..).unwrap_or_default().iter())
                .take_while(|candidate| seen(candidate) == near)
                .filter(|candidate| around.is(candidate.around, candidate.reach))
                .filter_map(|candidate| self.anchors.get(candidate.number as usize))
                .any(|anchor| anchor.stands(text, at))
        })
    }
}

/// Whether `byte` belongs to an ASCII word: as [`bounded`] sees it.
fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Four bytes without regard to case. Other pairs of characters fall together as well, which only costs a look.
fn key(bytes: [u8; 4]) -> u32 {
    u32::from_le_bytes(bytes) | 0x2020_2020
}

fn hash(key: u32) -> usize {
    (key.wrapping_mul(0x9E37_79B1) >> (32 - BITS)) as usize
}

fn set(map: &mut Map, hash: usize) {
    map[hash >> 6 & (MAP - 1)] |= 1 << (hash & 63);
}

fn has(map: &Map, hash: usize) -> bool {
    map[hash >> 6 & (MAP - 1)] >> (hash & 63) & 1 == 1
}

/// The hash of six bytes, of which `key` is made of the first four.
fn longer(key: u32, two: [u8; 2]) -> usize {
    hash(key.rotate_left(7) ^ u32::from(u16::from_le_bytes(two) | 0x2020) << 8)
}

/// The hash of a group and of what a candidate of it sees.
fn within(key: u32, reach: Reach, near: u64) -> usize {
    let reach = u64::from(reach.left) << 3 | u64::from(reach.right);
    let mixed = (u64::from(key) << 6 | reach).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ near;
    (mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> (u64::BITS - BITS)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::folded::FoldedGate;
    use super::{Anchor, AsciiGate, first_eight, single};

    #[test]
    fn eight_bytes_at_once_are_as_one_by_one() {
        let kinds = b" \ta~Z\0\x80!";
        let mut seen = 0;
        for number in 0..8usize.pow(5) {
            // Each neighbour of each kind, at every one of the places.
            for at in 0..4 {
                let mut eight = *b"abcdefgh";
                for (place, byte) in eight[at..at + 5].iter_mut().enumerate() {
                    *byte = kinds[number >> (3 * place) & 7];
                }
                if let Some(found) = single(u64::from_le_bytes(eight)) {
                    assert_eq!(found, first_eight(eight.iter()), "{eight:?}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 20_000, "{seen}");
    }

    fn gates() -> (AsciiGate, FoldedGate) {
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
        (AsciiGate::new(&anchors).unwrap(), FoldedGate::new(anchors).unwrap())
    }

    #[test]
    fn finds_words_only() {
        let (ascii, folded) = gates();
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
            ascii.each(text, |at| a.push(at));
            folded.each(&text.to_ascii_lowercase(), |span| b.push(span.start));
            assert_eq!(a, expected, "{text}");
            assert_eq!(b, expected, "{text}");
        }
        assert!(AsciiGate::new(&[Anchor { text: "ai".to_owned(), plain: true, ..Anchor::default() }]).is_err());
    }

    #[test]
    fn white_space_does_not_matter() {
        let mut found = Vec::new();
        gates().0.each("The \n user\tknows", |at| found.push(at));
        assert_eq!(found, [6]);
    }

    proptest! {
        #[test]
        fn both_gates_agree(text in "(god|ignore|live|s|pass|\\.ssh| |x|_|G|the user knows|the |user){0,30}") {
            let (ascii, folded) = gates();
            let (mut a, mut b) = (Vec::new(), Vec::new());
            ascii.each(&text, |at| a.push(at));
            folded.each(&text.to_ascii_lowercase(), |span| b.push(span.start));
            a.dedup();
            b.sort_unstable();
            b.dedup();
            prop_assert_eq!(a, b);
        }
    }
}
