//! One receipt on its own: is every byte what the key signed, and does it keep to the format?
//!
//! The rule is simple: parse the text, write it again in canonical form, and demand the same bytes. Then nothing in the
//! text can differ from what was signed and hashed, whatever a parser makes of it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::report::ProblemKind;
use crate::bind::{self, BOUND_MEMBERS, sha256_hex};
use crate::body::{ActionRecord, CLOSE, CLOSE_TARGET, VERSION};
use crate::canon::{Timestamp, go_json, is_go_compact, jcs, strict};
use crate::codec::unhex;
use crate::sign::PublicKey;
use crate::stats::flow_id;

/// A receipt whose signature and format hold.
pub(super) struct Good {
    pub(super) record: ActionRecord,
    pub(super) time: Timestamp,
    /// Its hash, 64 hex digits.
    pub(super) hash: String,
    pub(super) ext: Option<Value>,
    /// How `ext` differs from what the record binds.
    pub(super) ext_fault: Option<String>,
    /// The first member of `ext` that the record does not bind, which only the next receipt's link covers.
    pub(super) unbound: Option<String>,
}

impl Good {
    /// The flow it belongs to.
    pub(super) fn flow(&self) -> Option<u64> {
        self.ext.as_ref().and_then(flow_id)
    }
}

/// A receipt that does not hold, and what it claims to be.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) kind: ProblemKind,
    pub(super) text: String,
    pub(super) claim: Claim,
}

/// What a receipt says about itself, for orientation only.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) seq: Option<u64>,
    pub(super) flow: Option<u64>,
    pub(super) action_id: String,
    /// It looks like a session_close, or cannot be read well enough to tell.
    pub(super) closes: bool,
    /// The line that it stands in.
    pub(super) line: u64,
}

impl Claim {
    /// What is claimed by a receipt that cannot be read.
    pub(super) fn unknown() -> Self {
        Self { seq: None, flow: None, action_id: String::new(), closes: true, line: 0 }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    version: u32,
    #[serde(borrow)]
    action_record: &'a RawValue,
    #[serde(borrow)]
    signature: Cow<'a, str>,
    #[serde(borrow)]
    signer_key: Cow<'a, str>,
    #[serde(borrow, default)]
    ext: Option<&'a RawValue>,
}

/// The key that a chain is verified with.
pub(super) struct Keys {
    /// The chain's key: the pinned one, or that of the first receipt that verifies.
    pub(super) chain: Option<PublicKey>,
    /// Whether a receipt has verified with it.
    confirmed: bool,
    /// Set when a pinned key had to be given up because the chain is another key's.
    pub(super) replaced: Option<PublicKey>,
}

impl Keys {
    pub(super) fn new(pinned: Option<PublicKey>) -> Self {
        Self { chain: pinned, confirmed: false, replaced: None }
    }

