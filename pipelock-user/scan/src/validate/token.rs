//! Tokens that carry a CRC-32 of themselves: GitHub and npm.
//!
//! Called through [`super::lookup`]. Both end in six Base62 digits, the CRC-32 of the random part. A token with the right
//! shape and a wrong sum is still reported, by a rule of lower confidence: people shorten, pad and invent tokens in tests,
//! but a format that changed tomorrow must not leak because its sum moved. Hence every check here has a counterpart.
//! Format: GitHub, "Behind GitHub's new authentication token formats" (2021).

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Random characters before the sum, and characters of the sum.
const BODY: usize = 30;
const SUM: usize = 6;

/// CRC-32 (IEEE 802.3, reflected), bit by bit: the inputs have 30 bytes.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

fn base62(mut number: u32) -> [u8; SUM] {
    let mut text = [b'0'; SUM];
    for place in text.iter_mut().rev() {
        *place = DIGITS[(number % 62) as usize];
        number /= 62;
    }
    text
}

fn summed(token: &[u8]) -> bool {
    token
        .iter()
        .position(|&byte| byte == b'_')
        .map(|at| &token[at + 1..])
        .is_some_and(|rest| rest.len() == BODY + SUM && base62(crc32(&rest[..BODY])) == rest[BODY..])
}

/// A token of 36 characters after its prefix whose last six are the sum of the others.
pub(super) fn checksum(token: &[u8]) -> bool {
    summed(token)
}

/// A token without a right sum that is not a mere placeholder.
pub(super) fn no_checksum(token: &[u8]) -> bool {
    !summed(token) && super::placeholder::varied(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_format() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(&base62(0), b"000000");
        // Made up; the sum was computed with Python's zlib.crc32.
        assert!(checksum(b"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"));
        assert!(!checksum(b"ghp_Pl7kQw2ZnR5tXc9VbM3sJh8DfG1yUa2ya2Qr"));
    }

    #[test]
    fn a_token_is_of_one_kind_only() {
        for token in [&b"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"[..], b"ghp_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef01"] {
            assert_ne!(checksum(token), no_checksum(token));
        }
        assert!(!no_checksum(b"ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"));
    }
}
