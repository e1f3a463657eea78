//! The proxy of an attachment is killed in the middle of a storm: nothing gets out, nothing is lost, another takes over.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod attached;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use ::pipelock::kernel::Attachment;
use attached::{Aims, Cage, allow, capsule, said};
use pipelock_e2e::{Evidence, HttpServer, Outside, echo, pipelock, until, verify_json};
use serde_json::Value;

/// Verifies a folder that has no key of its own yet: exit code and text.
fn verify_with(folder: &std::path::Path, key: &str) -> (i32, String) {
    let out = Command::new(pipelock()).arg("verify").arg(folder).args(["--public-key", key]).output().expect("verify");
    (out.status.code().expect("a code"), said(&out))
}

fn health(cage: &Cage) -> (String, Value, i32) {
    let (status, code) = cage.status();
    let status = status.expect("the attachment is listed");
    (status["health"].as_str().expect("text").to_owned(), status, code)
}

/// How many flow receipts of a folder give this reason.
fn with_reason(folder: &std::path::Path, reason: &str) -> usize {
    let text = fs::read_to_string(folder.join("receipts.json")).expect("receipts.json");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let is_one = |receipt: &&Value| {
        receipt["action_record"]["layer"] == "kernel_flow" && receipt["action_record"]["pattern"] == reason
    };
    all["receipts"].as_array().expect("a list").iter().filter(is_one).count()
}

#[test]
fn a_storm_over_a_killed_proxy_reaches_nobody() {
    let aims = Aims::new();
    let server = &aims.server;
    let cage = Cage::new(&allow(&["web.test"], server));
    let first = cage.files.evidence();
    cage.attached(&first);
    let packets = aims.outside.count();
    let mut storm = aims.storm(&cage);
    for what in ["get_before_ok", "direct_before_ok", "other_before_fail", "udp_before_fail"] {
        storm.wait_for(what);
    }
    let (now, status, _) = health(&cage);
    assert_eq!(now, "ok", "{status:#}");
    let key = status["public_key"].as_str().expect("a key").to_owned();

    cage.kill_server();
    storm.mark("killed");
    for what in ["get_dead_fail", "web_dead_fail", "direct_dead_fail", "other_dead_fail", "udp_dead_fail"] {
        storm.wait_for(what);
    }
    let (now, status, code) = health(&cage);
    assert_eq!((now.as_str(), code), ("closed", 1), "{status:#}");
    packets.assert_none();

    storm.mark("back");
    let second = cage.files.work().join("evidence-2");
    cage.attached(&second);
    let log = fs::read_to_string(second.join("pipelock.log")).expect("the log");
    assert!(log.contains("taken over"), "{log}");
    storm.wait_for("get_back_ok");
    let counts = storm.end();
    for what in ["get", "web", "direct", "other", "udp"] {
        assert_eq!(counts[format!("{what}_dead_ok")], Value::Null, "{what} succeeded without a proxy: {counts:#}");
        assert!(counts[format!("{what}_dead_fail")].as_u64() >= Some(20), "{counts:#}");
    }
    packets.assert_none();
    aims.assert_missed(&counts);
    assert_eq!(health(&cage).0, "ok");
    cage.detached();

    let (code, report) = verify_json(&second);
    assert_eq!(code, 0, "{report:#}");
    assert!(capsule(&second)["taken_over"].is_array(), "the capsule says that it was taken over");
    assert!(with_reason(&second, "proxy_down") > 0, "denied meanwhile, recorded by the next: {counts:#}");
    let (code, text) = verify_with(&first, &key);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("truncated"), "{text}");
}

