//! Hex and base64, strict: one text for one value.
//!
//! Used by keys, hashes and signatures, ours and those of others. Decoders refuse every spelling but the one the encoder writes, so that no byte
//! of an evidence file can change without changing a value.

const HEX: &[u8; 16] = b"0123456789abcdef";
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0')));
        }
    }
    text
}

/// Exactly `N` bytes from `2 N` lower-case hex digits; `None` for any other text.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    fn nibble(digit: u8) -> Option<u8> {
        match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        }
    }
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

/// Standard base64 with padding (RFC 4648 §4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let sextet = (group >> (18 - 6 * position)) & 63;
            let symbol = BASE64.get(usize::try_from(sextet).unwrap_or_default()).copied().unwrap_or(b'A');
            text.push(if position <= chunk.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

/// The bytes of a base64 text; `None` unless the encoder would have written exactly this text.
#[must_use]
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.as_bytes().chunks(4) {
        let padding = chunk.iter().rev().take_while(|symbol| **symbol == b'=').count();
        let mut group = 0_u32;
        for symbol in chunk {
            let sextet = match symbol {
                b'A'..=b'Z' => symbol - b'A',
                b'a'..=b'z' => symbol - b'a' + 26,
                b'0'..=b'9' => symbol - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => 0,
                _ => return None,
            };
            group = group << 6 | u32::from(sextet);
        }
        bytes.extend(group.to_be_bytes().iter().skip(1).take(3_usize.checked_sub(padding)?));
    }
    (base64(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_written_spelling_is_read() {
        assert_eq!(unhex::<2>("0aff"), Some([0x0a, 0xff]));
        for text in ["0aF0", "0af", "0aff0", "", "0a f", "０aff"] {
            assert_eq!(unhex::<2>(text), None, "{text}");
        }
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob")] {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(unbase64(text).as_deref(), Some(bytes.as_bytes()));
        }
        for text in ["Zg=", "Zg", "Zh==", "Z===", "====", "Zm9v=", "Zm9v\n", "Z=8="] {
            assert_eq!(unbase64(text), None, "{text}");
        }
    }
}
