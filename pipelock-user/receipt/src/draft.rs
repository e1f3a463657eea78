//! What the recorder hands over for one receipt, before it gets its place in the chain.
//!
//! [`crate::chain::ChainWriter`] turns a draft into an [`ActionRecord`]; every text passes [`clean`] on the way, because
//! hosts, paths, process names and findings are chosen by the agent.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::body::{ActionRecord, Redaction, Shield, Taint, VERSION};
use crate::canon::text::clean;

/// Most bytes kept of a target.
pub const MAX_TARGET: usize = 4096;
/// Most bytes kept of any other text.
pub const MAX_TEXT: usize = 1024;
/// Most items kept of a list.
pub const MAX_ITEMS: usize = 32;

/// What kind of action it is, in the public format's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words of the public format")]
pub enum ActionType {
    Read,
    Derive,
    Write,
    Delegate,
    Authorize,
    Spend,
    Commit,
    Actuate,
    Unclassified,
}

impl ActionType {
    /// The word in the receipt.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Derive => "derive",
            Self::Write => "write",
            Self::Delegate => "delegate",
            Self::Authorize => "authorize",
            Self::Spend => "spend",
            Self::Commit => "commit",
            Self::Actuate => "actuate",
            Self::Unclassified => "unclassified",
        }
    }

    /// The public format's mapping of HTTP methods.
    #[must_use]
    pub fn of_http_method(method: &str) -> (Self, SideEffect, Reversibility) {
        match method {
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "CONNECT" => {
                (Self::Read, SideEffect::ExternalRead, Reversibility::Full)
            }
            "POST" | "PUT" | "PATCH" => (Self::Write, SideEffect::ExternalWrite, Reversibility::Compensatable),
            "DELETE" => (Self::Write, SideEffect::ExternalWrite, Reversibility::Irreversible),
            _ => (Self::Unclassified, SideEffect::None, Reversibility::Unknown),
        }
    }
}

/// What the action does outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the public format")]
pub enum SideEffect {
    None,
    ExternalRead,
    ExternalWrite,
    Financial,
    Physical,
}

impl SideEffect {
    /// The word in the receipt.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ExternalRead => "external_read",
            Self::ExternalWrite => "external_write",
            Self::Financial => "financial",
            Self::Physical => "physical",
        }
    }
}

/// Whether the action can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of the public format")]
pub enum Reversibility {
    Full,
    Compensatable,
    Irreversible,
    Unknown,
}

impl Reversibility {
    /// The word in the receipt.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Compensatable => "compensatable",
            Self::Irreversible => "irreversible",
            Self::Unknown => "unknown",
        }
    }
}

/// One action to be recorded. Empty texts and lists are left out of the receipt.
#[derive(Clone, Debug)]
pub struct ActionDraft {
    /// When it happened. A time before that of the receipt before is moved up to it: the chain's clock never goes back.
    pub time: SystemTime,
    /// UUIDv7; made by the writer when absent. Give one to name the action elsewhere (log, 403 body).
    pub action_id: Option<String>,
    /// The action that caused this one.
    pub parent_action_id: String,
    /// The kind of action.
    pub action_type: ActionType,
    /// Who acted, as configured (`ci-agent`).
    pub actor: String,
    /// What it was about: URL, `host:port`, `pipelock://…`; not empty, at most [`MAX_TARGET`] bytes are kept.
    pub target: String,
    /// What the action does outside.
    pub side_effect: SideEffect,
    /// Whether it can be undone.
    pub reversibility: Reversibility,
    /// The policy that decided, if it is not the one the run opened with.
    pub policy_hash: Option<String>,
    /// `allow`, `block`, `warn`, `ask`, `strip`, `forward` or `redirect`; not empty.
    pub verdict: String,
    /// `forward`, `connect`, `intercept`, `ebpf` …; not empty.
    pub transport: String,
    /// HTTP or MCP method.
    pub method: String,
    /// The layer that decided (`dlp`, `ssrf`, `kernel_flow`).
    pub layer: String,
    /// The rule or reason code within the layer.
    pub pattern: String,
    /// `low` to `critical`.
    pub severity: String,
    /// The agent's own session, as it calls it.
    pub session_id: String,
    /// Ties receipts of one request together.
    pub request_id: String,
    /// Free text: what the action was for.
    pub intent: String,
    /// Classes of data that came in.
    pub data_classes_in: Vec<String>,
    /// Classes of data that went out.
    pub data_classes_out: Vec<String>,
    /// What the session had read before.
    pub recent_taint_sources: Vec<Taint>,
    /// What was taken out; not written when empty.
    pub redaction: Option<Redaction>,
    /// What was disarmed; not written when empty.
    pub shield: Option<Shield>,
}

impl ActionDraft {
    /// A draft with everything optional left out: unclassified, no known side effect, now.
    #[must_use]
    pub fn new(verdict: &str, transport: &str, target: impl Into<String>) -> Self {
        Self {
            time: SystemTime::now(),
            action_id: None,
            parent_action_id: String::new(),
            action_type: ActionType::Unclassified,
            actor: String::new(),
            target: target.into(),
            side_effect: SideEffect::None,
            reversibility: Reversibility::Unknown,
            policy_hash: None,
            verdict: verdict.to_owned(),
            transport: transport.to_owned(),
            method: String::new(),
            layer: String::new(),
            pattern: String::new(),
            severity: String::new(),
            session_id: String::new(),
            request_id: String::new(),
            intent: String::new(),
            data_classes_in: Vec::new(),
            data_classes_out: Vec::new(),
            recent_taint_sources: Vec::new(),
            redaction: None,
            shield: None,
        }
    }

