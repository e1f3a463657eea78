//! Phrases whose words have nothing between them: `LegalWinnerThank…`. Called by [`crate::stream`] for runs of letters.
//!
//! Promises: bounded work for any run; a run that is no row of words of one list is given up within a few letters.

use super::lists::{self, LANGUAGES, LONGEST};
use super::run::{LENGTHS, checksum, likely};
use super::{Language, Phrase};

/// Letters of the shortest phrase.
const SHORTEST: usize = 3 * LENGTHS[LENGTHS.len() - 1];
/// Words that are tried for one run, right or wrong.
const TRIES: usize = 4096;

/// The phrase that the letters of `run` are, whatever their case, between other characters of it.
pub(crate) fn glued(run: &[u8]) -> Option<Phrase> {
    let mut at = 0;
    for part in run.split(|byte| !byte.is_ascii_alphabetic()) {
        let start = at;
        at += part.len() + 1;
        if (SHORTEST..=LENGTHS[0] * LONGEST).contains(&part.len()) {
            let letters = part.to_ascii_lowercase();
            let mut search = Search { letters: &letters, words: Vec::new(), tries: TRIES };
            if let Some(language) = search.from(0, (1 << LANGUAGES.len()) - 1) {
                let (start, end) = (start as u64, (start + part.len()) as u64);
                return Some(Phrase { language, words: search.words.len(), start, end });
            }
        }
    }
    None
}

struct Search<'a> {
    letters: &'a [u8],
    /// Key of each word so far.
    words: Vec<u64>,
    tries: usize,
}

impl Search<'_> {
    /// Reads the letters from `at` on as words of one of `languages`.
    fn from(&mut self, at: usize, languages: u16) -> Option<Language> {
        if at == self.letters.len() {
            return self.phrase(languages);
        }
        if self.words.len() == LENGTHS[0] {
            return None;
        }
        for length in 3..=LONGEST {
            let key = lists::pack(self.letters.get(at..at + length)?)?;
            let left = lists::packed(key).iter().fold(0, |all, entry| all | 1u16 << entry.language) & languages;
            if left != 0 {
                self.tries = self.tries.checked_sub(1)?;
                self.words.push(key);
                if let Some(found) = self.from(at + length, left) {
                    return Some(found);
                }
                self.words.pop();
            }
        }
        None
    }

    fn phrase(&self, languages: u16) -> Option<Language> {
        LANGUAGES.into_iter().enumerate().find_map(|(at, language)| {
            let number = |key: &u64| {
                let entries = lists::packed(*key).iter();
                entries.filter(|entry| usize::from(entry.language) == at).map(|entry| entry.number).next()
            };
            let numbers: Option<Vec<u16>> = self.words.iter().map(number).collect();
            let numbers = numbers.filter(|_| languages >> at & 1 == 1)?;
            (checksum(&numbers) && likely(&numbers)).then_some(language)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_anything_between_are_a_phrase() {
        for words in [
            "legal winner thank year wave sausage worth useful legal winner thank yellow",
            "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen patrol \
             group space point ten exist slush involve unfold",
        ] {
            let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
            for text in
                [words.replace(' ', ""), words.split(' ').map(capital).collect(), words.replace(' ', "").to_uppercase()]
            {
                let found = glued(format!("seed_{text}/x").as_bytes()).unwrap();
                assert_eq!((found.words, found.start as usize), (words.split(' ').count(), 5), "{text}");
                assert_eq!(found.end as usize, 5 + text.len());
                assert_eq!(glued(format!("{text}s").as_bytes()), None);
            }
        }
        assert_eq!(glued(b"legalwinnerthankyearwavesausageworthusefullegalwinnerthankthank"), None);
    }

    #[test]
    fn letters_that_could_be_many_words_end() {
        assert_eq!(glued("act".repeat(70).as_bytes()), None);
        assert_eq!(glued("actor".repeat(40).as_bytes()), None);
    }
}
