//! The words and the gates as tables: what the build script embeds for the files that ship, and [`super::lexicon`] makes of others.
//! The gates and the lexicon read them. Promises that equal plans make equal tables.

use std::collections::BTreeMap;

use super::around::{Around, Reach};
use super::plan::{Anchor, Plan, Sense, Term};
use super::tables::{BITS, Fields, Map, Record, Sections, set, written};
use super::trie;

/// Writes all tables of a plan.
///
/// # Errors
/// The first anchor whose marked word is too short, or that there are more words than a table holds.
pub(crate) fn pack(plan: &Plan) -> Result<Vec<u8>, String> {
    let mut to = Sections::default();
    to.add(&written([plan.verb_final]));
    // Those of one marked word stand together.
    let mut anchors: Vec<&Anchor> = plan.anchors.iter().collect();
    anchors.sort_unstable_by_key(|anchor| (anchor.word(), &anchor.text));
    texts(&anchors, &mut to)?;
    ascii(&anchors, &mut to)?;
    folded(&anchors, &mut to)?;
    words(&plan.terms, &mut to)?;
    Ok(to.into_bytes())
}

fn number(size: usize) -> Result<u32, String> {
    u32::try_from(size).map_err(|_| "there are too many words".to_owned())
}

/// Where the text of an anchor is, behind that of the one before, and what else it is.
#[derive(Debug)]
pub(super) struct Lying {
    pub(super) end: u32,
    pub(super) mark: u8,
    pub(super) open_left: bool,
    pub(super) open_right: bool,
}

impl Record for Lying {
    const SIZE: usize = 6;

    fn write(&self, to: &mut Vec<u8>) {
        self.end.write(to);
        to.extend([self.mark, u8::from(self.open_left) | u8::from(self.open_right) << 1]);
    }

    #[inline]
    fn read(mut from: Fields<'_>) -> Option<Self> {
        let (end, mark, open) = (from.u32()?, from.u8()?, from.u8()?);
        Some(Self { end, mark, open_left: open & 1 == 1, open_right: open & 2 == 2 })
    }
}

fn texts(anchors: &[&Anchor], to: &mut Sections) -> Result<(), String> {
    let (mut texts, mut lying) = (Vec::new(), Vec::new());
    for anchor in anchors {
        texts.extend_from_slice(anchor.text.as_bytes());
        lying.push(Lying {
            end: number(texts.len())?,
            mark: u8::try_from(anchor.mark).map_err(|_| format!("the marked word of {} is too far in", anchor.text))?,
            open_left: anchor.open_left,
            open_right: anchor.open_right,
        });
    }
    to.add(&texts);
    to.add(&written(lying));
    Ok(())
}

/// Bits of the hash of four bytes that choose a bucket.
const BUCKETS: u32 = 12;

/// An anchor, and what tells at a glance that it does not stand at a place. Many share a word: the glance costs a
/// nanosecond, to look at all of it twenty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The bytes before the marked word and behind its first four, as far as the anchor has any.
    pub(super) around: Around,
    pub(super) reach: Reach,
    /// Of the anchor.
    pub(super) number: u32,
}

impl Record for Candidate {
    const SIZE: usize = 22;

    fn write(&self, to: &mut Vec<u8>) {
        self.around.left.write(to);
        self.around.right.write(to);
        self.number.write(to);
        to.extend([self.reach.left, self.reach.right]);
    }

    #[inline]
    fn read(mut from: Fields<'_>) -> Option<Self> {
        let (left, right, number) = (from.u64()?, from.u64()?, from.u32()?);
        let reach = Reach { left: from.u8()?, right: from.u8()? };
        Some(Self { around: Around { left, right }, reach, number })
    }
}

/// Candidates that begin with the same four bytes and see as many of those nearest to them: what stands at a place says
/// which of them can, so that a search by halves finds them. Hundreds share some words.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The first four bytes of the marked word.
    pub(super) key: u32,
    /// As [`Reach::near`] gives it.
    pub(super) near: Reach,
    /// Where the candidates are.
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Record for Group {
    const SIZE: usize = 14;

    fn write(&self, to: &mut Vec<u8>) {
        [self.key, self.start, self.end].iter().for_each(|number| number.write(to));
        to.extend([self.near.left, self.near.right]);
    }

    #[inline]
    fn read(mut from: Fields<'_>) -> Option<Self> {
        let [key, start, end] = [from.u32()?, from.u32()?, from.u32()?];
        Some(Self { key, start, end, near: Reach { left: from.u8()?, right: from.u8()? } })
    }
}

