//! A private view of the mounts in which the cgroup2 tree is read-only.
//!
//! Called by [`super::spawn`]. Without it an agent that owns cgroup files (uid 0 without capabilities, or a user whose
//! desktop session was delegated a cgroup) could move itself out of its cgroup by writing another `cgroup.procs`, and
//! sockets made there would meet no program. The agent cannot undo it: it has no capability and no mount calls.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr;

use nix::sys::statvfs::{FsFlags, statvfs};

use super::cgroup::{CgroupError, is_cgroup2, mount_points};

/// The mounts to make read-only, prepared for use after a fork.
#[derive(Debug)]
pub(super) struct ReadOnlyCgroups(Vec<(CString, libc::c_ulong)>);

impl ReadOnlyCgroups {
    /// Reads where cgroup2 is mounted.
    pub(super) fn prepare() -> Result<Self, CgroupError> {
        let points = mount_points()?.into_iter();
        // A mount that is covered by another, or out of a chroot's sight, cannot be reached by name by the agent either.
        Ok(Self(points.filter(|point| is_cgroup2(point)).filter_map(with_flags).collect()))
    }

    /// Moves the calling process into a mount namespace of its own and makes the mounts read-only there.
    /// Async-signal-safe; needs `CAP_SYS_ADMIN`.
    pub(super) fn apply(&self) -> io::Result<()> {
        // SAFETY: unshare takes no memory.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        // Slave: what is mounted outside later still shows up inside, and never the other way round.
        // SAFETY: the strings are literals or owned by self; null is allowed for the rest.
        check(unsafe {
            libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_SLAVE, ptr::null())
        })?;
        for (point, flags) in &self.0 {
            let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | flags;
            // SAFETY: as above.
            check(unsafe { libc::mount(ptr::null(), point.as_ptr(), ptr::null(), flags, ptr::null()) })?;
        }
        Ok(())
    }
}

/// A remount replaces all flags, so those that restrict are carried over.
fn with_flags(point: PathBuf) -> Option<(CString, libc::c_ulong)> {
    let stat = statvfs(&point).ok()?;
    let flags = [
        (FsFlags::ST_NOSUID, libc::MS_NOSUID),
        (FsFlags::ST_NODEV, libc::MS_NODEV),
        (FsFlags::ST_NOEXEC, libc::MS_NOEXEC),
        (FsFlags::ST_NOATIME, libc::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, libc::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, libc::MS_RELATIME),
    ]
    .into_iter()
    .filter(|(has, _)| stat.flags().contains(*has))
    .fold(0, |flags, (_, flag)| flags | flag);
    Some((CString::new(point.into_os_string().into_vec()).ok()?, flags))
}

fn check(rc: libc::c_int) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
