//! connect4 and connect6: every connect is redirected, local or refused; getpeername shows the agent what it asked for.

use crate::emit::{Attempt, ECONNREFUSED, EPERM, deny, finish, note_origin, open, state_of};
use crate::facts::KernelFacts;
use crate::maps::sock_state_or_new;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use pipelock_common::{Addr, KernelReason, Query, Route, SockKey, decide, hook, sock_flag};

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
    let attempt = Attempt {
        sock: SockKey { netns, cookie },
        dst,
        port,
        protocol: protocol as u16,
        sock_type: sock_type as u8,
        family: if is_v6 { 6 } else { 4 },
        hook,
    };
    let facts = KernelFacts::new(ctx.as_ptr(), netns, dst);
    let query = Query { dst, port, protocol, sock_type, is_connect };
    let is_udp = protocol == crate::emit::UDP;
    match decide(&query, &facts) {
        Route::Deny(reason) => {
            deny(&attempt, state, reason);
            refuse(errno_for(reason, is_connect))
        }
        Route::Probe => {
            finish(state.flow_id);
            state.flow_id = 0;
            state.flags &= !sock_flag::REDIRECTED;
            crate::maps::count(pipelock_common::counter::PROBES);
            PASS
        }
        Route::Local(reason) => carry(state, &attempt, reason, is_udp, false),
        route => {
            let is_dns = route == Route::Dns;
            let reason = if is_dns { KernelReason::RedirectDns } else { KernelReason::Redirect };
            let verdict = carry(state, &attempt, reason, is_udp, true);
            if verdict == PASS {
                let to = if facts.is_v4 { Addr::LOOPBACK_V4 } else { Addr::LOOPBACK_V6 };
                write_address(addr, is_v6, to, facts.redirect_port(is_dns));
            }
            verdict
        }
    }
}

/// Puts a flow on the socket. A UDP socket that goes on talking to the same destination goes on with the same flow.
#[inline(always)]
fn carry(
    state: &mut pipelock_common::SockState,
    attempt: &Attempt,
    reason: KernelReason,
    is_udp: bool,
    is_redirected: bool,
) -> i32 {
    if is_udp && state.flow_id != 0 && state.dst_port == attempt.port && state.dst == attempt.dst {
        return PASS;
    }
    finish(state.flow_id);
    state.flow_id = 0;
    let Some(flow_id) = open(attempt, state, reason) else {
        return refuse(EPERM);
    };
    state.flow_id = flow_id;
    state.dst = attempt.dst;
    state.dst_port = attempt.port;
    state.flags |= sock_flag::LOCAL;
    if is_redirected {
        state.flags |= sock_flag::REDIRECTED;
    } else {
        state.flags &= !sock_flag::REDIRECTED;
    }
    PASS
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
