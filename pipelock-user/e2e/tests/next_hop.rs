//! Destinations that are reached through a next hop: squid and microsocks, by every way that leads out.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;

use pipelock_e2e::{
    Answer, Explicit, Hop, HttpServer, LOGIN, Run, Sandbox, Seen, TlsServer, free_address, need, pipelock, web_sockets,
};
use serde_json::Value;

fn site(seen: &Seen) -> Answer {
    Answer::ok("text/plain", format!("plain {}", seen.path))
}

fn web() -> HttpServer {
    HttpServer::with(TcpListener::bind("127.0.0.1:0").expect("bind"), site)
}

/// A destination that speaks first, and then answers with what it gets; its port.
fn speaks_first() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.write_all(b"220 ready\n");
                let mut word = [0; 4];
                let _ = stream.read_exact(&mut word);
                let _ = stream.write_all(&word);
            });
        }
    });
    port
}

/// Where everything is, on loopback; `dns` says who knows so.
fn policy((web, opened, passed, tcp): (u16, &TlsServer, &TlsServer, u16), dns: &str, more: &str) -> String {
    format!(
        "egress:\n  - {{destination: web.test, ports: [{web}, {}]}}\n  - {{destination: tls.test, ports: [{}], protocol: tls, scan: false}}\n  \
         - {{destination: tcp.test, ports: [{tcp}], protocol: tcp, scan: false}}\n{dns}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n\
         tls: {{extra_roots: [{}]}}\n{more}",
        opened.port(),
        passed.port(),
        opened.certificate.display(),
    )
}

const PINNED: &str = "dns: {hosts: {web.test: \"127.0.0.1\", tls.test: \"127.0.0.1\", tcp.test: \"127.0.0.1\", hop.test: \"127.0.0.1\"}}";

/// Every way out of an agent.
const SCRIPT: &str = r#"
curl -sSf http://web.test:$1/clear; echo
curl -sSf https://web.test:$2/opened; echo
curl -sSfk https://tls.test:$3/ | grep -o 'CIPHER is' | head -n 1
python3 - $4 <<'END'
import socket, sys
s = socket.create_connection(("tcp.test", int(sys.argv[1])), timeout=20)
print(s.makefile().readline().strip(), flush=True)
s.sendall(b"ping"); print(s.recv(4).decode())
END
"#;

fn assert_came(run: &Run) {
    let said = run.text();
    for word in ["plain /clear", "\"path\":\"/opened\"", "220 ready", "ping"] {
        assert!(said.contains(word), "{word}: {run}");
    }
}

/// The agent's own connections, and its requests, say which next hop they went through.
fn assert_told(run: &Run, hop: Option<&str>) {
    for request in run.evidence.http() {
        assert_eq!(request.next_hop.as_deref(), hop, "{request:?}");
    }
    for flow in run.evidence.connections().iter().filter(|flow| flow.requests == 0) {
        assert_eq!(flow.next_hop.as_deref(), hop, "{flow:?}");
    }
    let receipts = format!("{:?}", run.evidence.receipts());
    let secret = LOGIN.split_once(':').expect("both").1;
    assert!(!receipts.contains(secret) && !run.stderr.contains(secret), "no password is shown");
}

#[test]
fn every_way_of_an_agent_goes_through_it() {
    need!("curl", "python3", "openssl", "node", "squid", "microsocks");
    let (web, opened, passed, tcp) =
        (web(), TlsServer::http2(&["web.test"]), TlsServer::start("127.0.0.1", &["tls.test"]), speaks_first());
    let ports = [web.port(), opened.port(), passed.port(), tcp].map(|port| port.to_string());
    let command = [&["sh", "-c", SCRIPT, "sh"][..], &ports.each_ref().map(String::as_str)].concat();
    for hop in [Hop::squid(false, 1), Hop::microsocks()] {
        let policy = policy((web.port(), &opened, &passed, tcp), PINNED, &hop.upstream(""));
        let run = Sandbox::new(&policy).run_ok(&command);
        assert_came(&run);
        assert_told(&run, Some(&hop.url));
        let log = hop.log();
        for port in &ports {
            assert!(log.contains(&format!("127.0.0.1:{port}")), "the address was asked for: {log}");
        }
        assert_eq!(run.evidence.capsule()["next_hop"], hop.url.as_str(), "{run}");
        // And past it, what the policy spares.
        let spared = policy.replace("credentials_file", "no_proxy: [\"*.test\"], credentials_file");
        let run = Sandbox::new(&spared).run_ok(&command);
        assert_came(&run);
        assert_told(&run, None);
        assert_eq!(hop.log(), log, "nothing was asked of it");
    }
}

