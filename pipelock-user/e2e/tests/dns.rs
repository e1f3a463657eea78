//! The resolver that every port 53 leads to: what it answers, what it refuses and how, over UDP and TCP.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};

use pipelock_e2e::{HttpServer, Outside, Run, Sandbox, need};
use serde_json::{Value, json};

const AGENT: &str = include_str!("../agents/dns.py");
const REFUSED: u64 = 5;

fn ask(policy: &str, queries: &[&str]) -> (Run, Vec<Value>) {
    let sandbox = Sandbox::new(policy);
    let script = sandbox.file("dns.py", AGENT);
    let mut command = vec!["python3", script.to_str().expect("text")];
    command.extend(queries);
    let run = sandbox.run_ok(&command);
    let lines = run.json_lines();
    assert_eq!(lines.len(), queries.len(), "{run}");
    (run, lines)
}

const POLICY: &str =
    "egress:\n  - {destination: web.test, scan: false}\n  - {destination: \"*.wild.test\", scan: false}";

#[test]
fn names_get_addresses_that_only_we_can_read() {
    need!("python3");
    let (run, got) = ask(POLICY, &["web.test/A", "web.test/AAAA", "WEB.Test/A", "web.test/A/tcp", "a.b.wild.test/A"]);
    assert!(got.iter().all(|line| line["rcode"] == 0), "{run}");
    let v4: Ipv4Addr = got[0]["answers"][0][1].as_str().expect("text").parse().expect("an address");
    assert_eq!((v4.octets()[0], v4.octets()[1] & 0xfe), (198, 18), "{run}");
    let v6: Ipv6Addr = got[1]["answers"][0][1].as_str().expect("text").parse().expect("an address");
    assert_eq!(v6.octets()[0], 0xfd, "{run}");
    // The same name has the same address however it is spelt and asked.
    assert_eq!(got[0]["answers"], got[2]["answers"]);
    assert_eq!(got[0]["answers"], got[3]["answers"]);
    assert_ne!(got[0]["answers"], got[4]["answers"]);
    // One receipt a query, with its type; one flow a socket.
    let queries = run.evidence.queries();
    let said: Vec<_> = queries.iter().map(|query| (query.method.as_str(), query.target.as_str())).collect();
    let expected = [
        ("A", "dns://web.test"),
        ("AAAA", "dns://web.test"),
        ("A", "dns://web.test"),
        ("A", "dns://web.test"),
        ("A", "dns://a.b.wild.test"),
    ];
    assert_eq!(said, expected);
    assert_eq!(run.evidence.flows().len(), 5);
}

/// What a stub resolver does that asks all its name servers from one socket.
#[test]
fn a_socket_that_asks_several_servers_in_turn_has_one_flow_for_each() {
    need!("python3");
    for servers in
        [["192.0.2.53", "198.51.100.53", "203.0.113.53"], ["2001:db8::53", "2001:db8:1::53", "2001:db8:2::53"]]
    {
        let sandbox = Sandbox::new(POLICY);
        let script = sandbox.file("dns.py", AGENT);
        let mut command = vec!["python3", script.to_str().expect("text"), "alternate"];
        command.extend(servers);
        let run = sandbox.run_ok(&command);
        // Each answer comes from the server that was asked.
        let lines = run.json_lines();
        assert_eq!(lines.len(), 12, "{run}");
        assert!(lines.iter().all(|line| line["asked"] == line["from"]), "{run}");
        let flows = run.evidence.flows();
        let asked: Vec<_> = flows.iter().map(|flow| (flow.orig_dst.ip().to_string(), flow.requests)).collect();
        assert_eq!(asked, servers.map(|server| (server.to_owned(), 4)), "{run}");
        // Each query is in the flow that carried it.
        for query in run.evidence.queries() {
            let number: usize = query
                .target
                .trim_start_matches("dns://n")
                .split('.')
                .next()
                .expect("a label")
                .parse()
                .expect("a number");
            let flow = flows.iter().find(|flow| flow.id == query.flow).expect("its flow");
            assert_eq!(flow.orig_dst.ip().to_string(), servers[number % 3], "{}", query.target);
        }
        for flow in &flows {
            assert!(flow.tx_bytes > 0 && flow.rx_bytes > 0, "bytes both ways: {flow:?}");
        }
    }
}

