//! The flight-recorder entry around each receipt: the outer hash chain and its signed checkpoints.
//!
//! Written by [`crate::chain`], checked by [`crate::verify`]. Source: recorder entry v2 (v1, without `event_kind`, is
//! read too). The entry hash covers the exact bytes of `detail`, so "what is on disk" is "what is hashed".

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::canon::go_json_into;
use crate::codec::hex;

/// The version we write.
pub const VERSION: u32 = 2;
/// `type` of an entry that holds a receipt.
pub const ACTION_RECEIPT: &str = "action_receipt";
/// `type` of an entry that signs the entry chain so far.
pub const CHECKPOINT: &str = "checkpoint";
/// `type` of the entry that sums the receipt chain up, after session_close.
pub const TRANSCRIPT_ROOT: &str = "transcript_root";
/// The types that the public verifiers skip and refuse nothing about.
pub const OTHER_TYPES: [&str; 4] = ["decision", "evidence_receipt", "capture", "capture_drop"];
/// `prev_hash` of the first entry.
pub const GENESIS: &str = "genesis";

/// One line of a recorder file, in wire order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the members are those of the public format and mean what their names say")]
pub struct Entry<'a> {
    pub v: u32,
    pub seq: u64,
    #[serde(borrow)]
    pub ts: Cow<'a, str>,
    #[serde(borrow)]
    pub session_id: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub trace_id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub event_kind: Cow<'a, str>,
    #[serde(borrow)]
    pub transport: Cow<'a, str>,
    #[serde(borrow)]
    pub summary: Cow<'a, str>,
    #[serde(borrow)]
    pub detail: &'a RawValue,
    #[serde(borrow, default, skip_serializing_if = "str::is_empty")]
    pub raw_ref: Cow<'a, str>,
    #[serde(borrow)]
    pub prev_hash: Cow<'a, str>,
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
}

impl Entry<'_> {
    /// The hash this entry must carry; `None` for a version whose layout is not known here, and for a member with a
    /// NUL, which would make the hashed text ambiguous.
    #[must_use]
    pub fn computed_hash(&self) -> Option<String> {
        let (v, seq) = (self.v.to_string(), self.seq.to_string());
        let mut fields: Vec<&str> = vec![&v, &seq, &self.ts, &self.session_id, &self.trace_id, &self.kind];
        match self.v {
            1 if self.event_kind.is_empty() => {}
            2 => fields.push(&self.event_kind),
            _ => return None,
        }
        fields.extend([&*self.transport, &self.summary, self.detail.get(), &self.raw_ref, &self.prev_hash]);
        if fields.iter().any(|field| field.contains('\0')) {
            return None;
        }
        Some(hash_fields(&fields))
    }
}

fn hash_fields(fields: &[&str]) -> String {
    let mut hash = Sha256::new();
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            hash.update([0]);
        }
        hash.update(field.as_bytes());
    }
    hex(&hash.finalize())
}

/// An entry about to be written: everything but its place in the chain.
pub(crate) struct Unplaced<'a> {
    pub(crate) ts: &'a str,
    pub(crate) session_id: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) event_kind: &'a str,
    pub(crate) transport: &'a str,
    pub(crate) summary: &'a str,
    pub(crate) detail: &'a str,
}

impl Unplaced<'_> {
    /// Appends the entry as one line to `out` and returns its hash.
    pub(crate) fn write(&self, out: &mut Vec<u8>, seq: u64, prev_hash: &str) -> serde_json::Result<String> {
        let seq = seq.to_string();
        let hash = hash_fields(&[
            "2",
            &seq,
            self.ts,
            self.session_id,
            "",
            self.kind,
            self.event_kind,
            self.transport,
            self.summary,
            self.detail,
            "",
            prev_hash,
        ]);
        out.extend(b"{\"v\":2,\"seq\":");
        out.extend(seq.bytes());
        for (name, value) in [
            (",\"ts\":", self.ts),
            (",\"session_id\":", self.session_id),
            (",\"type\":", self.kind),
            (",\"event_kind\":", self.event_kind),
            (",\"transport\":", self.transport),
            (",\"summary\":", self.summary),
        ] {
            out.extend(name.bytes());
            go_json_into(out, value)?;
        }
        out.extend(b",\"detail\":");
        out.extend(self.detail.bytes());
        out.extend(b",\"prev_hash\":\"");
        out.extend(prev_hash.bytes());
        out.extend(b"\",\"hash\":\"");
        out.extend(hash.bytes());
        out.extend(b"\"}\n");
        Ok(hash)
    }
}

/// `detail` of a checkpoint: signs the hash of the entry before it, and with it the whole entry chain so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Entries since the checkpoint before.
    pub entry_count: u64,
    /// The first of them.
    pub first_seq: u64,
    /// The last of them: the entry before this one.
    pub last_seq: u64,
    /// 128 lower-case hex digits, over the 64 ASCII bytes of this entry's `prev_hash`.
    pub signature: String,
}

/// `detail` of the transcript root.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranscriptRoot {
    /// The recorder session.
    pub session_id: String,
    /// `chain_seq` of the last receipt.
    pub final_seq: u64,
    /// Hash of the last receipt.
    pub root_hash: String,
    /// Number of receipts.
    pub receipt_count: u64,
    /// Time of the first receipt.
    pub start_time: String,
    /// Time of the last receipt.
    pub end_time: String,
}
