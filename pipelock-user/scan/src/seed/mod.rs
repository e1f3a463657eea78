//! Seed phrases: 12 to 24 words of a BIP-39 list with a right checksum, in any of ten languages.
//!
//! The engine keeps a `Seeker` per text and pushes what comes; [`scan`] does the same to a whole text. Whatever is no letter separates words:
//! spaces, commas, quotes, line ends, the numbers of a list; labels such as `word1` are passed over. Case, accents and the
//! Unicode normal form do not matter. Promises: constant work per word, under 16 KiB per text, the same findings
//! wherever the text is cut, no panic.
//!
//! Chinese is written without spaces, and its list holds the commonest characters, so that ordinary sentences would pass
//! for phrases: unspaced characters count only when the piece between two marks has exactly the length of a
//! phrase and a word such as "mnemonic" or 助记词 stands shortly before.

mod chinese;
mod glued;
mod lists;
mod run;
mod skip;
mod stream;
mod stretch;
mod tagged;

pub(crate) use glued::glued;
pub use lists::Language;
pub(crate) use stream::Seeker;

use crate::bits;
use crate::stream::Window;
use lists::{CUT, Entry, LANGUAGES, LISTS};
use run::{Fits, Run, mark};
use unicode_normalization::char::is_combining_mark;

/// Shortest word of a list, in letters or in bytes that are none of ASCII.
const SHORTEST: usize = 3;
/// Longest word kept while it is read, in bytes: Korean syllables decomposed take the most.
const WORD_BYTES: usize = 64;

/// A phrase that was found. It does not hold the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phrase {
    /// The list whose words they are.
    pub language: Language,
    /// How many words: 12, 15, 18, 21 or 24.
    pub words: usize,
    /// Where the first word starts, in bytes from the start of the text.
    pub start: u64,
    /// Where the last word ends.
    pub end: u64,
}

impl Phrase {
    /// What may be told of it.
    pub(crate) fn excerpt(&self) -> String {
        format!("{} words", self.words)
    }
}

/// All phrases of a text, overlapping ones joined into the one with the most words.
pub fn scan(text: &str) -> Vec<Phrase> {
    let mut found = Vec::new();
    let window = Window { first: 0, old: &[], new: text.as_bytes() };
    Seeker::default().push(&window, true, &mut found);
    join(found)
}

fn join(mut found: Vec<Phrase>) -> Vec<Phrase> {
    found.sort_by_key(|phrase| (phrase.start, std::cmp::Reverse(phrase.words)));
    let mut joined: Vec<Phrase> = Vec::new();
    for phrase in found {
        match joined.last_mut() {
            Some(last) if phrase.start < last.end => {
                if phrase.words > last.words {
                    *last = phrase;
                }
            }
            _ => joined.push(phrase),
        }
    }
    joined
}

/// What a word touches: `word1` and `1word` may be labels of a list rather than words of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Glue {
    Free,
    Digit,
}

/// Where the lists of single characters are among [`LANGUAGES`], and their bits.
const SIMPLIFIED: usize = 4;
const TRADITIONAL: usize = 5;
const CHINESE: u16 = 1 << SIMPLIFIED | 1 << TRADITIONAL;
const _: () = assert!(
    matches!(LANGUAGES[SIMPLIFIED], Language::ChineseSimplified)
        && matches!(LANGUAGES[TRADITIONAL], Language::ChineseTraditional)
);

/// Words of the English list that stand before those of a phrase and say which one it is: `{"index": 0, "word": "legal"}`.
const LABELS: [&[u8]; 8] = [b"word", b"index", b"number", b"position", b"order", b"item", b"seed", b"phrase"];

/// Bytes behind a phrase of single characters after which no other is waited for.
const PAUSE: u64 = 256;

/// Runs of all languages over one reading of the words.
#[derive(Debug, Clone)]
struct Reading {
    runs: [Run; LISTS],
    /// Languages whose run is not empty, one bit each.
    active: u16,
    /// Marks since the last word.
    marks: u16,
    /// The number before the next word; 0 is none.
    label: u8,
    /// Phrases of single characters, which count when no other follows: chance finds some in every table of characters.
    due: [Option<Phrase>; 2],
}

