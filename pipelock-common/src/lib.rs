//! Plain data shared by the kernel programs and the user side, and the one pure decision function both compile.
//!
//! Compiled for the BPF target (`no_std`, no allocation, no panics) by pipelock-ebpf and for the host by everything
//! else. It promises that both sides agree on every byte of every map: layouts are asserted at compile time.
#![cfg_attr(not(test), no_std)]

mod addr;
mod decide;
mod layout;
mod reason;
mod record;

pub use addr::{Addr, Class};
pub use decide::{Facts, Locality, Query, Receiver, Route, decide};
pub use reason::KernelReason;
pub use record::{
    Config, DenialCount, DenialKey, Event, FlowRecord, FlowState, Listeners, OwnKey, PortSet, Settled, SockKey,
    SockState, TupleKey, UDP_PEERS, UdpPeer, UdpPeers, counter, hook, sock_flag, tuple_slot,
};

/// Number of the layout of the maps: raised with every change of what a map holds or means, so that nobody takes over maps
/// that another version of pipelock left pinned.
pub const LAYOUT: u32 = 1;

/// Capacity of the table of flows that wait for their receipt; a flow that finds it full is denied.
pub const MAX_FLOWS: usize = 65_536;
/// Places in that table that are not given out, for programs that looked at the same moment.
pub const FLOW_MARGIN: u64 = 256;
/// Denials in that table that may wait for their receipt. Further ones are counted in the table of denials instead, so
/// that a flood of them neither fills the table for others nor outruns the signer.
pub const DENIAL_QUOTA: u64 = 8_192;
/// Capacity of the table of counted denials, by destination and reason; the first of each reason is without destination.
pub const MAX_DENIALS: usize = 8_192;
/// Capacity of the table from local tuple to flow: TCP connections whose accept the proxy has not consumed, and UDP sockets.
pub const MAX_TUPLES: usize = 65_536;
/// Capacity of the table of network namespaces the proxy listens in.
pub const MAX_NETNS: usize = 256;
/// Capacity of the table of the host's own addresses, over all served namespaces. An IPv4 network takes two more places,
/// for its broadcasts.
pub const MAX_OWN_ADDRS: usize = 16_384;
/// Size of the event ring in bytes; a power of two and a multiple of the page size.
pub const EVENT_RING_BYTES: usize = 1 << 19;
