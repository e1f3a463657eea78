//! Rule files: any text is read or refused, and what is read finds the same with both engines, whole and cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pipelock_scan::{RuleSet, Scanner};

fuzz_target!(|input: (&str, &[u8])| {
    let (file, text) = input;
    let Ok(rules) = RuleSet::read(&[("fuzz", file)]) else { return };
    let text = &text[..text.len().min(4096)];
    let plain = Scanner::oracle(rules.clone(), &[1; 32]).scan(text).expect("the plain engine cannot fail");
    // More would take too long to compile each time. What vectorscan refuses is an error, as it should be.
    if rules.rules().len() > 3 {
        return;
    }
    let Ok(scanner) = Scanner::new(rules, &[1; 32]) else { return };
    assert_eq!(scanner.scan(text).expect("enough memory"), plain);
    let (one, other) = text.split_at(text.len() / 2);
    let mut stream = scanner.stream().expect("enough memory");
    let _ = stream.push(one).expect("enough memory");
    let _ = stream.push(other).expect("enough memory");
    assert_eq!(stream.finish().expect("enough memory"), plain);
});
