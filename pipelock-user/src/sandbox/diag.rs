//! The kernel's list of TCP and UDP sockets (sock_diag(7), linux/inet_diag.h): reading it, and destroying one.
//!
//! Called by [`super::held`], inside the network namespace in question, and by [`super::served`] in ours. Messages are taken apart with checked slices:
//! one that is cut short ends the reading with an error, never with a guess.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// `INET_DIAG_CGROUP_ID`, Linux 5.7: a u64.
const ATTR_CGROUP_ID: u16 = 21;
/// Length of `struct nlmsghdr`, of `struct inet_diag_sockid` and of `struct inet_diag_msg`.
const HEADER: usize = 16;
const SOCKID: usize = 48;
const MSG: usize = 72;

/// TCP states, linux/tcp_states.h; UDP uses the first and `CLOSE`.
pub(super) mod state {
    pub(crate) const SYN_RECEIVED: u8 = 3;
    pub(crate) const CLOSE: u8 = 7;
    pub(crate) const LISTEN: u8 = 10;
    pub(crate) const BOUND_INACTIVE: u8 = 13;
    pub(crate) const ANY: u32 = u32::MAX;
}

/// One socket of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// `AF_INET` or `AF_INET6`.
    pub(super) family: u8,
    /// See [`state`].
    pub(super) state: u8,
    pub(super) local: SocketAddr,
    /// Port 0 when not connected.
    pub(super) remote: SocketAddr,
    /// As `SO_COOKIE`.
    pub(super) cookie: u64,
    /// The cgroup that it was made in; none on kernels that do not tell.
    pub(super) cgroup_id: Option<u64>,
    /// `struct inet_diag_sockid`, to name it by when destroying it.
    sockid: [u8; SOCKID],
}

#[cfg(test)]
impl Listed {
    pub(super) fn for_test(state: u8, local: SocketAddr, remote: SocketAddr, cgroup_id: Option<u64>) -> Self {
        Self { family: 2, state, local, remote, cookie: 1, cgroup_id, sockid: [0; SOCKID] }
    }
}

/// Why the list could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiagError {
    #[error("the kernel's list of sockets is cut short")]
    Short,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Calls `each` for every socket of the family (`AF_INET`, `AF_INET6`) and protocol (`IPPROTO_TCP`, `IPPROTO_UDP`) in
/// the network namespace of the calling thread, in any state.
pub(super) fn list(family: u8, protocol: u8, each: impl FnMut(Listed)) -> Result<(), DiagError> {
    dump(family, protocol, state::ANY, each)
}

/// The same for those in one state.
pub(super) fn list_in(family: u8, protocol: u8, state: u8, each: impl FnMut(Listed)) -> Result<(), DiagError> {
    dump(family, protocol, 1 << state, each)
}

fn dump(family: u8, protocol: u8, states: u32, mut each: impl FnMut(Listed)) -> Result<(), DiagError> {
    let netlink = open()?;
    let request = request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, protocol, states, &[0; SOCKID]);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty()).map_err(io::Error::from)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let len = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)?;
        let mut rest = buffer.get(..len).ok_or(DiagError::Short)?;
        while !rest.is_empty() {
            let (message, after) = take_message(rest).ok_or(DiagError::Short)?;
            rest = after;
            match message.kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return Err(error_of(message.body)),
                SOCK_DIAG_BY_FAMILY => each(parse(message.body).ok_or(DiagError::Short)?),
                _ => {}
            }
        }
    }
}

