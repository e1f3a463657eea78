//! The cheap question before everything else: does the text hold any anchor at all? Used by the detector on every byte
//! of every text, so its cost is the cost of a clean text. Promises to report every anchor that stands where words may
//! stand; what it reports wakes the scorer, which decides.

use super::anchors::Anchors;
use super::around::Around;
use super::packed::{
    Candidate, Group, LEFT, RIGHT, Seen, Sides, WORDY, begun_key, bit, bucket, is_word, left, right, slot, whole_key,
    within,
};
use super::tables::{Map, Table, Unread, has};
use crate::bits;

/// Blocks that are looked at together.
const BLOCKS: usize = 4;
/// Their bytes.
const PART: usize = BLOCKS * bits::BLOCK;

/// The gate for ASCII: a map of the words that anchors are looked for by. No step depends on the one before, which makes it
/// several times faster than an automaton.
#[derive(Debug)]
pub(crate) struct AsciiGate {
    /// By group, and within one in the order of [`Around::near`].
    listed: Table<Candidate>,
    /// By hash of the key.
    groups: Table<Group>,
    /// Where in `groups` the keys begin whose hash has these upper bits.
    buckets: Table<u32>,
    /// One bit for the first four bytes of each word, …
    first: Box<Map>,
    /// … for each word that has to stand whole, …
    whole: Box<Map>,
    /// … and for the first four bytes of one behind which anything may stand.
    begun: Box<Map>,
    /// Those beside which nothing has to stand, or too little to look for.
    alone: Box<Map>,
    /// What the candidates of each group see, and what is next to each word at first sight: most places have none of it.
    seen: Box<Seen>,
    /// On which sides of a word there is something to see at first sight.
    sides: Box<Sides>,
    /// Whether an anchor may begin right behind a letter or a digit.
    inside: bool,
}

/// A place where an anchor may stand.
#[derive(Clone, Copy)]
struct Place {
    /// What is looked for there.
    key: u32,
    /// Where it begins in its part, …
    start: u8,
    /// … and how many bytes it has.
    length: u8,
}

impl Place {
    /// As one number.
    fn packed(self) -> u64 {
        u64::from(self.key) << 32 | u64::from(self.start) << 8 | u64::from(self.length)
    }

    /// Of such a number.
    fn of(packed: u64) -> Self {
        Self { key: (packed >> 32) as u32, start: (packed >> 8) as u8, length: packed as u8 }
    }

    /// What stands before it and behind.
    fn sides(self, text: &[u8], part: usize) -> (&[u8], &[u8]) {
        let start = (part + usize::from(self.start)).min(text.len());
        let behind = text.get(start + usize::from(self.length)..).unwrap_or_default();
        (text.get(..start).unwrap_or_default(), behind)
    }
}

/// Bytes before a part that what is around its words is read from.
const BEFORE: usize = 8;
/// The same with the part, and with the longest word that may begin in it and eight more bytes: whatever two numbers of eight and of
/// seven bits add up to is inside.
const AROUND: usize = BEFORE + PART + 128 + 8;

/// The bytes around a part, so that the loops over its places need not ask where the text is over; zeros there.
struct View<'t> {
    text: &'t str,
    part: usize,
    bytes: &'t [u8; AROUND],
}

impl View<'_> {
    #[inline]
    fn eight(&self, at: usize) -> [u8; 8] {
        self.bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default()
    }

    /// The eight bytes from a place of the part on, the first one lowest.
    #[inline]
    fn from(&self, start: u8) -> u64 {
        u64::from_le_bytes(self.eight(BEFORE + usize::from(start)))
    }

    /// What is next to something, on its left or on its right.
    #[inline]
    fn nearest(&self, place: Place, is_left: bool) -> u32 {
        let start = usize::from(place.start);
        let eight = if is_left {
            u64::from_be_bytes(self.eight(start))
        } else {
            u64::from_le_bytes(self.eight(BEFORE + start + usize::from(place.length & 0x7f)))
        };
        Around::nearest(eight).unwrap_or_else(|| {
            let (before, behind) = place.sides(self.text.as_bytes(), self.part);
            let around = Around::of(before, behind);
            (if is_left { around.left } else { around.right }) as u32
        })
    }
}

