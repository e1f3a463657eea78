//! The two canonical JSON forms.
//!
//! *GoJSON*: compact, members in declaration order, and `< > & U+2028 U+2029` as `\u` escapes inside strings (what Go's
//! `encoding/json.Marshal` writes). *JCS*: RFC 8785 with members sorted by code point and whole numbers only.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::Formatter;

use crate::MAX_NUMBER;

/// Appends the GoJSON form of `value` to `out`.
///
/// # Errors
/// Those of serde_json: a map with keys that are not strings.
pub fn go_json_into<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, GoFormatter))
}

/// The GoJSON form of `value`.
///
/// # Errors
/// As [`go_json_into`].
pub fn go_json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(512);
    go_json_into(&mut out, value)?;
    Ok(out)
}

struct GoFormatter;

impl Formatter for GoFormatter {
    // Fragments are the pieces of a string that JSON itself does not escape, so the five characters are found here.
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, escape, len)) = next_escape(rest) {
            writer.write_all(rest.get(..at).unwrap_or_default().as_bytes())?;
            writer.write_all(escape.as_bytes())?;
            rest = rest.get(at + len..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Position, escape and length of the first of the five characters in `text`.
fn next_escape(text: &str) -> Option<(usize, &'static str, usize)> {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().find_map(|(at, byte)| match byte {
        b'<' => Some((at, "\\u003c", 1)),
        b'>' => Some((at, "\\u003e", 1)),
        b'&' => Some((at, "\\u0026", 1)),
        0xe2 => match bytes.get(at + 1..at + 3) {
            Some([0x80, 0xa8]) => Some((at, "\\u2028", 3)),
            Some([0x80, 0xa9]) => Some((at, "\\u2029", 3)),
            _ => None,
        },
        _ => None,
    })
}

/// True when a raw JSON text (`ext`) is already in the form in which it is hashed: no blanks outside strings, and none
/// of the five characters unescaped. The text must be valid JSON.
#[must_use]
pub fn is_go_compact(json: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b' ' | b'\t' | b'\r' | b'\n' if !quoted => return false,
            _ => {}
        }
    }
    next_escape(json).is_none()
}

/// Why a value has no JCS form here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JcsError {
    /// A number with a fraction, an exponent, or beyond 2^53 - 1.
    #[error("a number is not whole, or is beyond 2^53 - 1; write it as a decimal string")]
    Number,
    /// More than 64 levels.
    #[error("the value is nested more than 64 levels deep")]
    Deep,
}

/// The RFC 8785 form of `value`, members sorted by code point.
///
/// # Errors
/// [`JcsError`] for numbers that readers round differently, and for deep nesting.
pub fn jcs(value: &Value) -> Result<Vec<u8>, JcsError> {
    let mut out = Vec::with_capacity(256);
    write_jcs(&mut out, value, 64)?;
    Ok(out)
}

fn write_jcs(out: &mut Vec<u8>, value: &Value, depth: u32) -> Result<(), JcsError> {
    let depth = depth.checked_sub(1).ok_or(JcsError::Deep)?;
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(true) => out.extend(b"true"),
        Value::Bool(false) => out.extend(b"false"),
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            if magnitude.is_none_or(|magnitude| magnitude > MAX_NUMBER) {
                return Err(JcsError::Number);
            }
            out.extend(number.to_string().bytes());
        }
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_jcs(out, item, depth)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            // UTF-8 bytes sort as code points do.
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (index, (name, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(out, name);
                out.push(b':');
                write_jcs(out, member, depth)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// serde_json escapes exactly as RFC 8785 §3.2.2.2 wants it.
fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string into a vector cannot fail; were it to, the hash would differ and the receipt would not verify.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn jcs_sorts_and_escapes_plainly() {
        let value =
            json!({"b": [1, -2, true, null], "a": "<&>\u{2028}\u{1}\n", "é": {}, "\u{10000}": "x", "\u{e000}": 0});
        assert_eq!(
            String::from_utf8(jcs(&value).unwrap()).unwrap(),
            "{\"a\":\"<&>\u{2028}\\u0001\\n\",\"b\":[1,-2,true,null],\"é\":{},\"\u{e000}\":0,\"\u{10000}\":\"x\"}"
        );
        assert_eq!(jcs(&json!(1.5)), Err(JcsError::Number));
        assert_eq!(jcs(&json!(MAX_NUMBER + 1)), Err(JcsError::Number));
        let deep = (0..70).fold(Value::Null, |inner, _| json!([inner]));
        assert_eq!(jcs(&deep), Err(JcsError::Deep));
    }

    #[test]
    fn compactness_of_raw_text() {
        for good in [r#"{"a":"b \" c\\"}"#, r#"["\u003c"]"#] {
            assert!(is_go_compact(good), "{good}");
        }
        for bad in [r#"{"a": 1}"#, r#"["<"]"#, r#"["\\" ,1]"#, "[\"\u{2029}\"]"] {
            assert!(!is_go_compact(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn go_json_is_serde_json_with_five_replacements(text in "\\PC*[<>&\u{2028}\u{2029}\u{2027}é\u{1}\"]*\\PC*") {
            let plain = serde_json::to_string(&[&text]).unwrap();
            let expected = plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
                .replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
            let written = String::from_utf8(go_json(&[&text]).unwrap()).unwrap();
            prop_assert!(is_go_compact(&written));
            prop_assert_eq!(written, expected);
        }
    }
}
