//! The ten word lists of BIP-39 and the index that answers "which words, of which lists, is this?" in constant time.
//!
//! Called by the detector beside it. Promises: the index is built once, at first use (about 20,000 words); looking up does
//! not allocate. Words are compared after NFKD, as BIP-39 demands, and also without accents, as people type them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A language with an official list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Language {
    English,
    Japanese,
    Korean,
    Spanish,
    ChineseSimplified,
    ChineseTraditional,
    French,
    Italian,
    Czech,
    Portuguese,
}

/// All languages; the position is the bit used in masks.
pub(super) const LANGUAGES: [Language; 10] = [
    Language::English,
    Language::Japanese,
    Language::Korean,
    Language::Spanish,
    Language::ChineseSimplified,
    Language::ChineseTraditional,
    Language::French,
    Language::Italian,
    Language::Czech,
    Language::Portuguese,
];

pub(super) const TEXTS: [&str; 10] = [
    include_str!("../../wordlists/english.txt"),
    include_str!("../../wordlists/japanese.txt"),
    include_str!("../../wordlists/korean.txt"),
    include_str!("../../wordlists/spanish.txt"),
    include_str!("../../wordlists/chinese_simplified.txt"),
    include_str!("../../wordlists/chinese_traditional.txt"),
    include_str!("../../wordlists/french.txt"),
    include_str!("../../wordlists/italian.txt"),
    include_str!("../../wordlists/czech.txt"),
    include_str!("../../wordlists/portuguese.txt"),
];

/// The list of English words by their first four letters, which no other word begins with.
pub(super) const CUT: usize = LANGUAGES.len();
/// Lists, the one of beginnings included.
pub(super) const LISTS: usize = LANGUAGES.len() + 1;

/// Are most of these words longer than what their list of beginnings has of them? A text of short words is none.
pub(super) fn most_cut(numbers: &[u16]) -> bool {
    static LONG: OnceLock<Vec<bool>> = OnceLock::new();
    let long = LONG.get_or_init(|| TEXTS[0].lines().map(|word| word.len() > BEGINNING).collect());
    let cut = numbers.iter().filter(|number| long.get(usize::from(**number)).is_some_and(|long| *long)).count();
    cut * 2 >= numbers.len()
}

/// Letters that tell an English word from all others of its list.
const BEGINNING: usize = 4;

/// Words of a list.
pub(super) const WORDS: usize = 2048;
/// Longest word that has a [`pack`]ed key, in bytes; without accents no Latin word is longer.
pub(super) const LONGEST: usize = 9;
/// Bytes that a key holds as they are.
const WHOLE: usize = 8;

/// A word's list (position in [`LANGUAGES`], or [`CUT`]) and number (0 to 2047).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) language: u8,
    pub(super) number: u16,
}

/// Slots of the table of short words: a power of two, at most two thirds full.
const SLOTS: usize = 1 << 15;

struct Index {
    /// Words with a key: key (0 is free), first entry, number of entries.
    short: Vec<(u64, u32, u8)>,
    /// One bit for each upper part of a hash that one of them has: 16 KiB, which stay in the first cache as the table does not.
    map: Vec<u64>,
    long: HashMap<String, (u32, u8)>,
    entries: Vec<Entry>,
}

/// A word as a number: of up to eight bytes, or of nine letters of ASCII in lower case. No two words have the same.
pub(super) fn pack(word: &[u8]) -> Option<u64> {
    match word {
        [first, rest @ ..] if rest.len() == WHOLE => {
            word.iter().all(u8::is_ascii_lowercase).then(|| nine(*first, number(rest)))
        }
        _ => (word.len() <= WHOLE).then(|| number(word)),
    }
}

/// Letters in a row as one number.
pub(super) fn number(word: &[u8]) -> u64 {
    word.iter().fold(0, |key, &byte| (key << 8) | u64::from(byte))
}

/// The key of nine letters, in lower case. The upper three bits of a letter are always the same, 011: those of the first two
/// of eight have room for the five that tell the ninth, which never make 011 twice.
pub(super) fn nine(first: u8, rest: u64) -> u64 {
    const ROOM: u64 = 0xe0e0 << 48;
    let first = u64::from(first & 0x1f);
    (rest & !ROOM) | (first >> 3) << 61 | (first & 7) << 53
}

/// Bits of the hash that choose one of the map.
const MAP_BITS: u32 = 17;

fn bit(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - MAP_BITS)) as usize
}

fn slot(key: u64) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 49) as usize
}

/// Latin words are looked up in every text, the others seldom: who never meets them does not pay for their index.
fn latin() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| build(|language| !eastern(language)))
}

fn east() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| build(eastern))
}

/// Japanese, Korean and both Chinese lists.
fn eastern(language: usize) -> bool {
    matches!(language, 1 | 2 | 4 | 5)
}