#[test]
fn one_that_resolves_is_asked_for_names_inside_tls() {
    need!("curl", "openssl", "node", "squid");
    let (web, opened, passed) = (web(), TlsServer::http2(&["web.test"]), TlsServer::start("127.0.0.1", &["tls.test"]));
    let hop = Hop::squid(true, 1);
    let roots = format!("extra_roots: [{}, ", hop.certificate.display());
    let upstream = hop
        .upstream(", resolve: proxy")
        .replace(&format!("credentials_file: {}", hop.credentials.display()), "credentials_env: HOP_LOGIN");
    // Only where the next hop is, is known here.
    let policy = policy((web.port(), &opened, &passed, 9), "dns: {hosts: {hop.test: \"127.0.0.1\"}}", &upstream)
        .replace("extra_roots: [", &roots);
    let script = "env | grep -ci -e hop_login -e _proxy\n".to_owned() + &SCRIPT.replace("python3 -", ": -");
    let ports = [web.port(), opened.port(), passed.port(), 9].map(|port| port.to_string());
    let command = [&["sh", "-c", &script, "sh"][..], &ports.each_ref().map(String::as_str)].concat();
    let sandbox = Sandbox::new(&policy).env("HOP_LOGIN", LOGIN).env("HTTPS_PROXY", "http://nowhere.test:1");
    let run = sandbox.run_ok(&command);
    assert!(run.text().starts_with("0\n"), "the agent knows nothing of it: {run}");
    assert!(run.text().contains("plain /clear") && run.text().contains("\"path\":\"/opened\""), "{run}");
    assert_told(&run, Some(&hop.url));
    assert!(run.evidence.http().iter().all(|request| request.dialled.is_none()), "{run}");
    let log = hop.log();
    for place in [format!("web.test:{}", ports[0]), format!("web.test:{}", ports[1]), format!("tls.test:{}", ports[2])]
    {
        assert!(log.contains(&format!("CONNECT {place}")), "{place}: {log}");
    }
    let limits = run.evidence.capsule()["not_enforced"].to_string();
    assert!(limits.contains("upstream.resolve: proxy"), "{limits}");
}

/// What a policy for the explicit proxy says.
fn explicit(ports: &str, roots: &str, upstream: &str) -> String {
    format!(
        "version: \"1.0\"\negress:\n  - {{destination: web.test, ports: [{ports}]}}\n{PINNED}\n\
         ssrf: {{allow: [\"127.0.0.0/8\"]}}\nwebsocket: {{enabled: true}}\n{roots}\n{upstream}"
    )
}

#[test]
fn every_door_of_the_explicit_proxy_goes_through_it() {
    need!("curl", "openssl", "node", "squid", "microsocks");
    let (web, opened, sockets) = (web(), TlsServer::http2(&["web.test"]), web_sockets());
    let upstream = format!("http://web.test:{}", web.port());
    let more = ["--reverse-proxy", "--reverse-upstream", &upstream, "--reverse-listen", "127.0.0.1:0"];
    for hop in [Hop::squid(false, 1), Hop::microsocks()] {
        let ports = format!("{}, {}, {}", web.port(), opened.port(), sockets.port());
        let proxy = Explicit::start(&explicit(&ports, &opened.roots(), &hop.upstream("")), &more);
        let through = |url: &str| {
            let at = format!("http://{}", proxy.addr);
            proxy.curl(&["--insecure", "--proxy", &at, "--noproxy", "none.test", url])
        };
        assert_eq!(through(&format!("http://web.test:{}/absolute", web.port())).body, "plain /absolute");
        let tunnelled = through(&format!("https://web.test:{}/tunnel", opened.port()));
        assert!(tunnelled.body.contains("\"path\":\"/tunnel\""), "{tunnelled:?}");
        let fetched = proxy.curl(&[&proxy.url(&format!("/fetch?url=http://web.test:{}/fetched", web.port()))]);
        assert_eq!(fetched.json()["content"], "plain /fetched", "{fetched:?}");
        let reverse = proxy.reverse.clone().expect("it listens");
        assert_eq!(proxy.curl(&[&format!("http://{reverse}/reversed")]).body, "plain /reversed");
        let agreed = proxy.curl(&[
            "--max-time",
            "2",
            "--header",
            "Connection: Upgrade",
            "--header",
            "Upgrade: websocket",
            "--header",
            "Sec-WebSocket-Version: 13",
            "--header",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            &proxy.url(&format!("/ws?url=ws://web.test:{}/live", sockets.port())),
        ]);
        assert_eq!(agreed.status, 101, "{agreed:?}");
        let receipts = proxy.end();
        let told: Vec<&Value> =
            receipts.iter().filter(|receipt| !receipt["ext"]["flow_v1"]["dialled"].is_null()).collect();
        assert!(told.len() >= 5, "{receipts:?}");
        for receipt in told {
            assert_eq!(receipt["ext"]["flow_v1"]["next_hop"], hop.url.as_str(), "{receipt}");
        }
        assert!(receipts[0].to_string().contains(&format!("\"next_hop\":\"{}\"", hop.url)), "{}", receipts[0]);
    }
}

