//! The ways a value may be written, each as literal bytes to search for.
//!
//! Called by [`super::Builder`]. Only encodings that keep a value in one piece of text are here; wrapped, compressed and
//! nested ones are undone by the engine's decoding first. Promises: at most about 70 needles of at most `LONGEST` bytes
//! per value plus one per 16 bytes; no needle shorter than [`SHORTEST`].

/// How a known value was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Encoding {
    /// As it is.
    Raw,
    /// Sixteen bytes of it: a long value sent in part.
    Part,
    /// In lower or upper case, as host names and some headers turn it.
    OtherCase,
    /// Base64, standard or URL alphabet, beginning at any of three places in a group.
    Base64,
    /// Base32, upper or lower case, beginning at any of five places in a group.
    Base32,
    /// Base85 as Git and Python write it, or Ascii85, beginning at any of four places in a group.
    Base85,
    /// Hexadecimal, with or without separators.
    Hex,
    /// Percent-encoded, wholly or where needed.
    Percent,
    /// Letters moved by 13.
    Rot13,
    /// Backwards.
    Reversed,
    /// Escaped as in JSON, or wholly as `\uXXXX`.
    Json,
    /// Escaped as in HTML.
    Html,
    /// UTF-16, either byte order.
    Utf16,
}

/// Bytes of a value that are encoded: more would only make needles longer.
const ENCODED: usize = 64;
/// Longest needle, in bytes; raw values may be longer.
#[cfg(test)]
pub(super) const LONGEST: usize = ENCODED * 6;
/// Shortest needle, in bytes.
pub(super) const SHORTEST: usize = 8;
/// Length of a part, and the shortest value that has parts.
const PART: usize = 16;
const PARTED: usize = 32;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// RFC 1924, which Git and Python follow.
const BASE85: &[u8; 85] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The needles of a value, each with its meaning; no two are the same.
pub(super) fn needles(value: &[u8]) -> Vec<(Vec<u8>, Encoding)> {
    let start = &value[..value.len().min(ENCODED)];
    let mut needles = vec![(value.to_vec(), Encoding::Raw)];
    let mut add = |needle: Vec<u8>, encoding| {
        if needle.len() >= SHORTEST && !needles.iter().any(|(known, _)| *known == needle) {
            needles.push((needle, encoding));
        }
    };
    if value.len() >= PARTED {
        value.chunks_exact(PART).filter(|part| varied(part)).for_each(|part| add(part.to_vec(), Encoding::Part));
    }
    add(start.to_ascii_lowercase(), Encoding::OtherCase);
    add(start.to_ascii_uppercase(), Encoding::OtherCase);
    for offset in 0..3 {
        for alphabet in [STANDARD, URL_SAFE] {
            add(grouped(start, offset, 6, alphabet), Encoding::Base64);
        }
    }
    for offset in 0..5 {
        let upper = grouped(start, offset, 5, BASE32);
        add(upper.to_ascii_lowercase(), Encoding::Base32);
        add(upper, Encoding::Base32);
    }
    for offset in 0..4 {
        let whole = start.get(offset..).unwrap_or_default();
        add(eighty_five(whole, |digit| BASE85[digit]), Encoding::Base85);
        add(eighty_five(whole, |digit| b'!' + digit as u8), Encoding::Base85);
    }
    for upper in [false, true] {
        let digits: Vec<String> =
            start.iter().map(|byte| if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }).collect();
        for separator in ["", ":", "-", " ", ",", ", ", "\\x", "0x", " 0x", ", 0x", ",0x", "_", "."] {
            add(digits.join(separator).into_bytes(), Encoding::Hex);
        }
        add(format!("%{}", digits.join("%")).into_bytes(), Encoding::Percent);
        add(percent(start, upper), Encoding::Percent);
    }
    let rotated = start.iter().map(|&byte| match byte {
        b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
        b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
        _ => byte,
    });
    add(rotated.collect(), Encoding::Rot13);
    add(start.iter().rev().copied().collect(), Encoding::Reversed);
    if let Ok(text) = std::str::from_utf8(value) {
        text_needles(text, &mut add);
    }
    needles
}

/// Needles that only text has.
fn text_needles(text: &str, add: &mut impl FnMut(Vec<u8>, Encoding)) {
    let text: String = text.chars().take(ENCODED).collect();
    let mut json = String::new();
    let mut html = String::new();
    for letter in text.chars() {
        match letter {
            '"' | '\\' | '/' => json.extend(['\\', letter]),
            '\n' => json.push_str("\\n"),
            '\t' => json.push_str("\\t"),
            _ => json.push(letter),
        }
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            _ => html.push(letter),
        }
    }
    add(json.replace("\\/", "/").into_bytes(), Encoding::Json);
    add(json.into_bytes(), Encoding::Json);
    add(html.into_bytes(), Encoding::Html);
    let units: Vec<u16> = text.encode_utf16().take(ENCODED).collect();
    let escaped = |upper: bool| -> String {
        units.iter().map(|unit| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") }).collect()
    };
    add(escaped(false).into_bytes(), Encoding::Json);
    add(escaped(true).into_bytes(), Encoding::Json);
    add(units.iter().flat_map(|unit| unit.to_le_bytes()).collect(), Encoding::Utf16);
    add(units.iter().flat_map(|unit| unit.to_be_bytes()).collect(), Encoding::Utf16);
}

/// The characters of Base64 (`width` 6) or Base32 (5) that depend on the value alone when `offset` other bytes stand
/// before it and any after it.
fn grouped(value: &[u8], offset: usize, width: usize, alphabet: &[u8]) -> Vec<u8> {
    let bit = |at: usize| {
        at.checked_sub(offset * 8).and_then(|at| value.get(at / 8)).map_or(0, |byte| (byte >> (7 - at % 8)) & 1)
    };
    let first = (offset * 8).div_ceil(width);
    let last = (offset + value.len()) * 8 / width;
    let digit = |at: usize| (0..width).fold(0, |digit, place| (digit << 1) | usize::from(bit(at * width + place)));
    (first..last).filter_map(|at| alphabet.get(digit(at)).copied()).collect()
}

/// The digits of whole groups: four bytes are five digits.
fn eighty_five(value: &[u8], digit: impl Fn(usize) -> u8) -> Vec<u8> {
    let (groups, _) = value.as_chunks::<4>();
    let digits = groups.iter().flat_map(|group| {
        let number = u32::from_be_bytes(*group);
        [52_200_625, 614_125, 7225, 85, 1].map(|place| digit((number / place % 85) as usize))
    });
    digits.collect()
}

/// Percent-encoding of all but the unreserved characters (RFC 3986).
fn percent(value: &[u8], upper: bool) -> Vec<u8> {
    let mut text = String::with_capacity(value.len() * 3);
    for &byte in value {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ if upper => text.push_str(&format!("%{byte:02X}")),
            _ => text.push_str(&format!("%{byte:02x}")),
        }
    }
    text.into_bytes()
}

/// Enough different bytes that a part is not found by chance.
fn varied(part: &[u8]) -> bool {
    crate::entropy::shannon(part) > 2.8
}
