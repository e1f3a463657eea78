//! Capabilities: the agent gets none, the supervising process keeps few.
//!
//! Called by [`super::spawn`] in the child, and by the app room for our own process once the kernel programs are
//! loaded. Raw capset(2) and prctl(2): the child must not allocate between fork and exec.

use std::io;

/// A capability, by its number in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cap {
    /// Write files of any owner: evidence in a folder that is not root's.
    DacOverride = 1,
    /// Signal processes of any user: forwarding, and ending the agent.
    Kill = 5,
    /// Bind ports below 1024.
    NetBindService = 10,
    /// Change the network: `SOCK_DESTROY`.
    NetAdmin = 12,
    /// Make packet sockets, which no hook of a cgroup sees.
    NetRaw = 13,
    /// Look into processes of any user.
    SysPtrace = 19,
    /// Enter namespaces, use cgroup and bpf files of others.
    SysAdmin = 21,
    /// Load and change kernel programs (Linux 5.8).
    Bpf = 39,
}

/// Why our own capabilities could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum CapsError {
    /// Capabilities belong to threads; the other threads would keep theirs.
    #[error(
        "capabilities must be dropped before other threads start, and {0} threads run; this is a defect in pipelock"
    )]
    Threads(usize),
    /// What the kernel said.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Looks, a millisecond apart, at whether threads that were joined are gone.
const GONE_TRIES: usize = 200;

/// Drops every capability but `keep` from the effective, permitted, inheritable, ambient and bounding sets of this
/// process, sets `no_new_privs` and makes the process undumpable (so that no process of the same user can trace it).
///
/// Must be called while the process has one thread, before the async runtime starts: capabilities are a thread's, and
/// threads inherit them from the one that starts them. It is for good.
///
/// # Errors
/// [`CapsError`]; after an error some may be dropped already, so the caller must end.
pub fn drop_after_load(keep: &[Cap]) -> Result<(), CapsError> {
    let io = |what| move |source| CapsError::Io { what, source };
    // A thread that was joined may stand in the list for a moment after it is gone.
    let count = || Ok::<_, CapsError>(std::fs::read_dir("/proc/self/task").map_err(io("count our threads"))?.count());
    for _ in 0..GONE_TRIES {
        if count()? == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let threads = count()?;
    if threads != 1 {
        return Err(CapsError::Threads(threads));
    }
    let keep = keep.iter().fold(0, |mask, cap| mask | 1_u64 << *cap as u8);
    drop_bounding(keep).map_err(io("drop capabilities from the bounding set"))?;
    let held = permitted().map_err(io("read our capabilities"))?;
    set(keep & held).map_err(io("drop capabilities"))?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(io("set no_new_privs"))?;
    prctl(libc::PR_SET_DUMPABLE, 0).map_err(io("become undumpable"))
}

/// Which of these a process holds, by /proc; none of one that is gone.
///
/// # Errors
/// When its status cannot be read.
pub fn held_by(pid: i32, asked: &[Cap]) -> io::Result<Vec<Cap>> {
    let status = match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(Vec::new()),
        status => status?,
    };
    let held = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapPrm:")?.trim(), 16).ok());
    let held = held.ok_or(io::ErrorKind::InvalidData)?;
    Ok(asked.iter().copied().filter(|cap| held >> *cap as u8 & 1 == 1).collect())
}

/// Takes every capability not in the mask `keep` out of the bounding set, and all out of the ambient set.
/// Async-signal-safe. Without `CAP_SETPCAP` the bounding set stays: `no_new_privs`, which the callers set, is what
/// then keeps exec from giving anything back.
pub(super) fn drop_bounding(keep: u64) -> io::Result<()> {
    for cap in 0..64 {
        if keep >> cap & 1 == 0 {
            match prctl(libc::PR_CAPBSET_DROP, cap) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => break,
                // Past the last one that this kernel knows.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) && cap > 0 => break,
                Err(error) => return Err(error),
            }
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::c_ulong::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs()))
}

/// Makes `mask` the effective and permitted set of the calling thread, and the inheritable set empty. Async-signal-safe.
pub(super) fn set(mask: u64) -> io::Result<()> {
    let (low, high) = halves(mask);
    let data = [
        CapData { effective: low, permitted: low, inheritable: 0 },
        CapData { effective: high, permitted: high, inheritable: 0 },
    ];
    let header = CapHeader { version: VERSION_3, pid: 0 };
    // SAFETY: version 3 reads a header and two data structs, which live until after the call.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The permitted set of the calling thread, bit n for capability n.
pub(super) fn permitted() -> io::Result<u64> {
    let mut data = [const { CapData { effective: 0, permitted: 0, inheritable: 0 } }; 2];
    let mut header = CapHeader { version: VERSION_3, pid: 0 };
    // SAFETY: version 3 reads and may write the header, and writes two data structs; both are ours.
    match unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } {
        0 => Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32),
        _ => Err(io::Error::last_os_error()),
    }
}

pub(super) fn prctl(option: libc::c_int, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: none of the options used here (in this room) takes a pointer.
    match unsafe { libc::prctl(option, value, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn halves(mask: u64) -> (u32, u32) {
    ((mask & 0xffff_ffff) as u32, (mask >> 32) as u32)
}

// linux/capability.h
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_refused_untouched() {
        let before = permitted().expect("capget");
        // The test harness always runs a second thread.
        assert!(matches!(drop_after_load(&[Cap::Kill]), Err(CapsError::Threads(2..))));
        assert_eq!(permitted().expect("capget"), before);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test")]
    fn a_thread_can_give_up_all_it_has() {
        std::thread::spawn(|| {
            set(0).expect("capset");
            assert_eq!(permitted().expect("capget"), 0);
        })
        .join()
        .expect("thread");
    }

    #[test]
    fn halves_are_in_order() {
        assert_eq!(halves(1 << 39 | 1 << 5), (1 << 5, 1 << 7));
    }
}
