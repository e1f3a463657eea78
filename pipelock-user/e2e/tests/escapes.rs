//! Ways round: each has to be refused, has to have its receipt, and nothing may reach the host outside.
//!
//! What is tried is in `agents/escapes.py`, one function a way. `reference` numbers are rows of the escape catalogue:
//!
//! | rows | test |
//! |---|---|
//! | 1, 2, 3, 4, 5, 24, 25, 57, 60 | `tcp_past_the_proxy` |
//! | 6, 7, 9, 58 | `udp_past_the_proxy`; groups: `groups_that_the_kernel_would_announce` |
//! | 10, 11, 15 | `dns_to_a_server_of_its_own_choice` |
//! | 18, 19, 21, 22, 23 | `other_protocols`, `raw_sockets_of_a_privileged_agent` |
//! | 20, 26, 27, 28, 29, 30 | `other_families` |
//! | 34, 37, 38, 40, 43, 45, 46, 49, 50, 51, 52, 54, 88, 90 | `system_calls` |
//! | 35, 36 | `inherited_sockets` |
//! | 42, 53 | every test of a denial, run again as root |
//! | 55, 56 | `services_of_the_host`; more in `lifecycle.rs`, and in `shared_ports.rs` for ports that both have |
//! | 59 | `nobody_outside_gets_in` |
//! | 61, 62, 63 | `load.rs` |
//! | 39, 85 | `load.rs` (kill -9, reload) |
//! | 12, 13, 14, 66, 67, 68, 70, 71, 73 | `denials.rs`, `dns.rs` |
//! | 64, 65 | unit tests of the loader; not here |
//! | 8, 16, 17, 41, 44, 47, 48, 69, 72, 74 to 84, 86, 87, 89 | not testable here: they need other machines or later parts |
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use pipelock_e2e::{Attached, Evidence, Flow, HttpServer, Outside, OwnCgroup, PacketCount, Run, Sandbox, need};
use serde_json::{Value, json};

const AGENT: &str = include_str!("../agents/escapes.py");
/// Something in our memory that the agent tries to read.
static PROBE: u64 = 7;
const EPERM: i64 = 1;
const REFUSED: i64 = 111;

/// The world around one run: a host outside with listeners that would be glad to be reached, services on this host.
struct World {
    outside: Outside,
    count: PacketCount,
    listeners: Vec<HttpServer>,
    host4: HttpServer,
    host6: HttpServer,
    host_udp: UdpSocket,
    host_udp6: UdpSocket,
}

impl World {
    fn new() -> Self {
        let outside = Outside::new();
        let ports = outside.enter(|| {
            ["0.0.0.0:80", "0.0.0.0:4444", "[::]:4445"].map(|addr| TcpListener::bind(addr).expect("bind outside"))
        });
        let listeners = ports.into_iter().map(|port| HttpServer::with(port, pipelock_e2e::echo)).collect();
        let [host_udp, host_udp6] = ["0.0.0.0:0", "[::]:0"].map(|addr| {
            let socket = UdpSocket::bind(addr).expect("bind");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            socket
        });
        let count = outside.count();
        Self {
            outside,
            count,
            listeners,
            host4: HttpServer::start("0.0.0.0:0"),
            host6: HttpServer::with(v6_only(), pipelock_e2e::echo),
            host_udp,
            host_udp6,
        }
    }

    fn parameters(&self) -> Value {
        json!({
            "there4": self.outside.there4.to_string(), "there6": self.outside.there6.to_string(),
            "here4": self.outside.here4.to_string(), "here6": self.outside.here6.to_string(),
            "host4": self.host4.port(), "host6": self.host6.port(),
            "hostudp": self.host_udp.local_addr().expect("bound").port(),
            "hostudp6": self.host_udp6.local_addr().expect("bound").port(),
            "outside": std::process::id(), "outside_addr": (&raw const PROBE) as usize, "scope": 1, "device": self.outside.veth(),
            "abstract": format!("pipelock-e2e-{}", std::process::id()),
        })
    }

