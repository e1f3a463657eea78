//! The receipt as it stands in the file: every member, in the order in which it is signed.
//!
//! Written by [`crate::chain`], read by [`crate::verify`]. The declaration order of the fields *is* the wire order, and
//! `skip_serializing_if` marks the members that are left out when empty; both are part of the signed bytes, so a change
//! here breaks every receipt ever written. Unknown members are refused everywhere.
//! Source: public action receipt v1, `action_record`, `session_control` and the nested structs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::draft::ActionType;

/// Version of receipt and record that this crate reads and writes.
pub const VERSION: u32 = 1;

/// `chain_prev_hash` of the first receipt of a chain without a session_open.
pub const LEGACY_GENESIS: &str = "genesis";

/// One receipt: the signed record and what proves it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// Always [`VERSION`].
    pub version: u32,
    /// The only signed part.
    pub action_record: ActionRecord,
    /// `ed25519:` and 128 lower-case hex digits, over SHA-256 of the record's canonical bytes.
    pub signature: String,
    /// The public key, 64 lower-case hex digits.
    pub signer_key: String,
    /// Data outside the signature; the members named in [`crate::bind`] are bound by hashes inside the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ext: Option<Box<RawValue>>,
}

/// What happened: the signed part of a receipt. Empty optional members are not written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct ActionRecord {
    pub version: u32,
    pub action_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parent_action_id: String,
    pub action_type: ActionType,
    pub timestamp: String,
    pub principal: String,
    pub actor: String,
    pub delegation_chain: Option<Vec<String>>,
    pub target: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub intent: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_classes_in: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub data_classes_out: Vec<String>,
    pub side_effect_class: String,
    pub reversibility: String,
    pub policy_hash: String,
    pub verdict: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub decision_phase: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub defer_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resolution_policy: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resolution_source: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session_id_original: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session_taint_level: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub session_contaminated: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent_taint_sources: Vec<Taint>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session_task_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session_task_label: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authority_kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub taint_decision: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub taint_decision_reason: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub task_override_applied: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contract_winning_source: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contract_live_verdict: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contract_policy_sources: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contract_rule_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub active_manifest_hash: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contract_hash: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contract_selector_id: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub contract_generation: u64,
    pub transport: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub layer: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pattern: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub severity: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Redaction>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shield: Option<Shield>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    pub chain_prev_hash: String,
    pub chain_seq: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run_nonce: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_transition: Option<KeyTransition>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_control: Option<SessionControl>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub venue: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jurisdiction: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rulebook_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy_class: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contestation_window: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub precedent_refs: Vec<String>,
}

/// What was taken out of the traffic. Never written empty: the public verifiers disagree about `{}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct Redaction {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub profile: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub provider: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parser: String,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub total_redactions: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_class: BTreeMap<String, i64>,
    #[serde(skip_serializing_if = "is_false")]
    pub cache_boundary_kept: bool,
}

/// What was disarmed in a response. Never written empty: the public verifiers disagree about `{}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct Shield {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pipeline: String,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub total_rewrites: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub extension_probes: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub tracking_beacons: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub agent_traps: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub fingerprint_shim_injected: bool,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub svg_foreign_objects: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub svg_event_handlers: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub svg_external_references: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub svg_hidden_text: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub svg_animation_injections: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub body_bytes: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub scanned_bytes: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub partial: bool,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub adaptive_signals_recorded: i64,
    #[serde(skip_serializing_if = "is_zero_signed")]
    pub adaptive_signal_max_per_body: i64,
}

/// A source that the session read and that may have influenced it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct Taint {
    pub url: String,
    pub kind: String,
    pub level: u8,
    pub timestamp: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub receipt_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub match_reason: String,
}

/// The boundary between two keys in one chain. We never write one: a run has one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct KeyTransition {
    pub prior_signer_key: String,
    pub prior_chain_seq: u64,
    pub prior_chain_hash: String,
}

/// Opens, keeps alive or closes a run. `kind` names the one payload that is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionControl {
    /// [`OPEN`], [`HEARTBEAT`] or [`CLOSE`].
    pub kind: String,
    /// With [`OPEN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Open>,
    /// With [`HEARTBEAT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Heartbeat>,
    /// With [`CLOSE`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close: Option<Close>,
}

/// `kind` of the first receipt of a run.
pub const OPEN: &str = "session_open";
/// `kind` of a sign of life.
pub const HEARTBEAT: &str = "heartbeat";
/// `kind` of the last receipt of a run.
pub const CLOSE: &str = "session_close";

/// `target` of the receipt that closes a run.
pub const CLOSE_TARGET: &str = "pipelock://session/close";

/// The one payload of a well-formed [`SessionControl`].
#[derive(Clone, Copy, Debug)]
pub enum Control<'a> {
    /// session_open.
    Open(&'a Open),
    /// heartbeat.
    Heartbeat(&'a Heartbeat),
    /// session_close.
    Close(&'a Close),
}

impl SessionControl {
    /// The payload, or `None` when kind and payloads do not match one to one.
    #[must_use]
    pub fn payload(&self) -> Option<Control<'_>> {
        match (self.kind.as_str(), &self.open, &self.heartbeat, &self.close) {
            (OPEN, Some(open), None, None) => Some(Control::Open(open)),
            (HEARTBEAT, None, Some(beat), None) => Some(Control::Heartbeat(beat)),
            (CLOSE, None, None, Some(close)) => Some(Control::Close(close)),
            _ => None,
        }
    }
}

/// Payload of session_open. All members but the last five of [`Open`]'s optional ones enter the genesis hash, see
/// [`crate::bind::genesis`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct Open {
    pub run_nonce: String,
    pub open_nonce: String,
    pub recorder_session: String,
    pub policy_hash: String,
    pub signer_key_epoch: String,
    pub heartbeat_seconds: i64,
    pub chain_open_seq: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prior_chain_head: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub prior_chain_seq: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub genesis_hash: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub genesis_anchor_head: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub genesis_anchor_log: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub posture_capsule_sha256: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub posture_signer_key_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub containment_nonce: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub contained_uid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_binding: Option<GroupBinding>,
}

/// Membership of a group of chains. We never write one; its shape is checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct GroupBinding {
    pub group_id: String,
    pub shard_index: i64,
    pub session_id: String,
    pub open_manifest_sha256: String,
    pub signer_key: String,
    pub previous_group_id: String,
    pub previous_open_manifest_sha256: String,
}

/// Payload of a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct Heartbeat {
    pub run_nonce: String,
    pub open_nonce: String,
    pub beat: u64,
    pub chain_head: String,
    pub chain_seq_head: u64,
    pub heartbeat_time: String,
    pub fsync_errors_gated: u64,
    pub durability_blocks: u64,
}

/// Payload of session_close.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct Close {
    pub run_nonce: String,
    pub open_nonce: String,
    pub final_seq: u64,
    pub root_hash: String,
    pub receipt_count: u64,
    pub close_reason: String,
    pub fsync_errors_gated: u64,
    pub durability_blocks: u64,
}

// serde hands these a reference, whatever the type.
fn is_false(value: &bool) -> bool {
    !*value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_zero_signed(value: &i64) -> bool {
    *value == 0
}
