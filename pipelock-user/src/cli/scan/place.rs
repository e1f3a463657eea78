//! Lines and columns of findings in a text that comes in pieces, and the comments that say a line is to be ignored. Called by
//! whoever reads a text for the verb.
//!
//! Promises: memory does not grow with the text but with what may still be found in it, at most [`MOST`] bytes.

use std::collections::HashMap;

use memchr::memmem;

/// A line with it is passed over, for the rules named behind it or for all.
const MARK: &[u8] = b"pipelock:ignore";
/// Bytes behind the mark that are read.
const WORDS: usize = 256;
/// Bytes that are kept before what may still be found, so that no mark is cut.
const MARGIN: usize = 512;
/// Most bytes that are kept at all.
const MOST: usize = 8 << 20;
/// Most lines with a mark that are remembered.
const MARKS: usize = 100_000;

/// Line and column, both from 1; `column` counts bytes, `character` what begins a character of UTF-8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) character: usize,
}

impl Place {
    /// Where every text begins.
    pub(super) const FIRST: Self = Self { line: 1, column: 1, character: 1 };
}

fn characters(text: &[u8]) -> usize {
    text.iter().filter(|byte| !(0x80..0xc0).contains(*byte)).count()
}

/// The places of a text.
#[derive(Debug)]
pub(super) struct Places {
    /// The text from `base` on, as far as it came.
    kept: Vec<u8>,
    base: u64,
    /// The line `base` lies in, and where that starts.
    line: usize,
    start: u64,
    /// Characters of that line before `base`.
    before: usize,
    places: HashMap<u64, Place>,
    /// By line, what stands behind the mark.
    marks: HashMap<usize, String>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self { kept: Vec::new(), base: 0, line: 1, start: 0, before: 0, places: HashMap::new(), marks: HashMap::new() }
    }

    /// Takes the next piece of the text.
    pub(super) fn push(&mut self, piece: &[u8]) {
        self.kept.extend_from_slice(piece);
    }

    /// Notes the place of the byte at `at`, which must be kept still.
    pub(super) fn note(&mut self, at: u64) {
        let before = usize::try_from(at.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.kept.len());
        let text = &self.kept[..before];
        let (start, character) = match memchr::memrchr(b'\n', text) {
            Some(end) => (self.base + end as u64 + 1, characters(&text[end + 1..])),
            None => (self.start, self.before + characters(text)),
        };
        let line = self.line + memchr::memchr_iter(b'\n', text).count();
        let column = usize::try_from(at.saturating_sub(start)).unwrap_or(usize::MAX).saturating_add(1);
        self.places.insert(at, Place { line, column, character: character + 1 });
    }

    /// Nothing before `released` will be asked for.
    pub(super) fn release(&mut self, released: u64) {
        let end = self.base + self.kept.len() as u64;
        let least = end.saturating_sub(MOST as u64);
        self.drop_to(released.saturating_sub(MARGIN as u64).max(least));
    }

    /// The text is over.
    pub(super) fn end(&mut self) {
        self.drop_to(self.base + self.kept.len() as u64);
    }

    fn drop_to(&mut self, to: u64) {
        let count = usize::try_from(to.saturating_sub(self.base)).unwrap_or(usize::MAX).min(self.kept.len());
        if count == 0 {
            return;
        }
        // From one mark to the next, since there may be one in every line.
        let (mut line, mut from) = (self.line, 0);
        for at in memmem::find_iter(&self.kept, MARK).take_while(|at| *at < count) {
            line += memchr::memchr_iter(b'\n', &self.kept[from..at]).count();
            from = at;
            let behind = &self.kept[at + MARK.len()..];
            // `pipelock:ignored` and `pipelock:ignore-next-line` are other words.
            if behind.first().is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) {
                continue;
            }
            let words = behind[..behind.len().min(WORDS)].split(|byte| *byte == b'\n').next().unwrap_or_default();
            if self.marks.len() < MARKS {
                self.marks.entry(line).or_insert_with(|| String::from_utf8_lossy(words).into_owned());
            }
        }
        let gone = &self.kept[..count];
        self.line += memchr::memchr_iter(b'\n', gone).count();
        if let Some(end) = memchr::memrchr(b'\n', gone) {
            self.start = self.base + end as u64 + 1;
            self.before = characters(&gone[end + 1..]);
        } else {
            self.before += characters(gone);
        }
        self.base += count as u64;
        self.kept.drain(..count);
    }

    /// The place that was noted for a byte.
    pub(super) fn of(&self, at: u64) -> Option<Place> {
        self.places.get(&at).copied()
    }

    /// Does the line say that this rule is to be ignored on it? After [`end`](Self::end).
    pub(super) fn ignored(&self, line: usize, rule: &str) -> bool {
        self.marks.get(&line).is_some_and(|words| named(words, rule))
    }
}

/// Do the words behind the mark name the rule, or none?
fn named(words: &str, rule: &str) -> bool {
    let id = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let words = words.split([' ', ',', '\t', '[', ']']).map(str::trim).filter(|word| !word.is_empty());
    let mut ids = words.take_while(id).filter(|word| word.bytes().any(|byte| byte != b'-')).peekable();
    ids.peek().is_none() || ids.any(|word| word == rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_ignore_all_rules_or_those_they_name() {
        let ignored = |line: &str| {
            let mut places = Places::new();
            places.push(line.as_bytes());
            places.end();
            places.ignored(1, "a-b")
        };
        assert!(ignored("x = 1  # pipelock:ignore"));
        assert!(ignored("x = 1  <!-- pipelock:ignore -->"));
        assert!(ignored("x = 1  # pipelock:ignore c, a-b"));
        assert!(ignored("x = 1  # pipelock:ignore [a-b]\r\nnext c"));
        assert!(!ignored("x = 1  # pipelock:ignore c"));
        assert!(!ignored("x = 1\n # pipelock:ignore"));
        assert!(!ignored("x = 1  # pipelock:ignored") && !ignored("x = 1  # pipelock:ignore-next-line"));
        assert!(!ignored("x = 1  # pipelock:ignored") && ignored("# pipelock:ignored # pipelock:ignore"));
    }

    #[test]
    fn places_are_the_same_however_the_text_comes() {
        let text = format!("ab\ncd\n{}x # pipelock:ignore\n\né end", "line\n".repeat(1000)).into_bytes();
        for size in [1, 7, 600, 100_000] {
            let mut places = Places::new();
            let mut at = 0;
            for piece in text.chunks(size) {
                places.push(piece);
                at += piece.len() as u64;
                for wanted in [0, 4, 5006, text.len() as u64 - 1].into_iter().filter(|wanted| *wanted < at) {
                    if wanted >= places.base {
                        places.note(wanted);
                    }
                }
                places.release(at.saturating_sub(20));
            }
            places.end();
            let place = |line, column, character| Some(Place { line, column, character });
            assert_eq!(places.of(0), place(1, 1, 1), "{size}");
            assert_eq!(places.of(4), place(2, 2, 2));
            assert_eq!(places.of(5006), place(1003, 1, 1));
            assert_eq!(places.of(text.len() as u64 - 1), place(1005, 6, 5));
            assert_eq!(places.of(1), None);
            assert!(places.ignored(1003, "a") && !places.ignored(1002, "a"));
        }
    }
}
