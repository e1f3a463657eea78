//! The backstop: a packet of the agent passes only if it stays on this host and a flow accounts for it, or belongs to a
//! connection accepted under `listen: any`. Everything else is dropped, whatever socket or protocol made it.

use crate::emit::{Attempt, UDP, deny, forget_tuple, open_record_of, peer_to, peer_via, state_of, tuple_of};
use crate::facts::{lookup_tuple, receiver_of};
use crate::maps::{CONFIG, PORTS_OF_LOOPBACK, TUPLES, has_port};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use pipelock_common::{Addr, KernelReason, SockKey, SockState, hook, sock_flag};

/// Return value: the packet goes on.
const PASS: i32 = 1;
/// Return value: the packet is dropped; its sender sees EPERM.
const DROP: i32 = 0;

const TCP: u32 = 6;
const ETH_P_IP: u32 = 0x0800;
const ETH_P_IPV6: u32 = 0x86dd;
/// The flags of a TCP header (RFC 9293 §3.1).
const TCP_SYN: u8 = 2;
const TCP_ACK: u8 = 16;
/// `state` of a `bpf_sock` that listens.
const BPF_TCP_LISTEN: u32 = 10;
/// IPPROTO_HOPOPTS
const HOP_BY_HOP: u8 = 0;
/// IPV6_TLV_JUMBO
const JUMBO: u8 = 194;

/// Without padding: the verifier wants every byte of it initialised.
#[repr(C)]
struct Packet {
    src: Addr,
    dst: Addr,
    sport: u16,
    dport: u16,
    protocol: u32,
    /// 1 for the first packet of a TCP connection.
    syn: u32,
}

impl Packet {
    const EMPTY: Self = Self { src: Addr::NONE, dst: Addr::NONE, sport: 0, dport: 0, protocol: 0, syn: 0 };
}

#[cgroup_skb]
pub fn pl_egress(ctx: SkBuffContext) -> i32 {
    let mut packet = Packet::EMPTY;
    // Of what cannot be read nothing is known, so it goes the way of all that no flow accounts for.
    let is_read = pl_parse(ctx.skb.skb, &mut packet) != 0;
    // SAFETY: the socket of the packet.
    let Some(state) = (unsafe { state_of((*ctx.skb.skb).__bindgen_anon_2.sk) }) else {
        // A socket from before the attach that never connected since: it has no flow.
        let mut unknown = SockState::EMPTY;
        drop_packet(&ctx, &packet, &mut unknown, KernelReason::PacketDenied, hook::EGRESS);
        return DROP;
    };
    if is_read && is_on_loopback(&ctx) {
        if packet.protocol == TCP && state.flags & (sock_flag::LOCAL | sock_flag::LISTENING) != 0 {
            // A SYN is sent again and again, so it too may find another listener than the connect did. Later packets
            // belong to the connection that was made.
            let is_redirected = state.flags & sock_flag::REDIRECTED != 0;
            if packet.syn == 0 || is_still_there(ctx.skb.skb, &packet, is_redirected) {
                return PASS;
            }
            let mut reason = KernelReason::LoopbackDenied;
            if is_redirected {
                reason = KernelReason::ProxyDown;
                packet.dst = state.dst;
                packet.dport = state.dst_port;
            }
            drop_packet(&ctx, &packet, state, reason, hook::EGRESS);
            return DROP;
        }
        // What a UDP socket was allowed holds for one destination each: a connected one sends without being asked about,
        // whatever else it asked for since.
        // SAFETY: the socket of the packet.
        if packet.protocol == UDP
            && let Some(peer) = unsafe { peer_to((*ctx.skb.skb).__bindgen_anon_2.sk, packet.dst, packet.dport) }
        {
            // Whose socket it was when the send or connect was decided need not be whose it is now, and the source that a
            // datagram names for itself can choose among sockets that share a port.
            let owner = pl_owner(ctx.skb.skb, &packet);
            let mut reason = KernelReason::LoopbackDenied;
            if peer.via != 0 {
                // The record names where the agent wanted to go.
                if owner & sock_flag::PROXY == 0 {
                    // The resolver that it was redirected to is gone.
                    reason = KernelReason::ProxyDown;
                } else if note_udp(peer.flow_id, &packet, ctx.len()) {
                    return PASS;
                } else {
                    reason = KernelReason::UdpDenied;
                }
                packet.dst = peer.dst;
                packet.dport = peer.port;
            } else if owner & sock_flag::AGENT != 0 || has_port(PORTS_OF_LOOPBACK, packet.dport) {
                return PASS;
            }
            drop_packet(&ctx, &packet, state, reason, hook::EGRESS);
            return DROP;
        }
    }
    if packet.protocol == TCP {
        // What was accepted under a policy that let the outside in does not outlive it.
        if state.flags & (sock_flag::LISTENING | sock_flag::INBOUND) != 0 && listens_to_any() {
            return PASS;
        }
    }
    let reason = if packet.protocol == UDP { KernelReason::UdpDenied } else { KernelReason::PacketDenied };
    drop_packet(&ctx, &packet, state, reason, hook::EGRESS);
    DROP
}

