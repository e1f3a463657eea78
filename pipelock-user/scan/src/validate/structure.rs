//! Formats that can be told by their inside: JWT, PEM bodies, AWS key ids, UUIDs, Telegram bots, passwords in URLs.
//!
//! Called through [`super::lookup`]. Promises: linear, no panic. Sources stand at each function.

use super::{base64, placeholder};

/// A JSON Web Token (RFC 7519): the header decodes to an object with `alg`, the payload to an object.
pub(super) fn jwt(text: &[u8]) -> bool {
    let mut parts = text.split(|&byte| byte == b'.');
    let (Some(header), Some(payload)) = (parts.next(), parts.next()) else { return false };
    let object = |part: &[u8]| base64::decode(part).filter(|json| json.first() == Some(&b'{'));
    let Some(header) = object(header) else { return false };
    // A payload cut at the end of what was matched still opens as one; a JWE has an encrypted key there instead.
    let known = header.windows(5).any(|window| window == b"\"alg\"");
    let encrypted = header.windows(5).any(|window| window == b"\"enc\"");
    known && header.last() == Some(&b'}') && (encrypted || object(payload).is_some())
}

/// The first characters of a PEM body (RFC 7468): Base64 that opens as DER or as an OpenSSH key.
pub(super) fn pem_body(text: &[u8]) -> bool {
    // Line ends may be real, escaped (`\n`, `\r\n`), or turned to spaces and plus signs by a form.
    let mut body = Vec::with_capacity(24);
    let mut escaped = false;
    for &byte in text {
        match byte {
            b'\\' => escaped = true,
            b'n' | b'r' if escaped => escaped = false,
            _ if byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/' => {
                escaped = false;
                body.push(byte);
            }
            _ => {}
        }
        if body.len() == 24 {
            break;
        }
    }
    if body.len() < 16 {
        return false;
    }
    let Some(bytes) = base64::decode(&body) else { return false };
    // SEQUENCE with a length in one, two or three bytes and, in all private keys but the encrypted, a version INTEGER.
    let der = match bytes.as_slice() {
        [0x30, 0x82, _, _, next, ..] | [0x30, 0x81, _, next, ..] => matches!(next, 0x02 | 0x30),
        [0x30, length, next, ..] => *length < 0x80 && matches!(next, 0x02 | 0x30),
        _ => false,
    };
    der || bytes.starts_with(b"openssh-key") || placeholder::random(&body)
}

/// What follows the header of a private key without opening as one, and is no mask either.
pub(super) fn pem_shape(text: &[u8]) -> bool {
    !pem_body(text) && placeholder::unmasked(text)
}

/// An AWS key id: after the four letters, 16 characters of Base32, which hold the account (the first 39 bits).
pub(super) fn aws_key_id(text: &[u8]) -> bool {
    text.len() == 20 && text[4..].iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

/// What has the prefix of an AWS key id but not its alphabet: invented for a test, or padded. Never only letters.
pub(super) fn aws_key_id_shape(text: &[u8]) -> bool {
    !aws_key_id(text) && text.iter().any(u8::is_ascii_digit) && placeholder::varied(text)
}

/// An AWS secret key: 40 characters of Base64 in upper, lower and digits, not a path and not hexadecimal.
pub(super) fn aws_secret(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_uppercase)
        && text.iter().any(u8::is_ascii_lowercase)
        && text.iter().any(u8::is_ascii_digit)
        && text.iter().filter(|&&byte| byte == b'/').count() <= 6
}

/// A password inside a URL (RFC 3986 userinfo): not empty, not a placeholder, not a template.
pub(super) fn url_password(text: &[u8]) -> bool {
    const COMMON: [&str; 16] = [
        "pass", "passw", "pw", "pwd", "password", "passwd", "secret", "postgres", "root", "admin", "user", "guest",
        "test", "mysql", "redis", "token",
    ];
    text.len() >= 5
        && text.iter().filter(|&&byte| byte == b'%').count() * 3 < text.len()
        && !COMMON.iter().any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
        && text.iter().any(|byte| !byte.is_ascii_lowercase())
        && !text.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_')
        && placeholder::not_placeholder(text)
}

/// A Discord bot token: the first part is Base64 of the bot's number, 17 to 20 digits.
pub(super) fn discord(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'.')
        .next()
        .and_then(base64::decode)
        .is_some_and(|id| (17..=20).contains(&id.len()) && id.iter().all(u8::is_ascii_digit))
}

/// An Ethereum private key: 32 bytes that are neither a counting row nor mostly zero (those are storage slots and masks).
pub(super) fn ethereum_private_key(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    digits.len() == 64 && placeholder::hex(digits)
}

/// A recovery key of BitLocker: eight groups of six digits, each eleven times a number of 16 bits, and not all the same.
pub(super) fn bitlocker(text: &[u8]) -> bool {
    let number = |group: &[u8]| group.iter().fold(0u32, |sum, byte| sum * 10 + u32::from(byte.wrapping_sub(b'0') % 10));
    let groups: Vec<&[u8]> = text.split(|byte| *byte == b'-').collect();
    groups.len() == 8
        && groups.iter().all(|group| {
            group.len() == 6
                && group.iter().all(u8::is_ascii_digit)
                && number(group) % 11 == 0
                && number(group) < 11 << 16
        })
        && groups.iter().any(|group| *group != groups[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_recovery_key_are_products_of_eleven() {
        assert!(bitlocker(b"419320-308308-157157-668668-259259-540540-631631-382382"));
        for text in ["419321-308308-157157-668668-259259-540540-631631-382382", "419320-308308", "", "-------"] {
            assert!(!bitlocker(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_jwt_opens_as_json() {
        assert!(jwt(b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"));
        assert!(!jwt(b"eyJhbGciOiJIUzI1NiJ9"));
        // {"a":1} has no algorithm.
        assert!(!jwt(b"eyJhIjoxfQ.eyJzdWIiOiIxIn0.c2ln"));
        assert!(!jwt(b"eyJhbGciOiJIUzI1NiJ9.AAAA.c2ln"));
    }

    #[test]
    fn a_pem_body_may_be_escaped() {
        assert!(pem_body(b"\nMIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn"));
        assert!(pem_body(b"\\nMIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn"));
        assert!(pem_body(b"\\r\\nb3BlbnNzaC1rZXktdjEAAAAABG5v"));
        assert!(!pem_body(b"\nAAAAAAAAAAAAAAAAAAAAAAAA"));
        assert!(!pem_body(b"\n"));
    }

    #[test]
    fn an_aws_key_id_is_base32() {
        assert!(aws_key_id(b"AKIAIOSFODNN7EXAMPLE"));
        assert!(!aws_key_id(b"AKIA0123456789ABCDEF"));
        assert!(aws_key_id_shape(b"AKIA1F23H45K67M89P0Q"));
    }

    #[test]
    fn a_password_in_a_url_is_worth_having() {
        assert!(url_password(b"kV8wQ2zL9nT4"));
        for text in ["password", "secret", "${PW}", "PASSWORD", "pass"] {
            assert!(!url_password(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_discord_token_holds_a_number() {
        assert!(discord(b"MTIzNDU2Nzg5MDEyMzQ1Njc4.GabcdE.xxxx"));
        assert!(!discord(b"MTIzNDU2Nzg5.GabcdE.xxxx"));
    }
}
