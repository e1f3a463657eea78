//! `pipelock attach` to a cgroup that exists, with processes that were there before.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod attached;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use attached::{Aims, Cage, LOOP, Shell, allow, capsule, said};
use pipelock_e2e::{Evidence, HttpServer, Outside, TlsServer, echo, need, pipelock, until};

#[test]
fn processes_that_were_there_are_enforced() {
    let outside = Outside::new();
    let server = HttpServer::start("127.0.0.1:0");
    let there = outside.there4;
    let target = HttpServer::with(outside.enter(|| TcpListener::bind((there, 9997)).expect("bind")), echo);
    let cage = Cage::new(&allow(&["web.test"], &server));
    let mut shell = cage.shell();
    let direct = format!("http://{}/", target.addr);
    assert!(shell.gets(&direct), "open before");
    let before = target.connections();

    let evidence = cage.files.evidence();
    cage.attached(&evidence);
    let packets = outside.count();
    let web = format!("http://web.test:{}/", server.port());
    assert!(shell.gets(&web));
    assert!(!shell.gets(&direct));
    assert!(!shell.gets(&format!("http://new.test:{}/", server.port())), "not named by a rule");
    assert!(!shell.gets(&format!("http://{there}:{}/", server.port())), "an allowed port, and no allowed host");
    packets.assert_none();
    assert_eq!(target.connections(), before);

    let (status, _) = cage.status();
    let status = status.expect("listed");
    assert_eq!((&status["health"], &status["level"]), (&"ok".into(), &"full".into()), "{status:#}");
    assert_eq!(status["pid"], cage.server(), "{status:#}");
    let counters = &status["counters"];
    assert!(counters["flows"].as_u64() >= Some(4), "{status:#}");
    assert!(counters["by_reason"]["redirect"].as_u64() >= Some(1), "{status:#}");
    assert!(counters["by_reason"]["port_denied"].as_u64() >= Some(1), "{status:#}");
    assert_eq!(counters["unrecorded"], 0, "{status:#}");

    // Once only.
    let out = cage.attach(&cage.files.work().join("evidence-2")).output().expect("pipelock attach");
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("is attached already"), "{}", said(&out));
    assert!(shell.gets(&web) && !shell.gets(&direct), "the refusal has not changed anything");

    cage.detached();
    let evidence = Evidence::read(&evidence);
    let allowed = evidence.with_reason("policy_allow");
    assert_eq!(allowed.len(), 2, "{allowed:#?}");
    assert!(allowed.iter().all(|flow| flow.comm == "curl" && flow.uid == 0), "{allowed:#?}");
    assert!(!evidence.with_reason("port_denied").is_empty());
    assert!(!evidence.with_reason("host_denied").is_empty());
    assert!(cage.status().0.is_none());
    assert!(shell.gets(&direct), "open again");
}

/// The programs of both would run for every socket, and what one redirects is foreign to the other.
#[test]
fn a_cgroup_inside_or_around_one_that_is_attached_is_refused() {
    let cage = Cage::new("egress: []");
    let inner = cage.cgroup.join("inner");
    fs::create_dir(&inner).expect("mkdir");
    let evidence = cage.files.evidence();
    let attach = |cgroup: &Path, evidence: &Path| {
        let mut command = Command::new(pipelock());
        command.args(["attach", "--detach", "--cgroup"]).arg(cgroup).arg("--evidence").arg(evidence);
        command.output().expect("pipelock attach")
    };
    cage.attached(&evidence);
    let none = cage.files.work().join("none");
    let out = attach(&inner, &none);
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("is inside") && said(&out).contains("attached already"), "{}", said(&out));
    assert!(!none.exists(), "a refused attach leaves no evidence");
    // Nor does a run make its cgroup inside.
    let mut run = cage.inside(&[]);
    run.arg(pipelock()).args(["run", "--evidence"]).arg(&none).args(["--", "true"]);
    let out = run.output().expect("pipelock run");
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("is inside") && !none.exists(), "{}", said(&out));
    cage.detached();

    let held = cage.files.work().join("held");
    assert!(attach(&inner, &held).status.success());
    let out = attach(&cage.cgroup, &none);
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("a cgroup inside") && !none.exists(), "{}", said(&out));
    let out = Command::new(pipelock()).args(["detach", "--cgroup"]).arg(&inner).output().expect("pipelock detach");
    assert!(out.status.success(), "{}", said(&out));
    fs::remove_dir(&inner).expect("empty");
}

