//! The view without escapes: percent (RFC 3986), `\u0041` `\x41` `\101` `\n` `\"` (JSON, JavaScript, Python, C), `&#65;` and the
//! usual named entities (HTML). Called by [`super::ViewKind`].
//!
//! What an escape gives may be the start of another, to any depth: `%2541` is `A`, and so are `&#37;41` and `%%34%31`. Nested
//! escapes come out in one step here, so the view never needs to be applied twice. Characters without shape or width
//! inside an escape do not break it, though the view that takes them out comes later.

use super::{AHEAD, Turn, fold};
use crate::finding::Step;

/// The named entities that stand for ASCII, and the invisible ones. Source: HTML standard, named character references.
const NAMED: &[(&str, char)] = &[
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", ' '),
    ("sol", '/'),
    ("colon", ':'),
    ("comma", ','),
    ("period", '.'),
    ("hyphen", '-'),
    ("dash", '-'),
    ("lowbar", '_'),
    ("equals", '='),
    ("plus", '+'),
    ("num", '#'),
    ("dollar", '$'),
    ("percnt", '%'),
    ("ast", '*'),
    ("excl", '!'),
    ("quest", '?'),
    ("commat", '@'),
    ("lpar", '('),
    ("rpar", ')'),
    ("lsqb", '['),
    ("rsqb", ']'),
    ("lbrack", '['),
    ("rbrack", ']'),
    ("lcub", '{'),
    ("rcub", '}'),
    ("lbrace", '{'),
    ("rbrace", '}'),
    ("vert", '|'),
    ("bsol", '\\'),
    ("grave", '`'),
    ("semi", ';'),
    ("Tab", '\t'),
    ("NewLine", '\n'),
    ("shy", '\u{ad}'),
    ("zwj", '\u{200d}'),
    ("zwnj", '\u{200c}'),
    ("ZeroWidthSpace", '\u{200b}'),
    ("ensp", ' '),
    ("emsp", ' '),
    ("thinsp", ' '),
    ("zwsp", '\u{200b}'),
];
const LONGEST_NAME: usize = 14;
/// Most digits of a character's number.
const LONGEST_NUMBER: usize = 10;
/// Most zeros before those.
const MOST_ZEROS: usize = 64;

/// Most backslashes before what they escape together.
const MOST_SLASHES: usize = 16;

/// What is read at one place.
enum Unit {
    /// `take` bytes stand for this character, or for this byte of one.
    Char(usize, char, Step),
    Byte(usize, u8, Step),
    /// Not an escape; so many bytes belong together.
    Plain(usize),
    More,
}

pub(super) fn turn(before: &[u8], text: &[u8], last: bool) -> Turn {
    marked(before, text).unwrap_or_else(|| turn_within(&mut Steps(MOST_STEPS), text, last))
}

/// A mark that Markdown escapes within or behind a word, also of several in a row: `glpat\-…`, `A\_\-x`, `x1\-`.
fn marked(before: &[u8], text: &[u8]) -> Option<Turn> {
    let is_behind = before.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    match text {
        [b'\\', mark @ (b'_' | b'-'), ..] if is_behind => Some(Turn::byte(2, *mark, Step::Escape)),
        _ => None,
    }
}

fn turn_within(steps: &mut Steps, text: &[u8], last: bool) -> Turn {
    let (mut take, mut value, mut step) = match unit(text, last) {
        Unit::More => return Turn::More,
        Unit::Plain(bytes) => match interrupted(steps, text, bytes, last) {
            Nested::More => return Turn::More,
            Nested::No => return Turn::Keep(bytes),
            Nested::Yes(more, value, step) => (1 + more, value, step),
        },
        Unit::Char(take, char, step) => (take, Value::Char(char), step),
        Unit::Byte(take, byte, step) => (take, Value::Byte(byte), step),
    };
    // As long as the result may itself begin an escape, read on with it in front.
    while let Some(lead) = value.ascii().filter(|byte| leads(*byte)) {
        if take > AHEAD / 2 {
            break;
        }
        match nested(steps, lead, &text[take..], 0, 0, last) {
            Nested::More => return Turn::More,
            Nested::No => break,
            Nested::Yes(more, inner, inner_step) => {
                take += more;
                value = inner;
                step = inner_step;
            }
        }
    }
    match value {
        Value::Char(char) => Turn::char(take, char, step),
        Value::Byte(byte) => Turn::byte(take, byte, step),
    }
}

#[derive(Clone, Copy)]
enum Value {
    Char(char),
    Byte(u8),
}