#[cgroup_skb]
pub fn pl_ingress(ctx: SkBuffContext) -> i32 {
    let mut packet = Packet::EMPTY;
    let is_read = pl_parse(ctx.skb.skb, &mut packet) != 0;
    // SAFETY: the socket of the packet.
    let state = unsafe { state_of((*ctx.skb.skb).__bindgen_anon_2.sk) };
    if is_read && is_on_loopback(&ctx) {
        // SAFETY: the socket of the packet.
        if packet.protocol == UDP
            && let Some(peer) = unsafe { peer_via((*ctx.skb.skb).__bindgen_anon_2.sk, packet.sport) }
            && let Some(record) = open_record_of(peer.flow_id)
        {
            // A lost addition under a race would make a byte count low.
            record.rx_bytes += u64::from(ctx.len());
        }
        return PASS;
    }
    if packet.protocol == TCP && listens_to_any() {
        return PASS;
    }
    let mut unknown = SockState::EMPTY;
    let state = match state {
        Some(state) => state,
        None => &mut unknown,
    };
    drop_packet(&ctx, &packet, state, KernelReason::InboundDenied, hook::INGRESS);
    DROP
}

/// Whether the packet goes through the loopback device, and so does not leave this host (or network namespace). Addresses
/// are no proof of that: an agent can bind some that are not the host's (IPV6_FREEBIND), and the host can lose its own.
#[inline(always)]
fn is_on_loopback(ctx: &SkBuffContext) -> bool {
    /// LOOPBACK_IFINDEX: the loopback device is the first in every network namespace.
    const LOOPBACK: u32 = 1;
    // SAFETY: the context is valid.
    unsafe { (*ctx.skb.skb).ifindex == LOOPBACK }
}

#[inline(always)]
fn listens_to_any() -> bool {
    CONFIG.get(0).is_some_and(|config| config.listen_any == 1)
}

/// Whether the listener that a connect was decided about is still the one that its first packet will reach.
#[inline(always)]
fn is_still_there(skb: *mut __sk_buff, packet: &Packet, is_redirected: bool) -> bool {
    let owner = pl_owner(skb, packet);
    if is_redirected {
        return owner & sock_flag::PROXY != 0;
    }
    owner & sock_flag::AGENT != 0 || has_port(PORTS_OF_LOOPBACK, packet.dport)
}

/// The flags of the socket that will receive this packet; none when it is none of ours. Apart for the reason that
/// [`pl_parse`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_owner(skb: *mut __sk_buff, packet: *const Packet) -> u32 {
    if packet.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier sees to it that it is whole.
    let packet = unsafe { &*packet };
    let mut tuple = lookup_tuple(&packet.src, packet.sport, &packet.dst, packet.dport);
    // SAFETY: the program's context.
    let (flags, state) = unsafe { receiver_of(skb.cast(), &mut tuple, packet.dst.is_v4(), packet.protocol) };
    if packet.protocol == UDP || state == BPF_TCP_LISTEN {
        return flags;
    }
    // What the SYN meets is an earlier connection from the same port, most often in TIME-WAIT at the other end. Nothing is
    // given to that: the kernel answers, or makes way for the listener (RFC 6191), which has no foreign port to be found by.
    let mut tuple = lookup_tuple(&packet.src, 0, &packet.dst, packet.dport);
    // SAFETY: as above.
    unsafe { receiver_of(skb.cast(), &mut tuple, packet.dst.is_v4(), packet.protocol) }.0
}

/// Files the local port of a redirected UDP socket, which is known only now, and counts its bytes. False when the flow is over:
/// the datagram would be in no receipt. So it is when a proxy that closed the cgroup in was followed by another. False too
/// when another socket that shares the port has an open flow to the same place: the resolver could not tell whose it is.
#[inline(always)]
fn note_udp(flow_id: u64, packet: &Packet, len: u32) -> bool {
    pl_note_udp(flow_id, packet, len) != 0
}

/// As [`note_udp`]; apart for the reason that [`pl_parse`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_note_udp(flow_id: u64, packet: *const Packet, len: u32) -> u32 {
    if packet.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier sees to it that it is whole.
    let packet = unsafe { &*packet };
    let Some(record) = open_record_of(flow_id) else { return 0 };
    if record.src_port != packet.sport || record.src != packet.src {
        forget_tuple(record);
        record.src = packet.src;
        record.src_port = packet.sport;
    }
    let key = tuple_of(record);
    // SAFETY: read at once.
    match unsafe { TUPLES.get(key) } {
        Some(filed) if *filed == flow_id => {}
        Some(filed) if open_record_of(*filed).is_some() => return 0,
        // Full, and the resolver finds no flow: it answers nothing.
        _ => drop(TUPLES.insert(key, flow_id, 0)),
    }
    record.tx_bytes += u64::from(len);
    1
}

