//! The detectors that are no patterns, as rules: so that switches, lists, findings and evidence treat all alike. Called
//! by [`super::set`], by [`crate::stream`] for its budgets, and by the doors for URLs and sessions.

use super::{Confidence, Kind, Pattern, Rule, Severity};

/// What a built-in detector is called and how its findings count.
#[derive(Debug)]
pub(crate) struct Builtin {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    kind: Kind,
    class: &'static str,
    severity: Severity,
    confidence: Confidence,
    core: bool,
}

const fn dlp(id: &'static str, name: &'static str, class: &'static str, severity: Severity) -> Builtin {
    Builtin { id, name, kind: Kind::Dlp, class, severity, confidence: Confidence::High, core: false }
}

/// A value that somebody named: an environment variable, a line of a file of secrets, a canary. The rule's name says which.
pub(crate) const KNOWN: Builtin =
    Builtin { core: true, ..dlp("known-value", "Known value", "credential", Severity::Critical) };
/// Words of a BIP-39 list with a right checksum ([`crate::seed`]).
pub(crate) const SEED: Builtin =
    Builtin { core: true, ..dlp("seed-phrase", "BIP-39 seed phrase", "crypto", Severity::Critical) };
/// An address made to look like an allowed one ([`crate::wallet`]).
pub(crate) const POISONED: Builtin =
    dlp("wallet-address-poisoned", "Wallet address that imitates an allowed one", "crypto", Severity::Critical);
/// An Ethereum address whose letters contradict its checksum (EIP-55).
pub(crate) const ALTERED: Builtin =
    dlp("wallet-address-altered", "Wallet address that contradicts its own checksum", "crypto", Severity::High);
/// A valid address that is not on the list of allowed ones.
pub(crate) const UNLISTED: Builtin =
    dlp("wallet-address-unlisted", "Wallet address that is not on the list", "crypto", Severity::Medium);
/// One token over and over.
pub(crate) const FLOOD: Builtin = Builtin {
    kind: Kind::Injection,
    confidence: Confidence::Medium,
    ..dlp("token-flood", "One token over and over", "token_flooding", Severity::Medium)
};
/// A host name with data in its labels ([`crate::entropy::host`]).
pub(crate) const HOST: Builtin = Builtin {
    confidence: Confidence::Medium,
    ..dlp("url-host-data", "Data in a host name", "entropy", Severity::High)
};
/// A path segment or query value that looks random ([`crate::entropy::url_part`]).
pub(crate) const PART: Builtin = Builtin {
    confidence: Confidence::Low,
    ..dlp("url-random-part", "Random data in a URL", "entropy", Severity::Medium)
};
/// A letter or a digit in a URL that is percent-encoded three times over and more: no encoder encodes those at all.
pub(crate) const VEILED: Builtin =
    dlp("url-veiled-part", "Plain characters encoded again and again", "entropy", Severity::High);
/// More bits in free values than a session may send ([`crate::session::Budget`]).
pub(crate) const SESSION_BUDGET: Builtin = Builtin {
    confidence: Confidence::Medium,
    ..dlp("session-entropy-budget", "More data in free values than a session may send", "session", Severity::High)
};
/// More bits in names below a wildcard than a session may ask for ([`crate::session::Sessions::host`]).
pub(crate) const HOST_BUDGET: Builtin = Builtin {
    confidence: Confidence::Medium,
    ..dlp("host-names-budget", "More data in host names than a session may ask for", "session", Severity::High)
};
/// More findings than are reported.
pub(crate) const BUDGET_FINDINGS: Builtin =
    Builtin { core: true, ..dlp("budget-findings", "More findings than are reported", "budget", Severity::High) };
/// Encoded more often than is decoded.
pub(crate) const BUDGET_DEPTH: Builtin =
    Builtin { core: true, ..dlp("budget-depth", "Encoded more often than is decoded", "budget", Severity::High) };
/// Decodes to more than is scanned.
pub(crate) const BUDGET_EXPANSION: Builtin =
    Builtin { core: true, ..dlp("budget-expansion", "Decodes to more than is scanned", "budget", Severity::High) };

/// All of them, in the order of lists.
pub(crate) const ALL: [&Builtin; 14] = [
    &KNOWN,
    &SEED,
    &POISONED,
    &ALTERED,
    &UNLISTED,
    &FLOOD,
    &HOST,
    &PART,
    &VEILED,
    &SESSION_BUDGET,
    &HOST_BUDGET,
    &BUDGET_FINDINGS,
    &BUDGET_DEPTH,
    &BUDGET_EXPANSION,
];

impl Builtin {
    /// As a rule without a pattern.
    pub(crate) fn rule(&self) -> Rule {
        let (attack, atlas) = super::mitre::of_class(self.class);
        Rule {
            id: self.id.into(),
            name: self.name.into(),
            kind: self.kind,
            class: self.class.into(),
            severity: self.severity,
            confidence: self.confidence,
            core: self.core,
            pattern: Pattern::stored("", 0, 0),
            secret: 0,
            keywords: Vec::new(),
            validator: None,
            is_of_form: false,
            entropy: None,
            attack,
            atlas,
            examples: Vec::new(),
            counter_examples: Vec::new(),
        }
    }
}
