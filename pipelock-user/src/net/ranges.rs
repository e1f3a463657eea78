//! The addresses that are not on the public internet, as tables.
//!
//! Used by `net::ssrf` only. Sources: the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890 and updates,
//! <https://www.iana.org/assignments/iana-ipv4-special-registry>, `…-ipv6-special-registry`), the multicast and
//! reserved blocks, and the metadata addresses the clouds document. IPv6 is read the other way round: only 2000::/3
//! and the well-known NAT64 prefix are public, so a block that IANA opens tomorrow is refused until it is looked at.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of special address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A service that hands credentials to whoever asks from the right machine.
    Metadata,
    /// 0.0.0.0/8 and `::`: this host, on Linux the same as loopback.
    Unspecified,
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// 10/8, 172.16/12, 192.168/16 (RFC 1918).
    Private,
    /// 100.64.0.0/10: carrier-grade NAT, also overlay networks (RFC 6598).
    SharedSpace,
    /// 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// fc00::/7 (RFC 4193) and the older fec0::/10.
    UniqueLocal,
    /// 192.0.0.0/24, 2001::/23: blocks for protocols, among them Teredo and ORCHID.
    ProtocolAssignment,
    /// The prefixes for examples and documents.
    Documentation,
    /// 198.18.0.0/15, 2001:2::/48: benchmarking; our own synthetic addresses live here.
    Benchmarking,
    /// Prefixes that carry another address: 6to4 and its relays, local NAT64, IPv4-compatible and -translated.
    Transition,
    /// Groups, not hosts.
    Multicast,
    /// An address of this host, whatever its range.
    Own,
    /// 255.255.255.255.
    Broadcast,
    /// 240.0.0.0/4 and every IPv6 block that is not global unicast.
    Reserved,
}

impl Class {
    /// The word for logs and error texts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Metadata => "metadata service",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::SharedSpace => "shared address space",
            Self::LinkLocal => "link-local",
            Self::UniqueLocal => "unique local",
            Self::ProtocolAssignment => "protocol assignment",
            Self::Documentation => "documentation",
            Self::Benchmarking => "benchmarking",
            Self::Transition => "transition mechanism",
            Self::Multicast => "multicast",
            Self::Own => "local (this host's own)",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
        }
    }

    /// How much an allow entry must say to open an address of this class.
    pub(super) fn consent(self) -> Consent {
        match self {
            Self::Unspecified | Self::Multicast | Self::Broadcast => Consent::Never,
            Self::Metadata => Consent::Exact,
            Self::Loopback => Consent::Within,
            _ => Consent::Covered,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What it takes to open an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    /// Nothing opens it.
    Never,
    /// An entry for this one address (/32, /128).
    Exact,
    /// An entry inside the class: `127.0.0.0/8` opens loopback, `0.0.0.0/0` does not.
    Within,
    /// Any entry that covers it.
    Covered,
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(a: u16, b: u16, c: u16, d: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)
}

/// Special IPv4 blocks: network, prefix length, class. The first that matches decides.
pub(super) const V4: &[(Ipv4Addr, u8, Class)] = &[
    (v4(0, 0, 0, 0), 8, Class::Unspecified),
    (v4(10, 0, 0, 0), 8, Class::Private),
    (v4(100, 64, 0, 0), 10, Class::SharedSpace),
    (v4(127, 0, 0, 0), 8, Class::Loopback),
    (v4(169, 254, 0, 0), 16, Class::LinkLocal),
    (v4(172, 16, 0, 0), 12, Class::Private),
    (v4(192, 0, 0, 0), 24, Class::ProtocolAssignment),
    (v4(192, 0, 2, 0), 24, Class::Documentation),
    (v4(192, 88, 99, 0), 24, Class::Transition),
    (v4(192, 168, 0, 0), 16, Class::Private),
    (v4(198, 18, 0, 0), 15, Class::Benchmarking),
    (v4(198, 51, 100, 0), 24, Class::Documentation),
    (v4(203, 0, 113, 0), 24, Class::Documentation),
    (v4(224, 0, 0, 0), 4, Class::Multicast),
    (v4(255, 255, 255, 255), 32, Class::Broadcast),
    (v4(240, 0, 0, 0), 4, Class::Reserved),
];

/// Special IPv6 blocks, the narrower before the wider; whatever is left outside [`GLOBAL_V6`] is reserved.
pub(super) const V6: &[(Ipv6Addr, u8, Class)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, Class::Unspecified),
    (Ipv6Addr::LOCALHOST, 128, Class::Loopback),
    // IPv4-compatible, deprecated by RFC 4291; IPv4-translated, RFC 2765. (Mapped is unmapped before the tables.)
    (v6(0, 0, 0, 0), 96, Class::Transition),
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, Class::Transition),
    (v6(0x64, 0xff9b, 1, 0), 48, Class::Transition),
    (v6(0x100, 0, 0, 0), 64, Class::Reserved),
    (v6(0x100, 0, 0, 1), 64, Class::Reserved),
    (v6(0x2001, 2, 0, 0), 48, Class::Benchmarking),
    (v6(0x2001, 0, 0, 0), 32, Class::Transition),
    (v6(0x2001, 0, 0, 0), 23, Class::ProtocolAssignment),
    (v6(0x2001, 0xdb8, 0, 0), 32, Class::Documentation),
    (v6(0x2002, 0, 0, 0), 16, Class::Transition),
    (v6(0x3fff, 0, 0, 0), 20, Class::Documentation),
    (v6(0x5f00, 0, 0, 0), 16, Class::Reserved),
    (v6(0xfc00, 0, 0, 0), 7, Class::UniqueLocal),
    (v6(0xfe80, 0, 0, 0), 10, Class::LinkLocal),
    (v6(0xfec0, 0, 0, 0), 10, Class::UniqueLocal),
    (v6(0xff00, 0, 0, 0), 8, Class::Multicast),
];

