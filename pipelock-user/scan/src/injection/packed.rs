//! The words and the gates as tables: what the build script embeds for the files that ship, and [`super::lexicon`] makes of others.
//! The gates and the lexicon read them. Promises that equal plans make equal tables.

use std::collections::BTreeMap;
use std::ops::Range;

use super::around::{Around, Reach};
use super::plan::{Anchor, Plan, Sense, Term};
use super::tables::{BITS, Fields, Map, Record, Sections, set, written};
use super::trie;

/// Writes all tables of a plan.
///
/// # Errors
/// The first anchor whose marked word is too short or too long or lies too far in, or that there are more words than a table holds.
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

/// Bits of a key that choose a bucket.
const BUCKETS: u32 = 12;

/// An anchor, and what tells at a glance that it does not stand at a place. Many share a word: the glance costs a
/// nanosecond, to look at all of it twenty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// The bytes before the word that is looked for and behind it, or behind the first four of what may go on as it likes; as far as
    /// the anchor has any.
    pub(super) around: Around,
    pub(super) reach: Reach,
    /// Of the anchor.
    pub(super) number: u32,
    /// How far behind the beginning of the marked word the letters stand that are looked for.
    pub(super) shift: u8,
}

impl Record for Candidate {
    const SIZE: usize = 23;

    fn write(&self, to: &mut Vec<u8>) {
        self.around.left.write(to);
        self.around.right.write(to);
        self.number.write(to);
        to.extend([self.reach.left, self.reach.right, self.shift]);
    }

    #[inline]
    fn read(mut from: Fields<'_>) -> Option<Self> {
        let (left, right, number) = (from.u64()?, from.u64()?, from.u32()?);
        let reach = Reach { left: from.u8()?, right: from.u8()? };
        Some(Self { around: Around { left, right }, reach, number, shift: from.u8()? })
    }
}

/// Candidates that are looked for by the same word, or four bytes, and see as many of those nearest to them: what stands at
/// a place says which of them can, so that a search by halves finds them. Hundreds share some words.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// [`whole_key`] of the word, or [`begun_key`] of the first four bytes.
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
    let [mut first, mut whole, mut begun, mut alone]: [Map; 4] = [[0; _]; 4];
    let mut inside = false;
    for (anchor, number) in plain() {
        let run = wordy_part(anchor).ok_or_else(|| {
            let what = "has no three letters or digits in a row, by which it is looked for";
            format!("the marked word of the anchor {} {what}", anchor.text)
        })?;
        let text = anchor.text.as_bytes();
        let (before, word) = (text.get(..run.start).unwrap_or_default(), text.get(run.clone()).unwrap_or_default());
        let shift =
            u8::try_from(run.start - anchor.mark).map_err(|_| format!("the word of {} is too far in", anchor.text))?;
        inside |= before.last().map_or(anchor.open_left, |byte| is_word(*byte));
        let mut add = |key: u32, behind: &[u8]| {
            let around = Around::of(before, behind);
            listed.push((key, Candidate { around, reach: around.reach(), number, shift }));
        };
        let behind = text.get(run.end..).unwrap_or_default();
        // Anything may follow what is open; it is looked for by its beginning.
        let is_open = behind.is_empty() && anchor.open_right;
        let mut begins = match *word {
            [a, b, c, d, ..] => vec![begun_key([a, b, c, d])],
            [a, b, c] => (0..=0xff).filter(|d| is_open || !is_word(*d)).map(|d| begun_key([a, b, c, d])).collect(),
            _ => Vec::new(),
        };
        begins.sort_unstable();
        begins.dedup();
        begins.iter().for_each(|key| set(&mut first, bit(*key)));
        if is_open {
            for key in begins {
                set(&mut begun, bit(key));
                add(key, word.get(4..).unwrap_or_default());
            }
        } else {
            let letters = u8::try_from(word.len()).ok().filter(|letters| *letters < 63);
            let letters = letters.ok_or_else(|| format!("the anchor {} has too long a word", anchor.text))?;
            let key = whole_key(eight(word), letters);
            set(&mut whole, bit(key));
            add(key, behind);
        }
    }
    let mut sides: Sides = [0; _];
    let mut seen: Seen = [0; _];
    for (key, candidate) in &listed {
        let side = sides.get_mut(slot(*key)).ok_or("no such slot")?;
        *side |= candidate.reach.side();
    }
    for (key, Candidate { around, reach, .. }) in &listed {
        let side = sides.get(slot(*key)).copied().unwrap_or_default();
        let coarse = match reach.side() {
            LEFT_FOUR | LEFT_THREE => left(*key, side, around.left as u32),
            RIGHT_FOUR | RIGHT_THREE => right(*key, side, around.right as u32),
            _ => {
                set(&mut alone, bit(*key));
                (0, 0)
            }
        };
        for (number, bits) in [within(*key, reach.near(), around.near(reach.near())), coarse] {
            if let Some(number) = seen.get_mut(number) {
                *number |= bits;
            }
        }
    }
    let group = |&(key, Candidate { reach, .. }): &(u32, Candidate)| (key, reach.near());
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
    [first, whole, begun, alone].iter().for_each(|map| to.add(&written(*map)));
    to.add(&written(seen));
    to.add(&sides);
    to.add(&[u8::from(inside)]);
    Ok(())
}