    /// Port 80 is used by a rule, for another name: so connects to it go to the proxy, and no further.
    fn sandbox() -> Sandbox {
        Sandbox::new(
            "egress: [{destination: web.test, ports: [80], scan: false}]\ndns: {hosts: {web.test: \"192.0.2.1\"}}",
        )
    }

    fn run(&self, user: &str, names: &[&str]) -> Tried {
        let sandbox = Self::sandbox().user(user);
        let script = sandbox.file("escapes.py", AGENT);
        let mut command = vec!["python3".to_owned(), script.display().to_string(), self.parameters().to_string()];
        command.extend(names.iter().map(|name| (*name).to_owned()));
        Tried::new(sandbox.run_ok(&command))
    }

    /// Nothing reached the host outside or a service of this host; and the counter does count.
    fn assert_untouched(self) {
        self.count.assert_none();
        for server in self.listeners.iter().chain([&self.host4, &self.host6]) {
            assert_eq!(server.connections(), 0, "somebody came to {}", server.addr);
        }
        for socket in [&self.host_udp, &self.host_udp6] {
            assert!(socket.recv(&mut [0; 64]).is_err(), "a datagram came to the host's UDP service");
        }
        TcpStream::connect((self.outside.there4, 4444)).expect("the host outside is really there");
        assert!(self.count.packets() > 0, "the counter of packets does not count");
    }
}

fn v6_only() -> TcpListener {
    TcpListener::bind("[::]:0").expect("bind")
}

/// What the agent said, by name, and the receipts.
struct Tried {
    run: Run,
    lines: BTreeMap<String, Value>,
}

impl Tried {
    /// What ran under `attach`, seen as a run.
    fn of(stdout: &[u8], evidence: Evidence, sandbox: Sandbox) -> Self {
        Self::new(Run::of(stdout, evidence, sandbox))
    }

    fn new(run: Run) -> Self {
        let lines = run.json_lines().into_iter().map(|line| (line["name"].as_str().expect("a name").to_owned(), line));
        let lines = lines.collect();
        Self { run, lines }
    }

    fn errno(&self, name: &str) -> i64 {
        self.lines[name]["errno"].as_i64().expect("a number")
    }

    fn got(&self, name: &str) -> &Value {
        &self.lines[name]["got"]
    }

    /// Flows of the process that tried this.
    fn flows(&self, name: &str) -> Vec<Flow> {
        let pid = self.lines[name]["pid"].as_u64().expect("a pid");
        let mut flows = self.run.evidence.flows();
        flows.retain(|flow| u64::from(flow.tgid) == pid);
        let comm: String = name.chars().take(15).collect();
        assert!(flows.iter().all(|flow| flow.comm == comm), "{name}: {flows:?}");
        flows
    }

    /// It failed with this error and left exactly one receipt of a denial for this reason, naming the right process.
    #[track_caller]
    fn assert_denied(&self, name: &str, errno: i64, reason: &str) -> Flow {
        assert_eq!(self.errno(name), errno, "{name}: {:?}\n{}", self.lines[name], self.run);
        let denied: Vec<_> = self.flows(name).into_iter().filter(|flow| flow.verdict == "block").collect();
        assert_eq!(denied.len(), 1, "{name}: {denied:#?}\n{}", self.run);
        assert_eq!(denied[0].reason, reason, "{name}: {denied:?}");
        denied[0].clone()
    }

    /// The system call filter refused the one socket it asked for, and there is one receipt of it, naming the process.
    #[track_caller]
    fn assert_socket_refused(&self, name: &str, errno: i32, target: &str) {
        assert_eq!(self.errno(name), i64::from(errno), "{name}: {:?}\n{}", self.lines[name], self.run);
        let pid = self.lines[name]["pid"].as_u64().expect("a pid");
        let sockets: Vec<_> = self.run.evidence.sockets().into_iter().filter(|socket| socket.tgid == pid).collect();
        let [socket] = sockets.as_slice() else { panic!("{name}: {sockets:?}\n{}", self.run) };
        let comm: String = name.chars().take(15).collect();
        assert_eq!((socket.target.as_str(), socket.comm.as_str(), socket.count), (target, comm.as_str(), 1), "{name}");
        assert_eq!((socket.verdict.as_str(), socket.reason.as_str()), ("block", "socket_denied"), "{name}");
    }
}

