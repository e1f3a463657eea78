//! Codecs: a secret in up to three codecs is found; and any bytes at all, with the first bytes of a compressed format before
//! them, are decoded the same at every cut, within the budgets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock_scan_fuzz::{SECRET, agree, codec, has_secret};

const STARTS: [&[u8]; 6] = [b"", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x78\x9c", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"<~"];

fuzz_target!(|input: (u8, [u8; 3], u8, u16, &[u8])| {
    let (count, ways, start, cut, bytes) = input;
    let mut text = STARTS[usize::from(start) % STARTS.len()].to_vec();
    text.extend_from_slice(bytes);
    agree(&text, &[usize::from(cut)]);
    let mut secret = SECRET.as_bytes().to_vec();
    for way in &ways[..usize::from(count % 4)] {
        secret = codec(&secret, *way);
    }
    let mut text = b"words, ".to_vec();
    text.extend(secret);
    text.extend_from_slice(b" and more");
    let findings = agree(&text, &[usize::from(cut)]);
    assert!(has_secret(&findings), "{count} {ways:?}: {findings:?}");
});
