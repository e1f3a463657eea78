//! What agents are told, query by query; and that no input at all gets past the rules of the format.

use super::*;
use crate::flow::Action;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use proptest::prelude::*;
use std::collections::BTreeSet;

struct Rules(Mode);

impl NameRules for Rules {
    fn allowed(&self, name: &str) -> bool {
        name == "api.example.com" || name.ends_with(".wild.example") || name.starts_with("_srv.")
    }

    fn mode(&self) -> Mode {
        self.0
    }
}

fn pool() -> Pool {
    Pool::with_prefix(0x12_3456_789a_0001, 16)
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let name = Name::from_ascii(name).expect(name);
    message.add_query(Query::query(name, kind));
    message
}

fn with_edns(mut message: Message) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

fn wire(message: &Message) -> Vec<u8> {
    message.to_vec().expect("encodes")
}

fn run(bytes: &[u8], pool: &Pool) -> Answered {
    match answer(bytes, &Rules(Mode::Synthetic), pool) {
        Outcome::Done(answered) | Outcome::NotYet(answered) => answered,
        Outcome::NeedsLookup(pending) => panic!("synthetic mode wants to look up {}", pending.name()),
    }
}

fn ask(message: &Message, pool: &Pool) -> (Message, Answered) {
    let answered = run(&wire(message), pool);
    let reply = answered.reply.clone().expect("a reply");
    assert!(reply.len() <= 512, "{} octets do not fit every client", reply.len());
    (Message::from_vec(&reply).expect("decodes"), answered)
}

fn extended(reply: &Message) -> Option<(u16, String)> {
    let option = reply.edns.as_ref()?.option(EdnsCode::from(15))?;
    let EdnsOption::Unknown(_, bytes) = option else { return None };
    Some((u16::from_be_bytes([bytes[0], bytes[1]]), String::from_utf8(bytes[2..].to_vec()).expect("text")))
}

