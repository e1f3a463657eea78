//! What a command notices of being run by pipelock: nothing, but for what it may not reach. And what is left: nothing.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use pipelock_e2e::{Attached, Evidence, HttpServer, Outside, OwnCgroup, Run, Sandbox, need, on_terminal, pipelock};

/// Nothing is allowed.
const NOTHING: &str = "egress: []";

fn python(policy: &str, script: &str, args: &[&str]) -> Run {
    let mut command = vec!["python3", "-c", script];
    command.extend(args);
    Sandbox::new(policy).run(&command)
}

/// A pipe that is full, and stays so while its first end is held.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    use std::os::fd::AsFd as _;
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let set = |flags| nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).map(drop);
    set(nix::fcntl::OFlag::O_NONBLOCK).expect("a flag");
    while std::io::Write::write(&mut writer, &[b'.'; 4096]).is_ok() {}
    let set = |flags| nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).map(drop);
    set(nix::fcntl::OFlag::empty()).expect("a flag");
    (reader, writer)
}

#[test]
fn nobody_has_to_read_what_is_said_at_the_end() {
    for signal in [None, Some(nix::sys::signal::Signal::SIGINT)] {
        let sandbox = Sandbox::new(NOTHING);
        let (reader, writer) = full_pipe();
        let script = if signal.is_some() { "touch ready; exec sleep 1000" } else { "touch ready; exit 7" };
        let mut child = sandbox.command(&["sh", "-c", script]).stderr(writer).spawn().expect("pipelock");
        let ends_by = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut said = signal;
        let code = loop {
            if let Some(status) = child.try_wait().expect("wait") {
                break status.code();
            }
            if std::time::Instant::now() > ends_by {
                child.kill().expect("kill");
                panic!("it does not end: {:?}", child.wait());
            }
            if sandbox.work().join("ready").exists()
                && let Some(signal) = said.take()
            {
                let pid = i32::try_from(child.id()).expect("a pid");
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("kill");
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        assert_eq!(code, Some(signal.map_or(7, |signal| 128 + signal as i32)));
        assert!(sandbox.evidence().join("summary.md").exists(), "the evidence is complete");
        drop(reader);
    }
}

#[test]
fn exit_codes_are_passed_on() {
    let shell = |script: &str| Sandbox::new(NOTHING).plain().run(&["/bin/sh", "-c", script]).code();
    assert_eq!(shell("exit 0"), 0);
    assert_eq!(shell("exit 7"), 7);
    assert_eq!(shell("exit 255"), 255);
    assert_eq!(shell("kill -TERM $$"), 128 + 15);
    assert_eq!(shell("kill -KILL $$"), 128 + 9);
    let cannot_start = |sandbox: Sandbox, program: &str| {
        let out = sandbox.plain().command(&[program]).output().expect("pipelock");
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, said) = cannot_start(Sandbox::new(NOTHING), "no-such-program");
    assert_eq!(code, Some(127), "{said}");
    assert!(said.contains("no-such-program: not found"), "{said}");
    let sandbox = Sandbox::new(NOTHING);
    let file = sandbox.file("plain", "just text");
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("chmod");
    let (code, said) = cannot_start(sandbox, file.to_str().expect("text"));
    assert_eq!(code, Some(126), "{said}");
}

#[test]
fn a_wrong_policy_starts_nothing() {
    let sandbox = Sandbox::new("egress: [{destination: \"web.test\", portz: [80]}]");
    let out = sandbox.command(&["touch", "started"]).output().expect("pipelock");
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(said.contains("portz") && said.contains("ports"), "{said}");
    assert!(!sandbox.work().join("started").exists());
    // Evidence is never written over.
    let sandbox = Sandbox::new(NOTHING);
    let first = sandbox.command(&["true"]).output().expect("pipelock");
    assert_eq!(first.status.code(), Some(0));
    let chain = std::fs::read(sandbox.evidence().join("evidence.jsonl")).expect("evidence");
    let second = sandbox.command(&["touch", "started"]).output().expect("pipelock");
    assert_ne!(second.status.code(), Some(0));
    assert!(!sandbox.work().join("started").exists());
    assert_eq!(std::fs::read(sandbox.evidence().join("evidence.jsonl")).expect("evidence"), chain);
}

#[test]
fn streams_are_passed_byte_by_byte() {
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let run =
        Sandbox::new(NOTHING).option("--quiet").stdin(bytes.clone()).run_ok(&["sh", "-c", "printf 'a\\377b' >&2; cat"]);
    assert!(run.stdout == bytes, "{} bytes instead of {}", run.stdout.len(), bytes.len());
    assert!(run.stderr.starts_with('a') && run.stderr.ends_with('b'), "{:?}", run.stderr);
}

#[test]
fn a_terminal_stays_the_commands_own() {
    need!("python3");
    let sandbox = Sandbox::new(NOTHING).option("--quiet");
    let script = "test -t 0 && test -t 1 && echo terminal; trap 'echo interrupted; exit 42' INT; echo ready; while :; do sleep 0.05; done";
    on_terminal(
        &sandbox.command(&["sh", "-c", script]),
        r#"
m = launch()
expect(m, b"terminal"); expect(m, b"ready"); os.write(m, b"\x03")
expect(m, b"interrupted"); expect(m, b"SHELL exit 42")
"#,
    );
    let evidence = Evidence::read(&sandbox.evidence());
    assert_eq!(evidence.flows().len(), 0);
}

#[test]
fn nothing_is_left_behind() {
    need!("setsid");
    let run = Sandbox::new(NOTHING).run_ok(&[
        "sh",
        "-c",
        "setsid sleep 1000 >/dev/null 2>&1 & echo $!; (sleep 1000 & echo $!) ",
    ]);
    for pid in run.text().lines() {
        // What nobody has waited for yet is dead all the same.
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{pid} lives on: {stat}");
    }
    assert_eq!(run.text().lines().count(), 2, "{run}");
    let capsule = run.evidence.capsule();
    assert!(!Path::new(capsule["cgroup"].as_str().expect("a path")).exists());
    assert!(!Path::new("/sys/fs/bpf/pipelock").join(capsule["attachment"].as_str().expect("a name")).exists());
    assert_eq!((capsule["level"].as_str(), capsule["mode"].as_str()), (Some("full"), Some("run")));
    assert_eq!(capsule["missing_hooks"], serde_json::json!([]));
}

const OWN_SERVERS: &str = r#"
import socket, sys
def serve(family, kind, addr):
    s = socket.socket(family, kind); s.bind((addr, 0))
    if kind == socket.SOCK_STREAM: s.listen()
    return s, s.getsockname()[1]
def tcp(addr, port):
    c = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET); c.settimeout(3)
    try: c.connect((addr, port))
    except OSError as e: return e.errno
    return 0
v4, v6, any4, any6 = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))
for (family, at), asks in ((v4, ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"]), (v6, ["::1", "::"]),
                           (any4, ["127.0.0.1", "127.0.0.9", "0.0.0.0", sys.argv[1]]), (any6, ["::1", "127.0.0.1", sys.argv[2]])):
    s, port = serve(family, socket.SOCK_STREAM, at)
    for addr in asks:
        code = tcp(addr, port)
        if code == 0:
            c, _ = s.accept(); c.sendall(b"hi")
        print("tcp", at, addr, code)
    s.close()
for family, at in (v4, v6):
    # A client that is connected takes datagrams from its peer only; one that is not, from anybody.
    s, port = serve(family, socket.SOCK_DGRAM, at)
    c = socket.socket(family, socket.SOCK_DGRAM); c.settimeout(2)
    c.sendto(b"ping", (at, port)); data, peer = s.recvfrom(10); s.sendto(b"pong", peer)
    print("udp", at, c.recvfrom(10)[0].decode(), 0)
    c = socket.socket(family, socket.SOCK_DGRAM); c.settimeout(2)
    c.connect((at, port)); c.send(b"ping"); data, peer = s.recvfrom(10); s.sendto(b"pong", peer)
    print("udp-connected", at, c.recv(10).decode(), 0)
"#;

#[test]
fn the_agents_own_servers_work() {
    need!("python3");
    let outside = Outside::new();
    let (own4, own6) = (outside.here4.to_string(), outside.here6.to_string());
    let run = python(NOTHING, OWN_SERVERS, &[&own4, &own6]);
    let lines: Vec<String> = run.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 16, "{run}");
    assert!(lines.iter().all(|line| line.ends_with(" 0")), "{run}");
    let flows = run.evidence.flows();
    // A UDP server that answers sends too: twelve TCP connections, and two flows for each of four UDP clients.
    assert_eq!(flows.len(), 20, "{run}");
    assert!(flows.iter().all(|flow| flow.reason == "loopback_own" && flow.verdict == "allow"), "{run}");
}