#[test]
fn detaching_from_a_dead_proxy_leaves_evidence() {
    let outside = Outside::new();
    let server = HttpServer::start("127.0.0.1:0");
    let there = outside.there4;
    let listener = outside.enter(|| TcpListener::bind((there, 9998)).expect("bind"));
    let target = HttpServer::with(listener, echo);
    let cage = Cage::new(&allow(&["web.test"], &server));
    let mut shell = cage.shell();
    cage.attached(&cage.files.evidence());
    let (web, direct) = (format!("http://web.test:{}/", server.port()), format!("http://{}/", target.addr));
    assert!(shell.gets(&web));
    cage.kill_server();
    let by_address = format!("http://{there}:{}/", server.port());
    assert!(!shell.gets(&web) && !shell.gets(&direct) && !shell.gets(&by_address));
    assert_eq!(target.connections(), 0);
    let evidence = cage.files.work().join("evidence-detach");
    let out = cage.pipelock("detach").arg("--evidence").arg(&evidence).output().expect("pipelock detach");
    assert!(out.status.success(), "{}", said(&out));
    assert!(said(&out).contains("the proxy was dead"), "{}", said(&out));
    let (code, report) = verify_json(&evidence);
    assert_eq!(code, 0, "{report:#}");
    assert!(with_reason(&evidence, "proxy_down") > 0, "{report:#}");
    assert!(with_reason(&evidence, "port_denied") > 0, "{report:#}");
    // It is off: the way out is open again, and nothing is left to be detached.
    assert!(shell.gets(&direct), "detached");
    assert!(cage.status().0.is_none());
    let out = cage.pipelock("detach").output().expect("pipelock detach");
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    // And the cgroup can be attached to anew, with numbers that start anew.
    let again = cage.files.work().join("evidence-again");
    cage.attached(&again);
    assert!(shell.gets(&web) && !shell.gets(&direct));
    cage.detached();
    assert_eq!(Evidence::read(&again).with_reason("policy_allow").len(), 1);
}

/// A UDP socket that is connected to a name server: the first question goes to the resolver, later ones wherever that was.
const ASKER: &str = r#"
import os, socket, struct, sys, time
work = sys.argv[1]
there = lambda name: os.path.exists(os.path.join(work, name))
tell = lambda name, text: open(os.path.join(work, name), "w").write(text)
question = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + b"\x03web\x04test\0\0\1\0\1"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect(("192.0.2.53", 53))
s.send(question)
s.recv(512)
tell("asked", str(s.getsockname()[1]))
while not there("dead"): time.sleep(0.01)
said = []
for _ in range(5):
    try:
        s.send(b"SECRET")
        said.append("sent")
    except OSError as error:
        said.append(str(error))
    time.sleep(0.02)
tell("done.part", repr(said))
os.rename(os.path.join(work, "done.part"), os.path.join(work, "done"))
"#;

/// The ports of UDP sockets on 127.0.0.1 that a process holds.
fn udp_ports(pid: i32) -> Vec<u16> {
    let folder = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process");
    let links = folder.filter_map(Result::ok).filter_map(|entry| fs::read_link(entry.path()).ok());
    let inodes: Vec<_> =
        links.filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/udp")).expect("the table");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| inodes.iter().any(|inode| inode == row[9]))
        .filter_map(|row| u16::from_str_radix(row[1].strip_prefix("0100007F:")?, 16).ok())
        .collect()
}

#[test]
fn who_takes_the_port_of_a_killed_resolver_gets_nothing() {
    let server = HttpServer::start("127.0.0.1:0");
    let cage = Cage::new(&allow(&["web.test"], &server));
    cage.attached(&cage.files.evidence());
    let work = cage.files.work();
    let mut asker =
        attached::Guard(cage.inside(&["python3", "-c", ASKER, work.to_str().expect("text")]).spawn().expect("python3"));
    until("the first answer", || work.join("asked").exists());
    let ports = udp_ports(cage.server());
    assert!(!ports.is_empty());
    cage.kill_server();
    let takers: Vec<_> =
        ports.iter().map(|port| UdpSocket::bind(("127.0.0.1", *port)).expect("the port is free")).collect();
    fs::write(work.join("dead"), "").expect("write");
    until("the end of the asking", || work.join("done").exists());
    assert!(asker.0.wait().expect("wait").success());
    let said = fs::read_to_string(work.join("done")).expect("what it said");
    for taker in &takers {
        taker.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let mut got = [0; 64];
        assert!(taker.recv(&mut got).is_err(), "{} reached another process: {said}", String::from_utf8_lossy(&got));
    }
    assert!(!said.contains("sent"), "{said}");
    let evidence = work.join("evidence-detach");
    let out = cage.pipelock("detach").arg("--evidence").arg(&evidence).output().expect("pipelock detach");
    assert!(out.status.success(), "{}", self::said(&out));
    assert!(with_reason(&evidence, "proxy_down") > 0, "the denial is recorded");
}

