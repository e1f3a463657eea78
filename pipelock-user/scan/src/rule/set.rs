//! All rules of a scanner. [`RuleSet::shipped`] reads the embedded files; bundles are added to it. Called by
//! [`crate::Scanner`].
//!
//! Promises: ids are unique, the order is that of the files and therefore always the same, and the digest names the set: equal digest,
//! equal rules.

use std::collections::HashSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::builtin::{self, Builtin};
use super::{Kind, Rule, RuleError, raw};
use crate::injection::Detector;

/// The rule files in rules/, as the build script read them: reading YAML and patterns at each start would take longer than all
/// else.
const SHIPPED: &str = include_str!(concat!(env!("OUT_DIR"), "/rules.json"));

/// The rules of a scanner, in order.
#[derive(Clone, Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// Rules of the concept scorer. They have no pattern; hits name them by the numbers after those of `rules`.
    concepts: Vec<Rule>,
    /// Detectors that are no patterns, numbered after the concepts.
    builtins: Vec<Rule>,
    detector: Option<Arc<Detector>>,
    digest: [u8; 32],
    longest: usize,
}

impl RuleSet {
    /// The rules that pipelock ships.
    ///
    /// # Errors
    /// Never, unless a test of this crate fails too.
    pub fn shipped() -> Result<Self, RuleError> {
        let detector = Detector::builtin()
            .map_err(|error| RuleError::Form { file: "rules/injection/lexicon".into(), message: error.to_string() })?;
        let mut set = Self::of(Vec::new(), Vec::new(), None);
        set.extend("the shipped rules", raw::shipped(SHIPPED)?)?;
        set.concepts = detector.rules().iter().map(super::concept::rule).collect();
        set.detector = Some(Arc::new(detector));
        set.settle();
        Ok(set.with_builtins())
    }

    /// The same with the detectors that are no patterns: seed phrases, wallet addresses, floods, URLs, sessions. The
    /// shipped rules have them.
    #[must_use]
    pub fn with_builtins(mut self) -> Self {
        self.builtins = builtin::ALL.into_iter().map(Builtin::rule).collect();
        self
    }

    /// Reads rule files, given as name and text.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file and the rule.
    pub fn read(files: &[(&str, &str)]) -> Result<Self, RuleError> {
        let mut set = Self::of(Vec::new(), Vec::new(), None);
        for (file, text) in files {
            set.extend(file, raw::read(file, text)?)?;
        }
        Ok(set)
    }

    fn of(rules: Vec<Rule>, concepts: Vec<Rule>, detector: Option<Arc<Detector>>) -> Self {
        let mut set = Self { rules, concepts, builtins: Vec::new(), detector, digest: [0; 32], longest: 0 };
        set.settle();
        set
    }

    /// Adds rules; an id that is there is an error, so nothing can replace a rule.
    pub(crate) fn extend(&mut self, file: &str, rules: Vec<Rule>) -> Result<(), RuleError> {
        let mut known: HashSet<_> = self.all().chain(&self.builtins).map(|rule| rule.id.clone()).collect();
        for rule in rules {
            if !known.insert(rule.id.clone()) {
                return Err(RuleError::Rule {
                    file: file.to_owned(),
                    rule: rule.id.to_string(),
                    message: "another rule has this id; choose another".into(),
                });
            }
            self.rules.push(rule);
        }
        self.settle();
        Ok(())
    }

    /// Only the rules of one kind, and the budgets, which stand for what was not looked at.
    #[must_use]
    pub fn only(&self, kind: Kind) -> Self {
        self.filtered(|rule| rule.kind == kind || &*rule.class == "budget")
    }

    /// Without the rules that `off` names; core rules stay whatever it says.
    #[must_use]
    pub fn without(&self, off: impl Fn(&Rule) -> bool) -> Self {
        self.filtered(|rule| rule.core || !off(rule))
    }

    fn filtered(&self, stays: impl Fn(&Rule) -> bool) -> Self {
        let of = |rules: &[Rule]| rules.iter().filter(|rule| stays(rule)).cloned().collect();
        let set = Self::of(of(&self.rules), of(&self.concepts), self.detector.clone());
        Self { builtins: of(&self.builtins), ..set }
    }

    /// Those that compiled patterns depend on, in order.
    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain(&self.concepts)
    }

    /// The rules that have a pattern.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules of the concept scorer ([`crate::injection`]), which have none.
    pub fn concepts(&self) -> &[Rule] {
        &self.concepts
    }

    /// The detectors that are no patterns: seed phrases, wallet addresses, floods, URLs, sessions, budgets.
    pub fn builtins(&self) -> &[Rule] {
        &self.builtins
    }

    /// The rule that a hit names.
    pub(crate) fn rule(&self, number: usize) -> Option<&Rule> {
        let concept = || self.concepts.get(number.checked_sub(self.rules.len())?);
        let builtin = || self.builtins.get(number.checked_sub(self.rules.len() + self.concepts.len())?);
        self.rules.get(number).or_else(concept).or_else(builtin)
    }

    /// The number by which hits name a rule of the concept scorer; `None` when it is switched off.
    pub(crate) fn concept(&self, id: &str) -> Option<usize> {
        let place = self.concepts.iter().position(|rule| &*rule.id == id)?;
        Some(self.rules.len() + place)
    }

    /// The number by which hits name a built-in detector; `None` when it is switched off.
    pub(crate) fn builtin(&self, id: &str) -> Option<usize> {
        let place = self.builtins.iter().position(|rule| &*rule.id == id)?;
        Some(self.rules.len() + self.concepts.len() + place)
    }

    /// Adds the rule of a built-in detector under another name; gives its number.
    pub(crate) fn add_builtin(&mut self, builtin: &Builtin, name: &str) -> usize {
        let name = format!("{}: {name}", builtin.name).into();
        self.builtins.push(Rule { name, ..builtin.rule() });
        self.rules.len() + self.concepts.len() + self.builtins.len() - 1
    }

    /// The concept scorer, when any of its rules is on.
    pub(crate) fn detector(&self) -> Option<&Detector> {
        self.detector.as_deref().filter(|_| !self.concepts.is_empty())
    }

    /// Bytes of the longest match of any rule.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// SHA-256 over ids and patterns: names what is compiled.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn settle(&mut self) {
        let mut hash = Sha256::new();
        for rule in self.all() {
            for part in [rule.id.as_bytes(), rule.pattern.source().as_bytes()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        let digest = hash.finalize().into();
        self.digest = digest;
        self.longest = self.rules.iter().map(|rule| rule.pattern.longest()).max().unwrap_or(0);
    }
}