impl Reading {
    const EMPTY: Reading =
        Reading { runs: [const { Run::EMPTY }; LISTS], active: 0, marks: 0, label: 0, due: [None; 2] };

    fn push(&mut self, entries: &[Entry], start: u64, end: u64, found: &mut Vec<Phrase>) {
        let mut present = 0u16;
        for entry in entries {
            present |= 1 << entry.language;
        }
        self.clear(self.active & !present, false, found);
        let before = (std::mem::take(&mut self.marks), std::mem::take(&mut self.label));
        for entry in entries {
            let language = usize::from(entry.language);
            let fits = match LANGUAGES.get(language) {
                Some(Language::ChineseSimplified | Language::ChineseTraditional) => Fits::Character,
                Some(Language::English) => Fits::English,
                _ if language == CUT => Fits::Cut,
                _ => Fits::Word,
            };
            if let Some((words, start)) = self.runs[language].push(entry.number, start, before, fits) {
                let language = LANGUAGES.get(language).copied().unwrap_or(Language::English);
                let phrase = Phrase { language, words, start, end };
                match language {
                    Language::ChineseSimplified => self.due[0] = Some(phrase),
                    Language::ChineseTraditional => self.due[1] = Some(phrase),
                    _ => found.push(phrase),
                }
            }
        }
        self.active = present;
        for (due, language) in self.due.iter_mut().zip([SIMPLIFIED, TRADITIONAL]) {
            // One more may still turn out to touch another character.
            due.take_if(|due| self.runs[language].length() > due.words as u64 + 1);
        }
    }

    /// Hands on what is due when nothing follows for so long.
    fn settle(&mut self, here: u64, found: &mut Vec<Phrase>) {
        for due in &mut self.due {
            if let Some(phrase) = due.take_if(|due| here > due.end + PAUSE) {
                found.push(phrase);
            }
        }
    }

    /// Where the first phrase may start that is not over yet.
    fn begun(&self) -> Option<u64> {
        let runs = self.runs.iter().enumerate().filter(|(language, _)| self.active >> language & 1 == 1);
        runs.filter_map(|(_, run)| run.begun()).chain(self.due.iter().flatten().map(|due| due.start)).min()
    }

    /// Forgets what it read.
    fn reset(&mut self) {
        while self.active != 0 {
            self.runs[self.active.trailing_zeros() as usize].clear();
            self.active &= self.active - 1;
        }
        (self.marks, self.label, self.due) = (0, 0, [None; 2]);
    }

    /// Ends the runs of these languages. `glued` says that what was last taken for a word touches another character.
    fn clear(&mut self, mut languages: u16, glued: bool, found: &mut Vec<Phrase>) {
        while languages != 0 {
            let run = &mut self.runs[languages.trailing_zeros() as usize];
            let language = LANGUAGES.get(languages.trailing_zeros() as usize).copied();
            for due in &mut self.due {
                if let Some(phrase) = due.take_if(|due| Some(due.language) == language)
                    && run.length() - u64::from(glued) <= phrase.words as u64
                {
                    found.push(phrase);
                }
            }
            run.clear();
            languages &= languages - 1;
        }
    }
}

/// Reads a text piece by piece and reports phrases as their last word ends.
#[derive(Debug, Clone)]
pub struct Detector {
    /// All words; and all but those that touch a digit or name what a number counts.
    readings: [Reading; 2],
    /// Bytes fed so far.
    offset: u64,
    /// The word being read: its last letters while it is ASCII, else spelled out in `wide`.
    key: u128,
    letters: usize,
    wide: String,
    start: u64,
    glue: Glue,
    after_digit: bool,
    /// The number that was last read on this line, and the one before the word being read.
    number: u8,
    label: u8,
    /// Words since those before belonged to none, and which of them was each of [`LABELS`] for the last time.
    count: u32,
    named: [u32; LABELS.len()],
    /// End of the last single Chinese character.
    ideograph_end: u64,
}

impl Default for Detector {
    fn default() -> Self {
        Self::new()
    }
}

