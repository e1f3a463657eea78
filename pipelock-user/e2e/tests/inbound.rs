//! A flood from outside: a peer that sends from ever new ports is told by its address and the agent's port, so it fills
//! neither the table of flows nor the evidence, and what it sent is counted to the last packet.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::net::UdpSocket;

use pipelock_e2e::{Outside, Sandbox, need};

/// More than the kernel records singly at a time.
const PACKETS: u64 = 24_000;

#[test]
fn a_flood_from_outside_is_counted_by_peer() {
    need!("python3");
    let script = r#"
import os, socket, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 0))
open("port.tmp", "w").write(str(s.getsockname()[1])); os.rename("port.tmp", "port")
while not os.path.exists("tried"): time.sleep(0.01)
"#;
    let outside = Outside::new();
    let mut running = Sandbox::new("egress: []").spawn(&["python3", "-c", script]);
    running.wait_for("port");
    let port: u16 =
        std::fs::read_to_string(running.sandbox.work().join("port")).expect("port").parse().expect("a port");
    outside.enter(|| {
        // By turns from two addresses: no packet repeats the one before it.
        for _ in 0..PACKETS / 2 {
            let four = UdpSocket::bind("0.0.0.0:0").expect("bind");
            four.send_to(b"hello", (outside.here4, port)).expect("send");
            let six = UdpSocket::bind("[::]:0").expect("bind");
            six.send_to(b"hello", (outside.here6, port)).expect("send");
        }
    });
    running.sandbox.file("tried", "");
    let run = running.wait();
    let singly = run.evidence.with_reason("inbound_denied");
    let counted: Vec<_> =
        run.evidence.receipts().iter().filter_map(|receipt| receipt["ext"].get("denials_v1")).collect();
    assert!(!counted.is_empty(), "the flood was too small to be counted: {} receipts", singly.len());
    let sum: u64 = counted
        .iter()
        .map(|denials| denials["count"].as_str().expect("a number").parse::<u64>().expect("a number"))
        .sum();
    let all = singly.len() as u64 + sum + run.evidence.kernel("repeats");
    assert!(all >= PACKETS, "{all} of {PACKETS} accounted for");
    // One for each peer and interval, whatever ports it had.
    assert!(counted.len() <= 40, "{} receipts of counted packets", counted.len());
    for denials in counted {
        let peer: std::net::SocketAddr = denials["orig_dst"].as_str().expect("a peer").parse().expect("an address");
        let here = if peer.is_ipv6() { outside.here6.to_string() } else { outside.here4.to_string() };
        let there = if peer.is_ipv6() { outside.there6.to_string() } else { outside.there4.to_string() };
        assert_eq!(peer.ip().to_string(), there, "{denials}");
        assert_ne!(peer.port(), port, "{denials}");
        let src: std::net::SocketAddr = denials["src"].as_str().expect("the agent's end").parse().expect("an address");
        assert_eq!((src.ip().to_string(), src.port()), (here, port), "{denials}");
    }
}
