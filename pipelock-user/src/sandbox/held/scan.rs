//! What a process holds: its descriptors, looked at through pidfd_getfd(2), which needs no help from the process.
//!
//! Called by [`super::settle`]. A process that ends meanwhile holds nothing; everything else that cannot be looked at is
//! an error or a refusal, never passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};

use super::super::netns::{netns_of_socket, socket_option};
use super::{HeldAction, HeldError, HeldSocket};

/// linux/kcmp.h
const KCMP_FILES: libc::c_int = 2;
/// linux/pidfd.h, Linux 6.9: the pidfd is of the thread, not of its process.
const PIDFD_THREAD: libc::c_int = libc::O_EXCL;
/// Families whose sockets carry nothing off the machine by themselves.
const HARMLESS: [i32; 4] = [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_ALG, libc::AF_KEY];

/// A socket, as its own options describe it.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) pid: i32,
    /// The thread whose table holds it: the process itself, or one with a table of its own.
    pub(super) tid: i32,
    pub(super) comm: String,
    pub(super) fd: i32,
    /// `AF_*`
    pub(super) family: i32,
    /// `SOCK_*`
    pub(super) kind: i32,
    /// `IPPROTO_*`
    pub(super) protocol: i32,
    pub(super) cookie: u64,
    /// Inode of its network namespace, 0 when it is of no family that we list.
    pub(super) netns: u64,
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
}

impl Facts {
    /// TCP or UDP over IP, which the programs see and the kernel lists; None for all else.
    pub(super) fn protocol_number(&self) -> Option<u8> {
        match (self.family, self.kind, self.protocol) {
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP) => Some(6),
            (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP) => Some(17),
            _ => None,
        }
    }

    pub(super) fn held(&self, cgroup_id: Option<u64>, action: HeldAction) -> HeldSocket {
        let proto = match self.protocol_number() {
            Some(6) => "tcp".to_owned(),
            Some(_) => "udp".to_owned(),
            None => format!("socket of family {}, type {}, protocol {}", self.family, self.kind, self.protocol),
        };
        HeldSocket {
            pid: self.pid,
            comm: self.comm.clone(),
            fd: self.fd,
            proto,
            local: self.local,
            remote: self.remote,
            cookie: self.cookie,
            cgroup_id,
            action,
        }
    }
}

/// What was found so far.
#[derive(Default)]
pub(super) struct Found {
    pub(super) sockets: Vec<Facts>,
    /// The network namespaces of the sockets, by inode.
    pub(super) namespaces: BTreeMap<u64, OwnedFd>,
    /// Refusals for what is no socket, or could not be looked at.
    pub(super) others: Vec<HeldSocket>,
}

/// Looks at every descriptor of a process, in every table of descriptors that its threads have. Sockets whose cookie is
/// in `known` are passed over; new ones are added to it.
pub(super) fn process(pid: i32, known: &mut BTreeSet<u64>, found: &mut Found) -> Result<(), HeldError> {
    let comm = comm_of(pid);
    let threads = match fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(threads) => threads,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(source) => return Err(HeldError::Io { what: format!("list the threads of process {pid}"), source }),
    };
    let tids = threads.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for tid in tids {
        // The process's own table is looked at once; threads nearly always share it.
        if tid == pid || !shares_table(pid, tid) {
            table(pid, tid, &comm, known, found)?;
        }
    }
    Ok(())
}

