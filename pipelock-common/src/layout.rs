//! Compile-time proof that every shared type is laid out without implicit padding, and `Pod` for the user side.

use crate::{
    Config, DenialCount, DenialKey, Event, FlowRecord, Listeners, OwnKey, PortSet, Settled, SockKey, SockState,
    TupleKey, UdpPeer, UdpPeers,
};
use core::mem::{align_of, offset_of, size_of};

/// Size equals the sum of the fields: no padding that the compiler put in and nobody initialises.
macro_rules! assert_layout {
    ($ty:ty, $size:literal, $align:literal, { $($field:ident: $field_ty:ty),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$ty>() == $size);
            assert!(align_of::<$ty>() == $align);
            let mut offset = 0;
            $(
                assert!(offset_of!($ty, $field) == offset);
                offset += size_of::<$field_ty>();
            )+
            assert!(offset == $size);
        };
    };
}

assert_layout!(SockKey, 16, 8, { netns: u64, cookie: u64 });
assert_layout!(TupleKey, 32, 8, { netns: u64, addr: [u32; 4], port: u16, protocol: u8, family: u8, slot: u32 });
assert_layout!(OwnKey, 24, 8, { netns: u64, addr: [u32; 4] });
assert_layout!(Listeners, 20, 2, { tcp4: u16, tcp6: u16, dns4: [u16; 4], dns6: [u16; 4] });
assert_layout!(UdpPeer, 32, 8, { flow_id: u64, dst: [u32; 4], port: u16, via: u16, pad: u32 });
assert_layout!(UdpPeers, 136, 8, { peers: [UdpPeer; 4], next: u32, pad: u32 });
assert_layout!(Config, 12, 4, { listen_any: u32, generation: u32, layout: u32 });
assert_layout!(PortSet, 8192, 8, { words: [u64; 1024] });
assert_layout!(DenialKey, 28, 4, {
    dst: [u32; 4], generation: u32, port: u16, protocol: u16, reason: u8, hook: u8, family: u8, pad: u8,
});
assert_layout!(DenialCount, 72, 8, {
    count: u64, first_ns: u64, last_ns: u64, comm: [u8; 16], tgid: u32, uid: u32, src: [u32; 4], peer_port: u16, pad: [u16; 3],
});
assert_layout!(Settled, 16, 8, { flows: u64, denials: u64 });
assert_layout!(Event, 8, 8, { flow_id: u64 });
assert_layout!(FlowRecord, 144, 8, {
    flow_id: u64, sock: SockKey, cgroup_id: u64, opened_ns: u64, closed_ns: u64, tx_bytes: u64, rx_bytes: u64,
    dst: [u32; 4], src: [u32; 4], comm: [u8; 16], pid: u32, tgid: u32, uid: u32, gid: u32, generation: u32,
    dst_port: u16, src_port: u16, protocol: u16, sock_type: u8, family: u8, reason: u8, state: u8, hook: u8, slot: u8,
});
assert_layout!(SockState, 88, 8, {
    flow_id: u64, cgroup_id: u64, dst: [u32; 4], dropped: [u32; 4], comm: [u8; 16], pid: u32, tgid: u32, uid: u32,
    gid: u32, flags: u32, dst_port: u16, dropped_port: u16,
});

#[cfg(feature = "user")]
mod pod {
    use super::{
        Config, DenialCount, DenialKey, Event, FlowRecord, Listeners, OwnKey, PortSet, Settled, SockKey, SockState,
        TupleKey,
    };

    macro_rules! pod {
        ($($ty:ty),+) => {
            // SAFETY: `repr(C)`, integers and arrays of integers only, and no padding (asserted above), so every bit
            // pattern is valid and every byte is initialised.
            $(unsafe impl aya::Pod for $ty {})+
        };
    }
    pod!(
        Config,
        DenialCount,
        DenialKey,
        Event,
        FlowRecord,
        Listeners,
        OwnKey,
        PortSet,
        Settled,
        SockKey,
        SockState,
        TupleKey
    );
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::{
        DENIAL_QUOTA, EVENT_RING_BYTES, FLOW_MARGIN, FlowState, KernelReason, LAYOUT, MAX_DENIALS, MAX_FLOWS,
        MAX_NETNS, MAX_OWN_ADDRS, MAX_TUPLES, counter, hook, sock_flag, tuple_slot,
    };

    /// The number of the layout, and the hash of what a proxy that takes pinned maps over must read as it was written.
    const KNOWN: (u32, u64) = (1, 0x18f5_d2d1_d4e8_d1c0);

    /// The types as they are asserted above, and the numbers that their fields hold.
    fn description() -> String {
        let asserted = include_str!("layout.rs").split("\nassert_layout!(").skip(1);
        let asserted = asserted.filter_map(|text| text.split_once(");").map(|(text, _)| text));
        let mut all: String = asserted.flat_map(|text| text.chars().filter(|char| !char.is_whitespace())).collect();
        for reason in KernelReason::ALL {
            let _ = write!(all, "{reason:?}={},", *reason as u8);
        }
        for state in [FlowState::Open, FlowState::Established, FlowState::Closed, FlowState::Filling] {
            let _ = write!(all, "{state:?}={},", state as u8);
        }
        let sizes = [MAX_FLOWS, MAX_TUPLES, MAX_DENIALS, MAX_NETNS, MAX_OWN_ADDRS, EVENT_RING_BYTES];
        let limits = [FLOW_MARGIN, DENIAL_QUOTA];
        let flags = {
            use sock_flag::{AGENT, INBOUND, LISTENING, LOCAL, PROXY, REDIRECTED};
            [AGENT, PROXY, LOCAL, REDIRECTED, LISTENING, INBOUND]
        };
        let hooks = {
            use hook::{BIND4, BIND6, CONNECT4, CONNECT6, EGRESS, INGRESS, POST_BIND4, POST_BIND6};
            use hook::{SENDMSG4, SENDMSG6, SETSOCKOPT, SOCK_CREATE, SOCK_OPS};
            let connects = [CONNECT4, CONNECT6, SENDMSG4, SENDMSG6, SOCK_CREATE, BIND4, BIND6];
            (connects, [POST_BIND4, POST_BIND6, EGRESS, INGRESS, SOCK_OPS, SETSOCKOPT])
        };
        let slots = [tuple_slot::PROXY, tuple_slot::DNS, tuple_slot::OWN];
        let counters = [counter::REPEATS, counter::UNRECORDED, counter::EVENTS_LOST, counter::PROBES, counter::COUNTED];
        let _ = write!(all, "{sizes:?}{limits:?}{flags:?}{hooks:?}{slots:?}{counters:?}");
        all
    }

    /// FNV-1a, 64 bits.
    fn hash(text: &str) -> u64 {
        text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    #[test]
    fn another_layout_has_another_number() {
        let description = description();
        assert!(description.contains("FlowRecord,144,8"), "{description}");
        let now = (LAYOUT, hash(&description));
        assert!(
            now == KNOWN,
            "what the maps hold has changed: raise LAYOUT, unless it never left this checkout, and put ({}, {:#x}) here",
            now.0,
            now.1
        );
    }
}