/// The socket with these addresses, else one that listens for such, in the network namespace of the calling thread; none when
/// there is neither.
pub(super) fn find(protocol: u8, local: SocketAddr, remote: SocketAddr) -> Result<Option<Listed>, DiagError> {
    let (local, remote) = (canonical(local), canonical(remote));
    let mut sockid = Vec::with_capacity(SOCKID);
    for addr in [local, remote] {
        sockid.extend(addr.port().to_be_bytes());
    }
    for addr in [local, remote] {
        match addr.ip() {
            IpAddr::V4(addr) => sockid.extend([addr.octets().as_slice(), &[0; 12]].concat()),
            IpAddr::V6(addr) => sockid.extend(addr.octets()),
        }
    }
    let device = if let SocketAddr::V6(addr) = local { addr.scope_id() } else { 0 };
    sockid.extend(device.to_ne_bytes());
    // INET_DIAG_NOCOOKIE, twice.
    sockid.extend([0xff; 8]);
    let sockid = sockid.try_into().map_err(|_| DiagError::Short)?;
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let family = u8::try_from(family).unwrap_or_default();
    let netlink = open()?;
    let request = request(SOCK_DIAG_BY_FAMILY, 0, family, protocol, state::ANY, &sockid);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty()).map_err(io::Error::from)?;
    let mut buffer = [0; 4096];
    let len = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)?;
    let (message, _) = buffer.get(..len).and_then(take_message).ok_or(DiagError::Short)?;
    match message.kind {
        SOCK_DIAG_BY_FAMILY => parse(message.body).map(Some).ok_or(DiagError::Short),
        NLMSG_ERROR => match error_of(message.body) {
            DiagError::Io(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            error => Err(error),
        },
        _ => Err(DiagError::Short),
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Ends a socket's connection (`ECONNABORTED` for its holder). One that is gone already is no error. Needs
/// `CAP_NET_ADMIN`, and a kernel with `CONFIG_INET_DIAG_DESTROY` (`EOPNOTSUPP` without).
///
/// The socket itself lives on: after `connect(AF_UNSPEC)` its holder can connect it again.
pub(super) fn destroy(socket: &Listed, protocol: u8) -> Result<(), DiagError> {
    let netlink = open()?;
    let request = request(SOCK_DESTROY, NLM_F_ACK, socket.family, protocol, state::ANY, &socket.sockid);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty()).map_err(io::Error::from)?;
    let mut buffer = [0; 4096];
    let len = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()).map_err(io::Error::from)?;
    let (message, _) = buffer.get(..len).and_then(take_message).ok_or(DiagError::Short)?;
    match error_of(message.body) {
        _ if message.kind != NLMSG_ERROR => Err(DiagError::Short),
        DiagError::Io(error) if matches!(error.raw_os_error(), Some(0 | libc::ENOENT)) => Ok(()),
        error => Err(error),
    }
}