#[test]
fn the_hosts_servers_do_not_also_beside_one_of_the_agents() {
    need!("python3");
    let host = HttpServer::start("127.0.0.1:0");
    let other = HttpServer::start("127.0.0.1:0");
    let open = HttpServer::start("127.0.0.1:0");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let script = r#"
import socket, sys
host, other, opened, udp = map(int, sys.argv[1:])
def tcp(addr, port):
    try: socket.create_connection((addr, port), timeout=3); return 0
    except OSError as e: return e.errno
# The agent's own listener on the same port of another loopback address does not open the host's.
s = socket.socket(); s.bind(("127.0.0.2", host)); s.listen()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.2", udp))
print(tcp("127.0.0.2", host), tcp("127.0.0.1", host), tcp("127.0.0.1", other), tcp("127.0.0.1", opened))
try: print(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"SECRET", ("127.0.0.1", udp)))
except OSError as e: print(e.errno)
"#;
    let port = |server: &HttpServer| server.port().to_string();
    let policy = format!("egress: []\nloopback: {{allow: [{}]}}", open.port());
    let udp_port = udp.local_addr().expect("bound").port().to_string();
    let run = python(&policy, script, &[&port(&host), &port(&other), &port(&open), &udp_port]);
    assert_eq!(run.text(), "0 111 111 0\n1\n", "{run}");
    assert_eq!((host.connections(), other.connections(), open.connections()), (0, 0, 1));
    let reasons: Vec<_> = run.evidence.flows().iter().map(|flow| flow.reason.clone()).collect();
    let expected = ["loopback_own", "loopback_denied", "loopback_denied", "loopback_allowed", "loopback_denied"];
    assert_eq!(reasons, expected, "{run}");
}

