//! `dlp` and `response`: what is done about what the scanner finds, and which values it looks for beside its rules.
//!
//! Read by `parse`; used by `inspect`. It promises that a policy which says nothing of them has the strict defaults, and
//! the same id as before there were such keys.

use std::path::PathBuf;

use pipelock_scan::Severity;
use serde_json::{Map, Value, json};

use super::error::{Report, quote};
use super::keys::{Default, Section, Shape, key, tried_as};
use super::read::{Field, Reader};
use super::tls::path;

/// Names that one rule may list under `allow_secrets`.
const MAX_ALLOWED: usize = 64;

/// `dlp`.
pub(super) static DLP: Section = Section {
    name: "dlp",
    keys: &[
        key(
            "action",
            Shape::Words(&["block", "redact", "ask", "warn"]),
            Default::Text("block"),
            "What is done about secrets in what leaves, of the severity that `severity` names or more and of at least medium confidence; what is less is recorded. redact puts a placeholder in their place, where that can be done, and blocks elsewhere. ask lets somebody decide (see ask) about URLs, headers and bodies of a declared length of up to 64 KiB, and blocks elsewhere.",
        ),
        tried_as(
            key(
                "severity",
                Shape::Words(&["low", "medium", "high", "critical"]),
                Default::Text("high"),
                "How severe a secret has to be for action. medium takes personal and payment data in (IBAN, cards; not what a client shows on purpose in a header, such as Authorization), low whatever a rule knows, such as addresses of wallets.",
            ),
            &["min_severity", "threshold", "level"],
        ),
        tried_as(
            key(
                "instructions",
                Shape::Words(&["block", "warn", "off"]),
                Default::Text("off"),
                "What is done about instructions to another agent in headers, bodies and messages that leave, of severity high or critical and of at least medium confidence.",
            ),
            &["injection", "prompt_injection"],
        ),
        key(
            "entropy",
            Shape::Words(&["block", "warn", "off"]),
            Default::Text("warn"),
            "What is done about data that no rule knows: random parts of URLs, parts that are encoded three times over, and more of it than a session may send. Names below a wildcard that are data are treated as secrets are (action) unless this is off.",
        ),
        tried_as(
            key(
                "scan_env",
                Shape::Bool,
                Default::Bool(true),
                "Whether the secrets in the environment of the command are looked for, in every encoding; under attach those of the processes that run already.",
            ),
            &["include_env", "env"],
        ),
        tried_as(
            key(
                "secrets_files",
                Shape::List(&Shape::File),
                Default::Absent,
                "Files with values to look for: NAME=value, NAME: value or a value a line. Relative to the folder of the policy.",
            ),
            &["secrets_file", "secret_files", "secret_file"],
        ),
    ],
};

/// `response`.
pub(super) static RESPONSE: Section = Section {
    name: "response",
    keys: &[
        key(
            "action",
            Shape::Words(&["block", "redact", "warn", "off"]),
            Default::Text("block"),
            "What is done about instructions to the agent, of severity high or critical and of at least medium confidence. In what is no text (archives, images) they are recorded.",
        ),
        key(
            "secrets",
            Shape::Words(&["block", "redact", "warn", "off"]),
            Default::Text("warn"),
            "What is done about secrets in what comes in.",
        ),
    ],
};

/// What is done about a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FindingAction {
    /// What holds it goes no further.
    #[default]
    Block,
    /// It goes on with a placeholder in its place.
    Redact,
    /// It goes on if somebody who is asked says so.
    Ask,
    /// It goes on, and is recorded.
    Warn,
    /// It goes on, and nobody is told.
    Off,
}

impl FindingAction {
    fn of(word: &str) -> Self {
        match word {
            "redact" => Self::Redact,
            "ask" => Self::Ask,
            "warn" => Self::Warn,
            "off" => Self::Off,
            _ => Self::Block,
        }
    }

    /// Its word in the policy and in the evidence.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Redact => "redact",
            Self::Ask => "ask",
            Self::Warn => "warn",
            Self::Off => "off",
        }
    }
}

/// `dlp`: secrets on their way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dlp {
    /// What is done about them.
    pub action: FindingAction,
    /// How severe a finding has to be for that; what is less is noted.
    pub severity: Severity,
    /// What is done about instructions to another agent, in headers, bodies and messages.
    pub instructions: FindingAction,
    /// What is done about data that no rule knows: random parts of URLs, more of it than a session may send.
    pub entropy: FindingAction,
    /// Whether the secrets in the environment of the command are looked for.
    pub scan_env: bool,
    /// Files with values to look for.
    pub secrets_files: Vec<PathBuf>,
}