impl Value {
    fn ascii(self) -> Option<u8> {
        match self {
            Self::Char(char) => u8::try_from(char).ok().filter(u8::is_ascii),
            Self::Byte(byte) => Some(byte),
        }
    }
}

enum Nested {
    Yes(usize, Value, Step),
    No,
    More,
}

/// Most characters of an escape after its first.
const TAIL: usize = LONGEST_NAME + 1;
/// How often every character of an escape may have been escaped before. Three times over, one character takes 27 bytes.
const DEEPEST: usize = 4;

/// How many characters of escapes within escapes are looked at before what begins at one place is taken for none: what has every
/// character escaped as often as may be takes 84. What ends in none is begun again at the next place, so more would make the most
/// work more.
const MOST_STEPS: usize = 96;

/// How many more are looked at.
struct Steps(usize);

impl Steps {
    fn take(&mut self) -> bool {
        let is_left = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        is_left
    }
}

fn leads(byte: u8) -> bool {
    matches!(byte, b'%' | b'\\' | b'&')
}

/// Reads the escape at the start of `text` that is none byte by byte, when something near may change that.
fn interrupted(steps: &mut Steps, text: &[u8], plain: usize, last: bool) -> Nested {
    match text {
        [lead, rest @ ..]
            if plain == 1
                && leads(*lead)
                && rest.iter().take(TAIL).any(|byte| leads(*byte) || fold::unusual(*byte)) =>
        {
            nested(steps, *lead, rest, 0, 0, last)
        }
        _ => Nested::No,
    }
}

/// Reads the escape that `lead` begins, `depth` escapes deep and `before` bytes behind where the first begins. Its other characters
/// may be escaped once more, or look like others, and what does not show may stand between them.
fn nested(steps: &mut Steps, lead: u8, text: &[u8], before: usize, depth: usize, last: bool) -> Nested {
    let mut unit_ends = [0; TAIL + 1];
    let mut plain = [0; TAIL + 1];
    plain[0] = lead;
    let (mut count, mut at) = (1, 0);
    loop {
        if !steps.take() {
            return Nested::No;
        }
        match unit(&plain[..count], false) {
            Unit::Plain(_) => return Nested::No,
            Unit::Char(used, char, step) => return Nested::Yes(unit_ends[used - 1], Value::Char(char), step),
            Unit::Byte(used, byte, step) => return Nested::Yes(unit_ends[used - 1], Value::Byte(byte), step),
            Unit::More if count > TAIL || before + at > AHEAD / 2 => return Nested::No,
            Unit::More => {}
        }
        if at == text.len() {
            if !last {
                return Nested::More;
            }
            return match unit(&plain[..count], true) {
                Unit::Char(used, char, step) => Nested::Yes(unit_ends[used - 1], Value::Char(char), step),
                Unit::Byte(used, byte, step) => Nested::Yes(unit_ends[used - 1], Value::Byte(byte), step),
                _ => Nested::No,
            };
        }
        let (mut take, mut byte) = match unit(&text[at..], last) {
            Unit::More => return Nested::More,
            Unit::Plain(_) if fold::unusual(text[at]) => match fold::turn(b"0", &text[at..], last) {
                Turn::More => return Nested::More,
                Turn::Change { take, put: 0, .. } => {
                    at += take;
                    continue;
                }
                // Full-width forms, but no accents: `%dé` is a word.
                Turn::Change { take, out: [byte, ..], put: 1, .. } if text[at] == 0xef => (take, byte),
                Turn::Change { .. } | Turn::Keep(_) => return Nested::No,
            },
            Unit::Plain(_) => (1, text[at]),
            Unit::Byte(take, byte, _) => (take, byte),
            Unit::Char(take, char, _) => match u8::try_from(char) {
                Ok(byte) if byte.is_ascii() => (take, byte),
                _ => return Nested::No,
            },
        };
        // A character of an escape that was escaped several times over is such an escape itself.
        while leads(byte) && depth < DEEPEST {
            match nested(steps, byte, &text[at + take..], before + at + take, depth + 1, last) {
                Nested::More => return Nested::More,
                Nested::No => break,
                Nested::Yes(more, value, _) => match value.ascii().filter(u8::is_ascii) {
                    Some(inner) => (take, byte) = (take + more, inner),
                    None => return Nested::No,
                },
            }
        }
        at += take;
        plain[count] = byte;
        unit_ends[count] = at;
        count += 1;
    }
}

