//! sendmsg4 and sendmsg6: sends on unconnected UDP sockets are decided like connects; recvmsg shows the answer as coming
//! from the server that the agent asked.

use crate::connect::{PASS, destination, steer, write_address};
use crate::emit::peer_via;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use pipelock_common::{Addr, hook};

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
    let (from, port) = destination(addr, is_v6);
    if from != Addr::LOOPBACK_V4 && from != Addr::LOOPBACK_V6 {
        return;
    }
    // SAFETY: the socket of the context.
    if let Some(peer) = unsafe { peer_via((*addr).__bindgen_anon_1.sk, port) } {
        write_address(addr, is_v6, peer.dst, peer.port);
    }
}
