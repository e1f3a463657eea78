//! connect4 and connect6: every connect is redirected, local or refused; getpeername shows the agent what it asked for.

use crate::emit::{Attempt, ECONNREFUSED, EPERM, finish, is_repeat, note_denial, note_origin, open, state_of};
use crate::facts::KernelFacts;
use crate::maps::{count, sock_state_or_new, udp_peers, udp_peers_or_new};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use pipelock_common::{
    Addr, Facts as _, KernelReason, Query, Route, SockKey, UDP_PEERS, UdpPeer, UdpPeers, counter, decide, hook,
    sock_flag,
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
        protocol: protocol as u16,
        sock_type: sock_type as u8,
        family: if is_v6 { 6 } else { 4 },
        hook,
        slot: 0,
    };
    let is_udp = protocol == crate::emit::UDP;
    let mut place = Place::NONE;
    if is_udp {
        // SAFETY: `sk` is not null and comes from the context.
        place = match unsafe { udp_peers_or_new(sk) } {
            // SAFETY: socket storage.
            Some(peers) => Place::of(unsafe { &*peers }, dst, port),
            None => return REFUSE,
        };
        attempt.slot = place.slot as u8;
    }
    let facts = KernelFacts::new(ctx.as_ptr(), sk, netns, dst, place.slot);
    // SAFETY: the socket of the context, not null.
    let device = unsafe { core::ptr::read_volatile(&raw const (*sk).bound_dev_if) };
    let query = Query { dst, port, protocol, sock_type, is_connect, device };
    // One way through for all that leaves a record: a copy of it for each case would cost the verifier dearly.
    let (reason, redirect) = match decide(&query, &facts) {
        Route::Probe => {
            // What it sent to others before is not over: it goes on when the socket asks them again.
            state.flow_id = 0;
            // The socket is connected now, so no send on it is asked about again: nothing that an earlier flow was
            // allowed may pass the backstop on its account.
            state.flags &= !(sock_flag::REDIRECTED | sock_flag::LOCAL);
            state.dst = Addr::NONE;
            state.dst_port = 0;
            count(counter::PROBES);
            return PASS;
        }
        Route::Deny(reason) => (reason, Redirect::None),
        Route::Local(reason) => (reason, Redirect::None),
        Route::Dns => (KernelReason::RedirectDns, Redirect::Dns),
        Route::Proxy => (KernelReason::Redirect, Redirect::Proxy),
    };
    #[cfg(feature = "debug-log")]
    aya_log_ebpf::debug!(ctx, "hook {} port {} reason {}", hook, port, reason as u8);
    let is_denial = reason.is_denial();
    if is_denial && is_repeat(state, &attempt, reason) {
        count(counter::REPEATS);
        return refuse(errno_for(reason, is_connect));
    }
    let (to, to_port) =
        if redirect == Redirect::None { (dst, 0) } else { facts.redirect_to(redirect == Redirect::Dns) };
    // A UDP socket that goes on talking to the same destination goes on with the same flow.
    let mut flow_id = if is_denial { 0 } else { place.flow_id };
    if flow_id == 0 {
        if !is_denial {
            // A TCP socket has one flow at a time; a UDP socket gives up the one whose slot it needs.
            finish(if is_udp { place.former } else { state.flow_id });
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
        if place.flow_id == 0 {
            peers.next = place.slot + 1;
        }
        // SAFETY: a local, read back through memory so that the mask stays (see `has_port`).
        let slot = unsafe { core::ptr::read_volatile(&raw const place.slot) } as usize & (UDP_PEERS - 1);
        // Also of a flow that goes on: a proxy that took over listens on other ports.
        peers.peers[slot] = UdpPeer { flow_id, dst, port, via: to_port, pad: 0 };
    }
    state.flow_id = flow_id;
    state.dst = dst;
    state.dst_port = port;
    state.flags = (state.flags | sock_flag::LOCAL) & !sock_flag::REDIRECTED;
    if redirect != Redirect::None {
        state.flags |= sock_flag::REDIRECTED;
        write_address(addr, is_v6, to, to_port);
    }
    PASS
}

/// Where a UDP socket keeps a destination.
struct Place {
    /// Its slot.
    slot: u32,
    /// The flow that goes on; 0 when there is none yet.
    flow_id: u64,
    /// The flow of another destination that has the slot now; 0 for none.
    former: u64,
}

impl Place {
    const NONE: Self = Self { slot: 0, flow_id: 0, former: 0 };

    /// The place that this destination has, or would get: they are given out in turn.
    #[inline(always)]
    fn of(peers: &UdpPeers, dst: Addr, port: u16) -> Self {
        let next = peers.next;
        // SAFETY: a local, read back through memory so that the mask stays (see `has_port`).
        let next = unsafe { core::ptr::read_volatile(&raw const next) } & (UDP_PEERS as u32 - 1);
        let mut place = Self { slot: next, flow_id: 0, former: peers.peers[next as usize].flow_id };
        let mut slot = 0;
        while slot < UDP_PEERS {
            let peer = &peers.peers[slot];
            if peer.flow_id != 0 && peer.port == port && peer.dst == dst {
                place = Self { slot: slot as u32, flow_id: peer.flow_id, former: 0 };
            }
            slot += 1;
        }
        place
    }
}

/// Which listener the destination becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Redirect {
    None,
    Proxy,
    Dns,
}

/// "Connection refused" for what looks like a closed port to the agent, "operation not permitted" for the rest.
#[inline(always)]
fn errno_for(reason: KernelReason, is_connect: bool) -> i32 {
    match reason {
        KernelReason::PortDenied | KernelReason::LoopbackDenied | KernelReason::ProxyDown if is_connect => ECONNREFUSED,
        _ => EPERM,
    }
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