fn unit(text: &[u8], last: bool) -> Unit {
    match text.first() {
        Some(b'%') => percent(text, last),
        Some(b'\\') => backslash(text, last),
        Some(b'&') => entity(text, last),
        Some(_) => Unit::Plain(1),
        None => Unit::More,
    }
}

fn hex(byte: u8) -> Option<u32> {
    char::from(byte).to_digit(16)
}

/// Reads `count` hex digits at `at`: the number, nothing, or not yet known.
fn digits(text: &[u8], at: usize, count: usize, last: bool) -> Result<u32, Unit> {
    let mut number = 0;
    for index in at..at + count {
        match text.get(index) {
            None if last => return Err(Unit::Plain(1)),
            None => return Err(Unit::More),
            Some(&byte) => number = number << 4 | hex(byte).ok_or(Unit::Plain(1))?,
        }
    }
    Ok(number)
}

fn percent(text: &[u8], last: bool) -> Unit {
    if let Some(b'u' | b'U') = text.get(1) {
        // %u0041, as old JavaScript wrote it.
        return match digits(text, 2, 4, last) {
            Ok(number) => char::from_u32(number).map_or(Unit::Plain(1), |char| Unit::Char(6, char, Step::Percent)),
            Err(unit) => unit,
        };
    }
    digits(text, 1, 2, last).map_or_else(|unit| unit, |number| Unit::Byte(3, number as u8, Step::Percent))
}

fn backslash(text: &[u8], last: bool) -> Unit {
    let simple = |char| Unit::Char(2, char, Step::Escape);
    match text.get(1) {
        None if last => Unit::Plain(1),
        None => Unit::More,
        Some(b'n') => simple('\n'),
        Some(b'r') => simple('\r'),
        Some(b't') => simple('\t'),
        // A string within a string: `{"body": "{\"password\": …}"}`.
        Some(quote @ (b'"' | b'\'')) => simple(char::from(*quote)),
        Some(b'/') => simple('/'),
        // Markdown: `sk\_live\_…`, `glpat\-…`.
        Some(mark @ (b'_' | b'-')) => match text.get(2) {
            None if !last => Unit::More,
            Some(next) if next.is_ascii_alphanumeric() => simple(char::from(*mark)),
            _ => Unit::Plain(1),
        },
        Some(b'x') => {
            digits(text, 2, 2, last).map_or_else(|unit| unit, |number| Unit::Byte(4, number as u8, Step::Escape))
        }
        Some(b'0'..=b'3') => octal(text, last),
        Some(b'u') if text.get(2) == Some(&b'{') => braced(text, last),
        Some(b'u') => short(text, last),
        Some(b'U') => match digits(text, 2, 8, last) {
            Ok(number) => char::from_u32(number).map_or(Unit::Plain(1), |char| Unit::Char(10, char, Step::Escape)),
            Err(unit) => unit,
        },
        Some(b'\\') => slashes(text, last),
        Some(_) => Unit::Plain(1),
    }
}

/// What is escaped within a string in a string: each of them doubles the backslashes, so `\\\\n` is a line's end and `\\\"` a quote.
fn slashes(text: &[u8], last: bool) -> Unit {
    let count = text.iter().take(MOST_SLASHES + 1).take_while(|byte| **byte == b'\\').count();
    match text.get(count) {
        None if !last && count <= MOST_SLASHES => Unit::More,
        Some(b'u' | b'x' | b'n' | b'r' | b't' | b'U' | b'0'..=b'3' | b'"' | b'\'') if count <= MOST_SLASHES => {
            match backslash(text.get(count - 1..).unwrap_or_default(), last) {
                Unit::Char(take, char, step) => Unit::Char(count - 1 + take, char, step),
                Unit::Byte(take, byte, step) => Unit::Byte(count - 1 + take, byte, step),
                Unit::Plain(_) => Unit::Char(2, '\\', Step::Escape),
                Unit::More => Unit::More,
            }
        }
        // Markdown within a string.
        Some(mark @ (b'_' | b'-')) if count == 2 => match text.get(3) {
            None if !last => Unit::More,
            Some(next) if next.is_ascii_alphanumeric() => Unit::Char(3, char::from(*mark), Step::Escape),
            _ => Unit::Plain(2),
        },
        _ if count > 2 => Unit::Char(2, '\\', Step::Escape),
        _ => Unit::Plain(2),
    }
}

/// `\101`: three digits, as shells and C take at most.
fn octal(text: &[u8], last: bool) -> Unit {
    let mut value = 0;
    for at in 1..4 {
        match text.get(at) {
            Some(digit @ b'0'..=b'7') => value = value << 3 | (digit - b'0'),
            None if !last => return Unit::More,
            _ => return Unit::Plain(1),
        }
    }
    Unit::Byte(4, value, Step::Escape)
}

