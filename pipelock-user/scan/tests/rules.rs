//! Every shipped rule against its own examples, through the whole engine; and what a rule must be to be shipped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use pipelock_scan::{RuleSet, Scanner};

#[test]
fn every_example_is_found_and_no_counter_example() {
    let rules = RuleSet::shipped().unwrap();
    let scanner = Scanner::new(rules.clone(), &[7; 32]).unwrap();
    let mut wrong = Vec::new();
    for rule in rules.rules() {
        let found = |text: &str| {
            scanner
                .scan(&common::bytes(text))
                .unwrap()
                .iter()
                .any(|finding| finding.rule == rule.id || finding.also.contains(&rule.id))
        };
        wrong
            .extend(rule.examples.iter().filter(|text| !found(text)).map(|text| format!("{}: not in {text}", rule.id)));
        wrong.extend(
            rule.counter_examples.iter().filter(|text| found(text)).map(|text| format!("{}: in {text}", rule.id)),
        );
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_rule_can_be_built_and_has_an_example() {
    for rule in RuleSet::shipped().unwrap().rules() {
        assert!(!rule.examples.is_empty(), "{} has no example", rule.id);
        rule.pattern.check_size().unwrap_or_else(|error| panic!("{}: {error}", rule.id));
    }
}
