//! The words behind the concepts, language by language, and the automata that find them. Loaded once from
//! `rules/injection/lexicon/*.yaml`; used by the gate (is there any anchor at all?) and by the scorer (which concepts are
//! in this window?). Promises to refuse a file that names an unknown concept or a rule that could never be woken.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous;
use aho_corasick::{Anchored, MatchKind};
use serde::Deserialize;

use super::folded::FoldedGate;
use super::gate::AsciiGate;
use super::plan::{self, Anchor, Sense, Term};
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
    /// The words: made when an anchor is first found, which most texts do not hold.
    words: OnceLock<Option<Words>>,
    /// Anchors in ASCII, for text that is all ASCII.
    pub(crate) ascii_gate: AsciiGate,
    /// All anchors, for folded text: made for the first text that is not.
    folded_gate: OnceLock<Option<FoldedGate>>,
    anchors: Vec<Anchor>,
}

/// The words and the automaton that finds them.
#[derive(Debug)]
struct Words {
    terms: Vec<Term>,
    automaton: contiguous::NFA,
}

impl Words {
    fn new(terms: BTreeMap<String, Term>) -> Result<Self, aho_corasick::BuildError> {
        let mut builder = contiguous::NFA::builder();
        let automaton = builder.match_kind(MatchKind::Standard).prefilter(false).build(terms.keys())?;
        Ok(Self { terms: terms.into_values().collect(), automaton })
    }
}

/// What the build script made of the shipped files, without the words.
#[derive(Deserialize)]
struct Shipped {
    rules: RawRules,
    verb_final: u64,
    anchors: Vec<Anchor>,
}

const SHIPPED: &str = include_str!(concat!(env!("OUT_DIR"), "/lexicon.json"));
const WORDS: &str = include_str!(concat!(env!("OUT_DIR"), "/words.json"));

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
        let words = Words::new(plan.terms)?;
        let lexicon = Self::of(rules.0, raw, plan.verb_final, plan.anchors)?;
        let _ = lexicon.words.set(Some(words));
        Ok(lexicon)
    }

    /// The lexicon that ships.
    pub(crate) fn builtin() -> Result<Self, LexiconError> {
        let file = "the shipped lexicon";
        let shipped: Shipped = serde_json::from_str(SHIPPED)
            .map_err(|error| LexiconError::Rule { file: file.to_owned(), what: error.to_string() })?;
        Self::of(file, shipped.rules, shipped.verb_final, shipped.anchors)
    }

    fn of(file: &str, raw: RawRules, verb_final: u64, gates: Vec<Anchor>) -> Result<Self, LexiconError> {
        let refuse = |what: String| LexiconError::Rule { file: file.to_owned(), what };
        let names: Vec<String> = raw.concepts.keys().cloned().collect();
        let ids: HashMap<&str, ConceptId> = names.iter().zip(0..).map(|(name, id)| (name.as_str(), id)).collect();
        let anchors = anchors(&raw);
        let mut compiled = Vec::with_capacity(raw.rules.len());
        for rule in raw.rules {
            let id = rule.id.clone();
            compiled.push(compile(rule, &ids, anchors).map_err(|what| refuse(format!("rule {id}: {what}")))?);
        }
        let ascii_gate = AsciiGate::new(&gates).map_err(|word| {
            refuse(format!("the anchor {word} is shorter than three letters, which would wake the scorer all the time"))
        })?;
        Ok(Self {
            rules: compiled,
            names,
            verb_final,
            words: OnceLock::new(),
            ascii_gate,
            folded_gate: OnceLock::new(),
            anchors: gates,
        })
    }

    /// The gate for folded text. `None` when the automaton would be too large, which a test of the shipped words excludes.
    pub(crate) fn folded_gate(&self) -> Option<&FoldedGate> {
        self.folded_gate.get_or_init(|| FoldedGate::new(self.anchors.clone()).ok()).as_ref()
    }

    /// The words. `None` never, as a test of the shipped words makes sure; others are set from the beginning.
    fn words(&self) -> Option<&Words> {
        let shipped = || serde_json::from_str(WORDS).ok().and_then(|terms| Words::new(terms).ok());
        self.words.get_or_init(shipped).as_ref()
    }

    /// Appends the words found in the folded `window`, at most `limit`, in the order of their ends.
    pub(crate) fn find(&self, window: &str, limit: usize, hits: &mut Vec<Hit>) {
        let Some(Words { terms, automaton }) = self.words() else { return };
        let Ok(mut state) = automaton.start_state(Anchored::No) else { return };
        for (at, &byte) in window.as_bytes().iter().enumerate() {
            state = automaton.next_state(Anchored::No, state, byte);
            if !(automaton.is_special(state) && automaton.is_match(state)) {
                continue;
            }
            for index in 0..automaton.match_len(state) {
                let pattern = automaton.match_pattern(state, index);
                let Some(term) = terms.get(pattern.as_usize()) else { continue };
                let (start, end) = (at + 1 - automaton.pattern_len(pattern), at + 1);
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
        assert_eq!(shipped.anchors, read.anchors);
        assert_eq!(shipped.verb_final, read.verb_final);
        assert_eq!(shipped.names, read.names);
        assert_eq!(format!("{:?}", shipped.rules), format!("{:?}", read.rules));
        assert_eq!(shipped.words().unwrap().terms, read.words().unwrap().terms);
        assert!(shipped.folded_gate().is_some_and(|gate| gate.is_apart()), "what noise costs depends on it");
    }
}
