//! Path patterns of rules, and the one normal form in which patterns and requests are compared.
//!
//! Made by `parse` and `git`, matched by `decide` and `git`; the proxy may call [`normalise_path`] itself. It promises that a path which two
//! servers could read differently (dot segments, encoded slashes, backslashes, double encoding of those, characters in
//! more bytes than they need) has no normal form at all, so that it can match no pattern.
//!
//! How a pattern matches:
//!
//! | pattern | matches | does not match |
//! |---|---|---|
//! | `/a/b` | `/a/b` | `/a/b/`, `/a`, `/A/b` |
//! | `/a/*` | `/a/`, `/a/x`, `/a/x/y` | `/a`, `/ab` |
//! | `/*` | every path | |
//! | `/repos/*/issues` | `/repos/x/issues` | `/repos//issues`, `/repos/x/y/issues` |
//!
//! Only the path is compared, never the query. Letters are compared exactly.

use super::destination::Wrong;
use super::error::quote;

/// Why a path has no normal form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with /")]
    NotAbsolute,
    /// A `.` or `..` segment, plain or encoded, where such a one is not taken.
    #[error("the path holds a . or .. segment")]
    DotSegment,
    /// `%2F`, `%5C` or a backslash, also encoded twice.
    #[error("the path holds an encoded slash or a backslash")]
    HiddenSlash,
    /// `%` without two hexadecimal digits.
    #[error("the path holds a % that is not followed by two hexadecimal digits")]
    BadEscape,
    /// A character in more UTF-8 bytes than it needs (`%C0%AF` for a slash), which RFC 3629 §3 forbids and some decode.
    #[error("the path holds overlong UTF-8")]
    Overlong,
    /// Control characters, spaces or `#`, plain or (control characters) encoded.
    #[error("the path holds characters that paths do not have")]
    BadCharacter,
}

/// The normal form of a request path: encoded unreserved characters decoded, other escapes in upper case, characters
/// beyond ASCII encoded, the query cut off (RFC 3986 §6.2.2).
///
/// # Errors
/// [`PathError`] when servers could disagree about what the path means.
pub fn normalise_path(path: &str) -> Result<String, PathError> {
    refuse_overlong(path)?;
    let path = path.split('?').next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let mut normal = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => {
                let (byte, after) = escape(rest).ok_or(PathError::BadEscape)?;
                match byte {
                    b'/' | b'\\' => return Err(PathError::HiddenSlash),
                    0..=0x1f | 0x7f => return Err(PathError::BadCharacter),
                    b'%' => hidden_twice(after)?,
                    _ => {}
                }
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    normal.push(char::from(byte));
                } else {
                    push_escaped(&mut normal, byte);
                }
                rest = after;
            }
            b'\\' => return Err(PathError::HiddenSlash),
            0..=0x20 | 0x7f | b'#' => return Err(PathError::BadCharacter),
            0x80.. => push_escaped(&mut normal, *first),
            _ => normal.push(char::from(*first)),
        }
    }
    if normal.split('/').any(is_dot_segment) {
        return Err(PathError::DotSegment);
    }
    Ok(normal)
}

/// Refuses a path with overlong UTF-8, also where only some of it is percent-encoded: no sound client sends that, so it
/// is refused even by rules that list no paths.
///
/// # Errors
/// [`PathError::Overlong`].
pub(super) fn refuse_overlong(path: &str) -> Result<(), PathError> {
    let mut rest = path.split('?').next().unwrap_or_default().as_bytes();
    let mut before = 0;
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = if *first == b'%' { escape(after).unwrap_or((*first, after)) } else { (*first, after) };
        // The lead bytes of what fits into fewer bytes: all of C0 and C1, the low ends of E0 and F0.
        if matches!((before, byte), (0xc0 | 0xc1, 0x80..=0xbf) | (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f)) {
            return Err(PathError::Overlong);
        }
        (before, rest) = (byte, after);
    }
    Ok(())
}

