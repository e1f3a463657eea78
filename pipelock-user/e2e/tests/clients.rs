//! Real clients, told nothing about a proxy: each arrives, over IPv4 and IPv6, and its receipt has the name it asked for.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use pipelock_e2e::{HttpServer, Run, Sandbox, need};

/// `web.test` on a server of each family.
fn policy(v4: &HttpServer, v6: &HttpServer) -> String {
    format!(
        "egress:\n  - {{destination: web.test, ports: [{}], scan: false}}\n  - {{destination: web6.test, ports: [{}], scan: false}}\n\
         dns: {{hosts: {{web.test: \"127.0.0.1\", web6.test: \"::1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\", \"::1/128\"]}}",
        v4.port(),
        v6.port()
    )
}

fn servers() -> (HttpServer, HttpServer) {
    (HttpServer::start("127.0.0.1:0"), HttpServer::start("[::1]:0"))
}

/// The one connection went to this name by this client, was allowed by the rule, and carried HTTP.
fn assert_arrived(run: &Run, name: &str, port: u16, comm: &str) {
    let flow = run.evidence.connection();
    assert_eq!(flow.name.as_deref(), Some(name), "{run}");
    assert_eq!(flow.orig_dst.port(), port, "{run}");
    assert_eq!((flow.verdict.as_str(), flow.reason.as_str()), ("allow", "policy_allow"), "{run}");
    assert_eq!(flow.comm, comm, "{run}");
    assert_eq!(flow.uid, 65534, "{run}");
    assert!(flow.rule.as_deref().is_some_and(|rule| rule.ends_with(name)), "{run}");
}

#[test]
fn curl_over_both_families() {
    need!("curl");
    for family in ["-4", "-6"] {
        let (v4, v6) = servers();
        let url = format!("http://web.test:{}/curl?x=1", v4.port());
        let run = Sandbox::new(&policy(&v4, &v6)).run_ok(&["curl", "-sSf", family, &url]);
        assert_arrived(&run, "web.test", v4.port(), "curl");
        assert_eq!(run.evidence.connection().orig_dst.is_ipv6(), family == "-6", "{run}");
        let seen = v4.seen();
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].host(), format!("web.test:{}", v4.port()));
        assert_eq!(seen[0].path, "/curl?x=1");
    }
}