#[test]
fn refusals_say_why() {
    need!("python3");
    let (run, got) = ask(
        POLICY,
        &["evil.test/A/edns", "evil.test/AAAA/edns/tcp", "wild.test/A/edns", "evil.test/TXT", "SECRET.evil.test/A"],
    );
    for line in &got {
        assert_eq!((line["rcode"].as_u64(), &line["answers"]), (Some(REFUSED), &json!([])), "{run}");
    }
    for line in &got[..3] {
        // RFC 8914: 15 is "Blocked"; the text carries the reason.
        assert_eq!(line["ede"][0], 15, "{run}");
        assert!(line["ede"][1].as_str().is_some_and(|text| text.contains("dns_denied")), "{run}");
    }
    assert!(
        run.evidence.queries().iter().all(|query| query.verdict == "block" && query.reason == "dns_denied"),
        "{run}"
    );
    assert_eq!(run.evidence.queries().len(), 5);
    assert!(run.evidence.flows().iter().all(|flow| flow.verdict == "block"), "{run}");
}

#[test]
fn records_that_could_lead_elsewhere_are_empty() {
    need!("python3");
    let kinds = ["HTTPS", "SVCB", "TXT", "MX", "NS", "SRV", "CNAME", "ANY", "NULL", "46", "65399"];
    let queries: Vec<String> = kinds.iter().map(|kind| format!("web.test/{kind}/edns")).collect();
    let (run, got) = ask(POLICY, &queries.iter().map(String::as_str).collect::<Vec<_>>());
    for (kind, line) in kinds.iter().zip(&got) {
        assert_eq!(line["answers"], json!([]), "{kind}: {run}");
        assert!([Some(0), Some(REFUSED)].contains(&line["rcode"].as_u64()), "{kind}: {run}");
    }
    // An empty answer, not a refusal: a browser that gets SERVFAIL for HTTPS gives the name up.
    assert_eq!((&got[0]["rcode"], &got[1]["rcode"]), (&json!(0), &json!(0)), "{run}");
}

#[test]
fn reverse_names_are_our_own() {
    need!("python3");
    let script = "
import socket, sys
for family in (socket.AF_INET, socket.AF_INET6):
    addr = socket.getaddrinfo('web.test', 80, family, socket.SOCK_STREAM)[0][4]
    print(socket.getnameinfo(addr, socket.NI_NAMEREQD | socket.NI_NUMERICSERV)[0])
";
    let run = Sandbox::new(POLICY).run_ok(&["python3", "-c", script]);
    assert_eq!(run.text(), "web.test\nweb.test\n", "{run}");
    let (run, got) =
        ask(POLICY, &["9.9.9.9.in-addr.arpa/PTR", "secret.in-addr.arpa/PTR", "1.0.0.127.in-addr.arpa/PTR"]);
    assert_eq!((got[0]["rcode"].as_u64(), got[1]["rcode"].as_u64()), (Some(REFUSED), Some(REFUSED)), "{run}");
    assert_eq!(got[2]["answers"][0][1], "localhost", "{run}");
}

#[test]
fn many_queries_on_one_connection() {
    need!("python3");
    let (run, got) =
        ask(POLICY, &["web.test/A/tcp", "evil.test/A/tcp", "x.wild.test/AAAA/tcp", "web.test/HTTPS/tcp/edns"]);
    let codes: Vec<_> = got.iter().map(|line| line["rcode"].as_u64()).collect();
    assert_eq!(codes, [Some(0), Some(REFUSED), Some(0), Some(0)], "{run}");
    let flows = run.evidence.flows();
    assert_eq!((flows.len(), flows[0].requests, flows[0].proto.as_str()), (1, 4, "tcp"), "{run}");
    assert!(run.evidence.queries().iter().all(|query| query.flow == flows[0].id));
}

