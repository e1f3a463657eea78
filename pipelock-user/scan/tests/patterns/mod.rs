//! The pattern rules of `rules/injection/*.yaml` run one by one with the `regex` crate. Used by the tests, which
//! have to work without the engine. Promises the semantics of the shared rule format for
//! the fields that injection rules use: pattern, keywords, examples.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each user needs a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a rule file that does not load has to stop the test")]

use std::collections::BTreeMap;
use std::path::Path;

use pipelock_scan::injection::{Class, Confidence, Severity};
use regex::Regex;
use serde::Deserialize;

/// A rule file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Vec<Rule>,
}

/// A pattern rule as the shared format defines it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub id: String,
    pub name: String,
    pub kind: String,
    pub class: Class,
    pub severity: Severity,
    #[serde(default)]
    pub core: bool,
    pub pattern: String,
    #[serde(default)]
    pub secret: usize,
    #[serde(default)]
    pub keywords: Vec<String>,
    #[serde(default)]
    pub attack: Vec<String>,
    #[serde(default)]
    pub atlas: Vec<String>,
    #[serde(default)]
    pub confidence: Option<Confidence>,
    pub examples: Vec<String>,
    pub counter_examples: Vec<String>,
}

/// A rule with its pattern compiled.
pub struct Compiled {
    pub rule: Rule,
    pub regex: Regex,
}

impl Compiled {
    /// Where the rule matches first.
    pub fn find(&self, text: &str) -> Option<std::ops::Range<usize>> {
        let lower = text.to_ascii_lowercase();
        if !self.rule.keywords.is_empty() && !self.rule.keywords.iter().any(|k| lower.contains(&k.to_ascii_lowercase()))
        {
            return None;
        }
        self.regex.captures(text)?.get(self.rule.secret).map(|found| found.range())
    }
}

/// All pattern rules of the folder, by file name.
pub fn patterns() -> BTreeMap<String, Vec<Compiled>> {
    let folder = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("rules/injection");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "yaml") {
            let content = std::fs::read_to_string(&path).unwrap();
            let file: File = serde_yaml::from_str(&content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let compiled = file.rules.into_iter().map(|rule| {
                let regex = Regex::new(&rule.pattern).unwrap_or_else(|e| panic!("{}: {e}", rule.id));
                Compiled { rule, regex }
            });
            found.insert(path.file_name().unwrap().to_string_lossy().into_owned(), compiled.collect());
        }
    }
    found
}
