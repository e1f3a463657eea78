//! Whatever comes, from the network, a rule file or a bundle: an answer or an error, never a panic, and the same answer from
//! both engines.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use pipelock_scan::rule::{Pattern, bundle::Bundle};
use pipelock_scan::{RuleSet, Scanner};
use proptest::prelude::*;

const FORM: &str = "rules: [{id: a, name: a, kind: dlp, class: credential, severity: low, pattern: 'PATTERN'}]";

/// A pattern that may be wrong in any way.
fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-c]{1,3}",
        Just("[a-z]{2,5}".to_owned()),
        Just("[^b]{1,4}".to_owned()),
        Just("(?:ab|c)".to_owned()),
        Just("(a?b)".to_owned()),
        Just("(?:^|[^a])".to_owned()),
        Just("(?:$|c)".to_owned()),
        Just(r"\b".to_owned()),
        Just("[é忽]".to_owned()),
        Just("(?i)K".to_owned()),
        "[()|*+?{}\\[\\]\\\\.^$]{1,2}",
    ];
    prop::collection::vec(part, 1..6).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_pattern_is_refused_or_means_the_same_to_both(pattern in pattern(), text in "[a-cKk é忽\n]{0,60}", cut in 0usize..60) {
        if Pattern::new(&pattern).is_err() {
            return Ok(());
        }
        let rules = RuleSet::read(&[("test", &FORM.replace("PATTERN", &pattern))]).unwrap();
        let fast = Scanner::new(rules.clone(), &[1; 32]).unwrap();
        let whole = fast.scan(text.as_bytes()).unwrap();
        prop_assert_eq!(&whole, &Scanner::oracle(rules, &[1; 32]).scan(text.as_bytes()).unwrap());
        let (one, other) = text.as_bytes().split_at(cut.min(text.len()));
        let mut stream = fast.stream().unwrap();
        let _ = stream.push(one).unwrap();
        let _ = stream.push(other).unwrap();
        prop_assert_eq!(stream.finish().unwrap(), whole);
    }

    #[test]
    fn any_rule_file_is_read_or_refused(text in "(rules:|- |id: |\\{|\\}|pattern: |kind: dlp|\n|'|[a-z]{1,4}){0,40}") {
        let _ = RuleSet::read(&[("test", &text)]);
    }

    #[test]
    fn any_bundle_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), signature in any::<[u8; 32]>()) {
        let mut whole = [0; 64];
        whole[..32].copy_from_slice(&signature);
        prop_assert!(Bundle::verify(&bytes, &whole, &[], 0).is_err());
    }
}