/// Where words begin in a part.
type Starts = [u32; PART + 8];

/// Those of a part, as [`Place::of`] reads them.
type Places = [u64; 2 * PART];

/// Which bytes of a part, and of the block behind it, are of words.
struct Words {
    masks: [u64; BLOCKS + 1],
    /// Bit 0: whether the last byte before is of a word.
    before: u64,
}

impl Words {
    /// Before the first part.
    fn new(bytes: &[u8]) -> Self {
        let mut masks = [0; BLOCKS + 1];
        masks[BLOCKS] = bits::of(&bits::block(bytes, 0), is_word);
        Self { masks, before: 0 }
    }

    /// Goes on to the part at `from` and puts into `starts` where words begin that are long enough; says how many.
    fn part(&mut self, bytes: &[u8], from: usize, inside: bool, starts: &mut Starts) -> usize {
        let (mut count, mut here) = (0, self.masks[BLOCKS]);
        for number in 0..BLOCKS {
            let behind = bits::of(&bits::block(bytes, from + (number + 1) * bits::BLOCK), is_word);
            // An underscore goes with the letters, as in a word's boundaries.
            let begin = if inside { here } else { here & !(here << 1 | self.before) };
            let long = (1..WORDY).fold(begin, |long, ahead| long & (here >> ahead | behind << (bits::BLOCK - ahead)));
            count = bits::write(long, (number * bits::BLOCK) as u32, starts, count);
            self.masks[number] = here;
            (self.before, here) = (here >> (bits::BLOCK - 1), behind);
        }
        self.masks[BLOCKS] = here;
        count
    }

    /// How many bytes from one on are of words, 63 at most.
    #[inline]
    fn letters(&self, start: u8) -> u8 {
        let of = |block: usize| self.masks.get(block).copied().unwrap_or_default();
        let (block, bit) = (usize::from(start) / bits::BLOCK, usize::from(start) % bits::BLOCK);
        let from_here = of(block) >> bit | of(block + 1) << 1 << (bits::BLOCK - 1 - bit);
        (!from_here | 1 << (bits::BLOCK - 1)).trailing_zeros() as u8
    }
}

impl AsciiGate {
    /// What [`super::packed`] wrote: of the anchors, those that are plain.
    pub(crate) fn read(from: &mut Unread) -> Option<Self> {
        let (listed, groups, buckets) = (from.table()?, from.table()?, from.table()?);
        let (first, whole, begun) = (Box::new(from.numbers()?), Box::new(from.numbers()?), Box::new(from.numbers()?));
        let (alone, seen) = (Box::new(from.numbers()?), Box::new(from.numbers()?));
        let sides = Box::new(*from.next()?.first_chunk()?);
        let inside = from.next()?.first() == Some(&1);
        Some(Self { listed, groups, buckets, first, whole, begun, alone, seen, sides, inside })
    }

    /// Calls `found` with the place of every anchor of an ASCII `text`, in no order; with one of several again for each.
    pub(crate) fn each(&self, anchors: &Anchors, text: &str, mut found: impl FnMut(usize)) {
        let bytes = text.as_bytes();
        let mut words = Words::new(bytes);
        let (mut starts, mut places) = ([0; PART + 8], [0; 2 * PART]);
        let mut copy;
        for part in (0..bytes.len()).step_by(PART) {
            let near_by = match part.checked_sub(BEFORE).and_then(|from| bytes.get(from..)?.first_chunk()) {
                Some(bytes) => bytes,
                None => {
                    let from = part.saturating_sub(BEFORE);
                    copy = [0; AROUND];
                    let there = copy.iter_mut().skip(BEFORE + from - part);
                    there.zip(bytes.get(from..).unwrap_or_default()).for_each(|(to, byte)| *to = *byte);
                    &copy
                }
            };
            let view = View { text, part, bytes: near_by };
            // One after the other, without a branch that depends on the text: where words begin, which of them the maps have,
            // and beside what.
            let count = words.part(bytes, part, self.inside, &mut starts);
            let count = self.first(&view, count, &mut starts);
            let known = self.known(&view, &words, starts.get(..count).unwrap_or_default(), &mut places);
            let near = self.near(&view, known, &mut places);
            for place in places.get(..near).unwrap_or_default() {
                self.confirm(anchors, &view, Place::of(*place), &mut found);
            }
        }
    }

