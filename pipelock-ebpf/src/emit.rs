//! Opens and closes flow records, and wakes the user side. Nothing is let go on whose record could not be kept.

use crate::maps::{CONFIG, DENIALS, EVENTS, FLOWS, SEQUENCE, SETTLED, TUPLES, count, sock_state, udp_peers};
use aya_ebpf::bindings::{BPF_NOEXIST, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_ktime_get_boot_ns};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr;
use core::sync::atomic::{Ordering, compiler_fence};
use pipelock_common::{
    Addr, DENIAL_QUOTA, DenialCount, DenialKey, Event, FLOW_MARGIN, FlowRecord, FlowState, KernelReason, MAX_FLOWS,
    SockKey, SockState, TupleKey, UDP_PEERS, UdpPeer, UdpPeers, counter,
};

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

/// What a count of denials starts as; named for the same reason.
#[unsafe(export_name = "NO_DENIALS")]
static NO_DENIALS: DenialCount = DenialCount {
    count: 0,
    first_ns: 0,
    last_ns: 0,
    comm: [0; 16],
    tgid: 0,
    uid: 0,
    src: Addr::NONE,
    peer_port: 0,
    pad: [0; 3],
};

/// What [`open`] returns for a denial that has no number, because too many wait for their receipts: it was counted.
pub const COUNTED: u64 = u64::MAX;

/// What a flow is about, as the hook sees it. Without padding: the verifier wants every byte of it initialised.
#[repr(C)]
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
    /// The slot of a UDP flow; 0 for others.
    pub slot: u8,
    /// Of a packet from outside: the agent's address.
    pub src: Addr,
    /// Of a packet from outside: the agent's port, host order.
    pub src_port: u16,
    /// The port by which repeats are told from others, host order: `port`, but of a packet from outside the agent's, since
    /// the other end has as many as it likes.
    pub told_by: u16,
    /// Padding, zero.
    pub pad: u32,
}

impl Attempt {
    /// What [`Self`] is before the hook fills it in.
    pub const EMPTY: Self = Self {
        sock: SockKey { netns: 0, cookie: 0 },
        dst: Addr::NONE,
        port: 0,
        protocol: 0,
        sock_type: 0,
        family: 0,
        hook: 0,
        slot: 0,
        src: Addr::NONE,
        src_port: 0,
        told_by: 0,
        pad: 0,
    };
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

/// Opens a flow: numbers it, stores it, counts it; wakes the user side if it is over. 0 when it was not stored: then deny.
/// [`COUNTED`] for denials beyond the quota. `reason` is a [`KernelReason`].
#[inline(always)]
pub fn open(attempt: &Attempt, origin: &SockState, reason: u32) -> u64 {
    pl_open(attempt, origin, reason)
}

/// As [`open`]. A function of its own to the kernel, with a name and a type that it can see: such a one the verifier
/// walks once, and not again on every way that leads to it, which is what starting pipelock takes most of its time for.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_open(attempt: *const Attempt, origin: *const SockState, reason: u32) -> u64 {
    if attempt.is_null() || origin.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier sees to it that they are whole.
    let (attempt, origin) = unsafe { (&*attempt, &*origin) };
    let is_over = reason >= KernelReason::PortDenied as u32;
    if !has_room(is_over) {
        pl_count(attempt, origin, if is_over { reason } else { KernelReason::TableFull as u32 });
        return if is_over { COUNTED } else { 0 };
    }
    let Some(sequence) = SEQUENCE.get_ptr_mut(0) else { return 0 };
    // SAFETY: the map value is 8 bytes, aligned, and only ever changed by this atomic. Not `Relaxed`: the BPF backend
    // makes of that an addition that does not fetch, even where the old value is used.
    let flow_id = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(sequence, 1) } + 1;
    let generation = CONFIG.get(0).map_or(0, |config| config.generation);
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // The record is filled in where it lies: two copies of it would not fit on the stack.
    let inserted = FLOWS.insert(flow_id, &EMPTY, u64::from(BPF_NOEXIST));
    let record = if inserted.is_ok() { FLOWS.get_ptr_mut(flow_id) } else { None };
    let Some(record) = record else {
        if is_over {
            give_back_denial();
        }
        count(counter::UNRECORDED);
        return 0;
    };
    // SAFETY: as in [`record_of`]; the user side leaves a record alone while its state is `Filling`.
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
    record.src = attempt.src;
    record.src_port = attempt.src_port;
    record.protocol = attempt.protocol;
    record.sock_type = attempt.sock_type;
    record.family = attempt.family;
    record.reason = reason as u8;
    record.hook = attempt.hook;
    record.slot = attempt.slot;
    publish(record, if is_over { FlowState::Closed } else { FlowState::Open });
    count(reason);
    if is_over {
        // Of a flow that goes on there is nothing to do yet, and to wake somebody costs more than the rest of this.
        wake(flow_id);
    }
    flow_id
}