/// Packet sockets are seen by no hook of a cgroup, so who can make them is named.
#[test]
fn processes_that_can_go_round_are_named() {
    let cage = Cage::new("egress: []");
    let _shell = cage.shell();
    let evidence = cage.files.evidence();
    let told = cage.attached(&evidence);
    cage.detached();
    let able = capsule(&evidence)["confinement"]["able_to_go_round"].clone();
    let is_named = able
        .as_array()
        .is_some_and(|able| able.iter().any(|one| one.as_str().is_some_and(|one| one.contains("CAP_NET_RAW"))));
    // Root here may be without it.
    let may = fs::read_to_string("/proc/self/status").expect("status");
    let held = may.lines().find_map(|line| line.strip_prefix("CapPrm:")).expect("capabilities");
    let held = u64::from_str_radix(held.trim(), 16).expect("a mask");
    assert_eq!(is_named, held >> 13 & 1 == 1, "{able} {told}");
}

/// What listened before the programs came is the agent's own all the same: for the host, for outside, and for the agent.
#[test]
fn listeners_that_were_there_go_on() {
    need!("python3");
    let script = r#"
import socket, sys, threading
def serve(family, addr, name):
    s = socket.socket(family); s.bind((addr, 0)); s.listen()
    open(name, "w").write(str(s.getsockname()[1]))
    while True:
        c, _ = s.accept(); c.recv(1000); c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"); c.close()
threads = [threading.Thread(target=serve, args=a) for a in ((2, "0.0.0.0", "any4"), (10, "::", "any6"), (2, "127.0.0.1", "lo4"))]
[t.start() for t in threads]
"#;
    let outside = Outside::new();
    let cage = Cage::new("egress: []\nlisten: any");
    let mut server = cage.inside(&["python3", "-c", script]).spawn().expect("python3");
    let port = |name: &str| {
        let mut port = 0;
        until(name, || {
            port =
                fs::read_to_string(cage.files.work().join(name)).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
            port != 0
        });
        port
    };
    let ports = [port("any4"), port("any6"), port("lo4")];
    let mut shell = cage.shell();
    let evidence = cage.files.evidence();
    let said = cage.attached(&evidence);
    assert!(!said.contains("not known as the agent's own"), "{said}");
    let get = |addr: IpAddr, port: u16| {
        let mut stream = TcpStream::connect_timeout(&(addr, port).into(), Duration::from_secs(5)).expect("get in");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("ask");
        let (mut text, own) = (String::new(), stream.local_addr().expect("bound"));
        stream.read_to_string(&mut text).expect("an answer");
        assert!(text.ends_with("ok"), "{text}");
        own
    };
    let mut peers = vec![
        outside.enter(|| get(outside.here4.into(), ports[0])),
        outside.enter(|| get(outside.here6.into(), ports[1])),
    ];
    // From the host, which no flow of the agent accounts for.
    peers.push(get(IpAddr::from([127, 0, 0, 1]), ports[2]));
    peers.push(get(IpAddr::from([127, 0, 0, 1]), ports[0]));
    peers.push(get(outside.here4.into(), ports[0]));
    // And the agent its own, on loopback and on an address of the host.
    assert!(shell.gets(&format!("http://127.0.0.1:{}/", ports[2])));
    assert!(shell.gets(&format!("http://[::1]:{}/", ports[1])));
    assert!(shell.gets(&format!("http://{}:{}/", outside.here4, ports[0])));
    cage.detached();
    server.kill().expect("kill");
    server.wait().expect("wait");
    let evidence = Evidence::read(&evidence);
    let inbound = evidence.with_reason("inbound_allowed");
    let from: Vec<_> = inbound.iter().map(|flow| flow.orig_dst).collect();
    assert_eq!(from, peers, "{inbound:#?}");
    assert!(inbound.iter().all(|flow| flow.comm == "python3" && flow.tgid == server.id()), "{inbound:#?}");
    assert!(inbound.iter().all(|flow| flow.tx_bytes > 10 && flow.rx_bytes > 10), "{inbound:#?}");
    assert_eq!(evidence.with_reason("loopback_own").len(), 3);
}