/// Each as nobody and as root: being root inside must change nothing.
const USERS: [&str; 2] = ["nobody", "root"];

#[test]
fn tcp_past_the_proxy() {
    need!("python3");
    for user in USERS {
        let world = World::new();
        let refused = [
            "tcp4",
            "tcp6",
            "tcp_mapped",
            "tcp_nat64",
            "tcp_6to4",
            "tcp_source_port",
            "fastopen4",
            "fastopen6",
            "fastopen_connect",
        ];
        let answered = ["direct4", "direct6", "direct_mapped", "metadata"];
        let others = ["tcp_port0", "reconnect", "direct_lying_host"];
        let tried = world.run(user, &[&refused[..], &answered, &others].concat());
        for name in refused {
            let flow = tried.assert_denied(name, REFUSED, "port_denied");
            assert_eq!((flow.orig_dst.port(), flow.proto.as_str()), (4444, "tcp"), "{flow:?}");
            assert_eq!(flow.uid == 0, user == "root", "{flow:?}");
        }
        let mapped = tried.assert_denied("tcp_mapped", REFUSED, "port_denied");
        assert_eq!(mapped.orig_dst.ip().to_string(), world.outside.there4.to_string());
        // On a port that a rule uses, the proxy answers: no rule names the address.
        for name in answered {
            let flow = tried.assert_denied(name, 0, "host_denied");
            assert_eq!(flow.orig_dst.port(), 80);
            let text = tried.got(name).as_str().expect("an answer");
            assert!(text.starts_with("HTTP/1.1 403") && text.contains("host_denied"), "{text}");
        }
        let text = tried.got("direct_lying_host").as_str().expect("an answer").to_owned();
        let flow = &tried.flows("direct_lying_host")[0];
        assert_eq!(flow.verdict, "block", "{text} {flow:?}");
        assert_ne!(tried.errno("tcp_port0"), 0);
        assert_eq!(tried.errno("reconnect"), REFUSED, "{}", tried.run);
        let reasons: Vec<_> = tried.flows("reconnect").iter().map(|flow| flow.kernel_reason.clone()).collect();
        assert_eq!(reasons, ["redirect", "port_denied"], "a flow for each connect: {}", tried.run);
        world.assert_untouched();
    }
}

#[test]
fn two_sockets_on_one_local_end() {
    need!("python3");
    let world = World::new();
    let tried = world.run("nobody", &["two_on_one_end"]);
    assert!(tried.got("two_on_one_end").as_u64().is_some_and(|begun| begun > 25), "{}", tried.run);
    // Each of the redirected ones was looked at as what it is.
    let redirected: Vec<_> =
        tried.flows("two_on_one_end").into_iter().filter(|flow| flow.kernel_reason == "redirect").collect();
    assert_eq!(redirected.len(), 50, "{}", tried.run);
    for flow in redirected {
        assert_eq!((flow.verdict.as_str(), flow.reason.as_str()), ("block", "ssrf_denied"), "{flow:?}");
    }
    world.assert_untouched();
}

#[test]
fn sockets_bound_to_a_device() {
    need!("python3");
    for user in USERS {
        let world = World::new();
        let refused = ["device_tcp", "device_tcp6", "device_udp", "device_probe"];
        // Past the hook for connects, or said with the datagram only: the backstop has these.
        let dropped = ["device_later", "device_ancillary", "device_unicast"];
        let tried = world.run(user, &[&refused[..], &dropped].concat());
        for name in refused {
            tried.assert_denied(name, EPERM, "device_denied");
        }
        for name in dropped {
            assert_ne!(tried.errno(name), 0, "{name}: {}", tried.run);
        }
        world.assert_untouched();
    }
}

