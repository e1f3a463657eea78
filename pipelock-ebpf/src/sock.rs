//! sock_create: only TCP and UDP over IPv4 and IPv6, and every socket is marked as the agent's. sock_release: the end of
//! flows that TCP's state machine does not end.

use crate::connect::{PASS, REFUSE};
use crate::emit::{Attempt, UDP, finish, note_origin, open, record_of, state_of};
use crate::maps::{sock_state_or_new, udp_peers};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use pipelock_common::{Addr, KernelReason, SockKey, SockState, UDP_PEERS, hook, sock_flag};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const STREAM: u32 = 1;
const DGRAM: u32 = 2;
const TCP: u32 = 6;

#[cgroup_sock(sock_create)]
pub fn pl_sock_create(ctx: SockContext) -> i32 {
    let sk = ctx.sock;
    // SAFETY: the context is the socket.
    let (family, sock_type, protocol) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*sk).family),
            core::ptr::read_volatile(&raw const (*sk).type_),
            core::ptr::read_volatile(&raw const (*sk).protocol),
        )
    };
    let is_known = (family == AF_INET || family == AF_INET6)
        && ((sock_type == STREAM && protocol == TCP) || (sock_type == DGRAM && protocol == UDP));
    if is_known {
        // SAFETY: the context is the socket. Without storage it would be nobody's, so it is not created.
        let Some(state) = (unsafe { sock_state_or_new(sk) }) else {
            return REFUSE;
        };
        // SAFETY: socket storage, which lives as long as the socket.
        let state = unsafe { &mut *state };
        note_origin(state);
        state.flags |= sock_flag::AGENT;
        return PASS;
    }
    let mut origin = SockState::EMPTY;
    note_origin(&mut origin);
    // SAFETY: both take the context.
    let (netns, cookie) = unsafe { (bpf_get_netns_cookie(ctx.as_ptr()), bpf_get_socket_cookie(ctx.as_ptr())) };
    let attempt = Attempt {
        sock: SockKey { netns, cookie },
        dst: Addr::NONE,
        port: 0,
        protocol: protocol as u16,
        sock_type: sock_type as u8,
        family: if family == AF_INET6 { 6 } else { 4 },
        hook: hook::SOCK_CREATE,
        ..Attempt::EMPTY
    };
    let _ = open(&attempt, &origin, KernelReason::SocketDenied as u32);
    REFUSE
}

#[cgroup_sock(sock_release)]
pub fn pl_sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the context is the socket.
    let Some(state) = (unsafe { state_of(ctx.sock) }) else {
        return PASS;
    };
    // A TCP connection that was begun lives on after close(); sock_ops sees its end. All others end here.
    let goes_on = match record_of(state.flow_id) {
        Some(record) => u32::from(record.protocol) == TCP && record.src_port != 0,
        None => true,
    };
    if !goes_on {
        finish(state.flow_id);
        state.flow_id = 0;
    }
    // SAFETY: the socket of the context, not null since it has a state.
    if let Some(peers) = unsafe { udp_peers(ctx.sock) } {
        // SAFETY: socket storage.
        let peers = unsafe { &mut *peers };
        let mut slot = 0;
        while slot < UDP_PEERS {
            finish(peers.peers[slot].flow_id);
            peers.peers[slot].flow_id = 0;
            slot += 1;
        }
    }
    PASS
}