#[test]
fn one_that_refuses_is_named_with_what_it_said() {
    need!("curl", "squid", "microsocks", "openssl");
    let web = web();
    let (squid, socks) = (Hop::squid(false, web.port()), Hop::microsocks());
    let without = |hop: &Hop| format!("upstream: {{proxy: \"{}\"}}\n", hop.url);
    let ask = |upstream: &str| {
        let proxy = Explicit::start(&explicit(&web.port().to_string(), "", upstream), &[]);
        let at = format!("http://{}", proxy.addr);
        let url = format!("http://web.test:{}/", web.port());
        let answer = proxy.curl(&["--proxy", &at, "--noproxy", "none.test", &url]);
        let receipts = proxy.end();
        assert!(!format!("{answer:?} {receipts:?}").contains("sesame"), "no password is shown");
        assert_eq!((answer.status, &answer.json()["reason"]), (502, &"hop_failed".into()), "{answer:?}");
        let last = receipts.iter().rfind(|receipt| receipt["action_record"]["method"] == "GET").expect("a receipt");
        assert_eq!(last["action_record"]["pattern"], "hop_failed", "{last}");
        answer.json()["detail"].as_str().expect("text").to_owned()
    };
    for (upstream, expected) in [
        (squid.upstream(""), "it said 403 Forbidden"),
        (without(&squid), "it said 407 Proxy Authentication Required"),
        (without(&socks), "it wants credentials"),
        ("upstream: {proxy: \"http://127.0.0.1:9\"}\n".to_owned(), "Connection refused"),
    ] {
        let said = ask(&upstream);
        assert!(said.contains("the next hop ") && said.contains(expected), "{expected}: {said}");
    }
    assert!(web.seen().is_empty(), "nothing arrived");
}

#[test]
fn an_agent_does_not_reach_it() {
    need!("curl", "squid", "openssl");
    let web = web();
    let hop = Hop::squid(false, 1);
    let port = hop.port();
    let policy = format!(
        "egress:\n  - {{destination: web.test, ports: [{0}, {port}]}}\n  - {{destination: \"127.0.0.0/8\", ports: [{0}, {port}]}}\n{PINNED}\n\
         ssrf: {{allow: [\"127.0.0.0/8\"]}}\n{1}",
        web.port(),
        hop.upstream(", no_proxy: [\"127.0.0.0/8\"]"),
    );
    let script = format!("for hop in web.test 127.0.0.1; do curl -sS --max-time 20 http://$hop:{port}/; done");
    let run = Sandbox::new(&policy).run(&["sh", "-c", &script]);
    assert!(web.seen().is_empty(), "{run}");
    assert!(!hop.log().contains("GET") && !hop.log().contains("CONNECT"), "{}", hop.log());
    // By its name the way out refuses it; by its address it is one of the host's services on loopback.
    let reasons: Vec<String> = run.evidence.connections().iter().map(|flow| flow.reason.clone()).collect();
    assert!(reasons.contains(&"address_denied".to_owned()), "{reasons:?} {run}");
    assert!(reasons.iter().all(|reason| ["address_denied", "loopback_denied"].contains(&reason.as_str())), "{run}");
}

