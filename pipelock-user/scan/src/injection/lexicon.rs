//! The words behind the concepts, language by language, and the automata that find them. Loaded once from
//! `rules/injection/lexicon/*.yaml`; used by the gate (is there any anchor at all?) and by the scorer (which concepts are
//! in this window?). Promises to refuse a file that names an unknown concept or a rule that could never be woken.

use std::collections::{BTreeMap, HashMap};

use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous;
use aho_corasick::{Anchored, MatchKind};
use serde::Deserialize;

use super::fold::fold;
use super::gate::{Anchor, AsciiGate, FoldedGate};
use super::rule::{ConceptId, ConceptRule, ConceptSet, RawRules};

/// Why a lexicon was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LexiconError {
    /// Not YAML, or not of the shape that the format asks for.
    #[error("{file}: {source}")]
    Yaml {
        /// Name of the file.
        file: String,
        /// Where and what.
        source: serde_yaml::Error,
    },
    /// Well-formed, but it cannot work.
    #[error("{file}: {what}")]
    Rule {
        /// Name of the file.
        file: String,
        /// What is wrong and what to do.
        what: String,
    },
    /// The automaton could not be built.
    #[error("the words do not fit into one automaton: {0}")]
    Build(#[from] aho_corasick::BuildError),
}

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
    /// which the gate looks for it; `(a|b|)` stands for each of its alternatives, here two words or none. A space in front
    /// keeps letters away that would be allowed there: ` .env` is not in `process.env`.
    concepts: BTreeMap<String, Vec<String>>,
}

/// What a word stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sense {
    /// The concept.
    pub(crate) concept: ConceptId,
    /// The languages in which it does, one bit each; bit 0 is every language.
    pub(crate) languages: u64,
}

/// A word of the lexicon.
#[derive(Debug, Default)]
struct Term {
    senses: Vec<Sense>,
    /// Whether a letter may stand directly before.
    open_left: bool,
    /// Whether a letter may stand directly behind.
    open_right: bool,
}

/// A word found in a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    /// Start in the folded window.
    pub(crate) start: u32,
    /// End in the folded window.
    pub(crate) end: u32,
    /// What it stands for.
    pub(crate) sense: Sense,
}

/// All words, all rules and the automata over them.
#[derive(Debug)]
pub(crate) struct Lexicon {
    pub(crate) rules: Vec<ConceptRule>,
    pub(crate) names: Vec<String>,
    /// The languages whose verbs follow their objects, one bit each.
    pub(crate) verb_final: u64,
    terms: Vec<Term>,
    words: contiguous::NFA,
    /// Anchors in ASCII, for text that is all ASCII.
    pub(crate) ascii_gate: AsciiGate,
    /// All anchors, for folded text.
    pub(crate) folded_gate: FoldedGate,
}