/// What is public in IPv6: global unicast, and NAT64 (RFC 6052), whose embedded IPv4 address is judged on its own.
pub(super) const GLOBAL_V6: &[(Ipv6Addr, u8)] = &[(v6(0x2000, 0, 0, 0), 3), (v6(0x64, 0xff9b, 0, 0), 96)];

/// Addresses of metadata and credential services.
pub(super) const METADATA: &[IpAddr] = &[
    IpAddr::V4(v4(169, 254, 169, 254)), // AWS, Google, Azure, Oracle, DigitalOcean, OpenStack and most others
    IpAddr::V4(v4(169, 254, 170, 2)),   // AWS ECS task credentials
    IpAddr::V4(v4(169, 254, 170, 23)),  // AWS EKS pod identity
    IpAddr::V4(v4(169, 254, 0, 23)),    // Tencent
    IpAddr::V4(v4(169, 254, 42, 42)),   // Scaleway
    IpAddr::V4(v4(168, 63, 129, 16)),   // Azure wire server, in public space
    IpAddr::V4(v4(100, 100, 100, 200)), // Alibaba
    IpAddr::V4(v4(192, 0, 0, 192)),     // Oracle classic
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), // AWS
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)), // AWS EKS pod identity
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), // Google
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)), // Oracle
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)), // Scaleway
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe)), // OpenStack
];

/// True when the first `len` bits of both are equal.
pub(super) fn in_v4(addr: Ipv4Addr, net: Ipv4Addr, len: u8) -> bool {
    let mask = u32::MAX.checked_shl(32u32.saturating_sub(len.into())).unwrap_or(0);
    (addr.to_bits() ^ net.to_bits()) & mask == 0
}

/// True when the first `len` bits of both are equal.
pub(super) fn in_v6(addr: Ipv6Addr, net: Ipv6Addr, len: u8) -> bool {
    let mask = u128::MAX.checked_shl(128u32.saturating_sub(len.into())).unwrap_or(0);
    (addr.to_bits() ^ net.to_bits()) & mask == 0
}