    /// Keeps those of the first `count` of `starts` where four bytes are the first of some word; says how many.
    fn first(&self, view: &View<'_>, count: usize, starts: &mut Starts) -> usize {
        let mut kept = 0;
        for at in 0..count {
            let start = starts.get(at).copied().unwrap_or_default();
            let known = has(&self.first, bit(begun_key((view.from(start as u8) as u32).to_le_bytes())));
            if let Some(slot) = starts.get_mut(kept) {
                *slot = start;
            }
            kept += usize::from(known);
        }
        kept
    }

    /// Puts what the maps have of the words that begin at `starts` into `places`; says how many.
    fn known(&self, view: &View<'_>, words: &Words, starts: &[u32], places: &mut Places) -> usize {
        let mut count = 0;
        for &start in starts {
            let start = start as u8;
            let (eight, letters) = (view.from(start), words.letters(start));
            let (whole, begun) = (whole_key(eight, letters), begun_key((eight as u32).to_le_bytes()));
            let mut note = |key, length, known: bool| {
                if let Some(slot) = places.get_mut(count % (2 * PART)) {
                    *slot = Place { key, start, length }.packed();
                }
                count += usize::from(known);
            };
            note(whole, letters, has(&self.whole, bit(whole)));
            // Of these there are few.
            if has(&self.begun, bit(begun)) {
                note(begun, 4, true);
            }
        }
        count
    }

    /// Keeps those of the first `count` places around which there may be what is around them in an anchor; says how many.
    fn near(&self, view: &View<'_>, count: usize, places: &mut Places) -> usize {
        let mut kept = 0;
        for at in 0..count {
            let packed = places.get(at).copied().unwrap_or_default();
            let place = Place::of(packed);
            let is_near = self.is_near(view, place);
            if let Some(slot) = places.get_mut(kept) {
                *slot = packed;
            }
            kept += usize::from(is_near);
        }
        kept
    }

    /// Whether what is next to a place may be what is next to it in an anchor.
    #[inline]
    fn is_near(&self, view: &View<'_>, place: Place) -> bool {
        let sides = self.sides.get(slot(place.key)).copied().unwrap_or_default();
        has(&self.alone, bit(place.key))
            || sides & LEFT != 0 && self.has_seen(left(place.key, sides, view.nearest(place, true)))
            || sides & RIGHT != 0 && self.has_seen(right(place.key, sides, view.nearest(place, false)))
    }

    /// Whether these bits of this number are set.
    #[inline]
    fn has_seen(&self, (number, bits): (usize, u64)) -> bool {
        self.seen.get(number).is_some_and(|seen| seen & bits == bits)
    }