    /// Checks a signature; on failure says what kind of failure it is.
    fn check(&mut self, digest: &[u8], signature: &str, signer: &str) -> Result<(), (ProblemKind, String)> {
        let claimed = unhex::<32>(signer).and_then(|bytes| PublicKey::from_bytes(&bytes));
        if let Some(key) = self.chain.filter(|key| key.verify_hex(digest, signature)) {
            self.confirmed = true;
            return if claimed == Some(key) {
                Ok(())
            } else {
                Err((ProblemKind::Altered, "the signature holds, but the member signer_key was changed".to_owned()))
            };
        }
        let Some(claimed) = claimed.filter(|key| self.chain != Some(*key) && key.verify_hex(digest, signature)) else {
            return Err((
                ProblemKind::Altered,
                "the signature does not fit the record: it was changed after signing".to_owned(),
            ));
        };
        if self.confirmed {
            return Err((
                ProblemKind::KeyMismatch,
                format!("it is signed by another key than the rest of the chain: {claimed}"),
            ));
        }
        self.replaced = self.chain.replace(claimed);
        self.confirmed = true;
        Ok(())
    }
}

/// Checks one receipt.
pub(super) fn check(text: &str, keys: &mut Keys) -> Result<Good, Bad> {
    let unreadable = |why: String| Bad {
        kind: ProblemKind::Altered,
        text: format!("the receipt cannot be read: {why}"),
        claim: Claim::unknown(),
    };
    strict::check(text).map_err(unreadable)?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    let ext: Option<Value> = envelope.ext.and_then(|ext| serde_json::from_str(ext.get()).ok());
    let mut claim = Claim { flow: ext.as_ref().and_then(flow_id), ..Claim::unknown() };
    let record: ActionRecord = match serde_json::from_str(envelope.action_record.get()) {
        Ok(record) => record,
        Err(error) => {
            let text = format!("the record is not an action record: {error}");
            return Err(Bad { kind: ProblemKind::Altered, text, claim });
        }
    };
    claim.seq = Some(record.chain_seq);
    claim.action_id.clone_from(&record.action_id);
    // Two members say so; one of them may be what was changed.
    claim.closes = record.target == CLOSE_TARGET
        || record.session_control.as_ref().is_some_and(|control| control.kind == CLOSE || control.close.is_some());
    match judge(text, &envelope, &record, keys) {
        Ok(time) => {
            let (ext_fault, unbound) = binding(&record, ext.as_ref());
            Ok(Good { time, hash: sha256_hex(text.as_bytes()), ext, ext_fault, unbound, record })
        }
        Err((kind, text)) => Err(Bad { kind, text, claim }),
    }
}

fn judge(
    text: &str,
    envelope: &Envelope<'_>,
    record: &ActionRecord,
    keys: &mut Keys,
) -> Result<Timestamp, (ProblemKind, String)> {
    let signature = envelope
        .signature
        .strip_prefix("ed25519:")
        .ok_or((ProblemKind::Altered, "the signature does not begin with ed25519:".to_owned()))?;
    let digest = Sha256::digest(envelope.action_record.get().as_bytes());
    keys.check(&digest, signature, &envelope.signer_key)?;

    // From here on the record is what the key signed; the envelope around it is not yet.
    let ext = envelope.ext.map(|ext| format!(",\"ext\":{}", ext.get())).unwrap_or_default();
    let canonical = format!(
        "{{\"version\":{},\"action_record\":{},\"signature\":\"{}\",\"signer_key\":\"{}\"{ext}}}",
        envelope.version,
        envelope.action_record.get(),
        envelope.signature,
        envelope.signer_key,
    );
    if canonical != text || !is_go_compact(&ext) || envelope.version != VERSION {
        return Err((ProblemKind::Altered, "the text around the signed record is not as it is written".to_owned()));
    }
    let rule = |why: &str| (ProblemKind::Format, format!("it is signed, but against the format: {why}"));
    if go_json(record).ok().as_deref() != Some(envelope.action_record.get().as_bytes()) {
        return Err(rule("the record is not in canonical form"));
    }
    if record.version != VERSION {
        return Err(rule("the record's version is not 1"));
    }
    let required = [&record.action_id, &record.target, &record.verdict, &record.transport];
    if required.iter().any(|member| member.is_empty()) {
        return Err(rule("action_id, target, verdict or transport is empty"));
    }
    if record.session_control.as_ref().is_some_and(|control| control.payload().is_none()) {
        return Err(rule("session_control must carry the one payload that its kind names"));
    }
    if record.key_transition.is_some() {
        return Err(rule("the key changes within the chain; a run has one key"));
    }
    record.timestamp.parse().map_err(|error: crate::canon::TimestampError| rule(&format!("timestamp: {error}")))
}

/// How `ext` differs from what the record binds, and the first member that it does not bind.
fn binding(record: &ActionRecord, ext: Option<&Value>) -> (Option<String>, Option<String>) {
    for member in BOUND_MEMBERS {
        let prefix = bind::reference_prefix(member);
        let mut bound = record.precedent_refs.iter().filter_map(|reference| reference.strip_prefix(&prefix));
        let fault = match (bound.next(), bound.next(), ext.and_then(|ext| ext.get(member))) {
            (None, _, None) => continue,
            (Some(hash), None, Some(value)) => match jcs(value) {
                Ok(canonical) if sha256_hex(&canonical) == hash => continue,
                _ => "does not have the hash that the record signs: it was changed",
            },
            (Some(_), None, None) => "was removed; the record still signs its hash",
            (None, _, Some(_)) => "is not bound by the record: it was added",
            (Some(_), Some(_), _) => "is bound twice by the record",
        };
        return (Some(format!("ext.{member} {fault}")), None);
    }
    let unbound = match ext {
        None => None,
        Some(Value::Object(members)) => members.keys().find(|name| !BOUND_MEMBERS.contains(&name.as_str())).cloned(),
        Some(_) => Some(String::new()),
    };
    // `"ext":{}` says nothing, but it is text that no signature covers.
    (
        None,
        unbound.or_else(|| {
            ext.filter(|ext| ext.as_object().is_some_and(serde_json::Map::is_empty)).map(|_| String::new())
        }),
    )
}
