//! Rates of the policy, met by real clients: refusals that say when to come back, each with its receipt and its count.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use pipelock_e2e::{Explicit, HttpServer, Run, Sandbox, TlsServer, free_address, need, page, promtool, web_policy};

/// Verdict and reason of each request.
fn told(run: &Run) -> Vec<String> {
    run.evidence.http().iter().map(|request| format!("{} {}", request.verdict, request.reason)).collect()
}

#[test]
fn an_agent_is_told_when_to_come_back() {
    need!("curl", "openssl", "node");
    let (server, opened) = (HttpServer::start("127.0.0.1:0"), TlsServer::http2(&["web.test"]));
    let policy = web_policy(server.port(), "", &opened.roots()).replace(
        &format!("[{}]", server.port()),
        &format!("[{}, {}], rates: {{requests: 3, per: hour}}", server.port(), opened.port()),
    );
    let script = "curl -sSf http://web.test:$1/a http://web.test:$1/b && curl -sSf https://web.test:$2/c\n\
                  curl -sSi http://web.test:$1/d\ncurl -sSi https://web.test:$2/e";
    let ports = [server.port(), opened.port()].map(|port| port.to_string());
    let run = Sandbox::new(&policy).run_ok(&["sh", "-c", script, "sh", &ports[0], &ports[1]]);
    let text = run.text().to_ascii_lowercase();
    // Three requests, of whatever connection, and then one in twenty minutes.
    assert_eq!(text.matches("\"status\": 429").count(), 2, "{run}");
    assert_eq!(text.matches("retry-after: 1").count(), 2, "{run}");
    assert_eq!(text.matches("\"reason\": \"limit_exceeded\"").count(), 2, "{run}");
    let expected = [
        "allow policy_allow",
        "allow policy_allow",
        "allow policy_allow",
        "block limit_exceeded",
        "block limit_exceeded",
    ];
    assert_eq!(told(&run), expected, "{run}");
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn connections_that_are_passed_unread_count_too() {
    need!("curl", "openssl");
    let server = TlsServer::start("127.0.0.1", &["web.test"]);
    let members = ", scan: false, protocol: tls, rates: {requests: 1}";
    let url = format!("https://web.test:{}/", server.port());
    let script = "curl -sSfk -o /dev/null $1 && echo first; curl -sSfk -o /dev/null $1 || echo second";
    let run = Sandbox::new(&web_policy(server.port(), members, "")).run_ok(&["sh", "-c", script, "sh", &url]);
    assert_eq!(run.text(), "first\nsecond\n", "{run}");
    let flows: Vec<_> = run.evidence.connections().into_iter().map(|flow| (flow.verdict, flow.reason)).collect();
    let pair = |verdict: &str, reason: &str| (verdict.to_owned(), reason.to_owned());
    assert_eq!(flows, [pair("allow", "policy_allow"), pair("block", "limit_exceeded")], "{run}");
}

#[test]
fn each_name_below_a_wildcard_has_its_own() {
    need!("curl", "openssl");
    let (server, unread) =
        (HttpServer::start("127.0.0.1:0"), TlsServer::start("127.0.0.1", &["a.web.test", "b.web.test"]));
    let policy = web_policy(server.port(), "", "rates: {name: {requests: 2, per: day}}\n").replace(
        "destination: web.test",
        &format!(
            "destination: \"*.web.test\", ports: [{}], scan: false, protocol: tls}}, {{destination: \"*.web.test\"",
            unread.port()
        ),
    );
    let policy = policy.replace("{web.test:", "{b.web.test: \"127.0.0.1\", a.web.test:");
    // Over HTTP and unread they are the same two, of each name.
    let script = "for name in a b; do for n in 1 2; do curl -sS -o /dev/null -w '%{http_code} ' http://$name.web.test:$1/; \
                  curl -4sSk -o /dev/null -w '%{http_code}\n' https://$name.web.test:$2/ 2>/dev/null; done; done";
    let ports = [server.port(), unread.port()].map(|port| port.to_string());
    let run = Sandbox::new(&policy).run(&["sh", "-c", script, "sh", &ports[0], &ports[1]]);
    assert_eq!(run.text(), "200 200\n429 000\n200 200\n429 000\n", "{run}");
    assert_eq!(told(&run), ["allow policy_allow", "block limit_exceeded"].repeat(2), "{run}");
    let flows: Vec<_> = run.evidence.connections().into_iter().map(|flow| flow.reason).collect();
    // Those that were passed unread, and those of the requests.
    assert_eq!(flows.iter().filter(|reason| *reason == "limit_exceeded").count(), 4, "{run}");
}

#[test]
fn bytes_are_cut_off_and_counted() {
    need!("curl", "promtool");
    let server = HttpServer::with(std::net::TcpListener::bind("127.0.0.1:0").expect("bind"), |_| {
        pipelock_e2e::Answer::ok("text/plain", vec![b'x'; 1 << 20])
    });
    let metrics = free_address();
    let more = format!(
        "rates: {{identity: {{bytes_in: \"256KiB\", bytes_out: \"1MiB\", per: day}}}}\nmetrics: {{listen: \"{metrics}\"}}\n"
    );
    let policy = format!("version: \"1.0\"\n{}", web_policy(server.port(), "", &more));
    let proxy = Explicit::start(&policy, &[]);
    let ask = || {
        let (at, url) = (format!("http://{}", proxy.addr), format!("http://web.test:{}/", server.port()));
        proxy.curl(&["--proxy", &at, "--noproxy", "none.test", &url])
    };
    let cut = ask();
    assert!(cut.status == 200 && cut.body.len() <= 256 << 10, "{} {}", cut.status, cut.body.len());
    let refused = ask();
    assert_eq!((refused.status, &refused.json()["reason"]), (429, &"budget_exceeded".into()), "{refused:?}");
    assert!(refused.head.contains("retry-after: 86") || refused.head.contains("retry-after: 85"), "{refused:?}");
    let (_, text) = page(metrics, "/metrics", "").expect("metrics");
    assert_eq!(promtool(&text), "");
    let of = |of: &str| format!("pipelock_rates_exceeded_total{{of=\"{of}\",what=\"bytes_in\"}} ");
    assert!(text.contains(&format!("{}2", of("identity"))) && text.contains(&format!("{}0", of("rule"))), "{text}");
    let receipts = proxy.end();
    let told: Vec<String> = receipts
        .iter()
        .map(|receipt| &receipt["action_record"])
        .filter(|action| action["method"] == "GET")
        .map(|action| format!("{} {}", action["verdict"], action["pattern"]).replace('"', ""))
        .collect();
    assert_eq!(told, ["allow policy_allow", "allow budget_exceeded", "block budget_exceeded"]);
}