#[test]
fn udp_past_the_proxy() {
    need!("python3");
    for user in USERS {
        let world = World::new();
        let plain = ["udp4", "udp6", "udp_mapped", "udp_quic", "udp_ancillary"];
        let connected = ["udp_connected", "udp_connected6"];
        let special = ["udp_multicast", "udp_multicast6", "udp_broadcast"];
        let after_dns = ["udp_redirected_then_connected", "udp6_redirected_then_connected"];
        let elsewhere = ["udp_redirected_then_elsewhere"];
        let tried = world.run(user, &[&plain[..], &connected, &special, &elsewhere, &after_dns].concat());
        for name in after_dns {
            let flow = tried.assert_denied(name, EPERM, "udp_denied");
            assert_eq!(flow.hook, "cgroup_skb/egress");
        }
        for name in plain {
            let flow = tried.assert_denied(name, EPERM, "udp_denied");
            assert!(flow.hook.starts_with("cgroup/sendmsg"), "{flow:?}");
        }
        for name in connected {
            // The connect alone reaches nobody and is let go; what is sent then is dropped by the backstop.
            let flow = tried.assert_denied(name, EPERM, "udp_denied");
            assert_eq!((flow.orig_dst.port(), flow.hook.as_str()), (4444, "cgroup_skb/egress"), "{flow:?}");
        }
        for name in special {
            tried.assert_denied(name, EPERM, "address_denied");
        }
        tried.assert_denied("udp_redirected_then_elsewhere", EPERM, "udp_denied");
        world.assert_untouched();
    }
}

/// The kernel itself announces who joins a group, from no socket, on any wire.
#[test]
fn groups_that_the_kernel_would_announce() {
    need!("python3");
    let groups = [
        ("join4", "239.77.88.1"),
        ("join4_on6", "239.77.88.2"),
        ("join4_source", "239.77.88.3"),
        ("join4_group", "239.77.88.4"),
        ("join4_group_src", "239.77.88.5"),
        ("filter4", "239.77.88.6"),
        ("join6", "ff15::7788:1"),
        ("join6_group", "ff15::7788:2"),
        ("join6_group_src", "ff15::7788:3"),
        ("join_short", "0.0.0.0"),
    ];
    for user in USERS {
        let world = World::new();
        let names: Vec<_> = groups.iter().map(|(name, _)| *name).chain(["option_sizes"]).collect();
        let tried = world.run(user, &names);
        let announced =
            |world: &World, group: &str| world.count.saw(&group.parse::<Ipv6Addr>().expect("a group").octets());
        world.count.assert_none();
        assert!(!announced(&world, "ff15::7788:1"), "{}", tried.run);
        assert_eq!(tried.got("option_sizes"), &json!([140_000, 100_000, 0]), "{}", tried.run);
        for (name, group) in groups {
            let flow = tried.assert_denied(name, EPERM, "address_denied");
            assert_eq!((flow.hook.as_str(), flow.orig_dst.ip().to_string().as_str()), ("cgroup/setsockopt", group));
        }
        // Who may join is heard.
        let index = std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", world.outside.veth()));
        let index = index.expect("the wire").trim().parse().expect("a number");
        let ours = UdpSocket::bind("[::]:0").expect("bind");
        ours.join_multicast_v6(&"ff15::7788:99".parse().expect("a group"), index).expect("join");
        std::thread::sleep(Duration::from_millis(100));
        let _ = world.count.packets();
        assert!(announced(&world, "ff15::7788:99"), "reports of groups are not seen at all");
        world.assert_untouched();
    }
}

