//! The rules of the concept scorer: which concepts have to meet in a sentence, what strengthens and what weakens the
//! suspicion. Loaded from `rules/injection/lexicon/rules.yaml` by the lexicon; read by the scorer. Promises that a rule
//! that loaded can be evaluated: every concept exists and one of its groups consists of anchors.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::class::{Class, Confidence, Severity};

/// Points at which a rule finds.
pub const THRESHOLD: i32 = 100;

/// Index of a concept.
pub(crate) type ConceptId = u8;
/// A set of concepts, one bit each.
pub(crate) type ConceptSet = u128;

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRules {
    pub(crate) concepts: BTreeMap<String, RawConcept>,
    pub(crate) rules: Vec<RawRule>,
}

/// Whether the order of the groups counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Any order will do.
    #[default]
    Any,
    /// The order of the groups, in languages that put the verb before its object; any order in the others.
    VerbFirst,
    /// The order of the groups.
    Fixed,
}

/// A concept as declared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawConcept {
    /// Rare enough in ordinary text that its words wake the scorer.
    #[serde(default)]
    pub(crate) anchor: bool,
    /// What the words of the concept have in common; for the reader of the file.
    #[serde(rename = "means")]
    pub(crate) _means: String,
}

/// A rule as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRule {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) class: Class,
    pub(crate) severity: Severity,
    pub(crate) confidence: Confidence,
    #[serde(default)]
    pub(crate) attack: Vec<String>,
    #[serde(default)]
    pub(crate) atlas: Vec<String>,
    pub(crate) all: Vec<Vec<String>>,
    #[serde(default)]
    pub(crate) order: Order,
    #[serde(default = "default_within")]
    pub(crate) within: usize,
    #[serde(default = "default_reach")]
    pub(crate) reach: usize,
    pub(crate) base: i32,
    #[serde(default)]
    pub(crate) raise: BTreeMap<String, i32>,
    #[serde(default)]
    pub(crate) lower: BTreeMap<String, i32>,
    pub(crate) examples: Vec<String>,
    pub(crate) counter_examples: Vec<String>,
}

fn default_within() -> usize {
    120
}

fn default_reach() -> usize {
    90
}

/// A rule, ready for evaluation.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConceptRule {
    /// Stable kebab-case id, unique over all rules.
    pub id: String,
    /// What to call it in front of people.
    pub name: String,
    /// What the text tries to do.
    pub class: Class,
    /// Harm if true.
    pub severity: Severity,
    /// How sure a finding is.
    pub confidence: Confidence,
    /// MITRE ATT&CK technique ids.
    pub attack: Vec<String>,
    /// MITRE ATLAS technique ids.
    pub atlas: Vec<String>,
    /// Texts in which this rule finds.
    pub examples: Vec<String>,
    /// Texts in which this rule finds nothing.
    pub counter_examples: Vec<String>,
    /// Groups that all have to be met, each by any of its concepts.
    pub(crate) groups: Vec<ConceptSet>,
    /// Whether the groups have to be met in this order.
    pub(crate) order: Order,
    /// Largest distance in bytes of folded text from the first to the last group's word.
    pub(crate) within: usize,
    /// How far from them, in bytes of folded text, more evidence may lie.
    pub(crate) reach: usize,
    /// Points for the groups alone.
    pub(crate) base: i32,
    /// Points for more concepts nearby.
    pub(crate) raise: Vec<(ConceptId, i32)>,
    /// Points taken for concepts nearby.
    pub(crate) lower: Vec<(ConceptId, i32)>,
    /// The union of the groups that consist of anchors.
    pub(crate) anchors: ConceptSet,
}
