//! The language files as the lexicon uses them: words folded, joined over all languages, with what they stand for. Made by the
//! build script for the files that ship, so that starting does not read YAML, and by [`super::lexicon`] for others.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::around::Around;
use super::fold::fold;

/// One language file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLanguage {
    /// BCP 47 tag, or `any` for words that belong to every language.
    language: String,
    /// Whether the verb follows its object, as in Japanese, Hindi and Turkish.
    #[serde(default)]
    verb_final: bool,
    /// Concept → words. `word*` is a stem, everything else is matched whole; `^` marks the word of an anchor phrase by
    /// which the gate looks for it; `(a|b|)` stands for each of its alternatives, here two words or none; `word~` stands
    /// for itself and for what a slip of the finger makes of it: a letter left out, two swapped. A space in front
    /// keeps letters away that would be allowed there: ` .env` is not in `process.env`.
    concepts: BTreeMap<String, Vec<String>>,
}

/// What a word stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sense {
    /// The concept.
    pub(crate) concept: u8,
    /// The languages in which it does, one bit each; bit 0 is every language.
    pub(crate) languages: u64,
}

/// A word of the lexicon.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Term {
    /// What it stands for.
    pub(crate) senses: Vec<Sense>,
    /// Whether a letter may stand directly before.
    pub(crate) open_left: bool,
    /// Whether a letter may stand directly behind.
    pub(crate) open_right: bool,
}

/// An anchor: a word or a phrase.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Anchor {
    /// Folded, with single spaces.
    pub(crate) text: String,
    /// Where in `text` the word begins by which it is looked for: the rarest one.
    pub(crate) mark: usize,
    /// Whether a letter may stand directly before.
    pub(crate) open_left: bool,
    /// Whether a letter may stand directly behind.
    pub(crate) open_right: bool,
    /// Whether texts in plain ASCII use it.
    pub(crate) plain: bool,
}

impl Anchor {
    /// From the marked word on.
    pub(crate) fn marked(&self) -> &[u8] {
        self.text.as_bytes().get(self.mark..).unwrap_or_default()
    }

    /// What stands before the marked word, and behind the first `skip` bytes of it.
    pub(crate) fn around(&self, skip: usize) -> Around {
        let before = self.text.as_bytes().get(..self.mark).unwrap_or_default();
        Around::of(before, self.marked().get(skip..).unwrap_or_default())
    }

    /// The marked word alone.
    pub(crate) fn word(&self) -> &str {
        self.text.get(self.mark..).and_then(|text| text.split(' ').next()).unwrap_or_default()
    }
}

/// What the gates and the automaton are made of.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// The languages whose verbs follow their objects, one bit each.
    pub(crate) verb_final: u64,
    /// The words, folded, in order.
    pub(crate) terms: BTreeMap<String, Term>,
    /// Those that wake the scorer.
    pub(crate) anchors: Vec<Anchor>,
}

/// A file and what is wrong with it.
pub(crate) type Refused = (String, String);

/// Reads the language files, each a (name, content) pair; `names` are the concepts, and those in the set `anchors` wake the
/// scorer.
pub(crate) fn plan(names: &[String], anchors: u128, languages: &[(&str, &str)]) -> Result<Plan, Refused> {
    let refuse = |file: &str, what: String| (file.to_owned(), what);
    let mut index: BTreeMap<String, Term> = BTreeMap::new();
    let mut verb_final = 0;
    let mut gates: BTreeMap<String, Anchor> = BTreeMap::new();
    for (number, &(file, content)) in (1u32..).zip(languages) {
        let language: RawLanguage = serde_yaml::from_str(content).map_err(|error| refuse(file, error.to_string()))?;
        let bit = if language.language == "any" { 1 } else { 1u64 << number };
        if language.verb_final {
            verb_final |= bit;
        }
        for (concept, words) in &language.concepts {
            let place = names.iter().position(|name| name == concept);
            let Some(concept_id) = place.and_then(|place| u8::try_from(place).ok()) else {
                return Err(refuse(file, format!("unknown concept {concept}; declare it among the concepts")));
            };
            for (entry, written) in
                words.iter().flat_map(|entry| alternatives(entry).into_iter().map(move |one| (entry, one)))
            {
                let whole = written.trim_end_matches('*');
                let marked = fold(whole);
                let folded = marked.replace('^', "");
                let word = folded.trim();
                if word.is_empty() {
                    return Err(refuse(file, format!("{concept}: an empty word")));
                }
                let open_left = !entry.starts_with(' ') && !needs_boundary(word.chars().next());
                let open_right = whole.len() < written.len() || !needs_boundary(word.chars().next_back());
                let is_anchor = anchors >> concept_id & 1 == 1;
                if is_anchor {
                    let anchor = gates.entry(word.to_owned()).or_default();
                    anchor.text = word.to_owned();
                    anchor.mark = marked_word(&marked, word).unwrap_or_else(|| longest_word(word));
                    anchor.open_left = open_left;
                    anchor.open_right |= open_right;
                    // Few people leave the accents of short words away, and the rest would be words of English.
                    anchor.plain |= written.is_ascii() || anchor.word().len() >= 5;
                }
                let term = index.entry(word.to_owned()).or_default();
                term.open_left = open_left;
                term.open_right |= open_right;
                match term.senses.iter_mut().find(|sense| sense.concept == concept_id) {
                    Some(sense) => sense.languages |= bit,
                    None => term.senses.push(Sense { concept: concept_id, languages: bit }),
                }
            }
        }
    }

    Ok(Plan { verb_final, terms: index, anchors: gates.into_values().collect() })
}

