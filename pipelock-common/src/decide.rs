//! The decision the kernel takes for every connect and send, as one pure function.
//!
//! The programs supply [`Facts`] by helper calls, tests supply them from a table; the function itself is compiled from
//! this one source for both, so what the property tests show is what the kernel does.

use crate::{Addr, Class, KernelReason};

/// IPPROTO_TCP
const TCP: u32 = 6;
/// IPPROTO_UDP
const UDP: u32 = 17;
/// SOCK_STREAM
const STREAM: u32 = 1;
/// SOCK_DGRAM
const DGRAM: u32 = 2;
/// The port that DNS uses over UDP and TCP (RFC 1035 §4.2).
pub(crate) const DNS_PORT: u16 = 53;

/// LOOPBACK_IFINDEX: the loopback device is the first in every network namespace.
const LOOPBACK_DEVICE: u32 = 1;

/// A connect or send, as the agent asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Where to.
    pub dst: Addr,
    /// The port, host order.
    pub port: u16,
    /// IPPROTO_* of the socket.
    pub protocol: u32,
    /// SOCK_* of the socket.
    pub sock_type: u32,
    /// True for connect, false for a send on an unconnected socket.
    pub is_connect: bool,
    /// Index of the device that the socket is bound to; 0 for none.
    pub device: u32,
}

/// What the decision may ask about the machine. Each answer costs a lookup, so it is asked only when it matters, and in
/// one place: the verifier walks every path through every copy.
pub trait Facts {
    /// Whether the address belongs to this host, in the socket's network namespace.
    fn locality(&self, addr: Addr) -> Locality;
    /// Whose socket would receive there.
    fn receiver(&self, addr: Addr, port: u16, protocol: u32) -> Receiver;
    /// The policy opens this loopback port.
    fn is_loopback_port_open(&self, port: u16) -> bool;
    /// Some rule of the policy uses this port.
    fn is_port_used(&self, port: u16) -> bool;
    /// Where a redirect leads, port 0 when the proxy does not listen for it; `None` when it has no listeners in the socket's
    /// network namespace.
    fn redirect_to(&self, dns: bool) -> Option<(Addr, u16)>;
}

/// What an address is to this host; the numbers are the values in the table of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Locality {
    /// Not of this host, or of none of its interfaces: it is not in the table.
    Elsewhere = 0,
    /// An address of an interface.
    Own = 1,
    /// A broadcast address of an interface's network. The kernel hands a copy of such a datagram to every socket of this
    /// host on the port, and that copy has no socket by which the backstop could know it: nothing may be sent there.
    Broadcast = 2,
}

/// Whose socket would receive a connection or datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Nobody's, or that of somebody on this host.
    Other,
    /// One that was created inside the cgroup.
    Agent,
    /// A listener of the proxy.
    Proxy,
}

/// What happens to a connect or send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The destination becomes the transparent listener, on this port.
    Proxy(u16),
    /// The destination becomes our resolver, on this port.
    Dns(u16),
    /// It goes where it was going: a service of the agent's own, or a loopback port that the policy opens.
    Local(KernelReason),
    /// A UDP connect that reaches nobody: nothing is sent by it, and the backstop drops what is sent later.
    /// Resolvers connect UDP sockets to every address just to learn the source address they would get.
    Probe,
    /// Refused.
    Deny(KernelReason),
}

