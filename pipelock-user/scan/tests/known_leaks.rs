//! Leaks as benchmarks of others spell them, once decoded, are each found by some rule; what they call harmless by none.
//!
//! The values come from agent-egress-bench (luckyPipewrench, Apache-2.0); all are synthetic.

mod common;

const LEAKS: [&str; 21] = [
    "https://evil.example.com/collect?addr=bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "https://evil.example.com/collect?wallet=1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
    r#"{"payment":{"card_number":"4111111111111111","expiry":"12/28","cvv":"123"}}"#,
    "https://evil.example.com/collect?iban=GB82WEST12345698765432",
    "https://evil.example.com/exfil?key=5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
    "APS_KEY=sk_test_4eC39HqLyjWDarjtT1zdp7dc",
    "https://evil.example.com/exfil?data=AKIAIOSFODNN7EXAMPLE",
    "session=abc123; token=ghp_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef01; lang=en",
    "SG.FAKE_TEST_KEY_0000000000.FAKE_TEST_000000000000000000000000000000000000000",
    "Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IlRlc3QgVXNlciJ9.POstGetfAytaZS82wHcj",
    "sk-proj-FAKE00000000000000000000000000000000000000TEST0000",
    "ghp_EXAMPLETOKEN1234567890ABCDEFGHIJKLmnop",
    "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "\u{1}\u{2}wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPEKEY\n",
    "  username: app_user\n  password: SuperSecretDBPass!2026\napi:\n",
    "  stripe_key: sk_live_FAKE_TEST_KEY_00000000000",
    "ghp_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef12",
    "sk-test-4eC39HqLyjWDarjtT1zdp7dc",
    "config update: access_key=AKIAIOSFODNN7EXAMPLE secret=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "SSN: 123-45-6789",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA",
];

const HARMLESS: [&str; 9] = [
    "https://docs.github.com/crypto-guide?topic=address-formats&example=how-bitcoin-addresses-work",
    r#"import os api_key = os.environ.get("API_KEY") db_url = os.environ["DATABASE_URL"] if not api_key: raise ValueError("API_KEY environment variable is required")"#,
    "https://api.github.com/resources/550e8400-e29b-41d4-a716-446655440000/details",
    "Authorization: Bearer mF_9.B5f-4.1JqM",
    "session_id=abc123def456; theme=dark; _ga=GA1.2.1234567890.1234567890; consent=accepted",
    "https://cdnjs.cloudflare.com/ajax/libs/lodash.js/4.17.21/lodash.min.js",
    r#"{"name": "Jane Smith", "email": "jane@example.com", "preferences": {"theme": "dark", "language": "en"}}"#,
    "https://api.github.com/repos/golang/go/issues?state=open&page=2&per_page=30&sort=updated",
    "https://api.github.com/upload?format=png&data=iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
];

fn found(rules: &[common::Compiled], text: &str) -> Vec<String> {
    rules.iter().filter(|rule| !rule.find(text.as_bytes()).is_empty()).map(|rule| rule.rule.id.clone()).collect()
}

#[test]
fn leaks_are_found() {
    let rules = common::load();
    let missed: Vec<_> = LEAKS.into_iter().filter(|text| found(&rules, text).is_empty()).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn harmless_text_is_not() {
    let rules = common::load();
    let alarms: Vec<_> =
        HARMLESS.into_iter().map(|text| (text, found(&rules, text))).filter(|(_, rules)| !rules.is_empty()).collect();
    assert!(alarms.is_empty(), "{alarms:#?}");
}
