//! Ports that the agent and the host share, and addresses that mean another one to the kernel than to whoever decides: what
//! is decided as leading to a socket of the agent's own must not come to one of the host's.
//!
//! What is tried is in `agents/shared.py`. Rows 55 and 56 of the escape catalogue (services of the host), UDP rows 6 and 7.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use pipelock_e2e::{Flow, Outside, Run, Sandbox, need};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

const AGENT: &str = include_str!("../agents/shared.py");
const EPERM: i64 = 1;

/// A UDP socket of the host that lets others have its port, as mDNS and DHCP services do.
fn shared(addr: &str) -> UdpSocket {
    let addr: SocketAddr = addr.parse().expect("an address");
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    if addr.is_ipv6() {
        socket.set_only_v6(true).expect("IPV6_V6ONLY");
    }
    socket.bind(&addr.into()).expect("bind");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    socket.into()
}

struct Host {
    udp: [UdpSocket; 2],
    tcp: [TcpListener; 2],
}

impl Host {
    fn new() -> Self {
        let tcp = ["127.0.0.5:0", "127.0.0.1:0"].map(|addr| {
            let listener = TcpListener::bind(addr).expect("bind");
            listener.set_nonblocking(true).expect("nonblocking");
            listener
        });
        Self { udp: ["0.0.0.0:0", "[::]:0"].map(shared), tcp }
    }

    fn run(&self, names: &[&str]) -> (Run, BTreeMap<String, Value>) {
        self.run_beside(None, names)
    }

    /// With a wire to this host outside.
    fn run_beside(&self, outside: Option<&Outside>, names: &[&str]) -> (Run, BTreeMap<String, Value>) {
        let [udp, udp6] = self.udp.each_ref().map(|socket| socket.local_addr().expect("bound").port());
        let [tcp, tcp4] = self.tcp.each_ref().map(|socket| socket.local_addr().expect("bound").port());
        let mut parameters = json!({"udp": udp, "udp6": udp6, "tcp": tcp, "tcp4": tcp4});
        if let Some(outside) = outside {
            // The wire is a network of four addresses.
            let first = outside.here4.to_bits() & !3;
            parameters["network"] = json!(Ipv4Addr::from_bits(first));
            parameters["broadcast"] = json!(Ipv4Addr::from_bits(first | 3));
            parameters["there"] = json!(outside.there4);
        }
        let parameters = parameters.to_string();
        let sandbox = Sandbox::new("egress: []");
        let script = sandbox.file("shared.py", AGENT).display().to_string();
        let run = sandbox.run_ok(&[&["python3", &script, &parameters], names].concat());
        let lines = run.json_lines().into_iter().map(|line| (line["name"].as_str().expect("a name").to_owned(), line));
        let lines: BTreeMap<_, _> = lines.collect();
        assert_eq!(lines.len(), names.len(), "{run}");
        (run, lines)
    }

    #[track_caller]
    fn assert_untouched(&self) {
        for socket in &self.udp {
            assert!(socket.recv(&mut [0; 64]).is_err(), "a datagram came to the host's UDP service");
        }
        for listener in &self.tcp {
            assert!(listener.accept().is_err(), "a connection came to {listener:?}");
        }
    }
}

fn denied(run: &Run, line: &Value) -> Vec<Flow> {
    let mut flows = run.evidence.flows();
    flows.retain(|flow| Some(u64::from(flow.tgid)) == line["pid"].as_u64() && flow.verdict == "block");
    flows
}

#[test]
fn what_is_the_hosts_alone() {
    need!("python3");
    let host = Host::new();
    let ways = [
        ("any_sendto", "cgroup/sendmsg4", "loopback_denied"),
        ("any_sendto6", "cgroup/sendmsg6", "loopback_denied"),
        ("any_connected", "cgroup_skb/egress", "udp_denied"),
        ("any_connected6", "cgroup_skb/egress", "udp_denied"),
    ];
    let (run, lines) = host.run(&ways.map(|(name, _, _)| name));
    for (name, hook, reason) in ways {
        assert_eq!(lines[name]["errno"], EPERM, "{name}: {run}");
        let flows = denied(&run, &lines[name]);
        let [flow] = flows.as_slice() else { panic!("{name}: {flows:?}") };
        assert_eq!((flow.hook.as_str(), flow.reason.as_str()), (hook, reason), "{name}: {flow:?}");
    }
    host.assert_untouched();
}

#[test]
fn what_is_decided_as_the_agents_own_goes_there_or_nowhere() {
    need!("python3");
    let host = Host::new();
    // What was decided is what the kernel does: it comes to the socket that was meant.
    let reached =
        ["own_is_reached", "any_from_other_source", "any_connected_from_other_source", "tcp_any_from_other_source"];
    // The kernel finds no way from an IPv4 source to an IPv6 address.
    let impossible = ["any6_from_mapped_source", "tcp_any6_from_mapped_source"];
    // Let go by the hook for sends; another socket would get it: the backstop looks again.
    let dropped = ["source_of_its_own", "own_closed_since"];
    let (run, lines) = host.run(&[&reached[..], &impossible, &dropped, &["broadcast"]].concat());
    host.assert_untouched();
    for name in reached {
        assert_eq!((&lines[name]["errno"], &lines[name]["got"]), (&json!(0), &json!("SECRET")), "{name}: {run}");
    }
    for name in impossible {
        assert_ne!(lines[name]["errno"], 0, "{name}: {run}");
    }
    for name in dropped {
        assert_eq!(lines[name]["errno"], EPERM, "{name}: {run}");
        let flows = denied(&run, &lines[name]);
        let [flow] = flows.as_slice() else { panic!("{name}: {flows:?}\n{run}") };
        assert_eq!((flow.hook.as_str(), flow.reason.as_str()), ("cgroup_skb/egress", "loopback_denied"), "{flow:?}");
    }
    assert_eq!(lines["broadcast"]["errno"], EPERM, "{run}");
    let flows = denied(&run, &lines["broadcast"]);
    assert!(flows.iter().any(|flow| flow.reason == "address_denied"), "{flows:?}");
}