/// Asks with a connected socket and with one that names the server each time, before and after the flows are gone.
const ASKER_AGAIN: &str = r#"
import os, socket, struct, sys, time
work = sys.argv[1]
question = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + b"\x03web\x04test\0\0\1\0\1"
server = ("192.0.2.53", 53)
connected, free = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
connected.connect(server)
def ask(s, send):
    s.settimeout(3)
    try:
        send()
        s.recv(512)
        return "answered"
    except OSError as error:
        return type(error).__name__
def both():
    return ask(connected, lambda: connected.send(question)) + " " + ask(free, lambda: free.sendto(question, server))
def tell(name):
    open(os.path.join(work, "part"), "w").write(both())
    os.rename(os.path.join(work, "part"), os.path.join(work, name))
tell("before")
while not os.path.exists(os.path.join(work, "gone")): time.sleep(0.01)
tell("after")
"#;

/// As when a proxy that ended left the cgroup closed in, and another serves it: the receipts of the flows are written.
#[test]
fn a_datagram_whose_flow_is_gone_goes_nowhere_and_a_new_question_has_a_new_flow() {
    let server = HttpServer::start("127.0.0.1:0");
    let cage = Cage::new(&allow(&["web.test"], &server));
    cage.attached(&cage.files.evidence());
    let work = cage.files.work();
    let script = cage.inside(&["python3", "-c", ASKER_AGAIN, work.to_str().expect("text")]).spawn();
    let mut asker = attached::Guard(script.expect("python3"));
    let told = |name: &str| {
        until(name, || work.join(name).exists());
        fs::read_to_string(work.join(name)).expect("what it said")
    };
    assert_eq!(told("before"), "answered answered");
    let (_, status, _) = health(&cage);
    let maps = Attachment::open_maps(status["id"].as_str().expect("text")).expect("the maps");
    for flow in maps.ids() {
        maps.settle(flow);
    }
    fs::write(work.join("gone"), "").expect("write");
    assert_eq!(told("after"), "PermissionError answered");
    assert!(asker.0.wait().expect("wait").success());
}

#[test]
fn an_address_that_a_killed_proxy_gave_out_leads_nowhere() {
    let server = HttpServer::start("127.0.0.1:0");
    let cage = Cage::new(&allow(&["web.test"], &server));
    let mut shell = cage.shell();
    cage.attached(&cage.files.evidence());
    let (code, text) = shell.run("getent ahostsv4 web.test");
    assert_eq!(code, 0, "{text}");
    let address = text.split_whitespace().next().expect("an address").to_owned();
    assert!(address.starts_with("198."), "{address}");
    let (url, port) = (format!("http://web.test:{}/", server.port()), server.port());
    let cached = format!("curl -sSf -o /dev/null -m 20 --resolve web.test:{port}:{address} {url}");
    assert_eq!(shell.run(&cached).0, 0);
    cage.kill_server();
    let second = cage.files.work().join("evidence-2");
    cage.attached(&second);
    // Whoever asked for it may have meant another name than the one that has it next.
    let (code, text) = shell.run(&cached);
    assert!(code != 0, "{text}");
    assert!(shell.gets(&url), "asked anew it is another address");
    cage.detached();
    assert_eq!(Evidence::read(&second).with_reason("name_missing").len(), 1);
}

#[test]
fn what_another_version_left_is_not_taken_over() {
    let server = HttpServer::start("127.0.0.1:0");
    let cage = Cage::new(&allow(&["web.test"], &server));
    let mut shell = cage.shell();
    cage.attached(&cage.files.evidence());
    let (_, status, _) = health(&cage);
    cage.kill_server();
    let id = status["id"].as_str().expect("text");
    let maps = Attachment::open_maps(id).expect("of this version");
    let mut config = maps.config().expect("settings");
    config.layout += 1;
    maps.set_config(config).expect("settings");
    let programs = status["hooks"].clone();
    let out = cage.attach(&cage.files.work().join("evidence-2")).output().expect("pipelock attach");
    let text = said(&out);
    assert!(
        !out.status.success() && text.contains("another version") && text.contains("pipelock detach --id"),
        "{text}"
    );
    let (now, status, _) = health(&cage);
    assert_eq!((now.as_str(), &status["hooks"]), ("closed", &programs), "nothing was touched");
    let url = format!("http://web.test:{}/", server.port());
    assert!(!shell.gets(&url));
    let said = cage.detached();
    assert!(said.contains("has no receipts"), "{said}");
    cage.attached(&cage.files.work().join("evidence-3"));
    assert!(shell.gets(&url));
    cage.detached();
}
