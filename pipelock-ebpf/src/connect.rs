//! connect4 and connect6: every connect is redirected, local or refused; getpeername shows the agent what it asked for.

use crate::emit::{
    Attempt, ECONNREFUSED, EPERM, finish, is_repeat, note_denial, note_origin, open, open_record_of, state_of,
};
use crate::facts::KernelFacts;
use crate::maps::{count, sock_state_or_new, udp_peers, udp_peers_or_new};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use pipelock_common::{
    Addr, KernelReason, Query, Route, SockKey, UDP_PEERS, UdpPeer, UdpPeers, counter, decide, hook, sock_flag,
};

/// Return value: the call goes on.
pub const PASS: i32 = 1;
/// Return value: the call fails, with EPERM unless another error was set.
pub const REFUSE: i32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn pl_connect4(ctx: SockAddrContext) -> i32 {
    steer(&ctx, false, true, hook::CONNECT4)
}

#[cgroup_sock_addr(connect6)]
pub fn pl_connect6(ctx: SockAddrContext) -> i32 {
    steer(&ctx, true, true, hook::CONNECT6)
}

#[cgroup_sock_addr(getpeername4)]
pub fn pl_getpeername4(ctx: SockAddrContext) -> i32 {
    show_peer(&ctx, false);
    PASS
}

#[cgroup_sock_addr(getpeername6)]
pub fn pl_getpeername6(ctx: SockAddrContext) -> i32 {
    show_peer(&ctx, true);
    PASS
}

/// The address in the context, normalised, and the port in host order.
#[inline(always)]
pub fn destination(addr: *const bpf_sock_addr, is_v6: bool) -> (Addr, u16) {
    // SAFETY: the context is valid for the whole run; the verifier wants each 32-bit word read on its own.
    unsafe {
        let dst = if is_v6 {
            let a = core::ptr::read_volatile(&raw const (*addr).user_ip6[0]);
            let b = core::ptr::read_volatile(&raw const (*addr).user_ip6[1]);
            let c = core::ptr::read_volatile(&raw const (*addr).user_ip6[2]);
            let d = core::ptr::read_volatile(&raw const (*addr).user_ip6[3]);
            Addr([a, b, c, d])
        } else {
            Addr::from_be4(core::ptr::read_volatile(&raw const (*addr).user_ip4))
        };
        let port = u16::from_be(core::ptr::read_volatile(&raw const (*addr).user_port) as u16);
        (dst, port)
    }
}

/// Writes an address and port into the context.
#[inline(always)]
pub fn write_address(addr: *mut bpf_sock_addr, is_v6: bool, to: Addr, port: u16) {
    let words = to.0;
    // SAFETY: as in `destination`.
    unsafe {
        if is_v6 {
            core::ptr::write_volatile(&raw mut (*addr).user_ip6[0], words[0]);
            core::ptr::write_volatile(&raw mut (*addr).user_ip6[1], words[1]);
            core::ptr::write_volatile(&raw mut (*addr).user_ip6[2], words[2]);
            core::ptr::write_volatile(&raw mut (*addr).user_ip6[3], words[3]);
        } else {
            core::ptr::write_volatile(&raw mut (*addr).user_ip4, words[3]);
        }
        core::ptr::write_volatile(&raw mut (*addr).user_port, u32::from(port.to_be()));
    }
}

/// Refuses the call with this error.
#[inline(always)]
pub fn refuse(errno: i32) -> i32 {
    // SAFETY: a plain number; without it the kernel would say EPERM.
    unsafe { bpf_set_retval(-errno) };
    REFUSE
}

