//! Tells when addresses or interfaces of a network namespace change, over a socket that was made there (rtnetlink(7)).
//!
//! Opened by `app` beside [`super::AddressList`], which is asked what there is now: what a message says is not looked at.
//! Messages that were lost count as a change.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// What can be waited on for a change in its namespace: readable when there was one.
#[derive(Debug)]
pub struct AddressChanges {
    netlink: OwnedFd,
}

impl AddressChanges {
    /// In the calling thread's network namespace, from now on.
    ///
    /// # Errors
    /// When the kernel gives no such socket.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self { netlink })
    }

    /// Takes all that was told so far.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when that is nothing.
    pub fn take(&self) -> io::Result<()> {
        let mut buffer = [0; 8192];
        let mut result = Err(io::ErrorKind::WouldBlock.into());
        loop {
            match recv(self.netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(Errno::EAGAIN) => return result,
                Err(Errno::EINTR) => {}
                // Some were lost; the queue goes on behind them.
                Ok(_) | Err(Errno::ENOBUFS) => result = Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsRawFd for AddressChanges {
    fn as_raw_fd(&self) -> RawFd {
        self.netlink.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_change_there_is_nothing_to_take() {
        let changes = AddressChanges::open().expect("a socket");
        // The machine may be changing under the test; it cannot go on doing so without a pause.
        while changes.take().is_ok() {}
        assert_eq!(changes.take().expect_err("nothing").kind(), io::ErrorKind::WouldBlock);
    }
}
