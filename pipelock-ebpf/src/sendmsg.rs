//! sendmsg4 and sendmsg6: sends on unconnected UDP sockets are decided like connects; recvmsg shows the answer as coming
//! from the server that the agent asked.

use crate::connect::{PASS, destination, steer, write_address};
use crate::emit::state_of;
use crate::maps::LISTENERS;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use pipelock_common::{Addr, hook, sock_flag};

#[cgroup_sock_addr(sendmsg4)]
pub fn pl_sendmsg4(ctx: SockAddrContext) -> i32 {
    steer(&ctx, false, false, hook::SENDMSG4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn pl_sendmsg6(ctx: SockAddrContext) -> i32 {
    steer(&ctx, true, false, hook::SENDMSG6)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn pl_recvmsg4(ctx: SockAddrContext) -> i32 {
    show_sender(&ctx, false);
    PASS
}

#[cgroup_sock_addr(recvmsg6)]
pub fn pl_recvmsg6(ctx: SockAddrContext) -> i32 {
    show_sender(&ctx, true);
    PASS
}

#[inline(always)]
fn show_sender(ctx: &SockAddrContext, is_v6: bool) {
    let addr = ctx.sock_addr;
    // SAFETY: the socket of the context.
    let Some(state) = (unsafe { state_of((*addr).__bindgen_anon_1.sk) }) else { return };
    if state.flags & sock_flag::REDIRECTED == 0 {
        return;
    }
    // SAFETY: takes the context; the map value is copied at once.
    let Some(listeners) = (unsafe { LISTENERS.get(bpf_get_netns_cookie(ctx.as_ptr())).copied() }) else { return };
    let (from, port) = destination(addr, is_v6);
    let is_resolver =
        (from == Addr::LOOPBACK_V4 && port == listeners.dns4) || (from == Addr::LOOPBACK_V6 && port == listeners.dns6);
    if is_resolver {
        write_address(addr, is_v6, state.dst, state.dst_port);
    }
}
