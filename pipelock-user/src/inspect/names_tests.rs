//! Names as data: what is told by asking for one, alone and together with others.

use std::sync::Arc;

use super::*;
use crate::flow::{Found, Reason};
use crate::policy::Policy;

const SECRET: &str = "ghp_1032547698badcfehgjilknmporqtsvuxwzy";

fn scanners() -> Arc<Scanners> {
    Inspection::for_tests().now().expect("at once").expect("scanners")
}

fn terms(destination: &str, more: &str) -> Arc<Terms> {
    let text = format!("version: 1\negress: [{{destination: \"{destination}\"}}]\n{more}\n");
    let policy = Policy::parse(&text, "test").expect("a policy");
    Terms::of(&policy, &policy.rules()[0]).expect("it scans")
}

type Read = fn(&Terms, &Scanners, &str) -> Result<Vec<Found>, Verdict>;
const WAYS: [Read; 2] = [
    |terms, scanners, name| terms.check_name(scanners, name),
    |terms, scanners, name| terms.check_url(scanners, &format!("https://{name}:8443/path")),
];

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn chunks(text: &str, size: usize) -> Vec<String> {
    text.as_bytes().chunks(size).map(|part| format!("{}.wild.test", String::from_utf8_lossy(part))).collect()
}

#[test]
fn secrets_in_names_below_a_wildcard_are_stopped() {
    let lists = [
        vec![format!("{SECRET}.wild.test")],
        vec![format!("{}.{}.wild.test", &SECRET[..20], &SECRET[20..])],
        vec![format!("{}.wild.test", &hex(SECRET)[..60])],
        chunks(SECRET, 10),
        chunks(&hex(SECRET), 4),
        chunks(&hex(SECRET), 8),
        vec!["x7kp2mq9vr4sl8nw1by6ct3fa0jh5de.wild.test".to_owned()],
        vec!["jbswy3dpehpk3pxp.wild.test".to_owned()],
        vec!["a1b2c3d4.e5f6a7b8.c9d0e1f2.a3b4c5d6.e7f8a9b0.c1d2e3f4.wild.test".to_owned()],
    ];
    for names in lists {
        for read in WAYS {
            let (terms, scanners) = (terms("*.wild.test", ""), scanners());
            let at = names.iter().position(|name| read(&terms, &scanners, name).is_err());
            let name = &names[at.unwrap_or_else(|| panic!("{names:?} passed"))];
            let verdict = read(&terms, &scanners, name).expect_err("again");
            assert_eq!((verdict.reason, verdict.findings[0].action), (Reason::DlpMatch, "block"), "{names:?}");
            assert!(!verdict.detail.contains("ghp"), "{verdict:?}");
        }
    }
}

#[test]
fn names_that_are_let_through_are_pieces_all_the_same() {
    let names = chunks(&hex(SECRET), 40);
    for read in WAYS {
        let (terms, scanners) = (terms("*.wild.test", "dlp: {entropy: off}"), scanners());
        assert_eq!(read(&terms, &scanners, &names[0]), Ok(Vec::new()), "half of it says nothing");
        for _ in 0..2 {
            let verdict = read(&terms, &scanners, &names[1]).expect_err("all of it");
            assert_eq!(verdict.findings[0].rule, "token");
        }
        assert_eq!(read(&terms, &scanners, &names[0]), Ok(Vec::new()), "asked for again, it says nothing new");
    }
}

#[test]
fn what_is_asked_about_is_not_given_to_the_agent() {
    let url = "https://api.test/x7Kp2mQ9vR4sL8nW1bY6cT3fA0jH5dE";
    let (terms, scanners) = (terms("api.test", "dlp: {entropy: block}"), scanners());
    assert_eq!(terms.check_text(&scanners, Side::Response, "content", url), Ok(Vec::new()));
    assert_eq!(terms.check_url(&scanners, url).map_err(|verdict| verdict.reason), Err(Reason::DlpMatch));
    let headers = http::HeaderMap::from_iter([(http::header::LOCATION, http::HeaderValue::from_static(url))]);
    assert_eq!(terms.check_headers(&scanners, Side::Response, &headers), Ok(Vec::new()));
    assert_eq!(terms.check_url(&scanners, url), Ok(Vec::new()), "that was given to it");
}

#[test]
fn what_a_rule_spells_out_or_the_policy_passes_is_not() {
    let name = "x7kp2mq9vr4sl8nw1by6ct3fa0jh5de.wild.test";
    for read in WAYS {
        assert_eq!(read(&terms(name, ""), &scanners(), name), Ok(Vec::new()), "it is in the policy");
        let off = terms("*.wild.test", "dlp: {entropy: off}");
        assert_eq!(read(&off, &scanners(), name), Ok(Vec::new()));
        let noted = read(&terms("*.wild.test", "dlp: {action: warn}"), &scanners(), name).expect("noted");
        assert_eq!((noted.len(), noted[0].rule.as_str(), noted[0].action), (1, "url-host-data", "warn"));
        let (terms, scanners) = (terms("*.wild.test", ""), scanners());
        for at in 0..200 {
            let name = format!("{}.wild.test", ["www", "api", "cdn-3", "eu-west-1", "static", "img2"][at % 6]);
            assert_eq!(read(&terms, &scanners, &name), Ok(Vec::new()));
        }
    }
}