/// `\u0041`, or a surrogate pair.
fn short(text: &[u8], last: bool) -> Unit {
    let high = match digits(text, 2, 4, last) {
        Ok(number) => number,
        Err(unit) => return unit,
    };
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high).map_or(Unit::Plain(1), |char| Unit::Char(6, char, Step::Escape));
    }
    for (at, wanted) in [(6, b'\\'), (7, b'u')] {
        match text.get(at) {
            None if !last => return Unit::More,
            Some(&byte) if byte == wanted => {}
            _ => return Unit::Plain(1),
        }
    }
    match digits(text, 8, 4, last) {
        Ok(low) if (0xdc00..0xe000).contains(&low) => {
            let char = char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            char.map_or(Unit::Plain(1), |char| Unit::Char(12, char, Step::Escape))
        }
        Ok(_) => Unit::Plain(1),
        Err(unit) => unit,
    }
}

/// `\u{41}`: 1 to 6 digits.
fn braced(text: &[u8], last: bool) -> Unit {
    for at in 3..10 {
        match text.get(at) {
            None if !last => return Unit::More,
            Some(b'}') if at > 3 => {
                return match digits(text, 3, at - 3, last).ok().and_then(char::from_u32) {
                    Some(char) => Unit::Char(at + 1, char, Step::Escape),
                    None => Unit::Plain(1),
                };
            }
            Some(&byte) if hex(byte).is_some() => {}
            _ => return Unit::Plain(1),
        }
    }
    Unit::Plain(1)
}

/// `&#65;` or `&#x41;`, also without the semicolon, as browsers read it.
fn number(text: &[u8], last: bool) -> Unit {
    let (start, radix) = if matches!(text.get(2), Some(b'x' | b'X')) { (3, 16) } else { (2, 10) };
    // Zeros before it change nothing; a browser reads any number of them, this up to [`MOST_ZEROS`].
    let zeros = text.iter().skip(start).take(MOST_ZEROS).take_while(|byte| **byte == b'0').count();
    let is_digit = |byte: &u8| char::from(*byte).is_digit(radix);
    let digits = text.iter().skip(start + zeros).take(LONGEST_NUMBER).take_while(|byte| is_digit(byte)).count();
    let end = start + zeros + digits;
    if end >= text.len() && !last {
        return Unit::More;
    }
    if text.get(end).is_some_and(is_digit) {
        return Unit::Plain(1);
    }
    let number = text.get(start..end).and_then(|digits| std::str::from_utf8(digits).ok());
    let char = number.and_then(|digits| u32::from_str_radix(digits, radix).ok()).and_then(char::from_u32);
    let next = text.get(end);
    if next.is_some_and(|byte| !byte.is_ascii()) {
        match fold::turn(b"0", text.get(end..).unwrap_or_default(), last) {
            Turn::More => return Unit::More,
            // What does not show may stand before the semicolon, and full-width digits go on: `nested` reads them.
            Turn::Change { put: 0, .. } if end <= TAIL => return Unit::Plain(1),
            Turn::Change { put: 1, .. } if end <= TAIL && next == Some(&0xef) => return Unit::Plain(1),
            Turn::Change { .. } | Turn::Keep(_) => {}
        }
    }
    let take = end + usize::from(next == Some(&b';'));
    char.map_or(Unit::Plain(1), |char| Unit::Char(take, char, Step::Html))
}

fn entity(text: &[u8], last: bool) -> Unit {
    match text.get(1) {
        Some(b'#') => return number(text, last),
        None if !last => return Unit::More,
        _ => {}
    }
    let end = text.iter().take(LONGEST_NAME + 2).skip(1).position(|byte| !byte.is_ascii_alphanumeric());
    let Some(end) = end.map(|end| end + 1) else {
        return if last || text.len() >= LONGEST_NAME + 2 { Unit::Plain(1) } else { Unit::More };
    };
    if text[end] != b';' {
        return Unit::Plain(1);
    }
    let name = std::str::from_utf8(&text[1..end]).unwrap_or_default();
    let char = NAMED.iter().find(|(known, _)| *known == name).map(|(_, char)| *char);
    char.map_or(Unit::Plain(1), |char| Unit::Char(end + 1, char, Step::Html))
}

#[cfg(test)]
#[path = "unescape_tests.rs"]
pub(crate) mod tests;
