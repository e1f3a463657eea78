//! Words in a tree that is read where it lies: which of them begin at a place of a text. Used by the lexicon for its words and by
//! the gate for folded text for those of anchors. Promises work that is linear in the longest word, and memory only for the
//! first step.

use std::collections::BTreeMap;
use std::ops::Range;

use super::tables::{BITS, Bytes, Fields, Map, Record, Sections, Table, Unread, has, set, written};

/// No word ends here, or none begins.
const NONE: u32 = u32::MAX;

/// Bytes that several words have in common, or with which one ends. Its children have numbers in a row, in the order of the
/// first of their bytes.
#[derive(Debug)]
struct Node {
    /// Where its bytes begin.
    label: u32,
    child: u32,
    /// That of the word that ends here.
    value: u32,
    length: u8,
    children: u8,
}

impl Record for Node {
    const SIZE: usize = 14;

    fn write(&self, to: &mut Vec<u8>) {
        [self.label, self.child, self.value].iter().for_each(|number| number.write(to));
        to.extend([self.length, self.children]);
    }

    #[inline]
    fn read(mut from: Fields<'_>) -> Option<Self> {
        let [label, child, value] = [from.u32()?, from.u32()?, from.u32()?];
        Some(Self { label, child, value, length: from.u8()?, children: from.u8()? })
    }
}

/// Writes the tree of these words, each with its value below `u32::MAX`.
///
/// # Errors
/// A word that is too long, or too many of them.
fn write(words: &BTreeMap<&[u8], u32>, to: &mut Sections) -> Result<(), String> {
    let all: Vec<(&[u8], u32)> = words.iter().map(|(word, value)| (*word, *value)).collect();
    let (mut nodes, mut labels, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
    // Of each node that is numbered: its words, and how many of their bytes are above it.
    let mut pending = vec![(all.as_slice(), 0)];
    while let Some(&(mut words, above)) = pending.get(nodes.len()) {
        let common = |one: &[u8], other: &[u8]| one.iter().zip(other).take_while(|(one, other)| one == other).count();
        let depth = match (words, above) {
            ([(first, _), .., (last, _)], _) if !nodes.is_empty() => common(first, last),
            ([(only, _)], _) if !nodes.is_empty() => only.len(),
            _ => above,
        };
        let label = words.first().and_then(|(word, _)| word.get(above..depth)).unwrap_or_default();
        let mut node = Node {
            label: u32::try_from(labels.len()).map_err(|_| "too many words".to_owned())?,
            child: u32::try_from(pending.len()).map_err(|_| "too many words".to_owned())?,
            value: NONE,
            length: u8::try_from(label.len()).map_err(|_| "a word is longer than 255 bytes".to_owned())?,
            children: 0,
        };
        firsts.push(label.first().copied().unwrap_or_default());
        labels.extend_from_slice(label);
        if let Some(((word, value), rest)) = words.split_first()
            && word.len() == depth
        {
            (node.value, words) = (*value, rest);
        }
        for part in words.chunk_by(|(one, _), (other, _)| one.get(depth) == other.get(depth)) {
            node.children = node.children.checked_add(1).ok_or("words begin with all 256 bytes")?;
            pending.push((part, depth));
        }
        nodes.push(node);
    }
    to.add(&written(nodes));
    to.add(&firsts);
    to.add(&labels);
    Ok(())
}

/// Words with their values.
#[derive(Debug)]
struct Trie {
    nodes: Table<Node>,
    /// The first byte of each node.
    firsts: Bytes,
    labels: Bytes,
    /// The node with which words begin that begin with this byte.
    roots: Box<[u32; 256]>,
}

impl Trie {
    /// What [`write()`] wrote.
    fn read(from: &mut Unread) -> Option<Self> {
        let (nodes, firsts, labels) = (from.table::<Node>()?, from.next()?, from.next()?);
        let mut roots = Box::new([NONE; 256]);
        let root = nodes.get(0)?;
        for number in (root.child..).take(usize::from(root.children)) {
            roots[usize::from(*firsts.get(number as usize)?)] = number;
        }
        Some(Self { nodes, firsts, labels, roots })
    }

    /// Whether words begin with this byte.
    #[inline]
    fn begins(&self, byte: u8) -> bool {
        self.roots[usize::from(byte)] != NONE
    }

    /// Calls `found` with the end and the value of every word that begins at `at`, the shortest first.
    #[inline]
    fn each(&self, text: &[u8], mut at: usize, mut found: impl FnMut(usize, u32)) {
        let Some(&root) = text.get(at).and_then(|byte| self.roots.get(usize::from(*byte))) else { return };
        let mut next = (root != NONE).then_some(root as usize);
        while let Some(node) = next.and_then(|number| self.nodes.get(number)) {
            let label = node.label as usize..node.label as usize + usize::from(node.length);
            let end = at + usize::from(node.length);
            match (self.labels.get(label), text.get(at..end)) {
                (Some(label), Some(here)) if label == here => at = end,
                _ => return,
            }
            if node.value != NONE {
                found(at, node.value);
            }
            let Some(&byte) = text.get(at) else { return };
            let children = node.child as usize..node.child as usize + usize::from(node.children);
            let firsts = self.firsts.get(children).unwrap_or_default();
            next = firsts.iter().position(|first| *first == byte).map(|child| node.child as usize + child);
        }
    }
}

/// Words that may begin anywhere, and others that begin where no letter stands before.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    anywhere: Trie,
    apart: Trie,
    /// One bit for each hash of the first six bytes of a word, …
    long: Box<Map>,
    /// … of the first three of a shorter one, …
    short: Box<Map>,
    /// … and for each byte with which one of one or two begins.
    tiny: [u64; 4],
}