fn data(reply: &Message) -> Vec<String> {
    reply.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn allowed_names_get_one_synthetic_address_of_each_family() {
    let pool = pool();
    let (reply, answered) = ask(&query("api.example.com.", RecordType::A), &pool);
    assert_eq!(reply.response_code, ResponseCode::NoError);
    assert_eq!((reply.id, reply.message_type), (0xbeef, MessageType::Response));
    assert!(reply.recursion_desired && reply.recursion_available && !reply.authentic_data);
    assert_eq!(data(&reply), ["198.18.0.1"]);
    assert_eq!(reply.answers[0].ttl, 60);
    assert!(reply.edns.is_none(), "no OPT for who did not send one");
    assert_eq!((answered.verdict.action, answered.reason()), (Action::Allow, Reason::DnsAnswered));
    assert_eq!((answered.name, answered.qtype.as_str()), (Host::parse("api.example.com").ok(), "A"));

    let (reply, _) = ask(&query("api.example.com.", RecordType::AAAA), &pool);
    assert_eq!(data(&reply), ["fd12:3456:789a:1::1"]);
    assert_eq!(pool.lookup("198.18.0.1".parse().expect("v4")).as_deref(), Some("api.example.com"));
}

#[test]
fn names_that_no_rule_names_are_refused_with_the_reason() {
    let pool = pool();
    for kind in [RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::HTTPS, RecordType::ANY] {
        let (reply, answered) = ask(&with_edns(query("evil.example.", kind)), &pool);
        assert_eq!(reply.response_code, ResponseCode::Refused);
        assert!(reply.answers.is_empty());
        let (code, text) = extended(&reply).expect("an extended error");
        assert_eq!(code, 15, "Blocked");
        assert!(text.starts_with("dns_denied: No rule"), "{text}");
        assert_eq!((answered.verdict.action, answered.reason()), (Action::Block, Reason::DnsDenied));
    }
    assert!(pool.is_empty(), "a denied name leaves no trace in the pool");
    let (reply, _) = ask(&query("evil.example.", RecordType::A), &pool);
    assert!(reply.response_code == ResponseCode::Refused && reply.edns.is_none());
}

#[test]
fn records_that_lead_round_the_proxy_do_not_exist() {
    let pool = pool();
    for kind in [
        RecordType::HTTPS,
        RecordType::SVCB,
        RecordType::MX,
        RecordType::TXT,
        RecordType::SRV,
        RecordType::NS,
        RecordType::SOA,
        RecordType::ANY,
        RecordType::CNAME,
        RecordType::AXFR,
        RecordType::Unknown(4711),
    ] {
        let (reply, answered) = ask(&query("api.example.com.", kind), &pool);
        assert_eq!(reply.response_code, ResponseCode::NoError, "{kind}");
        assert!(reply.answers.is_empty() && reply.authorities.is_empty() && reply.additionals.is_empty(), "{kind}");
        assert_eq!(answered.reason(), Reason::DnsAnswered);
    }
    let (_, answered) = ask(&query("api.example.com.", RecordType::Unknown(4711)), &pool);
    assert_eq!(answered.qtype, "TYPE4711");
    assert!(pool.is_empty());
}

#[test]
fn the_question_comes_back_letter_by_letter() {
    let asked = query("aPi.ExAmPlE.cOm.", RecordType::A);
    let (reply, answered) = ask(&asked, &pool());
    assert!(reply.queries[0].name().eq_case(asked.queries[0].name()), "{}", reply.queries[0]);
    assert!(reply.answers[0].name.eq_case(asked.queries[0].name()));
    assert_eq!(data(&reply), ["198.18.0.1"]);
    assert_eq!(answered.name.map(|host| host.to_string()).as_deref(), Some("api.example.com"));
}

#[test]
fn underscores_are_names_too() {
    assert_eq!(ask(&query("_srv.example.com.", RecordType::A), &pool()).0.response_code, ResponseCode::NoError);
}

#[test]
fn localhost_is_loopback_without_policy() {
    let pool = pool();
    for name in ["localhost.", "LocalHost.", "db.localhost."] {
        assert_eq!(data(&ask(&query(name, RecordType::A), &pool).0), ["127.0.0.1"], "{name}");
        assert_eq!(data(&ask(&query(name, RecordType::AAAA), &pool).0), ["::1"], "{name}");
        assert!(data(&ask(&query(name, RecordType::HTTPS), &pool).0).is_empty(), "{name}");
    }
    for name in ["notlocalhost.", "localhost.example.", "xlocalhost."] {
        assert_eq!(ask(&query(name, RecordType::A), &pool).0.response_code, ResponseCode::Refused, "{name}");
    }
    assert!(pool.is_empty());
}

#[test]
fn reverse_names_of_given_addresses_answer_and_no_others() {
    let pool = pool();
    let given = pool.assign("api.example.com").expect("room");
    let odd = pool.assign("a_b._tcp.wild.example").expect("room");
    let (reply, _) = ask(&query(&Name::from(IpAddr::V4(odd.v4)).to_ascii(), RecordType::PTR), &pool);
    assert_eq!(data(&reply), ["a_b._tcp.wild.example."]);
    for addr in [IpAddr::V4(given.v4), given.v6.into()] {
        let (reply, _) = ask(&query(&Name::from(addr).to_ascii(), RecordType::PTR), &pool);
        assert_eq!(data(&reply), ["api.example.com."], "{addr}");
    }
    for addr in ["127.0.0.1", "127.9.9.9", "::1"] {
        let addr: IpAddr = addr.parse().expect(addr);
        assert_eq!(data(&ask(&query(&Name::from(addr).to_ascii(), RecordType::PTR), &pool).0), ["localhost."]);
    }
    for name in [
        "8.8.8.8.in-addr.arpa.",
        "9.0.18.198.in-addr.arpa.",
        "18.198.in-addr.arpa.",
        "1.0.18.198.9.in-addr.arpa.",
        "01.0.18.198.in-addr.arpa.",
        "x.in-addr.arpa.",
        "in-addr.arpa.",
        "ip6.arpa.",
        "1.0.ip6.arpa.",
        "g.ip6.arpa.",
    ] {
        let (reply, answered) = ask(&query(name, RecordType::PTR), &pool);
        assert_eq!(reply.response_code, ResponseCode::Refused, "{name}");
        assert_eq!(answered.reason(), Reason::DnsDenied);
    }
    assert_eq!(pool.len(), 2);
}

#[test]
fn a_full_pool_fails_and_says_so() {
    let pool = Pool::with_prefix(1, 2);
    for name in ["a.wild.example.", "b.wild.example."] {
        assert_eq!(ask(&query(name, RecordType::A), &pool).0.response_code, ResponseCode::NoError);
    }
    let (reply, answered) = ask(&with_edns(query("c.wild.example.", RecordType::A)), &pool);
    assert_eq!(reply.response_code, ResponseCode::ServFail);
    assert!(extended(&reply).expect("an extended error").1.starts_with("dns_exhausted"));
    assert_eq!((answered.verdict.action, answered.reason()), (Action::Block, Reason::DnsExhausted));
}

#[test]
fn edns_is_answered_in_kind() {
    let (reply, _) = ask(&with_edns(query("api.example.com.", RecordType::A)), &pool());
    let edns = reply.edns.expect("OPT");
    assert_eq!((edns.max_payload(), edns.version(), edns.flags().dnssec_ok), (1232, 0, true));

    let mut future = with_edns(query("api.example.com.", RecordType::A));
    if let Some(edns) = future.edns.as_mut() {
        edns.set_version(1);
    }
    let (reply, answered) = ask(&future, &pool());
    // By number: 16 is also BADSIG, which is how the library reads it back.
    assert_eq!(u16::from(reply.response_code), 16);
    assert_eq!(reply.edns.expect("OPT").version(), 0);
    assert_eq!(answered.reason(), Reason::DnsMalformed);
}

/// A change to the bytes of a good query, and the code the reply must have (none: no reply).
#[test]
fn malformed_queries_are_told_so_and_replies_are_dropped() {
    let good = wire(&query("api.example.com.", RecordType::A));
    let change = |edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        edit(&mut bytes);
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, Option<u8>)> = vec![
        ("empty", vec![], None),
        ("an id alone", vec![0xbe, 0xef], None),
        ("a response", change(&|b| b[2] |= 0x80), None),
        ("a response that is cut short", vec![0xbe, 0xef, 0x80], None),
        ("cut in the header", good[..7].to_vec(), Some(1)),
        ("cut in the question", good[..good.len() - 1].to_vec(), Some(1)),
        ("header alone", good[..12].to_vec(), Some(1)),
        ("trailing bytes", change(&|b| b.push(0)), Some(1)),
        ("no question", change(&|b| b[5] = 0), Some(1)),
        ("two questions", change(&|b| b[5] = 2), Some(1)),
        ("65535 questions", change(&|b| b[4..6].fill(0xff)), Some(1)),
        ("an answer", change(&|b| b[7] = 1), Some(1)),
        ("an authority", change(&|b| b[9] = 1), Some(1)),
        ("a missing additional", change(&|b| b[11] = 1), Some(1)),
        ("65535 additionals", change(&|b| b[10..12].fill(0xff)), Some(1)),
        ("status", change(&|b| b[2] |= 2 << 3), Some(4)),
        ("notify", change(&|b| b[2] |= 4 << 3), Some(4)),
        ("update", change(&|b| b[2] |= 5 << 3), Some(4)),
        ("too long", change(&|b| b.resize(5000, 0)), Some(1)),
        ("a name that points to itself", change(&|b| b[12..14].copy_from_slice(&[0xc0, 12])), Some(1)),
        ("a name in the header", [&good[..12], &[0xc0, 3, 0, 1, 0, 1]].concat(), Some(1)),
        ("an unknown label type", change(&|b| b[12] = 0x41), Some(1)),
        (
            "two OPT records",
            {
                let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
                let mut bytes = [good.as_slice(), &opt, &opt].concat();
                bytes[11] = 2;
                bytes
            },
            Some(1),
        ),
        (
            "OPT with an owner",
            {
                let mut bytes = [good.as_slice(), &[1, b'x', 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]].concat();
                bytes[11] = 1;
                bytes
            },
            Some(1),
        ),
    ];
    for (what, bytes, code) in cases {
        let answered = run(&bytes, &pool());
        assert_eq!(answered.reason(), Reason::DnsMalformed, "{what}");
        assert!(answered.verdict.is_block(), "{what}");
        match (code, answered.reply) {
            (None, None) => {}
            (Some(code), Some(reply)) => {
                assert_eq!(reply[..2], [0xbe, 0xef], "{what}");
                assert_eq!((reply[2] & 0x80, reply[3] & 0x0f), (0x80, code), "{what}");
                assert_eq!(reply[2] & 0x78, bytes[2] & 0x78, "{what}: the opcode comes back");
                assert_eq!(reply.len(), 12, "{what}");
            }
            (code, reply) => panic!("{what}: wanted {code:?}, got {reply:?}"),
        }
    }
}

