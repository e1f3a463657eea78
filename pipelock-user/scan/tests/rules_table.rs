//! Every rule finds its examples and leaves its counter-examples alone; every pattern keeps to the common language.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a rule that is wrong fails the test")]

mod common;

use proptest::strategy::{Strategy, ValueTree};
use proptest::string::bytes_regex_parsed;
use proptest::test_runner::TestRunner;
use regex_syntax::hir::{Hir, HirKind, Repetition};
use std::collections::BTreeSet;

/// Longest match a pattern may ask the stream to hold back, in bytes.
const LONGEST: usize = 2048;

#[test]
fn examples_are_found_and_counter_examples_are_not() {
    let mut wrong = Vec::new();
    for rule in common::load() {
        for example in &rule.rule.examples {
            if rule.find(&common::bytes(example)).is_empty() {
                wrong.push(format!("{}: not found: {example:?}", rule.rule.id));
            }
        }
        for counter in &rule.rule.counter_examples {
            if !rule.find(&common::bytes(counter)).is_empty() {
                wrong.push(format!("{}: found: {counter:?}", rule.rule.id));
            }
        }
        if rule.rule.examples.len() < 2 || rule.rule.counter_examples.len() < 2 {
            wrong.push(format!("{}: two of each are the least", rule.rule.id));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn rules_are_well_formed() {
    let mut ids = BTreeSet::new();
    let mut core = 0;
    for compiled in common::load() {
        let rule = &compiled.rule;
        let id = &rule.id;
        assert!(ids.insert(id.clone()), "{id} twice");
        assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'), "{id}");
        assert!(!rule.name.is_empty() && rule.kind == "dlp", "{id}");
        assert!(
            matches!(
                rule.class.as_str(),
                "credential" | "private_key" | "financial" | "personal" | "crypto" | "context"
            ),
            "{id}: {}",
            rule.class
        );
        assert!(matches!(rule.severity.as_str(), "critical" | "high" | "medium" | "low"), "{id}: {}", rule.severity);
        assert!(matches!(rule.confidence.as_deref(), Some("high" | "medium" | "low")), "{id}");
        assert!(rule.attack.iter().all(|technique| technique.starts_with('T')), "{id}");
        core += usize::from(rule.core);
    }
    assert!(ids.len() >= 150, "{} rules", ids.len());
    assert!(core >= 8, "{core} core rules");
}

#[test]
fn patterns_keep_to_what_both_engines_understand() {
    let mut long = Vec::new();
    for compiled in common::load() {
        let (id, pattern) = (&compiled.rule.id, &compiled.rule.pattern);
        let parsed = parse(id, pattern);
        let properties = parsed.properties();
        let longest = properties.maximum_len().unwrap_or_else(|| panic!("{id}: unbounded repeat"));
        if longest > LONGEST {
            long.push(format!("{id}: a match may have {longest} bytes"));
        }
        assert!(properties.minimum_len().is_some_and(|shortest| shortest > 3), "{id}: matches next to nothing");
        assert!(!pattern[1..].contains("(?i)"), "{id}: (?i) only at the start");
        for token in ["??", "*?", "+?", "}?", "}+", "(?=", "(?!", "(?<", "\\d", "\\w", "\\b"] {
            assert!(!pattern.contains(token), "{id}: {token} is read differently by the engines");
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Not the examples, but texts made from the patterns: whatever a pattern matches holds one of the rule's keywords.
#[test]
fn no_match_goes_without_its_keywords() {
    let mut runner = TestRunner::deterministic();
    let mut wrong = Vec::new();
    for rule in common::load() {
        let Some(keywords) = &rule.keywords else { continue };
        let parsed = without_looks(&parse(&rule.rule.id, &rule.rule.pattern));
        let texts = bytes_regex_parsed(&parsed).unwrap_or_else(|error| panic!("{}: {error}", rule.rule.id));
        for _ in 0..40 {
            let text = texts.new_tree(&mut runner).unwrap().current();
            if !keywords.is_match(&text) {
                wrong.push(format!("{}: no keyword in {:?}", rule.rule.id, String::from_utf8_lossy(&text)));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Reads a pattern as the rules' matcher does.
fn parse(id: &str, pattern: &str) -> Hir {
    let mut parser = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build();
    parser.parse(pattern).unwrap_or_else(|error| panic!("{id}: {error}"))
}

/// The same pattern without `^` and `$`, which have no text of their own.
fn without_looks(pattern: &Hir) -> Hir {
    match pattern.kind() {
        HirKind::Look(_) => Hir::empty(),
        HirKind::Repetition(repetition) => {
            Hir::repetition(Repetition { sub: Box::new(without_looks(&repetition.sub)), ..repetition.clone() })
        }
        HirKind::Capture(capture) => without_looks(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(without_looks).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(without_looks).collect()),
        _ => pattern.clone(),
    }
}

#[test]
fn a_match_holds_one_of_its_keywords() {
    for rule in common::load() {
        for example in &rule.rule.examples {
            let bytes = common::bytes(example);
            let whole = rule.regex.find(&bytes).unwrap_or_else(|| panic!("{}: {example}", rule.rule.id));
            let held = rule.keywords.as_ref().is_none_or(|keywords| keywords.is_match(whole.as_bytes()));
            assert!(held, "{}: no keyword in the match of {example}", rule.rule.id);
        }
    }
}
