//! Secrets that stand beside one another, as in lists and tables: what ends one may begin the next. Each is found, by both
//! engines, plain and compressed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::io::Write as _;

use pipelock_scan::{Kind, RuleSet, Scanner, Step};

/// The fast engine and the one that it has to agree with.
fn engines() -> [Scanner; 2] {
    let builder = || Scanner::builder(RuleSet::shipped().unwrap().only(Kind::Dlp), &[7; 32]);
    [builder().build().unwrap(), builder().build_oracle().unwrap()]
}

/// What these rules find, with what separates it.
const LISTS: [(&str, &[&str], &[&str]); 7] = [
    ("iban", &["DE89370400440532013000", "GB29NWBK60161331926819", "GB82WEST12345698765432"], &["\n", " ", ",", "\t"]),
    (
        "yaml-password",
        &["redis.password=Gk38sPq1Lz0w", "mysql.password=Tq82lPw0xM1z", "admin.password=Zt71kWe4rN8v"],
        &["\n"],
    ),
    ("credit-card", &["4539578763621486", "5105105105105100", "4012888888881881"], &["\n"]),
    (
        "bitcoin-wif",
        &[
            "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
            "KwDiBf89QgGbjEhKnhXJuH7LrciVrZi3qYjgd9M7rFU73sVHnoWn",
            "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
        ],
        &["\n", " ", ","],
    ),
    (
        "private-key-quoted",
        &[
            "# -----BEGIN RSA PRIVATE KEY-----\n# MIIEpAIBAAKCAQEA8hTvPveVQbN5Q55bYNPPNWyX5vRcMhdkpcME63XZCfuxuXYU\n",
            "> -----BEGIN PRIVATE KEY-----\n> MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n",
        ],
        &["", "# "],
    ),
    ("credit-card-dated", &["Jo,4539578763621486,09/28", "Al,5105105105105100,10/27"], &["\n", ";"]),
    ("aws-access-key", &["AKIAQ3EGRIY7T2MZ6XLP", "AKIAZ7KDQRW4N5MTXL2P", "AKIAV6QPLX3JRT7WMZ2K"], &["\n", ",", "\nb "]),
];

#[test]
fn every_secret_of_a_list_is_found() {
    let [scanner, oracle] = engines();
    for (rule, secrets, separators) in LISTS {
        for separator in separators {
            let text = secrets.join(separator);
            let whole = scanner.scan(text.as_bytes()).unwrap();
            for secret in secrets {
                let at = text.find(secret).unwrap() as u64;
                let end = at + secret.len() as u64;
                let inside = whole.iter().filter(|finding| at <= finding.span.start && finding.span.end <= end);
                let rules: Vec<&str> =
                    inside.flat_map(|one| one.also.iter().chain([&one.rule])).map(|id| &**id).collect();
                assert!(rules.contains(&rule), "{rule} {separator:?} {secret} {whole:?}");
            }
            assert!(whole.len() >= secrets.len(), "{rule} {separator:?} {whole:?}");
            assert_eq!(oracle.scan(text.as_bytes()).unwrap(), whole, "{rule} {separator:?}");
        }
    }
}

#[test]
fn secrets_in_one_compressed_text_are_as_many_as_they_are() {
    let [scanner, oracle] = engines();
    let secrets = ["AKIAQ3EGRIY7T2MZ6XLP", "AKIAZ7KDQRW4N5MTXL2P", "AKIAV6QPLX3JRT7WMZ2K"];
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    to.write_all(secrets.map(|secret| format!("the user has the key {secret} since that day\n")).concat().as_bytes())
        .unwrap();
    let packed = to.finish().unwrap();
    let findings = scanner.scan(&packed).unwrap();
    assert!(findings.iter().all(|finding| finding.path == [Step::Gzip]), "{findings:?}");
    assert_eq!(findings.len(), secrets.len(), "{findings:?}");
    assert_eq!(oracle.scan(&packed).unwrap(), findings);
}

#[test]
fn thousands_of_one_kind_hide_no_other() {
    let [scanner, _] = engines();
    let mut random = 7u64;
    let mut digit = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b"0123456789abcdef"[(random >> 60) as usize])
    };
    let mut text = String::new();
    for _ in 0..2500 {
        text += &format!("key = 0x{}\n", (0..64).map(|_| digit()).collect::<String>());
    }
    text += "id AKIAQ3EGRIY7T2MZ6XLP\n";
    let found = |findings: &[pipelock_scan::Finding], rule: &str| findings.iter().any(|finding| &*finding.rule == rule);
    let whole = scanner.scan(text.as_bytes()).unwrap();
    let mut stream = scanner.stream().unwrap();
    for piece in text.as_bytes().chunks(4096) {
        let _ = stream.push(piece).unwrap();
    }
    let pieces = stream.finish().unwrap();
    for findings in [&whole, &pieces] {
        assert!(found(findings, "budget-findings") && found(findings, "ethereum-private-key-bare"), "{findings:?}");
        assert!(findings.len() <= 1001 && found(findings, "aws-access-key"), "{}", findings.len());
        assert!(findings.windows(2).all(|pair| pair[1].span.start == 0 || pair[0].span.start <= pair[1].span.start));
    }
}
