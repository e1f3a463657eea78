//! The process that serves an attachment, held by a descriptor (pidfd_open(2)) so that its number cannot come to mean
//! another process.
//!
//! Called by `state`, and by the verbs that ask a server for something. It promises that a signal reaches the process that
//! wrote the state file or nobody, and that a process is alive as long as any thread of it is.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// A server that was alive when it was looked for.
#[derive(Debug)]
pub struct Server(OwnedFd);

impl Server {
    /// The process with this number and this start (see [`start_time`]); none when it has ended.
    pub(super) fn find(pid: i32, start: u64) -> Option<Self> {
        // SAFETY: plain numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel has just made this descriptor for us.
        let server = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // Looked at after the descriptor was made: whoever has the number and the start now had them then.
        (start_time(pid) == Some(start) && server.is_alive()).then_some(server)
    }

    /// True until its last thread has ended: the first one may end before the others, which then go on serving behind
    /// what looks like a zombie.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.wait_end(Duration::ZERO)
    }

    /// Waits for its end; false when it has not come within `limit`.
    #[must_use]
    pub fn wait_end(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // What is too long for one wait is waited for again.
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(ready) if ready > 0 => return true,
                Ok(_) | Err(Errno::EINTR) if Instant::now() < deadline => {}
                _ => return false,
            }
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// What the kernel said; `ESRCH` when it has ended.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: an open descriptor, plain numbers, and the null that stands for the default siginfo.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, no_info, 0) };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// When a process started, in clock ticks since boot; none when there is none.
#[must_use]
pub(super) fn start_time(pid: i32) -> Option<u64> {
    parse_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Start of a process, from its stat file (proc_pid_stat(5), field 22).
fn parse_start(stat: &str) -> Option<u64> {
    // The name stands in parentheses and may hold anything, also ") R 1".
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
