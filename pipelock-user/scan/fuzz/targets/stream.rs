//! Cuts: whatever the text and wherever it is cut, the stream says what the whole says, and the plain engine says it too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock_scan_fuzz::{agree, oracle};

fuzz_target!(|input: (Vec<u16>, &[u8])| {
    let (cuts, text) = input;
    let cuts: Vec<usize> = cuts.into_iter().take(8).map(usize::from).collect();
    let found = agree(text, &cuts);
    assert_eq!(found, oracle().scan(text).expect("the plain engine cannot fail"));
});
