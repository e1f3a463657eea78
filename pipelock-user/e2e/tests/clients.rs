//! Real clients, told nothing about a proxy: each arrives, over IPv4 and IPv6, and its receipt has the name it asked for.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use pipelock_e2e::{HttpServer, Run, Sandbox, TlsServer, need};

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

#[test]
fn wget_over_both_families() {
    need!("wget");
    for family in ["-4", "-6"] {
        let (v4, v6) = servers();
        let url = format!("http://web6.test:{}/wget", v6.port());
        let run = Sandbox::new(&policy(&v4, &v6)).run_ok(&["wget", "-nv", "-O-", family, &url]);
        assert_arrived(&run, "web6.test", v6.port(), "wget");
        assert_eq!(run.evidence.connection().orig_dst.is_ipv6(), family == "-6", "{run}");
        assert_eq!(v6.seen()[0].path, "/wget");
    }
}

#[test]
fn the_client_sees_the_address_it_asked_for() {
    let script = r#"
import json, socket, sys
name, port = sys.argv[1], int(sys.argv[2])
for family in (socket.AF_INET, socket.AF_INET6):
    asked = socket.getaddrinfo(name, port, family, socket.SOCK_STREAM)[0][4]
    s = socket.socket(family)
    s.connect(asked)
    peer = s.getpeername()
    s.sendall(b"GET / HTTP/1.1\r\nHost: %s:%d\r\nConnection: close\r\n\r\n" % (name.encode(), port))
    answer = s.makefile("rb").read().split(b" ")[1].decode()
    print(json.dumps({"asked": asked[:2], "peer": peer[:2], "status": answer}))
"#;
    let (v4, v6) = servers();
    let port = v4.port().to_string();
    let run = Sandbox::new(&policy(&v4, &v6)).run_ok(&["python3", "-c", script, "web.test", &port]);
    let lines = run.json_lines();
    let flows = run.evidence.connections();
    assert_eq!((lines.len(), flows.len()), (2, 2), "{run}");
    for (line, flow) in lines.iter().zip(&flows) {
        assert_eq!(line["asked"], line["peer"], "{run}");
        assert_eq!(line["status"], "200", "{run}");
        // The receipt has the very address that the client was given, and not the one that was dialled.
        assert_eq!(line["asked"][0].as_str(), Some(flow.orig_dst.ip().to_string().as_str()), "{run}");
        assert_ne!(flow.orig_dst, v4.addr, "{run}");
    }
    assert!(flows[0].orig_dst.is_ipv4() && flows[1].orig_dst.is_ipv6(), "{run}");
    let dialled: Vec<_> = run.evidence.http().iter().map(|request| request.dialled).collect();
    assert_eq!(dialled, [Some(v4.addr), Some(v4.addr)], "{run}");
}

fn python(script: &str, comm: &str) {
    let (v4, v6) = servers();
    for (name, server) in [("web.test", &v4), ("web6.test", &v6)] {
        let url = format!("http://{name}:{}/python", server.port());
        let run = Sandbox::new(&policy(&v4, &v6))
            .env("PYTHONPATH", pipelock_e2e::python_path())
            .run_ok(&["python3", "-c", script, &url]);
        assert!(run.text().contains(&format!("\"host\":\"{name}:{}\"", server.port())), "{run}");
        assert_arrived(&run, name, server.port(), comm);
    }
}

#[test]
fn python_urllib() {
    need!("python3");
    python("import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())", "python3");
}

#[test]
fn python_requests() {
    if !pipelock_e2e::has_python_module("requests") {
        return pipelock_e2e::missing("python requests");
    }
    python("import sys, requests; print(requests.get(sys.argv[1]).text)", "python3");
}

#[test]
fn python_aiohttp() {
    if !pipelock_e2e::has_python_module("aiohttp") {
        return pipelock_e2e::missing("python aiohttp");
    }
    let script = "
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession() as s:
        async with s.get(sys.argv[1]) as r:
            print(await r.text())
asyncio.run(main())
";
    python(script, "python3");
}

#[test]
fn node_fetch() {
    need!("node");
    let (v4, v6) = servers();
    for (name, server) in [("web.test", &v4), ("web6.test", &v6)] {
        let url = format!("http://{name}:{}/node", server.port());
        let script = "fetch(process.argv[1]).then(r => r.text()).then(t => console.log(t))";
        let run = Sandbox::new(&policy(&v4, &v6)).run_ok(&["node", "-e", script, &url]);
        assert!(run.text().contains("\"path\":\"/node\""), "{run}");
        let flow = run.evidence.connection();
        // Node names its threads; the main thread's name is the program's on some versions and "MainThread" on others.
        assert_arrived(&run, name, server.port(), &flow.comm);
        assert!(["node", "MainThread"].contains(&flow.comm.as_str()), "{run}");
    }
}

