//! Rules: what the engine looks for. `raw` is the file's form, [`pattern`] the checked pattern, [`set`] all rules of
//! a scanner, [`bundle`] signed additions, `concept` and `builtin` the way in for detectors without patterns,
//! `mitre` the ids of classes. Called by [`crate::Scanner`]; the words here are those of findings too.

pub(crate) mod builtin;
pub mod bundle;
mod concept;
mod language;
mod mitre;
pub mod pattern;
mod raw;
pub mod set;

use std::sync::Arc;

pub use pattern::Pattern;
pub use set::RuleSet;

/// What a rule is about: data that must not leave, or text that must not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Secrets and personal data.
    Dlp,
    /// Instructions meant for the model.
    Injection,
}

/// How bad a hit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Worth a look.
    Medium,
    /// To be stopped.
    High,
    /// To be stopped, and the secret replaced.
    Critical,
}

/// How sure a hit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The form alone; other things look like it.
    Low,
    /// The form in a context that speaks for it.
    #[default]
    Medium,
    /// A form that nothing else has, or a checksum.
    High,
}

/// Says whether the bytes of a secret are well formed (checksums, structure). Linear, never panics.
pub type Validator = fn(&[u8]) -> bool;

/// One rule, checked.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Stable name, unique in a set: lower-case words joined by hyphens.
    pub id: Arc<str>,
    /// Name for people.
    pub name: Arc<str>,
    /// What it is about.
    pub kind: Kind,
    /// Its class: `credential`, `private_key`, … or a class of injections.
    pub class: Arc<str>,
    /// How bad a hit is.
    pub severity: Severity,
    /// How sure a hit is.
    pub confidence: Confidence,
    /// Cannot be switched off.
    pub core: bool,
    /// The pattern.
    pub pattern: Pattern,
    /// The capture group that holds the secret; 0 is the whole match.
    pub secret: usize,
    /// At least one of these is in every match, whatever its ASCII case. In lower case.
    pub keywords: Vec<String>,
    /// Confirms the secret.
    pub validator: Option<Validator>,
    /// Nothing but the form and how random it looks tells what it finds: no check digits, no structure.
    pub is_of_form: bool,
    /// Least Shannon entropy of the secret in bits per byte.
    pub entropy: Option<f64>,
    /// MITRE ATT&CK ids.
    pub attack: Vec<String>,
    /// MITRE ATLAS ids.
    pub atlas: Vec<String>,
    /// Texts in which the rule must find something.
    pub examples: Vec<String>,
    /// Texts in which it must not.
    pub counter_examples: Vec<String>,
}

impl Rule {
    /// As [`is_telling`], of what it finds.
    pub(crate) fn is_telling(&self) -> bool {
        is_telling(self.kind, self.confidence, &self.id, &self.class)
    }

    /// MITRE ids, ATT&CK before ATLAS.
    pub fn mitre(&self) -> Arc<[String]> {
        self.attack.iter().chain(&self.atlas).cloned().collect()
    }
}

/// Is a match so sure that what only stands together by chance is not taken for one? Rules named `…-shape` find what has the form
/// of a critical token and only not its check digits, which hardly stands together by chance either.
pub(crate) fn is_telling(kind: Kind, confidence: Confidence, id: &str, class: &str) -> bool {
    kind == Kind::Dlp
        && (confidence == Confidence::High || is_shape(id))
        && matches!(class, "credential" | "private_key" | "crypto")
}

/// Is the rule of this id one for what has the form of a token that another rule knows, but not its check digits or alphabet?
pub(crate) fn is_shape(id: &str) -> bool {
    id.ends_with("-shape")
}

/// Does a text begin with the keyword of a rule as tokens do, and no word: `ghp_`, `AKIA7`, `xoxb-`?
pub(crate) fn shows(text: &[u8], keyword: &str) -> bool {
    let Some((begun, rest)) = text.split_at_checked(keyword.len()) else { return false };
    let is_mark = |byte: &u8| matches!(byte, b'_' | b'-' | b'.') || byte.is_ascii_digit();
    let is_loud = begun.iter().all(u8::is_ascii_uppercase)
        && rest.first().is_none_or(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    begun.eq_ignore_ascii_case(keyword.as_bytes()) && (is_loud || begun.iter().any(is_mark))
}

/// What is wrong with a rule file or a bundle.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// Not YAML, or not of the form.
    #[error("{file}: {message}")]
    Form {
        /// The file.
        file: String,
        /// What and where.
        message: String,
    },
    /// One rule is wrong.
    #[error("{file}: rule {rule}: {message}")]
    Rule {
        /// The file.
        file: String,
        /// The rule's id.
        rule: String,
        /// What, and what to do.
        message: String,
    },
    /// A bundle is not accepted.
    #[error("rule bundle: {0}")]
    Bundle(String),
}