/// Refuses a path that leads above its root by dot segments (RFC 3986 §5.2.4) under any reading of it: escapes undone never, once or
/// several times, what is a backslash or an escaped slash taken for a slash or not, each for itself. Clients take these segments out
/// before they send, and of a server that does not nobody knows where it would lead. Refused even by rules that list no paths.
///
/// # Errors
/// [`PathError::DotSegment`].
pub(super) fn refuse_climbing(path: &str) -> Result<(), PathError> {
    let path = path.split('?').next().unwrap_or_default();
    // Nearly every path: nothing in it can be such a segment.
    if !path.contains("..") && !path.contains('%') {
        return Ok(());
    }
    let octets = undone(path);
    let is_dot = |octet: &Octet| octet.byte == b'.';
    if !octets.windows(2).any(|pair| pair.iter().all(is_dot)) {
        return Ok(());
    }
    // Its end is that of its last segment.
    let end = Octet { byte: b'/', is_plain: true };
    let mut readings = vec![Reading::default()];
    for octet in octets.into_iter().chain([end]) {
        let mut next: Vec<Reading> = Vec::with_capacity(readings.len() + 1);
        let mut add = |reading: Reading| match next.iter_mut().find(|known| known.segment == reading.segment) {
            // Whatever follows leads above the root from the lower one first.
            Some(known) => known.depth = known.depth.min(reading.depth),
            None => next.push(reading),
        };
        for reading in readings {
            if matches!(octet.byte, b'/' | b'\\') {
                add(reading.ended()?);
            }
            if octet.byte != b'/' || !octet.is_plain {
                add(reading.and(octet.byte));
            }
        }
        readings = next;
    }
    Ok(())
}

/// An octet of a path whose escapes were undone.
struct Octet {
    byte: u8,
    /// It stands there as it is.
    is_plain: bool,
}

/// The octets of a path with its escapes undone as often as there are any, those that come of undoing others as well. A dot or a
/// semicolon that is escaped is one for whoever undoes that, and leads no higher for those who do not.
fn undone(path: &str) -> Vec<Octet> {
    let mut octets: Vec<Octet> = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        octets.push(Octet { byte, is_plain: true });
        while let [.., Octet { byte: b'%', .. }, high, low] = octets.as_slice()
            && let Some((byte, _)) = escape(&[high.byte, low.byte])
        {
            octets.truncate(octets.len() - 3);
            octets.push(Octet { byte, is_plain: false });
        }
    }
    octets
}

/// One way to read a path as far as it was read.
#[derive(Clone, Copy, Default)]
struct Reading {
    depth: usize,
    segment: Begun,
}

/// A segment as far as it was read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Begun {
    /// How many dots it is, if it is nothing else and at most two.
    dots: Option<u8>,
    /// Something is in it.
    is_filled: bool,
    /// What follows are its parameters.
    has_parameters: bool,
}

impl Reading {
    /// With one octet more in the segment.
    fn and(self, byte: u8) -> Self {
        let Begun { dots, is_filled, has_parameters } = self.segment;
        let segment = match byte {
            _ if has_parameters => self.segment,
            b';' => Begun { has_parameters: true, ..self.segment },
            b'.' if !is_filled => Begun { dots: Some(1), is_filled: true, has_parameters },
            b'.' if dots == Some(1) => Begun { dots: Some(2), ..self.segment },
            _ => Begun { dots: None, is_filled: true, has_parameters },
        };
        Self { segment, ..self }
    }

    /// With the segment ended. Servers that make one slash of two leave out what is empty, so it does not count.
    fn ended(self) -> Result<Self, PathError> {
        let depth = match self.segment {
            Begun { dots: Some(2), .. } => self.depth.checked_sub(1).ok_or(PathError::DotSegment)?,
            Begun { dots: Some(_), .. } | Begun { is_filled: false, .. } => self.depth,
            _ => self.depth + 1,
        };
        Ok(Self { depth, segment: Begun::default() })
    }
}

