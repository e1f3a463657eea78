//! The addresses of this host in the calling thread's network namespace. Called by `app` for each namespace it serves.

use std::io;
use std::net::IpAddr;

/// Every address of every interface, loopback included.
///
/// # Errors
/// When the kernel does not list the interfaces.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            address
                .as_sockaddr_in()
                .map(|v4| IpAddr::V4(v4.ip()))
                .or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
