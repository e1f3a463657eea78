//! Decides whether an address may be dialled: the defence against names that lead inside.
//!
//! Called by `net::way` with every answer of the resolver, and by whoever dials an address as such. It
//! promises that a [`CheckedAddr`] exists only for an address that is public, or that the operator opened under
//! `ssrf.allow`, however the address was spelled or wrapped (mapped, compatible, translated, NAT64, 6to4, Teredo,
//! ISATAP). Whether one is this host's own is asked beside it, in `net::way`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use crate::net::ranges::{Class, Consent, classify, in_v6};

/// An address that passed [`check`]; nothing else makes one. IPv4-mapped addresses are unmapped in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct CheckedAddr(SocketAddr);

impl CheckedAddr {
    /// The address to dial.
    #[must_use]
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

/// The address is special and nothing under `ssrf.allow` opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{addr} is {} {class} address{}", .class.article(), .class.how())]
pub struct SsrfDenied {
    /// The address as it was to be dialled, unmapped.
    pub addr: SocketAddr,
    /// Why: the class of the address or of one embedded in it.
    pub class: Class,
}

impl Class {
    fn article(self) -> &'static str {
        if self == Self::Unspecified { "an" } else { "a" }
    }

    fn how(self) -> &'static str {
        match self.consent() {
            Consent::Never => ", which no entry under ssrf.allow opens",
            Consent::Exact => {
                "; to reach it, name it under ssrf.allow (this class needs the exact address, as /32 or /128)"
            }
            Consent::Within => {
                "; to reach it, name its network under ssrf.allow (this class needs an entry of its own, such as 127.0.0.0/8)"
            }
            Consent::Covered => "; to reach it, name its network under ssrf.allow (any entry that covers it)",
        }
    }
}

/// Checks one address against the special ranges; `allow` is the operator's list of exempted networks.
///
/// An address that embeds an IPv4 address passes only when both pass.
///
/// # Errors
/// [`SsrfDenied`] with the first class that nothing opens.
pub fn check(addr: SocketAddr, allow: &[IpNet]) -> Result<CheckedAddr, SsrfDenied> {
    let ip = addr.ip().to_canonical();
    // Rebuilt rather than copied: flow label and scope id are not part of what was checked. Only a link-local address
    // that the operator opened means nothing without its scope.
    let addr = match addr {
        SocketAddr::V6(v6) if !ip.is_ipv4() && v6.ip().is_unicast_link_local() => addr,
        _ => SocketAddr::new(ip, addr.port()),
    };
    for judged in judged(ip) {
        if let Some((class, block)) = classify(judged)
            && !opened(judged, class, block, allow)
        {
            return Err(SsrfDenied { addr, class });
        }
    }
    Ok(CheckedAddr(addr))
}

/// Checks every answer for a name. One special address spoils the whole set: a name that answers with public and
/// private addresses together is how DNS rebinding gets past a check that picks the good ones.
///
/// # Errors
/// [`SsrfDenied`] for the first address that fails.
pub fn check_all(addrs: &[SocketAddr], allow: &[IpNet]) -> Result<Vec<CheckedAddr>, SsrfDenied> {
    addrs.iter().map(|addr| check(*addr, allow)).collect()
}

/// What an address is judged as: itself, unmapped, and the IPv4 addresses that a router or relay could take out of it.
pub(super) fn judged(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let ip = ip.to_canonical();
    let embedded = match ip {
        IpAddr::V4(_) => [None; 4],
        IpAddr::V6(v6) => embedded(v6),
    };
    std::iter::once(ip).chain(embedded.into_iter().flatten().map(IpAddr::V4))
}

/// `block` is the prefix length of the special block that holds `addr`.
fn opened(addr: IpAddr, class: Class, block: u8, allow: &[IpNet]) -> bool {
    let needed = match class.consent() {
        Consent::Never => return false,
        Consent::Exact => {
            if addr.is_ipv4() {
                32
            } else {
                128
            }
        }
        Consent::Within => block,
        Consent::Covered => 0,
    };
    allow.iter().any(|net| net.prefix_len() >= needed && net.contains(&addr))
}

