//! Sockets that the system call filter refuses: who asked for what, told to the supervisor before the answer is given.
//!
//! [`super::spawn`] takes the descriptor from the child, the app room serves it on a thread of its own. Nothing is ever
//! allowed from here: the answer is an error in every case, so what the agent changes in its memory meanwhile does not
//! matter. When the descriptor is closed, the kernel answers ENOSYS by itself. The wire structures are the kernel's
//! (linux/seccomp.h; seccomp_unotify(2)).

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// How long the wait for a question lasts before the stop flag is looked at, in milliseconds.
const LOOK_MS: u16 = 100;
/// How long the child's descriptor may take to arrive; it was sent before exec, which has happened.
const HANDOVER: Duration = Duration::from_secs(5);

/// The highest family in the kernel's tables (linux/socket.h, `AF_MCTP`), with room for more.
const MAX_FAMILY: i32 = 63;

/// A socket that was asked for and refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RefusedSocket {
    /// Thread id of the asking thread.
    pub tid: u32,
    /// Process id; 0 when the process is gone already.
    pub tgid: u32,
    /// User id; `u32::MAX` when the process is gone already.
    pub uid: u32,
    /// Name of the thread, as in /proc/PID/comm.
    pub comm: String,
    /// `AF_*` number.
    pub family: i32,
    /// `SOCK_*` number without flags.
    pub kind: i32,
    /// Protocol number.
    pub protocol: i32,
}

impl RefusedSocket {
    /// The family's name, as in the headers, or its number.
    #[must_use]
    pub fn family_name(&self) -> String {
        let name = match self.family {
            libc::AF_UNIX => "unix",
            libc::AF_INET => "inet",
            libc::AF_INET6 => "inet6",
            libc::AF_NETLINK => "netlink",
            libc::AF_PACKET => "packet",
            libc::AF_VSOCK => "vsock",
            libc::AF_ALG => "alg",
            libc::AF_XDP => "xdp",
            libc::AF_BLUETOOTH => "bluetooth",
            libc::AF_CAN => "can",
            libc::AF_TIPC => "tipc",
            libc::AF_RDS => "rds",
            libc::AF_KEY => "key",
            other => return format!("family{other}"),
        };
        name.to_owned()
    }

    /// The type's name, as in the headers, or its number.
    #[must_use]
    pub fn kind_name(&self) -> String {
        let name = match self.kind {
            libc::SOCK_STREAM => "stream",
            libc::SOCK_DGRAM => "dgram",
            libc::SOCK_RAW => "raw",
            libc::SOCK_RDM => "rdm",
            libc::SOCK_SEQPACKET => "seqpacket",
            libc::SOCK_DCCP => "dccp",
            10 => "packet",
            other => return format!("type{other}"),
        };
        name.to_owned()
    }

    /// The same without what tells callers and protocols apart; families that do not exist are one.
    #[must_use]
    pub fn of_its_kind(self) -> Self {
        let family = if (0..=MAX_FAMILY).contains(&self.family) { self.family } else { -1 };
        Self { tid: 0, tgid: 0, uid: u32::MAX, comm: String::new(), family, kind: self.kind, protocol: -1 }
    }

    /// The same without anything that tells it from another.
    #[must_use]
    pub fn of_any_kind(self) -> Self {
        Self { family: -1, kind: -1, ..self.of_its_kind() }
    }

    /// True for what [`Self::of_its_kind`] or [`Self::of_any_kind`] made.
    #[must_use]
    pub fn is_kind(&self) -> bool {
        self.tid == 0
    }

    /// The error that the caller sees.
    fn errno(&self) -> i32 {
        match self.family {
            libc::AF_INET | libc::AF_INET6 => libc::EPERM,
            libc::AF_NETLINK => libc::EPROTONOSUPPORT,
            _ => libc::EAFNOSUPPORT,
        }
    }
}

/// The supervisor's end of the filter.
#[derive(Debug)]
pub struct RefusalListener(OwnedFd);

impl RefusalListener {
    /// Takes the descriptor that [`hand_over`] sent.
    ///
    /// # Errors
    /// What the kernel said, or that nothing was sent.
    pub(super) fn take(from: &UnixDatagram) -> io::Result<Self> {
        from.set_read_timeout(Some(HANDOVER))?;
        let mut byte = [0_u8; 1];
        let mut iov = [io::IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
        let message = recvmsg::<()>(from.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut found = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel just gave us these descriptors, and nobody else knows them.
                found = fds.first().map(|fd| unsafe { std::os::fd::FromRawFd::from_raw_fd(*fd) });
            }
        }
        found.map(Self).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Answers until no process is left that could ask, or `stop` is set. `record` is called before each answer, and about
    /// ten times a second with none while nobody asks; what it does holds the agent's caller up.
    ///
    /// # Errors
    /// What the kernel said; from then on the kernel answers ENOSYS.
    pub fn serve(self, stop: &AtomicBool, mut record: impl FnMut(Option<RefusedSocket>)) -> io::Result<()> {
        loop {
            let mut wait = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut wait, PollTimeout::from(LOOK_MS));
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            match ready {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(0) => {
                    record(None);
                    continue;
                }
                Ok(_) => {}
            }
            let [ready] = wait;
            let events = ready.revents().unwrap_or(PollFlags::POLLERR);
            if !events.contains(PollFlags::POLLIN) {
                // Nobody is left under the filter.
                return Ok(());
            }
            let Some(question) = self.receive()? else { continue };
            let mut refused = describe(&question);
            if !self.still_waits(question.id) {
                // Killed meanwhile: what was read may be of another process with the same number.
                refused = RefusedSocket { tgid: 0, uid: u32::MAX, comm: String::new(), ..refused };
            }
            let errno = refused.errno();
            record(Some(refused));
            self.answer(question.id, errno)?;
        }
    }

