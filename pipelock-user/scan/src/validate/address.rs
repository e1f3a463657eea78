//! Addresses of chains, told by their checksums.
//!
//! Called by the rules' validators and by `wallet`, which finds, compares and judges them. Promises: at most
//! [`super::bech32::MAX`] bytes are looked at, nothing panics.
//! Formats: Base58Check, BIP-173, BIP-350, EIP-55, BEP-2 (`bnb1…`), StrKey (SEP-23).

use super::{base58, bech32, keccak};

/// A Bitcoin main net address: P2PKH, P2SH, or segwit of any version with the checksum its version demands.
pub fn bitcoin(text: &[u8]) -> bool {
    let base58 = matches!(text.first(), Some(b'1' | b'3'))
        && text.len() <= 36
        && base58::decode_check(text).is_some_and(|payload| payload.len() == 21 && matches!(payload[0], 0x00 | 0x05));
    base58 || segwit(text)
}

fn segwit(text: &[u8]) -> bool {
    let Some(address) = bech32::decode(text) else { return false };
    let Some((&version, program)) = address.data.split_first() else { return false };
    let Some(program) = bech32::to_bytes(program) else { return false };
    let right = match version {
        0 => address.variant == bech32::Variant::Bech32 && matches!(program.len(), 20 | 32),
        1..=16 => address.variant == bech32::Variant::Bech32m && (2..=40).contains(&program.len()),
        _ => false,
    };
    address.prefix == "bc" && right
}

/// A BNB Beacon Chain address: `bnb1…`, 20 bytes in Bech32. (BNB Smart Chain uses Ethereum's form.)
pub fn bnb(text: &[u8]) -> bool {
    bech32::decode(text).is_some_and(|address| {
        address.prefix == "bnb"
            && address.variant == bech32::Variant::Bech32
            && bech32::to_bytes(&address.data).is_some_and(|bytes| bytes.len() == 20)
    })
}

/// A Solana address: 32 bytes in Base58. It has no checksum, so callers want more than the form.
pub fn solana(text: &[u8]) -> bool {
    (32..=44).contains(&text.len()) && base58::decode(text).is_some_and(|bytes| bytes.len() == 32)
}

/// How the letters of an Ethereum address stand to EIP-55.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eip55 {
    /// All letters in one case: no checksum to check.
    Absent,
    /// Mixed case as the hash demands.
    Right,
    /// Mixed case, and not as the hash demands: mistyped or altered.
    Wrong,
}

/// Checks `0x` and 40 hexadecimal digits; `None` for any other text.
pub fn ethereum(text: &[u8]) -> Option<Eip55> {
    let digits = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X"))?;
    if digits.len() != 40 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let upper = digits.iter().any(u8::is_ascii_uppercase);
    let lower = digits.iter().any(u8::is_ascii_lowercase);
    if !(upper && lower) {
        return Some(Eip55::Absent);
    }
    let hash = keccak::keccak256(&digits.to_ascii_lowercase());
    let right = digits.iter().enumerate().all(|(at, digit)| {
        let nibble = (hash[at / 2] >> (if at % 2 == 0 { 4 } else { 0 })) & 15;
        !digit.is_ascii_alphabetic() || digit.is_ascii_uppercase() == (nibble >= 8)
    });
    Some(if right { Eip55::Right } else { Eip55::Wrong })
}

/// An Ethereum address in mixed case with a right checksum: in text, the others are too easily something else.
pub(super) fn ethereum_checksummed(text: &[u8]) -> bool {
    ethereum(text) == Some(Eip55::Right)
}

/// A Stellar secret seed: Base32 of a version byte, 32 bytes and a CRC-16/XMODEM of them.
pub(super) fn stellar_seed(text: &[u8]) -> bool {
    if text.len() != 56 {
        return false;
    }
    let (mut bits, mut count) = (0u32, 0u32);
    let mut bytes = Vec::with_capacity(35);
    for &byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return false,
        };
        bits = (bits << 5) | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    let [version, .., low, high] = bytes.as_slice() else { return false };
    let sum = bytes[..bytes.len() - 2].iter().fold(0u16, |sum, &byte| {
        (0..8).fold(sum ^ (u16::from(byte) << 8), |sum, _| (sum << 1) ^ (0x1021 * (sum >> 15)))
    });
    *version == 18 << 3 && sum == u16::from_le_bytes([*low, *high])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitcoin_addresses_of_every_kind() {
        for text in [
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
            "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
        ] {
            assert!(bitcoin(text.as_bytes()), "{text}");
        }
        for text in [
            "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
            // Version 1 with the checksum of version 0 (BIP-350).
            "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd",
            "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx",
        ] {
            assert!(!bitcoin(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn ethereum_addresses_of_the_proposal() {
        for text in [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        ] {
            assert_eq!(ethereum(text.as_bytes()), Some(Eip55::Right), "{text}");
        }
        assert_eq!(ethereum(b"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"), Some(Eip55::Wrong));
        assert_eq!(ethereum(b"0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"), Some(Eip55::Absent));
        assert_eq!(ethereum(b"0x5aaeb6053f3e94c9b9a09f33669435e7ef1beae"), None);
    }

    #[test]
    fn other_chains() {
        assert!(bnb(b"bnb1grpf0955h0ykzq3ar5nmum7y6gdfl6lxfn46h2"));
        assert!(!bnb(b"bnb1grpf0955h0ykzq3ar5nmum7y6gdfl6lxfn46h3"));
        assert!(solana(b"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"));
        assert!(!solana(b"TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5D"));
        assert!(stellar_seed(b"SBZVMB74Z76QZ3ZOY7UTDFYKMEGKW5XFJEB6PFKBF4UYSSWHG4EDH7PY"));
        assert!(!stellar_seed(b"SBZVMB74Z76QZ3ZOY7UTDFYKMEGKW5XFJEB6PFKBF4UYSSWHG4EDH7PZ"));
    }
}