impl Detector {
    /// A detector at the start of a text.
    pub fn new() -> Self {
        Self {
            readings: [Reading::EMPTY, Reading::EMPTY],
            offset: 0,
            key: 0,
            letters: 0,
            wide: String::new(),
            start: 0,
            glue: Glue::Free,
            after_digit: false,
            number: 0,
            label: 0,
            count: 0,
            named: [0; LABELS.len()],
            ideograph_end: u64::MAX,
        }
    }

    /// Reads the next piece; adds what ends in it to `found`. A word cut by the end of the piece goes on in the next.
    pub fn feed(&mut self, text: &str, found: &mut Vec<Phrase>) {
        self.read(text, false, found);
    }

    /// Begins anew behind a word that is in no list, at `offset` of the text.
    fn restart(&mut self, offset: u64) {
        self.readings.iter_mut().for_each(Reading::reset);
        (self.offset, self.letters, self.after_digit, self.ideograph_end) = (offset, 0, false, u64::MAX);
        self.number = 0;
        self.wide.clear();
    }

    /// Where the first word starts that a phrase may begin with that is not over yet; `None` without any.
    fn begun(&self) -> Option<u64> {
        // More letters than any word of a list has are no word's beginning.
        let short = if self.wide.is_empty() { self.letters <= lists::LONGEST } else { self.wide.len() < WORD_BYTES };
        let word = (self.letters > 0 && short).then_some(self.start);
        let runs = self.readings.iter().filter(|reading| reading.active != 0).filter_map(Reading::begun).min();
        match (word, runs) {
            (Some(word), Some(run)) => Some(word.min(run)),
            (word, run) => word.or(run),
        }
    }

