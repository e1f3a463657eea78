//! Bech32 and Bech32m: segwit addresses, BNB addresses and age keys.
//!
//! Called by the age validator here and by `wallet`. Promises: one pass over at most [`MAX`] bytes, no panic.
//! Formats: BIP-173, BIP-350.

/// Longest text that is looked at, in bytes. BIP-173 stops at 90; age does not care about that limit.
pub const MAX: usize = 200;

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const VALUES: [u8; 128] = {
    let mut table = [0xff; 128];
    let mut at = 0;
    while at < CHARSET.len() {
        table[CHARSET[at] as usize] = at as u8;
        at += 1;
    }
    table
};

/// Which checksum constant fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// BIP-173.
    Bech32,
    /// BIP-350.
    Bech32m,
}

/// A text with a right checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The part before the last `1`, in lower case.
    pub prefix: String,
    /// The data, five bits a byte, without the checksum.
    pub data: Vec<u8>,
    /// Which of the two checksums it was.
    pub variant: Variant,
}

/// Decodes text all in lower or all in upper case; `None` when mixed, malformed or wrongly summed.
pub fn decode(text: &[u8]) -> Option<Decoded> {
    if text.len() > MAX || !text.iter().all(|byte| (33..127).contains(byte)) {
        return None;
    }
    if text.iter().any(u8::is_ascii_lowercase) && text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let split = text.iter().rposition(|&byte| byte == b'1')?;
    let (prefix, data) = (&text[..split], &text[split + 1..]);
    if prefix.is_empty() || data.len() < 6 {
        return None;
    }
    let mut values = Vec::with_capacity(data.len());
    for &byte in data {
        let value = VALUES[usize::from(byte)];
        if value == 0xff {
            return None;
        }
        values.push(value);
    }
    let high = prefix.iter().map(|byte| byte >> 5);
    let low = prefix.iter().map(|byte| byte & 31);
    let sum = polymod(high.chain([0]).chain(low).chain(values.iter().copied()));
    let variant = match sum {
        1 => Variant::Bech32,
        0x2bc8_30a3 => Variant::Bech32m,
        _ => return None,
    };
    values.truncate(values.len() - 6);
    Some(Decoded { prefix: String::from_utf8(prefix.to_vec()).ok()?, data: values, variant })
}

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let mut sum = 1u32;
    for value in values {
        let top = sum >> 25;
        sum = ((sum & 0x01ff_ffff) << 5) ^ u32::from(value);
        for (bit, generator) in GENERATOR.iter().enumerate() {
            if (top >> bit) & 1 == 1 {
                sum ^= generator;
            }
        }
    }
    sum
}

/// Eight-bit bytes out of five-bit ones; `None` when more than four or other than zero bits are left over.
pub fn to_bytes(data: &[u8]) -> Option<Vec<u8>> {
    let (mut bits, mut count) = (0u32, 0u32);
    let mut bytes = Vec::with_capacity(data.len() * 5 / 8);
    for &value in data {
        bits = (bits << 5) | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (count < 5 && bits == 0).then_some(bytes)
}

/// An age identity: `AGE-SECRET-KEY-1…` (X25519, 32 bytes) or `AGE-SECRET-KEY-PQ-1…`, in Bech32.
pub(super) fn age_secret_key(text: &[u8]) -> bool {
    decode(text).is_some_and(|key| {
        key.variant == Variant::Bech32
            && key.prefix.starts_with("age-secret-key-")
            && to_bytes(&key.data).is_some_and(|bytes| bytes.len() == 32)
    })
}

/// A Nostr secret key (NIP-19): `nsec1…`, 32 bytes in Bech32.
pub(super) fn nostr_secret_key(text: &[u8]) -> bool {
    decode(text).is_some_and(|key| key.prefix == "nsec" && to_bytes(&key.data).is_some_and(|bytes| bytes.len() == 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_of_the_bips() {
        for text in ["A12UEL5L", "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw"] {
            assert_eq!(decode(text.as_bytes()).unwrap().variant, Variant::Bech32, "{text}");
        }
        for text in ["A1LQFN3A", "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx"] {
            assert_eq!(decode(text.as_bytes()).unwrap().variant, Variant::Bech32m, "{text}");
        }
        for text in ["1nwldj5", "A12UEl5L", "de1lg7wt", "x1b4n0q5v", ""] {
            assert!(decode(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn left_over_bits_must_be_zero() {
        assert_eq!(to_bytes(&[0x1f, 0x1c]).unwrap(), [0xff]);
        assert!(to_bytes(&[0x1f, 0x1d]).is_none());
        assert!(to_bytes(&[0x1f]).is_none());
    }
}