/// The tables of [`super::gate`], for those that are plain.
fn ascii(anchors: &[&Anchor], to: &mut Sections) -> Result<(), String> {
    let plain = || anchors.iter().zip(0u32..).filter(|(anchor, _)| anchor.plain && anchor.text.is_ascii());
    let mut listed = Vec::new();
    let [mut long, mut short]: [Map; 2] = [[0; _]; 2];
    let mut seen: Seen = [0; _];
    for (anchor, number) in plain() {
        let around = anchor.around(4);
        let one = |around: Around| Candidate { around, reach: around.reach(), number };
        let before = listed.len();
        match *anchor.marked() {
            [a, b, c, d, ..] if d != b' ' => listed.push((key([a, b, c, d]), one(around))),
            // What follows a short word is anything but a letter.
            [a, b, c, ..] if c != b' ' && b != b' ' => listed.extend(
                (0..0x80u8)
                    .filter(|&d| d & 0x20 != 0 && (anchor.open_right || !d.is_ascii_alphanumeric()))
                    .map(|d| (key([a, b, c, d]), one(Around { right: 0, ..around }))),
            ),
            _ => {
                return Err(format!(
                    "the anchor {} is shorter than three letters, which would wake the scorer all the time",
                    anchor.text
                ));
            }
        }
        for (key, Candidate { around, reach, .. }) in listed.iter().skip(before) {
            for reach in [reach.near(), reach.coarse()] {
                let (number, bits) = within(*key, reach, around.near(reach));
                if let Some(number) = seen.get_mut(number) {
                    *number |= bits;
                }
            }
            match anchor.word().as_bytes() {
                &[_, _, _, _, e, f, ..] => set(&mut long, longer(*key, [e, f])),
                _ => set(&mut short, hash(*key)),
            }
        }
    }
    let group = |&(key, Candidate { reach, .. }): &(u32, Candidate)| (hash(key), key, reach.near());
    listed.sort_unstable_by_key(|one| (group(one), one.1.around.near(one.1.reach), one.1.number));
    let mut groups: Vec<Group> = Vec::new();
    for (start, (key, Candidate { reach, .. })) in (0u32..).zip(&listed) {
        match groups.last_mut() {
            Some(last) if (last.key, last.near) == (*key, reach.near()) => last.end = start + 1,
            _ => groups.push(Group { key: *key, near: reach.near(), start, end: start + 1 }),
        }
    }
    // Where in `groups` the keys begin whose hash has these upper bits.
    let before = |number: usize| groups.partition_point(|group| bucket(group.key) < number);
    let buckets = (0..=1 << BUCKETS).map(|number| self::number(before(number)).unwrap_or(u32::MAX));
    to.add(&written(listed.iter().map(|(_, candidate)| *candidate)));
    to.add(&written(groups.iter().cloned()));
    to.add(&written(buckets));
    [long, short].iter().for_each(|map| to.add(&written(*map)));
    to.add(&written(seen));
    let before = |anchor: &Anchor| anchor.text.as_bytes().get(anchor.mark.wrapping_sub(1)).copied();
    let inside = |anchor: &Anchor| anchor.mark == 0 && anchor.open_left || before(anchor).is_some_and(is_word);
    let starts_as_word = |anchor: &Anchor| anchor.marked().first().is_some_and(u8::is_ascii_alphanumeric);
    let inside = plain().any(|(anchor, _)| starts_as_word(anchor) && inside(anchor));
    let mut marks: Vec<u8> = plain().filter_map(|(anchor, _)| anchor.marked().first().copied()).collect();
    marks.retain(|byte| !byte.is_ascii_alphanumeric());
    marks.sort_unstable();
    marks.dedup();
    to.add(&[u8::from(inside)]);
    to.add(&marks);
    Ok(())
}

/// Whether `byte` belongs to an ASCII word: as [`super::lexicon::bounded`] sees it.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Four bytes without regard to case. Other pairs of characters fall together as well, which only costs a look.
pub(super) fn key(bytes: [u8; 4]) -> u32 {
    u32::from_le_bytes(bytes) | 0x2020_2020
}

pub(super) fn hash(key: u32) -> usize {
    (key.wrapping_mul(0x9E37_79B1) >> (32 - BITS)) as usize
}

/// The upper bits of the hash.
pub(super) fn bucket(key: u32) -> usize {
    hash(key) >> (BITS - BUCKETS)
}

/// The hash of six bytes, of which `key` is made of the first four.
pub(super) fn longer(key: u32, two: [u8; 2]) -> usize {
    hash(key.rotate_left(7) ^ u32::from(u16::from_le_bytes(two) | 0x2020) << 8)
}

/// Bits of a hash that choose a number of a [`Seen`].
const NUMBERS: u32 = 12;

/// Two bits, in one of these numbers, for each group and what a candidate of it sees, and for what that is at first sight: 32 KiB.
pub(super) type Seen = [u64; 1 << NUMBERS];

/// Which number of a [`Seen`], and which bits of it, a group and what a candidate of it sees have.
pub(super) fn within(key: u32, reach: Reach, near: u64) -> (usize, u64) {
    let reach = u64::from(reach.left) << 3 | u64::from(reach.right);
    let mixed = (u64::from(key) << 6 | reach).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ near;
    let hash = mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let bit = |at: u32| 1 << (hash >> (u64::BITS - NUMBERS - at) & 63);
    ((hash >> (u64::BITS - NUMBERS)) as usize, bit(6) | bit(12))
}

