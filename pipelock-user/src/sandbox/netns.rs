//! Network namespaces: whose is a process in, and doing something inside one.
//!
//! Called by the app room to make listeners in the agent's namespaces, and by [`super::held`]. It promises that the
//! calling thread stays in its own namespace: the change happens in a thread that ends with the work.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns};

/// asm-generic/socket.h, Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;
/// linux/sockios.h: a descriptor of the namespace of a socket.
const SIOCGSKNS: libc::Ioctl = 0x894C;

/// The network namespace of a process: its inode, by which it can be told from others, and a descriptor that keeps it.
///
/// # Errors
/// `NotFound` when the process has ended; `PermissionDenied` without `CAP_SYS_PTRACE`.
pub fn netns_of(pid: i32) -> io::Result<(u64, OwnedFd)> {
    let file = File::open(format!("/proc/{pid}/ns/net"))?;
    Ok((file.metadata()?.ino(), file.into()))
}

/// The network namespace that a socket belongs to, which may be another than its holder's. Needs `CAP_NET_ADMIN`.
pub(super) fn netns_of_socket(socket: BorrowedFd<'_>) -> io::Result<(u64, OwnedFd)> {
    // SAFETY: this request takes no argument and answers a new descriptor.
    let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave it to us.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok((file.metadata()?.ino(), file.into()))
}

/// Runs `work` in the network namespace `ns`, in a thread of its own, and waits for it. Sockets made in there stay in
/// that namespace wherever they are used.
///
/// # Errors
/// What setns(2) said (`CAP_SYS_ADMIN` is needed), or that the work panicked.
pub fn in_netns<T: Send>(ns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            setns(ns, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the work in the network namespace panicked")))
    })
}

/// The kernel's number for the network namespace of a socket, as the kernel programs see it; never reused.
///
/// # Errors
/// The kernel's, when the descriptor is no socket.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    socket_option(socket.as_fd(), SO_NETNS_COOKIE)
}

/// A number-valued option of level `SOL_SOCKET`.
pub(super) fn socket_option<T: Number>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    let mut value = T::default();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the buffer is a plain number of `len` bytes.
    let rc = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw mut value).cast(), &raw mut len)
    };
    match rc {
        0 if len as usize == size_of::<T>() => Ok(value),
        0 => Err(io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Numbers that every bit pattern is a value of.
pub(super) trait Number: Default {}
impl Number for i32 {}
impl Number for u64 {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_socket_and_its_process_are_in_one_namespace() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let other = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let cookie = netns_cookie(&socket).expect("cookie");
        assert_ne!(cookie, 0);
        assert_eq!(netns_cookie(&other).expect("cookie"), cookie);
        let pid = i32::try_from(std::process::id()).expect("pid");
        let (inode, _ns) = netns_of(pid).expect("own");
        if let Ok((of_socket, _ns)) = netns_of_socket(socket.as_fd()) {
            assert_eq!(of_socket, inode);
        }
        assert_eq!(netns_of(0).expect_err("no process 0").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_network_namespaces_are_entered() {
        let file = File::open("/dev/null").expect("open");
        assert!(in_netns(file.as_fd(), || ()).is_err());
    }
}
