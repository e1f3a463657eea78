//! Stopping the processes of a cgroup for a while.
//!
//! Called by `attach` while it takes a cgroup over, by `held`, and while somebody is asked. It promises that processes which somebody
//! else has stopped stay so; and that what a killed pipelock has stopped can go on: the cgroup itself says who stopped it, in an
//! extended attribute, which lives as long as the cgroup does.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use super::{Cgroup, CgroupError, POLL};

/// Says that it was pipelock. Whoever may write it may let the processes go on as well.
const MARK: &CStr = c"user.pipelock.frozen";

/// Keeps the processes of a cgroup stopped; they go on when it is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard lets the processes go on"]
pub struct Frozen<'a> {
    group: &'a Cgroup,
    thaw: bool,
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if self.thaw
            && let Err(error) = self.group.thaw()
        {
            tracing::error!(cgroup = %self.group.path.display(), %error, "the cgroup stays frozen; write 0 to its cgroup.freeze");
        }
    }
}

impl Cgroup {
    /// Stops every process here and below until the returned guard is dropped; ones that somebody else had stopped before stay so.
    /// A process stuck in the kernel may keep it from completing: then the guard is returned after `timeout` all the
    /// same, and [`Cgroup::is_frozen`] tells.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when `cgroup.freeze` cannot be used.
    pub fn freeze(&self, timeout: Duration) -> Result<Frozen<'_>, CgroupError> {
        let before = self.read("cgroup.freeze").map_err(|source| self.io("read cgroup.freeze of", source))?;
        let is_ours = before.trim() == "0" || self.is_marked();
        // First of the two: we may be killed in between.
        if is_ours && let Err(error) = self.mark() {
            tracing::debug!(cgroup = %self.path.display(), %error, "the cgroup will not say who froze it");
        }
        let guard = Frozen { group: self, thaw: is_ours };
        self.write("cgroup.freeze", "1").map_err(|source| self.io("freeze", source))?;
        let start = Instant::now();
        while !self.is_frozen()? && start.elapsed() < timeout {
            std::thread::sleep(POLL);
        }
        Ok(guard)
    }

    /// Lets the processes go on that a pipelock which was killed has stopped; those of somebody else stay as they are.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when `cgroup.freeze` cannot be used.
    pub fn thaw_left(&self) -> Result<(), CgroupError> {
        if self.is_marked() { self.thaw().map_err(|source| self.io("thaw", source)) } else { Ok(()) }
    }

    fn thaw(&self) -> io::Result<()> {
        self.write("cgroup.freeze", "0")?;
        // SAFETY: the folder is open, and the name ends with NUL.
        unsafe { libc::fremovexattr(self.dir.as_raw_fd(), MARK.as_ptr()) };
        Ok(())
    }

    fn mark(&self) -> io::Result<()> {
        // SAFETY: the folder is open, the name ends with NUL, and of the value no byte is read.
        match unsafe { libc::fsetxattr(self.dir.as_raw_fd(), MARK.as_ptr(), std::ptr::null(), 0, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn is_marked(&self) -> bool {
        // SAFETY: the folder is open, the name ends with NUL, and no value is written.
        unsafe { libc::fgetxattr(self.dir.as_raw_fd(), MARK.as_ptr(), std::ptr::null_mut(), 0) >= 0 }
    }
}
