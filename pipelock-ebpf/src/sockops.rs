//! sock_ops: files the local end of a redirected connection when it is about to be made, before its SYN, so that the proxy's
//! accept always finds it; sees it established and closed, with bytes both ways; sees the agent's own listeners and what
//! they accept.

use crate::emit::{self, Attempt, open, publish, state_of, tuple_of, wake};
use crate::maps::{TUPLES, sock_state_or_new};
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{
    BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE,
    BPF_TCP_CLOSE_WAIT, BPF_TCP_CLOSING, BPF_TCP_FIN_WAIT2, BPF_TCP_LAST_ACK, bpf_sock,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use pipelock_common::{
    Addr, Class, FlowRecord, FlowState, KernelReason, SockKey, TupleKey, hook, sock_flag, tuple_slot,
};

const AF_INET: u32 = 2;

#[sock_ops]
pub fn pl_sock_ops(ctx: SockOpsContext) -> u32 {
    // SAFETY: the context is valid; the verifier wants the check before any use.
    let sk = unsafe { (*ctx.ops).__bindgen_anon_2.sk };
    if sk.is_null() {
        return 1;
    }
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&ctx, sk),
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => established(sk),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&ctx, sk),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listening(sk),
        BPF_SOCK_OPS_STATE_CB => changing(&ctx, sk),
        _ => {}
    }
    1
}

#[inline(always)]
fn connecting(ctx: &SockOpsContext, sk: *mut bpf_sock) {
    let Some(record) = open_record_of(sk) else { return };
    record.src = local_addr(ctx);
    record.src_port = ctx.local_port() as u16;
    if record.reason == KernelReason::LoopbackOwn as u8 {
        // A full table makes a listener of the agent's own take it for one from elsewhere, and it is recorded twice.
        let _ = TUPLES.insert(tuple_of(record), record.flow_id, 0);
    } else if record.reason == KernelReason::Redirect as u8 || record.reason == KernelReason::RedirectDns as u8 {
        // Never over another's: the proxy would take the one for the other. Then, and when the table is full, the backstop
        // drops the SYN.
        if TUPLES.insert(tuple_of(record), record.flow_id, u64::from(BPF_NOEXIST)).is_err()
            // SAFETY: the socket of the context.
            && let Some(state) = unsafe { state_of(sk) }
        {
            state.flags &= !sock_flag::LOCAL;
        }
    }
    // To a service of the host: nobody looks there.
    let _ = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
}

#[inline(always)]
fn established(sk: *mut bpf_sock) {
    if let Some(record) = open_record_of(sk)
        && record.state == FlowState::Open as u8
    {
        publish(record, FlowState::Established);
    }
}

#[inline(always)]
fn listening(sk: *mut bpf_sock) {
    // SAFETY: the socket of the context.
    if let Some(state) = unsafe { sock_state_or_new(sk) } {
        // SAFETY: socket storage.
        unsafe { (*state).flags |= sock_flag::AGENT | sock_flag::LISTENING };
    }
}

/// A connection accepted by a listener of the agent. From the agent itself it is the other half of a flow that has a record
/// already; from elsewhere on this host, or from outside (the backstop lets those in only under `listen: any`), it is a
/// flow of its own.
#[inline(always)]
fn accepted(ctx: &SockOpsContext, sk: *mut bpf_sock) {
    // SAFETY: the socket of the context.
    let Some(state) = (unsafe { sock_state_or_new(sk) }) else { return };
    // SAFETY: socket storage.
    let state = unsafe { &mut *state };
    // The storage is a copy of the listener's, which says whose it is; nothing else of it holds for the child.
    state.flags = sock_flag::AGENT;
    state.flow_id = 0;
    state.dst = Addr::NONE;
    state.dst_port = 0;
    let peer = remote_addr(ctx);
    // The port is in network order in the upper half.
    let peer_port = u16::from_be((ctx.remote_port() >> 16) as u16);
    let is_local = matches!(peer.class(), Class::Loopback) || peer == local_addr(ctx);
    // SAFETY: both take the context.
    let (netns, cookie) = unsafe { (bpf_get_netns_cookie(ctx.as_ptr()), bpf_get_socket_cookie(ctx.as_ptr())) };
    if is_local {
        let key = TupleKey {
            netns,
            addr: peer,
            port: peer_port,
            protocol: 6,
            family: if peer.is_v4() { 4 } else { 6 },
            slot: tuple_slot::OWN,
        };
        if TUPLES.remove(key).is_ok() {
            state.flags |= sock_flag::LOCAL;
            return;
        }
    }
    // From here on the packets of this flow pass the backstop; one that cannot be recorded has neither flag.
    let flag = if is_local { sock_flag::LOCAL } else { sock_flag::INBOUND };
    let attempt = Attempt {
        sock: SockKey { netns, cookie },
        dst: peer,
        port: peer_port,
        told_by: peer_port,
        protocol: 6,
        sock_type: 1,
        family: if ctx.family() == AF_INET { 4 } else { 6 },
        hook: hook::SOCK_OPS,
        ..Attempt::EMPTY
    };
    let flow_id = open(&attempt, state, KernelReason::InboundAllowed as u32);
    if flow_id != 0 {
        state.flow_id = flow_id;
        state.flags |= flag;
        if let Some(record) = open_record_of(sk) {
            record.src = local_addr(ctx);
            record.src_port = ctx.local_port() as u16;
            publish(record, FlowState::Established);
        }
        let _ = ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32);
    }
}

