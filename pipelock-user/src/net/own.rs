//! Is an address one of this host's own?
//!
//! Called by `net::dial::connect` with the addresses that passed the static ranges. A name that its owner points at a
//! public address of this host leads inside as one that he points at a private address does: over the loopback interface,
//! past whatever firewall stands outside. It promises that nothing is sent in finding out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use crate::net::ssrf::CheckedAddr;

/// The first of the addresses that the kernel would route to this host.
///
/// # Errors
/// No socket can be had, so nobody knows.
pub(super) fn find(addrs: &[CheckedAddr]) -> io::Result<Option<SocketAddr>> {
    for addr in addrs.iter().map(|addr| addr.get()) {
        let any = match addr.ip() {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        // One for each: a socket that was connected before keeps the source of then.
        let socket = match UdpSocket::bind((any, 0)) {
            Ok(socket) => socket,
            // A host without IPv6 has no IPv6 addresses, and dialling one will say so.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => continue,
            Err(error) => return Err(error),
        };
        // Connecting a datagram socket asks for the route and sends nothing. The kernel reaches its own addresses from
        // themselves, and networks that are routed to this host as a whole from its loopback address.
        if socket.connect(addr).is_ok() {
            let source = socket.local_addr()?.ip();
            if source == addr.ip() || source.is_loopback() {
                return Ok(Some(addr));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ssrf::check_all;

    #[test]
    fn addresses_of_this_host_are_told_from_others() {
        let loopback = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network"));
        let find = |texts: &[&str]| {
            let addrs: Vec<SocketAddr> = texts.iter().map(|text| text.parse().expect(text)).collect();
            find(&check_all(&addrs, &loopback).expect("open")).expect("a socket").map(|addr| addr.to_string())
        };
        assert_eq!(find(&["127.0.0.1:443"]).as_deref(), Some("127.0.0.1:443"));
        assert_eq!(find(&["1.1.1.1:443", "127.9.9.9:80"]).as_deref(), Some("127.9.9.9:80"));
        assert_eq!(find(&["1.1.1.1:443", "[2606:4700::1111]:443"]), None);
    }
}
