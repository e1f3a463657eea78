//! Cgroups as the sandbox room handles them, and the sockets that the processes in them hold already.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod sandboxed;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use pipelock::sandbox::cgroup::{Cgroup, CgroupError};
use pipelock::sandbox::held::{HeldAction, HeldError, HeldOptions, HeldSocket, KeptSocket, settle};
use pipelock::sandbox::served::AgentSockets;
use pipelock_e2e::until;
use sandboxed::Temp;

#[test]
fn a_cgroup_is_made_watched_killed_and_removed() {
    let group = Temp::new("life");
    assert_eq!(group.0.id(), std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(group.0.path()).expect("stat")));
    assert!(!group.0.is_populated().expect("events"));
    assert!(!group.0.contains_self().expect("own"));
    assert!(matches!(
        Cgroup::create_child(group.0.path().file_name().and_then(|name| name.to_str()).expect("name")),
        Err(CgroupError::Io { what: "create", .. })
    ));

    let below = group.0.path().join("below");
    std::fs::create_dir(&below).expect("mkdir");
    let mut child = group.run("exec sleep 1000");
    until("populated", || group.0.is_populated().expect("events"));
    let pid = i32::try_from(child.id()).expect("pid");
    std::fs::write(below.join("cgroup.procs"), pid.to_string()).expect("move");
    until("listed", || group.0.procs().expect("procs").contains(&pid));
    assert_eq!(group.0.ids().expect("ids").len(), 2);
    assert!(matches!(group.0.wait_empty(Duration::from_millis(30)), Err(CgroupError::NotEmpty { .. })));

    let frozen = group.0.freeze(Duration::from_secs(5)).expect("freeze");
    assert!(group.0.is_frozen().expect("events"));
    drop(frozen);
    until("thawed", || !group.0.is_frozen().expect("events"));

    // Of a pipelock that was killed meanwhile the next one takes it over.
    std::mem::forget(group.0.freeze(Duration::from_secs(5)).expect("freeze"));
    drop(group.0.freeze(Duration::from_secs(5)).expect("freeze"));
    until("thawed", || !group.0.is_frozen().expect("events"));
    std::mem::forget(group.0.freeze(Duration::from_secs(5)).expect("freeze"));
    group.0.thaw_left().expect("thaw");
    until("thawed", || !group.0.is_frozen().expect("events"));
    // What somebody else has frozen stays so.
    let by_hand = |word: &str| std::fs::write(group.0.path().join("cgroup.freeze"), word).expect("cgroup.freeze");
    by_hand("1");
    until("frozen", || group.0.is_frozen().expect("events"));
    drop(group.0.freeze(Duration::from_secs(5)).expect("freeze"));
    group.0.thaw_left().expect("nothing to thaw");
    assert_eq!(std::fs::read_to_string(group.0.path().join("cgroup.freeze")).expect("cgroup.freeze").trim(), "1");
    by_hand("0");

    // Frozen processes die too.
    let frozen = group.0.freeze(Duration::from_secs(5)).expect("freeze");
    group.0.kill_all().expect("kill");
    group.0.wait_empty(Duration::from_secs(5)).expect("empty");
    drop(frozen);
    child.wait().expect("reap");
    group.0.remove().expect("remove");
    assert!(!group.0.path().exists());
    group.0.remove().expect("removing what is gone is no error");
    assert!(!group.0.is_populated().expect("gone is empty"));
}

#[test]
fn roots_and_threaded_cgroups_are_refused_and_ancestors_contain_us() {
    let root = pipelock::sandbox::cgroup::mount_points().expect("mounted").remove(0);
    assert!(matches!(Cgroup::open(&root), Err(CgroupError::IsRoot(_))));
    let group = Temp::new("threaded");
    let below = group.0.path().join("threads");
    std::fs::create_dir(&below).expect("mkdir");
    std::fs::write(below.join("cgroup.type"), "threaded").expect("threaded");
    assert!(matches!(Cgroup::open(&below), Err(CgroupError::Threaded { .. })));
    // The domain above lists the processes of its threaded children.
    let mut child = group.run("exec sleep 1000");
    let pid = i32::try_from(child.id()).expect("pid");
    until("listed", || group.0.procs().expect("procs").contains(&pid));
    std::fs::write(below.join("cgroup.threads"), pid.to_string()).expect("move");
    assert!(group.0.procs().expect("procs").contains(&pid));
    std::fs::write(group.0.path().join("cgroup.threads"), pid.to_string()).expect("move back");
    group.0.kill_all().expect("kill");
    child.wait().expect("reap");
}

