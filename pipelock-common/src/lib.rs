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
pub use decide::{Facts, Query, Receiver, Route, decide};
pub use reason::KernelReason;
pub use record::{
    Config, Event, FlowRecord, FlowState, Listeners, OwnKey, PortSet, SockKey, SockState, TupleKey, counter, hook,
    sock_flag,
};

/// Capacity of the table of flows that wait for their receipt; a flow that finds it full is denied.
pub const MAX_FLOWS: usize = 65_536;
/// Capacity of the table from local tuple to flow: TCP connections whose accept the proxy has not consumed, and UDP sockets.
pub const MAX_TUPLES: usize = 65_536;
/// Capacity of the table of network namespaces the proxy listens in.
pub const MAX_NETNS: usize = 256;
/// Capacity of the table of the host's own addresses, over all served namespaces.
pub const MAX_OWN_ADDRS: usize = 4_096;
/// Size of the event ring in bytes; a power of two and a multiple of the page size.
pub const EVENT_RING_BYTES: usize = 1 << 19;