impl Lexicon {
    /// Loads the rules and the language files, each a (name, content) pair.
    pub(crate) fn load(rules: (&str, &str), languages: &[(&str, &str)]) -> Result<Self, LexiconError> {
        let raw: RawRules =
            serde_yaml::from_str(rules.1).map_err(|source| LexiconError::Yaml { file: rules.0.to_owned(), source })?;
        let names: Vec<String> = raw.concepts.keys().cloned().collect();
        let refuse = |file: &str, what: String| LexiconError::Rule { file: file.to_owned(), what };
        if names.len() > ConceptSet::BITS as usize || languages.len() > 63 {
            return Err(refuse(rules.0, "more concepts or languages than a set has bits; merge some".to_owned()));
        }
        let ids: HashMap<&str, ConceptId> = names.iter().zip(0..).map(|(name, id)| (name.as_str(), id)).collect();
        let anchors =
            raw.concepts.values().zip(0..).filter(|(c, _)| c.anchor).fold(0, |set, (_, id)| set | 1u128 << id);

        let mut compiled = Vec::with_capacity(raw.rules.len());
        for rule in raw.rules {
            let id = rule.id.clone();
            compiled.push(compile(rule, &ids, anchors).map_err(|what| refuse(rules.0, format!("rule {id}: {what}")))?);
        }

        let mut index: BTreeMap<String, Term> = BTreeMap::new();
        let mut verb_final = 0;
        let mut gates: BTreeMap<String, Anchor> = BTreeMap::new();
        for (number, &(file, content)) in (1u32..).zip(languages) {
            let language: RawLanguage =
                serde_yaml::from_str(content).map_err(|source| LexiconError::Yaml { file: file.to_owned(), source })?;
            let bit = if language.language == "any" { 1 } else { 1u64 << number };
            if language.verb_final {
                verb_final |= bit;
            }
            for (concept, words) in &language.concepts {
                let Some(&concept_id) = ids.get(concept.as_str()) else {
                    return Err(refuse(file, format!("unknown concept {concept}; declare it in {}", rules.0)));
                };
                for (entry, written) in
                    words.iter().flat_map(|entry| alternatives(entry).into_iter().map(move |one| (entry, one)))
                {
                    let marked = fold(&written);
                    let folded = marked.replace('^', "");
                    let word = folded.trim_end_matches('*').trim();
                    if word.is_empty() {
                        return Err(refuse(file, format!("{concept}: an empty word")));
                    }
                    let open_left = !entry.starts_with(' ') && !needs_boundary(word.chars().next());
                    let open_right = folded.ends_with('*') || !needs_boundary(word.chars().next_back());
                    let is_anchor = anchors >> concept_id & 1 == 1;
                    if is_anchor {
                        let entry = gates.entry(word.to_owned()).or_default();
                        entry.text = word.to_owned();
                        entry.mark = marked.find('^').unwrap_or_else(|| longest_word(word));
                        entry.open_left = open_left;
                        entry.open_right |= open_right;
                        // Few people leave the accents of short words away, and the rest would be words of English.
                        entry.plain |= written.is_ascii() || entry.word().len() >= 5;
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
        let words = contiguous::NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(index.keys())?;
        let gates: Vec<Anchor> = gates.into_values().collect();
        let ascii_gate = AsciiGate::new(&gates).map_err(|word| {
            refuse(
                rules.0,
                format!("the anchor {word} is shorter than three letters, which would wake the scorer all the time"),
            )
        })?;
        let folded_gate = FoldedGate::new(gates)?;
        Ok(Self {
            rules: compiled,
            names,
            verb_final,
            terms: index.into_values().collect(),
            words,
            ascii_gate,
            folded_gate,
        })
    }

    /// Appends the words found in the folded `window`, at most `limit`, in the order of their ends.
    pub(crate) fn find(&self, window: &str, limit: usize, hits: &mut Vec<Hit>) {
        let Ok(mut state) = self.words.start_state(Anchored::No) else { return };
        for (at, &byte) in window.as_bytes().iter().enumerate() {
            state = self.words.next_state(Anchored::No, state, byte);
            if !(self.words.is_special(state) && self.words.is_match(state)) {
                continue;
            }
            for index in 0..self.words.match_len(state) {
                let pattern = self.words.match_pattern(state, index);
                let Some(term) = self.terms.get(pattern.as_usize()) else { continue };
                let (start, end) = (at + 1 - self.words.pattern_len(pattern), at + 1);
                if bounded(window, start, end, term.open_left, term.open_right) {
                    let place = |&sense| Hit { start: start as u32, end: end as u32, sense };
                    hits.extend(term.senses.iter().map(place));
                }
            }
            if hits.len() >= limit {
                return;
            }
        }
    }
}

/// The phrases that `entry` stands for: each `(a|b)` in it is one of its alternatives, which may be empty. Parentheses do
/// not nest; one that is not closed stands for itself.
fn alternatives(entry: &str) -> Vec<String> {
    let split = entry.split_once('(').and_then(|(before, rest)| Some((before, rest.split_once(')')?)));
    let Some((before, (choices, behind))) = split else {
        return vec![entry.split_whitespace().collect::<Vec<_>>().join(" ")];
    };
    choices.split('|').flat_map(|choice| alternatives(&format!("{before}{choice}{behind}"))).collect()
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
pub(super) fn needs_boundary(c: Option<char>) -> bool {
    c.is_some_and(|c| {
        c.is_alphanumeric()
            && !matches!(c, '\u{590}'..='\u{8FF}' | '\u{E00}'..='\u{EFF}' | '\u{1000}'..='\u{109F}'
                | '\u{1100}'..='\u{11FF}' | '\u{1780}'..='\u{17FF}' | '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}'
                | '\u{AC00}'..='\u{D7FF}' | '\u{20000}'..='\u{3FFFF}')
    })
}

/// Whether the place `start..end` of `text` has the boundaries that the word asks for.
pub(super) fn bounded(text: &str, start: usize, end: usize, open_left: bool, open_right: bool) -> bool {
    // An underscore joins the words of an identifier, so it counts as a letter.
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let bytes = text.as_bytes();
    let before = || match start.checked_sub(1).and_then(|at| bytes.get(at)) {
        Some(&byte) if byte < 0x80 => byte.is_ascii_alphanumeric() || byte == b'_',
        Some(_) => letter(text.get(..start).and_then(|text| text.chars().next_back())),
        None => false,
    };
    let behind = || match bytes.get(end) {
        Some(&byte) if byte < 0x80 => byte.is_ascii_alphanumeric() || byte == b'_',
        Some(_) => letter(text.get(end..).and_then(|text| text.chars().next())),
        None => false,
    };
    (open_left || !before()) && (open_right || !behind())
}

fn compile(
    raw: super::rule::RawRule,
    ids: &HashMap<&str, ConceptId>,
    anchors: ConceptSet,
) -> Result<ConceptRule, String> {
    let id = |name: &str| ids.get(name).copied().ok_or_else(|| format!("unknown concept {name}"));
    let mut groups = Vec::new();
    let mut own_anchors = 0;
    for group in &raw.all {
        let set = group.iter().try_fold(0u128, |set, name| Ok::<_, String>(set | 1 << id(name)?))?;
        if set == 0 {
            return Err("an empty group can never be met".to_owned());
        }
        if set & !anchors == 0 {
            own_anchors |= set;
        }
        groups.push(set);
    }
    if own_anchors == 0 {
        return Err("no group consists of anchors only, so nothing would ever wake this rule".to_owned());
    }
    if groups.len() > 5 || raw.examples.is_empty() || raw.counter_examples.is_empty() {
        return Err("needs one to five groups, examples and counter-examples".to_owned());
    }
    let weights = |map: &BTreeMap<String, i32>| -> Result<Vec<(ConceptId, i32)>, String> {
        map.iter().map(|(name, &points)| Ok((id(name)?, points))).collect()
    };
    Ok(ConceptRule {
        groups,
        order: raw.order,
        within: raw.within,
        reach: raw.reach,
        base: raw.base,
        raise: weights(&raw.raise)?,
        lower: weights(&raw.lower)?,
        anchors: own_anchors,
        id: raw.id,
        name: raw.name,
        class: raw.class,
        severity: raw.severity,
        confidence: raw.confidence,
        attack: raw.attack,
        atlas: raw.atlas,
        examples: raw.examples,
        counter_examples: raw.counter_examples,
    })
}

#[cfg(test)]
mod tests {
    use super::alternatives;

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
