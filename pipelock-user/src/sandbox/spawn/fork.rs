//! The fork, into the cgroup where the kernel can do that.
//!
//! Called by [`super`]. Raw system calls: libc does not know of the child, which runs no handlers of libc's and keeps to
//! system calls itself.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Forks; the child is born in the cgroup, so there is no moment at which it is elsewhere. Moving it there afterwards would
/// also wait for all processors, ten milliseconds and more. Answers as fork(2), with errno set.
///
/// # Safety
/// As fork(2).
pub(super) unsafe fn into_cgroup(cgroup: BorrowedFd<'_>) -> libc::c_long {
    /// linux/sched.h; libc has it too narrow.
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    // SAFETY: integers only, for all of which zero is the default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_INTO_CGROUP;
    args.exit_signal = libc::SIGCHLD as u64;
    args.cgroup = cgroup.as_raw_fd() as u64;
    // SAFETY: the struct outlives the call and has the size that is passed; without CLONE_VM the child has its own memory.
    unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) }
}

/// Forks where there is no clone3; the child has to enter the cgroup itself.
///
/// # Safety
/// As fork(2).
pub(super) unsafe fn beside_cgroup() -> libc::c_long {
    // SAFETY: no flags but the signal at the end, so that nothing is shared and every pointer may be null.
    unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) }
}
