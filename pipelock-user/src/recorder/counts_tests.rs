use std::sync::Arc;

use pipelock_receipt::{ChainWriter, Opening, SigningKey};
use proptest::prelude::*;

use super::*;
use crate::flow::{Flow, FlowId, Found as Finding, Origin, PolicyId, Target};
use crate::recorder::RequestRecord;
use crate::recorder::entry::Entry;
use crate::telemetry::metrics::{are_sound, text};

#[test]
fn every_reason_is_a_word_at_its_own_place() {
    for reason in Reason::ALL {
        assert_eq!(Reason::WORDS[Label::index(*reason)], reason.code());
    }
}

#[test]
fn the_words_are_those_of_receipts() {
    let allow = Verdict::allow(Reason::PolicyAllow, None);
    assert_eq!(Word::WORDS[Word::of(&allow) as usize], allow.word());
    let block = Verdict::block(Reason::HostDenied, "");
    assert_eq!(Word::WORDS[Word::of(&block) as usize], block.word());
    for (action, word) in [("redact", Word::Strip), ("warn", Word::Warn)] {
        let mut record = decision(&["x".to_owned()], false);
        record.verdict.findings[0].action = action;
        assert_eq!(
            (Word::of(&record.verdict) as usize, record.verdict.word()),
            (word as usize, Word::WORDS[word as usize])
        );
    }
}

#[test]
fn every_decision_has_a_kind_and_the_totals_have_none() {
    let allow = Verdict::allow(Reason::PolicyAllow, None);
    for (transport, kind) in [("forward", "request"), ("ws", "request"), ("dns", "query"), ("connect", "tunnel")] {
        assert_eq!(Counted::request(transport, &allow).decided(), Some(kind));
    }
    assert_eq!(Counted::flow(&allow, Moved::default()).decided(), Some("flow"));
    assert_eq!((Counted::Denials(1).decided(), Counted::Socket(1).decided()), (Some("denials"), Some("socket")));
    assert_eq!(Counted::Ledger.decided(), None);
}

/// The values of all labels that are shown.
fn values(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let labels = lines.filter_map(|line| line.split_once('{')?.1.rsplit_once('}'));
    let pairs = labels.flat_map(|(labels, _)| labels.split("\",").map(ToOwned::to_owned).collect::<Vec<_>>());
    pairs.filter_map(|pair| Some(pair.split_once("=\"")?.1.trim_end_matches('"').to_owned())).collect()
}

/// A decision on a request all of whose words somebody else chose.
fn decision(words: &[String], is_block: bool) -> RequestRecord {
    let word = |at: usize| format!("IN-{}", words[at % words.len()]);
    let found = Finding {
        is_order: false,
        rule: word(0),
        name: word(1),
        class: word(2),
        severity: "high",
        confidence: "high",
        place: word(3),
        decoded: Vec::new(),
        mitre: vec![word(4)],
        action: if is_block { "block" } else { "warn" },
    };
    let verdict = if is_block {
        Verdict::block(Reason::DlpMatch, word(5))
    } else {
        Verdict::allow(Reason::PolicyAllow, Some(word(5)))
    };
    let origin = Origin {
        cgroup_id: 1,
        netns_cookie: 1,
        socket_cookie: 1,
        pid: 1,
        tgid: 1,
        uid: 1,
        comm: word(6),
        identity: None,
        peer: None,
    };
    let target = Target { name: None, original: std::net::SocketAddr::from(([192, 0, 2, 1], 80)) };
    RequestRecord {
        flow: Arc::new(Flow { id: FlowId(1), origin, target, policy: PolicyId(word(7)) }),
        policy: PolicyId(word(7)),
        transport: "forward",
        method: word(0),
        target: format!("http://{}/{}?{}", word(1), word(2), word(3)),
        verdict: verdict.with(vec![found]),
        status: Some(200),
        dialled: None,
        part: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever an agent or a destination says, it names no series; and each decision is counted once.
    #[test]
    fn no_word_of_a_label_comes_from_input(words in prop::collection::vec("[ -~]{1,40}", 1..8), is_block: bool) {
        let mut chain =
            ChainWriter::open(tempfile::tempfile().expect("a file"), SigningKey::from_seed(&[7; 32]), &Opening::new("p", "local"))
                .expect("a chain");
        let record = decision(&words, is_block);
        let key = Word::of(&record.verdict);
        let before = COUNTS.requests.get((Surface::Http, key, record.verdict.reason));
        let (mut entry, _written) = Entry::of_request(&record);
        entry.sign(&mut chain).expect("signed");
        prop_assert_eq!(COUNTS.requests.get((Surface::Http, key, record.verdict.reason)), before, "not written yet");
        entry.acknowledge();
        prop_assert_eq!(COUNTS.requests.get((Surface::Http, key, record.verdict.reason)), before + 1);
        let shown = values(&text());
        prop_assert!(shown.contains(&"http".to_owned()) && shown.contains(&"high".to_owned()), "{:?}", shown);
        let foreign = shown.iter().find(|value| value.contains("IN-"));
        prop_assert_eq!(foreign, None);
        prop_assert!(are_sound());
    }
}
