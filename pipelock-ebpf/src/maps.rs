//! The maps, shared with `pipelock::kernel::maps`, which pins them and fills them.

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ptr;
use pipelock_common::{
    Config, DenialCount, DenialKey, EVENT_RING_BYTES, Event, FlowRecord, Listeners, MAX_DENIALS, MAX_FLOWS, MAX_NETNS,
    MAX_OWN_ADDRS, MAX_TUPLES, OwnKey, PortSet, Settled, SockState, TupleKey, UdpPeers, counter,
};

/// Settings.
#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();
/// Slot 0: the number of the last flow. Slot 1: how many of all flows were denials.
#[btf_map]
pub static SEQUENCE: Array<u64, 2> = Array::new();
/// How much of the table of flows was given back.
#[btf_map]
pub static SETTLED: Array<Settled, 1> = Array::new();
/// Denials beyond the quota.
#[btf_map]
pub static DENIALS: HashMap<DenialKey, DenialCount, MAX_DENIALS> = HashMap::new();
/// How many of these have a receipt; written by the user side alone, for one that takes over.
#[btf_map]
pub static REPORTED: HashMap<DenialKey, u64, MAX_DENIALS> = HashMap::new();
/// Flows that wait for their receipt, by number.
#[btf_map]
pub static FLOWS: HashMap<u64, FlowRecord, MAX_FLOWS> = HashMap::new();
/// Local tuple to flow number.
#[btf_map]
pub static TUPLES: HashMap<TupleKey, u64, MAX_TUPLES> = HashMap::new();
/// Where the proxy listens, by cookie of the network namespace.
#[btf_map]
pub static LISTENERS: HashMap<u64, Listeners, MAX_NETNS> = HashMap::new();
/// Addresses of this host.
#[btf_map]
pub static OWN_ADDRS: HashMap<OwnKey, u32, MAX_OWN_ADDRS> = HashMap::new();
/// Slot 0: ports that some rule uses. Slot 1: loopback ports that the policy opens.
#[btf_map]
pub static PORTS: Array<PortSet, 2> = Array::new();
/// What was decided how often: see [`pipelock_common::counter`].
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { counter::COUNT as usize }> = PerCpuArray::new();
/// Wakes the user side.
#[btf_map]
pub static EVENTS: RingBuf<Event, EVENT_RING_BYTES> = RingBuf::new();
/// What is remembered with each socket; an accepted socket starts with a copy of its listener's.
#[btf_map]
pub static SOCKETS: SocketStorage<SockState> = SocketStorage::new();
/// The destinations of UDP sockets.
#[btf_map]
pub static PEERS: SocketStorage<UdpPeers> = SocketStorage::new();

/// `BPF_MAP_TYPE_SK_STORAGE` with `BPF_F_NO_PREALLOC | BPF_F_CLONE`, which aya-ebpf's own type cannot express. The
/// fields are read as types only, by the loader (libbpf's BTF map convention).
#[repr(C)]
pub struct SocketStorage<V> {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const V,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 513],
}

impl<V> SocketStorage<V> {
    const fn new() -> Self {
        Self {
            r#type: ptr::null(),
            key: ptr::null(),
            value: ptr::null(),
            max_entries: ptr::null(),
            map_flags: ptr::null(),
        }
    }
}

// SAFETY: never dereferenced here; the kernel synchronises socket storage.
unsafe impl<V> Sync for SocketStorage<V> {}

/// Slot of [`PORTS`] with the ports of the rules.
pub const PORTS_OF_RULES: u32 = 0;
/// Slot of [`PORTS`] with the opened loopback ports.
pub const PORTS_OF_LOOPBACK: u32 = 1;

/// The state of a socket, if it has any.
///
/// # Safety
/// `sk` is a socket pointer that the verifier accepts for this program, and not null.
#[inline(always)]
pub unsafe fn sock_state(sk: *mut bpf_sock) -> Option<*mut SockState> {
    // SAFETY: the caller's promise.
    unsafe { stored(&SOCKETS, sk, 0) }
}

/// The state of a socket, made empty if it has none: the kernel zeroes it, which equals `SockState::EMPTY`.
///
/// # Safety
/// As [`sock_state`].
#[inline(always)]
pub unsafe fn sock_state_or_new(sk: *mut bpf_sock) -> Option<*mut SockState> {
    // SAFETY: the caller's promise.
    unsafe { stored(&SOCKETS, sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) }
}

/// The destinations of a UDP socket, if it has had any.
///
/// # Safety
/// As [`sock_state`].
#[inline(always)]
pub unsafe fn udp_peers(sk: *mut bpf_sock) -> Option<*mut UdpPeers> {
    // SAFETY: the caller's promise.
    unsafe { stored(&PEERS, sk, 0) }
}

/// The destinations of a UDP socket, none if it has had none.
///
/// # Safety
/// As [`sock_state`].
#[inline(always)]
pub unsafe fn udp_peers_or_new(sk: *mut bpf_sock) -> Option<*mut UdpPeers> {
    // SAFETY: the caller's promise.
    unsafe { stored(&PEERS, sk, u64::from(BPF_SK_STORAGE_GET_F_CREATE)) }
}

#[inline(always)]
unsafe fn stored<V>(map: &SocketStorage<V>, sk: *mut bpf_sock, flags: u64) -> Option<*mut V> {
    let map = ptr::from_ref(map).cast_mut().cast();
    // SAFETY: the caller's promise; the helper returns null or a pointer to a whole value.
    let value = unsafe { bpf_sk_storage_get(map, sk.cast(), ptr::null_mut(), flags) }.cast::<V>();
    if value.is_null() { None } else { Some(value) }
}

/// Whether the port is in this slot of [`PORTS`].
#[inline(always)]
pub fn has_port(slot: u32, port: u16) -> bool {
    match PORTS.get(slot) {
        Some(set) => {
            let index = u32::from(port >> 6);
            // SAFETY: a local. Read back through memory, or the compiler, which knows that a `u16` is small, drops the
            // mask by which the verifiers of 6.1 and 6.12 know it too.
            let word = unsafe { ptr::read_volatile(&raw const index) } as usize & 1023;
            (set.words[word] >> (port & 63)) & 1 == 1
        }
        None => false,
    }
}

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(slot: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the pointer is to this CPU's slot, aligned. Atomic, since a packet program may interrupt another here;
        // the old value is not asked for, so `Relaxed` will do.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(value, 1) };
    }
}
