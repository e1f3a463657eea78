//! Hexadecimal bytes with something between them: `41:42`, `41 42`, `0x41, 0x42`. Called by `stream::pairs`.
//!
//! Between two pairs stands always the same: a separator, a space, `0x`, or several of them in this order. Where a line ends,
//! a break and an indent may follow the separator, as `xxd -i` and editors write it.

use super::codec::is_hex;

/// Least pairs of a chain: dates, times and hardware addresses have fewer.
pub(crate) const LEAST: usize = 8;
/// Most bytes of a separator, an indent not counted.
const LONGEST: usize = 4;
const INDENT: usize = 16;
/// Bytes that decide whether a chain begins.
pub(crate) const DECIDES: usize = LEAST * (LONGEST + 2 + INDENT);

/// What stands between two pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Between {
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

impl Between {
    /// What follows the first pair, and how long it is.
    fn first(text: &[u8], last: bool) -> Read<(Self, usize)> {
        let mut at = 0;
        let next = read!(byte(text, at, last));
        let separator = matches!(next, b':' | b'-' | b',' | b';' | b'_' | b'.' | b'/' | b'|').then_some(next);
        at += usize::from(separator.is_some());
        let space = read!(byte(text, at, last)) == b' ';
        at += usize::from(space);
        // `0x` and not the pair `0x…` could begin with.
        let prefix = read!(byte(text, at, last)) == b'0' && matches!(read!(byte(text, at + 1, last)), b'x' | b'X');
        at += 2 * usize::from(prefix);
        if at == 0 { Read::No } else { Read::Yes((Self { separator, space, prefix }, at)) }
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

    /// The next byte of a chain, and how many bytes of text stand for it, what is between included.
    pub(crate) fn next(self, text: &[u8], last: bool) -> Read<(u8, usize)> {
        let at = read!(self.again(text, last));
        let value = read!(pair(text, at, last));
        // A longer number is none of ours.
        match byte(text, at + 2, last) {
            Read::Yes(after) if after.is_ascii_alphanumeric() && !(self.separator.is_none() && self.prefix) => Read::No,
            Read::More => Read::More,
            _ => Read::Yes((value, at + 2)),
        }
    }
}

/// Does a chain begin at the start of `text`? Gives its first byte and what stands between.
pub(crate) fn begins(text: &[u8], last: bool) -> Read<(u8, Between)> {
    let value = read!(pair(text, 0, last));
    let (between, _) = read!(Between::first(&text[2..], last));
    let mut at = 2;
    for _ in 1..LEAST {
        let (_, length) = read!(between.next(&text[at..], last));
        at += length;
    }
    Read::Yes((value, between))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Option<String> {
        let text = text.as_bytes();
        let Read::Yes((first, between)) = begins(text, true) else { return None };
        let (mut out, mut at) = (vec![first], 2);
        while let Read::Yes((byte, length)) = between.next(&text[at..], true) {
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
    fn dates_and_numbers_are_none() {
        for text in [
            "12:34:56",
            "00:1a:2b:3c:4d:5e",
            "20 10 200 300 10 10 10 10 10",
            "41:42-43:44:45:46:47:48:49",
            "4142434445464748",
        ] {
            assert_eq!(all(text), None, "{text}");
        }
    }
}
