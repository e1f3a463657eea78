//! The sockets the proxy listens on in one network namespace, bound before the agent starts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use pipelock_common::{Listeners, Locality, UDP_PEERS};
use socket2::{Domain, Protocol, Socket, Type};

use crate::kernel::{AddressChanges, AddressList};
use crate::sandbox::netns::netns_cookie;

/// Connections that wait to be accepted. The kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Tries to find a port that is free for both UDP and TCP.
const TRIES: usize = 64;

/// The resolver's sockets on one address.
pub struct DnsSockets {
    /// Datagrams: one for each destination that a socket of the agent may ask in turn.
    pub udp: Vec<UdpSocket>,
    /// Connections, on the port of the first.
    pub tcp: TcpListener,
}

impl DnsSockets {
    fn ports(&self) -> io::Result<[u16; UDP_PEERS]> {
        let mut ports = [0; UDP_PEERS];
        for (port, socket) in ports.iter_mut().zip(&self.udp) {
            *port = socket.local_addr()?.port();
        }
        Ok(ports)
    }
}

/// What is bound in one network namespace.
pub struct Namespace {
    /// Cookie of the namespace.
    pub cookie: u64,
    /// Transparent listeners: 127.0.0.1, and ::1 where there is IPv6.
    pub tcp: Vec<TcpListener>,
    /// Resolvers: likewise.
    pub dns: Vec<DnsSockets>,
    /// The ports, as the programs want them.
    pub ports: Listeners,
    /// The namespace's own addresses, and its broadcasts.
    pub own: Vec<(IpAddr, Locality)>,
    /// Where to ask for them again.
    pub addresses: AddressList,
    /// Tells when to.
    pub changes: AddressChanges,
}

impl Namespace {
    /// Binds everything in the calling thread's network namespace.
    ///
    /// # Errors
    /// When 127.0.0.1 cannot be bound. A namespace without IPv6 is fine: its IPv6 connects are then refused.
    pub fn bind() -> io::Result<Self> {
        let tcp4 = listener(Ipv4Addr::LOCALHOST.into(), 0)?;
        let dns4 = dns(Ipv4Addr::LOCALHOST.into())?;
        let tcp6 = listener(Ipv6Addr::LOCALHOST.into(), 0).ok();
        let dns6 = dns(Ipv6Addr::LOCALHOST.into()).ok();
        let port = |addr: io::Result<SocketAddr>| addr.map_or(0, |addr| addr.port());
        let ports = Listeners {
            tcp4: port(tcp4.local_addr()),
            tcp6: tcp6.as_ref().map_or(0, |listener| port(listener.local_addr())),
            dns4: dns4.ports()?,
            dns6: dns6.as_ref().map_or(Ok([0; UDP_PEERS]), DnsSockets::ports)?,
        };
        // Before they are read, so that no change falls between.
        let changes = AddressChanges::open()?;
        let mut addresses = AddressList::open()?;
        Ok(Self {
            cookie: netns_cookie(&tcp4)?,
            tcp: [Some(tcp4), tcp6].into_iter().flatten().collect(),
            dns: [Some(dns4), dns6].into_iter().flatten().collect(),
            ports,
            own: addresses.read()?,
            addresses,
            changes,
        })
    }

    /// Every socket, to be marked as the proxy's.
    pub fn sockets(&self) -> Vec<&dyn AsRawFd> {
        let mut sockets: Vec<&dyn AsRawFd> = Vec::new();
        for listener in &self.tcp {
            sockets.push(listener);
        }
        for dns in &self.dns {
            for udp in &dns.udp {
                sockets.push(udp);
            }
            sockets.push(&dns.tcp);
        }
        sockets
    }
}

/// Whether the loopback device of the calling thread's network namespace is up; also when nobody can say.
#[must_use]
pub fn loopback_is_up() -> bool {
    let is_up = InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_UP;
    getifaddrs().map_or(true, |mut all| all.any(|one| one.flags.contains(is_up)))
}

fn listener(addr: IpAddr, port: u16) -> io::Result<TcpListener> {
    let socket = bound(addr, port, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

fn dns(addr: IpAddr) -> io::Result<DnsSockets> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let udp = bound(addr, 0, Type::DGRAM, Protocol::UDP)?;
        let port = udp.local_addr()?.as_socket().map_or(0, |addr| addr.port());
        match listener(addr, port) {
            Ok(tcp) => {
                let mut all = vec![udp];
                for _ in 1..UDP_PEERS {
                    all.push(bound(addr, 0, Type::DGRAM, Protocol::UDP)?);
                }
                return Ok(DnsSockets { udp: all.into_iter().map(|udp| OwnedFd::from(udp).into()).collect(), tcp });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bound(addr: IpAddr, port: u16, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let domain = if addr.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, kind, Some(protocol))?;
    socket.set_cloexec(true)?;
    socket.set_nonblocking(true)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SocketAddr::new(addr, port).into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_listeners_and_resolvers_on_loopback() {
        let namespace = Namespace::bind().expect("loopback is there");
        assert_ne!(namespace.cookie, 0);
        assert_ne!(namespace.ports.tcp4, 0);
        for dns in &namespace.dns {
            assert_eq!(dns.udp.len(), UDP_PEERS);
            assert_eq!(
                dns.udp[0].local_addr().expect("bound").port(),
                dns.tcp.local_addr().expect("bound").port(),
                "the programs know one port for both"
            );
        }
        assert!(namespace.own.contains(&(Ipv4Addr::LOCALHOST.into(), Locality::Own)));
        assert_eq!(namespace.sockets().len(), namespace.tcp.len() + (UDP_PEERS + 1) * namespace.dns.len());
    }
}