/// A process of the cgroup that runs this Python program and says when it is ready; `before` runs outside.
fn holder(group: &Temp, before: &str, inside: &str) -> std::process::Child {
    let procs = group.0.path().join("cgroup.procs");
    let program = format!(
        "import socket, os, sys, threading, time, ctypes, array\n{before}\nopen({procs:?}, 'w').write('0')\n{inside}\n\
         print('ready', flush=True)\nsys.stdin.read()\n"
    );
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("read");
    assert_eq!(line, "ready\n");
    child
}

fn find<'a>(report: &'a [HeldSocket], proto: &str, port: u16) -> &'a HeldSocket {
    let same = |one: &&HeldSocket| one.proto == proto && one.local.is_some_and(|local| local.port() == port);
    report.iter().find(same).unwrap_or_else(|| panic!("no {proto} {port} in {report:?}"))
}

#[test]
fn sockets_made_inside_are_destroyed_or_kept() {
    let group = Temp::new("inside");
    let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let inside = format!(
        "t = socket.create_connection(('127.0.0.1', {})); t.settimeout(5)\n\
         d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.connect(('127.0.0.53', 53))\n\
         u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(('::', 0))\n\
         l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen()\n\
         p = socket.socket(); p.bind(('0.0.0.0', 0)); p.listen()\n\
         x = socket.socketpair()\n\
         open(sys.argv[0] if False else '/dev/null')\n\
         ports = [s.getsockname()[1] for s in (t, d, u, l, p)]\n\
         fork = os.fork()\n\
         if fork == 0: time.sleep(1000)\n\
         print(*ports, flush=True) if False else open({:?}, 'w').write(' '.join(map(str, ports)))",
        outside.local_addr().expect("addr").port(),
        group.0.path().file_name().map(|name| std::env::temp_dir().join(name)).expect("name"),
    );
    let mut child = holder(&group, "", &inside);
    let file = std::env::temp_dir().join(group.0.path().file_name().expect("name"));
    let ports: Vec<u16> =
        std::fs::read_to_string(&file).expect("ports").split(' ').map(|port| port.parse().expect("port")).collect();
    std::fs::remove_file(file).expect("remove");
    let [tcp, dns, udp, listener, public] = ports.try_into().expect("five");
    let (mut peer, _) = outside.accept().expect("accept");

    let mut marked = Vec::new();
    let mut mark = |kept: &KeptSocket<'_>| {
        let socket = socket2::SockRef::from(&kept.socket);
        marked.push((socket.local_addr()?.as_socket().map_or(0, |addr| addr.port()), kept.is_listening));
        assert_eq!((kept.comm, kept.cgroup_id), ("python3", group.0.id()));
        Ok(())
    };
    let report = settle(&group.0, HeldOptions::default(), &mut mark).expect("nothing refused");
    marked.sort_unstable();
    let mut kept = [(udp, false), (listener, true)];
    kept.sort_unstable();
    assert_eq!(marked, kept, "what stays is marked, and it is the socket itself");
    assert!(!group.0.is_frozen().expect("events"));
    // Each once, though two processes hold it.
    assert_eq!(report.len(), 5, "{report:?}");
    for one in &report {
        assert_eq!((one.cgroup_id, one.comm.as_str()), (Some(group.0.id()), "python3"), "{one}");
    }
    assert_eq!(find(&report, "tcp", tcp).action, HeldAction::Destroyed);
    assert_eq!(find(&report, "tcp", tcp).remote, outside.local_addr().ok());
    assert_eq!(find(&report, "udp", dns).action, HeldAction::Destroyed);
    assert!(matches!(find(&report, "udp", udp).action, HeldAction::Kept(_)));
    assert!(matches!(find(&report, "tcp", listener).action, HeldAction::Kept(_)));
    assert_eq!(find(&report, "tcp", public).action, HeldAction::Destroyed);
    // Destroyed is not a word only: the peer was reset, nobody listens, and the kept one still does.
    assert!(std::io::Read::read(&mut peer, &mut [0]).is_err());
    let connect = |port| {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .and_then(|socket| socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()))
    };
    assert!(connect(public).is_err());
    connect(listener).expect("still listening");
    drop(child.stdin.take());
    group.0.kill_all().expect("kill");
    child.wait().expect("reap");
}