/// The byte of the two hexadecimal digits at the front, and what follows them.
fn escape(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = bytes else { return None };
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some((digit(high)? << 4 | digit(low)?, rest))
}

/// After `%25`: refuses what would become a dot, slash or backslash for a server that decodes more than once.
fn hidden_twice(mut rest: &[u8]) -> Result<(), PathError> {
    while let Some((byte, after)) = escape(rest) {
        match byte {
            b'.' => return Err(PathError::DotSegment),
            b'/' | b'\\' => return Err(PathError::HiddenSlash),
            0xc0 | 0xc1 => return Err(PathError::Overlong),
            b'%' => rest = after,
            _ => return Ok(()),
        }
    }
    Ok(())
}

fn push_escaped(normal: &mut String, byte: u8) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    normal.push('%');
    for nibble in [byte >> 4, byte & 15] {
        normal.push(HEX.get(usize::from(nibble)).copied().unwrap_or('0'));
    }
}

/// `.` and `..`, also with parameters behind them (`..;x`), which some servers strip first.
fn is_dot_segment(segment: &str) -> bool {
    let name = segment.split(';').next().unwrap_or_default();
    let name = name.split("%3B").next().unwrap_or_default();
    matches!(name, "." | "..")
}

/// One pattern under `paths`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    /// The normal form of the pattern as it is written.
    text: String,
    segments: Vec<Segment>,
    /// Ends in `*`: at least one more segment follows, which begins with this; nothing for `/*`, of which it may be empty.
    open: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exactly(String),
    /// Any one segment that is not empty.
    Any,
}

impl PathPattern {
    /// The pattern as the policy spells it, in normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// True when the pattern lists this path, which must be in normal form ([`normalise_path`]).
    #[must_use]
    pub fn matches(&self, normal: &str) -> bool {
        normal.strip_prefix('/').is_some_and(|path| self.lists(path.as_bytes()))
    }