#[test]
fn messages_that_are_not_queries_are_recorded_and_not_answered_with_data() {
    need!("python3");
    let question = "037765620474657374000001".to_owned() + "0001";
    let cut_off = "1234".to_owned();
    let no_question = "123401000001000000000000".to_owned();
    let two_questions = format!("123401000002000000000000{question}");
    let a_response = format!("123481800001000000000000{question}");
    let points_to_itself = "123401000001000000000000c00c00010001".to_owned();
    let raw = [cut_off, no_question, two_questions, a_response, points_to_itself].map(|hex| format!("x/A/raw={hex}"));
    let queries: Vec<&str> = raw.iter().map(String::as_str).chain(["web.test/A"]).collect();
    let (run, got) = ask(POLICY, &queries);
    for line in &got[..5] {
        assert!(line.get("error").is_some() || line["rcode"] != 0, "{run}");
    }
    assert_eq!(got[5]["rcode"], 0, "still there afterwards: {run}");
    let malformed = run.evidence.queries().iter().filter(|query| query.reason == "dns_malformed").count();
    assert_eq!(malformed, 5, "{:#?}", run.evidence.queries());
}

#[test]
fn names_are_a_channel_with_a_budget() {
    need!("python3");
    let policy = format!("{POLICY}\ndns: {{max_names: 3}}");
    let queries: Vec<String> = (0..5).map(|n| format!("secret{n}.wild.test/A")).collect();
    let (run, got) = ask(&policy, &queries.iter().map(String::as_str).collect::<Vec<_>>());
    let answered = got.iter().filter(|line| line["rcode"] == 0).count();
    assert_eq!(answered, 3, "{run}");
    let reasons: Vec<_> = run.evidence.queries().iter().map(|query| query.reason.clone()).collect();
    assert_eq!(reasons[3..], ["dns_exhausted", "dns_exhausted"], "{run}");
}

#[test]
fn real_mode_gives_real_addresses_and_still_knows_the_names() {
    need!("curl", "python3");
    let outside = Outside::new();
    let listener = outside.enter(|| TcpListener::bind("[::]:80").expect("bind outside"));
    let server = HttpServer::with(listener, pipelock_e2e::echo);
    let policy = format!(
        "dns_resolution: real\negress: [{{destination: web.test, ports: [80], scan: false}}]\n\
         dns: {{hosts: {{web.test: [\"{0}\", \"{1}\"]}}}}\nssrf: {{allow: [\"{0}/32\", \"{1}/128\"]}}",
        outside.there4, outside.there6
    );
    let (run, got) = ask(&policy, &["web.test/A", "web.test/AAAA", "evil.test/A"]);
    assert_eq!(got[0]["answers"][0][1], outside.there4.to_string(), "{run}");
    assert_eq!(got[1]["answers"][0][1], outside.there6.to_string(), "{run}");
    assert_eq!(got[2]["rcode"].as_u64(), Some(REFUSED), "{run}");
    // One receipt a question, also for those that were looked up.
    let reasons: Vec<_> = run.evidence.queries().into_iter().map(|query| query.reason).collect();
    assert_eq!(reasons, ["dns_answered", "dns_answered", "dns_denied"], "{run}");
    for family in ["-4", "-6"] {
        let run = Sandbox::new(&policy).run_ok(&["curl", "-sSf", family, "http://web.test/real"]);
        let flow = run.evidence.connection();
        assert_eq!((flow.name.as_deref(), flow.reason.as_str()), (Some("web.test"), "policy_allow"), "{run}");
        let addr = flow.orig_dst.ip().to_string();
        assert!([outside.there4.to_string(), outside.there6.to_string()].contains(&addr), "{run}");
    }
    // The address alone, without the name, opens nothing: no rule names it.
    let url = format!("http://{}/", outside.there4);
    let run = Sandbox::new(&policy).run_ok(&["curl", "-sS", "-w", "%{http_code}", &url]);
    assert!(run.text().ends_with("403"), "{run}");
    assert_eq!(server.seen().len(), 2);
}