#[test]
fn what_would_go_round_the_programs_refuses_the_attachment() {
    let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = outside.local_addr().expect("addr").port();
    let connect = format!("t = socket.create_connection(('127.0.0.1', {port}))");
    let thread = "def run():\n  ctypes.CDLL(None).unshare(0x400)\n  global s; s = socket.socket(17, 3, 0); time.sleep(1000)\n\
                  threading.Thread(target=run, daemon=True).start(); time.sleep(0.5)";
    let flight = "a, b = socket.socketpair(); s = socket.socket()\n\
                  a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))]); s.close()";
    let ring = "p = ctypes.create_string_buffer(120); l = ctypes.CDLL(None); r = l.syscall(425, 4, p)\n\
                s = socket.socket(); f = array.array('i', [s.fileno()]); assert r > 0\n\
                assert l.syscall(427, r, 2, ctypes.c_void_p(f.buffer_info()[0]), 1) == 0; s.close()";
    for (what, before, inside, says) in [
        ("connected outside", connect.as_str(), "", "made in another cgroup"),
        (
            "listening outside",
            "t = socket.socket(); t.bind(('127.0.0.1', 0)); t.listen()",
            "",
            "made in another cgroup",
        ),
        ("unbound", "", "t = socket.socket()", "neither bound nor connected"),
        ("unbound UDP", "", "t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "neither bound nor connected"),
        ("packet", "", "t = socket.socket(17, 3, 0)", "never see"),
        ("raw", "", "t = socket.socket(2, 3, 1)", "never see"),
        ("mptcp", "", "t = socket.socket(2, 1, 262)", "never see"),
        ("vsock", "", "t = socket.socket(40, 1, 0)", "never see"),
        ("table of a thread", "", thread, "never see"),
        ("in flight", "", flight, "in flight"),
        ("io_uring", "", ring, "registered"),
    ] {
        let group = Temp::new("refused");
        // And one that could be destroyed, but must not be when the rest is refused.
        let inside = format!("{inside}\ni = socket.create_connection(('127.0.0.1', {port}))");
        let mut child = holder(&group, before, &inside);
        let error = settle(&group.0, HeldOptions::default(), &mut |_| Ok(())).expect_err(what);
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("python3"), "{what}: {text}");
        let HeldError::Refused(refused) = error else { panic!("{what}: {text}") };
        assert_eq!(refused.len(), 1, "{what}: {refused:?}");
        assert!(!group.0.is_frozen().expect("events"));
        let forced =
            settle(&group.0, HeldOptions { force: true, ..HeldOptions::default() }, &mut |_| Ok(())).expect(what);
        let count = |check: fn(&HeldAction) -> bool| forced.iter().filter(|one| check(&one.action)).count();
        assert_eq!(count(|action| matches!(action, HeldAction::Refused(_))), 1, "{what}: {forced:?}");
        assert_eq!(count(|action| *action == HeldAction::Destroyed), 1, "{what}: {forced:?}");
        drop(child.stdin.take());
        group.0.kill_all().expect("kill");
        child.wait().expect("reap");
    }
}

