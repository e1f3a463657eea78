//! What `pipelock run` passes to its command, and what it keeps from it: signals, environment, descriptors, rights.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use nix::sys::signal::Signal;
use pipelock_e2e::{Evidence, HttpServer, Sandbox, need, on_terminal};

/// Nothing is allowed.
const NOTHING: &str = "egress: []";

#[test]
fn control_c_ends_what_does_not_mind_it() {
    need!("python3");
    let sandbox = Sandbox::new(NOTHING).option("--quiet").plain();
    on_terminal(
        &sandbox.command(&["/bin/sh", "-c", "echo ready; exec sleep 60"]),
        r#"
m = launch()
expect(m, b"ready"); os.write(m, b"\x03"); expect(m, b"SHELL exit 130")
"#,
    );
    assert_eq!(Evidence::read(&sandbox.evidence()).flows().len(), 0);
}

#[test]
fn sigterm_is_passed_on() {
    // The command decides what it means.
    let mut running = Sandbox::new(NOTHING).spawn(&[
        "sh",
        "-c",
        "trap 'echo told; exit 9' TERM; touch ready; while :; do sleep 0.05; done",
    ]);
    running.wait_for("ready");
    running.signal(Signal::SIGTERM);
    let run = running.wait();
    assert_eq!((run.code(), run.text().as_str()), (9, "told\n"), "{run}");
    // One that does not care dies of it.
    let mut running = Sandbox::new(NOTHING).spawn(&["sh", "-c", "touch ready; exec sleep 60"]);
    running.wait_for("ready");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), 128 + 15);
}

#[test]
fn every_mistake_of_a_policy_is_said_at_once_with_its_place() {
    let sandbox = Sandbox::new(NOTHING);
    let text = "version: \"1.0\"\negress:\n  - destination: web.test\n    portz: [80]\n  - destination: \"http://web.test/\"\n";
    fs::write(sandbox.policy(), text).expect("write");
    let out = sandbox.command(&["touch", "started"]).output().expect("pipelock");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains(":4:5"), "the misspelt key: {said}");
    assert!(said.contains(":5:"), "the destination that is a URL: {said}");
    fs::remove_file(sandbox.policy()).expect("remove");
    let out = sandbox.command(&["touch", "started"]).output().expect("pipelock");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("policy.yaml"), "{said}");
    assert!(!sandbox.work().join("started").exists());
    assert!(!sandbox.evidence().exists(), "nothing was begun");
}

#[test]
fn environment_and_folder_are_kept() {
    let sandbox = Sandbox::new(NOTHING).env("E2E_MARK", "a b=c").plain();
    let work = sandbox.work().display().to_string();
    let run = sandbox.run_ok(&["/bin/sh", "-c", "pwd; echo \"$E2E_MARK\"; env | grep -ic proxy; true"]);
    assert_eq!(run.text(), format!("{work}\na b=c\n0\n"), "{run}");
}

#[test]
fn root_is_root_without_capabilities() {
    let run = Sandbox::new(NOTHING).user("root").run_ok(&[
        "sh",
        "-c",
        "id -u; grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs):' /proc/self/status",
    ]);
    let text = run.text();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("0"), "{run}");
    let values: Vec<_> = lines.map(|line| line.split_whitespace().last().unwrap_or_default()).collect();
    let none = "0000000000000000";
    assert_eq!(values, [none, none, none, none, none, "1"], "{run}");
    // What root may do by its capabilities alone, it may not.
    let cgroup2 = "$(grep ' - cgroup2 ' /proc/self/mountinfo | head -n 1 | cut -d' ' -f5)";
    let leave = format!("echo $$ > {cgroup2}/cgroup.procs");
    let make = format!("mkdir {cgroup2}/pl-e2e-made");
    for act in ["chown 1 own", "mount -t tmpfs none .", "ip link set lo down", "hostname other", &leave, &make] {
        let run = Sandbox::new(NOTHING).user("root").run(&["sh", "-c", &format!("touch own 2>/dev/null; {act}")]);
        assert_ne!(run.code(), 0, "{act}: {run}");
    }
}

