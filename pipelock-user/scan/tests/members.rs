//! Compressed members that follow each other: one text to who unpacks them, and each one by itself. Both are read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/streams.rs"]
mod streams;

use std::io::Write as _;

use fixture::*;
use flate2::Compression;
use pipelock_scan::{Coding, Decoded, Finding, Scanner};

type Pack = fn(&str) -> Vec<u8>;

fn gzip(text: &str) -> Vec<u8> {
    gzip_at(text.as_bytes(), Compression::best())
}

fn gzip_at(text: &[u8], level: Compression) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), level);
    to.write_all(text).unwrap();
    to.finish().unwrap()
}

fn zlib(text: &str) -> Vec<u8> {
    let mut to = flate2::write::ZlibEncoder::new(Vec::new(), Compression::best());
    to.write_all(text.as_bytes()).unwrap();
    to.finish().unwrap()
}

fn zstd(text: &str) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
}

const PACKS: [(&str, Pack); 3] = [("gzip", gzip), ("deflate", zlib), ("zstd", zstd)];

fn has_token(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| &*finding.rule == "test-token")
}

fn named(token: &str, pieces: &[&[u8]]) -> Vec<Finding> {
    let mut stream = scanner().stream_as(Coding::of(token).unwrap()).unwrap();
    for piece in pieces {
        let _ = stream.push(piece).unwrap();
    }
    stream.finish().unwrap()
}

/// Found with and without a header that names it, by both engines, and the same at every cut.
fn is_found(name: &str, token: &str, packed: &[u8]) {
    let whole = scanner().scan(packed).unwrap();
    assert!(has_token(&whole), "{name} {token} {whole:?}");
    assert_eq!(oracle().scan(packed).unwrap(), whole, "{name} {token}");
    let as_named = named(token, &[packed]);
    assert!(has_token(&as_named), "{name} {token} {as_named:?}");
    let step = 1 + packed.len() / 300;
    for cut in (0..=packed.len()).step_by(step) {
        let (one, other) = packed.split_at(cut);
        assert_eq!(streamed(&[one, other]), whole, "{name} {token} {cut}");
        assert_eq!(named(token, &[one, other]), as_named, "{name} {token} {cut}");
    }
    assert_eq!(streams::escaped(scanner(), packed, 7), None, "{name} {token}");
}

#[test]
fn a_secret_cut_across_members_is_found() {
    let (one, other) = SECRET.split_at(SECRET.len() / 2);
    let (start, end) = (format!("hello {one}"), format!("{other} bye"));
    for (token, pack) in PACKS {
        is_found("two", token, &[pack(&start), pack(&end)].concat());
        is_found("an empty one between", token, &[pack(&start), pack(""), pack(&end)].concat());
        let each: Vec<Vec<u8>> = format!("hello {SECRET} bye").chars().map(|char| pack(&char.to_string())).collect();
        is_found("a member each", token, &each.concat());
    }
    for zeros in [1, 3, 200, 1000] {
        is_found("padding", "gzip", &[gzip(&start), vec![0; zeros], gzip(&end)].concat());
    }
    is_found("no trailer", "gzip", &[&gzip(&start)[..gzip(&start).len() - 8], &gzip(&end)].concat());
    // As the tool of Zstandard unpacks them.
    is_found("two kinds", "zstd", &[zstd(&start), gzip(""), zstd(&end)].concat());
    let skipped = [0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1, 2, 3, 4, 5];
    is_found("a frame to pass over", "zstd", &[&zstd(&start)[..], &skipped, &zstd(&end)].concat());
    let wrapped = base64(&[gzip(&start), gzip(&end)].concat(), STANDARD, true);
    assert!(has_token(&scanner().scan(wrapped.as_bytes()).unwrap()));
}

/// Four bytes behind `text` that make its CRC-32 (RFC 1952 §8) this one.
fn forcing(text: &[u8], wanted: u32) -> [u8; 4] {
    let step = |byte: u32| (0..8).fold(byte, |word, _| if word & 1 == 0 { word >> 1 } else { word >> 1 ^ 0xedb8_8320 });
    let table: Vec<u32> = (0..256).map(step).collect();
    let register = text.iter().fold(!0u32, |word, byte| word >> 8 ^ table[((word ^ u32::from(*byte)) & 0xff) as usize]);
    let before = (0..4).fold(!wanted, |word, _| {
        let at = table.iter().position(|entry| entry >> 24 == word >> 24).unwrap();
        (word ^ table[at]) << 8 | at as u32
    });
    (before ^ register).to_le_bytes()
}

#[test]
fn a_trailer_that_looks_like_a_frame_to_pass_over_is_none() {
    let mut text = [b' '; 96].to_vec();
    text.extend_from_slice(&forcing(&text, 0x184d_2a50));
    let first = gzip_at(&text, Compression::best());
    assert_eq!(first[first.len() - 8..], [0x50, 0x2a, 0x4d, 0x18, 100, 0, 0, 0]);
    is_found("in its place", "gzip", &[&first[..], &gzip(SECRET)].concat());
}

