//! What happens between two steps: of a reload, and of a connection that the proxy has not accepted yet. Each is made to
//! happen, not hoped for.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::collections::HashMap;
use std::net::TcpListener;

use nix::sys::signal::Signal;
use pipelock::policy::Policy;
use pipelock_e2e::{Outside, Sandbox, need};

/// Reloads, each of which opens one port more.
const RELOADS: usize = 20;

fn policy(ports: &[u16]) -> String {
    format!("egress: []\nloopback: {{allow: {ports:?}}}")
}

/// A port that a new policy opens is used the moment it opens; that flow must not be signed under the old policy. The agent
/// asks for it in a loop, so its first success falls between the steps of the reload. Ports of the host, since what these
/// are signed under is the kernel's to say alone.
#[test]
fn no_flow_is_older_than_the_ports_it_was_decided_by() {
    need!("python3");
    let script = r#"
import errno, os, socket, sys
open("ready", "w").close()
for port in sys.argv[1:]:
    s = socket.socket()
    # One socket: what is refused again on it is counted, and the loop is as fast as the hook.
    while s.connect_ex(("127.0.0.1", int(port))) == errno.ECONNREFUSED: pass
    s.close()
    open("through" + port, "w").close()
"#;
    let listeners: Vec<_> = (0..RELOADS).map(|_| TcpListener::bind("127.0.0.1:0").expect("bind")).collect();
    let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().expect("bound").port()).collect();
    let mut command = vec!["python3".to_owned(), "-c".to_owned(), script.to_owned()];
    command.extend(ports.iter().map(u16::to_string));
    let mut running = Sandbox::new(&policy(&[])).spawn(&command);
    running.wait_for("ready");
    let mut opened = HashMap::new();
    for (number, port) in ports.iter().enumerate() {
        running.sandbox.set_policy(&policy(&ports[..=number]));
        let put = Policy::load(&running.sandbox.policy()).expect("a policy");
        opened.insert(put.id().to_string(), *port);
        running.reload();
        running.wait_for(&format!("through{port}"));
    }
    let run = running.wait();
    let through = run.evidence.with_reason("loopback_allowed");
    assert_eq!(through.len(), RELOADS, "{run}");
    for flow in through {
        assert_eq!(
            opened.get(&flow.policy),
            Some(&flow.orig_dst.port()),
            "signed under the policy of a port: {flow:?}"
        );
    }
}

/// A connection whose local end is still filed for one before it, which the proxy has not accepted, would be taken for that
/// one: it is not begun.
#[test]
fn a_local_end_that_is_taken_is_not_given_to_another() {
    need!("python3");
    let script = r#"
import json, os, socket, struct, sys, time
there = sys.argv[1]
def bound(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port))
    s.settimeout(2.5)
    return s
open("ready", "w").close()
while not os.path.exists("stopped"): time.sleep(0.01)
first = bound(0)
port = first.getsockname()[1]
first.connect((there, 80))
# Gone without a trace but for its record, which the proxy that stands still has not looked up.
first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
first.close()
second = bound(port)
try:
    second.connect((there, 81))
    answer = "connected"
except OSError as e:
    answer = type(e).__name__
second.close()
print(json.dumps({"answer": answer, "port": port}), flush=True)
open("tried", "w").close()
"#;
    let outside = Outside::new();
    let sandbox = Sandbox::new("egress: [{destination: web.test, ports: [80, 81], scan: false}]");
    let mut running = sandbox.spawn(&["python3", "-c", script, &outside.there4.to_string()]);
    running.wait_for("ready");
    running.signal(Signal::SIGSTOP);
    running.sandbox.file("stopped", "");
    running.wait_for("tried");
    running.signal(Signal::SIGCONT);
    let run = running.wait();
    assert_eq!(run.json_lines()[0]["answer"], "TimeoutError", "{run}");
    let port = run.json_lines()[0]["port"].as_u64().expect("a port");
    // What was dropped has a receipt, and the first flow is nobody's but its own.
    let flows = run.evidence.flows();
    let redirected: Vec<_> = flows.iter().filter(|flow| flow.kernel_reason == "redirect").collect();
    let [first, second] = redirected.as_slice() else { panic!("{run}") };
    assert_eq!((first.orig_dst.port(), second.orig_dst.port()), (80, 81), "{run}");
    assert!(redirected.iter().all(|flow| flow.src.map(|src| u64::from(src.port())) == Some(port)), "{run}");
    assert!(redirected.iter().all(|flow| flow.verdict == "block" && flow.requests == 0), "{run}");
    let dropped = run.evidence.with_reason("packet_denied");
    assert_eq!(dropped.len(), 1, "{run}");
    assert_eq!(dropped[0].hook, "cgroup_skb/egress", "{run}");
}