/// Decides a connect or send and carries it out.
#[inline(always)]
pub fn steer(ctx: &SockAddrContext, is_v6: bool, is_connect: bool, hook: u8) -> i32 {
    let addr = ctx.sock_addr;
    let (dst, port) = destination(addr, is_v6);
    // SAFETY: the context is valid; `sk` is the socket of the call.
    let (protocol, sock_type, sk) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*addr).protocol),
            core::ptr::read_volatile(&raw const (*addr).type_),
            (*addr).__bindgen_anon_1.sk,
        )
    };
    if sk.is_null() {
        return REFUSE;
    }
    // SAFETY: both take the context.
    let (netns, cookie) = unsafe { (bpf_get_netns_cookie(ctx.as_ptr()), bpf_get_socket_cookie(ctx.as_ptr())) };
    // SAFETY: `sk` is not null and comes from the context.
    let Some(state) = (unsafe { sock_state_or_new(sk) }) else {
        return REFUSE;
    };
    // SAFETY: socket storage, which lives as long as the socket.
    let state = unsafe { &mut *state };
    note_origin(state);
    // The hook runs for sockets created inside the cgroup only, also for those created before the attach.
    state.flags |= sock_flag::AGENT;
    let mut attempt = Attempt {
        sock: SockKey { netns, cookie },
        dst,
        port,
        told_by: port,
        protocol: protocol as u16,
        sock_type: sock_type as u8,
        family: if is_v6 { 6 } else { 4 },
        hook,
        ..Attempt::EMPTY
    };
    let is_udp = protocol == crate::emit::UDP;
    let (mut is_same, mut before) = (false, state.flow_id);
    if is_udp {
        // SAFETY: `sk` is not null and comes from the context.
        let Some(peers) = (unsafe { udp_peers_or_new(sk) }) else { return REFUSE };
        let found = pl_slot(peers, &attempt);
        attempt.slot = (found & SLOT) as u8;
        // SAFETY: socket storage; the index is a byte in memory, so that the mask stays (see `has_port`).
        before = unsafe { (&(*peers).peers)[slot_of(&attempt)].flow_id };
        // A proxy that ended and left the cgroup closed in has written the receipts of what was open then.
        is_same = found & SAME != 0 && open_record_of(before).is_some();
    }
    let decided = pl_decide(addr, &attempt, u32::from(is_connect));
    let (reason, kind, to_port) = (decided & 0xff, decided >> 8 & 0xff, (decided >> 16) as u16);
    if kind == PROBE {
        // What it sent to others before is not over: it goes on when the socket asks them again.
        state.flow_id = 0;
        // The socket is connected now, so no send on it is asked about again; the backstop looks at each for the destination
        // that it goes to. Its peer is the one that it asked for.
        state.flags &= !sock_flag::REDIRECTED;
        state.dst = Addr::NONE;
        state.dst_port = 0;
        count(counter::PROBES);
        return PASS;
    }
    #[cfg(feature = "debug-ebpf")]
    aya_log_ebpf::debug!(ctx, "hook {} port {} reason {}", hook, port, reason);
    let is_denial = kind == DENY;
    if is_denial && is_repeat(state, &attempt, reason) {
        count(counter::REPEATS);
        return refuse(errno_for(reason, is_connect));
    }
    // A UDP socket that goes on talking to the same destination goes on with the same flow.
    let goes_on = !is_denial && is_same;
    let mut flow_id = before;
    if !goes_on {
        if !is_denial {
            // A TCP socket has one flow at a time; a UDP socket gives up the one whose slot it needs.
            finish(before);
            state.flow_id = 0;
        }
        flow_id = open(&attempt, state, reason);
        if is_denial {
            if flow_id != 0 {
                note_denial(state, &attempt, reason);
            }
            return refuse(errno_for(reason, is_connect));
        }
        if flow_id == 0 {
            return refuse(EPERM);
        }
    }
    // SAFETY: `sk` is not null and comes from the context.
    if is_udp && let Some(peers) = unsafe { udp_peers(sk) } {
        // SAFETY: socket storage.
        let peers = unsafe { &mut *peers };
        if !goes_on {
            peers.next = u32::from(attempt.slot) + 1;
        }
        // Also of a flow that goes on: a proxy that took over listens on other ports.
        peers.peers[slot_of(&attempt)] = UdpPeer { flow_id, dst, port, via: to_port, pad: 0 };
    }
    state.flow_id = flow_id;
    state.dst = dst;
    state.dst_port = port;
    state.flags = (state.flags | sock_flag::LOCAL) & !sock_flag::REDIRECTED;
    let named = dst.normalized();
    if named != dst {
        // Left as it is, the kernel would send it to the address that the socket is bound to, where another may listen.
        write_address(addr, is_v6, named, port);
    }
    if kind == REDIRECT {
        state.flags |= sock_flag::REDIRECTED;
        let to = if dst.is_v4() { Addr::LOOPBACK_V4 } else { Addr::LOOPBACK_V6 };
        write_address(addr, is_v6, to, to_port);
    }
    PASS
}