fn hash(eight: u64, bytes: u32) -> usize {
    ((eight << (u64::BITS - bytes * u8::BITS)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - BITS)) as usize
}

impl Vocabulary {
    /// Writes these words, each with its value below `u32::MAX` and whether it may begin anywhere.
    ///
    /// # Errors
    /// A word that is too long, or too many of them.
    pub(crate) fn write(words: &BTreeMap<&[u8], (u32, bool)>, to: &mut Sections) -> Result<(), String> {
        for anywhere in [true, false] {
            let of = words.iter().filter(|(_, (_, may))| *may == anywhere);
            write(&of.map(|(word, (value, _))| (*word, *value)).collect(), to)?;
        }
        let (mut long, mut short, mut tiny): (Map, Map, [u64; 4]) = ([0; _], [0; _], [0; 4]);
        for word in words.keys() {
            let first = |count| word.iter().take(count).rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
            match word.len() {
                0 => {}
                1 | 2 => set(&mut tiny, first(1) as usize),
                3..6 => set(&mut short, hash(first(3), 3)),
                _ => set(&mut long, hash(first(6), 6)),
            }
        }
        [&long[..], &short, &tiny].iter().for_each(|map| to.add(&written(map.iter().copied())));
        Ok(())
    }

    /// What [`write`](Self::write) wrote.
    pub(crate) fn read(from: &mut Unread) -> Option<Self> {
        let (anywhere, apart) = (Trie::read(from)?, Trie::read(from)?);
        let (long, short) = (Box::new(from.numbers()?), Box::new(from.numbers()?));
        Some(Self { anywhere, apart, long, short, tiny: from.numbers()? })
    }

    /// Calls `found` with the place and the value of every word in `text`, in the order of their beginnings; one that may not
    /// begin anywhere may still stand behind a letter that is not of ASCII.
    pub(crate) fn each(&self, text: &str, mut found: impl FnMut(Range<usize>, u32)) {
        let bytes = text.as_bytes();
        let mut is_inside = false;
        for (at, &byte) in bytes.iter().enumerate() {
            // None begins inside a character.
            if byte & 0xc0 == 0x80 {
                continue;
            }
            // An underscore joins the words of an identifier, so it counts as a letter.
            let is_word = byte.is_ascii_alphanumeric() || byte == b'_';
            let may_begin = !std::mem::replace(&mut is_inside, is_word);
            // Most places are passed here, and most of the others where the maps are asked.
            if !(may_begin || self.anywhere.begins(byte)) || !self.may_stand(bytes, at, byte) {
                continue;
            }
            self.anywhere.each(bytes, at, |end, value| found(at..end, value));
            if may_begin {
                self.apart.each(bytes, at, |end, value| found(at..end, value));
            }
        }
    }

