//! A value is found in every encoding, and what is no secret is not searched for.

use super::encode::{LONGEST, SHORTEST, needles};
use super::*;
use proptest::prelude::*;

const VALUE: &[u8] = b"kV8w/Q2zL+9nT4=xR7pM0";

fn known(value: &[u8]) -> KnownValues {
    let mut builder = Builder::new();
    builder.add("CANARY", value, Source::Canary).unwrap();
    builder.build().unwrap()
}

fn found(text: &[u8]) -> Option<Encoding> {
    let known = known(VALUE);
    let hits = known.find(text).unwrap();
    assert!(hits.iter().all(|hit| known.name(hit.value) == "CANARY" && text.get(hit.span.clone()).is_some()));
    hits.first().map(|hit| hit.encoding)
}

#[test]
fn every_encoding_is_found() {
    // Computed with Python's base64, binascii, codecs, json, html and urllib.
    for (text, encoding) in [
        ("value kV8w/Q2zL+9nT4=xR7pM0!", Encoding::Raw),
        ("a1Y4dy9RMnpMKzluVDQ9eFI3cE0w", Encoding::Base64),
        ("eGtWOHcvUTJ6TCs5blQ0PXhSN3BNMHk=", Encoding::Base64),
        ("eHhrVjh3L1EyekwrOW5UND14UjdwTTB5eQ==", Encoding::Base64),
        ("NNLDQ5ZPKEZHUTBLHFXFINB5PBJDO4CNGA======", Encoding::Base32),
        ("6b5638772f51327a4c2b396e54343d785237704d30", Encoding::Hex),
        ("6B:56:38:77:2F:51:32:7A:4C:2B:39:6E:54:34:3D:78:52:37:70:4D:30", Encoding::Hex),
        (r#"cxzTTcP~*gdQ2-hZd5cqcv3fTO)z<R"#, Encoding::Base85),
        (r#"CLqd,<]G:V;)3Gk.lhKH1d-(]2fMJF"#, Encoding::Base85),
        ("kV8w%2FQ2zL%2B9nT4%3DxR7pM0", Encoding::Percent),
        ("xI8j/D2mY+9aG4=kE7cZ0", Encoding::Rot13),
        ("0Mp7Rx=4Tn9+Lz2Q/w8Vk", Encoding::Reversed),
        ("KV8W/Q2ZL+9NT4=XR7PM0", Encoding::OtherCase),
        (r"kV8w\/Q2zL+9nT4=xR7pM0", Encoding::Json),
    ] {
        assert_eq!(found(text.as_bytes()), Some(encoding), "{text}");
    }
    let utf16: Vec<u8> = VALUE.iter().flat_map(|&byte| [byte, 0]).collect();
    assert_eq!(found(&utf16), Some(Encoding::Utf16));
    assert_eq!(found(b"kV8w/Q2zL+9nT4"), None);
}

#[test]
fn a_part_of_a_long_value_is_found() {
    let value = b"q7Kp2mQ9vR4sL8nW1bY6cT3fA0jH5dExZ2wV7uB4";
    let known = known(value);
    for start in 0..value.len() - 31 {
        assert!(!known.find(&value[start..start + 31]).unwrap().is_empty(), "{start}");
    }
    assert!(known.find(&value[..15]).unwrap().is_empty());
}

#[test]
fn what_is_no_secret_is_not_searched_for() {
    let mut builder = Builder::new();
    for (value, source, reason) in [
        ("short", Source::Canary, Refused::TooShort),
        ("aaaaaaaaaaaaaaaa", Source::Canary, Refused::TooPlain),
        ("password", Source::Secret, Refused::TooPlain),
        ("2024-06-01 12:00", Source::Secret, Refused::TooPlain),
        ("kV8wQ2zL9nT4", Source::Variable, Refused::TooShort),
        ("/usr/local/lib/python3.11/site", Source::Variable, Refused::TooPlain),
        ("https://api.example.com/v1/things", Source::Variable, Refused::TooPlain),
        ("the quick brown fox jumps", Source::Variable, Refused::TooPlain),
    ] {
        assert_eq!(builder.add("x", value.as_bytes(), source), Err(reason), "{value}");
    }
    assert_eq!(builder.add("x", b"kV8wQ2zL9nT4xR7pM0", Source::Variable), Ok(()));
}

#[test]
fn an_environment_gives_its_secrets() {
    let mut builder = Builder::new();
    let variables: [(&str, &[u8]); 9] = [
        ("PATH", b"/usr/bin:/bin:/a1b2c3d4e5f6a7b8c9"),
        ("HOME", b"/home/me"),
        ("DEPLOY_TOKEN", b"kV8wQ2zL9nT4"),
        ("DATABASE_URL", b"postgres://app:rT7pLw02qZxM@db.corp.net/prod"),
        ("SESSION", b"x9Qm2vR7tLb4Nc8Wk3Hd"),
        ("GREETING", b"hello to all of you out there"),
        ("DB_PASSWORD", b"pw"),
        ("LC_ALL", b"en_GB.UTF-8"),
        ("XDG_RUNTIME_DIR", b"/run/user/1000"),
    ];
    let refused = from_environment(&mut builder, variables);
    assert_eq!(refused, [("DB_PASSWORD".to_owned(), Refused::TooShort)]);
    let known = builder.build().unwrap();
    let names: Vec<&str> = known
        .find(b"kV8wQ2zL9nT4 rT7pLw02qZxM x9Qm2vR7tLb4Nc8Wk3Hd /home/me hello to all of you out there")
        .unwrap()
        .iter()
        .map(|hit| known.name(hit.value))
        .collect();
    assert_eq!(names, ["DEPLOY_TOKEN", "DATABASE_URL", "SESSION"]);
}

#[test]
fn a_file_gives_its_lines() {
    let mut builder = Builder::new();
    let file = b"# comment\nAPI=kV8wQ2zL9nT4\nexport B=\"x9Qm2vR7tLb4\"\nrT7pLw02qZxM\nc: Nc8Wk3Hd5Jf1\nZW5kcyB3aXRoIHBhZGRpbmc=\nno\n\n";
    let refused = from_file(&mut builder, "secrets.env", file);
    assert_eq!(refused, [(7, Refused::TooShort)]);
    let known = builder.build().unwrap();
    for (text, line) in [
        ("kV8wQ2zL9nT4", 2),
        ("x9Qm2vR7tLb4", 3),
        ("rT7pLw02qZxM", 4),
        ("Nc8Wk3Hd5Jf1", 5),
        ("ZW5kcyB3aXRoIHBhZGRpbmc=", 6),
    ] {
        let hits = known.find(format!("<{text}>").as_bytes()).unwrap();
        assert_eq!(
            hits.first().map(|hit| known.name(hit.value)),
            Some(format!("secrets.env:{line}").as_str()),
            "{text}"
        );
    }
}

#[test]
fn values_are_not_shown_and_not_doubled() {
    let mut builder = Builder::new();
    builder.add("A", VALUE, Source::Canary).unwrap();
    builder.add("B", VALUE, Source::Canary).unwrap();
    assert!(!format!("{builder:?}").contains("kV8w"));
    let known = builder.build().unwrap();
    assert!(!format!("{known:?}").contains("kV8w"));
    assert_eq!(known.find(VALUE).unwrap().len(), 1);
}

#[test]
fn nothing_known_finds_nothing() {
    let known = Builder::new().build().unwrap();
    assert_eq!(known.find(b"anything").unwrap(), []);
    assert_eq!(known.longest(), 0);
}

/// Base64 or Base32 of the whole text, without padding.
fn encode_all(text: &[u8], width: usize, alphabet: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = text.iter().flat_map(|byte| (0..8).rev().map(move |place| (byte >> place) & 1)).collect();
    bits.chunks(width)
        .map(|chunk| {
            let digit =
                (0..width).fold(0usize, |digit, place| (digit << 1) | usize::from(*chunk.get(place).unwrap_or(&0)));
            alphabet[digit]
        })
        .collect()
}

proptest! {
    #[test]
    fn encoded_between_anything_it_is_found(
        value in "[!-~]{12,90}", before in "[ -~]{0,7}", after in "[ -~]{0,7}"
    ) {
        prop_assume!(value.bytes().collect::<std::collections::BTreeSet<_>>().len() >= 3);
        let known = known(value.as_bytes());
        let text = format!("{before}{value}{after}").into_bytes();
        let base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let base32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
        prop_assert!(!known.find(&text).unwrap().is_empty());
        prop_assert!(!known.find(&encode_all(&text, 6, base64)).unwrap().is_empty());
        prop_assert!(!known.find(&encode_all(&text, 5, base32)).unwrap().is_empty());
        prop_assert!(!known.find(hex.as_bytes()).unwrap().is_empty());
    }

    #[test]
    fn needles_are_bounded(value in proptest::collection::vec(any::<u8>(), 8..600)) {
        let needles = needles(&value);
        prop_assert!(needles.len() <= 64 + value.len() / 16);
        for (needle, encoding) in needles {
            prop_assert!(needle.len() >= SHORTEST && (needle.len() <= LONGEST || encoding == Encoding::Raw));
        }
    }
}
