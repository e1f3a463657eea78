//! The bytes of a connection, as its receipt has them: what the agent sent and got, to the byte, also when it is still open
//! at the end.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::disallowed_methods, reason = "tests")]

mod attached;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;

use attached::{Cage, Guard};
use pipelock_e2e::{Evidence, Sandbox, need};

const SENT: usize = 1000;
const ANSWERED: usize = 500;

fn policy(port: u16) -> String {
    format!(
        "egress: [{{destination: tcp.test, ports: [{port}], scan: false, protocol: tcp}}]\n\
         dns: {{hosts: {{tcp.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}"
    )
}

#[test]
fn volumes_are_exact_whoever_closes_first() {
    need!("python3");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("read");
        stream.write_all(&[7; ANSWERED]).expect("write");
        drop(stream);
        let (mut stream, _) = listener.accept().expect("accept");
        stream.write_all(&[7; ANSWERED]).expect("write");
        // The third is taken and closed without a word.
        drop(stream);
        drop(listener.accept().expect("accept"));
    });
    let script = format!(
        r#"
import socket
def connect(): return socket.create_connection(("tcp.test", {port}), timeout=20)
def rest(s):
    while s.recv(4096): pass
s = connect(); s.sendall(b"x" * {SENT}); s.shutdown(socket.SHUT_WR); rest(s); s.close()
s = connect(); rest(s); s.close()
s = connect(); rest(s); s.close()
"#
    );
    let run = Sandbox::new(&policy(port)).run(&["python3", "-c", &script]);
    let flows = run.evidence.with_reason("policy_allow");
    let volumes: Vec<_> =
        flows.iter().filter(|flow| flow.orig_dst.port() == port).map(|flow| (flow.tx_bytes, flow.rx_bytes)).collect();
    let [first, second, third] = volumes[..] else { panic!("{run}") };
    assert_eq!(first.0, SENT as u64, "{run}");
    assert!(first.1 == ANSWERED as u64 || first.1 == ANSWERED as u64 + 1, "{first:?}: the last may be its FIN");
    assert_eq!((second, third), ((0, ANSWERED as u64), (0, 0)), "{run}");
}

#[test]
fn what_was_sent_on_a_connection_that_stays_open_is_counted() {
    need!("python3");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let (arrived, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut all = [0; SENT];
        stream.read_exact(&mut all).expect("read");
        stream.write_all(&[7; ANSWERED]).expect("write");
        arrived.send(()).expect("awaited");
        let _ = stream.read(&mut all);
    });
    let script = format!(
        r#"
import socket, time
s = socket.create_connection(("tcp.test", {port}), timeout=20); s.sendall(b"x" * {SENT})
got = 0
while got < {ANSWERED}: got += len(s.recv(4096))
time.sleep(60)
"#
    );
    let cage = Cage::new(&policy(port));
    let evidence = cage.files.evidence();
    cage.attached(&evidence);
    let _agent = Guard(cage.inside(&["python3", "-c", &script]).spawn().expect("python3"));
    told.recv_timeout(std::time::Duration::from_secs(30)).expect("arrived");
    cage.detached();
    let evidence = Evidence::read(&evidence);
    let flows = evidence.with_reason("policy_allow");
    let volumes: Vec<_> =
        flows.iter().filter(|flow| flow.orig_dst.port() == port).map(|flow| (flow.tx_bytes, flow.rx_bytes)).collect();
    assert_eq!(volumes, [(SENT as u64, ANSWERED as u64)], "{flows:#?}");
}