/// Whether the table of flows has room for another, and for a denial also the quota. Programs that ask at one moment may
/// all be told yes: that is what the margin is for. Takes the denial's part of the quota.
#[inline(always)]
fn has_room(is_denial: bool) -> bool {
    let Some(settled) = SETTLED.get(0) else { return false };
    let (Some(opened), Some(denied)) = (SEQUENCE.get_ptr_mut(0), SEQUENCE.get_ptr_mut(1)) else { return false };
    // SAFETY: map values, aligned; read anew each time.
    let (open, waiting) = unsafe {
        (
            ptr::read_volatile(opened).saturating_sub(ptr::read_volatile(&raw const settled.flows)),
            ptr::read_volatile(denied).saturating_sub(ptr::read_volatile(&raw const settled.denials)),
        )
    };
    if open >= MAX_FLOWS as u64 - FLOW_MARGIN || (is_denial && waiting >= DENIAL_QUOTA) {
        return false;
    }
    if is_denial {
        // SAFETY: as above; the old value is not asked for.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(denied, 1) };
    }
    true
}

/// Gives a denial's part of the quota back: it has no record that would do so once its receipt is written. Its number is
/// given back by the user side, which sees how many flows were not recorded.
#[inline(always)]
fn give_back_denial() {
    if let Some(denied) = SEQUENCE.get_ptr_mut(1) {
        // SAFETY: as in `has_room`, which took it: one less.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(denied, u64::MAX) };
    }
}

/// Moves a flow on, when all else that is new about it is written: who reads the state first and then the rest, as the user
/// side does by reading twice, reads that too.
#[inline(always)]
pub fn publish(record: &mut FlowRecord, state: FlowState) {
    compiler_fence(Ordering::Release);
    // SAFETY: a field of a record that the caller has.
    unsafe { ptr::write_volatile(&raw mut record.state, state as u8) };
}

/// The record of a flow, if it is still there.
///
/// The user side removes a record when it is closed and its receipt is written, and its memory may be another flow's at
/// once: the table is allocated beforehand, and what keeps an element alive while a program runs (RCU) does not keep it from
/// being given out anew. So what is read is looked at for its number, and what is written is bound for a flow that is not
/// closed, which nobody removes; a program that was interrupted between the two for as long as a receipt takes to be written
/// could still change a byte count of another flow.
#[inline(always)]
pub fn record_of<'a>(flow_id: u64) -> Option<&'a mut FlowRecord> {
    let record = FLOWS.get_ptr_mut(flow_id)?;
    // SAFETY: memory of the table, which lives as long as the program.
    let record = unsafe { &mut *record };
    if record.flow_id == flow_id { Some(record) } else { None }
}

/// The same, unless the flow is over: what is written then would be in no receipt, or in that of another flow.
#[inline(always)]
pub fn open_record_of<'a>(flow_id: u64) -> Option<&'a mut FlowRecord> {
    let record = record_of(flow_id)?;
    if record.state == FlowState::Closed as u8 { None } else { Some(record) }
}

/// Counts a denial that gets no record of its own; apart for the reason that [`pl_open`] is. Always 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_count(attempt: *const Attempt, origin: *const SockState, reason: u32) -> u32 {
    if attempt.is_null() || origin.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier sees to it that they are whole.
    let (attempt, origin) = unsafe { (&*attempt, &*origin) };
    let mut key = DenialKey {
        dst: attempt.dst,
        generation: CONFIG.get(0).map_or(0, |config| config.generation),
        port: attempt.told_by,
        protocol: attempt.protocol,
        reason: reason as u8,
        hook: attempt.hook,
        family: attempt.family,
        pad: 0,
    };
    let mut found = DENIALS.get_ptr_mut(key);
    if found.is_none() {
        // Another processor may be first, and the table may be full.
        let _ = DENIALS.insert(key, &NO_DENIALS, u64::from(BPF_NOEXIST));
        found = DENIALS.get_ptr_mut(key);
    }
    if found.is_none() {
        key = DenialKey::rest(reason as u8);
        found = DENIALS.get_ptr_mut(key);
    }
    // Before the count in the table, or a reader could find more there than the kernel counted.
    count(counter::COUNTED + reason);
    let Some(value) = found else { return 0 };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: memory of the table, from which nobody removes anything while the programs are attached. The count is only
    // changed by this atomic; of what describes the last denial a mixture of two may remain.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*value).count, 1);
        if (*value).first_ns == 0 {
            (*value).first_ns = now;
            (*value).src = attempt.src;
            (*value).peer_port = attempt.port;
        }
        (*value).last_ns = now;
        (*value).comm = origin.comm;
        (*value).tgid = origin.tgid;
        (*value).uid = origin.uid;
    }
    0
}