    /// Calls `found` with where the marked words are of the anchors that really stand at a place.
    fn confirm(&self, anchors: &Anchors, view: &View<'_>, place: Place, found: &mut impl FnMut(usize)) {
        let (before, behind) = place.sides(view.text.as_bytes(), view.part);
        let around = Around::of(before, behind);
        let start = |bucket: usize| self.buckets.get(bucket).map_or(0, |at| at as usize);
        let groups = start(bucket(place.key))..start(bucket(place.key) + 1);
        for group in self.groups.range(groups).filter(|group| group.key == place.key) {
            let near = around.near(group.near);
            if !self.has_seen(within(place.key, group.near, near)) {
                continue;
            }
            let listed = group.start as usize..group.end as usize;
            let seen = |candidate: &Candidate| candidate.around.near(group.near);
            let same = self.listed.partition_point(listed.clone(), |candidate| seen(candidate) < near);
            (self.listed.range(same..listed.end))
                .take_while(|candidate| seen(candidate) == near)
                .filter(|candidate| around.is(candidate.around, candidate.reach))
                .filter_map(|candidate| {
                    let at = (view.part + usize::from(place.start)).checked_sub(usize::from(candidate.shift))?;
                    anchors.stands(candidate.number as usize, view.text, at).then_some(at)
                })
                .for_each(&mut *found);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::folded::FoldedGate;
    use super::super::packed::pack;
    use super::super::plan::{Anchor, Plan};
    use super::*;

    /// As [`gates`], with one that may begin inside a word, and one that is looked for by its left and one by its right side.
    fn more_gates() -> (Anchors, AsciiGate, FoldedGate) {
        let anchor = |text: &str, mark, open_left, open_right| Anchor {
            text: text.to_owned(),
            mark,
            open_left,
            open_right,
            plain: true,
        };
        super::super::gates_of(vec![
            anchor("word", 0, true, false),
            anchor("kod", 0, false, true),
            anchor("gizli kod", 6, false, true),
            anchor("my api-key", 3, false, false),
            anchor("please tell", 7, false, false),
            anchor("tell us all", 0, false, false),
            anchor("god", 0, false, false),
        ])
    }

    fn agree((anchors, ascii, folded): (Anchors, AsciiGate, FoldedGate), text: &str) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        ascii.each(&anchors, text, |at| a.push(at));
        folded.each(&anchors, &text.to_ascii_lowercase(), |span| b.push(span.start));
        for found in [&mut a, &mut b] {
            found.sort_unstable();
            found.dedup();
        }
        assert_eq!(a, b, "{text:?}");
    }

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

    /// Each anchor that ships, in either case, with more white space, across the border of parts and at either end of a text.
    #[test]
    fn every_anchor_is_found_wherever_it_stands() {
        let lexicon = super::super::lexicon::Lexicon::builtin().unwrap();
        let (anchors, gate) = (&lexicon.anchors, &lexicon.ascii_gate);
        let mut tried = 0;
        for (candidate, number) in gate.listed.range(0..usize::MAX).zip(0usize..) {
            let (before, marked, open_right) = anchors.text(candidate.number as usize).unwrap();
            let space = [" ", "  ", "\n", "\r\n\t"][number % 4];
            let [before, marked] = [before, marked].map(|text| text.replace(' ', space));
            let [before, mut marked] =
                if number % 7 < 3 { [before, marked].map(|text| text.to_ascii_uppercase()) } else { [before, marked] };
            if open_right && number % 5 == 0 {
                marked.push_str("xyz");
            }
            let ahead = "~ zq ".repeat(number % 61);
            let behind = ["", ".", " zq zq zq zq zq zq zq zq zq", "\u{201d}", "\0"][number % 5];
            let text = format!("{ahead}{before}{marked}{behind}");
            let mut found = Vec::new();
            gate.each(anchors, &text, |at| found.push(at));
            assert!(found.contains(&(ahead.len() + before.len())), "{text:?} {found:?}");
            tried += 1;
        }
        assert!(tried > 60_000, "{tried}");
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
        fn both_gates_agree(
            ahead in 0usize..300,
            text in "(god|ignore|live|s|pass|\\.ssh| |x|_|G|é|ı|\x01|\x0b|the user knows|the |user){0,30}"
        ) {
            agree(gates(), &format!("{}{text}", "~ ".repeat(ahead)));
        }

        #[test]
        fn both_gates_agree_inside_words(
            ahead in 0usize..300,
            text in "(word|kod|gizli|api-key|my|please|tell|us all|god|a|_|é|ı|\x00| |  |K|T){0,40}"
        ) {
            agree(more_gates(), &format!("{}{text}", "~x ".repeat(ahead)));
            agree(more_gates(), &"xyz".repeat(ahead));
        }
    }
}
