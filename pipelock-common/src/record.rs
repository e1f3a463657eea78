//! What the maps hold. Fixed-width integers only, padding explicit, no `bool`, no enums with data: the verifier and
//! `Pod` both punish anything else.

use crate::Addr;

/// What identifies a socket: unique among all sockets since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SockKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// Cookie of the socket.
    pub cookie: u64,
}

/// The local end of a connection, by which the proxy finds the flow of a socket that it accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TupleKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// The agent's address.
    pub addr: Addr,
    /// The agent's port, host order.
    pub port: u16,
    /// IPPROTO_TCP or IPPROTO_UDP.
    pub protocol: u8,
    /// 4 or 6: the family of the listener that was reached.
    pub family: u8,
    /// Which listener was reached: of the resolver's UDP sockets by slot (see [`UdpPeers`]), for TCP one of
    /// [`tuple_slot`]. A local end is one connection's only together with where it leads.
    pub slot: u32,
}

/// Where a TCP connection leads, as [`TupleKey::slot`].
pub mod tuple_slot {
    use crate::KernelReason;

    /// The transparent listener of the proxy.
    pub const PROXY: u32 = 0;
    /// The resolver.
    pub const DNS: u32 = 1;
    /// A listener of the agent's own.
    pub const OWN: u32 = 2;

    /// Of a flow with this [`KernelReason`].
    #[inline(always)]
    #[must_use]
    pub const fn of(reason: u8) -> u32 {
        if reason == KernelReason::Redirect as u8 {
            PROXY
        } else if reason == KernelReason::RedirectDns as u8 {
            DNS
        } else {
            OWN
        }
    }
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct OwnKey {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// The address.
    pub addr: Addr,
}

/// Where the proxy listens in one network namespace; ports in host order, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Listeners {
    /// Transparent listener on 127.0.0.1.
    pub tcp4: u16,
    /// Transparent listener on ::1.
    pub tcp6: u16,
    /// Resolver on 127.0.0.1: UDP by slot of [`UdpPeers`]; TCP on the first.
    pub dns4: [u16; UDP_PEERS],
    /// Resolver on ::1, likewise.
    pub dns6: [u16; UDP_PEERS],
}

/// Settings that the programs read on every decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// 1 when the policy says `listen: any`.
    pub listen_any: u32,
    /// Counts policy loads; stored in every flow, so that a receipt can name the policy that was in force.
    pub generation: u32,
    /// [`crate::LAYOUT`] of the one who made the maps.
    pub layout: u32,
}

/// A set of ports as a bit map.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PortSet {
    /// Bit `port % 64` of word `port / 64`.
    pub words: [u64; 1024],
}

/// One flow, from the moment the kernel decided it until its receipt is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FlowRecord {
    /// 1, 2, 3 … within the attachment.
    pub flow_id: u64,
    /// The socket. Its cookie is 0 where the hook is not told it (`setsockopt`) and for packets that belong to no socket; the
    /// namespace's is 0 for packets.
    pub sock: SockKey,
    /// Id of the cgroup of the process.
    pub cgroup_id: u64,
    /// When it was decided: nanoseconds since boot, including sleep.
    pub opened_ns: u64,
    /// When the socket was closed, same clock; 0 while open.
    pub closed_ns: u64,
    /// Bytes sent by the agent and acknowledged; of UDP, IP packets whole. Of TCP known when the
    /// other side has closed, or all is over.
    pub tx_bytes: u64,
    /// Bytes received by the agent, likewise; of TCP, one more when the agent closed first and the other side's FIN came.
    pub rx_bytes: u64,
    /// Where the agent wanted to go.
    pub dst: Addr,
    /// The agent's end; zero when it never had one.
    pub src: Addr,
    /// Name of the process, NUL padded.
    pub comm: [u8; 16],
    /// Thread id, initial namespace.
    pub pid: u32,
    /// Process id, initial namespace.
    pub tgid: u32,
    /// User id, initial namespace.
    pub uid: u32,
    /// Group id, initial namespace.
    pub gid: u32,
    /// [`Config::generation`] when it was decided.
    pub generation: u32,
    /// Destination port, host order.
    pub dst_port: u16,
    /// The agent's port, host order; 0 when it never had one.
    pub src_port: u16,
    /// IPPROTO_* of the socket (MPTCP is 262).
    pub protocol: u16,
    /// SOCK_* of the socket.
    pub sock_type: u8,
    /// 4 or 6: the family of the socket.
    pub family: u8,
    /// A [`crate::KernelReason`].
    pub reason: u8,
    /// A [`FlowState`].
    pub state: u8,
    /// One of [`hook`].
    pub hook: u8,
    /// The slot of [`UdpPeers`] that a UDP flow has; 0 for others.
    pub slot: u8,
}

