//! Bundles: whatever a trusted key signed is taken or refused; what none signed is refused.
#![no_main]

use ed25519_dalek::{Signer as _, SigningKey};
use libfuzzer_sys::fuzz_target;
use pipelock_scan::RuleSet;
use pipelock_scan::rule::bundle::Bundle;

const START: &str = "format_version: 2\nname: fuzz\nmonotonic_version: 3\nexpires_at: '2099-01-01T00:00:00Z'\nrules:\n";

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (started, flip, rest) = input;
    let mut bytes = if started { START.as_bytes().to_vec() } else { Vec::new() };
    bytes.extend_from_slice(rest);
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut signature = key.sign(&bytes).to_bytes();
    if let Ok(bundle) = Bundle::verify(&bytes, &signature, &[key.verifying_key()], 1_700_000_000) {
        assert!(bundle.check_seen(bundle.version()).is_ok() && bundle.version().checked_add(1).is_none_or(|next| bundle.check_seen(next).is_err()));
        let _ = bundle.add_to(RuleSet::read(&[]).expect("no rules are no error"));
    }
    signature[usize::from(flip % 64)] ^= 1 << (flip % 8);
    assert!(Bundle::verify(&bytes, &signature, &[key.verifying_key()], 1_700_000_000).is_err());
    assert!(Bundle::verify(&bytes, &key.sign(&bytes).to_bytes(), &[], 1_700_000_000).is_err());
});
