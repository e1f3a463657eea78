//! Rules as the engine will see them, matched one by one with the plain `regex` crate.
//!
//! Used by the tables' tests. It is a reference, not an engine: no decoding, no streaming.

#![allow(dead_code, reason = "the tests and the examples each use their part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a rule file that cannot be read fails the test")]

use aho_corasick::AhoCorasick;
use pipelock_scan::{entropy, validate};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One rule of a file under rules/.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) class: String,
    pub(crate) severity: String,
    #[serde(default)]
    pub(crate) core: bool,
    pub(crate) pattern: String,
    #[serde(default)]
    pub(crate) secret: usize,
    #[serde(default)]
    pub(crate) keywords: Vec<String>,
    pub(crate) validator: Option<String>,
    pub(crate) entropy: Option<f64>,
    #[serde(default)]
    pub(crate) attack: Vec<String>,
    #[serde(default)]
    pub(crate) atlas: Vec<String>,
    pub(crate) confidence: Option<String>,
    pub(crate) examples: Vec<String>,
    pub(crate) counter_examples: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    rules: Vec<Rule>,
}

/// The bytes of an example: what is no text is written in hexadecimal digits behind `hex:`.
pub(crate) fn bytes(example: &str) -> Vec<u8> {
    let Some(digits) = example.strip_prefix("hex:") else { return example.as_bytes().to_vec() };
    digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A rule ready to match.
pub(crate) struct Compiled {
    pub(crate) rule: Rule,
    pub(crate) regex: regex::bytes::Regex,
    pub(crate) keywords: Option<AhoCorasick>,
    validator: Option<validate::Validator>,
}

/// The rules about what must not leave, compiled; panics with the rule's id when one cannot be.
pub(crate) fn load() -> Vec<Compiled> {
    read(&["credentials", "personal"])
}

/// The patterns about what must not come in.
pub(crate) fn injection() -> Vec<Compiled> {
    read(&["injection"])
}

fn read(folders: &[&str]) -> Vec<Compiled> {
    let rules = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("rules");
    let mut all = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(rules.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.starts_with("# "), "{}: the first line says what the file holds", file.display());
            let parsed: File =
                serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            all.extend(parsed.rules.into_iter().map(compile));
        }
    }
    all
}

fn compile(rule: Rule) -> Compiled {
    // Bytes and ASCII case, as vectorscan reads them: with Unicode, `(?i)k` would match the Kelvin sign too. Injections are
    // text, in any script.
    let regex = regex::bytes::RegexBuilder::new(&rule.pattern)
        .unicode(rule.kind == "injection")
        .size_limit(64 << 20)
        .dfa_size_limit(64 << 20)
        .build()
        .unwrap_or_else(|error| panic!("{}: {error}", rule.id));
    assert!(rule.secret < regex.captures_len(), "{}: no group {}", rule.id, rule.secret);
    let validator = rule
        .validator
        .as_deref()
        .map(|name| validate::lookup(name).unwrap_or_else(|| panic!("{}: no validator {name}", rule.id)));
    let keywords = (!rule.keywords.is_empty())
        .then(|| AhoCorasick::builder().ascii_case_insensitive(true).build(&rule.keywords).unwrap());
    Compiled { rule, regex, keywords, validator }
}

impl Compiled {
    /// The secrets this rule finds in the text.
    pub(crate) fn find<'t>(&self, text: &'t [u8]) -> Vec<&'t [u8]> {
        let mut found = Vec::new();
        if self.keywords.as_ref().is_some_and(|keywords| !keywords.is_match(text)) {
            return found;
        }
        let mut at = 0;
        while let Some(captures) = self.regex.captures_at(text, at) {
            let whole = captures.get(0).unwrap();
            let secret = captures.get(self.rule.secret).unwrap_or(whole);
            if self.confirms(secret.as_bytes()) {
                found.push(secret.as_bytes());
            }
            // A refused match may hide the next one: go on inside it.
            at = whole.start() + 1;
            if at > text.len() {
                break;
            }
        }
        found.dedup();
        found
    }

    pub(crate) fn confirms(&self, secret: &[u8]) -> bool {
        self.rule.entropy.is_none_or(|floor| entropy::shannon(secret) >= floor)
            && self.validator.is_none_or(|validator| validator(secret))
    }
}
