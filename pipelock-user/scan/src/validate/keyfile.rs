//! Keys that can be told by what is in them: DER (RFC 5208, 5915, 8017), pairs of Ed25519 whose halves belong together (RFC 8032),
//! Bech32 and Base58Check of several chains.
//!
//! Called through [`super::lookup`]. Promises: one derivation of a public key at most, and that only for 64 bytes; no panic.

use super::{base58, bech32};
use ed25519_dalek::SigningKey;

/// The length that a DER header says, and the bytes it takes with its tag; `None` for one longer than two bytes.
fn der(text: &[u8]) -> Option<(usize, usize)> {
    match *text {
        [_, length @ 0..=0x7f, ..] => Some((usize::from(length), 2)),
        [_, 0x81, length, ..] => Some((usize::from(length), 3)),
        [_, 0x82, high, low, ..] => Some((usize::from(high) << 8 | usize::from(low), 4)),
        _ => None,
    }
}

/// The beginning of a private key in DER: of RSA alone, or with the name of its algorithm, or of an elliptic curve. The pattern has
/// seen the tags; here the lengths have to be those of a key.
pub(super) fn der_key(text: &[u8]) -> bool {
    let Some((length, header)) = der(text) else { return false };
    let fits = match text.get(header..) {
        // RSA: version, modulus, and seven numbers more, which together are three and a half times as long.
        Some([2, 1, 0, rest @ ..]) if rest.first() == Some(&2) => {
            der(rest).is_some_and(|(modulus, _)| (modulus * 4..modulus * 5 + 64).contains(&length))
        }
        // PKCS#8: version, algorithm, and the key in an octet string that ends with the whole, or before attributes.
        Some([2, 1, 0 | 1, rest @ ..]) if rest.first() == Some(&0x30) => der(rest).is_some_and(|(algorithm, inner)| {
            let at = algorithm + inner;
            let key = rest.get(at..).filter(|key| key.first() == Some(&4)).and_then(der);
            key.is_some_and(|(key, head)| 3 + at + head + key <= length && key >= 32)
        }),
        // An elliptic curve's: version 1 and the number.
        Some([2, 1, 1, 4, size, ..]) => length > usize::from(*size) + 8,
        _ => false,
    };
    let body = text.get(text.len().saturating_sub(24)..).unwrap_or_default();
    fits && body.iter().collect::<std::collections::BTreeSet<_>>().len() >= 8
}

/// A seed and the public key that belongs to it.
fn is_pair(bytes: &[u8]) -> bool {
    let Some((seed, public)) = bytes.split_first_chunk::<32>() else { return false };
    public.len() == 32 && SigningKey::from_bytes(seed).verifying_key().as_bytes() == public
}

/// A pair in Base58.
pub(super) fn ed25519_pair(text: &[u8]) -> bool {
    base58::decode(text).is_some_and(|bytes| is_pair(&bytes))
}

/// A pair as 64 numbers, as Solana's tools keep it in a file.
pub(super) fn ed25519_numbers(text: &[u8]) -> bool {
    let mut bytes = Vec::with_capacity(64);
    for number in text.split(|byte| *byte == b',') {
        let byte = std::str::from_utf8(number).ok().and_then(|number| number.trim().parse::<u8>().ok());
        match byte {
            Some(byte) if bytes.len() < 64 => bytes.push(byte),
            _ => return false,
        }
    }
    is_pair(&bytes)
}

/// A secret key in Bech32, whatever its prefix: the checksum is right and holds for at least 32 bytes.
pub(super) fn bech32_key(text: &[u8]) -> bool {
    bech32::decode(text)
        .is_some_and(|key| bech32::to_bytes(&key.data).is_some_and(|bytes| (32..=132).contains(&bytes.len())))
}

/// A secret key in Base58Check, whatever its version.
pub(super) fn base58_key(text: &[u8]) -> bool {
    base58::decode_check(text).is_some_and(|payload| (32..=72).contains(&payload.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_of_a_pair_belong_together() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let mut bytes = key.to_keypair_bytes();
        let text = |bytes: &[u8]| bytes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        assert!(ed25519_numbers(text(&bytes).as_bytes()));
        assert!(!ed25519_numbers(text(&bytes[..63]).as_bytes()) && !ed25519_numbers(b"1,2,,4"));
        bytes[40] ^= 1;
        assert!(!ed25519_numbers(text(&bytes).as_bytes()));
    }

    #[test]
    fn lengths_tell_a_key_in_der() {
        let noise: Vec<u8> = (0..40u8).map(|byte| byte.wrapping_mul(37)).collect();
        let with = |head: &[u8]| [head, &noise].concat();
        let rsa = [0x30, 0x82, 0x04, 0xa4, 2, 1, 0, 2, 0x82, 1, 1, 0];
        let edwards = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let curve = [0x30, 0x77, 2, 1, 1, 4, 0x20];
        for head in [&rsa[..], &edwards, &curve] {
            assert!(der_key(&with(head)), "{head:?}");
            assert!(!der_key(&[head, &[0; 40]].concat()), "{head:?}");
        }
        assert!(!der_key(&with(&[0x30, 0x82, 0x01, 0xa4, 2, 1, 0, 2, 0x82, 1, 1, 0])));
        assert!(!der_key(&with(&[0x30, 0x1e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20])));
        assert!(!der_key(b"0") && !der_key(b""));
    }
}