fn table(pid: i32, tid: i32, comm: &str, known: &mut BTreeSet<u64>, found: &mut Found) -> Result<(), HeldError> {
    let base = PathBuf::from(format!("/proc/{pid}/task/{tid}"));
    let entries = match fs::read_dir(base.join("fd")) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(()),
        Err(source) => return Err(HeldError::Io { what: format!("list the descriptors of process {pid}"), source }),
    };
    let mut pidfd: Option<OwnedFd> = None;
    for fd in entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let link = match fs::read_link(base.join("fd").join(fd.to_string())) {
            Ok(link) => link,
            Err(error) if is_gone(&error) => continue,
            Err(source) => {
                return Err(HeldError::Io { what: format!("read descriptor {fd} of process {pid}"), source });
            }
        };
        let link = link.to_string_lossy();
        let mut refuse = |proto: &str, why: String| {
            found.others.push(HeldSocket {
                pid,
                comm: comm.to_owned(),
                fd,
                proto: proto.to_owned(),
                local: None,
                remote: None,
                cookie: 0,
                cgroup_id: None,
                action: HeldAction::Refused(why),
            });
        };
        match &*link {
            "anon_inode:[io_uring]" => match info(&base, fd, "UserFiles:") {
                Some(0) => {}
                _ => refuse("io_uring", "may hold registered sockets that cannot be looked at".to_owned()),
            },
            "/dev/net/tun" => refuse("tun", "carries packets past the programs".to_owned()),
            _ if link.starts_with("socket:[") => {
                let socket = match &pidfd {
                    Some(pidfd) => get(pidfd.as_fd(), fd),
                    None => open(pid, tid).and_then(|opened| get(pidfd.insert(opened).as_fd(), fd)),
                };
                match socket {
                    Ok(socket) => {
                        if let Err(error) = look(&socket, (pid, tid, comm, fd), known, found) {
                            let what = format!("look at descriptor {fd} of process {pid}");
                            return Err(HeldError::Io { what, source: error });
                        }
                        let in_flight = info(&base, fd, "scm_fds:");
                        if in_flight.is_some_and(|count| count > 0) {
                            found.others.push(in_flight_entry(pid, comm, fd));
                        }
                    }
                    Err(error) if is_gone(&error) => {}
                    Err(error) => refuse("socket", format!("cannot be looked at: {error}")),
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn in_flight_entry(pid: i32, comm: &str, fd: i32) -> HeldSocket {
    HeldSocket {
        pid,
        comm: comm.to_owned(),
        fd,
        proto: "unix".to_owned(),
        local: None,
        remote: None,
        cookie: 0,
        cgroup_id: None,
        action: HeldAction::Refused("has descriptors in flight that cannot be looked at".to_owned()),
    }
}

fn look(
    socket: &OwnedFd,
    (pid, tid, comm, fd): (i32, i32, &str, i32),
    known: &mut BTreeSet<u64>,
    found: &mut Found,
) -> io::Result<()> {
    let family = socket_option(socket.as_fd(), libc::SO_DOMAIN)?;
    let cookie = socket_option(socket.as_fd(), libc::SO_COOKIE)?;
    if HARMLESS.contains(&family) || !known.insert(cookie) {
        return Ok(());
    }
    let mut facts = Facts {
        pid,
        tid,
        comm: comm.to_owned(),
        fd,
        family,
        kind: socket_option(socket.as_fd(), libc::SO_TYPE)?,
        protocol: socket_option(socket.as_fd(), libc::SO_PROTOCOL)?,
        cookie,
        netns: 0,
        local: getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|addr| address(&addr)),
        remote: getpeername::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|addr| address(&addr)),
    };
    if facts.protocol_number().is_some() {
        let (inode, ns) = netns_of_socket(socket.as_fd())?;
        facts.netns = inode;
        found.namespaces.entry(inode).or_insert(ns);
    }
    found.sockets.push(facts);
    Ok(())
}

/// The socket that was looked at, once more: to hold all of them open would take as many descriptors of our own.
pub(super) fn again(facts: &Facts) -> io::Result<OwnedFd> {
    let socket = get(open(facts.pid, facts.tid)?.as_fd(), facts.fd)?;
    let cookie: u64 = socket_option(socket.as_fd(), libc::SO_COOKIE)?;
    if cookie == facts.cookie { Ok(socket) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
}

fn address(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = addr.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), v4.port()));
    v4.or_else(|| addr.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().to_canonical(), v6.port())))
}

fn open(pid: i32, tid: i32) -> io::Result<OwnedFd> {
    let flags = if pid == tid { 0 } else { PIDFD_THREAD };
    // SAFETY: numbers only; answers a new descriptor.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, tid, flags) })
}

fn get(pidfd: BorrowedFd<'_>, fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only; answers a new descriptor (close-on-exec).
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })
}

fn owned(rc: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(rc) {
        // SAFETY: the kernel just gave it to us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// True when the thread uses the process's table of descriptors. Unsure is false: then the thread's is looked at too.
fn shares_table(pid: i32, tid: i32) -> bool {
    // SAFETY: numbers only.
    unsafe { libc::syscall(libc::SYS_kcmp, pid, tid, KCMP_FILES, 0, 0) == 0 }
}

/// A number in /proc/PID/fdinfo/FD.
fn info(base: &Path, fd: i32, key: &str) -> Option<u64> {
    let text = fs::read_to_string(base.join("fdinfo").join(fd.to_string())).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

fn comm_of(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.trim_end_matches('\n').chars().take(15).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The process or the descriptor is not there any more.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::EBADF))
}