#[test]
fn sockets_in_another_network_namespace_are_found_and_work_can_be_done_there() {
    let group = Temp::new("netns");
    let inside = "l = ctypes.CDLL(None); assert l.unshare(0x40000000) == 0; os.system('ip link set lo up')\n\
                  s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); c = socket.create_connection(s.getsockname())\n\
                  assert l.unshare(0x40000000) == 0";
    let mut child = holder(&group, "", inside);
    // The process has moved on to a third namespace; its sockets have not.
    let pid = i32::try_from(child.id()).expect("pid");
    let (inode, ns) = pipelock::sandbox::netns::netns_of(pid).expect("namespace");
    let (own, _) = pipelock::sandbox::netns::netns_of(i32::try_from(std::process::id()).expect("pid")).expect("own");
    assert_ne!(inode, own);
    let here = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let there =
        pipelock::sandbox::netns::in_netns(std::os::fd::AsFd::as_fd(&ns), || std::net::UdpSocket::bind("0.0.0.0:0"))
            .expect("enter")
            .expect("bind");
    let cookie = |socket: &std::net::UdpSocket| pipelock::sandbox::netns::netns_cookie(socket).expect("cookie");
    assert_ne!(cookie(&here), cookie(&there));
    let panicked = pipelock::sandbox::netns::in_netns(std::os::fd::AsFd::as_fd(&ns), || panic!("on purpose"));
    assert!(panicked.is_err());

    let report = settle(&group.0, HeldOptions::default(), &mut |_| Ok(())).expect("nothing refused");
    let destroyed = report.iter().filter(|one| one.action == HeldAction::Destroyed).count();
    let kept = report.iter().filter(|one| matches!(one.action, HeldAction::Kept(_))).count();
    assert_eq!((destroyed, kept), (1, 1), "{report:?}");
    drop(child.stdin.take());
    child.wait().expect("reap");
}

/// Why sockets made outside are refused and not only destroyed.
#[test]
fn a_destroyed_socket_can_be_connected_again() {
    let group = Temp::new("reuse");
    let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = outside.local_addr().expect("addr").port();
    let before = format!("t = socket.create_connection(('127.0.0.1', {port}))");
    let after = format!(
        "import threading\n\
         def later():\n  sys.stdin.readline(); l = ctypes.CDLL(None)\n  r = l.connect(t.fileno(), bytes(16), 16)\n  \
         t.connect(('127.0.0.1', {port})); print('again', r, t.send(b'x'), flush=True); os._exit(0)\n\
         threading.Thread(target=later).start()"
    );
    let mut child = holder(&group, &before, &after);
    settle(&group.0, HeldOptions { force: true, ..HeldOptions::default() }, &mut |_| Ok(())).expect("forced");
    child.stdin.as_mut().expect("piped").write_all(b"\n").expect("write");
    let mut text = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().expect("piped"), &mut text).expect("read");
    assert_eq!(text, "again 0 1\n");
    child.wait().expect("reap");
}

#[test]
fn a_listener_whose_cgroup_is_gone_is_nobody_elses() {
    let group = Temp::new("gone");
    let below = group.0.path().join("below");
    std::fs::create_dir(&below).expect("mkdir");
    let (own, file) = (group.0.path().join("cgroup.procs"), tempfile::NamedTempFile::new().expect("file"));
    let inside = format!(
        "open({:?}, 'w').write('0')\nl = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen()\n\
         open({own:?}, 'w').write('0'); open({:?}, 'w').write(str(l.getsockname()[1]))",
        below.join("cgroup.procs"),
        file.path(),
    );
    let mut child = holder(&group, "", &inside);
    let port: u16 = std::fs::read_to_string(file.path()).expect("port").parse().expect("a port");
    let far = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let connect = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        socket.connect(&far.into()).expect("connect");
        socket
    };
    let near = |socket: &socket2::Socket| socket.local_addr().expect("addr").as_socket().expect("IP");
    let sockets = AgentSockets::of(Cgroup::open(group.0.path()).expect("open"));
    let first = connect();
    assert!(sockets.serve(near(&first), far).expect("told"), "it is the agent's");
    until("removed", || std::fs::remove_dir(&below).is_ok());
    // That which waits, and one that comes only now.
    for socket in [first, connect()] {
        let error = sockets.serve(near(&socket), far).expect_err("nobody can say whose it is");
        assert!(error.to_string().contains("is gone"), "{error}");
    }
    let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let there = outside.local_addr().expect("addr");
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    socket.connect(&there.into()).expect("connect");
    assert!(!sockets.serve(near(&socket), there).expect("told"), "a cgroup that lives is somebody's");
    drop(child.stdin.take());
    group.0.kill_all().expect("kill");
    child.wait().expect("reap");
}
