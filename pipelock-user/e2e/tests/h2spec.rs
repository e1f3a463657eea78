//! h2spec, which tries the sentences of RFC 9113 and RFC 7541 on a server, what they ask for strictly too, as the agent: what it
//! meets is pipelock.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use pipelock_e2e::{Run, Sandbox, TlsServer, go_tool, need, web_policy};

/// h2spec and the version of it that is built; its last.
const MODULE: &str = "github.com/summerwind/h2spec/cmd/h2spec";
const VERSION: &str = "v2.2.1+incompatible";

fn assert_all_pass(run: &Run) {
    let text = run.text();
    let counts = text.lines().find(|line| line.contains(" tests, ")).unwrap_or_else(|| panic!("no counts: {run}"));
    let number = |what: &str| {
        let part = counts.split(", ").find(|part| part.ends_with(what)).expect("a count");
        part.split(' ').next().and_then(|number| number.parse::<u32>().ok()).expect("a number")
    };
    assert!(number("tests") > 140 && number("failed") == 0, "{text}");
    assert_eq!(number("skipped"), 0, "{text}");
    assert_eq!(run.code(), 0, "{text}");
}

#[test]
fn over_tls_that_is_opened() {
    need!("go", "openssl", "node");
    let Some(h2spec) = go_tool(MODULE, VERSION) else { return };
    let server = TlsServer::http2(&["web.test"]);
    let port = server.port().to_string();
    let command = [h2spec.as_str(), "-h", "web.test", "-p", &port, "-t", "-k", "-S", "-o", "5"];
    assert_all_pass(&Sandbox::new(&web_policy(server.port(), "", &server.roots())).run(&command));
}

#[test]
fn in_the_clear() {
    need!("go", "openssl", "node");
    let Some(h2spec) = go_tool(MODULE, VERSION) else { return };
    let server = TlsServer::http2_in_the_clear();
    let port = server.port().to_string();
    // All but http2/3.5/2, a preface that is none: here it is a request of HTTP/1.1, and is answered 400.
    let parts = ["generic", "hpack", "http2/3.5/1", "http2/4", "http2/5", "http2/6", "http2/7", "http2/8"];
    let command = [&[h2spec.as_str()][..], &parts, &["-h", "web.test", "-p", &port, "-S", "-o", "5"]].concat();
    assert_all_pass(&Sandbox::new(&web_policy(server.port(), "", "")).run(&command));
}