#[test]
fn two_agents_are_strangers_to_each_other() {
    need!("python3");
    let serve = "
import os, socket, time
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); s.settimeout(20)
open('port.tmp', 'w').write(str(s.getsockname()[1])); os.rename('port.tmp', 'port')
while not os.path.exists('done'): time.sleep(0.01)
s.settimeout(0.1)
try: s.accept(); print('somebody came')
except TimeoutError: print('nobody came')
";
    let mut first = Sandbox::new(NOTHING).spawn(&["python3", "-c", serve]);
    first.wait_for("port");
    let port = std::fs::read_to_string(first.sandbox.work().join("port")).expect("a port");
    let connect = "import socket, sys\ntry: socket.create_connection(('127.0.0.1', int(sys.argv[1])))\nexcept OSError as e: print(e.errno)";
    let second = python(NOTHING, connect, &[&port]);
    assert_eq!(second.text(), "111\n", "{second}");
    assert_eq!(second.evidence.connection().reason, "loopback_denied");
    first.sandbox.file("done", "");
    assert_eq!(first.wait().text(), "nobody came\n");
}

#[test]
fn the_user_is_the_one_that_was_named() {
    let run = Sandbox::new(NOTHING).run_ok(&["id", "-u"]);
    assert_eq!(run.text().trim(), "65534", "{run}");
    let run = Sandbox::new(NOTHING).user("1234:4321").run_ok(&[
        "sh",
        "-c",
        "id -u; id -g; grep -E 'NoNewPrivs|CapEff|CapBnd|Seccomp:' /proc/self/status",
    ]);
    let text = run.text();
    let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().last().unwrap_or_default()).collect();
    assert_eq!(lines, ["1234", "4321", "0000000000000000", "0000000000000000", "1", "2"], "{run}");
}

