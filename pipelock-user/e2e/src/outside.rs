//! A host outside: a network namespace behind a veth pair, with a counter of every packet that reaches it.
//!
//! Used by tests that must show that nothing gets out. Addresses and names are unique per test process; everything is
//! removed when an [`Outside`] is dropped.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

/// What our own datagrams end with.
const MARK: &[u8] = b"a mark of the pipelock e2e counter";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The namespace.
pub struct Outside {
    name: String,
    veth: String,
    /// Our end of the wire, IPv4.
    pub here4: Ipv4Addr,
    /// Our end of the wire, IPv6.
    pub here6: Ipv6Addr,
    /// Its address, IPv4.
    pub there4: Ipv4Addr,
    /// Its address, IPv6.
    pub there6: Ipv6Addr,
}

impl Outside {
    /// Makes the namespace and the wire.
    ///
    /// # Panics
    /// When `ip` fails.
    #[must_use]
    pub fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        // 64 tests of one process, 256 processes at a time: enough, and within 10.111.0.0/16.
        let low = u8::try_from(number % 64 * 4).expect("below 256");
        let third = u8::try_from(pid % 256).expect("below 256");
        let net6 = [0xfd11, 0x0111, u16::from(third), u16::try_from(number % 64).expect("small"), 0, 0, 0];
        let [a, b, c, d, e, f, g] = net6;
        let outside = Self {
            name: format!("pl-e2e-{pid}-{number}"),
            veth: format!("ple{}n{number}", pid % 100_000),
            here4: Ipv4Addr::new(10, 111, third, low + 1),
            there4: Ipv4Addr::new(10, 111, third, low + 2),
            here6: Ipv6Addr::new(a, b, c, d, e, f, g, 1),
            there6: Ipv6Addr::new(a, b, c, d, e, f, g, 2),
        };
        let Self { name, veth, here4, here6, there4, there6 } = &outside;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {veth} type veth peer name out0 netns {name}"));
        // No addresses that the kernel makes up, so that no chatter of its own is counted.
        ip(&format!("link set {veth} addrgenmode none"));
        ip(&format!("-n {name} link set out0 addrgenmode none"));
        ip(&format!("addr add {here4}/30 dev {veth}"));
        ip(&format!("addr add {here6}/64 dev {veth} nodad"));
        ip(&format!("link set {veth} up"));
        ip(&format!("-n {name} addr add {there4}/30 dev out0"));
        ip(&format!("-n {name} addr add {there6}/64 dev out0 nodad"));
        ip(&format!("-n {name} link set out0 up"));
        ip(&format!("-n {name} link set lo up"));
        ip(&format!("-n {name} route add default via {here4}"));
        outside
    }

    /// The file that stands for the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Name of our end of the wire.
    #[must_use]
    pub fn veth(&self) -> &str {
        &self.veth
    }

    /// Runs something inside the namespace; sockets made there stay there.
    ///
    /// # Panics
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.path()).expect("the namespace");
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&namespace, CloneFlags::CLONE_NEWNET).expect("setns");
                    act()
                })
                .join()
                .expect("inside the namespace")
        })
    }

    /// Counts IP packets that arrive from now on.
    ///
    /// # Panics
    /// When no packet socket can be made.
    #[must_use]
    pub fn count(&self) -> PacketCount {
        let socket = self.enter(packet_socket).expect("a packet socket");
        PacketCount::start(socket, self.there4)
    }
}

impl Default for Outside {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.veth]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