#[test]
fn dns_to_a_server_of_its_own_choice() {
    need!("python3");
    let world = World::new();
    let tried = world.run("nobody", &["dns4", "dns6", "dns_connected", "dns_tcp"]);
    for (name, server) in [("dns4", world.outside.there4.to_string()), ("dns6", world.outside.there6.to_string())] {
        let got = tried.got(name);
        assert_eq!(got["allowed"]["rcode"], 0, "{}", tried.run);
        assert_eq!(got["allowed"]["answers"], 1, "{}", tried.run);
        // REFUSED, from what looks like the server that was asked.
        assert_eq!(got["denied"]["rcode"], 5, "{}", tried.run);
        assert_eq!(got["peer"].as_str(), Some(server.as_str()), "{}", tried.run);
        let flows = tried.flows(name);
        assert_eq!(flows.len(), 1, "{flows:?}");
        assert_eq!((flows[0].kernel_reason.as_str(), flows[0].requests), ("redirect_dns", 2), "{flows:?}");
        assert_eq!(flows[0].orig_dst.to_string(), format!("{}:53", bracket(&server)));
    }
    for name in ["dns_connected", "dns_tcp"] {
        assert_eq!(tried.got(name)["rcode"], 5, "{}", tried.run);
        tried.assert_denied(name, 0, "dns_denied");
    }
    let denied: Vec<_> = tried.run.evidence.queries().into_iter().filter(|query| query.verdict == "block").collect();
    assert_eq!(denied.len(), 4, "{denied:#?}");
    assert!(denied.iter().all(|query| query.reason == "dns_denied"), "{denied:#?}");
    world.assert_untouched();
}

fn bracket(addr: &str) -> String {
    if addr.contains(':') { format!("[{addr}]") } else { addr.to_owned() }
}

/// The error that the machine gives for these without us: whether it knows the protocol at all.
fn outside_errnos(names: &[&str]) -> BTreeMap<String, i64> {
    let out =
        std::process::Command::new("/usr/bin/python3").args(["-c", AGENT, "{}"]).args(names).output().expect("python3");
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| Some((line["name"].as_str()?.to_owned(), line["errno"].as_i64()?)))
        .collect()
}

/// What the hooks can see wherever the kernel has it, and what it refuses before any hook for want of a module or of a
/// capability, which not even root has inside: each has its receipt.
#[test]
fn other_protocols() {
    need!("python3");
    let hooked = ["mptcp", "mptcp6"];
    let bare = outside_errnos(&hooked);
    assert!(bare.values().all(|errno| *errno == 0), "this kernel has no MPTCP: {bare:?}");
    let filtered = [
        ("raw_icmp", "socket://inet/raw/1"),
        ("raw_ip", "socket://inet/raw/255"),
        ("raw_tcp6", "socket://inet6/raw/6"),
        ("packet_inet", "socket://inet/packet/768"),
        ("icmp", "socket://inet/dgram/1"),
        ("icmp6", "socket://inet6/dgram/58"),
        ("sctp", "socket://inet/stream/132"),
        ("sctp_many", "socket://inet/seqpacket/132"),
        ("udplite", "socket://inet/dgram/136"),
        ("udplite6", "socket://inet6/dgram/136"),
        ("dccp", "socket://inet/dccp/33"),
        ("l2tp", "socket://inet/dgram/115"),
    ];
    for user in USERS {
        let world = World::new();
        let names: Vec<_> = hooked.into_iter().chain(filtered.map(|(name, _)| name)).collect();
        let tried = world.run(user, &names);
        for name in hooked {
            let flow = tried.assert_denied(name, EPERM, "socket_denied");
            assert_eq!((flow.hook.as_str(), flow.proto.as_str()), ("cgroup/sock_create", "mptcp"), "{flow:?}");
        }
        for (name, target) in filtered {
            tried.assert_socket_refused(name, libc::EPERM, target);
        }
        assert_eq!(tried.run.evidence.kernel("sockets_refused"), filtered.len() as u64);
        world.assert_untouched();
    }
}

/// One that asks again and again is counted, not written down each time, and the count is right.
#[test]
fn a_socket_asked_for_in_a_loop() {
    need!("python3");
    let sandbox = World::sandbox();
    let loops = "import socket\n\
                 for _ in range(5000):\n try: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\n except PermissionError: pass\n";
    let run = sandbox.run_ok(&["python3", "-c", loops]);
    let sockets = run.evidence.sockets();
    assert_eq!(sockets.iter().map(|socket| socket.count).sum::<u64>(), 5000, "{run}");
    assert!(sockets.len() < 500, "{} receipts", sockets.len());
    assert_eq!(run.evidence.kernel("sockets_refused"), 5000);
}

