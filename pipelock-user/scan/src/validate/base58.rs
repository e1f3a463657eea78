//! Base58 and Base58Check as Bitcoin and Solana write them.
//!
//! Called by the key validators here and by `wallet`. Promises: input longer than [`MAX`] is refused before any work,
//! because decoding costs the square of the length; nothing panics.
//! Format: <https://en.bitcoin.it/wiki/Base58Check_encoding>.

use sha2::{Digest, Sha256};

/// Longest text that is decoded, in bytes: an extended key has 111 or 112 characters.
pub const MAX: usize = 128;

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BAD: u8 = 0xff;
const VALUES: [u8; 256] = {
    let mut table = [BAD; 256];
    let mut at = 0;
    while at < ALPHABET.len() {
        table[ALPHABET[at] as usize] = at as u8;
        at += 1;
    }
    table
};

/// The bytes that Base58 text stands for, or `None` when it is empty, too long or holds another character.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || text.len() > MAX {
        return None;
    }
    let zeros = text.iter().take_while(|&&byte| byte == b'1').count();
    // Little-endian base 256, multiplied by 58 for every digit.
    let mut number: Vec<u8> = Vec::with_capacity(text.len());
    for &byte in &text[zeros..] {
        let value = VALUES[byte as usize];
        if value == BAD {
            return None;
        }
        let mut carry = u32::from(value);
        for digit in &mut number {
            carry += u32::from(*digit) * 58;
            *digit = (carry & 0xff) as u8;
            carry >>= 8;
        }
        while carry > 0 {
            number.push((carry & 0xff) as u8);
            carry >>= 8;
        }
    }
    number.extend(std::iter::repeat_n(0, zeros));
    number.reverse();
    Some(number)
}

/// The payload (version byte first) of Base58Check text whose four checksum bytes are right.
pub fn decode_check(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = decode(text)?;
    let payload = bytes.len().checked_sub(4)?;
    let sum = Sha256::digest(Sha256::digest(&bytes[..payload]));
    if bytes[payload..] != sum[..4] {
        return None;
    }
    bytes.truncate(payload);
    Some(bytes)
}

/// A private key in wallet import format: version 0x80 (Bitcoin), 0xef (its test network), 0x9e (Dogecoin), 0xb0 (Litecoin) or 0xcc
/// (Dash), 32 bytes, and 0x01 if compressed.
pub(super) fn wif(text: &[u8]) -> bool {
    decode_check(text).is_some_and(|payload| {
        matches!(payload.first(), Some(0x80 | 0xef | 0x9e | 0xb0 | 0xcc))
            && (payload.len() == 33 || (payload.len() == 34 && payload.last() == Some(&1)))
    })
}

/// A BIP-32 extended private key: 78 bytes with a right checksum and a zero byte before the key.
pub(super) fn extended_private_key(text: &[u8]) -> bool {
    decode_check(text).is_some_and(|payload| payload.len() == 78 && payload[45] == 0)
}

/// A Solana key pair: 64 bytes whose second half is the public key, so it cannot be checked further offline.
pub(super) fn solana_key_pair(text: &[u8]) -> bool {
    decode(text).is_some_and(|bytes| bytes.len() == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values_decode() {
        // From the Bitcoin wiki, "Wallet import format".
        let wif_key = b"5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ";
        let payload = decode_check(wif_key).unwrap();
        assert_eq!((payload[0], payload.len()), (0x80, 33));
        assert!(wif(wif_key));
        // BIP-32, test vector 1, chain m.
        assert!(extended_private_key(
            b"xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi"
        ));
    }

    #[test]
    fn leading_ones_are_zero_bytes() {
        assert_eq!(decode(b"11").unwrap(), [0, 0]);
        assert_eq!(decode(b"12").unwrap(), [0, 1]);
    }

    #[test]
    fn one_changed_character_is_noticed() {
        assert!(!wif(b"5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTj"));
        assert!(decode(b"0OIl").is_none());
        assert!(decode(&[b'2'; MAX + 1]).is_none());
    }
}