    /// Whether a word may stand at `at`, by its first bytes.
    #[inline]
    fn may_stand(&self, bytes: &[u8], at: usize, byte: u8) -> bool {
        let Some(eight) = bytes.get(at..).and_then(<[u8]>::first_chunk) else { return true };
        let eight = u64::from_le_bytes(*eight);
        has(&self.short, hash(eight, 3)) || has(&self.long, hash(eight, 6)) || has(&self.tiny, usize::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    fn trie(words: &[&str]) -> Trie {
        let words = words.iter().zip(0..).map(|(word, value)| (word.as_bytes(), value)).collect();
        let mut sections = Sections::default();
        write(&words, &mut sections).unwrap();
        Trie::read(&mut Unread(Cow::Owned(sections.into_bytes()))).unwrap()
    }

    fn found(trie: &Trie, text: &str, at: usize) -> Vec<(usize, u32)> {
        let mut all = Vec::new();
        trie.each(text.as_bytes(), at, |end, value| all.push((end, value)));
        all
    }

    #[test]
    fn the_words_that_begin_at_a_place_are_found() {
        let trie = trie(&["ignore", "ign", "ignoring", "über", "übel", "a"]);
        assert_eq!(found(&trie, "to ignore", 3), [(6, 1), (9, 0)]);
        assert_eq!(found(&trie, "to ignore", 4), []);
        assert_eq!(found(&trie, "ignorin", 0), [(3, 1)]);
        assert_eq!(found(&trie, "übel", 0), [(5, 4)]);
        assert_eq!((found(&trie, "a", 0), found(&trie, "a", 1), found(&trie, "", 7)), (vec![(1, 5)], vec![], vec![]));
        assert!(trie.begins(b'i') && !trie.begins(b'g'));
        assert!(found(&self::trie(&[]), "a", 0).is_empty());
        let long = "a".repeat(256);
        assert!(write(&BTreeMap::from([(long.as_bytes(), 0)]), &mut Sections::default()).is_err());
    }

    proptest! {
        #[test]
        fn it_finds_what_a_list_finds(words in prop::collection::btree_set("[abc]{1,6}", 0..20), text in "[abc]{0,20}") {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let trie = trie(&words);
            for at in 0..=text.len() {
                let begins = |word: &&str| text[at..].starts_with(word);
                let mut expected: Vec<(usize, u32)> = (words.iter().zip(0..))
                    .filter(|(word, _)| begins(word))
                    .map(|(word, value)| (at + word.len(), value))
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(found(&trie, &text, at), expected);
            }
        }

        #[test]
        fn the_maps_pass_over_no_word(
            words in prop::collection::btree_map("[abé ]{1,8}", prop::bool::ANY, 0..20),
            text in "[abé _]{0,30}",
        ) {
            let listed = words.iter().zip(0..).map(|((word, may), value)| (word.as_bytes(), (value, *may))).collect();
            let mut sections = Sections::default();
            Vocabulary::write(&listed, &mut sections).unwrap();
            let words: Vec<(&String, bool)> = words.iter().map(|(word, may)| (word, *may)).collect();
            let mut found = Vec::new();
            Vocabulary::read(&mut Unread(Cow::Owned(sections.into_bytes()))).unwrap().each(&text, |place, value| {
                found.push((place.start, place.end, value));
            });
            let mut expected = Vec::new();
            for (at, _) in text.char_indices() {
                let is_inside = text[..at].ends_with(['a', 'b', '_']);
                for ((word, may), value) in words.iter().zip(0..) {
                    if text[at..].starts_with(*word) && (*may || !is_inside) {
                        expected.push((at, at + word.len(), value));
                    }
                }
            }
            found.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(found, expected);
        }
    }
}