/// The IPv4 addresses that a router or relay could take out of this one.
fn embedded(addr: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let bits = addr.to_bits();
    // 32 bits, `shift` bits above the low end.
    let at = |shift: u32| Ipv4Addr::from_bits((bits >> shift) as u32);
    let within = |net: [u16; 8], len| in_v6(addr, Ipv6Addr::from(net), len);

    let low = at(0);
    // Compatible (::/96; `::` and `::1` have their own class), translated (RFC 2765), NAT64 (RFC 6052 §2.1).
    if within([0, 0, 0, 0, 0, 0, 0, 0], 96)
        || within([0, 0, 0, 0, 0xffff, 0, 0, 0], 96)
        || within([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96)
    {
        return if bits <= 1 { [None; 4] } else { [Some(low), None, None, None] };
    }
    // Local NAT64 (RFC 8215): where the address sits depends on the prefix length the network chose (RFC 6052
    // §2.2); bits 64 to 71 are skipped. A layout that reads
    // as 0.0.0.0/8 is not the one in use, and no translator forwards to it.
    if within([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48) {
        let split = |high: u128, low: u128| Ipv4Addr::from_bits(((high << 16) | low) as u32);
        let at48 = split((bits >> 64) & 0xffff, (bits >> 40) & 0xffff);
        let at56 = Ipv4Addr::from_bits(((((bits >> 64) & 0xff) << 24) | ((bits >> 32) & 0xff_ffff)) as u32);
        return [Some(at48), Some(at56), Some(at(24)), Some(low)]
            .map(|found| found.filter(|v4| v4.to_bits() >> 24 != 0));
    }
    // 6to4 (RFC 3056).
    if within([0x2002, 0, 0, 0, 0, 0, 0, 0], 16) {
        return [Some(at(80)), None, None, None];
    }
    // Teredo (RFC 4380): the server in clear, the client with its bits inverted.
    if within([0x2001, 0, 0, 0, 0, 0, 0, 0], 32) {
        return [Some(at(64)), Some(Ipv4Addr::from_bits(!(bits as u32))), None, None];
    }
    // ISATAP (RFC 5214): interface id 0000:5efe or 0200:5efe, then the address; in any /64.
    if matches!((bits >> 32) as u32, 0x0000_5efe | 0x0200_5efe) {
        return [Some(low), None, None, None];
    }
    [None; 4]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Host;
    use crate::net::ranges::{METADATA, V4};
    use proptest::prelude::*;

    fn addr(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect(text), 443)
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a network")).collect()
    }

    fn class_of(text: &str, allow: &[&str]) -> Option<Class> {
        check(addr(text), &nets(allow)).err().map(|denied| denied.class)
    }

    #[test]
    fn public_addresses_pass_and_mapped_ones_are_unmapped() {
        assert_eq!(check(addr("1.1.1.1"), &[]).map(CheckedAddr::get), Ok(addr("1.1.1.1")));
        assert_eq!(check(addr("::ffff:1.1.1.1"), &[]).map(CheckedAddr::get), Ok(addr("1.1.1.1")));
        assert_eq!(check(addr("2606:4700::1111"), &[]).map(CheckedAddr::get), Ok(addr("2606:4700::1111")));
        // A host that has only IPv6 reaches IPv4 through NAT64: the prefix alone is no reason to refuse.
        assert_eq!(check(addr("64:ff9b::1.1.1.1"), &[]).map(CheckedAddr::get), Ok(addr("64:ff9b::101:101")));
    }

    #[test]
    fn allow_entries_open_what_they_cover_and_no_more() {
        assert_eq!(class_of("10.1.2.3", &[]), Some(Class::Private));
        assert_eq!(class_of("10.1.2.3", &["10.1.0.0/16"]), None);
        assert_eq!(class_of("10.2.2.3", &["10.1.0.0/16"]), Some(Class::Private));
        assert_eq!(class_of("::ffff:10.1.2.3", &["10.1.0.0/16"]), None);
        assert_eq!(class_of("fd12::1", &["fd12::/16"]), None);
        assert_eq!(class_of("240.0.0.1", &["240.0.0.0/4"]), None, "some clouds route class E inside");
    }

    #[test]
    fn loopback_opens_only_by_name() {
        assert_eq!(class_of("127.0.0.1", &["0.0.0.0/0"]), Some(Class::Loopback));
        assert_eq!(class_of("127.0.0.1", &["127.0.0.0/8"]), None);
        assert_eq!(class_of("127.0.0.1", &["127.0.0.1/32"]), None);
        assert_eq!(class_of("::1", &["::/0"]), Some(Class::Loopback));
        assert_eq!(class_of("::1", &["::1/128"]), None);
    }

    #[test]
    fn some_classes_never_open() {
        for text in ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "255.255.255.255"] {
            assert!(class_of(text, &["0.0.0.0/0", "::/0", &format!("{text}/32")]).is_some(), "{text} was opened");
        }
    }

    #[test]
    fn metadata_services_open_only_by_their_exact_address() {
        for ip in METADATA {
            let text = ip.to_string();
            let whole = if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            let near = IpNet::new(*ip, if ip.is_ipv4() { 31 } else { 127 }).expect("a length").to_string();
            assert_eq!(class_of(&text, &[whole, &near]), Some(Class::Metadata), "{text}");
            let exact = IpNet::new(*ip, if ip.is_ipv4() { 32 } else { 128 }).expect("a length").to_string();
            assert_eq!(class_of(&text, &[&exact]), None, "{text}");
        }
        // A wrapping does not change the price, and the wrapping has to be opened too.
        assert_eq!(class_of("64:ff9b::a9fe:a9fe", &["::/0", "0.0.0.0/0"]), Some(Class::Metadata));
        assert_eq!(class_of("64:ff9b:1::a9fe:a9fe", &["64:ff9b:1::/48"]), Some(Class::Metadata));
        assert_eq!(class_of("2002:a9fe:a9fe::1", &["169.254.169.254/32"]), Some(Class::Transition));
        assert_eq!(class_of("64:ff9b:1::808:808", &["64:ff9b:1::/48"]), None, "a public address through local NAT64");
    }

    #[test]
    fn one_special_answer_spoils_the_set() {
        let answers = [addr("1.1.1.1"), addr("10.0.0.1"), addr("2606:4700::1111")];
        assert_eq!(check_all(&answers, &[]).map_err(|denied| denied.addr), Err(addr("10.0.0.1")));
        assert_eq!(check_all(&answers, &nets(&["10.0.0.0/8"])).map(|checked| checked.len()), Ok(3));
    }

    #[test]
    fn a_scope_survives_only_on_link_local_addresses() {
        let scoped =
            |text: &str| SocketAddr::V6(std::net::SocketAddrV6::new(text.parse().expect("an address"), 443, 7, 3));
        assert_eq!(check(scoped("2606:4700::1111"), &[]).map(CheckedAddr::get), Ok(addr("2606:4700::1111")));
        assert_eq!(check(scoped("fe80::1"), &nets(&["fe80::/10"])).map(CheckedAddr::get), Ok(scoped("fe80::1")));
        assert_eq!(check(scoped("::ffff:1.1.1.1"), &[]).map(CheckedAddr::get), Ok(addr("1.1.1.1")));
    }

    #[test]
    fn the_error_says_where_and_what_to_do() {
        let text = check(addr("169.254.169.254"), &[]).expect_err("denied").to_string();
        assert!(text.contains("169.254.169.254:443 is a metadata service address"), "{text}");
        assert!(text.contains("ssrf.allow") && text.contains("/32"), "{text}");
        let text = check(addr("0.0.0.0"), &[]).expect_err("denied").to_string();
        assert_eq!(text, "0.0.0.0:443 is an unspecified address, which no entry under ssrf.allow opens");
    }

    /// Spellings from a public collection of SSRF payloads: each is either no host at all or a host that is refused.
    #[test]
    fn collected_spellings_never_pass_as_public_addresses() {
        let mut addresses = 0;
        for line in include_str!("testdata/ssrf_spellings.txt").lines().filter(|line| !line.starts_with('#')) {
            match Host::parse(line) {
                Err(_) => {}
                Ok(Host::Addr(ip)) => {
                    addresses += 1;
                    assert!(check(SocketAddr::new(ip, 80), &[]).is_err(), "{line} passed as {ip}");
                }
                Ok(Host::Name(name)) => {
                    // A name is judged by what it resolves to; it must not be one that resolvers read as a number.
                    assert!(name.bytes().any(|b| b.is_ascii_alphabetic()), "{line} became the name {name}");
                }
            }
        }
        assert!(addresses >= 10, "the file holds address spellings, {addresses} were found");
    }

    /// Every way to write `v4` inside an IPv6 address.
    fn wrappings(v4: Ipv4Addr, noise: u128) -> Vec<Ipv6Addr> {
        let v = u128::from(v4.to_bits());
        let hextet = |index: u32, value: u128| value << (112 - 16 * index);
        let nat64_local = hextet(0, 0x64) | hextet(1, 0xff9b) | hextet(2, 1);
        let low64 = noise & u128::from(u64::MAX);
        [
            (0xffff << 32) | v,
            v,
            (0xffff << 48) | v,
            hextet(0, 0x64) | hextet(1, 0xff9b) | v,
            nat64_local | v,
            nat64_local | ((v >> 16) << 64) | ((v & 0xffff) << 40),
            nat64_local | ((v >> 24) << 64) | ((v & 0xff_ffff) << 32),
            nat64_local | (v << 24),
            hextet(0, 0x2002) | (v << 80) | low64,
            hextet(0, 0x2001) | (v << 64) | low64,
            hextet(0, 0x2001) | (u128::from(0x0808_0808u32) << 64) | u128::from(!v4.to_bits()),
            hextet(0, 0x2a00) | (noise & hextet(1, 0xffff)) | (0x5efe << 32) | v,
            hextet(0, 0x2a00) | (noise & hextet(1, 0xffff)) | (0x0200_5efe << 32) | v,
        ]
        .map(Ipv6Addr::from_bits)
        .to_vec()
    }

    fn special_v4() -> impl Strategy<Value = Ipv4Addr> {
        let in_block = (0..V4.len(), any::<u32>()).prop_map(|(row, noise)| {
            let (net, len, _) = V4[row];
            Ipv4Addr::from_bits(net.to_bits() | (noise & u32::MAX.checked_shr(len.into()).unwrap_or(0)))
        });
        let metadata: Vec<Ipv4Addr> =
            METADATA.iter().filter_map(|ip| if let IpAddr::V4(v4) = ip { Some(*v4) } else { None }).collect();
        prop_oneof![4 => in_block, 1 => proptest::sample::select(metadata)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn every_wrapping_of_a_special_address_is_refused(v4 in special_v4(), noise in any::<u128>()) {
            prop_assert!(check(SocketAddr::new(v4.into(), 443), &[]).is_err());
            for wrapped in wrappings(v4, noise) {
                prop_assert!(check(SocketAddr::new(wrapped.into(), 443), &[]).is_err(), "{} as {}", v4, wrapped);
            }
        }

        /// Opening the wrapping alone does not open what is inside it.
        #[test]
        fn a_wrapping_is_no_way_round_the_allow_list(v4 in special_v4(), noise in any::<u128>()) {
            prop_assume!(v4.octets()[0] != 0);
            for wrapped in wrappings(v4, noise) {
                prop_assert!(
                    check(SocketAddr::new(wrapped.into(), 443), &nets(&["::/0"])).is_err(), "{} as {}", v4, wrapped
                );
            }
        }

        #[test]
        fn what_passes_is_what_was_asked_for(bits in any::<u128>(), port in any::<u16>()) {
            let asked = SocketAddr::new(Ipv6Addr::from_bits(bits).into(), port);
            if let Ok(checked) = check(asked, &[]) {
                prop_assert_eq!(checked.get(), SocketAddr::new(asked.ip().to_canonical(), port));
                prop_assert!(classify(checked.get().ip()).is_none());
            }
        }
    }
}
