//! Opens and closes flow records, and wakes the user side. Nothing is let go on whose record could not be kept.

use crate::maps::{CONFIG, EVENTS, FLOWS, SEQUENCE, TUPLES, count, sock_state};
use aya_ebpf::bindings::{BPF_NOEXIST, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_ktime_get_boot_ns};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr;
use pipelock_common::{Addr, Event, FlowRecord, FlowState, KernelReason, SockKey, SockState, TupleKey, counter};

/// IPPROTO_UDP
pub const UDP: u32 = 17;
/// EPERM
pub const EPERM: i32 = 1;
/// ECONNREFUSED
pub const ECONNREFUSED: i32 = 111;

/// What a record starts as. Under its plain name, so that the object is the same wherever the checkout lies: a mangled
/// name holds a hash of the crate's path.
#[unsafe(export_name = "EMPTY")]
static EMPTY: FlowRecord = FlowRecord::EMPTY;

/// What a flow is about, as the hook sees it.
pub struct Attempt {
    /// The socket.
    pub sock: SockKey,
    /// Where to.
    pub dst: Addr,
    /// Port, host order.
    pub port: u16,
    /// IPPROTO_*
    pub protocol: u16,
    /// SOCK_*
    pub sock_type: u8,
    /// 4 or 6
    pub family: u8,
    /// One of [`pipelock_common::hook`]
    pub hook: u8,
}

/// Notes the current process as the one that acts on this socket.
#[inline(always)]
pub fn note_origin(state: &mut SockState) {
    let ids = bpf_get_current_pid_tgid();
    let owner = bpf_get_current_uid_gid();
    state.pid = ids as u32;
    state.tgid = (ids >> 32) as u32;
    state.uid = owner as u32;
    state.gid = (owner >> 32) as u32;
    // SAFETY: no arguments.
    state.cgroup_id = unsafe { bpf_get_current_cgroup_id() };
    // SAFETY: the buffer is 16 bytes and writable.
    unsafe { bpf_get_current_comm(state.comm.as_mut_ptr().cast(), 16) };
}

/// Opens a flow: numbers it, stores it, counts it, wakes the user side. None when it could not be stored: then deny.
#[inline(always)]
pub fn open(attempt: &Attempt, origin: &SockState, reason: KernelReason) -> Option<u64> {
    let sequence = SEQUENCE.get_ptr_mut(0)?;
    // SAFETY: the map value is 8 bytes, aligned, and only ever changed by this atomic. Not `Relaxed`: the BPF backend
    // makes of that an addition that does not fetch, even where the old value is used.
    let flow_id = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(sequence, 1) } + 1;
    let generation = CONFIG.get(0).map_or(0, |config| config.generation);
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let is_over = reason.is_denial();
    // The record is filled in where it lies: two copies of it would not fit on the stack.
    if FLOWS.insert(flow_id, &EMPTY, u64::from(BPF_NOEXIST)).is_err() {
        count(counter::UNRECORDED);
        return None;
    }
    let Some(record) = FLOWS.get_ptr_mut(flow_id) else {
        count(counter::UNRECORDED);
        return None;
    };
    // SAFETY: kept valid by RCU while we run; the user side leaves a record alone while its state is `Filling`.
    let record = unsafe { &mut *record };
    record.flow_id = flow_id;
    record.sock = attempt.sock;
    record.cgroup_id = origin.cgroup_id;
    record.opened_ns = now;
    record.closed_ns = if is_over { now } else { 0 };
    record.dst = attempt.dst;
    record.comm = origin.comm;
    record.pid = origin.pid;
    record.tgid = origin.tgid;
    record.uid = origin.uid;
    record.gid = origin.gid;
    record.generation = generation;
    record.dst_port = attempt.port;
    record.protocol = attempt.protocol;
    record.sock_type = attempt.sock_type;
    record.family = attempt.family;
    record.reason = reason as u8;
    record.hook = attempt.hook;
    let state = if is_over { FlowState::Closed } else { FlowState::Open };
    // SAFETY: as above; volatile, so that it is written last.
    unsafe { ptr::write_volatile(&raw mut record.state, state as u8) };
    count(reason as u32);
    wake(flow_id);
    Some(flow_id)
}

/// Records a denial on a socket; the same destination denied again on it is counted, not recorded anew.
#[inline(always)]
pub fn deny(attempt: &Attempt, state: &mut SockState, reason: KernelReason) {
    if is_repeat(state, attempt, reason) {
        count(counter::REPEATS);
        return;
    }
    if open(attempt, state, reason).is_some() {
        note_denial(state, attempt, reason);
    }
}

/// Where [`SockState::flags`] holds the reason of the last denial, plus one.
const DENIED_SHIFT: u32 = 24;

/// Whether this destination was the last to be denied on this socket, for the same reason.
#[inline(always)]
pub fn is_repeat(state: &SockState, attempt: &Attempt, reason: KernelReason) -> bool {
    state.flags >> DENIED_SHIFT == reason as u32 + 1
        && state.dropped_port == attempt.port
        && state.dropped == attempt.dst
}

/// Notes a recorded denial, so that it is not recorded again.
#[inline(always)]
pub fn note_denial(state: &mut SockState, attempt: &Attempt, reason: KernelReason) {
    state.flags = (state.flags & ((1 << DENIED_SHIFT) - 1)) | ((reason as u32 + 1) << DENIED_SHIFT);
    state.dropped = attempt.dst;
    state.dropped_port = attempt.port;
}

/// Ends the flow that a socket carries, if it is still open.
#[inline(always)]
pub fn finish(flow_id: u64) {
    if flow_id == 0 {
        return;
    }
    let Some(record) = FLOWS.get_ptr_mut(flow_id) else { return };
    // SAFETY: the value is only deleted by the user side after it was closed, and kept valid by RCU while we run.
    let record = unsafe { &mut *record };
    if record.state == FlowState::Closed as u8 {
        return;
    }
    // SAFETY: no arguments.
    record.closed_ns = unsafe { bpf_ktime_get_boot_ns() };
    record.state = FlowState::Closed as u8;
    if record.src_port != 0 {
        let _ = TUPLES.remove(tuple_of(record));
    }
    wake(flow_id);
}

/// The key under which a flow's local end is filed.
#[inline(always)]
pub fn tuple_of(record: &FlowRecord) -> TupleKey {
    TupleKey {
        netns: record.sock.netns,
        addr: record.src,
        port: record.src_port,
        protocol: record.protocol as u8,
        family: if record.src.is_v4() { 4 } else { 6 },
        pad: 0,
    }
}

/// Tells the user side that this flow changed. A full ring is counted; the map is scanned anyway.
#[inline(always)]
pub fn wake(flow_id: u64) {
    match EVENTS.reserve(0) {
        Some(mut slot) => {
            slot.write(Event { flow_id });
            slot.submit(0);
        }
        None => count(counter::EVENTS_LOST),
    }
}

/// The state of a socket of this program's context.
///
/// # Safety
/// `sk` comes from the context of the running program.
#[inline(always)]
pub unsafe fn state_of<'a>(sk: *mut bpf_sock) -> Option<&'a mut SockState> {
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller's promise; socket storage lives as long as the socket, which outlives the program run.
    unsafe { sock_state(sk).map(|state| &mut *state) }
}