    /// The next question; none when whoever asked was killed meanwhile.
    fn receive(&self) -> io::Result<Option<libc::seccomp_notif>> {
        // SAFETY: plain numbers, for which zero is a value; the kernel wants it zeroed.
        let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is the one this request writes.
        let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_RECV, &raw mut question) };
        match (rc, io::Error::last_os_error()) {
            (0, _) => Ok(Some(question)),
            (_, error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
            (_, error) => Err(error),
        }
    }

    fn still_waits(&self, id: u64) -> bool {
        // SAFETY: the number is what this request reads.
        unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_ID_VALID, &raw const id) == 0 }
    }

    fn answer(&self, id: u64, errno: i32) -> io::Result<()> {
        let answer = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 };
        // SAFETY: the structure is the one this request reads.
        let rc = unsafe { libc::ioctl(self.0.as_raw_fd(), NOTIF_SEND, &raw const answer) };
        match (rc, io::Error::last_os_error()) {
            (0, _) => Ok(()),
            // Killed meanwhile: nobody waits for the answer.
            (_, error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            (_, error) => Err(error),
        }
    }
}

/// Sends the listener to the parent. Async-signal-safe: called between fork and exec.
pub(super) fn hand_over(channel: &OwnedFd, listener: &OwnedFd) -> io::Result<()> {
    /// Space for one control message with one descriptor, aligned as its header.
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        fd: libc::c_int,
        padding: libc::c_int,
    }
    let mut byte = 0_u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: plain numbers and pointers, for which zero is a value.
    let (mut control, mut message): (Control, libc::msghdr) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: computes with numbers only.
    let (len, space) = unsafe { (libc::CMSG_LEN(size_of::<libc::c_int>() as u32), size_of::<Control>()) };
    control.header.cmsg_level = libc::SOL_SOCKET;
    control.header.cmsg_type = libc::SCM_RIGHTS;
    control.header.cmsg_len = len as _;
    control.fd = listener.as_raw_fd();
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = space as _;
    // SAFETY: the message points to the structures above, which outlive the call.
    let sent = unsafe { libc::sendmsg(channel.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    if sent == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

// linux/seccomp.h: SECCOMP_IOWR(0, struct seccomp_notif) and SECCOMP_IOWR(1, struct seccomp_notif_resp), with the group '!'.
const NOTIF_RECV: libc::Ioctl = libc::_IOWR::<libc::seccomp_notif>(b'!' as u32, 0);
const NOTIF_SEND: libc::Ioctl = libc::_IOWR::<libc::seccomp_notif_resp>(b'!' as u32, 1);

// SECCOMP_IOW(2, __u64).
const NOTIF_ID_VALID: libc::Ioctl = libc::_IOW::<u64>(b'!' as u32, 2);

fn describe(question: &libc::seccomp_notif) -> RefusedSocket {
    let [family, kind, protocol, ..] = question.data.args;
    // Arguments of the call are `int`; what stands above is ignored by the kernel as well.
    let int = |argument: u64| (argument & 0xffff_ffff) as u32 as i32;
    let status = std::fs::read_to_string(format!("/proc/{}/status", question.pid)).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    RefusedSocket {
        tid: question.pid,
        tgid: field("Tgid:").and_then(|text| text.parse().ok()).unwrap_or(0),
        uid: field("Uid:").and_then(|text| text.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(u32::MAX),
        comm: field("Name:").unwrap_or_default().to_owned(),
        family: int(family),
        kind: int(kind) & 0xf,
        protocol: int(protocol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_handed_over() {
        let (taker, giver) = UnixDatagram::pair().expect("pair");
        let (reader, writer) = std::io::pipe().expect("pipe");
        hand_over(&giver.into(), &writer.into()).expect("hand over");
        let RefusalListener(taken) = RefusalListener::take(&taker).expect("take");
        std::io::Write::write_all(&mut std::fs::File::from(taken), b"x").expect("write");
        let mut byte = [0];
        std::io::Read::read_exact(&mut { reader }, &mut byte).expect("read");
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn requests_are_the_kernels() {
        // The values of x86_64 and aarch64, as strace prints them.
        assert_eq!(NOTIF_RECV, 0xc050_2100);
        assert_eq!(NOTIF_SEND, 0xc018_2101);
        assert_eq!(NOTIF_ID_VALID, 0x4008_2102);
    }
}
