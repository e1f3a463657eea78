//! Where sentences end, decided from the characters around a place and from its distance to the start of the text alone.
//! Used by the scorer for its windows and by the stream for what it may let go. Promises that cutting the text anywhere
//! changes nothing, and that no sentence is longer than [`MAX_SENTENCE`] bytes and a character.

/// A sentence is cut at every multiple of this many bytes from the start of the text, whatever it holds.
pub const MAX_SENTENCE: usize = 1024;

/// A piece of a text and where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'t> {
    /// The text of the piece.
    pub(crate) text: &'t str,
    /// Bytes of the whole text before it.
    pub(crate) base: usize,
    /// Whether the whole text ends with it.
    pub(crate) last: bool,
}

impl Piece<'_> {
    /// Whether a sentence ends at `at` (between two characters); `None` when that depends on text not yet seen.
    fn ends(&self, at: usize) -> Option<bool> {
        // Most places lie between two ASCII characters of which the first ends nothing.
        if let (Some(&before), Some(_)) =
            (at.checked_sub(1).and_then(|i| self.text.as_bytes().get(i)), self.text.as_bytes().get(at))
            && before < 0x80
            && !matches!(before, b'.' | b'!' | b'?' | b'\n')
        {
            return Some((self.base + at).is_multiple_of(MAX_SENTENCE));
        }
        let before = self.text.get(..at).and_then(|text| text.chars().next_back());
        let behind = self.text.get(at..).and_then(|text| text.chars().next());
        let Some(before) = before else { return Some(self.base == 0) };
        // The first place between characters at or behind each multiple.
        let position = self.base + at;
        if position / MAX_SENTENCE != (position - before.len_utf8()) / MAX_SENTENCE {
            return Some(true);
        }
        match before {
            '。' | '！' | '？' | '；' | '।' | '॥' | '۔' | '؟' | '…' | '։' | '።' => Some(true),
            '.' | '!' | '?' => self.known(behind).map(|behind| {
                behind.is_none_or(|c| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '”' | '»' | ')' | ']'))
            }),
            '\n' if matches!(behind, Some('#' | '>')) => self.goes_on(at).map(|goes_on| !goes_on),
            '\n' => self
                .known(behind)
                .map(|behind| behind.is_none_or(|c| matches!(c, '\n' | '\r' | '-' | '*' | '|' | '+' | '`'))),
            _ if behind.is_none() => self.known(behind).map(|_| true),
            _ => Some(false),
        }
    }

    /// Whether the line that begins at `at` with the mark of a comment or a quotation goes on with a small letter, as a
    /// sentence does that its writer broke there.
    fn goes_on(&self, at: usize) -> Option<bool> {
        let mut behind = self.text.get(at + 1..)?.chars();
        let position = self.base + at;
        // A sentence that is cut there anyway must not wait for what comes behind the cut.
        if position / MAX_SENTENCE != (position + 3) / MAX_SENTENCE || self.known(behind.next())? != Some(' ') {
            return Some(false);
        }
        self.known(behind.next()).map(|letter| letter.is_some_and(char::is_lowercase))
    }

    /// `behind`, unless it is not there only because the text has not arrived yet.
    fn known(&self, behind: Option<char>) -> Option<Option<char>> {
        if behind.is_none() && !self.last { None } else { Some(behind) }
    }

    /// The start of the sentence that holds the byte at `at`; 0 when it began before the piece.
    pub(crate) fn start_of(&self, at: usize) -> usize {
        let mut at = floor(self.text, at);
        while at > 0 && self.ends(at) != Some(true) {
            at = floor(self.text, at - 1);
        }
        at
    }

    /// The end of the sentence that begins at `start`; `None` when it has not arrived yet.
    pub(crate) fn end_of(&self, start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            at += self.text.get(at..)?.chars().next()?.len_utf8();
            match self.ends(at) {
                Some(true) => return Some(at),
                Some(false) => {}
                None => return None,
            }
        }
    }

    /// The largest place, at most `at`, at which a sentence certainly ends; `None` when there is none in the piece.
    pub(crate) fn boundary_before(&self, at: usize) -> Option<usize> {
        let mut at = floor(self.text, at);
        loop {
            if self.ends(at) == Some(true) {
                return Some(at);
            }
            if at == 0 {
                return None;
            }
            at = floor(self.text, at - 1);
        }
    }
}

/// The largest place between characters that is not behind `at`.
pub(crate) fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_SENTENCE, Piece};

    fn sentences(text: &str) -> Vec<&str> {
        let piece = Piece { text, base: 0, last: true };
        let (mut found, mut at) = (Vec::new(), 0);
        while let Some(end) = piece.end_of(at) {
            found.push(&text[at..end]);
            at = end;
        }
        found
    }

    #[test]
    fn terminators() {
        assert_eq!(sentences("One 1.5. Two!? Three"), ["One 1.5.", " Two!?", " Three"]);
        assert_eq!(sentences("一。二！三"), ["一。", "二！", "三"]);
        assert_eq!(sentences("wrapped\nline\n\n- item"), ["wrapped\nline\n", "\n", "- item"]);
        assert_eq!(sentences("# wrapped\n# line\n# Next"), ["# wrapped\n# line\n", "# Next"]);
    }

    proptest! {
        #[test]
        fn bounded_and_complete(text in "[a-z .é。\\n#>]{0,4000}") {
            let found = sentences(&text);
            prop_assert_eq!(found.concat(), text.as_str());
            prop_assert!(found.iter().all(|s| s.len() <= MAX_SENTENCE + 4));
        }

        #[test]
        fn a_cut_changes_nothing(text in "([a-z .!é。\\n#>]|\\n# ){1,2000}", cut in 0usize..2600, at in 0usize..2600) {
            let whole = Piece { text: &text, base: 0, last: true };
            let cut = super::floor(&text, cut);
            let first = Piece { text: &text[..cut], base: 0, last: false };
            let at = super::floor(&text, at);
            if at <= cut && let Some(ends) = first.ends(at) {
                prop_assert_eq!(Some(ends), whole.ends(at));
            }
            let second = Piece { text: &text[cut..], base: cut, last: true };
            if at > cut {
                prop_assert_eq!(second.ends(at - cut), whole.ends(at));
            }
        }
    }
}