fn open() -> io::Result<OwnedFd> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(10, 0))?;
    Ok(netlink)
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`, for the states whose bits are set.
fn request(kind: u16, flags: u16, family: u8, protocol: u8, states: u32, sockid: &[u8; SOCKID]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + 8 + SOCKID);
    out.extend(72_u32.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    out.extend([0; 8]);
    out.extend([family, protocol, 0, 0]);
    out.extend(states.to_ne_bytes());
    out.extend(sockid);
    out
}

struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

/// The first netlink message and what follows it.
fn take_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let body = bytes.get(HEADER..len)?;
    let after = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((Message { kind: u16_at(bytes, 4)?, body }, after))
}

/// `struct nlmsgerr` begins with the negative errno.
fn error_of(body: &[u8]) -> DiagError {
    match u32_at(body, 0) {
        Some(code) => DiagError::Io(io::Error::from_raw_os_error((code as i32).saturating_neg())),
        None => DiagError::Short,
    }
}

/// `struct inet_diag_msg` and its attributes.
fn parse(body: &[u8]) -> Option<Listed> {
    let (family, state) = (*body.first()?, *body.get(1)?);
    let sockid: [u8; SOCKID] = body.get(4..4 + SOCKID)?.try_into().ok()?;
    let port = |at: usize| Some(u16::from_be_bytes(sockid.get(at..at + 2)?.try_into().ok()?));
    let addr = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = sockid.get(at..at + 16)?.try_into().ok()?;
        let [a, b, c, d, ..] = bytes;
        match i32::from(family) {
            libc::AF_INET => Some(Ipv4Addr::new(a, b, c, d).into()),
            libc::AF_INET6 => Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical()),
            _ => None,
        }
    };
    let (low, high) = (u32_at(&sockid, 40)?, u32_at(&sockid, 44)?);
    let mut attributes = body.get(MSG..)?;
    let mut cgroup_id = None;
    // struct nlattr: length with this header, kind, value, padding to 4 bytes.
    while attributes.len() >= 4 {
        let len = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..len)?;
        if u16_at(attributes, 2)? == ATTR_CGROUP_ID {
            cgroup_id = Some(u64::from_ne_bytes(value.try_into().ok()?));
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Listed {
        family,
        state,
        local: SocketAddr::new(addr(4)?, port(0)?),
        remote: SocketAddr::new(addr(20)?, port(2)?),
        cookie: u64::from(high) << 32 | u64::from(low),
        cgroup_id,
        sockid,
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn own(family: libc::c_int, protocol: libc::c_int, port: u16) -> Vec<Listed> {
        let mut found = Vec::new();
        let number = |value: libc::c_int| u8::try_from(value).expect("small");
        list(number(family), number(protocol), |listed| {
            if listed.local.port() == port {
                found.push(listed);
            }
        })
        .expect("list");
        found
    }

    /// Reading the list takes no right.
    #[test]
    fn our_own_sockets_are_in_the_list() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let addr = listener.local_addr().expect("addr");
        let [listed] = own(libc::AF_INET, libc::IPPROTO_TCP, addr.port()).try_into().expect("one");
        assert_eq!((listed.state, listed.local, listed.remote.port()), (state::LISTEN, addr, 0));
        let cookie: u64 =
            crate::sandbox::netns::socket_option(std::os::fd::AsFd::as_fd(&listener), libc::SO_COOKIE).expect("cookie");
        assert_eq!(listed.cookie, cookie);
        assert!(listed.cgroup_id.is_some_and(|id| id > 0));

        let Ok(udp) = std::net::UdpSocket::bind("[::1]:0") else { return };
        udp.connect(("::1", 53)).expect("connect");
        let addr = udp.local_addr().expect("addr");
        let listed = own(libc::AF_INET6, libc::IPPROTO_UDP, addr.port());
        assert!(listed.iter().any(|one| one.local == addr && one.remote.port() == 53), "{listed:?}");
    }

    #[test]
    fn the_other_end_of_a_connection_is_found() {
        let tcp = u8::try_from(libc::IPPROTO_TCP).expect("small");
        for at in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(at) else { continue };
            let port = listener.local_addr().expect("addr").port();
            // One that listens on all addresses of both families has IPv4's as well.
            let ip: IpAddr = if at.contains("::1") { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            let far = SocketAddr::new(ip, port);
            #[allow(clippy::disallowed_methods, reason = "the test plays the proxy")]
            let near = std::net::TcpStream::connect(far).expect("connect").local_addr().expect("addr");
            let listed = find(tcp, far, near).expect("told").expect("there");
            assert_eq!((listed.local, listed.remote.port()), (far, near.port()), "{at}");
            assert!(listed.cgroup_id.is_some_and(|id| id > 0), "{at}: {listed:?}");
            let free = SocketAddr::new(ip, 1);
            assert_eq!(find(tcp, free, near).expect("told"), None);
        }
    }

    fn message(attributes: &[u8]) -> Vec<u8> {
        let mut body = vec![2, 1, 0, 0];
        body.extend([0x12, 0x34, 0, 53, 10, 0, 0, 1]);
        body.extend([0; 12]);
        body.extend([10, 0, 0, 2]);
        body.extend([0; 12]);
        body.extend([0; 4]);
        body.extend(7_u32.to_ne_bytes());
        body.extend(1_u32.to_ne_bytes());
        body.extend([0; 20]);
        body.extend(attributes);
        body
    }

    #[test]
    fn a_message_is_read_by_its_offsets() {
        let mut attributes = vec![5, 0, 8, 0, 1, 0, 0, 0];
        attributes.extend([12, 0, 21, 0]);
        attributes.extend(77_u64.to_ne_bytes());
        let listed = parse(&message(&attributes)).expect("whole");
        assert_eq!(listed.local, "10.0.0.1:4660".parse().expect("addr"));
        assert_eq!(listed.remote, "10.0.0.2:53".parse().expect("addr"));
        assert_eq!((listed.cookie, listed.cgroup_id), (1 << 32 | 7, Some(77)));
        assert_eq!(parse(&message(&[])).expect("whole").cgroup_id, None);
        // Cut short, or with an attribute that is shorter than its own header.
        assert_eq!(parse(message(&[]).get(..71).expect("long")), None);
        assert_eq!(parse(&message(&[3, 0, 21, 0])), None);
        assert_eq!(parse(&message(&[9, 0, 21, 0, 1, 1, 1, 1])), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
            let mut rest = bytes.as_slice();
            while let Some((message, after)) = take_message(rest) {
                let _ = (parse(message.body), error_of(message.body));
                prop_assert!(after.len() < rest.len());
                rest = after;
            }
        }
    }
}