#[test]
fn sockets_from_before_the_attach_are_cut() {
    need!("python3");
    let outside = Outside::new();
    let listener = outside.enter(|| TcpListener::bind("0.0.0.0:4444").expect("bind outside"));
    let server = HttpServer::with(listener, pipelock_e2e::echo);
    let script = r#"
import os, socket, sys, time
there = sys.argv[1]
tcp = socket.create_connection((there, 4444))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.connect((there, 4445))
open("before", "w").close()
while not os.path.exists("after"): time.sleep(0.01)
for name, send in (("tcp", lambda: tcp.send(b"SECRET")), ("udp", lambda: udp.send(b"SECRET")),
                   ("new", lambda: socket.create_connection((there, 4444)))):
    try: send(); print(name, "sent")
    except OSError as e: print(name, "refused")
"#;
    let sandbox = Sandbox::new(NOTHING);
    let cgroup = OwnCgroup::new();
    let child = cgroup
        .command("python3")
        .args(["-c", script, &outside.there4.to_string()])
        .current_dir(sandbox.work())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    while !sandbox.work().join("before").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let attached = Attached::start(&cgroup.path, &sandbox.policy(), &sandbox.evidence());
    // The attach itself may still end the old connection with a reset, which carries nothing.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let count = outside.count();
    sandbox.file("after", "");
    let out = child.wait_with_output().expect("python3");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    attached.end();
    assert_eq!(said, "tcp refused\nudp refused\nnew refused\n");
    count.assert_none();
    assert!(server.seen().is_empty());
    let evidence = Evidence::read(&sandbox.evidence());
    assert!(evidence.flows().iter().all(|flow| flow.verdict == "block"), "{:#?}", evidence.flows());
    assert!(!evidence.with_reason("port_denied").is_empty());
}

#[test]
fn namespaces_of_the_agents_own_lead_nowhere() {
    need!("python3", "unshare", "nsenter");
    let outside = Outside::new();
    let sandbox = Sandbox::new("egress: [{destination: web.test, ports: [80], scan: false}]");
    let cgroup = OwnCgroup::new();
    let attached = Attached::start(&cgroup.path, &sandbox.policy(), &sandbox.evidence());
    let script = "import socket, sys\ntry: socket.create_connection((sys.argv[1], 80), timeout=2); print('ESCAPED')\nexcept OSError as e: print(type(e).__name__)";
    // In the namespace outside, what is "here" is one hop away and served by nobody of ours.
    let here = HttpServer::start((outside.here4, 0));
    let count = outside.count();
    let path = format!("--net={}", outside.path().display());
    let run = |program: &str, args: &[&str]| {
        let out = cgroup.command(program).args(args).output().expect("start");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let entered = run("nsenter", &[&path, "python3", "-c", script, &outside.here4.to_string()]);
    let made = run("unshare", &["--net", "python3", "-c", script, "192.0.2.1"]);
    attached.end();
    assert!(!entered.contains("ESCAPED") && !made.contains("ESCAPED"), "{entered} {made}");
    assert_eq!(here.connections(), 0);
    count.assert_none();
    let evidence = Evidence::read(&sandbox.evidence());
    assert_eq!(evidence.with_reason("netns_unknown").len(), 2, "{:#?}", evidence.flows());
}

#[test]
fn status_shows_what_is_attached() {
    let out = Command::new(pipelock()).arg("version").output().expect("pipelock");
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("pipelock "));
    let sandbox = Sandbox::new(NOTHING);
    let cgroup = OwnCgroup::new();
    let path = cgroup.path.to_str().expect("text").to_owned();
    // Others may be attached at the same time.
    let status = || {
        let out = Command::new(pipelock()).args(["status", "--json"]).output().expect("pipelock");
        let value: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let all = value["attachments"].as_array().expect("a list").clone();
        all.into_iter().find(|one| one["cgroup"] == path.as_str()).map(|one| one["health"].clone())
    };
    assert_eq!(status(), None);
    let attached = Attached::start(&cgroup.path, &sandbox.policy(), &sandbox.evidence());
    assert_eq!(status(), Some("ok".into()));
    // A killed proxy leaves the cgroup closed, and the next attach takes over.
    attached.kill();
    assert_eq!(status(), Some("closed".into()));
    let second = sandbox.work().join("second");
    let out = cgroup
        .command("python3")
        .args([
            "-c",
            "import socket\ntry: socket.create_connection(('192.0.2.1', 9))\nexcept OSError as e: print(e.errno)",
        ])
        .output()
        .expect("python3");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "111\n");
    Attached::start(&cgroup.path, &sandbox.policy(), &second).end();
    assert_eq!(status(), None);
    let evidence = Evidence::read(&second);
    assert_eq!(evidence.flows().len(), 1, "what the kernel recorded while nobody served");
    assert_eq!(evidence.flows()[0].reason, "port_denied");
}

