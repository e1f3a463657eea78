//! Package managers that are told of the proxy by HTTPS_PROXY and whom to trust by `pipelock ca --export`, against a registry of the
//! test's own: what is installed is what was served, nothing is alarmed at, and no secret leaves.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod registry;

use std::process::Output;

use pipelock_e2e::{Explicit, assert_stopped, holds, need};
use registry::{Leak, PIP, Registry, SUMS, USER, has_failed, lines, to_fail};
use serde_json::Value;

fn told(registry: &Registry, files: &[(&str, String)]) -> Explicit {
    let proxy = Explicit::start(&format!("version: \"1.0\"\n{}", registry.policy()), &[]);
    for (name, text) in files {
        std::fs::write(proxy.work().join(name), text).expect("written");
    }
    proxy
}

fn run_ok(proxy: &Explicit, script: &str) -> Output {
    let out = proxy.run(&["sh", "-c", script], &[]);
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// Everything went through the proxy's tunnels and was let through, and nothing was found in it.
fn assert_quiet(receipts: &[Value]) {
    let of = |transport: &str| {
        receipts.iter().filter(|receipt| receipt["action_record"]["transport"] == transport).collect::<Vec<_>>()
    };
    let (requests, tunnels) = (of("forward"), of("connect"));
    assert!(requests.len() > 1 && !tunnels.is_empty(), "{receipts:#?}");
    assert!(requests.iter().all(|receipt| receipt["action_record"]["verdict"] == "allow"), "{requests:#?}");
    let is_quiet = |receipt: &Value| receipt["ext"]["flow_v1"]["findings"].as_array().is_none_or(Vec::is_empty);
    assert!(receipts.iter().all(is_quiet), "{receipts:#?}");
}

fn assert_leak_is_stopped(registry: &Registry, leak: &Leak) {
    let proxy = told(registry, &leak.files);
    let out = proxy.run(&["sh", "-c", &to_fail(&leak.script)], &[]);
    assert!(has_failed(&out.stdout), "{}: {out:?}", leak.script);
    let seen = registry.server.seen();
    assert_stopped(&proxy.end(), leak.place, &[("arrived", &seen)]);
    assert!(!holds(&seen, leak.path), "{}: the request arrived", leak.path);
}

#[test]
fn pip() {
    need!("pip3", "python3", "node", "openssl");
    let registry = Registry::of(&["plsample"]);
    let proxy = told(&registry, &[]);
    let index = format!("--index-url {}/simple/ plsample", registry.base);
    let install = PIP.replace("download", "install").replace("-d out", "--target site");
    let out = run_ok(
        &proxy,
        &format!(
            "{PIP} {index} && {SUMS} && {install} {index} && \
             PYTHONPATH=site /usr/bin/python3 -c 'import plsample; print(plsample.ANSWER)'"
        ),
    );
    let said = lines(&out.stdout);
    assert!(registry.sums(".whl").contains(&said[0]) && said[1] == "42", "{said:?}");
    assert_quiet(&proxy.end());
    for leak in registry.leaks_of_pip() {
        assert_leak_is_stopped(&registry, &leak);
    }
}

#[test]
fn npm() {
    need!("npm", "python3", "node", "openssl");
    let registry = Registry::of(&["plsample"]);
    // With roots of its own, npm does not hear NODE_EXTRA_CA_CERTS.
    let roots = format!("cafile={}\n", registry.server.certificate.display());
    let proxy = told(&registry, &[("package.json", USER.to_owned()), (".npmrc", roots)]);
    let out = run_ok(&proxy, &registry.npm_installs());
    assert_eq!(lines(&out.stdout), [&["42".to_owned()][..], &registry.sums(".tgz")].concat());
    assert_quiet(&proxy.end());
    for leak in registry.leaks_of_npm() {
        assert_leak_is_stopped(&registry, &leak);
    }
    let proxy = told(&registry, &registry.package("module.exports = 42;\n"));
    run_ok(&proxy, &registry.npm_publishes());
    assert!(holds(&registry.server.seen(), "PUT\n/up/"));
    assert_quiet(&proxy.end());
}
