//! Addresses as the programs compare them: always 16 bytes, IPv4 in its IPv6-mapped form.
//!
//! Normalising once, before any rule is looked up, is what makes `::ffff:10.0.0.1`, `0.0.0.0` and `127.0.0.1` mean one
//! thing everywhere.

/// An IPv4 or IPv6 address, IPv4 as `::ffff:a.b.c.d`: four 32-bit words, each in network byte order as it lies in memory.
///
/// Words and not bytes, because the programs live on a 512-byte stack and the verifier reads contexts word by word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Addr(pub [u32; 4]);

/// What kind of destination an address is, before any policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 127.0.0.0/8, ::1, and 0.0.0.0 and :: (which connect to loopback).
    Loopback,
    /// Multicast, broadcast (that of loopback too), 0.0.0.0/8 and 240.0.0.0/4: never a destination.
    Special,
    /// Anything else; it may still be an address of this host.
    Other,
}

/// The third word of every IPv4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Addr {
    /// No address at all.
    pub const NONE: Self = Self([0; 4]);
    /// 127.0.0.1
    pub const LOOPBACK_V4: Self = Self::from_be4(0x7f00_0001_u32.to_be());
    /// ::1
    pub const LOOPBACK_V6: Self = Self([0, 0, 0, 1_u32.to_be()]);

    /// From an IPv4 address as the kernel holds it: four octets in network order, read as a native `u32`.
    #[inline(always)]
    #[must_use]
    pub const fn from_be4(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// From sixteen octets in network order.
    #[must_use]
    pub const fn from_octets(o: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([o[0], o[1], o[2], o[3]]),
            u32::from_ne_bytes([o[4], o[5], o[6], o[7]]),
            u32::from_ne_bytes([o[8], o[9], o[10], o[11]]),
            u32::from_ne_bytes([o[12], o[13], o[14], o[15]]),
        ])
    }

    /// The sixteen octets in network order.
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// True for IPv4, in its mapped form.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// `0.0.0.0` becomes `127.0.0.1` and `::` becomes `::1`, as `connect` treats them; all else is unchanged.
    #[inline(always)]
    #[must_use]
    pub const fn normalized(self) -> Self {
        if self.0[3] != 0 || self.0[0] != 0 || self.0[1] != 0 {
            self
        } else if self.0[2] == 0 {
            Self::LOOPBACK_V6
        } else if self.0[2] == MAPPED {
            Self::LOOPBACK_V4
        } else {
            self
        }
    }

    /// The class of the address.
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> Class {
        let a = self.normalized();
        if a.is_v4() {
            return match u32::from_be(a.0[3]) >> 24 {
                // A broadcast: it comes to every socket on the port, whoever has the one that was looked up.
                127 if u32::from_be(a.0[3]) & 0x00ff_ffff == 0 || u32::from_be(a.0[3]) == 0x7fff_ffff => Class::Special,
                127 => Class::Loopback,
                0 | 224..=255 => Class::Special,
                _ => Class::Other,
            };
        }
        if u32::from_be(a.0[0]) >> 24 == 0xff {
            return Class::Special;
        }
        if a.0[0] == 0 && a.0[1] == 0 && a.0[2] == 0 {
            // ::/96 other than ::1 is IPv4-compatible: some stacks deliver ::127.0.0.1 locally, and nobody needs it.
            return if a.0[3] == 1_u32.to_be() { Class::Loopback } else { Class::Special };
        }
        Class::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::{Ipv4Addr, Ipv6Addr};
    use proptest::prelude::*;

    fn v6(text: &str) -> Addr {
        Addr::from_octets(text.parse::<Ipv6Addr>().expect(text).octets())
    }

    #[test]
    fn unspecified_addresses_are_loopback() {
        assert_eq!(Addr::from_be4(0).normalized(), Addr::LOOPBACK_V4);
        assert_eq!(v6("::").normalized(), Addr::LOOPBACK_V6);
        for text in ["::1", "::", "::ffff:127.9.9.9", "::ffff:0.0.0.0"] {
            assert_eq!(v6(text).class(), Class::Loopback, "{text}");
        }
    }

    #[test]
    fn addresses_that_are_never_a_destination() {
        for text in [
            "ff02::1",
            "::ffff:224.0.0.1",
            "::ffff:255.255.255.255",
            "::ffff:127.255.255.255",
            "::ffff:127.0.0.0",
            "::ffff:0.1.2.3",
            "::127.0.0.1",
            "::ffff:240.0.0.1",
        ] {
            assert_eq!(v6(text).class(), Class::Special, "{text}");
        }
        for text in ["2001:db8::1", "::ffff:10.0.0.1", "fe80::1", "64:ff9b::7f00:1", "::ffff:223.255.255.255"] {
            assert_eq!(v6(text).class(), Class::Other, "{text}");
        }
    }

    proptest! {
        #[test]
        fn both_spellings_of_v4_are_one_address(octets: [u8; 4]) {
            let mapped = Addr::from_octets(Ipv4Addr::from(octets).to_ipv6_mapped().octets());
            prop_assert_eq!(Addr::from_be4(u32::from_ne_bytes(octets)), mapped);
            prop_assert!(mapped.is_v4());
            let is_broadcast = matches!(octets, [127, 0, 0, 0] | [127, 255, 255, 255]);
            prop_assert_eq!(mapped.class() == Class::Loopback, octets[0] == 127 && !is_broadcast || octets == [0; 4]);
        }

        #[test]
        fn octets_round_trip(octets: [u8; 16]) {
            prop_assert_eq!(Addr::from_octets(octets).octets(), octets);
        }

        #[test]
        fn normalizing_is_idempotent_and_keeps_the_class(octets: [u8; 16]) {
            let addr = Addr::from_octets(octets);
            prop_assert_eq!(addr.normalized().normalized(), addr.normalized());
            prop_assert_eq!(addr.class(), addr.normalized().class());
        }
    }
}