#[inline(always)]
fn drop_packet(ctx: &SkBuffContext, packet: &Packet, state: &mut SockState, reason: KernelReason, hook: u8) {
    pl_drop(ctx.skb.skb, packet, state, reason as u32, u32::from(hook));
}

/// Records a packet that is dropped; apart for the reason that [`pl_parse`] is. Always 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_drop(
    skb: *mut __sk_buff,
    packet: *const Packet,
    state: *mut SockState,
    reason: u32,
    hook: u32,
) -> u32 {
    if packet.is_null() || state.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier sees to it that they are whole. The context is the program's.
    let (packet, state, cookie) = unsafe { (&*packet, &mut *state, bpf_get_socket_cookie(skb.cast())) };
    let mut attempt = Attempt {
        // Older kernels do not tell a packet program the namespace; the socket's cookie alone is unique.
        sock: SockKey { netns: 0, cookie },
        dst: packet.dst,
        port: packet.dport,
        told_by: packet.dport,
        protocol: packet.protocol as u16,
        family: if packet.dst.is_v4() { 4 } else { 6 },
        hook: hook as u8,
        ..Attempt::EMPTY
    };
    if hook == u32::from(hook::INGRESS) {
        // Seen from the agent, the peer is the destination whichever way the packet went.
        attempt.dst = packet.src;
        attempt.port = packet.sport;
        attempt.src = packet.dst;
        attempt.src_port = packet.dport;
    }
    deny(&attempt, state, reason);
    0
}

/// TCP's own batches of more than 64 KiB carry their length in a hop-by-hop option (RFC 2675), put there by the kernel.
/// Any other extension header hides the transport; such a packet has no flow of ours and is dropped as "other".
#[inline(always)]
fn behind_jumbo(ctx: &SkBuffContext) -> Option<(u8, usize)> {
    let option: [u8; 4] = ctx.load(40).ok()?;
    let is_alone = option[1] == 0 && option[2] == JUMBO && option[3] == 4;
    Some(if is_alone { (option[0], 48) } else { (HOP_BY_HOP, 40) })
}

/// Reads the headers of a packet; 0 when they are none that are known. A function of its own to the kernel: what comes out
/// of it is any packet to the verifier, so that it walks what is done about packets once, not for each kind of them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_parse(skb: *mut __sk_buff, packet: *mut Packet) -> u32 {
    if packet.is_null() {
        return 0;
    }
    match parse(&SkBuffContext::new(skb)) {
        Some(found) => {
            // SAFETY: not null, and the verifier sees to it that it is whole.
            unsafe { *packet = found };
            1
        }
        None => 0,
    }
}

/// Reads each header with one call: a call costs more than the bytes.
#[inline(always)]
fn parse(ctx: &SkBuffContext) -> Option<Packet> {
    // SAFETY: the context is valid.
    let ether = u32::from(u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16));
    let (src, dst, protocol, header) = if ether == ETH_P_IP {
        // RFC 791 §3.1: length in words in the low half of the first octet, the protocol in the tenth.
        let ip: [u32; 5] = ctx.load(0).ok()?;
        let (length, protocol) = (ip[0].to_ne_bytes()[0] & 0x0f, ip[2].to_ne_bytes()[1]);
        (Addr::from_be4(ip[3]), Addr::from_be4(ip[4]), u32::from(protocol), usize::from(length) * 4)
    } else if ether == ETH_P_IPV6 {
        // RFC 8200 §3: the next header in the seventh octet.
        let ip: [u32; 10] = ctx.load(0).ok()?;
        let next = ip[1].to_ne_bytes()[2];
        let (next, header) = if next == HOP_BY_HOP { behind_jumbo(ctx)? } else { (next, 40) };
        (Addr([ip[2], ip[3], ip[4], ip[5]]), Addr([ip[6], ip[7], ip[8], ip[9]]), u32::from(next), header)
    } else {
        return None;
    };
    let (mut sport, mut dport, mut syn) = (0, 0, 0);
    if protocol == TCP {
        // As far as the flags (RFC 9293 §3.1).
        let tcp: [u16; 7] = ctx.load(header).ok()?;
        (sport, dport) = (u16::from_be(tcp[0]), u16::from_be(tcp[1]));
        syn = u32::from(tcp[6].to_ne_bytes()[1] & (TCP_SYN | TCP_ACK) == TCP_SYN);
    } else if protocol == UDP {
        let ports: [u16; 2] = ctx.load(header).ok()?;
        (sport, dport) = (u16::from_be(ports[0]), u16::from_be(ports[1]));
    }
    Some(Packet { src, dst, sport, dport, protocol, syn })
}