#[test]
fn reloads_under_a_storm_let_nothing_out() {
    let aims = Aims::new();
    let server = &aims.server;
    let (narrow, wide) = (allow(&["web.test"], server), allow(&["web.test", "new.test"], server));
    let cage = Cage::new(&narrow);
    let mut shell = cage.shell();
    let evidence = cage.files.evidence();
    cage.attached(&evidence);
    let packets = aims.outside.count();
    let new = format!("http://new.test:{}/", server.port());
    assert!(!shell.gets(&new));
    let mut storm = aims.storm(&cage);
    storm.wait_for("get_before_ok");
    for number in 0..20 {
        cage.files.set_policy(if number % 2 == 0 { &wide } else { &narrow });
        let out = cage.pipelock("reload").output().expect("pipelock reload");
        assert!(out.status.success(), "{}", said(&out));
        // Each is seen to be in force before the next.
        until("the reload", || shell.gets(&new) == (number % 2 == 0));
    }
    // A policy with mistakes is refused, and changes nothing.
    cage.files.set_policy("egress: [{destination: web.test, port: 80}]");
    let out = cage.pipelock("reload").output().expect("pipelock reload");
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(shell.gets(&format!("http://web.test:{}/", server.port())));
    let counts = storm.end();
    assert_eq!(counts["other_before_ok"], serde_json::Value::Null, "{counts:#}");
    assert_eq!(counts["web_before_fail"], serde_json::Value::Null, "no reload refused a connection: {counts:#}");
    assert_eq!(counts["get_before_fail"], serde_json::Value::Null, "no reload refused a request: {counts:#}");
    packets.assert_none();
    aims.assert_missed(&counts);
    cage.detached();
    let evidence = Evidence::read(&evidence);
    assert!(!evidence.with_reason("policy_allow").is_empty());
}

#[test]
fn the_cgroup_of_pipelock_itself_is_refused() {
    let cage = Cage::new("egress: []");
    let pipelock = pipelock_e2e::pipelock();
    let (program, cgroup) = (pipelock.to_str().expect("text"), cage.cgroup.to_str().expect("text"));
    let policy = cage.files.policy();
    let args = [program, "attach", "--cgroup", cgroup, "--policy", policy.to_str().expect("text")];
    let out = cage.inside(&args).output().expect("pipelock attach");
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("must stay outside"), "{}", said(&out));
    assert!(cage.status().0.is_none());
}

/// Connects, says so, and then tries to go on with the socket, and to use it again, whenever it is asked to.
const HOLDER: &str = r#"
import os, socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
if sys.argv[3] != "-":
    open(sys.argv[3] + "/cgroup.procs", "w").write(str(os.getpid()))
print("ready", flush=True)
for line in sys.stdin:
    try:
        s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        print("alive" if s.recv(1) else "dead", flush=True)
    except OSError as error:
        print("dead", flush=True)
"#;

/// A process that holds a connection and answers whether it still lives.
struct Holder {
    child: attached::Guard,
    stdout: std::io::BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn start(mut command: std::process::Command) -> Self {
        let pipe = std::process::Stdio::piped;
        let mut child = command.stdin(pipe()).stdout(pipe()).spawn().expect("python3");
        let stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut holder = Self { child: attached::Guard(child), stdout };
        assert_eq!(holder.line(), "ready");
        holder
    }

    fn line(&mut self) -> String {
        use std::io::BufRead as _;
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("read");
        line.trim().to_owned()
    }

    fn is_alive(&mut self) -> bool {
        use std::io::Write as _;
        let stdin = self.child.0.stdin.as_mut().expect("piped");
        stdin.write_all(b"go\n").expect("it lives");
        self.line() == "alive"
    }
}