/// Records a denial on a socket; the same destination denied again on it is counted, not recorded anew.
#[inline(always)]
pub fn deny(attempt: &Attempt, state: &mut SockState, reason: u32) {
    pl_deny(attempt, state, reason);
}

/// As [`deny`]; apart for the reason that [`pl_open`] is. Always 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_deny(attempt: *const Attempt, state: *mut SockState, reason: u32) -> u32 {
    if attempt.is_null() || state.is_null() {
        return 0;
    }
    // SAFETY: not null, and the verifier sees to it that they are whole.
    let (attempt, state) = unsafe { (&*attempt, &mut *state) };
    if is_repeat(state, attempt, reason) {
        count(counter::REPEATS);
    } else if open(attempt, state, reason) != 0 {
        note_denial(state, attempt, reason);
    }
    0
}

/// Where [`SockState::flags`] holds the reason of the last denial, plus one.
const DENIED_SHIFT: u32 = 24;

/// Whether this destination was the last to be denied on this socket, for the same reason.
#[inline(always)]
pub fn is_repeat(state: &SockState, attempt: &Attempt, reason: u32) -> bool {
    state.flags >> DENIED_SHIFT == reason + 1 && state.dropped_port == attempt.told_by && state.dropped == attempt.dst
}

/// Notes a recorded denial, so that it is not recorded again.
#[inline(always)]
pub fn note_denial(state: &mut SockState, attempt: &Attempt, reason: u32) {
    state.flags = (state.flags & ((1 << DENIED_SHIFT) - 1)) | ((reason + 1) << DENIED_SHIFT);
    state.dropped = attempt.dst;
    state.dropped_port = attempt.told_by;
}

/// Ends the flow that a socket carries, if it is still open.
#[inline(always)]
pub fn finish(flow_id: u64) {
    if flow_id != 0 {
        pl_finish(flow_id);
    }
}

/// As [`finish`]; apart for the reason that [`pl_open`] is. Always 0, since the kernel wants a number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pl_finish(flow_id: u64) -> u32 {
    let Some(record) = open_record_of(flow_id) else { return 0 };
    forget_tuple(record);
    // SAFETY: no arguments.
    record.closed_ns = unsafe { bpf_ktime_get_boot_ns() };
    publish(record, FlowState::Closed);
    wake(flow_id);
    0
}

/// Takes a flow's local end out of the table, unless another flow has it by now.
#[inline(always)]
pub fn forget_tuple(record: &FlowRecord) {
    if record.src_port == 0 {
        return;
    }
    let key = tuple_of(record);
    // SAFETY: read at once.
    if unsafe { TUPLES.get(key) }.is_some_and(|flow_id| *flow_id == record.flow_id) {
        let _ = TUPLES.remove(key);
    }
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
        slot: record.tuple_slot(),
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

/// The destination that a UDP socket reaches through this port of the resolver.
///
/// # Safety
/// As [`state_of`].
#[inline(always)]
pub unsafe fn peer_via<'a>(sk: *mut bpf_sock, via: u16) -> Option<&'a UdpPeer> {
    if sk.is_null() || via == 0 {
        return None;
    }
    // SAFETY: not null, and the caller's promise; socket storage.
    let peers: &UdpPeers = unsafe { &*udp_peers(sk)? };
    let mut slot = 0;
    while slot < UDP_PEERS {
        if peers.peers[slot].via == via && peers.peers[slot].flow_id != 0 {
            return Some(&peers.peers[slot]);
        }
        slot += 1;
    }
    None
}

/// The destination of a UDP socket that a packet of it goes to: the resolver's port on loopback, or where the agent asked
/// for. None when no flow of the socket leads there.
///
/// # Safety
/// As [`state_of`].
#[inline(always)]
pub unsafe fn peer_to<'a>(sk: *mut bpf_sock, dst: Addr, port: u16) -> Option<&'a UdpPeer> {
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null, and the caller's promise; socket storage.
    let peers: &UdpPeers = unsafe { &*udp_peers(sk)? };
    let mut slot = 0;
    while slot < UDP_PEERS {
        let peer = &peers.peers[slot];
        let is_there = if peer.via != 0 {
            peer.via == port && (dst == Addr::LOOPBACK_V4 || dst == Addr::LOOPBACK_V6)
        } else {
            peer.port == port && peer.dst.normalized() == dst
        };
        if peer.flow_id != 0 && is_there {
            return Some(peer);
        }
        slot += 1;
    }
    None
}
