//! All rules of a scanner. [`RuleSet::shipped`] reads the embedded files; bundles are added to it. Called by
//! [`crate::Scanner`].
//!
//! Promises: ids are unique, the order is that of the files and therefore always the same, and the digest names the set: equal digest,
//! equal rules.

use std::collections::HashSet;

use sha2::{Digest as _, Sha256};

use super::{Kind, Rule, RuleError, raw};

/// The rule files in rules/, path and text.
const SHIPPED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/rules.rs"));

/// The rules of a scanner, in order.
#[derive(Clone, Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    digest: [u8; 32],
    longest: usize,
}

impl RuleSet {
    /// The rules that pipelock ships.
    ///
    /// # Errors
    /// Never, unless a test of this crate fails too.
    pub fn shipped() -> Result<Self, RuleError> {
        Self::read(SHIPPED)
    }

    /// Reads rule files, given as name and text.
    ///
    /// # Errors
    /// The first thing that is wrong, with the file and the rule.
    pub fn read(files: &[(&str, &str)]) -> Result<Self, RuleError> {
        let mut set = Self::of(Vec::new());
        for (file, text) in files {
            set.extend(file, raw::read(file, text)?)?;
        }
        Ok(set)
    }

    fn of(rules: Vec<Rule>) -> Self {
        let mut set = Self { rules, digest: [0; 32], longest: 0 };
        set.settle();
        set
    }

    /// Adds rules; an id that is there is an error, so nothing can replace a rule.
    pub(crate) fn extend(&mut self, file: &str, rules: Vec<Rule>) -> Result<(), RuleError> {
        let mut known: HashSet<_> = self.rules.iter().map(|rule| rule.id.clone()).collect();
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

    /// Only the rules of one kind.
    #[must_use]
    pub fn only(&self, kind: Kind) -> Self {
        Self::of(self.rules.iter().filter(|rule| rule.kind == kind).cloned().collect())
    }

    /// Without the rules that `off` names; core rules stay whatever it says.
    #[must_use]
    pub fn without(&self, off: impl Fn(&Rule) -> bool) -> Self {
        Self::of(self.rules.iter().filter(|rule| rule.core || !off(rule)).cloned().collect())
    }

    /// The rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
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
        for rule in &self.rules {
            for part in [rule.id.as_bytes(), rule.pattern.source().as_bytes()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
        }
        self.digest = hash.finalize().into();
        self.longest = self.rules.iter().map(|rule| rule.pattern.longest()).max().unwrap_or(0);
    }
}