#[test]
fn a_connection_from_before_is_destroyed() {
    let outside = Outside::new();
    let there = outside.there4;
    let target = HttpServer::with(outside.enter(|| TcpListener::bind((there, 9996)).expect("bind")), echo);
    let cage = Cage::new("egress: []");
    let (host, port) = (there.to_string(), target.port().to_string());
    let mut holder = Holder::start(cage.inside(&["python3", "-c", HOLDER, &host, &port, "-"]));
    assert!(holder.is_alive());
    let evidence = cage.files.evidence();
    cage.attached(&evidence);
    assert!(!holder.is_alive());
    assert_eq!(target.seen().len(), 1, "nothing came after the attach");
    let log = fs::read_to_string(evidence.join("pipelock.log")).expect("the log");
    assert!(log.contains("destroyed") && log.contains("python3"), "{log}");
    cage.detached();
    let capsule = capsule(&evidence);
    let held = capsule["confinement"]["held_sockets"].to_string();
    assert!(held.contains("destroyed") && held.contains(&target.addr.to_string()), "{capsule:#}");
    let _ = Evidence::read(&evidence);
}

#[test]
fn a_connection_made_elsewhere_is_refused_unless_forced() {
    let outside = Outside::new();
    let there = outside.there4;
    let target = HttpServer::with(outside.enter(|| TcpListener::bind((there, 9995)).expect("bind")), echo);
    let cage = Cage::new("egress: []");
    let mut command = std::process::Command::new("python3");
    command.args(["-c", HOLDER, &there.to_string(), &target.port().to_string()]).arg(&cage.cgroup);
    let mut holder = Holder::start(command);
    assert!(holder.is_alive());
    let out = cage.attach(&cage.files.evidence()).output().expect("pipelock attach");
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let text = said(&out);
    assert!(text.contains("made in another cgroup") && text.contains("python3") && text.contains("--force"), "{text}");
    assert!(cage.status().0.is_none(), "nothing is left attached");
    assert!(holder.is_alive(), "and nothing was touched");

    let forced = cage.files.work().join("forced");
    let out = cage.attach(&forced).arg("--force").output().expect("pipelock attach");
    assert!(out.status.success(), "{}", said(&out));
    assert!(!holder.is_alive(), "its connection was ended all the same");
    cage.detached();
    let capsule = capsule(&forced);
    assert_eq!(capsule["confinement"]["forced"], true, "{capsule:#}");
    let held = capsule["confinement"]["held_sockets"].to_string();
    assert!(held.contains("made in another cgroup") && held.contains(&target.addr.to_string()), "{capsule:#}");
    let _ = Evidence::read(&forced);
}

#[test]
fn a_process_in_its_own_network_namespace_is_served() {
    let outside = Outside::new();
    let server = HttpServer::start("127.0.0.1:0");
    let cage = Cage::new(&allow(&["web.test"], &server));
    let inner = format!("ip link set lo up; exec sh -c '{LOOP}'");
    let mut shell = Shell::start(cage.inside(&["unshare", "-n", "sh", "-c", &inner]));
    let (_, links) = shell.run("ip -o link | grep -v ' lo:' | wc -l");
    let evidence = cage.files.evidence();
    cage.attached(&evidence);
    let packets = outside.count();
    assert!(shell.gets(&format!("http://web.test:{}/", server.port())), "through the proxy alone; links: {links}");
    assert!(!shell.gets(&format!("http://{}:{}/", outside.there4, server.port())));
    packets.assert_none();
    assert_eq!(server.seen().len(), 1);
    // An address that the namespace gets later is its own too: what listens there is nobody's business.
    let own = format!("http://10.222.0.1:{}/", server.port());
    assert_eq!(shell.run("ip addr add 10.222.0.1/32 dev lo").0, 0);
    until("the new address", || shell.run(&format!("curl -s -o /dev/null --max-time 2 {own}")).0 == 7);
    cage.detached();
    let evidence = Evidence::read(&evidence);
    let denied = evidence.with_reason("loopback_denied");
    assert!(denied.iter().any(|flow| flow.orig_dst.ip().to_string() == "10.222.0.1"), "{denied:#?}");
    let allowed = evidence.with_reason("policy_allow");
    assert_eq!(allowed.len(), 1, "{allowed:#?}");
    assert!(allowed.iter().all(|flow| flow.name.as_deref() == Some("web.test")), "{allowed:#?}");
}