impl std::default::Default for Dlp {
    fn default() -> Self {
        Self {
            action: FindingAction::Block,
            severity: Severity::High,
            instructions: FindingAction::Off,
            entropy: FindingAction::Warn,
            scan_env: true,
            secrets_files: Vec::new(),
        }
    }
}

/// `response`: what destinations send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responses {
    /// What is done about instructions to the agent.
    pub action: FindingAction,
    /// What is done about secrets that come in.
    pub secrets: FindingAction,
}

impl std::default::Default for Responses {
    fn default() -> Self {
        Self { action: FindingAction::Block, secrets: FindingAction::Warn }
    }
}

fn severity(word: &str) -> Severity {
    match word {
        "low" => Severity::Low,
        "medium" => Severity::Medium,
        "critical" => Severity::Critical,
        _ => Severity::High,
    }
}

impl Dlp {
    pub(super) fn read(report: &mut Report, dlp: &Reader<'_>) -> Self {
        let mut secrets_files = Vec::new();
        for item in dlp.items(report, "secrets_files") {
            secrets_files.extend(path(report, &item, "a file"));
        }
        Self {
            action: FindingAction::of(dlp.word(report, "action")),
            severity: severity(dlp.word(report, "severity")),
            instructions: FindingAction::of(dlp.word(report, "instructions")),
            entropy: FindingAction::of(dlp.word(report, "entropy")),
            scan_env: dlp.bool(report, "scan_env"),
            secrets_files,
        }
    }

    /// Its canonical form; none when it says nothing.
    pub(super) fn canonical(&self) -> Option<Value> {
        let usual = Self::default();
        let mut value = Map::new();
        if self.action != usual.action {
            value.insert("action".into(), json!(self.action.word()));
        }
        if self.severity != usual.severity {
            value.insert("severity".into(), json!(self.severity));
        }
        if self.instructions != usual.instructions {
            value.insert("instructions".into(), json!(self.instructions.word()));
        }
        if self.entropy != usual.entropy {
            value.insert("entropy".into(), json!(self.entropy.word()));
        }
        if self.scan_env != usual.scan_env {
            value.insert("scan_env".into(), json!(self.scan_env));
        }
        if !self.secrets_files.is_empty() {
            value.insert("secrets_files".into(), json!(self.secrets_files));
        }
        (!value.is_empty()).then_some(value.into())
    }
}

impl Responses {
    pub(super) fn read(report: &mut Report, response: &Reader<'_>) -> Self {
        Self {
            action: FindingAction::of(response.word(report, "action")),
            secrets: FindingAction::of(response.word(report, "secrets")),
        }
    }

    /// Its canonical form; none when it says nothing.
    pub(super) fn canonical(&self) -> Option<Value> {
        let usual = Self::default();
        let mut value = Map::new();
        if self.action != usual.action {
            value.insert("action".into(), json!(self.action.word()));
        }
        if self.secrets != usual.secrets {
            value.insert("secrets".into(), json!(self.secrets.word()));
        }
        (!value.is_empty()).then_some(value.into())
    }
}

/// The action of one rule about what its destination sends, `response` about instructions and `response_secrets` about secrets;
/// none for that of the section `response`.
pub(super) fn own_response(report: &mut Report, rule: &Reader<'_>, key: &'static str) -> Option<FindingAction> {
    match rule.word(report, key) {
        "default" | "" => None,
        word => Some(FindingAction::of(word)),
    }
}

/// The rules of the scanner whose findings one rule lets out in headers: sorted, without repeats.
pub(super) fn allow_secrets(report: &mut Report, rule: &Reader<'_>) -> Vec<String> {
    let items = rule.items(report, "allow_secrets");
    if let Some(item) = items.get(MAX_ALLOWED) {
        item.wrong(
            report,
            format!("more than {MAX_ALLOWED} names"),
            "name the credentials that this destination needs",
        );
    }
    let mut names: Vec<String> = items.iter().take(MAX_ALLOWED).filter_map(|item| name(report, item)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn name(report: &mut Report, item: &Field<'_>) -> Option<String> {
    let text = item.text(report, "the id of a rule of the scanner, or env:NAME")?;
    let is_sound = match text.strip_prefix("env:") {
        Some(variable) => !variable.is_empty() && variable.bytes().all(|b| b.is_ascii_graphic() && b != b'='),
        None => !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
    };
    if !is_sound || text.len() > 128 {
        let help = "write the id that the denial or pipelock scan --list-rules shows, or env:NAME of a variable";
        item.wrong(report, format!("{} cannot be the id of a rule", quote(text)), help);
        return None;
    }
    Some(text.to_owned())
}

impl super::Policy {
    /// The same without the files of secrets, for a machine that has none of them.
    #[must_use]
    pub fn without_secrets_files(&self) -> Self {
        let mut policy = self.clone();
        policy.parts.dlp.secrets_files.clear();
        policy
    }
}
