//! Tests of [`super`]: what is undone, and what it costs.

use super::super::{AHEAD, Turn, ViewKind};
use super::*;

pub(crate) fn all(view: ViewKind, text: &str) -> String {
    let (bytes, mut at, mut out) = (text.as_bytes(), 0, Vec::new());
    while at < bytes.len() {
        match view.turn(&bytes[..at], &bytes[at..], true, true) {
            Turn::Keep(count) => {
                out.extend_from_slice(&bytes[at..at + count]);
                at += count;
            }
            Turn::Change { take, out: put, put: count, .. } => {
                out.extend_from_slice(&put[..count]);
                at += take;
            }
            Turn::More => panic!("more at the end of {text}"),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn escapes_are_undone() {
    for (escaped, plain) in [
        ("%41%4b", "AK"),
        ("100%", "100%"),
        ("%4", "%4"),
        ("%2541", "A"),
        ("%252525254141", "A41"),
        ("%25%34%31", "A"),
        ("&#37;41", "A"),
        ("&amp;#65;&amp;amp;lt;x", "A<x"),
        (r"\u0041\x42\u{43}\U00000044", "ABCD"),
        (r"\\u0041", "A"),
        (r"\ud83d\ude00", "\u{1f600}"),
        (r"\ud83d", r"\ud83d"),
        (r#"a\nb\"c"#, "a\nb\"c"),
        (r#"{\"a\": \'b\', \\\"c\\\": \\"d\\", \\\\\\\"e"#, r#"{"a": 'b', "c": "d", "e"#),
        (r"a\\nb\\\\nc\\\\\\\\td \\\\u0041", "a\nb\nc\td A"),
        (r"C:\dir\\x \d", r"C:\dir\x \d"),
        (r"ghp\_x1 sk\\_a \_ \- a\-b", r"ghp_x1 sk_a \_ \- a-b"),
        (r"AIzaSyA\_\-xyz x1\- x1\_\_ \_\_x C:\dir\_x \-", r"AIzaSyA_-xyz x1- x1__ \__x C:\dir_x \-"),
        ("&lt;&nope;&#x41;&#0065;&", "<&nope;AA&"),
        ("&#103&#104&#x70_ &#65 &# &#; &#x; &#65", "ghp_ A &# &#; &#x; A"),
        ("&#00000000103;&#x00000000000068;&#0000000000000000112 &#12345678901;", "ghp &#12345678901;"),
        ("&#103&#104&#112中&#103é&#103ﬁ&#x67\u{200b};&#１０3;&#10３;", "ghp中gégﬁggg"),
        ("%u0041", "A"),
        ("%c3%a9", "é"),
        ("%%34%31 %%34", "A %4"),
        ("100%%20off & a=1&b=%20", "100% off & a=1&b= "),
        ("\\u00\u{200b}41 %4\u{ad}1 &#\u{301}6\u{8}5; &a\u{200d}mp; \\\u{feff}n", "A A A & \n"),
        ("%４１ %4\u{e9}", "A %4é"),
    ] {
        assert_eq!(all(ViewKind::Unescape, escaped), plain, "{escaped}");
    }
}

/// What a text costs: in all, and most at one place.
fn steps(text: &[u8]) -> (usize, usize) {
    let (mut at, mut all, mut most) = (0, 0, 0);
    while at < text.len() {
        let seen = &text[at..text.len().min(at + AHEAD)];
        let mut steps = Steps(MOST_STEPS);
        at += match turn_within(&mut steps, seen, at + seen.len() == text.len()) {
            Turn::Keep(count) => count,
            Turn::Change { take, .. } => take,
            Turn::More => 1,
        };
        all += MOST_STEPS - steps.0;
        most = most.max(MOST_STEPS - steps.0);
    }
    (all, most)
}

#[test]
fn crafted_escapes_cost_little() {
    let parts =
        [r"%5c\%5cx5c", r"%5c%5c\%5cx5c", r"\\\\x5c", r"%5c\\x5c\", r"%5c\\u005cx5c", r"5c\\\%", "%%5c", "&#x26;#x25;"];
    for part in parts {
        let text = part.repeat(20_000 / part.len());
        let (all, most) = steps(text.as_bytes());
        assert!(all <= 48 * text.len() && most <= MOST_STEPS, "{part} {all} {most}");
    }
}

#[test]
fn what_is_escaped_all_over_is_undone_as_deep_as_before() {
    let percent = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02x}")).collect() };
    let hex = |text: &str| -> String { text.bytes().map(|byte| format!("\\x{byte:02x}")).collect() };
    let unicode = |text: &str| -> String { text.bytes().map(|byte| format!("\\u{byte:04x}")).collect() };
    for text in [
        percent(&percent(&percent(&percent("gh")))),
        hex(&hex(&hex(&hex("gh")))),
        unicode(&unicode(&unicode("gh"))),
        percent(&percent(&percent(&unicode("gh")))),
        percent(&percent(&percent(&hex("gh")))),
        unicode(&percent(&percent("gh"))),
    ] {
        assert_eq!(all(ViewKind::Unescape, &text), "gh", "{text} {:?}", steps(text.as_bytes()));
    }
}
