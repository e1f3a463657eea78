//! Views: a secret under up to two disguises, between any words, is found; and what the words become does not depend on
//! the cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock_scan_fuzz::{SECRET, agree, disguise, has_secret};

fuzz_target!(|input: (u8, u8, u8, u16, &[u8])| {
    let (first, second, both, cut, around) = input;
    let mut secret = SECRET.as_bytes().to_vec();
    // Invisible characters between the letters, and those as well written byte by byte.
    if both % 2 == 1 {
        secret = disguise(&secret, 7);
        secret = disguise(&secret, [0, 3, 5, 6][usize::from(first % 4)]);
    } else {
        secret = disguise(&secret, second);
    }
    let mut text = b"words, ".to_vec();
    text.extend(secret);
    text.extend_from_slice(b" and\n");
    text.extend_from_slice(around);
    let findings = agree(&text, &[usize::from(cut)]);
    assert!(has_secret(&findings), "{}: {findings:?}", String::from_utf8_lossy(&text));
    agree(around, &[usize::from(cut)]);
});