    /// As [`feed`](Self::feed); with `stop` only up to the mark behind a word that is in no list. Gives the bytes read.
    fn read(&mut self, text: &str, stop: bool, found: &mut Vec<Phrase>) -> usize {
        let bytes = text.as_bytes();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            for reading in self.readings.iter_mut().filter(|reading| reading.active & CHINESE != 0) {
                reading.settle(self.offset + at as u64, found);
            }
            if byte.is_ascii() {
                match byte {
                    b'a'..=b'z' => self.letter(byte, at),
                    b'A'..=b'Z' => self.letter(byte | 0x20, at),
                    b'0'..=b'9' => {
                        if self.letters > 0 {
                            self.glue = Glue::Digit;
                            self.end_word(self.offset + at as u64, found);
                        }
                        let before = if self.after_digit { self.number } else { 0 };
                        self.number = before.saturating_mul(10).saturating_add(byte - b'0');
                        self.after_digit = true;
                        if self.is_idle() {
                            at += self.skip(&bytes[at + 1..]);
                        }
                    }
                    _ => {
                        let word = self.letters > 0;
                        if word {
                            self.end_word(self.offset + at as u64, found);
                        }
                        self.readings.iter_mut().for_each(|reading| reading.marks |= mark(byte));
                        self.after_digit = false;
                        if matches!(byte, b'\n' | b'\r') {
                            self.number = 0;
                        }
                        if stop && word && self.is_idle() {
                            self.offset += at as u64;
                            return at;
                        }
                    }
                }
                at += 1;
                continue;
            }
            let Some(letter) = text[at..].chars().next() else { break };
            self.wide_letter(letter, at, found);
            at += letter.len_utf8();
        }
        self.offset += bytes.len() as u64;
        bytes.len()
    }

    /// No word before belongs to a phrase.
    fn is_idle(&self) -> bool {
        self.readings.iter().all(|reading| reading.active == 0)
    }

    /// Passes over what is in hexadecimal and the like, behind a digit: while no phrase has begun, what is too short for a word of
    /// any list says nothing. How many bytes that are.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        let to = bits::run(bytes, SHORTEST, skip::letter).unwrap_or_else(|| {
            // The last one may go on in the next piece.
            bytes.len() - bytes.iter().rev().take_while(|byte| skip::letter(**byte)).count()
        });
        self.after_digit = bytes[..to].last().is_none_or(u8::is_ascii_digit);
        to
    }

    /// The text is over: its last word counts too.
    pub fn finish(&mut self, found: &mut Vec<Phrase>) {
        if self.letters > 0 {
            self.end_word(self.offset, found);
        }
        for reading in &mut self.readings {
            reading.clear(reading.active, false, found);
            reading.active = 0;
        }
    }

    fn begin(&mut self, at: usize) {
        if self.letters == 0 {
            self.start = self.offset + at as u64;
            self.glue = if self.after_digit { Glue::Digit } else { Glue::Free };
            self.label = std::mem::take(&mut self.number);
            self.key = 0;
            self.wide.clear();
        }
        self.after_digit = false;
    }

    fn letter(&mut self, lower: u8, at: usize) {
        self.begin(at);
        if !self.wide.is_empty() && self.wide.len() < WORD_BYTES {
            self.wide.push(char::from(lower));
        }
        self.key = (self.key << 8) | u128::from(lower);
        self.letters += 1;
    }

    fn wide_letter(&mut self, letter: char, at: usize, found: &mut Vec<Phrase>) {
        let here = self.offset + at as u64;
        if ('\u{3400}'..='\u{9fff}').contains(&letter) {
            if self.letters > 0 {
                self.end_word(here, found);
            }
            self.ideograph(letter, here, found);
        } else if letter.is_alphabetic() || (self.letters > 0 && is_combining_mark(letter)) {
            self.begin(at);
            if self.wide.is_empty() {
                // Spell out what was packed so far; more letters of ASCII than any word has are no word's beginning.
                for place in (0..self.letters.min(lists::LONGEST)).rev() {
                    self.wide.push(char::from((self.key >> (8 * place)) as u8));
                }
            }
            if self.wide.len() < WORD_BYTES {
                self.wide.push(letter);
            }
            self.letters += 1;
        } else {
            if self.letters > 0 {
                self.end_word(here, found);
            }
            self.after_digit = false;
        }
    }

    /// A Chinese character is a word of its own, when nothing of its kind touches it.
    fn ideograph(&mut self, letter: char, here: u64, found: &mut Vec<Phrase>) {
        let end = here + letter.len_utf8() as u64;
        let glued = self.ideograph_end == here;
        if glued && self.is_idle() {
            (self.ideograph_end, self.after_digit) = (end, false);
            return;
        }
        let entries = if glued { &[] } else { lists::wide(letter.encode_utf8(&mut [0; 4])) };
        for reading in &mut self.readings {
            if glued {
                reading.clear(reading.active, true, found);
            }
            reading.push(entries, here, end, found);
        }
        self.ideograph_end = end;
        self.after_digit = false;
    }

    fn end_word(&mut self, end: u64, found: &mut Vec<Phrase>) {
        let entries = match self.letters {
            _ if !self.wide.is_empty() => lists::wide(&self.wide),
            3..lists::LONGEST => lists::packed(self.key as u64),
            lists::LONGEST => lists::packed(lists::nine((self.key >> 64) as u8, self.key as u64)),
            _ => &[],
        };
        let before = found.len();
        // `Word #7: lottery` has its number behind a word that is one of the list.
        let names = self.names();
        self.readings.iter_mut().for_each(|reading| reading.label = self.label);
        self.readings[0].push(entries, self.start, end, found);
        if self.glue == Glue::Free && !names {
            let all = found.len();
            self.readings[1].push(entries, self.start, end, found);
            // Both readings saw it: once is enough.
            if all > before {
                found.truncate(all);
            }
        }
        self.letters = 0;
        self.wide.clear();
    }

    /// Is the word that was read one that names what a number counts? It stands before each word, so it was there a few words
    /// before, unless it is the first.
    fn names(&mut self) -> bool {
        if self.is_idle() {
            (self.count, self.named) = (0, [0; LABELS.len()]);
        }
        self.count = self.count.saturating_add(1);
        let is_it = |label: &[u8]| self.wide.is_empty() && self.key == u128::from(lists::number(label));
        let Some(place) = LABELS.iter().position(|label| is_it(label)) else { return false };
        let before = std::mem::replace(&mut self.named[place], self.count);
        self.readings[1].active == 0 || before > 0 && self.count - before <= 3
    }
}

#[cfg(test)]
mod tests;