#[test]
fn a_trailer_that_looks_like_a_member_is_none() {
    let (one, other) = SECRET.split_at(SECRET.len() / 2);
    // As long as what zlib begins with says.
    let first = gzip(&format!("{}{one}", " ".repeat(0x178 - one.len())));
    assert_eq!(first[first.len() - 4..], [0x78, 1, 0, 0]);
    for zeros in [0, 1, 136, 137, 200, 247, 248, 249, 255, 256, 1000] {
        is_found(&format!("{zeros}"), "gzip", &[&first[..], &vec![0; zeros], &gzip(other)].concat());
    }
}

/// A frame of Zstandard that is passed over (RFC 8878 §3.1.2).
fn passed_over(contents: &[u8]) -> Vec<u8> {
    [&[0x5a, 0x2a, 0x4d, 0x18][..], &(contents.len() as u32).to_le_bytes(), contents].concat()
}

#[test]
fn frames_of_any_length_are_passed_over_and_read() {
    let (one, other) = SECRET.split_at(SECRET.len() / 2);
    let (start, end) = (zstd(&format!("hello {one}")), zstd(&format!("{other} bye")));
    for length in [0, 1, 127, 128, 129, 247, 248, 249, 500, 5000, 70_000] {
        let frame = passed_over(&vec![b'.'; length]);
        is_found(&format!("{length}"), "zstd", &[&start[..], &frame, &end].concat());
        is_found(&format!("{length} twice"), "zstd", &[&start[..], &frame, &frame, &end].concat());
    }
    for packed in [gzip(SECRET), zstd(SECRET), [gzip(one), gzip(other)].concat()] {
        for padding in [0, 300] {
            let frame = passed_over(&[&vec![b'.'; padding][..], &packed, &vec![b'.'; padding]].concat());
            is_found(&format!("within {padding}"), "zstd", &[&zstd("a"), &frame[..], &zstd("b")].concat());
            // What is cut across it is found all the same.
            let inner = passed_over(&gzip(&"some words ".repeat(9)));
            is_found("around", "zstd", &[&start[..], &inner, &end].concat());
        }
    }
}

/// A member of gzip that holds each text in a block of its own, with empty ones behind it (RFC 1951 §3.2.4).
fn in_blocks(texts: &[&str]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
    for text in texts {
        let length = text.len() as u16;
        packed.push(0);
        packed.extend(length.to_le_bytes().into_iter().chain((!length).to_le_bytes()));
        packed.extend_from_slice(text.as_bytes());
        packed.extend([0, 0, 0, 0xff, 0xff].repeat(60));
    }
    packed.extend([1, 0, 0, 0xff, 0xff]);
    packed.extend([0; 8]);
    packed
}

#[test]
fn what_is_whole_in_a_member_does_not_leave_before_it_is_found() {
    // Without the end of the member before, which makes its first word none.
    let scanner = Scanner::new(rules().with_builtins(), &KEY).unwrap();
    let last = format!("{}about and more", "abandon ".repeat(9));
    let packed = [gzip("abc"), in_blocks(&["abandon ", "abandon ", &last])].concat();
    assert_eq!(scanner.scan(&packed).unwrap().len(), 1);
    for size in [1, 7, 64, 256, 1000] {
        assert_eq!(streams::escaped(&scanner, &packed, size), None, "{size}");
    }
}

#[test]
fn a_secret_that_is_whole_in_one_member_is_found_whatever_stands_in_the_next() {
    // It has to stand by itself.
    let id = "AKIAIOSFODNN7EXAMPLE";
    for (token, pack) in PACKS {
        // Long ones too, of which only what lies where they meet is read twice.
        for words in [String::new(), "and some more words ".repeat(600)] {
            for (one, other) in
                [(format!("{words}abc"), format!("{id} {words}")), (format!("{words} {id}"), format!("abc{words}"))]
            {
                let packed = [pack(&one), pack(&other)].concat();
                for findings in [scanner().scan(&packed).unwrap(), named(token, &[&packed])] {
                    assert!(findings.iter().any(|finding| &*finding.rule == "test-aws-id"), "{token} {findings:?}");
                }
                assert_eq!(streams::escaped(scanner(), &packed, 7), None, "{token}");
            }
        }
    }
}

fn decoded(token: &str, pieces: &[&[u8]]) -> Decoded {
    let mut stream = scanner().stream_as(Coding::of(token).unwrap()).unwrap();
    for piece in pieces {
        let _ = stream.push(piece).unwrap();
    }
    stream.last(&[]).unwrap();
    stream.decoded()
}