/// A UDP socket that is neither bound nor connected cannot be found by the kernel's socket diagnosis, so its cgroup is
/// unknown: then there is no attach, and nothing of one is left.
#[test]
fn an_attach_that_cannot_be_complete_is_refused() {
    need!("python3");
    let sandbox = Sandbox::new(NOTHING);
    let cgroup = OwnCgroup::new();
    let script = "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nopen('before', 'w').close()\ntime.sleep(60)";
    let mut child =
        cgroup.command("python3").args(["-c", script]).current_dir(sandbox.work()).spawn().expect("python3");
    while !sandbox.work().join("before").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let out = Command::new(pipelock())
        .args(["attach", "--cgroup"])
        .arg(&cgroup.path)
        .arg("--policy")
        .arg(sandbox.policy())
        .arg("--evidence")
        .arg(sandbox.evidence())
        .output()
        .expect("pipelock attach");
    let _ = child.kill();
    let _ = child.wait();
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("pid {}", child.id())) && said.contains("--force"), "{said}");
    let id = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&cgroup.path).expect("the cgroup"));
    assert!(!Path::new(&format!("/sys/fs/bpf/pipelock/cg-{id}")).exists(), "pins are left");
}

#[test]
fn listen_any_lets_the_outside_in_and_records_it() {
    need!("python3");
    let script = r#"
import os, socket, sys
for family, addr in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, sys.argv[1])):
    s = socket.socket(family); s.bind((addr, 0)); s.listen(); s.settimeout(20)
    name = "port%d" % (4 if family == socket.AF_INET else 6)
    open("tmp", "w").write(str(s.getsockname()[1])); os.rename("tmp", name)
    c, peer = s.accept(); c.sendall(b"welcome"); print(peer[0]); c.close()
