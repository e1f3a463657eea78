//! The words behind the concepts, language by language, and the tables that find them. Made from
//! `rules/injection/lexicon/*.yaml`, for the files that ship by the build script; used by the gate (is there any anchor at all?) and by the scorer (which concepts are
//! in this window?). Promises to refuse a file that names an unknown concept or a rule that could never be woken.

use std::collections::{BTreeMap, HashMap};

use super::anchors::Anchors;
use super::folded::FoldedGate;
use super::gate::AsciiGate;
use super::packed::{self, OPEN_LEFT, OPEN_RIGHT};
use super::plan::{self, Sense};
use super::rule::{ConceptId, ConceptRule, ConceptSet, RawRules};
use super::tables::{Bytes, Table, Unread};
use super::trie::Vocabulary;

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

/// All words, all rules and the gates.
#[derive(Debug)]
pub(crate) struct Lexicon {
    pub(crate) rules: Vec<ConceptRule>,
    pub(crate) names: Vec<String>,
    /// The languages whose verbs follow their objects, one bit each.
    pub(crate) verb_final: u64,
    words: Words,
    /// What wakes the scorer.
    pub(crate) anchors: Anchors,
    /// Where they stand in text that is all ASCII, …
    pub(crate) ascii_gate: AsciiGate,
    /// … and in folded text.
    pub(crate) folded_gate: FoldedGate,
}

/// The words, with what they stand for.
#[derive(Debug)]
struct Words {
    vocabulary: Vocabulary,
    /// The first sense of each list of them.
    starts: Table<u32>,
    senses: Table<Sense>,
}

impl Words {
    /// What [`packed`] wrote.
    fn read(from: &mut Unread) -> Option<Self> {
        Some(Self { vocabulary: Vocabulary::read(from)?, starts: from.table()?, senses: from.table()? })
    }
}

/// What the build script made of the shipped files: the rules, and the words.
const RULES: &str = include_str!(concat!(env!("OUT_DIR"), "/concepts.json"));
const WORDS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lexicon.bin"));

impl Lexicon {
    /// Loads the rules and the language files, each a (name, content) pair.
    pub(crate) fn load(rules: (&str, &str), languages: &[(&str, &str)]) -> Result<Self, LexiconError> {
        let raw: RawRules =
            serde_yaml::from_str(rules.1).map_err(|source| LexiconError::Yaml { file: rules.0.to_owned(), source })?;
        let refuse = |file: &str, what: String| LexiconError::Rule { file: file.to_owned(), what };
        let names: Vec<String> = raw.concepts.keys().cloned().collect();
        if names.len() > ConceptSet::BITS as usize || languages.len() > 63 {
            return Err(refuse(rules.0, "more concepts or languages than a set has bits; merge some".to_owned()));
        }
        let plan = plan::plan(&names, anchors(&raw), languages).map_err(|(file, what)| refuse(&file, what))?;
        let packed = packed::pack(&plan).map_err(|what| refuse(rules.0, what))?;
        Self::of(rules.0, raw, packed.into())
    }

    /// The lexicon that ships.
    pub(crate) fn builtin() -> Result<Self, LexiconError> {
        let file = "the shipped lexicon";
        let rules = serde_json::from_str(RULES)
            .map_err(|error| LexiconError::Rule { file: file.to_owned(), what: error.to_string() })?;
        Self::of(file, rules, WORDS.into())
    }

    fn of(file: &str, raw: RawRules, words: Bytes) -> Result<Self, LexiconError> {
        let refuse = |what: String| LexiconError::Rule { file: file.to_owned(), what };
        let names: Vec<String> = raw.concepts.keys().cloned().collect();
        let ids: HashMap<&str, ConceptId> = names.iter().zip(0..).map(|(name, id)| (name.as_str(), id)).collect();
        let anchors = anchors(&raw);
        let mut compiled = Vec::with_capacity(raw.rules.len());
        for rule in raw.rules {
            let id = rule.id.clone();
            compiled.push(compile(rule, &ids, anchors).map_err(|what| refuse(format!("rule {id}: {what}")))?);
        }
        let mut unread = Unread(words);
        let mut tables = || {
            let verb_final = unread.table::<u64>()?.get(0)?;
            let (anchors, ascii_gate) = (Anchors::read(&mut unread)?, AsciiGate::read(&mut unread)?);
            let (folded_gate, words) = (FoldedGate::read(&mut unread)?, Words::read(&mut unread)?);
            Some((verb_final, anchors, ascii_gate, folded_gate, words))
        };
        let (verb_final, anchors, ascii_gate, folded_gate, words) =
            tables().ok_or_else(|| refuse("the tables of words are broken; build pipelock anew".to_owned()))?;
        Ok(Self { rules: compiled, names, verb_final, words, anchors, ascii_gate, folded_gate })
    }

    /// Appends the words found in the folded `window`, at most `limit`, in the order of their ends.
    pub(crate) fn find(&self, window: &str, limit: usize, hits: &mut Vec<Hit>) {
        let before = hits.len();
        let Words { vocabulary, starts, senses } = &self.words;
        vocabulary.each(window, |place, word| {
            let (open_left, open_right) = (word & OPEN_LEFT != 0, word & OPEN_RIGHT != 0);
            if hits.len() >= limit || !bounded(window, place.start, place.end, open_left, open_right) {
                return;
            }
            let list = (word & !(OPEN_LEFT | OPEN_RIGHT)) as usize;
            let start = |list: usize| starts.get(list).map_or(0, |start| start as usize);
            let hit = |sense| Hit { start: place.start as u32, end: place.end as u32, sense };
            hits.extend(senses.range(start(list)..start(list + 1)).map(hit));
        });
        if let Some(found) = hits.get_mut(before..) {
            found.sort_by_key(|hit| (hit.end, hit.start));
        }
    }
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

/// The concepts that wake the scorer.
fn anchors(raw: &RawRules) -> ConceptSet {
    raw.concepts.values().zip(0..).filter(|(concept, _)| concept.anchor).fold(0, |set, (_, id)| set | 1 << id)
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
    use super::super::builtin;
    use super::*;

    #[test]
    fn what_the_build_script_made_is_what_the_files_say() {
        let shipped = Lexicon::builtin().unwrap();
        let read = Lexicon::load(builtin::RULES, builtin::LANGUAGES).unwrap();
        assert_eq!(shipped.verb_final, read.verb_final);
        assert_eq!(shipped.names, read.names);
        assert_eq!(format!("{:?}", shipped.rules), format!("{:?}", read.rules));
        let raw: RawRules = serde_yaml::from_str(builtin::RULES.1).unwrap();
        let plan = plan::plan(&read.names, anchors(&raw), builtin::LANGUAGES).unwrap();
        assert!(packed::pack(&plan).unwrap() == WORDS);
        assert!(shipped.folded_gate.is_apart(), "what noise costs depends on it");
    }
}