/// The connection goes from one state of TCP to another. Besides its end, it is looked at when the other side has closed: the
/// agent may hold its own side open for ever, and the server may end meanwhile.
#[inline(always)]
fn changing(ctx: &SockOpsContext, sk: *mut bpf_sock) {
    let (from, to) = (ctx.arg(0), ctx.arg(1));
    if to != BPF_TCP_CLOSE && to != BPF_TCP_CLOSE_WAIT {
        return;
    }
    let Some(record) = open_record_of(sk) else { return };
    note_volumes(ctx, record, from, to);
    if to == BPF_TCP_CLOSE {
        // SAFETY: no arguments.
        record.closed_ns = unsafe { bpf_ktime_get_boot_ns() };
        let flow_id = record.flow_id;
        publish(record, FlowState::Closed);
        // From here on it may be removed.
        wake(flow_id);
    }
}

/// The bytes both ways, without the numbers that TCP gives to SYN and FIN. What of the agent's was not acknowledged has not
/// arrived. Whether the other side's FIN came last of all is not to be seen when the agent's side was closed first: then one
/// byte received may be that.
#[inline(always)]
fn note_volumes(ctx: &SockOpsContext, record: &mut FlowRecord, from: u32, to: u32) {
    // SAFETY: the context is valid; each field is read on its own.
    let (acked, received, is_all_acked) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*ctx.ops).bytes_acked),
            core::ptr::read_volatile(&raw const (*ctx.ops).bytes_received),
            core::ptr::read_volatile(&raw const (*ctx.ops).snd_una)
                == core::ptr::read_volatile(&raw const (*ctx.ops).snd_nxt),
        )
    };
    // The kernel counts the SYN of the side that connects only.
    let is_active = record.reason != KernelReason::InboundAllowed as u8;
    let is_fin_acked = from == BPF_TCP_FIN_WAIT2 || (is_all_acked && (from == BPF_TCP_LAST_ACK || from == BPF_TCP_CLOSING));
    let is_fin_received =
        to == BPF_TCP_CLOSE_WAIT || from == BPF_TCP_CLOSE_WAIT || from == BPF_TCP_LAST_ACK || from == BPF_TCP_CLOSING;
    record.tx_bytes = acked.saturating_sub(u64::from(is_active) + u64::from(is_fin_acked));
    record.rx_bytes = received.saturating_sub(u64::from(is_fin_received));
}

/// The record of the socket's flow, unless that is over.
#[inline(always)]
fn open_record_of<'a>(sk: *mut bpf_sock) -> Option<&'a mut FlowRecord> {
    // SAFETY: the socket of the context.
    let state = unsafe { state_of(sk) }?;
    if state.flow_id == 0 {
        return None;
    }
    emit::open_record_of(state.flow_id)
}

#[inline(always)]
fn local_addr(ctx: &SockOpsContext) -> Addr {
    if ctx.family() == AF_INET {
        return Addr::from_be4(ctx.local_ip4());
    }
    // SAFETY: the context is valid; each word is read on its own.
    unsafe {
        Addr([
            core::ptr::read_volatile(&raw const (*ctx.ops).local_ip6[0]),
            core::ptr::read_volatile(&raw const (*ctx.ops).local_ip6[1]),
            core::ptr::read_volatile(&raw const (*ctx.ops).local_ip6[2]),
            core::ptr::read_volatile(&raw const (*ctx.ops).local_ip6[3]),
        ])
    }
}

#[inline(always)]
fn remote_addr(ctx: &SockOpsContext) -> Addr {
    if ctx.family() == AF_INET {
        return Addr::from_be4(ctx.remote_ip4());
    }
    // SAFETY: as above.
    unsafe {
        Addr([
            core::ptr::read_volatile(&raw const (*ctx.ops).remote_ip6[0]),
            core::ptr::read_volatile(&raw const (*ctx.ops).remote_ip6[1]),
            core::ptr::read_volatile(&raw const (*ctx.ops).remote_ip6[2]),
            core::ptr::read_volatile(&raw const (*ctx.ops).remote_ip6[3]),
        ])
    }
}
