//! Who may use the explicit proxy: names and tokens, and what a request shows of them.
//!
//! Made by the command line from a file; asked by `http::gate` for each request. It promises that a token is compared in a time
//! that tells nothing of it, and that it is kept as a hash only.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// Lengths of a token, in bytes: long enough that nobody tries them all.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;
/// Longest name, in bytes.
const MOST_NAME: usize = 64;
/// Names that are known at most.
const MOST: usize = 1024;

/// Why a file of tokens is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {why}")]
pub struct TokensError {
    line: usize,
    why: &'static str,
}

/// Those who are known.
#[derive(Default)]
pub struct Identities(Vec<(Arc<str>, [u8; 32])>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Identities {
    /// Reads a file: `NAME=TOKEN` a line; empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`TokensError`]; it does not repeat what stands there. Also for a file that names nobody.
    pub fn parse(text: &str) -> Result<Self, TokensError> {
        let mut known = Self::default();
        for (at, line) in text.lines().enumerate() {
            let wrong = |why| TokensError { line: at + 1, why };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, token) = line.split_once('=').ok_or_else(|| wrong("write NAME=TOKEN"))?;
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
            if name.is_empty() || name.len() > MOST_NAME || !name.bytes().all(is_name) {
                return Err(wrong("a name is 1 to 64 letters, digits, hyphens, dots, underscores and @"));
            }
            if !LENGTHS.contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(wrong("a token is 16 to 256 visible ASCII characters"));
            }
            let hash = hash(token.as_bytes());
            if known.0.iter().any(|(own, _)| **own == *name) {
                return Err(wrong("the name stands there twice"));
            }
            if known.0.iter().any(|(_, own)| *own == hash) {
                return Err(wrong("the token is another name's"));
            }
            if known.0.len() == MOST {
                return Err(wrong("more than 1024 names"));
            }
            known.0.push((name.into(), hash));
        }
        if known.0.is_empty() {
            return Err(TokensError { line: 1, why: "it names nobody" });
        }
        Ok(known)
    }

    /// The tokens of such a file, each with what findings call it: whoever uses the proxy has one, and they are to leave with nothing.
    #[must_use]
    pub fn tokens(text: &str) -> Vec<(String, Vec<u8>)> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let tokens = lines.filter_map(|line| line.split_once('='));
        tokens.map(|(name, token)| (format!("token of {name}"), token.as_bytes().to_vec())).collect()
    }

    /// Who has this token.
    fn holder(&self, token: &[u8]) -> Option<Arc<str>> {
        let hash = hash(token);
        let (mut at, mut is_found) = (0, Choice::from(0));
        for (number, (_, own)) in (0_u32..).zip(&self.0) {
            let is_it = own.ct_eq(&hash);
            at.conditional_assign(&number, is_it);
            is_found |= is_it;
        }
        if bool::from(is_found) { self.0.get(usize::try_from(at).ok()?).map(|(name, _)| name.clone()) } else { None }
    }

    /// Who sends these headers, by the first of `names` that is there: `Bearer TOKEN`, or `Basic` with the name (or none) and
    /// the token as password (RFC 6750 §2.1, RFC 7617 §2).
    #[must_use]
    pub fn of(&self, headers: &HeaderMap, names: &[HeaderName]) -> Option<Arc<str>> {
        let mut values =
            names.iter().find(|name| headers.contains_key(*name)).map(|name| headers.get_all(name).iter())?;
        let (value, None) = (values.next()?, values.next()) else { return None };
        let (scheme, rest) = split(value)?;
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.holder(rest);
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return None;
        }
        let pair = base64(rest)?;
        let at = pair.iter().position(|byte| *byte == b':')?;
        let (user, token) = (pair.get(..at)?, pair.get(at + 1..)?);
        self.holder(token).filter(|name| user.is_empty() || name.as_bytes() == user)
    }
}