impl FlowRecord {
    /// [`TupleKey::slot`] of the flow.
    #[inline(always)]
    #[must_use]
    pub const fn tuple_slot(&self) -> u32 {
        /// IPPROTO_UDP
        const UDP: u16 = 17;
        if self.protocol == UDP { self.slot as u32 } else { tuple_slot::of(self.reason) }
    }

    /// A record before it is filled in.
    pub const EMPTY: Self = Self {
        flow_id: 0,
        sock: SockKey { netns: 0, cookie: 0 },
        cgroup_id: 0,
        opened_ns: 0,
        closed_ns: 0,
        tx_bytes: 0,
        rx_bytes: 0,
        dst: Addr::NONE,
        src: Addr::NONE,
        comm: [0; 16],
        pid: 0,
        tgid: 0,
        uid: 0,
        gid: 0,
        generation: 0,
        dst_port: 0,
        src_port: 0,
        protocol: 0,
        sock_type: 0,
        family: 0,
        reason: 0,
        state: FlowState::Filling as u8,
        hook: 0,
        slot: 0,
    };
}

/// How far a flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlowState {
    /// Decided; the connection is being made or is in use.
    Open = 0,
    /// TCP is established.
    Established = 1,
    /// Over: denied, or the socket is closed.
    Closed = 2,
    /// Being filled in; not to be read yet.
    Filling = 3,
}

/// Denials that are alike, counted instead of recorded one by one because too many of them wait for their receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DenialKey {
    /// Where to; with all else but the reason zero for what found no place of its own in the table.
    pub dst: Addr,
    /// [`Config::generation`] when they were decided.
    pub generation: u32,
    /// Destination port, host order; of a packet from outside the port of the agent that it was for, since those of the
    /// other end are as many as it likes.
    pub port: u16,
    /// IPPROTO_* of the socket.
    pub protocol: u16,
    /// A [`crate::KernelReason`].
    pub reason: u8,
    /// One of [`hook`].
    pub hook: u8,
    /// 4 or 6: the family of the socket.
    pub family: u8,
    /// Padding, zero.
    pub pad: u8,
}

impl DenialKey {
    /// The key of all denials of a reason that found no place of their own.
    #[inline(always)]
    #[must_use]
    pub const fn rest(reason: u8) -> Self {
        Self { dst: Addr::NONE, generation: 0, port: 0, protocol: 0, reason, hook: 0, family: 0, pad: 0 }
    }
}

/// How many denials there were of one [`DenialKey`]. It only ever grows: what was reported is remembered elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DenialCount {
    /// How many.
    pub count: u64,
    /// When the first was: nanoseconds since boot, including sleep.
    pub first_ns: u64,
    /// When the last was, same clock.
    pub last_ns: u64,
    /// Name of the process that was denied last, NUL padded.
    pub comm: [u8; 16],
    /// Its process id, initial namespace.
    pub tgid: u32,
    /// Its user id, initial namespace.
    pub uid: u32,
    /// Of packets from outside: the address of the agent that the first was for.
    pub src: Addr,
    /// Of packets from outside: the other end's port of the first, host order.
    pub peer_port: u16,
    /// Padding, zero.
    pub pad: [u16; 3],
}

/// What the user side has done with the records, so that the programs know how full the table is. Written by it alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settled {
    /// Records that were removed since the attachment began.
    pub flows: u64,
    /// Denials among them that count no longer against [`crate::DENIAL_QUOTA`].
    pub denials: u64,
}

/// What the programs remember with a socket. Every socket created inside the cgroup has one; so have the proxy's own
/// listeners, put there by the proxy, which is how a redirect knows that it leads to the proxy and nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SockState {
    /// The flow this socket carries now; 0 for none.
    pub flow_id: u64,
    /// Id of the cgroup of the process that created or last connected the socket.
    pub cgroup_id: u64,
    /// Where that flow was going before it was redirected.
    pub dst: Addr,
    /// The destination that was denied last on this socket, by whichever program, so that retries are counted and not
    /// recorded anew.
    pub dropped: Addr,
    /// Name of that process.
    pub comm: [u8; 16],
    /// Thread id.
    pub pid: u32,
    /// Process id.
    pub tgid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Bits of [`sock_flag`]; the upper eight hold the reason of the last denial, plus one.
    pub flags: u32,
    /// Port of `dst`, host order.
    pub dst_port: u16,
    /// Port of `dropped`, host order.
    pub dropped_port: u16,
}

impl SockState {
    /// A socket nothing is known of yet.
    pub const EMPTY: Self = Self {
        flow_id: 0,
        cgroup_id: 0,
        dst: Addr::NONE,
        dropped: Addr::NONE,
        comm: [0; 16],
        pid: 0,
        tgid: 0,
        uid: 0,
        gid: 0,
        flags: 0,
        dst_port: 0,
        dropped_port: 0,
    };

    /// The proxy's mark on its own listeners.
    #[must_use]
    pub const fn proxy() -> Self {
        Self { flags: sock_flag::PROXY, ..Self::EMPTY }
    }
}