/// What `run` never allows: an agent with every capability. Under `attach` the hooks alone have to hold.
#[test]
fn raw_sockets_of_a_privileged_agent() {
    need!("python3");
    let world = World::new();
    let cgroup = OwnCgroup::new();
    let sandbox = World::sandbox();
    let script = sandbox.file("escapes.py", AGENT);
    let attached = Attached::start(&cgroup.path, &sandbox.policy(), &sandbox.evidence());
    let out = cgroup
        .command("python3")
        .arg(script)
        .arg(world.parameters().to_string())
        .args(["raw_icmp", "raw_ip", "raw_tcp6", "mptcp", "icmp", "icmp6", "tcp4", "udp4", "host_own4", "mark"])
        .args(["join4", "join6", "anycast"])
        .output()
        .expect("python3");
    attached.end();
    let evidence = Evidence::read(&sandbox.evidence());
    let tried = Tried::of(&out.stdout, evidence, sandbox);
    for (name, proto) in [("raw_icmp", "icmp"), ("raw_ip", "ip255"), ("raw_tcp6", "tcp"), ("mptcp", "mptcp")] {
        let flow = tried.assert_denied(name, EPERM, "socket_denied");
        assert_eq!((flow.proto.as_str(), flow.hook.as_str(), flow.uid), (proto, "cgroup/sock_create", 0), "{flow:?}");
    }
    tried.assert_denied("tcp4", REFUSED, "port_denied");
    tried.assert_denied("udp4", EPERM, "udp_denied");
    tried.assert_denied("host_own4", REFUSED, "loopback_denied");
    for name in ["join4", "join6", "anycast"] {
        tried.assert_denied(name, EPERM, "address_denied");
    }
    assert!(!world.count.saw(&"ff15::7788:1".parse::<Ipv6Addr>().expect("a group").octets()));
    // A mark may be set with the capability; nothing is exempted by one.
    assert_eq!(tried.errno("mark"), 0);
    world.assert_untouched();
}

#[test]
fn other_families() {
    need!("python3");
    let families = [
        ("packet", "packet/raw/768"),
        ("packet_dgram", "packet/dgram/0"),
        ("vsock", "vsock/stream/0"),
        ("xdp", "xdp/raw/0"),
        ("alg", "alg/seqpacket/0"),
        ("key", "key/raw/2"),
        ("can", "can/raw/1"),
        ("bluetooth", "bluetooth/raw/1"),
        ("rds", "rds/seqpacket/0"),
        ("tipc", "tipc/dgram/0"),
        ("smc", "family43/stream/0"),
        ("rxrpc", "family33/dgram/0"),
        ("qrtr", "family42/dgram/0"),
    ];
    for user in USERS {
        let world = World::new();
        let netlink = ["netlink_diag", "netlink_netfilter", "netlink_route"];
        let tried = world.run(user, &[&families.map(|(name, _)| name)[..], &netlink].concat());
        for (name, target) in families {
            tried.assert_socket_refused(name, libc::EAFNOSUPPORT, &format!("socket://{target}"));
        }
        tried.assert_socket_refused("netlink_diag", libc::EPROTONOSUPPORT, "socket://netlink/raw/4");
        tried.assert_socket_refused("netlink_netfilter", libc::EPROTONOSUPPORT, "socket://netlink/raw/12");
        assert_eq!(tried.errno("netlink_route"), 0, "Java, Go and libc read it: {}", tried.run);
        world.assert_untouched();
    }
}