/// The headers in which a client of a proxy shows who it is.
pub(super) const OF_A_PROXY: [HeaderName; 1] = [header::PROXY_AUTHORIZATION];
/// Those of a client of our own doors.
/// What is in the first of them is for us and nobody else; the second may be for the destination.
pub(super) const OF_A_DOOR: [HeaderName; 2] = [header::PROXY_AUTHORIZATION, header::AUTHORIZATION];

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Scheme and credentials of a header.
fn split(value: &HeaderValue) -> Option<(&[u8], &[u8])> {
    let bytes = value.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b' ')?;
    Some((bytes.get(..at)?, bytes.get(at..)?.trim_ascii()))
}

/// Base64 (RFC 4648 §4), with or without padding; none of what is longer than credentials are.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > 2 * (MOST_NAME + LENGTHS.end()) {
        return None;
    }
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn known() -> Identities {
        Identities::parse(&format!("# who\n\nci={TOKEN}\ndev@home=fedcba9876543210\n")).expect("sound")
    }

    fn who(headers: &[(HeaderName, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        known().of(&map, &OF_A_DOOR).map(|name| name.to_string())
    }

    #[test]
    fn a_token_says_who_it_is() {
        let ci = Some("ci".to_owned());
        for value in [
            format!("Bearer {TOKEN}"),
            format!("bearer   {TOKEN} "),
            // ci:TOKEN, and :TOKEN.
            "Basic Y2k6MDEyMzQ1Njc4OWFiY2RlZg==".into(),
            "basic OjAxMjM0NTY3ODlhYmNkZWY".into(),
        ] {
            assert_eq!(who(&[(header::PROXY_AUTHORIZATION, &value)]), ci, "{value}");
            assert_eq!(who(&[(header::AUTHORIZATION, &value)]), ci, "{value}");
        }
        assert_eq!(who(&[(header::AUTHORIZATION, "Bearer fedcba9876543210")]), Some("dev@home".into()));
    }

    #[test]
    fn all_else_says_nothing() {
        for value in [
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Digest 0123456789abcdef",
            "0123456789abcdef",
            // dev@home:TOKEN of ci; no colon; no base64.
            "Basic ZGV2QGhvbWU6MDEyMzQ1Njc4OWFiY2RlZg==",
            "Basic MDEyMzQ1Njc4OWFiY2RlZg==",
            "Basic Y2k6MDEyMzQ1Njc4OWFiY2RlZg=!",
        ] {
            assert_eq!(who(&[(header::AUTHORIZATION, value)]), None, "{value}");
        }
        let twice = [(header::AUTHORIZATION, "Bearer 0123456789abcdef"), (header::AUTHORIZATION, "Bearer x")];
        assert_eq!(who(&twice), None);
        assert_eq!(who(&[]), None);
    }

    #[test]
    fn files_that_leave_doubt_are_refused() {
        for (text, line, why) in [
            ("", 1, "nobody"),
            ("# nobody", 1, "nobody"),
            ("ci", 1, "NAME=TOKEN"),
            ("ci=short", 1, "16 to 256"),
            ("ci=0123456789 abcdef", 1, "16 to 256"),
            ("a b=0123456789abcdef", 1, "a name"),
            ("=0123456789abcdef", 1, "a name"),
            ("\nci=0123456789abcdef\nci=fedcba9876543210", 3, "twice"),
            ("ci=0123456789abcdef\ndev=0123456789abcdef", 2, "another name's"),
        ] {
            let error = Identities::parse(text).expect_err(text);
            assert!(error.line == line && error.why.contains(why), "{text}: {error}");
        }
        assert!(!format!("{:?}", known()).contains(TOKEN));
    }

    proptest! {
        #[test]
        fn any_header_is_answered(value in "(Basic|Bearer|\\PC{0,5}) {0,2}[A-Za-z0-9+/=]{0,40}") {
            if let Ok(value) = HeaderValue::from_str(&value) {
                let mut headers = HeaderMap::new();
                headers.insert(header::AUTHORIZATION, value);
                prop_assert_eq!(known().of(&headers, &OF_A_DOOR), None);
            }
        }
    }
}
