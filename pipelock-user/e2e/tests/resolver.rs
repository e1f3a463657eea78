//! What pipelock itself asks the name servers of the machine: the names that the policy allows, as they are.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::process::Command;

use pipelock_e2e::{Evidence, Sandbox, need};

/// A name server that notes what it is asked, and knows only what is in the network's own domain.
const SERVER: &str = r#"
import os, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
log = open(sys.argv[1], "w")
open(sys.argv[2], "w").close()
while True:
    question, peer = s.recvfrom(512)
    at, labels = 12, []
    while question[at]:
        labels.append(question[at + 1:at + 1 + question[at]].decode())
        at += 1 + question[at]
    name, kind, end = ".".join(labels), question[at + 2], at + 5
    print(name, file=log, flush=True)
    known = name.endswith(".corp.test")
    is_a = known and kind == 1
    head = question[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if is_a else b""
    s.sendto(head + question[12:end] + answer, peer)
"#;

/// In a network of its own with that server, and with a domain that the resolver of the machine would look in.
const WORLD: &str = r#"
ip link set lo up && mount --bind "$RESOLV" /etc/resolv.conf || exit 90
python3 "$SERVER" "$LOG" "$UP" & server=$!
while ! [ -e "$UP" ]; do sleep 0.02; done
"$@"; code=$?
kill $server
exit $code
"#;

#[test]
fn a_name_is_not_looked_for_in_the_domain_of_the_network() {
    need!("python3");
    need!("curl");
    let policy = "egress: [{destination: single.test, ports: [80], scan: false}]\nssrf: {allow: [\"127.0.0.0/8\"]}";
    let sandbox = Sandbox::new(policy);
    let files = tempfile::tempdir().expect("a folder");
    let file = |name: &str| files.path().join(name);
    std::fs::write(file("server.py"), SERVER).expect("write");
    std::fs::write(file("resolv.conf"), "nameserver 127.0.0.1\nsearch corp.test\noptions ndots:5\n").expect("write");
    let agent = sandbox.command(&["curl", "-sS", "--max-time", "20", "http://single.test/"]);
    let out = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", WORLD, "sh"])
        .arg(agent.get_program())
        .args(agent.get_args())
        .env("RESOLV", file("resolv.conf"))
        .env("SERVER", file("server.py"))
        .env("LOG", file("asked"))
        .env("UP", file("up"))
        .current_dir(sandbox.work())
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("\"reason\": \"resolve_failed\""), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    let asked = std::fs::read_to_string(file("asked")).expect("what was asked");
    assert!(asked.lines().count() > 0 && asked.lines().all(|name| name == "single.test"), "{asked}");
    assert_eq!(Evidence::read(&sandbox.evidence()).connection().reason, "resolve_failed");
}