#[test]
fn what_is_no_host_name_is_refused_not_looked_up() {
    let good = wire(&query("api.example.com.", RecordType::A));
    // A dot inside a label: as text it would read "api.example.com".
    let mut dotted = good.clone();
    dotted[12] = 11;
    dotted[16] = b'.';
    let mut hyphen = good.clone();
    hyphen[13] = b'-';
    for bytes in [
        dotted,
        wire(&query(".", RecordType::NS)),
        wire(&query("127.0.0.1.", RecordType::A)),
        wire(&query("0x7f.1.", RecordType::A)),
        wire(&query("*.wild.example.", RecordType::A)),
        hyphen,
    ] {
        let answered = run(&bytes, &pool());
        assert_eq!((answered.reason(), answered.name), (Reason::DnsDenied, None));
        let reply = Message::from_vec(&answered.reply.expect("a reply")).expect("decodes");
        assert_eq!(reply.response_code, ResponseCode::Refused);
    }
    let mut chaos = query("api.example.com.", RecordType::TXT);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(&chaos, &pool()).0.response_code, ResponseCode::Refused);
}

#[test]
fn real_mode_waits_for_addresses_and_keeps_to_the_family() {
    let pool = pool();
    let asked = with_edns(query("api.example.com.", RecordType::AAAA));
    let pending = || match answer(&wire(&asked), &Rules(Mode::Real), &pool) {
        Outcome::NeedsLookup(pending) => pending,
        other => panic!("answered at once: {other:?}"),
    };
    assert_eq!(pending().name(), "api.example.com");
    let found: Vec<IpAddr> = (1..=20u16)
        .flat_map(|n| [IpAddr::V6(Ipv6Addr::new(0x2606, 0, 0, 0, 0, 0, 0, n)), Ipv4Addr::new(1, 1, 1, n as u8).into()])
        .collect();
    let answered = pending().finish(Ok(&found));
    let bytes = answered.reply.expect("a reply");
    assert!(bytes.len() <= 512);
    let reply = Message::from_vec(&bytes).expect("decodes");
    assert_eq!(data(&reply).len(), 8);
    assert!(data(&reply).iter().all(|text| text.starts_with("2606::")));

    assert_eq!(pending().finish(Ok(&[])).reason(), Reason::DnsAnswered, "a name without addresses");
    let failed = pending().finish(Err(Reason::ResolveFailed));
    assert!(!failed.verdict.is_block(), "the question had left");
    let reply = Message::from_vec(&failed.reply.expect("a reply")).expect("decodes");
    assert_eq!(reply.response_code, ResponseCode::ServFail);
    assert!(extended(&reply).expect("an extended error").1.starts_with("resolve_failed"));
    assert!(pool.is_empty());

    let denied = answer(&wire(&query("evil.example.", RecordType::A)), &Rules(Mode::Real), &pool);
    assert!(matches!(denied, Outcome::Done(answered) if answered.reason() == Reason::DnsDenied));
}