fn build(wanted: fn(usize) -> bool) -> Index {
    let mut forms: Vec<(Cow<'static, str>, Entry)> = Vec::with_capacity(32_000);
    for (language, text) in TEXTS.iter().enumerate().filter(|(language, _)| wanted(*language)) {
        for (number, word) in text.lines().take(WORDS).enumerate() {
            let entry = Entry { language: language as u8, number: number as u16 };
            if !word.is_ascii() {
                let full: String = word.nfkd().collect();
                forms.push((full.chars().nfc().collect::<String>().into(), entry));
                forms.push((
                    full.chars().filter(|&letter| !is_combining_mark(letter)).collect::<String>().into(),
                    entry,
                ));
                forms.push((full.into(), entry));
            }
            forms.push((Cow::Borrowed(word), entry));
            if language == 0 {
                forms.push((word[..word.len().min(BEGINNING)].into(), Entry { language: CUT as u8, ..entry }));
            }
        }
    }
    forms.sort_unstable_by(|a, b| (&a.0, a.1.language, a.1.number).cmp(&(&b.0, b.1.language, b.1.number)));
    // Japanese words may differ in a mark only: without it, the first one stands for both.
    forms.dedup_by(|a, b| a.0 == b.0 && a.1.language == b.1.language);
    let mut index = Index {
        short: vec![(0, 0, 0); SLOTS],
        map: vec![0; 1 << (MAP_BITS - 6)],
        long: HashMap::new(),
        entries: Vec::with_capacity(forms.len()),
    };
    for group in forms.chunk_by(|a, b| a.0 == b.0) {
        let place = (index.entries.len() as u32, group.len() as u8);
        index.entries.extend(group.iter().map(|(_, entry)| *entry));
        let word = &group[0].0;
        if let Some(key) = pack(word.as_bytes()) {
            let mut at = slot(key);
            while index.short[at].0 != 0 {
                at = (at + 1) % SLOTS;
            }
            index.short[at] = (key, place.0, place.1);
            let bit = bit(key);
            index.map[bit >> 6] |= 1 << (bit & 63);
        } else {
            index.long.insert(word.clone().into_owned(), place);
        }
    }
    index
}

fn entries(index: &'static Index, (first, count): (u32, u8)) -> &'static [Entry] {
    index.entries.get(first as usize..first as usize + usize::from(count)).unwrap_or(&[])
}

/// The entries of a packed word of ASCII letters in lower case; none when it is in no list.
pub(super) fn packed(key: u64) -> &'static [Entry] {
    short(latin(), key)
}

/// As [`packed`], whether there are any: one in eight words that are in no list passes as well.
pub(super) fn maybe(key: u64) -> bool {
    let bit = bit(key);
    latin().map[bit >> 6] >> (bit & 63) & 1 == 1
}

fn short(index: &'static Index, key: u64) -> &'static [Entry] {
    let mut at = slot(key);
    loop {
        match index.short[at] {
            (0, ..) => return &[],
            (known, first, count) if known == key => return entries(index, (first, count)),
            _ => at = (at + 1) % SLOTS,
        }
    }
}

fn exact(index: &'static Index, word: &str) -> &'static [Entry] {
    if let Some(key) = pack(word.as_bytes()) {
        return short(index, key);
    }
    index.long.get(word).map_or(&[], |&place| entries(index, place))
}

/// The entries of a word with other than ASCII letters, whatever its normal form and case.
pub(super) fn wide(word: &str) -> &'static [Entry] {
    let Some(first) = word.chars().next() else { return &[] };
    let index = match first {
        'A'..='Z' | 'a'..='z' | '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}' | '\u{ff21}'..='\u{ff5a}' => latin(),
        '\u{1100}'..='\u{11ff}'
        | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}' => east(),
        _ => return &[],
    };
    let known = exact(index, word);
    if !known.is_empty() {
        return known;
    }
    let normal: String = word.chars().flat_map(char::to_lowercase).nfkd().collect();
    if normal == word { &[] } else { exact(index, &normal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_whole() {
        for (language, text) in LANGUAGES.iter().zip(TEXTS) {
            assert_eq!(text.lines().count(), WORDS, "{language:?}");
        }
        assert_eq!(TEXTS[0].lines().next(), Some("abandon"));
        assert_eq!(TEXTS[0].lines().last(), Some("zoo"));
    }

    #[test]
    fn every_word_is_found_with_its_number() {
        for (language, text) in TEXTS.iter().enumerate() {
            for (number, word) in text.lines().enumerate() {
                let entry = Entry { language: language as u8, number: number as u16 };
                assert!(wide(word).contains(&entry), "{word}");
            }
        }
    }

    /// As people type it, without its accents.
    fn bare(word: &str) -> String {
        word.nfkd().filter(|letter| !is_combining_mark(*letter)).collect()
    }

    #[test]
    fn every_latin_word_is_found_by_its_letters_alone() {
        for (language, text) in TEXTS.iter().enumerate().filter(|(language, _)| !eastern(*language)) {
            for (number, word) in text.lines().enumerate() {
                let (entry, bare) = (Entry { language: language as u8, number: number as u16 }, bare(word));
                let key = pack(bare.as_bytes()).unwrap_or_default();
                assert!(packed(key).contains(&entry) && maybe(key), "{word}");
            }
        }
    }

    #[test]
    fn keys_of_nine_letters_are_no_others() {
        let mut keys: Vec<u64> =
            TEXTS.iter().flat_map(|text| text.lines()).filter_map(|word| pack(bare(word).as_bytes())).collect();
        let mut words: Vec<String> = TEXTS
            .iter()
            .flat_map(|text| text.lines())
            .map(bare)
            .filter(|word| pack(word.as_bytes()).is_some())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        words.sort_unstable();
        words.dedup();
        assert_eq!(keys.len(), words.len());
        assert_ne!(pack(b"centesimo"), pack(b"entesimo"));
        assert_ne!(pack(b"centesimo"), pack(b"dentesimo"));
        assert_eq!(pack("abcdefgh\u{e9}".as_bytes()), None);
    }

    #[test]
    fn accents_may_be_left_out() {
        let number = |word: &str| wide(word).iter().find(|entry| entry.language == 3).map(|entry| entry.number);
        assert_eq!(number("ábaco"), number("abaco"));
        assert!(number("abaco").is_some());
        assert!(packed(super::number(b"qwertyui")).is_empty());
    }
}