#[test]
fn an_agent_in_its_place_is_told_nothing() {
    need!("curl", "python3");
    let addr = free_address();
    // The second one has its connections wait until something comes.
    let script = r#"
import socket, subprocess, sys
at, family, defer = int(sys.argv[1]), getattr(socket, sys.argv[2]), sys.argv[3] == "defer"
s = socket.socket(family, socket.SOCK_STREAM)
if defer: s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
s.bind(("", at)); s.listen(); s.settimeout(3)
asking = subprocess.Popen(["curl", "-sS", "--max-time", "20", "http://web.test:8/"])
try:
    peer, _ = s.accept(); peer.settimeout(3); print("heard:", peer.recv(4096))
except TimeoutError: print("heard nothing")
asking.wait()
"#;
    for (family, defer) in [("AF_INET", ""), ("AF_INET6", ""), ("AF_INET", "defer")] {
        let sandbox = Sandbox::new("");
        let login = sandbox.file("login", LOGIN);
        sandbox.set_policy(&format!(
            "egress: [{{destination: web.test, ports: [8], scan: false}}]\n{PINNED}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n\
             upstream: {{proxy: \"http://{addr}\", credentials_file: {}}}",
            login.display()
        ));
        let run = sandbox.run(&["python3", "-c", script, &addr.port().to_string(), family, defer]);
        assert!(run.text().contains("heard: b''") || run.text().contains("heard nothing"), "{run}");
        let request = run.evidence.http().into_iter().find(|request| request.reason == "hop_failed");
        assert!(request.is_some() && run.text().contains("served by the agent itself"), "{run}");
    }
}

#[test]
fn its_credentials_are_hidden_from_the_agent_and_do_not_leave() {
    need!("curl");
    for scan in [false, true] {
        let sandbox = Sandbox::new("").user("root");
        let (login, token) = (sandbox.file("login", LOGIN), sandbox.file("token", "0123456789abcdef0123"));
        let key = sandbox.work().join("key");
        let made = Command::new(pipelock()).args(["keygen", "--output"]).arg(&key).output().expect("pipelock");
        assert!(made.status.success());
        sandbox.set_policy(&format!(
            "egress: [{{destination: web.test, ports: [8], scan: {scan}}}]\n{PINNED}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n\
             upstream: {{proxy: \"http://127.0.0.1:9\", credentials_file: {}}}\nmetrics: {{listen: \"{}\", token_file: {}}}",
            login.display(),
            free_address(),
            token.display(),
        ));
        let secret = LOGIN.split_once(':').expect("both").1;
        let script = "cat login token key; curl -sS \"http://web.test:8/?word=$1\"";
        let run = sandbox.option("--key").option(&key).run(&["sh", "-c", script, "sh", secret]);
        assert!(!run.text().contains(secret) && !run.text().contains("0123456789abcdef"), "{run}");
        assert!(!run.text().contains("private"), "{run}");
        let reason = if scan { "dlp_match" } else { "hop_failed" };
        assert!(run.evidence.http().iter().any(|request| request.reason == reason), "{reason}: {run}");
    }
}

#[test]
fn without_its_credentials_nothing_is_started() {
    need!("curl");
    for (upstream, said) in [
        ("{proxy: \"http://127.0.0.1:9\", credentials_file: /nowhere}", "upstream.credentials_file: /nowhere"),
        ("{proxy: \"http://127.0.0.1:9\", credentials_env: NOT_SET}", "NOT_SET is not set"),
    ] {
        let sandbox = Sandbox::new(&format!("upstream: {upstream}"));
        let out = sandbox.command(&["true"]).output().expect("pipelock");
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(said), "{text}");
    }
}

/// What covers a file goes away with it, so that one which is put there by rename is seen.
#[test]
fn a_hidden_file_that_is_replaced_is_told_of_and_in_the_evidence() {
    let sandbox = Sandbox::new("");
    let login = sandbox.file("login", LOGIN);
    sandbox.set_policy(&format!(
        "egress: []\nupstream: {{proxy: \"http://127.0.0.1:9\", credentials_file: {}}}",
        login.display()
    ));
    let script = "cat login; touch started; until [ -s login ]; do sleep 0.05; done; sleep 2";
    let mut running = sandbox.spawn(&["sh", "-c", script]);
    running.wait_for("started");
    let new = login.with_file_name("new");
    std::fs::write(&new, "other:words\n").expect("written");
    std::fs::rename(&new, &login).expect("renamed");
    let (status, seen, said, sandbox) = running.end();
    assert!(status.success() && seen.is_empty(), "{said}");
    assert!(said.contains("another file has taken the place of this one") && said.contains("login"), "{said}");
    let chain = std::fs::read_to_string(sandbox.evidence().join("evidence.jsonl")).expect("evidence");
    assert!(chain.contains("\"files_shown\":["), "{said}");
    assert_eq!(pipelock_e2e::verify_json(&sandbox.evidence()).0, 0, "a verifier takes it");
}