#[test]
fn system_calls() {
    need!("python3");
    let abstract_name = format!("pipelock-e2e-{}", std::process::id());
    let address = {
        use std::os::linux::net::SocketAddrExt as _;
        std::os::unix::net::SocketAddr::from_abstract_name(&abstract_name).expect("a name")
    };
    let _host = std::os::unix::net::UnixListener::bind_addr(&address).expect("bind");
    let eperm = [
        "pidfd_getfd",
        "open_tree",
        "fsopen",
        "bpf",
        "perf",
        "keyctl",
        "unshare_net",
        "unshare_user_net",
        "setns",
        "mount",
        "ptrace_outside",
        "kill_outside",
        "vm_read_outside",
        "mark",
        "transparent",
        "abstract",
    ];
    let enosys = ["io_uring", "clone3", "x32_socket"];
    let any = ["read_outside", "leave_cgroup", "child_cgroup", "bpffs", "bpffs_unlink"];
    for user in USERS {
        let world = World::new();
        let tried = world.run(user, &[&eperm[..], &enosys, &any].concat());
        let capsule = &tried.run.evidence.capsule()["confinement"];
        let mut wrong = Vec::new();
        for (names, errno) in [(&eperm[..], libc::EPERM), (&enosys, libc::ENOSYS)] {
            for name in names {
                if ["abstract", "kill_outside"].contains(name) && capsule["landlock_scoped"] == false {
                    continue;
                }
                if tried.errno(name) != i64::from(errno) {
                    wrong.push(format!("{name}: {}", tried.lines[*name]));
                }
            }
        }
        for name in any {
            if tried.errno(name) == 0 {
                wrong.push(format!("{name} worked"));
            }
        }
        assert!(wrong.is_empty(), "as {user}: {wrong:#?}");
        world.assert_untouched();
    }
}

#[test]
fn services_of_the_host() {
    need!("python3");
    for user in USERS {
        let world = World::new();
        let tcp = [
            "host_loopback4",
            "host_loopback_other",
            "host_loopback6",
            "host_any4",
            "host_any6",
            "host_mapped",
            "host_own4",
            "host_own6",
            "host_fastopen",
        ];
        let udp = ["host_udp", "host_udp_own"];
        // Connected, so that no hook asks about the send: the backstop must.
        let connected = [
            "host_udp_connected",
            "host_udp_after_dns",
            "host_udp_then_dns",
            "host_udp6_then_dns",
            "host_udp_own_then_dns",
        ];
        let tried = world.run(user, &[&tcp[..], &udp, &connected, &["proxy_itself"]].concat());
        for name in tcp {
            tried.assert_denied(name, REFUSED, "loopback_denied");
        }
        for name in udp {
            tried.assert_denied(name, EPERM, "loopback_denied");
        }
        for name in connected {
            assert_eq!(tried.errno(name), EPERM, "{name}: {}", tried.run);
            // A query whose answer nobody waited for may have a receipt of its own.
            let mut denied = tried.flows(name);
            denied.retain(|flow| flow.reason == "udp_denied");
            let [flow] = denied.as_slice() else { panic!("{name}: {denied:#?}\n{}", tried.run) };
            assert_eq!(flow.hook, "cgroup_skb/egress");
        }
        assert_eq!(tried.errno("proxy_itself"), REFUSED, "{}", tried.run);
        world.assert_untouched();
    }
}

