//! The hashes that tie things together: links of the chain, the genesis of a run, and `ext` to the signed record.
//!
//! `ext` stands outside the signature and is only covered by the *next* receipt's link. Each of our members in it is
//! therefore hashed into `precedent_refs`, a signed list of strings, so that an edit or removal shows on any receipt,
//! also on the last: `flow.v1:sha256:<hex>` for `ext.flow_v1`.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::body::Open;
use crate::canon::{JcsError, jcs};
use crate::codec::hex;

/// The members of `ext` that are bound, in the order of their references.
pub const BOUND_MEMBERS: [&str; 5] = ["flow_v1", "kernel_v1", "capsule_v1", "socket_v1", "denials_v1"];

/// SHA-256 as 64 lower-case hex digits.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What a reference to this member begins with: `flow.v1:sha256:`.
#[must_use]
pub fn reference_prefix(member: &str) -> String {
    format!("{}:sha256:", member.replace('_', "."))
}

/// The references that bind `ext`, one for each bound member it has.
///
/// # Errors
/// [`JcsError`] when a member has no canonical form.
pub fn references(ext: &Value) -> Result<Vec<String>, JcsError> {
    let mut references = Vec::new();
    for member in BOUND_MEMBERS {
        if let Some(value) = ext.get(member) {
            references.push(format!("{}{}", reference_prefix(member), sha256_hex(&jcs(value)?)));
        }
    }
    Ok(references)
}

/// The genesis hash that a session_open on a new chain is bound to: `g1:` and SHA-256 over the length-prefixed fields.
#[must_use]
pub fn genesis(open: &Open) -> String {
    let mut hash = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(bytes);
    };
    field(b"pipelock.receipt.session_open.v1");
    field(open.run_nonce.as_bytes());
    field(open.open_nonce.as_bytes());
    field(open.recorder_session.as_bytes());
    field(open.policy_hash.as_bytes());
    field(open.signer_key_epoch.as_bytes());
    field(&u64::try_from(open.heartbeat_seconds).unwrap_or(0).to_be_bytes());
    field(open.genesis_anchor_head.as_bytes());
    field(open.genesis_anchor_log.as_bytes());
    field(open.posture_capsule_sha256.as_bytes());
    field(open.containment_nonce.as_bytes());
    field(open.contained_uid.as_bytes());
    format!("g1:{}", hex(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn published_genesis_hashes() {
        let mut open = Open {
            run_nonce: "acba25512100f80b56fc3ccd14c65be5".into(),
            open_nonce: "a0d491e5c7dcd51ba67796c4d8db53c7".into(),
            recorder_session: "proxy.run.acba25512100f80b56fc3ccd14c65be5".into(),
            policy_hash: "3d089599e2b17930e4579044928ba7d9d77927b35f3fccbd491d80de41cef1d3".into(),
            signer_key_epoch: "2e32a46550e6f0778ba1474445bcea6ae13985e6c39d7a960c2c706350fc3318".into(),
            heartbeat_seconds: 60,
            ..Open::default()
        };
        assert_eq!(genesis(&open), "g1:5b5b48e5c3fe15f62488eea173761ed6f514382f29bf3b1fc440a353fcad9fef");
        open.recorder_session = "proxy".into();
        open.genesis_anchor_head = "rekor:1234:abcd".into();
        open.genesis_anchor_log = "https://rekor.example".into();
        open.posture_capsule_sha256 = "ed5b01d64ce2b066e33de2343b38ea7006cb69d5323cab96bebffe7565472d61".into();
        open.containment_nonce = "cgroup-77".into();
        open.contained_uid = "1001".into();
        assert_eq!(genesis(&open), "g1:217d6f68618eb4f8f37c2750df6f8cf2966b6e9b0d73348e5d10c6056504c718");
    }

    #[test]
    fn published_flow_reference() {
        let ext = json!({"other": 1, "flow_v1": {
            "sock_cookie": "18446744073709551615", "cgroup_id": "9007199254740993", "pid": 4242, "tgid": 4242,
            "start_boottime_ns": "123456789012", "uid": 1001, "comm": "curl",
            "exe_sha256": "f0da955d46aa49e3cac477d43e22c56cf83a7cb4b2a9805b3d995c2920df9cff",
            "netns_ino": "4026531840", "proto": "tcp", "src": "10.0.0.2:43122", "orig_dst": "93.184.216.34:443",
            "tx_bytes": "1234", "rx_bytes": "56789", "hook": "cgroup/connect4"}});
        assert_eq!(
            references(&ext).unwrap(),
            ["flow.v1:sha256:8dd52ccd23cdc2449b473bc7f662016cf10dc5d11f162a6d53d62d2a9cd7c512"]
        );
        assert_eq!(references(&json!([])).unwrap(), Vec::<String>::new());
    }
}