/// The phrases that `entry` stands for: each `(a|b)` in it is one of its alternatives, which may be empty. Parentheses do
/// not nest; one that is not closed stands for itself.
fn alternatives(entry: &str) -> Vec<String> {
    if let Some(word) = entry.strip_suffix('~') {
        return slips(word);
    }
    let split = entry.split_once('(').and_then(|(before, rest)| Some((before, rest.split_once(')')?)));
    let Some((before, (choices, behind))) = split else {
        return vec![entry.split_whitespace().collect::<Vec<_>>().join(" ")];
    };
    choices.split('|').flat_map(|choice| alternatives(&format!("{before}{choice}{behind}"))).collect()
}

/// The word, and what it is with a letter left out, written twice, or in the place of its neighbour; never the first letter, by which
/// readers know it.
fn slips(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let mut all = vec![word.to_owned()];
    for at in 1..letters.len() {
        let (before, here) = letters.split_at(at);
        let of = |parts: [&[char]; 3]| parts.concat().into_iter().collect::<String>();
        all.push(of([before, &here[1..], &[]]));
        all.push(of([before, &here[..1], here]));
        if let [one, other, rest @ ..] = here {
            all.push(of([before, &[*other, *one], rest]));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Where the word of `phrase` begins that is marked in `marked`, unless it is too short to be looked for: nothing behind the
/// mark would be found at every place of every text, one letter at most of them.
fn marked_word(marked: &str, phrase: &str) -> Option<usize> {
    let at = marked.find('^')?;
    let word = phrase.get(at..)?.split(' ').next()?;
    (word.len() >= 3).then_some(at)
}

/// Where the longest word of a phrase begins: most likely the rarest one.
fn longest_word(phrase: &str) -> usize {
    let (mut best, mut at) = ((0, 0), 0);
    for word in phrase.split(' ') {
        best = best.max((word.chars().count(), at));
        at += word.len() + 1;
    }
    best.1
}

/// Whether a word that begins or ends with `c` has to stand alone there. Scripts without spaces, and those that glue
/// particles to words (Hangul, Arabic, Hebrew), do not need it.
fn needs_boundary(c: Option<char>) -> bool {
    c.is_some_and(|c| {
        c.is_alphanumeric()
            && !matches!(c, '\u{590}'..='\u{8FF}' | '\u{E00}'..='\u{EFF}' | '\u{1000}'..='\u{109F}'
                | '\u{1100}'..='\u{11FF}' | '\u{1780}'..='\u{17FF}' | '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}'
                | '\u{AC00}'..='\u{D7FF}' | '\u{20000}'..='\u{3FFFF}')
    })
}

#[cfg(test)]
mod tests {
    use super::{alternatives, marked_word, slips};

    #[test]
    fn slips_of_the_finger_are_one_letter_away() {
        let all = slips("ignore");
        for word in ["ignore", "ingore", "ignroe", "ignoe", "ignoore", "ignor"] {
            assert!(all.iter().any(|slip| slip == word), "{word}");
        }
        assert!(all.iter().all(|slip| slip.starts_with('i')) && all.len() < 20, "{all:?}");
    }

    #[test]
    fn a_mark_without_a_word_is_none() {
        assert_eq!(marked_word("do not ^tell", "do not tell"), Some(7));
        assert_eq!(marked_word("without ^", "without"), None);
        assert_eq!(marked_word("show it ^to a", "show it to a"), None);
    }

    #[test]
    fn alternatives_multiply() {
        assert_eq!(
            alternatives("your (own |)^(rules|orders)"),
            ["your own ^rules", "your own ^orders", "your ^rules", "your ^orders"]
        );
        assert_eq!(alternatives("$("), ["$("]);
        assert_eq!(alternatives("a (b|) c"), ["a b c", "a c"]);
    }
}