#[test]
fn inherited_descriptors_are_closed() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    #[allow(clippy::disallowed_methods, reason = "the very socket that the agent must not have")]
    let socket = std::net::TcpStream::connect(server.addr).expect("connect");
    let sandbox = Sandbox::new(NOTHING);
    let secret = sandbox.work().join("secret");
    fs::write(&secret, "secret").expect("write");
    let file: OwnedFd = fs::File::open(&secret).expect("open").into();
    let mut command = sandbox.command(&[
        "python3",
        "-c",
        "import os\nfor fd in (5, 6):\n  try: os.fstat(fd); print('open', fd)\n  except OSError: print('closed', fd)",
    ]);
    let (five, six) = (file.as_raw_fd(), socket.as_raw_fd());
    // SAFETY: fcntl and dup2 are async-signal-safe; the numbers are moved away first, so that neither overwrites the other.
    unsafe {
        command.pre_exec(move || {
            let (a, b) = (libc::fcntl(five, libc::F_DUPFD, 100), libc::fcntl(six, libc::F_DUPFD, 100));
            let done = a >= 0 && b >= 0 && libc::dup2(a, 5) == 5 && libc::dup2(b, 6) == 6;
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    let out = command.stdin(Stdio::null()).output().expect("pipelock");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "closed 5\nclosed 6\n", "{said}");
    assert!(out.status.success(), "{said}");
    let _ = Evidence::read(&sandbox.evidence());
    drop((file, socket));
    assert!(server.seen().is_empty());
}

#[test]
fn a_network_socket_as_input_starts_nothing() {
    let server = HttpServer::start("127.0.0.1:0");
    #[allow(clippy::disallowed_methods, reason = "the very socket that the agent must not have")]
    let socket = std::net::TcpStream::connect(server.addr).expect("connect");
    let sandbox = Sandbox::new(NOTHING);
    let out = sandbox.command(&["touch", "started"]).stdin(Stdio::from(OwnedFd::from(socket))).output();
    let out = out.expect("pipelock");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(125), "{said}");
    assert!(said.contains("network socket"), "{said}");
    assert!(!sandbox.work().join("started").exists());
}

/// Tries what would let the agent write its own evidence, or have none.
const MEDDLE: &str = r#"
import os, signal, sys
evidence, pid = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else os.getppid()
def attempt(name, act):
    try: act(); print(name, "DONE")
    except OSError as e: print(name, e.errno)
def write(path):
    open(path, "ab").write(b"x")
attempt("list", lambda: os.listdir(evidence))
attempt("read", lambda: open(evidence + "/evidence.jsonl").read())
attempt("append", lambda: write(evidence + "/evidence.jsonl"))
attempt("add", lambda: write(evidence + "/other"))
attempt("rename", lambda: os.rename(evidence, evidence + "2"))
attempt("stop", lambda: os.kill(pid, signal.SIGSTOP))
attempt("term", lambda: os.kill(pid, signal.SIGTERM))
attempt("kill", lambda: os.kill(pid, signal.SIGKILL))
attempt("mem", lambda: open("/proc/%d/mem" % pid, "rb"))
attempt("environ", lambda: open("/proc/%d/environ" % pid, "rb").read())
attempt("descriptors", lambda: os.listdir("/proc/%d/fd" % pid))
attempt("pins", lambda: os.listdir("/sys/fs/bpf/pipelock"))
"#;

#[test]
fn the_agent_reaches_neither_its_evidence_nor_its_keeper() {
    need!("python3");
    let sandbox = Sandbox::new(NOTHING);
    let evidence = sandbox.evidence().display().to_string();
    let script = sandbox.file("meddle.py", MEDDLE).display().to_string();
    let mut child = sandbox
        .command(&["sh", "-c", "echo here; read pid; exec python3 \"$0\" \"$1\" \"$pid\"", &script, &evidence])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("pipelock");
    let pid = format!("{}\n", child.id());
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), pid.as_bytes()).expect("write");
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("read");
    let status = child.wait().expect("wait");
    assert!(status.success(), "{status}: {text}");
    assert_eq!(text.lines().count(), 13, "{text}");
    assert!(!text.contains("DONE"), "{text}");
    let _ = Evidence::read(&sandbox.evidence());
}