#[test]
fn removing_the_pins_frees_nobody_and_is_said() {
    let server = HttpServer::start("127.0.0.1:0");
    let outside = Outside::new();
    let there = outside.there4;
    let target = HttpServer::with(outside.enter(|| TcpListener::bind((there, 9997)).expect("bind")), echo);
    let cage = Cage::new(&allow(&["web.test"], &server));
    let mut shell = cage.shell();
    let evidence = cage.files.evidence();
    cage.attached(&evidence);
    let (status, _) = cage.status();
    let id = status.expect("listed")["id"].as_str().expect("a name").to_owned();
    fs::remove_dir_all(format!("/sys/fs/bpf/pipelock/{id}")).or_else(|_| remove_pins(&id)).expect("removed");
    assert!(!shell.gets(&format!("http://{}/", target.addr)), "still closed in");
    assert_eq!(target.connections(), 0);
    let (status, code) = cage.status();
    assert_eq!((&status.expect("listed")["health"], code), (&"degraded".into(), 1));
    let out = cage.pipelock("detach").output().expect("detach");
    assert!(out.status.success(), "{}", said(&out));
    let evidence = Evidence::read(&evidence);
    assert!(evidence.report.to_string().contains("pins of the kernel programs were removed"), "{}", evidence.report);
}

/// bpffs knows no recursive removal in one call on every kernel.
fn remove_pins(id: &str) -> std::io::Result<()> {
    let folder = std::path::PathBuf::from(format!("/sys/fs/bpf/pipelock/{id}"));
    for entry in fs::read_dir(&folder)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(folder)
}

#[test]
fn an_agent_that_was_there_is_told_by_the_exported_variables_whom_to_trust() {
    need!("curl", "openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    let cage = Cage::new(&format!(
        "egress: [{{destination: web.test, ports: [{}], paths: [\"/ok/*\"]}}]\n\
         dns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n\
         tls: {{extra_roots: [{}]}}",
        server.port(),
        server.certificate.display()
    ));
    let (state, trust) = (cage.files.work().join("state"), cage.files.work().join("trust"));
    let evidence = cage.files.evidence();
    cage.attached(&evidence);
    let mut export = std::process::Command::new(pipelock());
    export.arg("ca").arg("--policy").arg(cage.files.policy()).arg("--export").arg(&trust).arg("--shell");
    let out = export.env("STATE_DIRECTORY", &state).output().expect("pipelock ca");
    assert!(out.status.success(), "{}", said(&out));
    let mut shell = cage.shell();
    let url = format!("https://web.test:{}/ok/x", server.port());
    assert!(!shell.gets(&url), "nobody has told it");
    let variables = String::from_utf8_lossy(&out.stdout).replace('\n', "; ");
    let (code, text) = shell.run(&format!("{variables}curl -sSf -m 20 {url}"));
    assert_eq!(code, 0, "{text}");
    cage.detached();
    let evidence = Evidence::read(&evidence);
    assert_eq!(evidence.with_reason("client_pinned").len(), 1);
    assert_eq!(evidence.http().len(), 1);
}

#[test]
fn secrets_of_processes_that_were_there_stay_in() {
    need!("curl");
    let server = HttpServer::start("127.0.0.1:0");
    let cage = Cage::new(&allow(&["web.test"], &server).replace(", scan: false", ""));
    let mut command = cage.inside(&["/bin/sh", "-c", LOOP]);
    command.env("DEPLOY_TOKEN", "q7Zr2mVx9LkT4wPs");
    let mut shell = Shell::start(command);
    let evidence = cage.files.evidence();
    cage.attached(&evidence);
    let url = format!("http://web.test:{}/", server.port());
    assert!(shell.gets(&url));
    let send = format!("printf %s \"$DEPLOY_TOKEN\" | base64 | curl -sS --data-binary @- {url}");
    for _ in 0..2 {
        let (_, text) = shell.run(&send);
        assert!(text.contains("\"reason\": \"dlp_match\"") && !text.contains("q7Zr2mVx9LkT4wPs"), "{text}");
        // The same values are looked for under another policy.
        let policy = allow(&["web.test"], &server).replace(", scan: false", "") + "\ndlp: {entropy: off}\n";
        cage.files.set_policy(&policy);
        let out = cage.pipelock("reload").output().expect("pipelock reload");
        assert!(out.status.success(), "{}", said(&out));
    }
    cage.detached();
    assert_eq!(server.seen().len(), 1, "only what held no secret");
}
