//! Is an address one of this host's own?
//!
//! Called by `net::way` with the addresses that passed the static ranges. A name that its owner points at a public address
//! of this host leads inside as one that he points at a private address does: over the loopback interface, past whatever
//! firewall stands outside. It promises that nothing is sent in finding out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Whether the kernel would route the address to this host.
///
/// # Errors
/// No socket can be had, so nobody knows.
pub(super) fn is_own(addr: SocketAddr) -> io::Result<bool> {
    let any = match addr.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    // One for each address: a socket that was connected before keeps the source of then.
    let socket = match UdpSocket::bind((any, 0)) {
        Ok(socket) => socket,
        // A host without IPv6 has no IPv6 addresses, and dialling one will say so.
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(false),
        Err(error) => return Err(error),
    };
    // Connecting a datagram socket asks for the route and sends nothing. The kernel reaches its own addresses from
    // themselves, and networks that are routed to this host as a whole from its loopback address.
    if socket.connect(addr).is_err() {
        return Ok(false);
    }
    let source = socket.local_addr()?.ip();
    Ok(source == addr.ip() || source.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_host_are_told_from_others() {
        for (text, expected) in
            [("127.0.0.1:443", true), ("127.9.9.9:80", true), ("1.1.1.1:443", false), ("[2606:4700::1111]:443", false)]
        {
            assert_eq!(is_own(text.parse().expect(text)).expect("a socket"), expected, "{text}");
        }
    }
}