/// The most letters, digits and underscores in a row of the marked word, where the gate looks for the anchor: `ssh` of `.ssh`.
fn wordy_part(anchor: &Anchor) -> Option<Range<usize>> {
    let word = anchor.word().as_bytes();
    let mut at = 0;
    let parts = word.chunk_by(|one, other| is_word(*one) == is_word(*other)).map(|part| {
        at += part.len();
        at - part.len()..at
    });
    let part = parts
        .filter(|part| part.len() >= WORDY && word.get(part.start).is_some_and(|byte| is_word(*byte)))
        .min_by_key(|part| std::cmp::Reverse(part.len()))?;
    Some(anchor.mark + part.start..anchor.mark + part.end)
}

/// Whether `byte` belongs to an ASCII word: as [`super::lexicon::bounded`] sees it.
pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The first eight bytes, or as many as there are, the first one lowest.
fn eight(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(eight) => u64::from_le_bytes(*eight),
        None => bytes.iter().rev().fold(0, |eight, byte| eight << 8 | u64::from(*byte)),
    }
}

/// A word of so many letters, 1 to 63, without regard to case, of which `eight` are the first, with what follows it: told apart
/// by these and by their number.
#[inline]
pub(super) fn whole_key(eight: u64, letters: u8) -> u32 {
    // As many as there are of eight, in a way that the compiler makes no branch of.
    let kept = (u64::MAX.wrapping_shl(u32::from(letters)) | 1 << 8).trailing_zeros();
    let letter = (eight | 0x2020_2020_2020_2020).wrapping_shl(u64::BITS - u8::BITS * kept);
    ((letter ^ u64::from(letters)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

/// Four bytes without regard to case. Other pairs of characters fall together as well, which only costs a look.
#[inline]
pub(super) fn begun_key(bytes: [u8; 4]) -> u32 {
    (u32::from_le_bytes(bytes) | 0x2020_2020).wrapping_mul(0x9E37_79B1)
}

/// Which bit of a [`Map`] a key has.
#[inline]
pub(super) fn bit(key: u32) -> usize {
    (key >> (u32::BITS - BITS)) as usize
}

/// Where in [`ascii`]'s table of buckets a key is.
pub(super) fn bucket(key: u32) -> usize {
    (key >> (u32::BITS - BUCKETS)) as usize
}

/// Bits of a key that choose one of [`Sides`].
const SLOTS: u32 = 13;

/// On which sides of a word there is something to see at first sight, for all keys with the same upper bits.
pub(super) type Sides = [u8; 1 << SLOTS];

/// Four bytes before it, …
const LEFT_FOUR: u8 = 1;
/// … or three: where some have no more, all that have something before them are looked for by three.
const LEFT_THREE: u8 = 2;
/// The same behind it.
const RIGHT_FOUR: u8 = 4;
const RIGHT_THREE: u8 = 8;
/// Either of a side.
pub(super) const LEFT: u8 = LEFT_FOUR | LEFT_THREE;
pub(super) const RIGHT: u8 = RIGHT_FOUR | RIGHT_THREE;

/// Which of [`Sides`] a key has.
#[inline]
pub(super) fn slot(key: u32) -> usize {
    (key >> (u32::BITS - SLOTS)) as usize
}

impl Reach {
    /// Where an anchor that goes so far is looked at first; 0 when there is too little to see.
    fn side(self) -> u8 {
        match self {
            Self { left: 4.., .. } => LEFT_FOUR,
            Self { right: 4.., .. } => RIGHT_FOUR,
            Self { left: 3, .. } => LEFT_THREE,
            Self { right: 3, .. } => RIGHT_THREE,
            _ => 0,
        }
    }
}

/// Which number of a [`Seen`], and which bits of it, a key and the bytes on its left have, as far as `sides` says.
#[inline]
pub(super) fn left(key: u32, sides: u8, bytes: u32) -> (usize, u64) {
    let bytes = if sides & LEFT_THREE == 0 { bytes } else { bytes & 0xff_ffff };
    chosen((u64::from(key) << 32 | u64::from(bytes)).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The same of those on its right.
#[inline]
pub(super) fn right(key: u32, sides: u8, bytes: u32) -> (usize, u64) {
    let bytes = if sides & RIGHT_THREE == 0 { bytes } else { bytes & 0xff_ffff };
    chosen((u64::from(key) << 32 | u64::from(bytes)).wrapping_mul(0xD6E8_FEB8_6659_FD93))
}

/// Bits of a hash that choose a number of a [`Seen`].
const NUMBERS: u32 = 12;

/// Two bits, in one of these numbers, for each group and what a candidate of it sees, and for what that is at first sight: 32 KiB.
pub(super) type Seen = [u64; 1 << NUMBERS];

/// Which number of a [`Seen`], and which bits of it, a group and what a candidate of it sees have.
pub(super) fn within(key: u32, reach: Reach, near: u64) -> (usize, u64) {
    let reach = u64::from(reach.left) << 3 | u64::from(reach.right);
    let mixed = (u64::from(key) << 6 | reach).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ near;
    chosen(mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93))
}

/// The number and the bits of it that a hash chooses by its upper bits.
#[inline]
fn chosen(hash: u64) -> (usize, u64) {
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
