//! Clients of every language that are told of the proxy, by HTTPS_PROXY and the variables of `pipelock ca --export`: what they fetch
//! and send is as it was, and a secret in URL, header or body stays in.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod speaking;

use std::process::Command;

use pipelock_e2e::{Explicit, SECRET, TlsServer, has_python_module, holds, missing, need, pipelock, web_policy};
use speaking::{HTTPX, ONE_BY_ONE, PYTHON, REQUESTS, go_client};

const SITE: &str = include_str!("../agents/browser.js");

/// Runs a client with nothing in its environment but the proxy and whom to trust.
fn ask(client: impl FnOnce(&std::path::Path) -> Vec<String>) {
    let site = TlsServer::node(&["web.test"], SITE, &["a page"]);
    let policy = format!("version: \"1.0\"\n{}", web_policy(site.port(), "", &site.roots()));
    let proxy = Explicit::start(&policy, &[]);
    let folder = proxy.folder.path().to_owned();
    let out = Command::new(pipelock())
        .args(["ca", "--policy", "policy.yaml", "--export", "trust"])
        .current_dir(&folder)
        .output()
        .expect("pipelock ca");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let trust = std::fs::read_to_string(folder.join("trust/trust.env")).expect("the variables");
    let words = client(&folder);
    let url = format!("http://{}", proxy.addr);
    let out = Command::new(&words[0])
        .args(&words[1..])
        .args([&format!("https://web.test:{}", site.port()), SECRET])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &folder)
        .env("PYTHONPATH", pipelock_e2e::python_path())
        .envs(trust.lines().filter_map(|line| line.split_once('=')))
        .envs([("HTTPS_PROXY", &url), ("https_proxy", &url)])
        .current_dir(&folder)
        .output()
        .expect("the client");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let expected = std::fs::read_to_string(site.certificate.with_file_name("expected")).expect("what the site has");
    let mut lines: Vec<&str> = expected.lines().take(3).collect();
    lines.extend(["url 403 dlp_match", "header 403 dlp_match", "body 403 dlp_match"]);
    assert_eq!(said.trim(), lines.join("\n"), "{}", String::from_utf8_lossy(&out.stderr));
    let seen = site.seen();
    assert!(holds(&seen, "/text") && !holds(&seen, "/leak"), "a request arrived that was stopped");
    let receipts = proxy.end();
    assert!(receipts.iter().all(|receipt| !receipt.to_string().contains(SECRET)));
    let of = |pattern: &str| {
        let is_it = |receipt: &&serde_json::Value| {
            receipt["action_record"]["transport"] == "forward" && receipt["action_record"]["pattern"] == pattern
        };
        receipts.iter().filter(is_it).count()
    };
    assert_eq!((of("policy_allow"), of("dlp_match")), (3, 3), "{receipts:#?}");
}

fn python(module: &str, parts: &[&str]) {
    if !has_python_module(module) {
        return missing(&format!("{module} for Python"));
    }
    ask(|folder| {
        let script = folder.join("client.py");
        std::fs::write(&script, format!("{PYTHON}{}", parts.concat())).expect("written");
        vec!["/usr/bin/python3".to_owned(), script.display().to_string()]
    });
}

#[test]
fn python_requests() {
    need!("python3", "node", "openssl");
    python("requests", &[REQUESTS, ONE_BY_ONE]);
}

#[test]
fn python_httpx_over_http2() {
    need!("python3", "node", "openssl");
    python("httpx, h2", &[HTTPX, ONE_BY_ONE]);
}

#[test]
fn go_net_http() {
    need!("go", "node", "openssl");
    ask(|folder| vec![go_client(folder).display().to_string()]);
}
