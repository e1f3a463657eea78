//! What was decided: an action and the reason for it.

use std::time::Duration;

use crate::flow::{Asked, Found, Reason};

/// What happens to the flow, request or query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It goes on as it is.
    Allow,
    /// It goes nowhere.
    Block,
}

/// A decision with its reason. There is no default: code that has no verdict has no permission either.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Verdict {
    /// What happens.
    pub action: Action,
    /// The stable reason.
    pub reason: Reason,
    /// The rule that decided, as the policy spells it (`egress[0] api.github.com`); none when no rule matched.
    pub rule: Option<String>,
    /// What exactly happened, for a person; holds no secret and no bytes chosen by a peer beyond host, method and path.
    pub detail: String,
    /// What the scanner found, whether it decided or was only noted.
    pub findings: Vec<Found>,
    /// Whether it is about what was to leave, where the reason alone does not tell.
    pub is_outbound: bool,
    /// When it is worth asking again, if that is known.
    pub retry: Option<Duration>,
    /// Who was asked, if somebody was.
    pub asked: Option<Box<Asked>>,
}

impl Verdict {
    fn new(action: Action, reason: Reason, detail: String) -> Self {
        Self { action, reason, rule: None, detail, findings: Vec::new(), is_outbound: false, retry: None, asked: None }
    }

    /// Allowed, by this rule.
    pub fn allow(reason: Reason, rule: Option<String>) -> Self {
        Self { rule, ..Self::new(Action::Allow, reason, String::new()) }
    }

    /// Let out, and then it came to nothing for this reason: bytes may have left, so it must not be called blocked.
    pub fn let_out(reason: Reason, detail: impl Into<String>) -> Self {
        Self::new(Action::Allow, reason, detail.into())
    }

    /// Blocked, for this reason.
    pub fn block(reason: Reason, detail: impl Into<String>) -> Self {
        Self::new(Action::Block, reason, detail.into())
    }

    /// The same verdict, naming the rule that decided.
    pub fn by(mut self, rule: Option<String>) -> Self {
        self.rule = rule;
        self
    }

    /// The same verdict, with what the scanner found.
    pub fn with(mut self, findings: Vec<Found>) -> Self {
        self.findings.extend(findings);
        self
    }

    /// The same verdict, about what was to leave.
    pub fn outbound(mut self) -> Self {
        self.is_outbound = true;
        self
    }

    /// The same verdict, with when it is worth asking again.
    pub fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }

    /// The same in whole seconds, as HTTP tells it (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_seconds(&self) -> Option<u64> {
        self.retry.map(|after| u64::try_from(after.as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1))
    }

    /// The same, and what else stops it.
    pub fn and(self, more: Self) -> Self {
        let detail = format!("{}; {}", self.detail, more.detail);
        Self { detail, ..self }.with(more.findings)
    }

    /// Adds what somebody has to be asked about to what they have to be asked about already.
    pub fn add_to(self, wanted: &mut Option<Self>) {
        *wanted = Some(match wanted.take() {
            None => self,
            Some(former) => former.and(self),
        });
    }

    /// The same verdict, about which nobody is asked.
    pub fn for_good(mut self) -> Self {
        self.findings.iter_mut().filter(|found| found.action == "ask").for_each(|found| found.action = "block");
        self
    }

    /// True when it is blocked only until somebody who is asked lets it go on.
    #[must_use]
    pub fn is_askable(&self) -> bool {
        let any = |action: &str| self.findings.iter().any(|found| found.action == action);
        self.is_block() && any("ask") && !any("block")
    }

    /// True when nothing may leave.
    #[must_use]
    pub fn is_block(&self) -> bool {
        self.action == Action::Block
    }

    /// What happened, for a person: the detail, or what the reason says in general.
    #[must_use]
    pub fn why(&self) -> &str {
        if self.detail.is_empty() { self.reason.hint() } else { &self.detail }
    }

    /// The layer that decided, as receipts and denials name it: `dlp`, `request_scan` (instructions that were to leave),
    /// `response_scan`, `scan` or `policy`.
    #[must_use]
    pub fn layer(&self) -> &'static str {
        match self.reason {
            Reason::DlpMatch => "dlp",
            Reason::InjectionMatch if self.is_outbound => "request_scan",
            Reason::InjectionMatch => "response_scan",
            Reason::ContentUnreadable | Reason::ScannerUnavailable => "scan",
            _ => "policy",
        }
    }

    /// The receipt's word for the action.
    #[must_use]
    pub fn word(&self) -> &'static str {
        let was = |action: &str| self.findings.iter().any(|found| found.action == action);
        match self.action {
            Action::Block => "block",
            Action::Allow if was("redact") => "strip",
            Action::Allow if was("warn") => "warn",
            Action::Allow => "allow",
        }
    }
}