/// The class of a special address and the prefix length of the block it stands in; none for a public one.
/// `addr` is not a mapped address (`to_canonical` first), and addresses embedded in it are not looked at.
pub(super) fn classify(addr: IpAddr) -> Option<(Class, u8)> {
    if METADATA.contains(&addr) {
        return Some((Class::Metadata, if addr.is_ipv4() { 32 } else { 128 }));
    }
    match addr {
        IpAddr::V4(a) => V4.iter().find(|(net, len, _)| in_v4(a, *net, *len)).map(|(_, len, class)| (*class, *len)),
        IpAddr::V6(a) => V6
            .iter()
            .find(|(net, len, _)| in_v6(a, *net, *len))
            .map(|(_, len, class)| (*class, *len))
            .or_else(|| (!GLOBAL_V6.iter().any(|(net, len)| in_v6(a, *net, *len))).then_some((Class::Reserved, 0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(text: &str) -> Option<Class> {
        classify(text.parse().expect(text)).map(|(class, _)| class)
    }

    /// First and last address of every block, and the public neighbours on both sides.
    #[test]
    fn both_edges_of_every_block() {
        use Class::*;
        for (before, first, last, after, class) in [
            ("", "0.0.0.0", "0.255.255.255", "1.0.0.0", Unspecified),
            ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", Private),
            ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0", SharedSpace),
            ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0", Loopback),
            ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0", LinkLocal),
            ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0", Private),
            ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0", ProtocolAssignment),
            ("192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0", Documentation),
            ("192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0", Transition),
            ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0", Private),
            ("198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0", Benchmarking),
            ("198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0", Documentation),
            ("203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0", Documentation),
            ("223.255.255.255", "224.0.0.0", "239.255.255.255", "", Multicast),
            ("", "240.0.0.0", "255.255.255.254", "", Reserved),
            ("", "255.255.255.255", "255.255.255.255", "", Broadcast),
            ("168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17", Metadata),
            ("", "::", "::", "", Unspecified),
            ("", "::1", "::1", "", Loopback),
            ("", "::2", "::ffff:ffff", "", Transition),
            ("", "::ffff:0:0:0", "::ffff:0:ffff:ffff", "", Transition),
            ("", "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "", Transition),
            ("", "100::", "100::1:ffff:ffff:ffff:ffff", "", Reserved),
            (
                "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001::",
                "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
                "",
                Transition,
            ),
            ("", "2001:1::", "2001:1:ffff:ffff:ffff:ffff:ffff:ffff", "", ProtocolAssignment),
            ("", "2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "", Benchmarking),
            ("", "2001:2:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::", ProtocolAssignment),
            (
                "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db8::",
                "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
                "2001:db9::",
                Documentation,
            ),
            (
                "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2002::",
                "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "2003::",
                Transition,
            ),
            (
                "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                "3fff::",
                "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
                "3fff:1000::",
                Documentation,
            ),
            ("3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "5eff:ffff::", "", Reserved),
            ("", "5f00::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", Reserved),
            ("", "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", UniqueLocal),
            ("", "fe00::", "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", Reserved),
            ("", "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", LinkLocal),
            ("", "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", UniqueLocal),
            ("", "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", Multicast),
            ("64:ff9b::ffff:ffff", "64:ff9b::1:0:0", "64:ff9b:0:ffff:ffff:ffff:ffff:ffff", "", Reserved),
            ("", "65::", "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", Reserved),
            ("", "101::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2000::", Reserved),
        ] {
            assert_eq!(class_of(first), Some(class), "first address {first}");
            assert_eq!(class_of(last), Some(class), "last address {last}");
            for neighbour in [before, after].into_iter().filter(|text| !text.is_empty()) {
                assert_eq!(class_of(neighbour), None, "neighbour {neighbour}");
            }
        }
    }

    /// Every row of the tables, computed from the rows: a typing error in a length shows up here or above.
    #[test]
    fn every_row_holds_its_first_and_last_address() {
        for (net, len, class) in V4 {
            let last = Ipv4Addr::from_bits(net.to_bits() | u32::MAX.checked_shr((*len).into()).unwrap_or(0));
            for addr in [*net, last] {
                assert!(in_v4(addr, *net, *len) && classify(addr.into()).is_some(), "{addr} of {class}");
            }
        }
        for (net, len, class) in V6 {
            let last = Ipv6Addr::from_bits(net.to_bits() | u128::MAX.checked_shr((*len).into()).unwrap_or(0));
            for addr in [*net, last] {
                assert!(in_v6(addr, *net, *len) && classify(addr.into()).is_some(), "{addr} of {class}");
            }
        }
    }

    #[test]
    fn metadata_services_are_told_from_the_blocks_they_stand_in() {
        for addr in METADATA {
            assert_eq!(classify(*addr).map(|(class, _)| class), Some(Class::Metadata), "{addr}");
        }
    }

    #[test]
    fn public_addresses_have_no_class() {
        for text in
            ["1.1.1.1", "8.8.8.8", "140.82.121.4", "2606:4700::1111", "2a00:1450:4001:80b::200e", "64:ff9b::101:101"]
        {
            assert_eq!(class_of(text), None, "{text}");
        }
    }
}
