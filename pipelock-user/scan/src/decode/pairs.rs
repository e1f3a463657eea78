//! Bytes as numbers with something between them: hexadecimal `41:42`, `41 42`, `0x41, 0x42`, and decimal `65, 66`, as JSON has them
//! of a buffer. Called by `stream::pairs`.
//!
//! Decimal numbers are in every table: a chain of them begins with so many that are text, or as compressed data does.
//!
//! Between two pairs stands always the same: a separator, a space, `0x`, or several of them in this order. Where a line ends,
//! a break and an indent may follow the separator, as `xxd -i` and editors write it.

use super::codec::is_hex;
use super::inflate::Format;
use crate::finding::Step;

/// Least pairs of a chain: dates, times and hardware addresses have fewer.
pub(crate) const LEAST: usize = 8;
/// The same of decimal numbers.
const LEAST_DECIMAL: usize = 12;
/// Bytes that tell compressed data.
const MAGIC: usize = 4;
/// Most bytes of a separator, an indent not counted.
const LONGEST: usize = 4;
const INDENT: usize = 16;
/// Bytes that decide whether a chain begins.
pub(crate) const DECIDES: usize = LEAST_DECIMAL * (LONGEST + 3 + INDENT);

/// How the numbers are written, and what stands between two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Between {
    decimal: bool,
    separator: Option<u8>,
    space: bool,
    prefix: bool,
}

/// What is read at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read<T> {
    Yes(T),
    No,
    /// It depends on bytes that are not there yet.
    More,
}

fn byte(text: &[u8], at: usize, last: bool) -> Read<u8> {
    match text.get(at) {
        Some(byte) => Read::Yes(*byte),
        None if last => Read::No,
        None => Read::More,
    }
}

macro_rules! read {
    ($value:expr) => {
        match $value {
            Read::Yes(value) => value,
            Read::No => return Read::No,
            Read::More => return Read::More,
        }
    };
}

/// The byte of two hex digits at `at`.
fn pair(text: &[u8], at: usize, last: bool) -> Read<u8> {
    let high = read!(byte(text, at, last));
    if !is_hex(high) {
        return Read::No;
    }
    let low = read!(byte(text, at + 1, last));
    if !is_hex(low) {
        return Read::No;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).map_or(0, |value| value as u8);
    Read::Yes(value(high) << 4 | value(low))
}

/// The byte of one to three decimal digits at `at`, and how many these are.
fn decimal(text: &[u8], at: usize, last: bool) -> Read<(u8, usize)> {
    let (mut value, mut digits) = (0, 0);
    while digits < 3 {
        match byte(text, at + digits, last) {
            Read::Yes(digit) if digit.is_ascii_digit() => value = value * 10 + u32::from(digit - b'0'),
            Read::More => return Read::More,
            _ => break,
        }
        digits += 1;
    }
    match u8::try_from(value) {
        Ok(value) if digits > 0 => Read::Yes((value, digits)),
        _ => Read::No,
    }
}

impl Between {
    /// What follows the first number, and how long it is.
    fn first(decimal: bool, text: &[u8], last: bool) -> Read<(Self, usize)> {
        let mut at = 0;
        let next = read!(byte(text, at, last));
        let is_separator = match decimal {
            // The others stand in dates, times and addresses.
            true => matches!(next, b',' | b';'),
            false => matches!(next, b':' | b'-' | b',' | b';' | b'_' | b'.' | b'/' | b'|'),
        };
        let separator = is_separator.then_some(next);
        at += usize::from(separator.is_some());
        let space = read!(byte(text, at, last)) == b' ';
        at += usize::from(space);
        // `0x` and not the pair `0x…` could begin with.
        let prefix =
            !decimal && read!(byte(text, at, last)) == b'0' && matches!(read!(byte(text, at + 1, last)), b'x' | b'X');
        at += 2 * usize::from(prefix);
        if at == 0 { Read::No } else { Read::Yes((Self { decimal, separator, space, prefix }, at)) }
    }

    /// How long it is here.
    fn again(self, text: &[u8], last: bool) -> Read<usize> {
        let mut at = 0;
        if let Some(separator) = self.separator {
            if read!(byte(text, 0, last)) != separator {
                return Read::No;
            }
            at += 1;
        }
        // A line may end here, whatever else is between.
        let mut indent = at;
        let mut broken = false;
        while indent < at + INDENT {
            match read!(byte(text, indent, last)) {
                b'\n' | b'\r' => broken = true,
                b' ' | b'\t' => {}
                _ => break,
            }
            indent += 1;
        }
        if broken {
            at = indent;
        } else if self.space {
            if indent == at {
                return Read::No;
            }
            at += 1;
        }
        if self.prefix {
            if read!(byte(text, at, last)) != b'0' || !matches!(read!(byte(text, at + 1, last)), b'x' | b'X') {
                return Read::No;
            }
            at += 2;
        }
        Read::Yes(at)
    }

    /// What it is called in the path of a finding.
    pub(crate) fn step(self) -> Step {
        if self.decimal { Step::Decimal } else { Step::Hex }
    }