#[test]
fn servfail_keeps_id_question_and_silence() {
    let asked = with_edns(query("api.example.com.", RecordType::A));
    let reply = servfail(&wire(&asked), Reason::RecorderUnavailable).expect("a reply");
    let reply = Message::from_vec(&reply).expect("decodes");
    assert_eq!((reply.id, reply.response_code), (0xbeef, ResponseCode::ServFail));
    assert_eq!(reply.queries, asked.queries);
    assert!(extended(&reply).expect("an extended error").1.starts_with("recorder_unavailable"));
    let mut response = wire(&asked);
    response[2] |= 0x80;
    assert_eq!(servfail(&response, Reason::RecorderUnavailable), None);
}

/// What holds for every input: a drop, or a reply with the same id that decodes, fits, and gives away no address but
/// of the pool or loopback.
fn check_any(bytes: &[u8]) -> Result<(), TestCaseError> {
    let pool = pool();
    for mode in [Mode::Synthetic, Mode::Real] {
        let answered = match answer(bytes, &Rules(mode), &pool) {
            Outcome::Done(answered) | Outcome::NotYet(answered) => answered,
            Outcome::NeedsLookup(pending) => {
                prop_assert_eq!(mode, Mode::Real);
                prop_assert!(Rules(mode).allowed(pending.name()));
                pending.finish(Err(Reason::ResolveFailed))
            }
        };
        let must_drop = bytes.len() < 3 || bytes[2] & 0x80 != 0;
        prop_assert_eq!(answered.reply.is_none(), must_drop);
        prop_assert_eq!(servfail(bytes, Reason::Internal).is_none(), must_drop);
        let Some(reply) = answered.reply else { continue };
        prop_assert_eq!(&reply[..2], &bytes[..2]);
        prop_assert!(reply.len() <= 512, "{} octets", reply.len());
        let reply = Message::from_vec(&reply).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(reply.message_type, MessageType::Response);
        prop_assert!(reply.answers.is_empty() || answered.verdict.action == Action::Allow);
        for record in &reply.answers {
            match record.data {
                RData::A(A(v4)) => prop_assert!(v4.is_loopback() || pool.owns(v4.into())),
                RData::AAAA(AAAA(v6)) => prop_assert!(v6.is_loopback() || pool.owns(v6.into())),
                RData::PTR(_) => {}
                ref other => prop_assert!(false, "gave {}", other),
            }
        }
        if let Some(query) = reply.queries.first() {
            // The question stands where it stood, octet for octet.
            let length = if query.name().is_root() { 1 } else { query.name().len() + 1 } + 4;
            let sent = reply.to_vec().map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&sent[12..12 + length], &bytes[12..12 + length]);
        }
    }
    Ok(())
}

fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => proptest::sample::select(vec!["api", "example", "com", "wild", "localhost", "arpa", "in-addr", "ip6", "1", "0",
            "18", "198", "127", "_srv"]).prop_map(|text| text.as_bytes().to_vec()),
        2 => "[a-zA-Z0-9_-]{1,63}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 1..=63),
    ]
}

/// Queries that are well formed or nearly so: structure gets the cases past the first checks.
fn nearly_query() -> impl Strategy<Value = Vec<u8>> {
    let kinds: BTreeSet<u16> = [1, 28, 12, 65, 64, 16, 255, 41, 6].into();
    let kind = prop_oneof![4 => proptest::sample::select(kinds.into_iter().collect::<Vec<_>>()), 1 => any::<u16>()];
    let flags = prop_oneof![8 => Just(0x0100u16), 1 => any::<u16>()];
    let opt = proptest::option::of((
        proptest::collection::vec(any::<u8>(), 0..40),
        prop_oneof![9 => Just(0u8), 1 => any::<u8>()],
    ));
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (any::<u16>(), flags, proptest::collection::vec(label(), 0..8), kind, opt, damage, 0usize..4).prop_map(
        |(id, flags, labels, kind, opt, damage, cut)| {
            let mut bytes = Vec::new();
            for field in [id, flags, 1, 0, 0, u16::from(opt.is_some())] {
                bytes.extend(field.to_be_bytes());
            }
            for label in labels {
                bytes.push(label.len() as u8);
                bytes.extend(label);
            }
            bytes.push(0);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1]);
            if let Some((options, version)) = opt {
                bytes.extend([0, 0, 41, 4, 208, 0, version, 0x80, 0]);
                bytes.extend((options.len() as u16).to_be_bytes());
                bytes.extend(options);
            }
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            // Most are whole.
            if cut == 3 {
                bytes.pop();
            }
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_bytes_are_dropped_or_answered_properly(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        check_any(&bytes)?;
    }

    #[test]
    fn damaged_queries_are_dropped_or_answered_properly(bytes in nearly_query()) {
        check_any(&bytes)?;
    }
}

/// Rules that read names.
struct Read;

impl NameRules for Read {
    fn allowed(&self, name: &str) -> bool {
        name.ends_with(".wild.example")
    }

    fn mode(&self) -> Mode {
        Mode::Synthetic
    }

    fn read(&self, name: &str) -> NameRead {
        match name.split('.').next() {
            Some("secret") => NameRead::Stopped(Verdict::block(Reason::DlpMatch, "token in name")),
            Some("broken") => NameRead::Stopped(Verdict::block(Reason::ScannerUnavailable, "no scanner")),
            Some("early") => NameRead::NotYet,
            _ => NameRead::Clean(Vec::new()),
        }
    }
}

#[test]
fn a_name_that_says_what_must_not_leave_has_no_address() {
    let pool = pool();
    for (name, kind, code, reason) in [
        ("secret.wild.example", RecordType::A, ResponseCode::Refused, Reason::DlpMatch),
        ("secret.wild.example", RecordType::TXT, ResponseCode::Refused, Reason::DlpMatch),
        ("broken.wild.example", RecordType::AAAA, ResponseCode::ServFail, Reason::ScannerUnavailable),
        ("early.wild.example", RecordType::A, ResponseCode::ServFail, Reason::ScannerUnavailable),
        ("clean.wild.example", RecordType::A, ResponseCode::NoError, Reason::DnsAnswered),
    ] {
        let answered = match answer(&wire(&query(name, kind)), &Read, &pool) {
            Outcome::Done(answered) | Outcome::NotYet(answered) => answered,
            Outcome::NeedsLookup(_) => panic!("made-up addresses"),
        };
        assert_eq!((answered.reason(), answered.verdict.is_block()), (reason, code != ResponseCode::NoError), "{name}");
        let reply = Message::from_vec(&answered.reply.expect("a reply")).expect("sound");
        assert_eq!(
            (reply.metadata.response_code, reply.answers.len()),
            (code, usize::from(code == ResponseCode::NoError))
        );
    }
}