    /// The record of this draft, cleaned; its place in the chain, time and id are still blank.
    pub(crate) fn to_record(&self) -> ActionRecord {
        ActionRecord {
            parent_action_id: text(&self.parent_action_id),
            action_type: self.action_type,
            actor: text(&self.actor),
            intent: text(&self.intent),
            data_classes_in: list(&self.data_classes_in),
            data_classes_out: list(&self.data_classes_out),
            side_effect_class: self.side_effect.word().to_owned(),
            reversibility: self.reversibility.word().to_owned(),
            session_id: text(&self.session_id),
            recent_taint_sources: self.recent_taint_sources.iter().take(MAX_ITEMS).map(taint).collect(),
            method: text(&self.method),
            layer: text(&self.layer),
            pattern: text(&self.pattern),
            severity: text(&self.severity),
            redaction: self.redaction.as_ref().map(redaction).filter(|redaction| *redaction != Redaction::default()),
            shield: self.shield.as_ref().map(shield).filter(|shield| *shield != Shield::default()),
            request_id: text(&self.request_id),
            ..blank_record(clean(&self.target, MAX_TARGET).into_owned(), text(&self.verdict), text(&self.transport))
        }
    }
}

/// A record with everything optional left out.
pub(crate) fn blank_record(target: String, verdict: String, transport: String) -> ActionRecord {
    ActionRecord {
        version: VERSION,
        action_id: String::new(),
        parent_action_id: String::new(),
        action_type: ActionType::Unclassified,
        timestamp: String::new(),
        principal: String::new(),
        actor: String::new(),
        delegation_chain: None,
        target,
        intent: String::new(),
        data_classes_in: Vec::new(),
        data_classes_out: Vec::new(),
        side_effect_class: SideEffect::None.word().to_owned(),
        reversibility: Reversibility::Unknown.word().to_owned(),
        policy_hash: String::new(),
        verdict,
        decision_phase: String::new(),
        defer_id: String::new(),
        resolution_policy: String::new(),
        resolution_source: String::new(),
        session_id: String::new(),
        session_id_original: String::new(),
        session_taint_level: String::new(),
        session_contaminated: false,
        recent_taint_sources: Vec::new(),
        session_task_id: String::new(),
        session_task_label: String::new(),
        authority_kind: String::new(),
        taint_decision: String::new(),
        taint_decision_reason: String::new(),
        task_override_applied: false,
        contract_winning_source: String::new(),
        contract_live_verdict: String::new(),
        contract_policy_sources: Vec::new(),
        contract_rule_id: String::new(),
        active_manifest_hash: String::new(),
        contract_hash: String::new(),
        contract_selector_id: String::new(),
        contract_generation: 0,
        transport,
        method: String::new(),
        layer: String::new(),
        pattern: String::new(),
        severity: String::new(),
        redaction: None,
        shield: None,
        request_id: String::new(),
        chain_prev_hash: String::new(),
        chain_seq: 0,
        run_nonce: String::new(),
        key_transition: None,
        session_control: None,
        venue: String::new(),
        jurisdiction: String::new(),
        rulebook_id: String::new(),
        remedy_class: String::new(),
        contestation_window: String::new(),
        precedent_refs: Vec::new(),
    }
}

pub(crate) fn text(text: &str) -> String {
    clean(text, MAX_TEXT).into_owned()
}

fn list(items: &[String]) -> Vec<String> {
    items.iter().take(MAX_ITEMS).map(|item| clean(item, 256).into_owned()).collect()
}

fn taint(taint: &Taint) -> Taint {
    Taint {
        url: text(&taint.url),
        kind: text(&taint.kind),
        level: taint.level,
        timestamp: text(&taint.timestamp),
        receipt_id: text(&taint.receipt_id),
        match_reason: text(&taint.match_reason),
    }
}

fn redaction(redaction: &Redaction) -> Redaction {
    Redaction {
        profile: text(&redaction.profile),
        provider: text(&redaction.provider),
        parser: text(&redaction.parser),
        total_redactions: number(redaction.total_redactions),
        by_class: redaction
            .by_class
            .iter()
            .take(MAX_ITEMS)
            .map(|(class, count)| (text(class), number(*count)))
            .collect(),
        cache_boundary_kept: redaction.cache_boundary_kept,
    }
}

fn shield(shield: &Shield) -> Shield {
    Shield {
        pipeline: text(&shield.pipeline),
        total_rewrites: number(shield.total_rewrites),
        extension_probes: number(shield.extension_probes),
        tracking_beacons: number(shield.tracking_beacons),
        agent_traps: number(shield.agent_traps),
        fingerprint_shim_injected: shield.fingerprint_shim_injected,
        svg_foreign_objects: number(shield.svg_foreign_objects),
        svg_event_handlers: number(shield.svg_event_handlers),
        svg_external_references: number(shield.svg_external_references),
        svg_hidden_text: number(shield.svg_hidden_text),
        svg_animation_injections: number(shield.svg_animation_injections),
        body_bytes: number(shield.body_bytes),
        scanned_bytes: number(shield.scanned_bytes),
        partial: shield.partial,
        adaptive_signals_recorded: number(shield.adaptive_signals_recorded),
        adaptive_signal_max_per_body: number(shield.adaptive_signal_max_per_body),
    }
}

/// Within the range that every reader keeps exact.
fn number(number: i64) -> i64 {
    let most = i64::try_from(crate::MAX_NUMBER).unwrap_or(i64::MAX);
    number.clamp(-most, most)
}
