//! Real clients over TLS that is opened, told nothing: neither of a proxy nor of an authority to trust.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use pipelock_e2e::{Run, Sandbox, TlsServer, need, web_policy};

fn sandbox(server: &TlsServer, more: &str) -> Sandbox {
    let members = format!(", paths: [\"/ok/*\", \"/simple/*\"]{more}");
    Sandbox::new(&web_policy(server.port(), &members, &server.roots()))
}

/// One request, read and let through, with its receipt; no file is left.
fn assert_read(run: &Run, path: &str, carrier: &str) {
    assert!(run.text().contains(&format!("\"path\":\"{path}\"")), "{run}");
    let requests = run.evidence.http();
    assert!(requests.iter().any(|request| request.target.starts_with("https://web.test:")), "{run}");
    assert!(requests.iter().all(|request| request.verdict == "allow" && request.status == Some(200)), "{run}");
    let flows = run.evidence.connections();
    assert!(flows.iter().any(|flow| flow.carrier.as_deref() == Some(carrier)), "{flows:?} {run}");
    assert!(flows.iter().all(|flow| flow.verdict == "allow"), "{run}");
    let attachment = run.evidence.capsule()["attachment"].as_str().expect("a name");
    assert!(!std::path::Path::new("/run/pipelock-trust").join(attachment).exists(), "nothing is left");
}

#[test]
fn curl_over_both_protocols() {
    need!("curl", "openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    let url = format!("https://web.test:{}/ok/curl", server.port());
    for (option, version, carrier) in [("--http2", "2.0", "tls-http2"), ("--http1.1", "1.1", "tls-http1")] {
        let run = sandbox(&server, "").run_ok(&["curl", "-sSfi", option, "--data-binary", "hello", &url]);
        assert_read(&run, "/ok/curl", carrier);
        assert!(run.text().contains(&format!("\"version\":\"{version}\"")), "{run}");
        assert!(run.text().contains("\"bytes\":5") && !run.text().contains("alt-svc"), "{run}");
    }
}

/// Answers with the port that it was called from.
const PORT: &str = r#"
const handler = (request, response) => {
    const socket = request.stream ? request.stream.session.socket : request.socket;
    request.resume();
    response.end("from " + socket.remotePort + " " + request.httpVersion + "\n");
};
"#;

#[test]
fn one_curl_after_another_is_one_connection_to_the_destination() {
    need!("curl", "openssl", "node");
    let server = TlsServer::node(&["web.test"], PORT, &[]);
    let curl = |option: &str| format!("curl -sSf {option} https://web.test:{}/ok/curl; sleep 0.3", server.port());
    let order = ["--http2", "--http1.1", "--http2", "--http1.1"].map(curl);
    let run = sandbox(&server, "").run_ok(&["sh", "-ec", &order.join("; ")]);
    let text = run.text();
    let from: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("from ")).collect();
    let [one, other, again, once_more] = from.as_slice() else { panic!("{run}") };
    assert_eq!((one, other), (again, once_more), "{run}");
    // What a client speaks is what its destination is spoken to in.
    assert!(one.ends_with(" 2.0") && other.ends_with(" 1.1"), "{run}");
    assert_eq!((run.evidence.connections().len(), run.evidence.http().len()), (4, 4), "{run}");
}

#[test]
fn what_the_rule_does_not_list_is_denied_inside() {
    need!("curl", "openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    for option in ["--http2", "--http1.1"] {
        let url = format!("https://web.test:{}/other", server.port());
        let run = sandbox(&server, "").run_ok(&["curl", "-sS", option, &url]);
        assert!(run.text().contains("\"reason\": \"path_denied\""), "{run}");
        assert_eq!(run.evidence.http()[0].reason, "path_denied", "{run}");
    }
    assert!(server.seen().is_empty(), "a request arrived that the rule does not list");
}