/// Bytes that no anchor holds, and that stay what they are when text is folded: what stands between them is read by itself.
pub(super) fn breaks(byte: u8) -> bool {
    (byte == b'~') | (byte == 0x7f) | (byte < b'\t') | (byte.wrapping_sub(0x0e) < 0x12)
}

/// What words are made of, in ASCII and beyond: those of anchors have three bytes of it in a row, whatever they are folded from.
pub(super) fn wordy(byte: u8) -> bool {
    ((byte | 0x20).wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'0') < 10) | (byte == b'_') | (byte >= 0x80)
}

/// Least wordy bytes in a row.
pub(super) const WORDY: usize = 3;

/// What is around the marked word of an anchor.
#[derive(Debug)]
pub(super) struct Surrounded {
    pub(super) around: Around,
    pub(super) reach: Reach,
}

impl Record for Surrounded {
    const SIZE: usize = 18;

    fn write(&self, to: &mut Vec<u8>) {
        self.around.left.write(to);
        self.around.right.write(to);
        to.extend([self.reach.left, self.reach.right]);
    }

    #[inline]
    fn read(mut from: Fields<'_>) -> Option<Self> {
        let around = Around { left: from.u64()?, right: from.u64()? };
        Some(Self { around, reach: Reach { left: from.u8()?, right: from.u8()? } })
    }
}

/// The tables of [`super::folded`].
fn folded(anchors: &[&Anchor], to: &mut Sections) -> Result<(), String> {
    let (mut vocabulary, mut starts) = (BTreeMap::new(), Vec::new());
    for (of_word, start) in parts(anchors) {
        let inside = |anchor: &&Anchor| match anchor.mark.checked_sub(1) {
            None => anchor.open_left,
            Some(before) => anchor.text.as_bytes().get(before) != Some(&b' '),
        };
        let word = of_word.first().map(|anchor| anchor.word()).unwrap_or_default();
        vocabulary.insert(word.as_bytes(), (number(starts.len())?, of_word.iter().any(inside)));
        starts.push(start);
    }
    starts.push(number(anchors.len())?);
    trie::Vocabulary::write(&vocabulary, to)?;
    to.add(&written(starts));
    to.add(&written(anchors.iter().map(|anchor| {
        let around = anchor.around(anchor.word().len());
        Surrounded { around, reach: around.reach() }
    })));
    // Is `breaks` true, and are so many wordy bytes in a row in every marked word?
    let apart = anchors.iter().all(|anchor| {
        let mut runs = anchor.word().as_bytes().windows(WORDY);
        !anchor.text.bytes().any(breaks) && runs.any(|run| run.iter().all(|byte| wordy(*byte)))
    });
    to.add(&[u8::from(apart)]);
    Ok(())
}

/// The anchors of each marked word, and the number of the first of them.
fn parts<'a, 'p>(anchors: &'p [&'a Anchor]) -> impl Iterator<Item = (&'p [&'a Anchor], u32)> {
    let parts = anchors.chunk_by(|one, other| one.word() == other.word());
    parts.scan(0u32, |start, part| {
        let first = *start;
        *start += part.len() as u32;
        Some((part, first))
    })
}

/// The boundaries of a word, in the number that stands for it.
pub(super) const OPEN_LEFT: u32 = 1 << 30;
pub(super) const OPEN_RIGHT: u32 = 1 << 29;

impl Record for Sense {
    const SIZE: usize = 9;

    fn write(&self, to: &mut Vec<u8>) {
        self.languages.write(to);
        to.push(self.concept);
    }

    #[inline]
    fn read(mut from: Fields<'_>) -> Option<Self> {
        Some(Self { languages: from.u64()?, concept: from.u8()? })
    }
}

/// The tables of the lexicon's words. Many have the same senses.
fn words(terms: &BTreeMap<String, Term>, to: &mut Sections) -> Result<(), String> {
    let mut known: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let (mut vocabulary, mut starts, mut senses) = (BTreeMap::new(), Vec::new(), Vec::<Sense>::new());
    for (word, term) in terms {
        let next = number(known.len())?;
        let list = *known.entry(written(term.senses.iter().copied())).or_insert_with(|| {
            starts.push(senses.len() as u32);
            senses.extend(&term.senses);
            next
        });
        if list >= OPEN_RIGHT {
            return Err("there are too many words".to_owned());
        }
        let open = [(term.open_left, OPEN_LEFT), (term.open_right, OPEN_RIGHT)];
        let value = open.iter().fold(list, |value, (open, bit)| if *open { value | bit } else { value });
        vocabulary.insert(word.as_bytes(), (value, term.open_left));
    }
    starts.push(number(senses.len())?);
    trie::Vocabulary::write(&vocabulary, to)?;
    to.add(&written(starts));
    to.add(&written(senses));
    Ok(())
}