"#;
    let outside = Outside::new();
    let sandbox = Sandbox::new("egress: []\nlisten: any");
    let mut running = sandbox.spawn(&["python3", "-c", script, &outside.here6.to_string()]);
    let count = outside.count();
    for (name, addr) in [("port4", std::net::IpAddr::from(outside.here4)), ("port6", outside.here6.into())] {
        running.wait_for(name);
        let port = std::fs::read_to_string(running.sandbox.work().join(name)).expect("a port");
        let said = outside.enter(|| {
            let mut stream = TcpStream::connect((addr, port.parse().expect("a port"))).expect("get in");
            let mut said = String::new();
            stream.read_to_string(&mut said).expect("read");
            said
        });
        assert_eq!(said, "welcome");
    }
    let run = running.wait();
    assert_eq!(run.text(), format!("{}\n{}\n", outside.there4, outside.there6), "{run}");
    assert!(count.packets() > 0);
    let flows = run.evidence.with_reason("inbound_allowed");
    let peers: Vec<_> = flows.iter().map(|flow| flow.orig_dst.ip().to_string()).collect();
    assert_eq!(peers, [outside.there4.to_string(), outside.there6.to_string()], "{run}");
    assert!(flows.iter().all(|flow| flow.comm == "python3" && flow.tx_bytes >= 7), "{flows:#?}");
}

#[test]
fn minus_one_as_sudos_caller_is_nobody() {
    for (uid, gid) in [("4294967295", "4294967295"), ("-1", "-1")] {
        let sandbox = Sandbox::new(NOTHING);
        let out = sandbox.command(&["id", "-u"]).env("SUDO_UID", uid).env("SUDO_GID", gid).output().expect("pipelock");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "65534\n", "{uid}: {}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(Evidence::read(&sandbox.evidence()).capsule()["confinement"]["uid"], 65534);
    }
}

#[test]
fn sockets_of_the_users_own_services_are_hidden() {
    use std::os::unix::fs::{PermissionsExt, chown};
    need!("python3");
    let uid = 2_000_000 + std::process::id();
    let folder = Path::new("/run/user").join(uid.to_string());
    std::fs::create_dir_all(&folder).expect("mkdir");
    chown(&folder, Some(uid), Some(uid)).expect("chown");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o700)).expect("chmod");
    std::fs::create_dir_all("/run/dbus").expect("mkdir");
    let bus = folder.join("bus");
    let system = Path::new("/run/dbus").join(format!("pl-e2e-{uid}"));
    let listeners = [&bus, &system].map(|path| {
        let listener = std::os::unix::net::UnixListener::bind(path).expect("bind");
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("chmod");
        listener
    });
    let script = r#"
import os, socket, sys
for path in sys.argv[1:]:
    try: socket.socket(socket.AF_UNIX).connect(path); print("reached", path)
    except OSError as error: print(error.errno)
open(os.path.dirname(sys.argv[1]) + "/own", "w").write("x")
print(oct(os.stat(os.path.dirname(sys.argv[1])).st_mode))
"#;
    let paths = [&bus, &system].map(|path| path.to_str().expect("text"));
    let sandbox = Sandbox::new(NOTHING).user(&format!("{uid}:{uid}"));
    let out = sandbox.command(&["python3", "-c", script, paths[0], paths[1]]).output().expect("pipelock");
    let within = Sandbox::new(NOTHING).command(&["true"]).current_dir(&folder).output().expect("pipelock");
    let is_left = folder.join("own").exists();
    drop(listeners);
    std::fs::remove_file(&system).expect("remove");
    std::fs::remove_dir_all(&folder).expect("remove");
    let (said, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(said, "2\n2\n0o40700\n", "{errors}");
    assert!(!is_left, "the agent has a folder of its own");
    let errors = String::from_utf8_lossy(&within.stderr);
    assert_eq!((within.status.code(), errors.contains("/run/user")), (Some(125), true), "{errors}");
}

#[test]
fn a_command_that_never_ran_leaves_complete_evidence() {
    let sandbox = Sandbox::new(NOTHING).plain();
    let out = sandbox.command(&["no-such-program"]).output().expect("pipelock");
    assert_eq!(out.status.code(), Some(127), "{}", String::from_utf8_lossy(&out.stderr));
    let (code, report) = pipelock_e2e::verify_json(&sandbox.evidence());
    assert_eq!(code, 0, "{report:#}");
    let receipts = std::fs::read_to_string(sandbox.evidence().join("receipts.json")).expect("the folder is written");
    assert!(receipts.contains("agent not started"), "{receipts}");
}