    /// The same for a name without a slash in front.
    pub(super) fn lists(&self, name: &[u8]) -> bool {
        let mut given = name.split(|byte| *byte == b'/');
        for segment in &self.segments {
            let fits = match (segment, given.next()) {
                (Segment::Exactly(own), Some(name)) => own.as_bytes() == name,
                (Segment::Any, Some(name)) => !name.is_empty(),
                (_, None) => false,
            };
            if !fits {
                return false;
            }
        }
        match (&self.open, given.next()) {
            (Some(begin), Some(name)) => name.starts_with(begin.as_bytes()),
            (None, None) => true,
            _ => false,
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        if text.contains(['?', '#']) {
            let path = text.split(['?', '#']).next().unwrap_or_default();
            return Err((
                format!("{} holds a query or fragment; only paths are compared", quote(text)),
                format!("write {}", quote(path)),
            ));
        }
        if let Some((_, rest)) = text.split_once("://") {
            let path = rest.split_once('/').map_or("", |(_, path)| path);
            return Err((
                format!("{} is a URL, not a path", quote(text)),
                format!("write {}", quote(&format!("/{path}"))),
            ));
        }
        let normal = normalise_path(text).map_err(|error| {
            let help = match error {
                PathError::NotAbsolute => format!("write {}", quote(&format!("/{text}"))),
                _ => "write the path as servers see it, without tricks".to_owned(),
            };
            (format!("{} can match nothing: {error}", quote(text)), help)
        })?;
        let pattern = Self::of_name(normal.get(1..).unwrap_or_default())?;
        if pattern.open.as_ref().is_some_and(|begin| !begin.is_empty()) {
            return Err(inside(normal.rsplit('/').next().unwrap_or_default(), text));
        }
        Ok(Self { text: normal, ..pattern })
    }

    /// The pattern of names that have no normal form but themselves, without a slash in front. The last segment may end in
    /// `*` too: `v*` is whatever begins with `v`.
    pub(super) fn of_name(text: &str) -> Result<Self, Wrong> {
        let mut names: Vec<&str> = text.split('/').collect();
        let open = names.last().and_then(|name| name.strip_suffix('*')).map(str::to_owned);
        if open.is_some() {
            names.pop();
        }
        let odd = |name: &&str| name.contains('*') && *name != "*";
        if let Some(odd) = names.iter().copied().find(odd).or(open.as_deref().filter(|begin| begin.contains('*'))) {
            return Err(inside(odd, text));
        }
        let segments = names
            .into_iter()
            .map(|name| if name == "*" { Segment::Any } else { Segment::Exactly(name.to_owned()) })
            .collect();
        Ok(Self { segments, open, text: text.to_owned() })
    }
}

fn inside(segment: &str, text: &str) -> Wrong {
    let message = format!("{} has a * inside the segment {}", quote(text), quote(segment));
    let help = "* stands for a whole segment, and at the end (/a/*) for everything below; ** is not needed";
    (message, help.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let pattern = PathPattern::parse(pattern).expect(pattern);
        normalise_path(path).is_ok_and(|normal| pattern.matches(&normal))
    }

    #[test]
    fn no_path_leads_above_its_root() {
        for path in [
            "/..",
            "/../x",
            "/api/../../x",
            "/api/%2e%2E/.%2e/x",
            "/./../x",
            "/a//../../x",
            "/a/..;x/../y",
            "/..%2f..%5cx",
            "/a\\..\\..\\x",
            "/a/../../a?b",
            // Who takes / alone for a slash.
            "/a%2fb/../../x",
            "/a\\b/../../x",
            "/a%5Cb/%2e%2e/../x",
            "/a%252fb/../../x",
            // Who undoes escapes more than once.
            "/%252e%252e/x",
            "/a/%252e%252e/../x",
            "/%25252e./x",
            "/%25%32%65%%32e/x",
            "/a%252fb/..%2f..",
            "/..%253bx/",
        ] {
            assert_eq!(refuse_climbing(path), Err(PathError::DotSegment), "{path}");
        }
        for path in [
            "/",
            "*",
            "",
            "/a/..",
            "/a/../b",
            "/a/./b/../..",
            "/...",
            "/..a/..b",
            "/a?/../../x",
            "/a/%2e%2e",
            "//",
            "/%",
            "/.%2",
            "/a%2fb/../x",
            "/a%2fb/c%5cd/../..",
            "/%252e/%2e%2e.",
            "/a/%252e%252e",
            "/a%20b/..;/c..d",
        ] {
            assert_eq!(refuse_climbing(path), Ok(()), "{path}");
        }
    }

    /// Whether one server would leave the root: it undoes escapes so often, and takes these for slashes.
    fn climbs(path: &str, times: usize, slashes: &[char]) -> bool {
        let undo = |text: String| {
            let (mut undone, mut rest) = (String::new(), text.as_bytes());
            while let Some((first, after)) = rest.split_first() {
                let (byte, after) = escape(after).filter(|_| *first == b'%').unwrap_or((*first, after));
                undone.push(char::from(byte));
                rest = after;
            }
            undone
        };
        let path = (0..times).fold(path.to_owned(), |path, _| undo(path));
        let mut depth = 0;
        path.split(slashes).any(|segment| {
            match segment.split(';').next() {
                Some("..") => depth -= 1,
                Some("" | ".") => {}
                _ => depth += 1,
            }
            depth < 0
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn whatever_leads_some_server_above_its_root_is_refused(
            pieces in proptest::collection::vec(
                proptest::sample::select(&[
                    "/..", "/..", "/..", "/a", "/a", "/", "..", ".", "a", "%2f", "%5c", "\\", "%2e", "%252e", "%252f", "%25", "%",
                    "2e", ";", "%3b",
                ][..]),
                0..12,
            ),
        ) {
            let path = format!("/{}", pieces.concat());
            let readings = (0..5).flat_map(|times| [(times, &['/'][..]), (times, &['/', '\\'])]);
            let does = readings.into_iter().any(|(times, slashes)| climbs(&path, times, slashes));
            prop_assert!(!does || refuse_climbing(&path).is_err(), "{}", path);
            // And a path that all read alike, if and only if.
            if !path.contains(['%', '\\']) {
                prop_assert_eq!(does, refuse_climbing(&path).is_err(), "{}", path);
            }
        }
    }

    #[test]
    fn patterns_match_what_the_table_says() {
        for (pattern, yes, no) in [
            ("/a/b", &["/a/b", "/a/b?q=1", "/%61/b"][..], &["/a/b/", "/a", "/A/b", "/a/b/c"][..]),
            ("/a/*", &["/a/", "/a/x", "/a/x/y", "/a//x"], &["/a", "/ab", "/b/a/", "//a/x"]),
            ("/*", &["/", "/x", "/x/y"], &[]),
            ("/", &["/"], &["/x"]),
            ("/repos/*/issues", &["/repos/x/issues"], &["/repos//issues", "/repos/x/y/issues", "/repos/x/issues/1"]),
            ("/repos/*/issues/*", &["/repos/x/issues/1/2"], &["/repos/x/issues"]),
            ("/bücher", &["/b%c3%bccher", "/b%C3%BCcher"], &["/bucher"]),
        ] {
            for path in yes {
                assert!(matches(pattern, path), "{pattern} should match {path}");
            }
            for path in no {
                assert!(!matches(pattern, path), "{pattern} should not match {path}");
            }
        }
    }

    #[test]
    fn ambiguous_paths_have_no_normal_form() {
        for (path, error) in [
            ("/a/../b", PathError::DotSegment),
            ("/a/%2e%2E/b", PathError::DotSegment),
            ("/a/.", PathError::DotSegment),
            ("/a/..;x=1/b", PathError::DotSegment),
            ("/a/..%3bx/b", PathError::DotSegment),
            ("/a/%252e%252e/b", PathError::DotSegment),
            ("/a/%25252fb", PathError::HiddenSlash),
            ("/a%2fb", PathError::HiddenSlash),
            ("/a%5Cb", PathError::HiddenSlash),
            ("/a\\b", PathError::HiddenSlash),
            ("/a%", PathError::BadEscape),
            ("/a%4", PathError::BadEscape),
            ("/a%zz", PathError::BadEscape),
            ("/a%00", PathError::BadCharacter),
            ("/a/..%c0%af../b", PathError::Overlong),
            ("/a/%C1%9C", PathError::Overlong),
            ("/a/%25c0%25af", PathError::Overlong),
            ("/a/%e0%80%af", PathError::Overlong),
            ("/a/%f0%80%80%af", PathError::Overlong),
            ("/a b", PathError::BadCharacter),
            ("/a#b", PathError::BadCharacter),
            ("a", PathError::NotAbsolute),
            ("", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
        ] {
            assert_eq!(normalise_path(path), Err(error), "{path}");
        }
        assert_eq!(normalise_path("/100%25").as_deref(), Ok("/100%25"));
        assert_eq!(normalise_path("/a/...").as_deref(), Ok("/a/..."));
        // Latin-1, and characters of three and four bytes that need them.
        for path in ["/%C0", "/%E9t%E9", "/%E0%A0%80", "/%F0%9F%98%80"] {
            assert_eq!(normalise_path(path).as_deref(), Ok(path));
        }
    }

    #[test]
    fn patterns_that_would_mislead_are_refused() {
        for (pattern, help) in [
            ("a/b", "\"/a/b\""),
            ("/a?x=1", "\"/a\""),
            ("/v*/x", "whole segment"),
            ("/a/**", "whole segment"),
            ("https://h/a", "\"/a\""),
            ("/a/../b", "without tricks"),
        ] {
            assert!(PathPattern::parse(pattern).expect_err(pattern).1.contains(help), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn the_normal_form_is_stable(path in "/[ -~]{0,30}") {
            if let Ok(normal) = normalise_path(&path) {
                prop_assert_eq!(normalise_path(&normal), Ok(normal.clone()));
                prop_assert!(!normal.contains("/../"));
            }
        }
    }
}