fn ip(args: &str) {
    let out = Command::new("ip").args(args.split(' ')).output().expect("ip");
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Packets that arrived outside.
pub struct PacketCount {
    there: Ipv4Addr,
    packets: Arc<AtomicU64>,
    marks: Arc<AtomicU64>,
    first: Arc<Mutex<Vec<String>>>,
    /// The start of what was not counted.
    chatter: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
}

/// How much of the chatter is kept, in bytes.
const CHATTER: usize = 1 << 20;

impl PacketCount {
    fn start(socket: OwnedFd, there: Ipv4Addr) -> Self {
        let count = Self {
            there,
            packets: Arc::new(AtomicU64::new(0)),
            marks: Arc::new(AtomicU64::new(0)),
            first: Arc::new(Mutex::new(Vec::new())),
            chatter: Arc::new(Mutex::new(Vec::new())),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let (packets, marks) = (count.packets.clone(), count.marks.clone());
        let (first, chatter, stop) = (count.first.clone(), count.chatter.clone(), count.stop.clone());
        std::thread::spawn(move || {
            let mut buffer = [0u8; 2048];
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: zeroed bytes are a valid sockaddr_ll.
                let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
                let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                // SAFETY: the buffers are ours and their sizes are given.
                let read = unsafe {
                    libc::recvfrom(
                        socket.as_raw_fd(),
                        buffer.as_mut_ptr().cast(),
                        buffer.len(),
                        0,
                        (&raw mut from).cast(),
                        &raw mut size,
                    )
                };
                let Ok(read) = usize::try_from(read) else { continue };
                let packet = buffer.get(..read).unwrap_or_default();
                if from.sll_pkttype == libc::PACKET_OUTGOING {
                    continue;
                }
                if is_chatter(packet) {
                    let mut chatter = chatter.lock().unwrap_or_else(PoisonError::into_inner);
                    if chatter.len() < CHATTER {
                        chatter.extend(packet);
                    }
                    continue;
                }
                if packet.ends_with(MARK) {
                    marks.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                packets.fetch_add(1, Ordering::Relaxed);
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                if first.len() < 8 {
                    first.push(format!("{:02x?}", packet.get(..packet.len().min(60)).unwrap_or_default()));
                }
            }
        });
        count
    }

    /// How many IP packets arrived until now, neighbour discovery left out.
    ///
    /// A datagram of our own is sent behind them and waited for: so what was on its way is counted, and the counter is
    /// shown to count.
    ///
    /// # Panics
    /// When our own datagram is not seen within ten seconds.
    #[must_use]
    pub fn packets(&self) -> u64 {
        // Packets of different processors may overtake each other by a softirq.
        std::thread::sleep(Duration::from_millis(30));
        let before = self.marks.load(Ordering::Relaxed);
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        socket.send_to(MARK, (self.there, 9)).expect("send a mark");
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.marks.load(Ordering::Relaxed) == before {
            assert!(Instant::now() < deadline, "the counter of packets does not count");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.packets.load(Ordering::Relaxed)
    }

    /// Whether these bytes arrived in a packet of the kernel's own, which is not counted: as the group in a report of groups.
    #[must_use]
    pub fn saw(&self, bytes: &[u8]) -> bool {
        let chatter = self.chatter.lock().unwrap_or_else(PoisonError::into_inner);
        chatter.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Asserts that nothing arrived.
    ///
    /// # Panics
    /// When something did; says what.
    pub fn assert_none(&self) {
        let packets = self.packets();
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(packets, 0, "packets got out: {first:#?}");
    }
}

impl Drop for PacketCount {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The kernel's own: ARP, unless it asks for a loopback address; neighbour and multicast listener discovery (ICMPv6 130 to
/// 143).
fn is_chatter(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => false,
        Some(6) => {
            let hop_by_hop = packet.get(6) == Some(&0);
            let icmp = packet.get(6) == Some(&58) && packet.get(40).is_some_and(|kind| (130..=143).contains(kind));
            hop_by_hop || icmp
        }
        // Ethernet and IPv4 (RFC 826); the address that is asked for are the last four bytes.
        _ => !packet.starts_with(&[0, 1, 8, 0, 6, 4]) || packet.get(24) != Some(&127),
    }
}

fn packet_socket() -> io::Result<OwnedFd> {
    let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: plain numbers; SOCK_DGRAM strips the Ethernet header.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    // SAFETY: the option takes a timeval of this size.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const timeout).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}
