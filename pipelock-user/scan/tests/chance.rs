//! Tokens that stand in random data by chance are none, and what stands there with check digits is one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

#[path = "common/fixture.rs"]
mod fixture;
#[path = "common/streams.rs"]
mod streams;

use std::sync::OnceLock;

use fixture::{KEY, STANDARD, URL, base64};
use pipelock_scan::{Finding, RuleSet, Scanner, Severity};

fn real() -> &'static Scanner {
    static SCANNER: OnceLock<Scanner> = OnceLock::new();
    SCANNER.get_or_init(|| Scanner::new(RuleSet::shipped().unwrap(), &KEY).unwrap())
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let next =
        |state: &u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(Some(seed), next).skip(1).take(length).map(|state| (state >> 56) as u8).collect()
}

fn critical(text: &[u8]) -> Vec<Finding> {
    let mut found = real().scan(text).unwrap();
    found.retain(|finding| finding.severity >= Severity::High);
    found
}

const TOKENS: [(&str, &str); 3] = [
    ("yandex-cloud-key", "AQVNc8lf9UN2cEOCVK57TlqNr1uoisH17iUS3aUt"),
    ("github-token-shape", "ghp_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef01"),
    ("aws-access-key-shape", "AKIAtFbdHg5kRsMx9pQz"),
];

#[test]
fn a_shape_in_a_long_run_is_chance() {
    for (rule, token) in TOKENS {
        let (alphabet, edge) = if token.contains('_') { (URL, "-") } else { (STANDARD, "+") };
        let run = |seed| base64(&noise(seed, 900), alphabet, false);
        let has = |text: &str| real().scan(text.as_bytes()).unwrap().iter().any(|found| &*found.rule == rule);
        let within = format!("data:{}{edge}{token}{edge}{}", run(1), run(2));
        assert!(!has(&within), "{rule}");
        for pieces in [1, 50, 700] {
            let mut stream = real().stream().unwrap();
            for piece in within.as_bytes().chunks(pieces) {
                let _ = stream.push(piece).unwrap();
            }
            assert!(stream.finish().unwrap().iter().all(|found| &*found.rule != rule), "{rule}");
        }
        assert!(has(&format!("{token} and words")), "{rule}");
        assert!(has(&format!("{}\n{token}\n", run(1))), "{rule}: on a line of its own");
        assert!(has(&format!("{}{edge}{token}{edge}{}", &run(1)[..200], run(2))), "{rule}: in a short one");
        assert!(has(&format!("{}{edge}{token}", "A".repeat(900))), "{rule}: behind padding");
        assert!(has(&format!("{}{edge}{token}", "0123456789abcdef".repeat(60))), "{rule}: behind digits");
    }
    // Its last six characters are the sum of the others.
    let summed = format!("{}-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", base64(&noise(3, 900), URL, false));
    assert!(!critical(summed.as_bytes()).is_empty());
}

#[test]
fn what_no_run_has_by_chance_is_found_in_one() {
    let run = base64(&noise(1, 900), URL, false);
    for (rule, token) in [
        ("stripe-key", "sk_live_4eC39HqLyjWDarjtT1zdp7dc"),
        ("slack-token", "xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx"),
        ("launchdarkly-key", "sdk-3f2504e0-4f89-41d3-9a0c-0305e82c3301"),
        ("pulumi-token", "pul-da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("trigger-dev-key", "tr_prod_4eC39HqLyjWDarjtT1zd"),
        ("sourcegraph-token", "sgp_3f2504e04f8941d3_da39a3ee5e6b4b0d3255bfef95601890afd80709"),
        ("twilio-api-key", "SK3f2504e04f8941d39a0c0305e82c3301"),
        // Amazon writes no small letters.
        ("aws-access-key-shape", "AKIA1F23H45K67M89P0Q"),
    ] {
        let found = real().scan(format!("{run}-{token}-").as_bytes()).unwrap();
        assert!(found.iter().any(|found| &*found.rule == rule), "{rule} {found:?}");
    }
}

#[test]
fn random_data_in_base64_is_let_through() {
    for (name, alphabet) in [("base64", STANDARD), ("base64url", URL)] {
        let found: Vec<String> = (1..=20)
            .flat_map(|seed| critical(base64(&noise(seed, 750_000), alphabet, true).as_bytes()))
            .map(|found| found.rule.to_string())
            .collect();
        println!("{name}: {found:?} in 8 MB");
        assert!(found.is_empty(), "{name}: {found:?}");
    }
}
