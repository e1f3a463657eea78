//! What every stream promises, whatever it looks for: `agree.rs` and `detectors.rs` ask it of their scanners.

#![allow(dead_code, reason = "each test file uses its part")]

use pipelock_scan::{Finding, Scanner};
use proptest::sample::Index;

/// What is found when the text is cut at these places.
pub(crate) fn cut(scanner: &Scanner, text: &[u8], cuts: &[Index]) -> Vec<Finding> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(text.len());
    let mut from = 0;
    let pieces: Vec<&[u8]> = cuts.into_iter().map(|cut| &text[std::mem::replace(&mut from, cut)..cut]).collect();
    pushed(scanner, &pieces)
}

/// What is found in a text of these pieces.
pub(crate) fn pushed(scanner: &Scanner, pieces: &[&[u8]]) -> Vec<Finding> {
    let (mut stream, mut at) = (scanner.stream().unwrap(), 0);
    for piece in pieces {
        at += piece.len() as u64;
        assert!(stream.push(piece).unwrap().released <= at);
    }
    stream.finish().unwrap()
}

/// What begins in bytes that were released before it was found, when the text comes in pieces of that size.
pub(crate) fn escaped(scanner: &Scanner, text: &[u8], size: usize) -> Option<String> {
    let (mut stream, mut released) = (scanner.stream().unwrap(), Vec::new());
    let mut at = 0;
    for piece in text.chunks(size) {
        at += piece.len() as u64;
        let progress = stream.push(piece).unwrap();
        assert!(progress.released <= at, "{} of {at} bytes were released", progress.released);
        released.push((progress.released, stream.findings()));
    }
    let all = stream.finish().unwrap();
    released.into_iter().find_map(|(released, known)| {
        let late = |finding: &&Finding| {
            let overlap = |one: &Finding| one.span.start < finding.span.end && finding.span.start < one.span.end;
            &*finding.class != "budget" && finding.span.start < released && !known.iter().any(overlap)
        };
        all.iter().find(late).map(|finding| format!("{released} were released: {finding:?} {known:?}"))
    })
}