#[test]
fn go_net_http() {
    need!("go");
    let program = r#"package main

import ("io"; "net/http"; "os")

func main() {
	r, err := http.Get(os.Args[1])
	if err != nil { println(err.Error()); os.Exit(1) }
	io.Copy(os.Stdout, r.Body)
}
"#;
    let (v4, v6) = servers();
    let built = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(built.path().join("main.go"), program).expect("write");
    // Both resolvers: Go's own, which reads /etc/resolv.conf and speaks DNS itself, is what CGO_ENABLED=0 leaves.
    let out = std::process::Command::new(pipelock_e2e::find("go").expect("go"))
        .args(["build", "-o", "client", "main.go"])
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod")
        .current_dir(built.path())
        .output()
        .expect("go build");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let binary = std::fs::read(built.path().join("client")).expect("the client");
    for (name, server) in [("web.test", &v4), ("web6.test", &v6)] {
        let url = format!("http://{name}:{}/go", server.port());
        let sandbox = Sandbox::new(&policy(&v4, &v6));
        let client = sandbox.file("goclient", &binary);
        let run = sandbox.run_ok(&[client.to_str().expect("text"), &url]);
        assert!(run.text().contains("\"path\":\"/go\""), "{run}");
        // Happy Eyeballs: Go may open both families and drop one.
        let flows = run.evidence.connections();
        assert!(!flows.is_empty() && flows.iter().all(|flow| flow.name.as_deref() == Some(name)), "{run}");
        assert!(flows.iter().all(|flow| flow.comm == "goclient"), "{run}");
        assert_eq!(run.evidence.http().len(), 1, "{run}");
    }
}

#[test]
fn java_http_client() {
    need!("java", "javac");
    let program = r#"
import java.net.URI;
import java.net.http.*;
public class Client {
    public static void main(String[] args) throws Exception {
        for (String url : args) {
            var request = HttpRequest.newBuilder(URI.create(url)).build();
            System.out.print(HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body());
        }
        System.exit(0);
    }
}
"#;
    let (v4, v6) = servers();
    let sandbox = Sandbox::new(&policy(&v4, &v6));
    sandbox.file("Client.java", program);
    let out =
        std::process::Command::new("javac").arg("Client.java").current_dir(sandbox.work()).output().expect("javac");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let urls = [format!("http://web.test:{}/java", v4.port()), format!("http://web6.test:{}/java", v6.port())];
    let run = sandbox.run_ok(&["java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "Client", &urls[0], &urls[1]]);
    let flows = run.evidence.connections();
    let names: Vec<_> = flows.iter().filter_map(|flow| flow.name.as_deref()).collect();
    assert_eq!(names, ["web.test", "web6.test"], "{run}");
    assert!(flows.iter().all(|flow| flow.reason == "policy_allow"), "{run}");
    assert_eq!((v4.seen().len(), v6.seen().len()), (1, 1), "{run}");
}

#[test]
fn openssl_s_client_over_both_families() {
    need!("openssl");
    let server = TlsServer::start("127.0.0.1", &["tls.test"]);
    let policy = format!(
        "egress: [{{destination: tls.test, ports: [{}], protocol: tls, scan: false}}]\n\
         dns: {{hosts: {{tls.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}",
        server.port()
    );
    let target = format!("tls.test:{}", server.port());
    let trust = server.certificate.to_str().expect("text");
    for family in ["-4", "-6"] {
        let run = Sandbox::new(&policy).stdin("GET / HTTP/1.0\r\n\r\n").run_ok(&[
            "openssl",
            "s_client",
            family,
            "-quiet",
            "-verify_return_error",
            "-verify_hostname",
            "tls.test",
            "-CAfile",
            trust,
            "-connect",
            &target,
            "-servername",
            "tls.test",
            "-ign_eof",
        ]);
        assert!(run.text().contains("200 ok"), "{run}");
        assert_arrived(&run, "tls.test", server.port(), "openssl");
        let flow = run.evidence.connection();
        assert_eq!(flow.orig_dst.is_ipv6(), family == "-6", "{run}");
        assert_eq!(flow.carrier.as_deref(), Some("tls-passthrough"), "{run}");
        assert!(flow.tx_bytes > 200 && flow.rx_bytes > 500, "{run}");
    }
}

#[test]
fn curl_over_tls_verifies_the_real_certificate() {
    need!("curl", "openssl");
    let server = TlsServer::start("::1", &["tls.test"]);
    let policy = format!(
        "egress: [{{destination: tls.test, ports: [{}], protocol: tls, scan: false}}]\n\
         dns: {{hosts: {{tls.test: \"::1\"}}}}\nssrf: {{allow: [\"::1/128\"]}}",
        server.port()
    );
    let url = format!("https://tls.test:{}/", server.port());
    let trust = server.certificate.to_str().expect("text");
    let run = Sandbox::new(&policy).run_ok(&["curl", "-sSf", "--cacert", trust, &url]);
    assert!(run.text().contains("s_server"), "{run}");
    assert_arrived(&run, "tls.test", server.port(), "curl");
}