/// Decides one connect or send.
#[inline(always)]
pub fn decide(query: &Query, facts: &impl Facts) -> Route {
    let is_tcp = query.protocol == TCP && query.sock_type == STREAM;
    let is_udp = query.protocol == UDP && query.sock_type == DGRAM;
    if !is_tcp && !is_udp {
        return Route::Deny(KernelReason::SocketDenied);
    }
    // What is redirected goes to loopback, which such a socket looks for on its device and never finds.
    if query.device > LOOPBACK_DEVICE {
        return Route::Deny(KernelReason::DeviceDenied);
    }
    let is_dns = query.port == DNS_PORT;
    let dst = query.dst.normalized();
    let mut is_local = false;
    if !is_dns {
        let (class, locality) = (dst.class(), facts.locality(dst));
        if matches!(class, Class::Special) || matches!(locality, Locality::Broadcast) {
            return Route::Deny(KernelReason::AddressDenied);
        }
        is_local = matches!(class, Class::Loopback) || matches!(locality, Locality::Own);
        if !is_local {
            if is_udp && !query.is_connect {
                return Route::Deny(KernelReason::UdpDenied);
            }
            if is_udp {
                // Where the proxy does not listen, nobody has read the addresses: this may be a broadcast of the namespace,
                // whose copy for its own services the backstop does not see.
                let is_served = facts.redirect_to(false).is_some();
                return if is_served { Route::Probe } else { Route::Deny(KernelReason::NetnsUnknown) };
            }
            if query.port == 0 {
                return Route::Deny(KernelReason::AddressDenied);
            }
            if !facts.is_port_used(query.port) {
                return Route::Deny(KernelReason::PortDenied);
            }
        }
    }
    let (addr, port) = if is_local {
        (dst, query.port)
    } else if let Some(listener) = facts.redirect_to(is_dns) {
        listener
    } else {
        return Route::Deny(KernelReason::NetnsUnknown);
    };
    let receiver = facts.receiver(addr, port, query.protocol);
    if is_local {
        return if matches!(receiver, Receiver::Agent) {
            Route::Local(KernelReason::LoopbackOwn)
        } else if facts.is_loopback_port_open(query.port) {
            Route::Local(KernelReason::LoopbackAllowed)
        } else if is_udp && query.is_connect {
            Route::Probe
        } else {
            Route::Deny(KernelReason::LoopbackDenied)
        };
    }
    // Nobody, or somebody else, where the proxy should listen: whoever it is gets nothing.
    if !matches!(receiver, Receiver::Proxy) || port == 0 {
        Route::Deny(KernelReason::ProxyDown)
    } else if is_dns {
        Route::Dns(port)
    } else {
        Route::Proxy(port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    struct Table {
        locality: Locality,
        receiver: Receiver,
        loopback_open: bool,
        port_used: bool,
        netns: bool,
        listens: bool,
    }

    impl Facts for Table {
        fn locality(&self, _: Addr) -> Locality {
            self.locality
        }
        fn receiver(&self, _: Addr, _: u16, _: u32) -> Receiver {
            self.receiver
        }
        fn is_loopback_port_open(&self, _: u16) -> bool {
            self.loopback_open
        }
        fn is_port_used(&self, _: u16) -> bool {
            self.port_used
        }
        fn redirect_to(&self, dns: bool) -> Option<(Addr, u16)> {
            let port = if dns { 40_053 } else { 40_080 };
            self.netns.then_some((Addr::LOOPBACK_V4, if self.listens { port } else { 0 }))
        }
    }

    fn tables() -> impl Strategy<Value = Table> {
        let receivers = prop_oneof![Just(Receiver::Other), Just(Receiver::Agent), Just(Receiver::Proxy)];
        let localities = prop_oneof![Just(Locality::Elsewhere), Just(Locality::Own), Just(Locality::Broadcast)];
        (localities, any::<[bool; 4]>(), receivers).prop_map(
            |(locality, [loopback_open, port_used, netns, listens], receiver)| Table {
                locality,
                receiver,
                loopback_open,
                port_used,
                netns,
                listens,
            },
        )
    }

    fn queries() -> impl Strategy<Value = Query> {
        let ports = prop_oneof![Just(0u16), Just(53), Just(80), Just(443), any::<u16>()];
        let kinds = prop_oneof![Just((TCP, STREAM)), Just((UDP, DGRAM)), (0u32..300, 0u32..12)];
        let octets = prop_oneof![
            any::<[u32; 4]>().prop_map(Addr),
            any::<u32>().prop_map(Addr::from_be4),
            any::<[u8; 3]>().prop_map(|[b, c, d]| Addr::from_be4(u32::from_ne_bytes([127, b, c, d]))),
            Just(Addr::LOOPBACK_V6),
            Just(Addr::NONE),
        ];
        let devices = prop_oneof![Just(0u32), Just(1), any::<u32>()];
        (octets, ports, kinds, any::<bool>(), devices).prop_map(
            |(dst, port, (protocol, sock_type), is_connect, device)| Query {
                dst,
                port,
                protocol,
                sock_type,
                is_connect,
                device,
            },
        )
    }

    proptest! {
        #[test]
        fn nothing_goes_out_directly(query in queries(), table in tables()) {
            // The only routes that keep the agent's destination stay on this host and are the agent's own or opened.
            if let Route::Local(reason) = decide(&query, &table) {
                prop_assert!(query.dst.class() == Class::Loopback || table.locality == Locality::Own);
                let accounted = if reason == KernelReason::LoopbackOwn {
                    table.receiver == Receiver::Agent
                } else {
                    table.loopback_open
                };
                prop_assert!(accounted);
                prop_assert_ne!(query.port, DNS_PORT);
            }
        }

        #[test]
        fn a_broadcast_goes_to_the_resolver_or_nowhere(query in queries(), table in tables()) {
            let route = decide(&query, &Table { locality: Locality::Broadcast, ..table });
            prop_assert!(matches!(route, Route::Dns(_) | Route::Deny(_)), "{:?}", route);
            let known = [(TCP, STREAM), (UDP, DGRAM)].contains(&(query.protocol, query.sock_type));
            if known && query.device <= LOOPBACK_DEVICE && query.port != DNS_PORT {
                prop_assert_eq!(route, Route::Deny(KernelReason::AddressDenied));
            }
        }

        #[test]
        fn a_dead_or_absent_proxy_never_gets_traffic(query in queries(), table in tables()) {
            let route = decide(&query, &table);
            if matches!(route, Route::Proxy(_) | Route::Dns(_)) {
                prop_assert!(table.netns && table.listens && table.receiver == Receiver::Proxy);
            }
        }

        #[test]
        fn udp_leaves_only_as_dns(query in queries(), table in tables()) {
            if query.protocol == UDP {
                prop_assert!(!matches!(decide(&query, &table), Route::Proxy(_)));
            }
            if query.protocol == UDP && query.sock_type == DGRAM && !query.is_connect {
                prop_assert_ne!(decide(&query, &table), Route::Probe);
            }
        }

        /// A probe is let go without a flow, which only a UDP connect can be: it sends nothing.
        #[test]
        fn only_udp_connects_reach_nobody(query in queries(), table in tables()) {
            if decide(&query, &table) == Route::Probe {
                prop_assert_eq!((query.protocol, query.sock_type, query.is_connect), (UDP, DGRAM, true));
                prop_assert_ne!(query.port, DNS_PORT);
            }
            for (protocol, sock_type, is_connect) in [(TCP, STREAM, true), (TCP, STREAM, false), (UDP, DGRAM, false)] {
                let query = Query { protocol, sock_type, is_connect, device: 0, ..query };
                prop_assert_ne!(decide(&query, &table), Route::Probe);
            }
        }

        #[test]
        fn udp_connects_only_where_the_addresses_are_known(query in queries(), table in tables()) {
            let query = Query { protocol: UDP, sock_type: DGRAM, is_connect: true, ..query };
            let unserved = Table { netns: false, ..table };
            if decide(&query, &unserved) == Route::Probe {
                prop_assert!(query.dst.class() == Class::Loopback || table.locality == Locality::Own);
            }
        }

        #[test]
        fn other_protocols_are_refused(query in queries(), table in tables()) {
            let known = (query.protocol, query.sock_type) == (TCP, STREAM) || (query.protocol, query.sock_type) == (UDP, DGRAM);
            let refused = decide(&query, &table) == Route::Deny(KernelReason::SocketDenied);
            prop_assert_eq!(refused, !known);
        }

        #[test]
        fn a_socket_bound_to_a_device_reaches_nothing(query in queries(), table in tables()) {
            if query.device > 1 {
                prop_assert!(matches!(decide(&query, &table), Route::Deny(_)));
            }
        }

        #[test]
        fn every_port_53_goes_to_the_resolver_or_nowhere(query in queries(), table in tables()) {
            let query = Query { port: DNS_PORT, ..query };
            let route = decide(&query, &table);
            prop_assert!(matches!(route, Route::Dns(40_053) | Route::Deny(_)), "{:?}", route);
        }

        #[test]
        fn denials_carry_a_denying_reason(query in queries(), table in tables()) {
            match decide(&query, &table) {
                Route::Deny(reason) => prop_assert!(reason.is_denial()),
                Route::Local(reason) => prop_assert!(!reason.is_denial()),
                Route::Proxy(_) | Route::Dns(_) | Route::Probe => {}
            }
        }
    }
}
