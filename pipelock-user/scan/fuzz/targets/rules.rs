//! Rule files: any text is read or refused, and what is read finds the same in both engines' terms: the plain engine must be
//! able to run it on any text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock_scan::{RuleSet, Scanner};

fuzz_target!(|input: (&str, &[u8])| {
    let (file, text) = input;
    let Ok(rules) = RuleSet::read(&[("fuzz", file)]) else { return };
    let scanner = Scanner::oracle(rules, &[1; 32]);
    let text = &text[..text.len().min(4096)];
    let whole = scanner.scan(text).expect("the plain engine cannot fail");
    let (one, other) = text.split_at(text.len() / 2);
    let mut stream = scanner.stream().expect("the plain engine cannot fail");
    let _ = stream.push(one).expect("the plain engine cannot fail");
    let _ = stream.push(other).expect("the plain engine cannot fail");
    assert_eq!(stream.finish().expect("the plain engine cannot fail"), whole);
});