/// Destinations that one UDP socket may alternate between and go on with the same flows: as many as a resolver's
/// configuration has name servers (resolv.conf(5), MAXNS is 3), and one more. A power of two.
pub const UDP_PEERS: usize = 4;

/// One destination of a UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UdpPeer {
    /// The flow; 0 for none.
    pub flow_id: u64,
    /// Where to, as the agent asked.
    pub dst: Addr,
    /// Port of `dst`, host order.
    pub port: u16,
    /// Port of the resolver that it is redirected to, by which its packets are told from others; 0 when it is not.
    pub via: u16,
    /// Padding, zero.
    pub pad: u32,
}

/// The destinations of a UDP socket. Each has a slot, and the resolver a socket for each slot: so a datagram belongs to
/// one flow, whatever the agent sent before or after it from the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UdpPeers {
    /// By slot.
    pub peers: [UdpPeer; UDP_PEERS],
    /// The slot that the next new destination takes.
    pub next: u32,
    /// Padding, zero.
    pub pad: u32,
}

/// What the ring carries: which flow changed. The flow itself is in the map, so a lost event loses no evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// The flow.
    pub flow_id: u64,
}

/// Bits of [`SockState::flags`].
pub mod sock_flag {
    /// Created inside the cgroup.
    pub const AGENT: u32 = 1;
    /// A listener of the proxy.
    pub const PROXY: u32 = 2;
    /// TCP: packets to loopback and own addresses are accounted for. What UDP was allowed is in [`super::UdpPeers`].
    pub const LOCAL: u32 = 4;
    /// The flow was redirected: the peer the agent sees is the one it asked for.
    pub const REDIRECTED: u32 = 8;
    /// Listens.
    pub const LISTENING: u32 = 16;
    /// Accepted from outside under `listen: any`.
    pub const INBOUND: u32 = 32;
}

/// Which program decided a flow.
pub mod hook {
    /// cgroup/connect4
    pub const CONNECT4: u8 = 1;
    /// cgroup/connect6
    pub const CONNECT6: u8 = 2;
    /// cgroup/sendmsg4
    pub const SENDMSG4: u8 = 3;
    /// cgroup/sendmsg6
    pub const SENDMSG6: u8 = 4;
    /// cgroup/sock_create
    pub const SOCK_CREATE: u8 = 5;
    /// cgroup/bind4
    pub const BIND4: u8 = 6;
    /// cgroup/bind6
    pub const BIND6: u8 = 7;
    /// cgroup/post_bind4
    pub const POST_BIND4: u8 = 8;
    /// cgroup/post_bind6
    pub const POST_BIND6: u8 = 9;
    /// cgroup_skb/egress
    pub const EGRESS: u8 = 10;
    /// cgroup_skb/ingress
    pub const INGRESS: u8 = 11;
    /// sock_ops
    pub const SOCK_OPS: u8 = 12;
    /// cgroup/setsockopt
    pub const SETSOCKOPT: u8 = 13;

    /// The name of the hook as `bpftool` prints its kind, or `unknown`.
    #[must_use]
    pub const fn name(hook: u8) -> &'static str {
        match hook {
            CONNECT4 => "cgroup/connect4",
            CONNECT6 => "cgroup/connect6",
            SENDMSG4 => "cgroup/sendmsg4",
            SENDMSG6 => "cgroup/sendmsg6",
            SOCK_CREATE => "cgroup/sock_create",
            BIND4 => "cgroup/bind4",
            BIND6 => "cgroup/bind6",
            POST_BIND4 => "cgroup/post_bind4",
            POST_BIND6 => "cgroup/post_bind6",
            EGRESS => "cgroup_skb/egress",
            INGRESS => "cgroup_skb/ingress",
            SOCK_OPS => "sock_ops",
            SETSOCKOPT => "cgroup/setsockopt",
            _ => "unknown",
        }
    }
}

/// Slots of the counter map: one per [`crate::KernelReason`] first, then these.
pub mod counter {
    use crate::KernelReason;

    /// Attempts on one socket to one denied destination after the first, which alone is a flow.
    pub const REPEATS: u32 = KernelReason::COUNT;
    /// Flows denied because they could not be recorded; their numbers are missing from the evidence.
    pub const UNRECORDED: u32 = KernelReason::COUNT + 1;
    /// Events that found the ring full; the flows were found by scanning the map.
    pub const EVENTS_LOST: u32 = KernelReason::COUNT + 2;
    /// UDP connects that reach nobody (see [`crate::Route::Probe`]).
    pub const PROBES: u32 = KernelReason::COUNT + 3;
    /// First of the slots that count denials without a record, one per [`crate::KernelReason`] (see [`crate::DenialKey`]).
    pub const COUNTED: u32 = KernelReason::COUNT + 4;
    /// How many slots there are.
    pub const COUNT: u32 = COUNTED + KernelReason::COUNT;
}