    /// The next byte of a chain, how many bytes of text stand for it with what is between, and how many of those are its number.
    pub(crate) fn next(self, text: &[u8], last: bool) -> Read<(u8, usize, usize)> {
        let at = read!(self.again(text, last));
        let (value, digits) =
            if self.decimal { read!(decimal(text, at, last)) } else { (read!(pair(text, at, last)), 2) };
        // A longer number is none of ours, nor is one with a fraction.
        match byte(text, at + digits, last) {
            Read::Yes(after) if after.is_ascii_alphanumeric() && !(self.separator.is_none() && self.prefix) => Read::No,
            Read::Yes(b'.') if self.decimal => Read::No,
            Read::More => Read::More,
            _ => Read::Yes((value, at + digits, digits)),
        }
    }
}

/// The beginning of a chain: its first byte, the digits of that, and what stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) value: u8,
    pub(crate) digits: usize,
    pub(crate) between: Between,
}

/// Does a chain begin at the start of `text`, of decimal numbers or of hexadecimal ones? What may be either is read as both.
pub(crate) fn begins(decimal: bool, text: &[u8], last: bool) -> Read<Begun> {
    if decimal { decimals(text, last) } else { hexadecimal(text, last) }
}

fn hexadecimal(text: &[u8], last: bool) -> Read<Begun> {
    let value = read!(pair(text, 0, last));
    let (between, _) = read!(Between::first(false, &text[2..], last));
    let mut at = 2;
    for _ in 1..LEAST {
        let (_, length, _) = read!(between.next(&text[at..], last));
        at += length;
    }
    Read::Yes(Begun { value, digits: 2, between })
}

fn decimals(text: &[u8], last: bool) -> Read<Begun> {
    let (value, digits) = read!(decimal(text, 0, last));
    let (between, _) = read!(Between::first(true, text.get(digits..).unwrap_or_default(), last));
    let mut at = digits;
    let mut bytes = [value; LEAST_DECIMAL];
    for count in 1..LEAST_DECIMAL {
        // Most tables show by their first numbers, and need not wait for more.
        let known = &bytes[..count];
        let is_text = known.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t'));
        let is_packed = match count < MAGIC {
            true => matches!(value, 0x1f | b'x' | b'(' | b'P'),
            false => Format::of(known).is_some(),
        };
        if !is_text && !is_packed {
            return Read::No;
        }
        let (value, length, _) = read!(between.next(text.get(at..).unwrap_or_default(), last));
        bytes[count] = value;
        at += length;
    }
    Read::Yes(Begun { value, digits, between })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Option<String> {
        chain(false, text).or_else(|| chain(true, text))
    }

    fn chain(decimal: bool, text: &str) -> Option<String> {
        let text = text.as_bytes();
        let Read::Yes(Begun { value, digits, between }) = begins(decimal, text, true) else { return None };
        let (mut out, mut at) = (vec![value], digits);
        while let Read::Yes((byte, length, _)) = between.next(&text[at..], true) {
            out.push(byte);
            at += length;
        }
        Some(String::from_utf8_lossy(&out).into_owned())
    }

    #[test]
    fn pairs_are_read_whatever_is_between() {
        let plain = "a secret text";
        for between in [":", "-", " ", ",", ", ", "; ", "_", ".", "/", "0x", " 0x", ",0x", ", 0x", ":0X"] {
            let hex: Vec<String> = plain.bytes().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(all(&hex.join(between)).as_deref(), Some(plain), "{between}");
        }
        // As `xxd -i` breaks lines.
        let text = "61, 0x20, 0x73, 0x65, 0x63, 0x72,\n  0x65, 0x74, 0x20, 0x74, 0x65, 0x78,\n  0x74\n};";
        assert_eq!(all(text).as_deref(), Some(plain));
    }

    #[test]
    fn decimal_numbers_are_read() {
        let plain = "key = AKIA and\ta Text";
        let numbers: Vec<String> = plain.bytes().map(|byte| byte.to_string()).collect();
        for between in [",", ", ", " ", ";", "; ", ",\n", ",\n    ", ",\r\n\t"] {
            assert_eq!(all(&numbers.join(between)).as_deref(), Some(plain), "{between:?}");
            assert_eq!(all(&format!("{}]", numbers.join(between))).as_deref(), Some(plain), "{between:?}");
        }
        let either = "52 49 52 66 52 57 52 49 51 54 51 55";
        assert_eq!(chain(true, either).as_deref(), Some("414B49413637"));
        assert_eq!(chain(false, either).as_deref(), Some("RIRfRWRIQTQU"));
        let packed = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff, 1, 2, 3, 200].map(|byte: u8| byte.to_string());
        assert!(all(&packed.join(",")).is_some_and(|text| text.starts_with("\u{1f}\u{fffd}\u{8}")));
    }

    #[test]
    fn dates_and_numbers_are_none() {
        for text in [
            "12:34:56",
            "00:1a:2b:3c:4d:5e",
            "20 10 200 300 10 10 10 10 10",
            "41:42-43:44:45:46:47:48:49",
            "4142434445464748",
            "103,104,112,95,65,66,67,68,69,70,71",
            "103,104,112,95,65,66,67,68,69,70,71,300,103",
            "3,104,112,95,65,66,67,68,69,70,71,72,73,74",
            "31,104,112,95,65,66,67,68,69,70,71,72,73,74",
            "50.5, 60.5, 70.5, 80.5, 90.5, 40.5, 50.5, 60.5, 70.5, 80.5, 90.5, 40.5, 33.5",
            "103.104.112.95.65.66.67.68.69.70.71.72.73.74.75",
        ] {
            assert_eq!(all(text), None, "{text}");
        }
    }
}
