//! What goes into a run and comes out of it: how it opens, what a receipt gets, how it ends, why writing fails.

use std::io;
use std::time::SystemTime;

use serde_json::Value;

use crate::MAX_LINE;
use crate::canon::JcsError;

/// Why a receipt was not written.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The draft lacks something that every receipt must have. Nothing was written; the chain goes on.
    #[error("the receipt has no {0}; nothing was recorded")]
    Draft(&'static str),
    /// `ext` cannot be bound. Nothing was written; the chain goes on.
    #[error("the receipt's ext is not usable: {0}; nothing was recorded")]
    Ext(JcsError),
    /// The receipt would be longer than a line may be. Nothing was written; the chain goes on.
    #[error("the receipt is longer than {MAX_LINE} bytes; nothing was recorded")]
    TooLong,
    /// The run was closed.
    #[error("the run is closed; nothing more can be recorded")]
    Closed,
    /// Writing failed now; this writer will not write again.
    #[error("evidence could not be written: {0}")]
    Io(#[from] io::Error),
    /// Writing failed earlier.
    #[error("evidence could not be written earlier, so nothing more is recorded")]
    Poisoned,
    /// The kernel gave no random bytes.
    #[error("the system has no random numbers: {0}")]
    Random(getrandom::Error),
    /// A record could not be encoded. A defect.
    #[error("the receipt could not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

/// What a run is opened with. All of it but `principal`, `time` and `ext` is bound into the genesis hash.
#[derive(Clone, Debug)]
pub struct Opening {
    /// When.
    pub time: SystemTime,
    /// SHA-256 of the policy, 64 lower-case hex digits.
    pub policy_hash: String,
    /// On whose behalf (`local`, `org:…`); stands in every receipt.
    pub principal: String,
    /// Seconds between heartbeats that the recorder means to keep.
    pub heartbeat_seconds: u32,
    /// SHA-256 of the description of what enforces: binary, programs, cgroup.
    pub posture_capsule_sha256: Option<String>,
    /// A value chosen by the caller that makes this run unrepeatable, or names its cgroup.
    pub containment_nonce: Option<String>,
    /// The user that the agent runs as.
    pub contained_uid: Option<u32>,
    /// A public value that did not exist before (beacon, log head).
    pub genesis_anchor_head: Option<String>,
    /// Where that value was published.
    pub genesis_anchor_log: Option<String>,
    /// `ext` of the session_open receipt, as for [`ChainWriter::append`](super::ChainWriter::append).
    pub ext: Option<Value>,
}

impl Opening {
    /// An opening at this moment, with a heartbeat a minute and nothing optional.
    #[must_use]
    pub fn new(policy_hash: impl Into<String>, principal: impl Into<String>) -> Self {
        Self {
            time: SystemTime::now(),
            policy_hash: policy_hash.into(),
            principal: principal.into(),
            heartbeat_seconds: 60,
            posture_capsule_sha256: None,
            containment_nonce: None,
            contained_uid: None,
            genesis_anchor_head: None,
            genesis_anchor_log: None,
            ext: None,
        }
    }
}

/// The place that a receipt got.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Appended {
    /// Its number in the chain.
    pub seq: u64,
    /// Its hash, 64 lower-case hex digits.
    pub receipt_hash: String,
    /// Its action id.
    pub action_id: String,
    /// True when a checkpoint was written behind it: a good moment for `sync`.
    pub checkpoint: bool,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Number of the last receipt.
    pub final_seq: u64,
    /// Hash of the last receipt.
    pub root_hash: String,
    /// Number of receipts.
    pub receipt_count: u64,
}