#[test]
fn an_environment_without_variables_finds_the_systems_bundle() {
    need!("curl", "wget", "openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    let port = server.port();
    let curl = format!("exec env -i /usr/bin/curl -sSf --resolve web.test:{port}:$1 https://web.test:{port}/ok/bare");
    let ask = format!("set -- $(getent hosts web.test); {curl}");
    let run = sandbox(&server, "").run_ok(&["sh", "-c", &ask]);
    assert_read(&run, "/ok/bare", "tls-http2");
    let url = format!("https://web.test:{port}/ok/wget");
    let run = sandbox(&server, "").run_ok(&["env", "-i", "/usr/bin/wget", "-qO-", &url]);
    assert_read(&run, "/ok/wget", "tls-http1");
}

fn python(script: &str) {
    let server = TlsServer::http2(&["web.test"]);
    let url = format!("https://web.test:{}/ok/python", server.port());
    let run =
        sandbox(&server, "").env("PYTHONPATH", pipelock_e2e::python_path()).run_ok(&["python3", "-c", script, &url]);
    assert_read(&run, "/ok/python", "tls-http1");
}

#[test]
fn python_urllib() {
    need!("python3", "openssl", "node");
    python("import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())");
}

#[test]
fn python_requests() {
    need!("python3", "openssl", "node");
    if !pipelock_e2e::has_python_module("requests") {
        return pipelock_e2e::missing("python requests");
    }
    python("import sys, requests; print(requests.get(sys.argv[1]).text)");
}

#[test]
fn python_aiohttp() {
    need!("python3", "openssl", "node");
    if !pipelock_e2e::has_python_module("aiohttp") {
        return pipelock_e2e::missing("python aiohttp");
    }
    python(
        "
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession() as s:
        async with s.get(sys.argv[1]) as r:
            print(await r.text())
asyncio.run(main())
",
    );
}

#[test]
fn node_fetch_and_http2() {
    need!("node", "openssl");
    let server = TlsServer::http2(&["web.test"]);
    let url = format!("https://web.test:{}", server.port());
    let fetch = "fetch(process.argv[1] + '/ok/node').then(r => r.text()).then(t => console.log(t))";
    assert_read(&sandbox(&server, "").run_ok(&["node", "-e", fetch, &url]), "/ok/node", "tls-http1");
    let http2 = "
const c = require('http2').connect(process.argv[1]), r = c.request({':path': '/ok/node2'});
r.on('data', d => process.stdout.write(d)); r.on('end', () => c.close()); r.end();";
    assert_read(&sandbox(&server, "").run_ok(&["node", "-e", http2, &url]), "/ok/node2", "tls-http2");
}

#[test]
fn go_net_http() {
    need!("go", "openssl", "node");
    let program = r#"package main

import ("io"; "net/http"; "os")

func main() {
	r, err := http.Get(os.Args[1])
	if err != nil { println(err.Error()); os.Exit(1) }
	io.Copy(os.Stdout, r.Body)
}
"#;
    let server = TlsServer::http2(&["web.test"]);
    let built = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(built.path().join("main.go"), program).expect("write");
    let out = std::process::Command::new(pipelock_e2e::find("go").expect("go"))
        .args(["build", "-o", "client", "main.go"])
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod")
        .current_dir(built.path())
        .output()
        .expect("go build");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let sandbox = sandbox(&server, "");
    let client = sandbox.file("goclient", std::fs::read(built.path().join("client")).expect("the client"));
    let url = format!("https://web.test:{}/ok/go", server.port());
    assert_read(&sandbox.run_ok(&[client.to_str().expect("text"), &url]), "/ok/go", "tls-http2");
}

#[test]
fn java_http_client() {
    need!("java", "javac", "openssl", "node");
    let program = r#"
import java.net.URI;
import java.net.http.*;
public class Client {
    public static void main(String[] args) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(args[0])).build();
        System.out.print(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
        System.exit(0);
    }
}
"#;
    let server = TlsServer::http2(&["web.test"]);
    let sandbox = sandbox(&server, "");
    sandbox.file("Client.java", program);
    let out =
        std::process::Command::new("javac").arg("Client.java").current_dir(sandbox.work()).output().expect("javac");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let url = format!("https://web.test:{}/ok/java", server.port());
    let run = sandbox.run_ok(&["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "Client", &url]);
    assert_read(&run, "/ok/java", "tls-http2");
}

#[test]
fn openssl_over_both_versions() {
    need!("openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    let target = format!("web.test:{}", server.port());
    for version in ["-tls1_2", "-tls1_3"] {
        let get = format!("GET /ok/openssl HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
        let run = sandbox(&server, "").stdin(get).run_ok(&[
            "openssl",
            "s_client",
            version,
            "-quiet",
            "-verify_return_error",
            "-x509_strict",
            "-verify_hostname",
            "web.test",
            "-connect",
            &target,
            "-ign_eof",
        ]);
        assert_read(&run, "/ok/openssl", "tls-http1");
    }
}

#[test]
fn a_client_that_pins_is_told_apart_with_the_rule_to_add() {
    need!("curl", "openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    let url = format!("https://web.test:{}/ok/x", server.port());
    let only = server.certificate.to_str().expect("text");
    let run = sandbox(&server, "").run(&["curl", "-sS", "--cacert", only, "--capath", "/nonexistent", &url]);
    assert_eq!(run.code(), 60, "{run}");
    assert_eq!(run.evidence.connection().reason, "client_pinned", "{run}");
    let rule = format!("{{destination: \"web.test\", ports: [{}], protocol: tls, scan: false}}", server.port());
    assert!(run.stderr.contains(&rule), "{run}");
}

#[test]
fn a_destination_that_nobody_vouches_for_gets_nothing() {
    need!("curl", "openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    let policy = web_policy(server.port(), "", "");
    let url = format!("https://web.test:{}/", server.port());
    let run = Sandbox::new(&policy).run_ok(&["curl", "-sS", &url]);
    assert!(run.text().contains("\"reason\": \"certificate_invalid\""), "{run}");
    assert_eq!(run.evidence.http()[0].status, Some(502), "{run}");
    assert!(server.seen().is_empty(), "it was sent something");
}

#[test]
fn an_agent_that_is_root_does_not_get_the_key() {
    need!("openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    let sandbox = sandbox(&server, "");
    let key = sandbox.policy().with_file_name("state/ca.pem");
    let run = sandbox.user("root").run_ok(&[
        "sh",
        "-c",
        "cat \"$1\" && exit 1; ls -l \"$1\"",
        "sh",
        key.to_str().expect("text"),
    ]);
    assert!(!run.text().contains("BEGIN") && !run.stderr.contains("BEGIN"), "{run}");
}
