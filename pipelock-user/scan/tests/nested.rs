//! Strings within strings: what a rule finds in a text it finds as well where the text is the value of some JSON, and that of another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use pipelock_scan::{Kind, RuleSet, Scanner};

fn found(scanner: &Scanner, text: &str, rule: &str) -> bool {
    let findings = scanner.scan(text.as_bytes()).unwrap();
    findings.iter().any(|finding| *finding.rule == *rule || finding.also.iter().any(|also| **also == *rule))
}

#[test]
fn every_example_is_found_as_a_string_of_json() {
    let rules = RuleSet::shipped().unwrap();
    let scanner = Scanner::new(rules.clone(), &[7; 32]).unwrap();
    let mut missed = Vec::new();
    for rule in rules.rules().iter().filter(|rule| rule.kind == Kind::Dlp) {
        for example in rule.examples.iter().filter(|example| !example.contains('\\') && !example.starts_with("hex:")) {
            let mut text = example.clone();
            for depth in 1..=3 {
                text = serde_json::to_string(&serde_json::json!({ "body": text })).unwrap();
                if !found(&scanner, &text, &rule.id) {
                    missed.push(format!("{} at {depth}: {text}", rule.id));
                    break;
                }
            }
        }
    }
    assert!(missed.is_empty(), "{}\n{}", missed.len(), missed.join("\n"));
}

#[test]
fn escaped_quotes_hide_no_key_and_value() {
    let scanner = Scanner::new(RuleSet::shipped().unwrap(), &[7; 32]).unwrap();
    for text in [
        r#"{"body": "{\"user\":\"jo\",\"password\":\"rT7pLw02qZxM\"}"}"#,
        r#""{\\\"password\\\": \\\"Copper_saddle2231\\\"}""#,
        r#"payload = '{\'password\': \'rT7pLw02qZxM\'}'"#,
        r#"echo "{\\"password\\":\\"rT7pLw02qZxM\\"}""#,
    ] {
        assert!(found(&scanner, text, "assigned-password"), "{text}");
    }
    for text in [r#""{\"password\": \"changeme\"}""#, r#"printf("password=\"%s\"\n", kV8wQ2zL9nT4)"#] {
        assert!(!found(&scanner, text, "assigned-password"), "{text}");
    }
}