/// The slot in what [`pl_slot`] answers, and whether the destination has it already.
const SLOT: u32 = UDP_PEERS as u32 - 1;
const SAME: u32 = 0x100;

/// The slot that this destination has, or would get: they are given out in turn. Apart for the reasons that [`pl_decide`] is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_slot(peers: *const UdpPeers, attempt: *const Attempt) -> u32 {
    if peers.is_null() || attempt.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier sees to it that they are whole.
    let (peers, attempt) = unsafe { (&*peers, &*attempt) };
    let mut found = peers.next & SLOT;
    let mut slot = 0;
    while slot < UDP_PEERS {
        let peer = &peers.peers[slot];
        if peer.flow_id != 0 && peer.port == attempt.port && peer.dst == attempt.dst {
            found = slot as u32 | SAME;
        }
        slot += 1;
    }
    found
}

/// The slot of an attempt, as an index that the verifier trusts.
#[inline(always)]
fn slot_of(attempt: &Attempt) -> usize {
    // SAFETY: a field that is read back through memory, so that the mask stays.
    usize::from(unsafe { core::ptr::read_volatile(&raw const attempt.slot) }) & (UDP_PEERS - 1)
}

/// What [`pl_decide`] answers in its second byte.
const LOCAL: u32 = 0;
const REDIRECT: u32 = 1;
const DENY: u32 = 2;
const PROBE: u32 = 3;

/// Decides: a [`KernelReason`] in the first byte, one of the words above in the second, the port of a redirect behind.
///
/// A function of its own to the kernel, as `pl_open` is, and for another reason too: what comes out of it is any number to
/// the verifier, so that it walks what is done about the decision once, and not for every way to decide.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_decide(ctx: *mut bpf_sock_addr, attempt: *const Attempt, is_connect: u32) -> u32 {
    const REFUSED: u32 = KernelReason::TableFull as u32 | DENY << 8;
    if attempt.is_null() {
        return REFUSED;
    }
    // SAFETY: not null, and the verifier sees to it that it is whole. The context is the program's.
    let (attempt, sk) = unsafe { (&*attempt, (*ctx).__bindgen_anon_1.sk) };
    if sk.is_null() {
        return REFUSED;
    }
    let facts = KernelFacts::new(ctx, attempt.sock.netns, attempt.dst, u32::from(attempt.slot));
    let query = Query {
        dst: attempt.dst,
        port: attempt.port,
        protocol: u32::from(attempt.protocol),
        sock_type: u32::from(attempt.sock_type),
        is_connect: is_connect != 0,
        // SAFETY: the socket of the context, not null.
        device: unsafe { core::ptr::read_volatile(&raw const (*sk).bound_dev_if) },
    };
    let redirect = |reason: KernelReason, port: u16| reason as u32 | REDIRECT << 8 | u32::from(port) << 16;
    match decide(&query, &facts) {
        Route::Probe => PROBE << 8,
        Route::Deny(reason) => reason as u32 | DENY << 8,
        Route::Local(reason) => reason as u32 | LOCAL << 8,
        Route::Dns(port) => redirect(KernelReason::RedirectDns, port),
        Route::Proxy(port) => redirect(KernelReason::Redirect, port),
    }
}

/// "Connection refused" for what looks like a closed port to the agent, "operation not permitted" for the rest.
#[inline(always)]
fn errno_for(reason: u32, is_connect: bool) -> i32 {
    let looks_closed = reason == KernelReason::PortDenied as u32
        || reason == KernelReason::LoopbackDenied as u32
        || reason == KernelReason::ProxyDown as u32;
    if is_connect && looks_closed { ECONNREFUSED } else { EPERM }
}

#[inline(always)]
fn show_peer(ctx: &SockAddrContext, is_v6: bool) {
    let addr = ctx.sock_addr;
    // SAFETY: the socket of the context.
    let Some(state) = (unsafe { state_of((*addr).__bindgen_anon_1.sk) }) else { return };
    if state.flags & sock_flag::REDIRECTED != 0 {
        write_address(addr, is_v6, state.dst, state.dst_port);
    }
}