#[test]
fn nobody_outside_gets_in() {
    need!("python3");
    let script = r#"
import json, os, select, socket, sys, time
here4, here6 = sys.argv[1:3]
socks = {}
for name, family, kind, addr in (("tcp4", socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0"), ("tcp6", socket.AF_INET6, socket.SOCK_STREAM, "::"),
                                 ("udp4", socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0"), ("udp6", socket.AF_INET6, socket.SOCK_DGRAM, "::")):
    s = socket.socket(family, kind)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((addr, 0))
    if kind == socket.SOCK_STREAM: s.listen()
    socks[name] = s
# The agent itself reaches its own servers on loopback, so they do listen.
socket.create_connection(("127.0.0.1", socks["tcp4"].getsockname()[1])); socks["tcp4"].accept()
json.dump({n: s.getsockname()[1] for n, s in socks.items()}, open("ports.tmp", "w")); os.rename("ports.tmp", "ports")
while not os.path.exists("tried"): time.sleep(0.01)
ready, _, _ = select.select(list(socks.values()), [], [], 0.1)
print(len(ready))
for addr in (here4, here6):
    try:
        socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET).bind((addr, 0)); print("bound")
    except OSError as e: print(e.errno)
"#;
    let outside = Outside::new();
    let (here4, here6) = (outside.here4.to_string(), outside.here6.to_string());
    let mut running = World::sandbox().spawn(&["python3", "-c", script, &here4, &here6]);
    running.wait_for("ports");
    let text = std::fs::read_to_string(running.sandbox.work().join("ports")).expect("ports");
    let ports: Value = serde_json::from_str(&text).expect("JSON");
    let port = |name: &str| u16::try_from(ports[name].as_u64().expect("a port")).expect("a port");
    let from = outside.enter(|| {
        let wait = Duration::from_millis(400);
        for addr in [(outside.here4, port("tcp4")).into(), (outside.here6, port("tcp6")).into()] {
            assert!(TcpStream::connect_timeout(&addr, wait).is_err(), "got in at {addr}");
        }
        let udp = UdpSocket::bind("[::]:0").expect("bind");
        udp.send_to(b"hello", (outside.here6, port("udp6"))).expect("send");
        let udp4 = UdpSocket::bind("0.0.0.0:0").expect("bind");
        udp4.send_to(b"hello", (outside.here4, port("udp4"))).expect("send");
        [udp4, udp].map(|socket| socket.local_addr().expect("bound").port())
    });
    running.sandbox.file("tried", "");
    let run = running.wait();
    assert_eq!(run.text().lines().collect::<Vec<_>>(), ["0", "1", "1"], "{run}");
    let inbound = run.evidence.with_reason("inbound_denied");
    let mut seen: Vec<_> = inbound.iter().map(|flow| (flow.proto.as_str(), flow.orig_dst.is_ipv6())).collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [("tcp", false), ("tcp", true), ("udp", false), ("udp", true)], "{run}");
    assert!(inbound.iter().all(|flow| flow.comm == "python3"), "{run}");
    // Both ends.
    for flow in inbound {
        let v6 = flow.orig_dst.is_ipv6();
        let (there, here): (IpAddr, IpAddr) = if v6 {
            (outside.there6.into(), outside.here6.into())
        } else {
            (outside.there4.into(), outside.here4.into())
        };
        let name = format!("{}{}", flow.proto, if v6 { 6 } else { 4 });
        assert_eq!((flow.orig_dst.ip(), flow.src), (there, Some((here, port(&name)).into())), "{flow:?}");
        assert!(flow.proto == "tcp" || flow.orig_dst.port() == from[usize::from(v6)], "{flow:?}");
    }
    assert_eq!(run.evidence.with_reason("listen_denied").len(), 2, "{run}");
}

#[test]
fn inherited_sockets() {
    need!("python3");
    let outside = Outside::new();
    let listener = outside.enter(|| TcpListener::bind("0.0.0.0:4444").expect("bind"));
    let server = HttpServer::with(listener, pipelock_e2e::echo);
    let socket = TcpStream::connect((outside.there4, 4444)).expect("connect");
    let count = outside.count();
    // A connected socket from outside, and a pipe beside it, handed on without close-on-exec.
    // SAFETY: plain numbers; 77 is a descriptor that this test alone uses.
    let handed = unsafe { libc::dup2(socket.as_raw_fd(), 77) };
    assert_eq!(handed, 77);
    let script = "import os\nfor fd in range(3, 200):\n  try: os.write(fd, b'SECRET'); print('open', fd)\n  except OSError: pass";
    let run = World::sandbox().run_ok(&["python3", "-c", script]);
    // SAFETY: ours, and not used after.
    unsafe { libc::close(77) };
    assert_eq!(run.text(), "", "{run}");
    count.assert_none();
    assert!(server.seen().is_empty());

    // As a standard descriptor it is refused before anything runs.
    let sandbox = World::sandbox();
    let out = sandbox
        .command(&["cat"])
        .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(socket.try_clone().expect("dup"))))
        .output()
        .expect("pipelock");
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(125), "{stderr}");
    assert!(stderr.contains("stdin") && stderr.contains("network socket"), "{stderr}");
    count.assert_none();
}
