//! A lenient Base64 decoder for looking inside a match: JWT parts, PEM bodies, Azure keys, basic authentication.
//!
//! Called by the validators beside it. Promises: linear, at most [`MAX`] bytes of input, no panic. It is not the scanner's
//! decoding layer (that is `decode`); it only answers what a validator asks.

/// Longest text that is decoded, in bytes.
const MAX: usize = 4096;

const VALUES: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut at = 0u8;
    while at < 26 {
        table[(b'A' + at) as usize] = at;
        table[(b'a' + at) as usize] = at + 26;
        at += 1;
    }
    at = 0;
    while at < 10 {
        table[(b'0' + at) as usize] = at + 52;
        at += 1;
    }
    table[b'+' as usize] = 62;
    table[b'-' as usize] = 62;
    table[b'/' as usize] = 63;
    table[b'_' as usize] = 63;
    table
};

/// Decodes both alphabets, padded or not; a last group cut short gives the whole bytes it holds. `None` for other bytes.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > MAX {
        return None;
    }
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    let text = &text[..text.len() - padding];
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0u32);
    for &byte in text {
        let value = VALUES[usize::from(byte)];
        if value == 0xff {
            return None;
        }
        bits = (bits << 6) | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// An Azure account key: Base64 of exactly 64 bytes.
pub(super) fn sixty_four_bytes(text: &[u8]) -> bool {
    decode(text).is_some_and(|bytes| bytes.len() == 64)
}

/// The credentials of basic authentication (RFC 7617): printable `user:password`, the password not a placeholder.
pub(super) fn basic_credentials(text: &[u8]) -> bool {
    let Some(bytes) = decode(text) else { return false };
    let Some(colon) = bytes.iter().position(|&byte| byte == b':') else { return false };
    let password = &bytes[colon + 1..];
    std::str::from_utf8(&bytes).is_ok_and(|text| !text.chars().any(char::is_control))
        && password.len() >= 6
        && super::placeholder::not_placeholder(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_with_and_without_padding() {
        assert_eq!(decode(b"aGk/").unwrap(), b"hi?");
        assert_eq!(decode(b"aGk_").unwrap(), b"hi?");
        assert_eq!(decode(b"aGk=").unwrap(), b"hi");
        assert_eq!(decode(b"aGk").unwrap(), b"hi");
        assert!(decode(b"a k").is_none());
    }

    #[test]
    fn basic_credentials_need_a_password() {
        assert!(basic_credentials(b"ZGVwbG95OmtWOHdRMnpMOW5UNA==")); // deploy:kV8wQ2zL9nT4
        assert!(!basic_credentials(b"ZGVwbG95OnBhc3N3b3Jk")); // deploy:password
        assert!(!basic_credentials(b"ZGVwbG95"));
    }
}
