//! Names that lead to this host by an address that looks like any other.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::process::{Command, Output};

use pipelock_e2e::{Evidence, Sandbox, need};

/// In a network of its own, where the host has public addresses and a service on each.
const WORLD: &str = r#"
ip link set lo up && ip addr add 20.1.2.3/32 dev lo && ip addr add 2600::1234/128 dev lo nodad || exit 90
for addr in 20.1.2.3 2600::1234; do
    python3 -m http.server --bind $addr --directory "$FILES" 80 > /dev/null 2>&1 & servers="$servers $!"
done
until curl -s -o /dev/null http://20.1.2.3/ && curl -s -o /dev/null 'http://[2600::1234]/'; do sleep 0.05; done
"$@"; code=$?
kill $servers
exit $code
"#;

fn ask(policy: &str, url: &str) -> (Output, Evidence) {
    let sandbox = Sandbox::new(policy);
    let files = tempfile::tempdir().expect("a folder");
    std::fs::write(files.path().join("secret"), "of the host\n").expect("write");
    let agent = sandbox.command(&["curl", "-sS", "--max-time", "20", url]);
    let out = Command::new("unshare")
        .args(["--net", "sh", "-c", WORLD, "sh"])
        .arg(agent.get_program())
        .args(agent.get_args())
        .env("FILES", files.path())
        .current_dir(sandbox.work())
        .output()
        .expect("unshare");
    let evidence = Evidence::read(&sandbox.evidence());
    (out, evidence)
}

#[test]
fn a_public_address_of_this_host_is_no_destination_unless_said() {
    need!("python3");
    need!("curl");
    for (address, net) in [("20.1.2.3", "20.1.2.3/32"), ("2600::1234", "2600::/64")] {
        let policy = format!(
            "egress: [{{destination: own.test, ports: [80], scan: false}}]\ndns: {{hosts: {{own.test: \"{address}\"}}}}"
        );
        let (out, evidence) = ask(&policy, "http://own.test/secret");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(text.contains("ssrf_denied") && text.contains("this host"), "{address}: {text} {out:?}");
        assert!(evidence.requests().iter().any(|request| request.reason == "ssrf_denied"), "{address}");

        let (out, _) = ask(&format!("{policy}\nssrf: {{allow: [\"{net}\"]}}"), "http://own.test/secret");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "of the host\n", "{address}: {out:?}");
    }
}
