//! The form of a rule file (rules/**/*.yaml, bundles), and its check. Called by [`super::set`] and [`super::bundle`].
//! Promises: unknown keys are errors; a [`Rule`] that comes out has a pattern that compiles and a validator that exists.

use std::sync::Arc;

use serde::Deserialize;

use super::{Confidence, Kind, Pattern, Rule, RuleError, Severity};

/// A file's rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawFile {
    pub(crate) rules: Vec<RawRule>,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRule {
    pub(crate) id: String,
    name: String,
    kind: Kind,
    class: String,
    severity: Severity,
    #[serde(default)]
    core: bool,
    pattern: String,
    #[serde(default)]
    secret: usize,
    #[serde(default)]
    keywords: Vec<String>,
    validator: Option<String>,
    entropy: Option<f64>,
    #[serde(default)]
    attack: Vec<String>,
    #[serde(default)]
    atlas: Vec<String>,
    #[serde(default)]
    confidence: Confidence,
    #[serde(default)]
    examples: Vec<String>,
    #[serde(default)]
    counter_examples: Vec<String>,
}

const DLP_CLASSES: [&str; 6] = ["credential", "private_key", "financial", "personal", "crypto", "context"];
const ID_BYTES: usize = 96;
const PATTERN_BYTES: usize = 4096;

/// Reads one file; `file` names it in errors.
pub(crate) fn read(file: &str, text: &str) -> Result<Vec<Rule>, RuleError> {
    let raw: RawFile = serde_yaml::from_str(text)
        .map_err(|error| RuleError::Form { file: file.to_owned(), message: error.to_string() })?;
    raw.rules.into_iter().map(|rule| check(file, rule)).collect()
}

/// A shipped rule: the build script has checked its pattern.
#[derive(Deserialize)]
struct Shipped {
    file: String,
    longest: usize,
    groups: usize,
    rule: RawRule,
}

/// Reads what the build script made of the rule files.
pub(crate) fn shipped(json: &str) -> Result<Vec<Rule>, RuleError> {
    let rules: Vec<Shipped> = serde_json::from_str(json)
        .map_err(|error| RuleError::Form { file: "the shipped rules".to_owned(), message: error.to_string() })?;
    let rule = |shipped: Shipped| {
        let Shipped { file, longest, groups, rule } = shipped;
        let id = rule.id.clone();
        let pattern = Pattern::stored(&rule.pattern, longest, groups);
        with(rule, pattern).map_err(|message| RuleError::Rule { file, rule: id, message })
    };
    rules.into_iter().map(rule).collect()
}

/// Turns a written rule into a checked one.
pub(crate) fn check(file: &str, raw: RawRule) -> Result<Rule, RuleError> {
    let id = raw.id.clone();
    check_inner(raw).map_err(|message| RuleError::Rule { file: file.to_owned(), rule: id, message })
}

fn check_inner(raw: RawRule) -> Result<Rule, String> {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if raw.id.is_empty() || raw.id.len() > ID_BYTES || !raw.id.bytes().all(word) {
        return Err(format!("an id is 1 to {ID_BYTES} characters of a-z, 0-9 and -"));
    }
    if raw.kind == Kind::Dlp && !DLP_CLASSES.contains(&raw.class.as_str()) {
        return Err(format!("class `{}` is none of {}", raw.class, DLP_CLASSES.join(", ")));
    }
    if raw.pattern.len() > PATTERN_BYTES {
        return Err(format!("a pattern is at most {PATTERN_BYTES} bytes"));
    }
    let pattern = Pattern::new(&raw.pattern)?;
    with(raw, pattern)
}

fn with(raw: RawRule, pattern: Pattern) -> Result<Rule, String> {
    if raw.secret > pattern.groups() {
        return Err(format!("secret: group {} of {}", raw.secret, pattern.groups()));
    }
    let validator = match &raw.validator {
        None => None,
        Some(name) => Some(crate::validate::lookup(name).ok_or_else(|| format!("no validator `{name}`"))?),
    };
    if raw.keywords.iter().any(String::is_empty) {
        return Err("keywords: one is empty, which is in every text".into());
    }
    if raw.entropy.is_some_and(|bits| !(0.0..=8.0).contains(&bits)) {
        return Err("entropy: bits per byte lie between 0 and 8".into());
    }
    let (attack, atlas) = super::mitre::or_of_class(raw.attack, raw.atlas, &raw.class);
    Ok(Rule {
        id: raw.id.into(),
        name: raw.name.into(),
        kind: raw.kind,
        class: Arc::from(raw.class),
        severity: raw.severity,
        confidence: raw.confidence,
        core: raw.core,
        pattern,
        secret: raw.secret,
        keywords: raw.keywords.iter().map(|word| word.to_ascii_lowercase()).collect(),
        validator,
        is_of_form: raw.validator.as_deref().is_none_or(crate::validate::is_of_form),
        entropy: raw.entropy,
        attack,
        atlas,
        examples: raw.examples,
        counter_examples: raw.counter_examples,
    })
}
