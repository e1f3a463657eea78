//! The addresses of this host in one network namespace and the broadcasts of their networks, asked for over a socket that
//! was made there (rtnetlink(7)).
//!
//! Opened by `app` in each namespace it serves, and asked again from time to time: the socket stays in its namespace, so
//! that it can be asked from anywhere and without rights. Messages are taken apart with checked slices: one that is cut
//! short is an error, and what was known stays in force.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use pipelock_common::Locality;

const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// NLM_F_REQUEST | NLM_F_DUMP
const DUMP: u16 = 0x301;
/// NLM_F_DUMP_INTR: something changed while the list was made, and it may have gaps.
const INTERRUPTED: u16 = 0x10;
/// How often a list with gaps is asked for anew.
const TRIES: usize = 5;
/// `IFA_ADDRESS` and `IFA_LOCAL`: on a link between two, the first is the other's. It is the one that has the network.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// Length of `struct nlmsghdr`, of `struct ifaddrmsg` and of `struct rtattr`.
const HEADER: usize = 16;
const IFADDRMSG: usize = 8;
const RTATTR: usize = 4;

/// What can be asked for the addresses of its namespace.
#[derive(Debug)]
pub struct AddressList {
    netlink: OwnedFd,
    /// Number of the last question: what answers another is not for us.
    sequence: u32,
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
        Ok(Self { netlink, sequence: 0 })
    }

    /// Every address of every interface, loopback included, and every broadcast address of their IPv4 networks; ascending,
    /// each once. One at a time.
    ///
    /// # Errors
    /// When the kernel does not list them.
    pub fn read(&mut self) -> io::Result<Vec<(IpAddr, Locality)>> {
        for _ in 0..TRIES {
            self.ask()?;
            if let Some(found) = self.answer()? {
                return Ok(found.settled());
            }
        }
        Err(io::Error::other("the addresses of the host do not come to rest"))
    }

    /// Asks for the list. What is left of an answer that was not waited for is taken first: as long as it is there, the kernel
    /// begins no other.
    fn ask(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        while recv(self.netlink.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {}
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = Vec::with_capacity(HEADER + IFADDRMSG);
        request.extend(24_u32.to_ne_bytes());
        request.extend(RTM_GETADDR.to_ne_bytes());
        request.extend(DUMP.to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend([0; 4 + IFADDRMSG]);
        send(self.netlink.as_raw_fd(), &request, MsgFlags::empty())?;
        Ok(())
    }

    /// The whole list; none when it may have gaps.
    fn answer(&self) -> io::Result<Option<Found>> {
        let mut buffer = vec![0; BUFFER];
        let mut found = Found::default();
        loop {
            let len = recv(self.netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if take(buffer.get(..len).unwrap_or_default(), self.sequence, &mut found)? {
                return Ok(Some(found).filter(|found| !found.has_gaps));
            }
        }
    }
}

/// The kernel's messages are smaller.
const BUFFER: usize = 32 * 1024;

/// What messages say, before it is known what all of them say.
#[derive(Default)]
struct Found {
    own: Vec<IpAddr>,
    broadcasts: Vec<Ipv4Addr>,
    /// The first address of each network, which kernels before 5.14 take for a broadcast.
    networks: Vec<Ipv4Addr>,
    has_gaps: bool,
}

impl Found {
    /// What each address is. A broadcast that another interface has as its address goes to whichever was there first, so it
    /// counts as a broadcast. The first address of a network is given to interfaces (overlay networks do), and is theirs then.
    fn settled(self) -> Vec<(IpAddr, Locality)> {
        let mut all: BTreeMap<IpAddr, Locality> = BTreeMap::new();
        all.extend(self.networks.into_iter().map(|addr| (addr.into(), Locality::Broadcast)));
        all.extend(self.own.into_iter().map(|addr| (addr, Locality::Own)));
        all.extend(self.broadcasts.into_iter().map(|addr| (addr.into(), Locality::Broadcast)));
        all.into_iter().collect()
    }
}

/// Takes the addresses out of one datagram, as far as it answers the question of this number; true when it was the last.
fn take(mut rest: &[u8], sequence: u32, found: &mut Found) -> io::Result<bool> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of addresses is cut short");
    while !rest.is_empty() {
        let len = usize::try_from(u32_at(rest, 0).ok_or_else(short)?).unwrap_or(usize::MAX);
        let body = rest.get(HEADER..len).ok_or_else(short)?;
        let is_ours = u32_at(rest, 8).ok_or_else(short)? == sequence;
        found.has_gaps |= is_ours && u16_at(rest, 6).ok_or_else(short)? & INTERRUPTED != 0;
        match u16_at(rest, 4).ok_or_else(short)? {
            _ if !is_ours => {}
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(body, 0).ok_or_else(short)? as i32;
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            RTM_NEWADDR => note(body, found).ok_or_else(short)?,
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Notes the address in `struct ifaddrmsg` and its attributes, if it is of IPv4 or IPv6; none when they are cut short.
fn note(body: &[u8], found: &mut Found) -> Option<()> {
    let (family, prefix_len) = (i32::from(*body.first()?), *body.get(1)?);
    let mut rest = body.get(IFADDRMSG..)?;
    let (mut address, mut local, mut broadcast) = (None, None, None);
    while !rest.is_empty() {
        let len = usize::from(u16_at(rest, 0)?);
        let value = rest.get(RTATTR..len)?;
        match u16_at(rest, 2)? {
            IFA_ADDRESS => address = Some(value),
            IFA_LOCAL => local = Some(value),
            IFA_BROADCAST => broadcast = Some(value),
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    match (family, local.or(address)) {
        (libc::AF_INET, Some(own)) => {
            let own = v4(own)?;
            found.own.push(own.into());
            note_network(own, v4(address.unwrap_or(&own.octets()))?, prefix_len, found);
            if let Some(broadcast) = broadcast {
                found.broadcasts.extend(Some(v4(broadcast)?).filter(|addr| *addr != own));
            }
        }
        (libc::AF_INET6, Some(own)) => found.own.push(Ipv6Addr::from(<[u8; 16]>::try_from(own).ok()?).into()),
        _ => {}
    }
    Some(())
}

/// Notes the broadcasts that the kernel makes up for a network (`fib_add_ifaddr`): none for one of one or two addresses.
fn note_network(own: Ipv4Addr, member: Ipv4Addr, prefix_len: u8, found: &mut Found) {
    if prefix_len >= 31 {
        return;
    }
    let host_bits = u32::MAX >> prefix_len;
    let [first, last] = [member.to_bits() & !host_bits, member.to_bits() | host_bits].map(Ipv4Addr::from_bits);
    found.networks.push(first);
    // An interface that has it itself has it first.
    found.broadcasts.extend(Some(last).filter(|addr| *addr != own));
}

fn v4(octets: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?))
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

    const SEQUENCE: u32 = 9;

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
        out.extend([0; 2]);
        out.extend(SEQUENCE.to_ne_bytes());
        out.extend([0; 4]);
        out.extend(body);
        out
    }

    fn taken(bytes: &[u8]) -> io::Result<(bool, Vec<(IpAddr, Locality)>)> {
        let mut found = Found::default();
        take(bytes, SEQUENCE, &mut found).map(|last| (last, found.settled()))
    }

    /// The addresses that are this, as text.
    fn all(found: &[(IpAddr, Locality)], what: Locality) -> Vec<String> {
        found.iter().filter(|(_, it)| *it == what).map(|(addr, _)| addr.to_string()).collect()
    }

    #[test]
    fn this_namespace_is_listed_twice_alike() {
        let mut list = AddressList::open().expect("a socket");
        let first = list.read().expect("addresses");
        assert!(first.contains(&(IpAddr::V4(Ipv4Addr::LOCALHOST), Locality::Own)), "{first:?}");
        assert_eq!(list.read().expect("again"), first);
        // An answer that nobody waited for is not taken for the next one.
        list.ask().expect("asked");
        assert_eq!(list.read().expect("behind it"), first);
    }

    #[test]
    fn what_answers_another_question_is_passed_over_and_gaps_are_noticed() {
        let own = message(libc::AF_INET, &[(IFA_LOCAL, &[10, 0, 0, 1])]);
        let done = {
            let mut out = message(libc::AF_INET, &[]);
            out[4..6].copy_from_slice(&NLMSG_DONE.to_ne_bytes());
            out
        };
        let of_another = |message: &[u8]| {
            let mut out = message.to_vec();
            out[8] ^= 1;
            out
        };
        let mut found = Found::default();
        let bytes = [of_another(&own), of_another(&done), own.clone()].concat();
        assert!(!take(&bytes, SEQUENCE, &mut found).expect("whole"), "the end of another list");
        assert_eq!((found.own.len(), found.has_gaps), (1, false));
        let mut with_gaps = done;
        with_gaps[6] |= 0x10;
        assert!(!take(&of_another(&with_gaps), SEQUENCE, &mut found).expect("whole") && !found.has_gaps);
        assert!(take(&with_gaps, SEQUENCE, &mut found).expect("whole") && found.has_gaps);
    }

    #[test]
    fn the_own_end_of_a_link_counts_and_not_the_other() {
        let own = message(libc::AF_INET, &[(IFA_ADDRESS, &[10, 0, 0, 2]), (3, b"tun0\0"), (IFA_LOCAL, &[10, 0, 0, 1])]);
        let reversed = message(libc::AF_INET, &[(IFA_LOCAL, &[10, 0, 0, 3]), (IFA_ADDRESS, &[10, 0, 0, 4])]);
        let six = message(libc::AF_INET6, &[(IFA_ADDRESS, &Ipv6Addr::LOCALHOST.octets())]);
        let other = message(libc::AF_PACKET, &[(IFA_ADDRESS, &[1, 2, 3])]);
        let (last, found) = taken(&[own, reversed, six, other].concat()).expect("whole");
        assert!(!last);
        assert_eq!(all(&found, Locality::Own), ["10.0.0.1", "10.0.0.3", "::1"]);
    }

    /// An IPv4 address of an interface, with a prefix of this length.
    fn with_prefix(prefix_len: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = message(libc::AF_INET, attributes);
        out[HEADER + 1] = prefix_len;
        out
    }

    #[test]
    fn a_network_has_the_broadcasts_that_the_kernel_makes_up_and_the_one_it_is_given() {
        let plain = with_prefix(22, &[(IFA_ADDRESS, &[10, 0, 1, 9]), (IFA_LOCAL, &[10, 0, 1, 9])]);
        // With a broadcast elsewhere; the network is that of the other end.
        let given = with_prefix(
            24,
            &[(IFA_ADDRESS, &[10, 2, 0, 9]), (IFA_LOCAL, &[10, 9, 0, 9]), (IFA_BROADCAST, &[10, 3, 0, 7])],
        );
        let two = with_prefix(31, &[(IFA_ADDRESS, &[10, 4, 0, 0]), (IFA_LOCAL, &[10, 4, 0, 0])]);
        // As clouds do.
        let itself = with_prefix(
            32,
            &[(IFA_ADDRESS, &[10, 5, 0, 2]), (IFA_LOCAL, &[10, 5, 0, 2]), (IFA_BROADCAST, &[10, 5, 0, 2])],
        );
        let (_, found) = taken(&[plain, given, two, itself].concat()).expect("whole");
        assert_eq!(all(&found, Locality::Own), ["10.0.1.9", "10.4.0.0", "10.5.0.2", "10.9.0.9"]);
        let broadcasts = ["10.0.0.0", "10.0.3.255", "10.2.0.0", "10.2.0.255", "10.3.0.7"];
        assert_eq!(all(&found, Locality::Broadcast), broadcasts);
        let (_, found) = taken(&with_prefix(0, &[(IFA_LOCAL, &[10, 0, 0, 1])])).expect("whole");
        assert_eq!(all(&found, Locality::Broadcast), ["0.0.0.0", "255.255.255.255"]);
    }

    #[test]
    fn an_address_of_one_interface_and_broadcast_of_another_is_a_broadcast() {
        let first = with_prefix(24, &[(IFA_ADDRESS, &[10, 0, 0, 1]), (IFA_LOCAL, &[10, 0, 0, 1])]);
        let last = with_prefix(16, &[(IFA_ADDRESS, &[10, 0, 0, 255]), (IFA_LOCAL, &[10, 0, 0, 255])]);
        let network = with_prefix(32, &[(IFA_ADDRESS, &[10, 0, 0, 0]), (IFA_LOCAL, &[10, 0, 0, 0])]);
        for order in [[&first, &last, &network], [&network, &last, &first]] {
            let (_, found) = taken(&order.map(Vec::clone).concat()).expect("whole");
            assert_eq!(all(&found, Locality::Own), ["10.0.0.0", "10.0.0.1"]);
            assert_eq!(all(&found, Locality::Broadcast), ["10.0.0.255", "10.0.255.255"]);
        }
    }

    #[test]
    fn the_end_and_errors_are_told_apart() {
        let ending = |kind: u16, code: i32| {
            let mut out = Vec::from(20_u32.to_ne_bytes());
            out.extend(kind.to_ne_bytes());
            out.extend([0; 2]);
            out.extend(SEQUENCE.to_ne_bytes());
            out.extend([0; 4]);
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
                // Both addresses, the network's first, its last, and a broadcast that an attribute turned into.
                prop_assert!(found.len() <= 5);
            }
        }
    }
}
