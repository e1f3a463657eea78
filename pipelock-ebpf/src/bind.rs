//! bind and post_bind: an agent may bind to loopback and to the wildcard (where the ingress backstop lets only this host
//! in), and to other addresses only when the policy says `listen: any`. post_bind looks at the result, bind at the wish.

use crate::connect::{PASS, REFUSE, destination};
use crate::emit::{Attempt, deny, note_origin};
use crate::maps::{CONFIG, sock_state_or_new};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use core::ffi::c_void;
use pipelock_common::{Addr, Class, KernelReason, SockKey, hook, sock_flag};

#[cgroup_sock_addr(bind4)]
pub fn pl_bind4(ctx: SockAddrContext) -> i32 {
    before(&ctx, false, hook::BIND4)
}

#[cgroup_sock_addr(bind6)]
pub fn pl_bind6(ctx: SockAddrContext) -> i32 {
    before(&ctx, true, hook::BIND6)
}

#[cgroup_sock(post_bind4)]
pub fn pl_post_bind4(ctx: SockContext) -> i32 {
    // SAFETY: the context is the socket.
    let (src, port) = unsafe {
        (
            Addr::from_be4(core::ptr::read_volatile(&raw const (*ctx.sock).src_ip4)),
            core::ptr::read_volatile(&raw const (*ctx.sock).src_port) as u16,
        )
    };
    after(&ctx, src, port, hook::POST_BIND4)
}

#[cgroup_sock(post_bind6)]
pub fn pl_post_bind6(ctx: SockContext) -> i32 {
    // SAFETY: the context is the socket; each word is read on its own.
    let (src, port) = unsafe {
        (
            Addr([
                core::ptr::read_volatile(&raw const (*ctx.sock).src_ip6[0]),
                core::ptr::read_volatile(&raw const (*ctx.sock).src_ip6[1]),
                core::ptr::read_volatile(&raw const (*ctx.sock).src_ip6[2]),
                core::ptr::read_volatile(&raw const (*ctx.sock).src_ip6[3]),
            ]),
            core::ptr::read_volatile(&raw const (*ctx.sock).src_port) as u16,
        )
    };
    after(&ctx, src, port, hook::POST_BIND6)
}

#[inline(always)]
fn before(ctx: &SockAddrContext, is_v6: bool, hook: u8) -> i32 {
    let (addr, port) = destination(ctx.sock_addr, is_v6);
    if may_bind(addr) {
        return PASS;
    }
    // SAFETY: the context is valid.
    let (protocol, sock_type, sk) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx.sock_addr).protocol),
            core::ptr::read_volatile(&raw const (*ctx.sock_addr).type_),
            (*ctx.sock_addr).__bindgen_anon_1.sk,
        )
    };
    record(ctx.as_ptr(), sk, addr, port, protocol, sock_type, if is_v6 { 6 } else { 4 }, hook);
    REFUSE
}

#[inline(always)]
fn after(ctx: &SockContext, addr: Addr, port: u16, hook: u8) -> i32 {
    if may_bind(addr) {
        return PASS;
    }
    // SAFETY: the context is the socket.
    let (protocol, sock_type) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx.sock).protocol),
            core::ptr::read_volatile(&raw const (*ctx.sock).type_),
        )
    };
    record(ctx.as_ptr(), ctx.sock, addr, port, protocol, sock_type, if addr.is_v4() { 4 } else { 6 }, hook);
    REFUSE
}

/// Loopback and the wildcard are free; the rest only under `listen: any`.
#[inline(always)]
fn may_bind(addr: Addr) -> bool {
    matches!(addr.class(), Class::Loopback) || CONFIG.get(0).is_some_and(|config| config.listen_any == 1)
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "inlined into four programs; a struct would cost stack")]
fn record(
    ctx: *mut c_void,
    sk: *mut bpf_sock,
    addr: Addr,
    port: u16,
    protocol: u32,
    sock_type: u32,
    family: u8,
    hook: u8,
) {
    if sk.is_null() {
        return;
    }
    // SAFETY: both take the context.
    let (netns, cookie) = unsafe { (bpf_get_netns_cookie(ctx), bpf_get_socket_cookie(ctx)) };
    // SAFETY: the socket of the context, not null.
    let Some(state) = (unsafe { sock_state_or_new(sk) }) else { return };
    // SAFETY: socket storage, which lives as long as the socket.
    let state = unsafe { &mut *state };
    note_origin(state);
    state.flags |= sock_flag::AGENT;
    let attempt = Attempt {
        sock: SockKey { netns, cookie },
        dst: addr,
        port,
        told_by: port,
        protocol: protocol as u16,
        sock_type: sock_type as u8,
        family,
        hook,
        ..Attempt::EMPTY
    };
    deny(&attempt, state, KernelReason::ListenDenied as u32);
}
