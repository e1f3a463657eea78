//! What the scanner found, as far as a denial, the log and a receipt may tell: where and by which rule, never the secret.
//!
//! Made by `inspect`; carried by a [`crate::flow::Verdict`] to `proxy` and `recorder`. Receipts and answers hold it in the form that it
//! has here.

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// True for instructions to an agent, false for what should not leave. Its class says as much.
    #[serde(skip)]
    pub is_order: bool,
    /// Id of the rule: `github-token`, and for a value that somebody named `known-value`.
    pub rule: String,
    /// Name of the rule for people; of a named value it says which.
    pub name: String,
    /// Its class: `credential`, `instruction_override`.
    pub class: String,
    /// `low`, `medium`, `high` or `critical`.
    pub severity: &'static str,
    /// `low`, `medium` or `high`.
    pub confidence: &'static str,
    /// Where it stood: `url`, `header authorization`, `body`, `part 2`, `message`.
    pub place: String,
    /// How it was written, outermost first: `base64`, `gzip`; empty for plain text.
    pub decoded: Vec<&'static str>,
    /// MITRE ids, ATT&CK before ATLAS.
    pub mitre: Vec<String>,
    /// What was done about it: `block`, `redact` or `warn`.
    pub action: &'static str,
}

impl Found {
    /// How bad it is, from 0.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self.severity {
            "critical" => 3,
            "high" => 2,
            "medium" => 1,
            _ => 0,
        }
    }

    /// One line for people: `github-token in header authorization (base64)`.
    #[must_use]
    pub fn line(&self) -> String {
        let what = if self.rule == "known-value" { &self.name } else { &self.rule };
        if self.decoded.is_empty() {
            return format!("{what} in {}", self.place);
        }
        format!("{what} in {} ({})", self.place, self.decoded.join(", "))
    }
}
