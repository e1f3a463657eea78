//! The addresses of this host in one network namespace, asked for over a socket that was made there (rtnetlink(7)).
//!
//! Opened by `app` in each namespace it serves, and asked again from time to time: the socket stays in its namespace, so
//! that it can be asked from anywhere and without rights. Messages are taken apart with checked slices: one that is cut
//! short is an error, and what was known stays in force.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLM_F_REQUEST | NLM_F_DUMP
const DUMP: u16 = 0x301;
/// `IFA_ADDRESS` and `IFA_LOCAL`: on a link between two, the first is the other's.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// Length of `struct nlmsghdr`, of `struct ifaddrmsg` and of `struct rtattr`.
const HEADER: usize = 16;
const IFADDRMSG: usize = 8;
const RTATTR: usize = 4;

/// What can be asked for the addresses of its namespace.
#[derive(Debug)]
pub struct AddressList {
    netlink: OwnedFd,
}

impl AddressList {
    /// For the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel gives no such socket.
    pub fn open() -> io::Result<Self> {
        let netlink =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(2, 0))?;
        Ok(Self { netlink })
    }

    /// Every address of every interface, loopback included, ascending. One at a time.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn read(&mut self) -> io::Result<Vec<IpAddr>> {
        let mut request = Vec::with_capacity(HEADER + IFADDRMSG);
        request.extend(24_u32.to_ne_bytes());
        request.extend(RTM_GETADDR.to_ne_bytes());
        request.extend(DUMP.to_ne_bytes());
        request.extend([0; 8 + IFADDRMSG]);
        send(self.netlink.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut buffer = vec![0; 32 * 1024];
        let mut found = Vec::new();
        loop {
            let len = recv(self.netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if take(buffer.get(..len).unwrap_or_default(), &mut found)? {
                found.sort_unstable();
                found.dedup();
                return Ok(found);
            }
        }
    }
}

/// Takes the addresses out of one datagram; true when it was the last.
fn take(mut rest: &[u8], found: &mut Vec<IpAddr>) -> io::Result<bool> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of addresses is cut short");
    while !rest.is_empty() {
        let len = usize::try_from(u32_at(rest, 0).ok_or_else(short)?).unwrap_or(usize::MAX);
        let body = rest.get(HEADER..len).ok_or_else(short)?;
        match u16_at(rest, 4).ok_or_else(short)? {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(body, 0).ok_or_else(short)? as i32;
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            RTM_NEWADDR => found.extend(address(body).ok_or_else(short)?),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The address in `struct ifaddrmsg` and its attributes; the inner none for families other than IPv4 and IPv6.
fn address(body: &[u8]) -> Option<Option<IpAddr>> {
    let family = i32::from(*body.first()?);
    let mut rest = body.get(IFADDRMSG..)?;
    let mut best = None;
    while !rest.is_empty() {
        let len = usize::from(u16_at(rest, 0)?);
        let value = rest.get(RTATTR..len)?;
        let kind = u16_at(rest, 2)?;
        if kind == IFA_LOCAL || (kind == IFA_ADDRESS && best.is_none()) {
            best = match family {
                libc::AF_INET => Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))),
                libc::AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?))),
                _ => None,
            };
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(best)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..)?.first_chunk()?.to_owned()))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..)?.first_chunk()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One RTM_NEWADDR message.
    fn message(family: i32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![family as u8, 24, 0, 0, 1, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend(u16::try_from(RTATTR + value.len()).expect("short").to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut out = Vec::from(u32::try_from(HEADER + body.len()).expect("short").to_ne_bytes());
        out.extend(RTM_NEWADDR.to_ne_bytes());
        out.extend([0; 10]);
        out.extend(body);
        out
    }

    fn taken(bytes: &[u8]) -> io::Result<(bool, Vec<IpAddr>)> {
        let mut found = Vec::new();
        take(bytes, &mut found).map(|last| (last, found))
    }

    #[test]
    fn this_namespace_is_listed_twice_alike() {
        let mut list = AddressList::open().expect("a socket");
        let first = list.read().expect("addresses");
        assert!(first.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)), "{first:?}");
        assert_eq!(list.read().expect("again"), first);
    }

    #[test]
    fn the_own_end_of_a_link_counts_and_not_the_other() {
        let own = message(libc::AF_INET, &[(IFA_ADDRESS, &[10, 0, 0, 2]), (3, b"tun0\0"), (IFA_LOCAL, &[10, 0, 0, 1])]);
        let reversed = message(libc::AF_INET, &[(IFA_LOCAL, &[10, 0, 0, 3]), (IFA_ADDRESS, &[10, 0, 0, 4])]);
        let six = message(libc::AF_INET6, &[(IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets())]);
        let other = message(libc::AF_PACKET, &[(IFA_ADDRESS, &[1, 2, 3])]);
        let (last, found) = taken(&[own, reversed, six, other].concat()).expect("whole");
        assert!(!last);
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.3", "::1"]);
    }

    #[test]
    fn the_end_and_errors_are_told_apart() {
        let ending = |kind: u16, code: i32| {
            let mut out = Vec::from(20_u32.to_ne_bytes());
            out.extend(kind.to_ne_bytes());
            out.extend([0; 10]);
            out.extend(code.to_ne_bytes());
            out
        };
        assert!(taken(&ending(NLMSG_DONE, 0)).expect("the end").0);
        assert_eq!(taken(&ending(NLMSG_ERROR, -1)).expect_err("refused").raw_os_error(), Some(1));
    }

    proptest! {
        #[test]
        fn cut_or_changed_messages_are_errors_or_lists_never_a_panic(at in 0..200_usize, byte: u8, end in 0..200_usize) {
            let mut bytes = [
                message(libc::AF_INET, &[(IFA_ADDRESS, &[10, 0, 0, 2]), (IFA_LOCAL, &[10, 0, 0, 1])]),
                message(libc::AF_INET6, &[(IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets())]),
            ].concat();
            let len = bytes.len();
            if let Some(found) = bytes.get_mut(at) {
                *found = byte;
            }
            if let Ok((_, found)) = taken(&bytes[..end.min(len)]) {
                prop_assert!(found.len() <= 2);
            }
        }
    }
}