#[test]
fn broadcasts_of_an_interface_reach_no_socket() {
    need!("python3");
    let (host, outside) = (Host::new(), Outside::new());
    let refused = [
        ("directed_connected", "cgroup/connect4"),
        ("directed_connected_with_a_socket_there", "cgroup/connect4"),
        ("directed_mapped", "cgroup/connect6"),
        ("network_connected", "cgroup/connect4"),
        ("directed_sendto", "cgroup/sendmsg4"),
        ("directed_tcp", "cgroup/connect4"),
    ];
    let names: Vec<_> = refused.iter().map(|(name, _)| *name).chain(["directed_by_source_route"]).collect();
    let count = outside.count();
    let (run, lines) = host.run_beside(Some(&outside), &names);
    host.assert_untouched();
    count.assert_none();
    for (name, hook) in refused {
        assert_eq!(lines[name]["errno"], EPERM, "{name}: {run}");
        let flows = denied(&run, &lines[name]);
        let [flow] = flows.as_slice() else { panic!("{name}: {flows:?}\n{run}") };
        assert_eq!((flow.hook.as_str(), flow.reason.as_str()), (hook, "address_denied"), "{name}: {flow:?}");
    }
    // The host takes no source routes (`accept_source_route`); the datagram itself is dropped as any to elsewhere.
    assert_eq!(lines["directed_by_source_route"]["errno"], EPERM, "{run}");
}

#[test]
fn a_server_of_the_agents_with_many_clients_works() {
    need!("python3");
    let (run, lines) = Host::new().run(&["server_with_many_clients"]);
    assert_eq!(lines["server_with_many_clients"]["got"], 18, "{run}");
    assert!(run.evidence.flows().iter().all(|flow| flow.verdict == "allow"), "{run}");
}

fn ip(args: &str) {
    let status = std::process::Command::new("ip").args(args.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {args}");
}

/// The broadcast of a network that the host joins while the agent runs is closed at once, not when addresses are next read.
#[test]
fn the_broadcast_of_a_new_network_is_refused_at_once() {
    need!("python3");
    let outside = Outside::new();
    let third = std::process::id() % 256;
    let script = r#"
import os, socket, sys, time
s, before = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for it in s, before: it.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
before.connect((sys.argv[1], int(sys.argv[2])))
open("ready", "w").close()
while not os.path.exists("joined"): time.sleep(0.005)
try: print(before.send(b"x"))
except OSError as e: print(e.errno)
time.sleep(0.2)
try: print(s.sendto(b"x", (sys.argv[1], 999)))
except OSError as e: print(e.errno)
"#;
    // A service of the host, on all its addresses: the kernel hands it a copy of what is broadcast.
    let service = UdpSocket::bind("0.0.0.0:0").expect("bind");
    service.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
    let port = service.local_addr().expect("bound").port().to_string();
    ip(&format!("route add 10.112.{third}.0/24 via {}", outside.there4));
    // Some time after the addresses were read at the start, and long before they are read the next time.
    let broadcast = format!("10.112.{third}.255");
    let mut running = Sandbox::new("egress: []").spawn(&["python3", "-c", script, &broadcast, &port]);
    running.wait_for("ready");
    std::thread::sleep(Duration::from_secs(1));
    ip(&format!("route del 10.112.{third}.0/24 via {}", outside.there4));
    ip(&format!("addr add 10.112.{third}.1/24 dev {}", outside.veth()));
    running.sandbox.file("joined", "");
    let run = running.wait();
    // One that was connected before is not asked about again, but the kernel takes no broadcast of a socket that was never
    // allowed any; EACCES.
    assert_eq!(run.text(), "13\n1\n", "{run}");
    assert!(service.recv(&mut [0; 8]).is_err(), "a broadcast came to a service of the host: {run}");
    let refused: Vec<_> = run.evidence.flows().into_iter().filter(|flow| flow.orig_dst.port() == 999).collect();
    assert_eq!(refused.len(), 1, "{run}");
    assert_eq!((refused[0].verdict.as_str(), refused[0].reason.as_str()), ("block", "address_denied"), "{run}");
}

/// Two sockets on one port that ask the same resolver: whose a datagram is, nobody could tell there.
#[test]
fn a_question_is_never_taken_for_that_of_another_socket() {
    need!("python3");
    let script = r#"
import json, os, socket
def asker(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", port))
    s.connect(("192.0.2.53", 53))
    return s
question = bytes.fromhex("123401000001000000000000") + b"\x01a\x04test\x00\x00\x01\x00\x01"
def ask(s):
    try: return s.send(question) and 0
    except OSError as e: return e.errno
first = asker(0)
second = asker(first.getsockname()[1])
told = {"pid": os.getpid(), "first": ask(first), "second": ask(second), "again": ask(first)}
first.close()
told["alone"] = ask(second)
print(json.dumps(told))
"#;
    let run = Sandbox::new("egress: []").run_ok(&["python3", "-c", script]);
    let lines = run.json_lines();
    let told = lines.first().expect("a line");
    assert_eq!((&told["first"], &told["again"], &told["alone"]), (&json!(0), &json!(0), &json!(0)), "{run}");
    assert_eq!(told["second"], EPERM, "{run}");
    let flows = denied(&run, told);
    let dropped = |flow: &&Flow| flow.hook == "cgroup_skb/egress" && flow.reason == "udp_denied";
    assert_eq!(flows.iter().filter(dropped).count(), 1, "{flows:?}");
}