#[test]
fn what_is_not_what_a_header_says_is_told() {
    let text = "some words that are nothing but words. ".repeat(40);
    let deflate = |text: &str| {
        let mut to = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
        to.write_all(text.as_bytes()).unwrap();
        to.finish().unwrap()
    };
    let noise: Vec<u8> =
        std::iter::successors(Some(7u32), |last| Some(last.wrapping_mul(1_664_525).wrapping_add(12345)))
            .take(500)
            .map(|number| (number >> 24) as u8)
            .collect();
    for (token, other) in [
        ("br", gzip(&text)),
        ("zstd", gzip(&text)),
        ("deflate", gzip(&text)),
        ("gzip", zlib(&text)),
        ("gzip", deflate(&text)),
        ("gzip", text.clone().into_bytes()),
        ("zstd", zlib(&text)),
        ("deflate", zstd(&text)),
        ("gzip", noise.clone()),
        ("zstd", noise.clone()),
        ("deflate", noise),
    ] {
        assert_eq!(decoded(token, &[&other]), Decoded::Broken, "{token}");
        assert_eq!(decoded(token, &[&other[..1], &other[1..]]), Decoded::Broken, "{token}");
    }
    let skipped = [0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 1, 2];
    let mut damaged = gzip(SECRET);
    // A block of a kind that does not exist (RFC 1951 §3.2.3).
    damaged[10] = 7;
    assert_eq!(decoded("gzip", &[&damaged]), Decoded::Broken);
    for (token, whole) in [
        ("gzip", gzip(&text)),
        ("gzip", [&gzip(&text)[..], b"garbage"].concat()),
        ("deflate", zlib(&text)),
        ("deflate", deflate(&text)),
        ("zstd", zstd(&text)),
        ("zstd", [&skipped[..], &zstd(&text)].concat()),
        ("br", unhex(BROTLI)),
    ] {
        assert_eq!(decoded(token, &[&whole]), Decoded::Whole, "{token}");
        assert_eq!(decoded(token, &[&whole[..5], &whole[5..]]), Decoded::Whole, "{token}");
        let half = decoded(token, &[&whole[..whole.len() / 2]]);
        assert!(matches!(half, Decoded::Going { .. } | Decoded::Whole), "{token} {half:?}");
    }
    let long = gzip(&(0..3000).map(|number| format!("{number} ")).collect::<String>());
    assert!(matches!(decoded("gzip", &[&long[..long.len() / 2]]), Decoded::Going { made: 1.. }));
}

/// A gzip of two stored blocks of NULs (RFC 1951 §3.2.4), whose lengths count, and the text.
fn stored(text: &str) -> Vec<u8> {
    let mut deflated = Vec::new();
    for _ in 0..2 {
        deflated.extend([0, 0xff, 0xff, 0, 0]);
        deflated.extend([0; 0xffff]);
    }
    let mut to = flate2::write::DeflateEncoder::new(Vec::new(), Compression::best());
    to.write_all(text.as_bytes()).unwrap();
    deflated.extend(to.finish().unwrap());
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &deflated].concat()
}

/// A plain picture, as PNG packs it: rows of one colour, each with its filter's byte before (PNG §9.2).
#[test]
fn a_plain_picture_is_no_bomb_and_hides_nothing() {
    let picture = |rows: &[u8]| {
        let mut to = flate2::write::ZlibEncoder::new(b"\x89PNG\r\n\x1a\n\0IDAT".to_vec(), Compression::best());
        to.write_all(rows).unwrap();
        [to.finish().unwrap(), b"IEND".to_vec()].concat()
    };
    let rows = |count: usize| [&[0][..], &[0xff; 2400]].concat().repeat(count);
    let secret = || [b" ", SECRET.as_bytes(), b" "].concat();
    assert_eq!(scanner().scan(&picture(&rows(450))).unwrap(), []);
    let (one, other) = SECRET.split_at(SECRET.len() / 2);
    let cut = format!("{other} {}\0{one}", "-".repeat(700)).repeat(900);
    let holding = [
        [rows(300), secret(), rows(300), b"\0\xff\xff".to_vec(), secret(), rows(40)].concat(),
        cut.clone().into_bytes(),
        format!("{}{SECRET}", cut.trim_end_matches(one)).into_bytes(),
        stored(SECRET),
    ];
    for rows in holding {
        let packed = picture(&rows);
        let whole = scanner().scan(&packed).unwrap();
        assert!(has_token(&whole), "{whole:?}");
        assert_eq!(oracle().scan(&packed).unwrap(), whole);
        for at in (0..packed.len()).step_by(1 + packed.len() / 100) {
            let (one, other) = packed.split_at(at);
            assert_eq!(streamed(&[one, other]), whole, "{at}");
        }
        assert_eq!(streams::escaped(scanner(), &packed, 7), None);
    }
    let bomb = picture(&picture(&vec![0; 160 << 20]));
    assert!(scanner().scan(&bomb).unwrap().iter().any(|finding| &*finding.rule == "budget-expansion"));
}
