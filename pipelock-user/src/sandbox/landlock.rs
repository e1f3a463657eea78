//! Landlock, for what no filter can tell apart: whether the other process is inside or outside.
//!
//! Called by [`super::spawn`]. A process in a Landlock domain may ptrace, read the memory of and take descriptors from
//! processes of that domain only; from Linux 6.12 on it may also signal, and connect to abstract UNIX sockets of,
//! those only. Files stay as open as they were. Landlock's network rules are not used: they miss Fast Open, MPTCP, UDP.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

// linux/landlock.h
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const FS_MAKE_BLOCK: u64 = 1 << 11;
const FS_REFER: u64 = 1 << 13;
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 2;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which the kernel packs.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// A ruleset that closes the agent's processes off from the ones outside.
#[derive(Debug)]
pub(super) struct Domain {
    ruleset: OwnedFd,
    scoped: bool,
}

impl Domain {
    /// The best domain this kernel has; `None` when Landlock is not enabled.
    ///
    /// # Errors
    /// What the kernel said when it has Landlock but refuses the ruleset.
    pub(super) fn create() -> io::Result<Option<Self>> {
        match abi() {
            6.. => scoped().map(Some),
            2.. => ptrace_only().map(Some),
            _ => Ok(None),
        }
    }

    /// True when signals and abstract UNIX sockets are closed off too, not only ptrace.
    #[must_use]
    pub(super) fn scopes_signals(&self) -> bool {
        self.scoped
    }

    /// Puts the calling thread into the domain, for good. Async-signal-safe; needs `PR_SET_NO_NEW_PRIVS` before.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn enter(&self) -> io::Result<()> {
        // SAFETY: landlock_restrict_self takes a descriptor and flags, no memory.
        match unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.ruleset.as_raw_fd(), 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The version of the interface; 0 without Landlock.
fn abi() -> i64 {
    let none = std::ptr::null::<RulesetAttr>();
    // SAFETY: with this flag the kernel demands a null pointer and size 0, and only answers a number.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, CREATE_RULESET_VERSION) }
}

fn scoped() -> io::Result<Domain> {
    let attr =
        RulesetAttr { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL };
    Ok(Domain { ruleset: create(&attr, size_of::<RulesetAttr>())?, scoped: true })
}

/// A ruleset must handle something: making block devices, which an agent without capabilities cannot do anyway. Moving
/// files between folders is denied by every file ruleset that does not give it back, so it is given back for all.
fn ptrace_only() -> io::Result<Domain> {
    let attr = RulesetAttr { handled_access_fs: FS_MAKE_BLOCK | FS_REFER, handled_access_net: 0, scoped: 0 };
    // Kernels that know only the first field take only its size.
    let ruleset = create(&attr, size_of::<u64>())?;
    let root = std::fs::File::open("/")?;
    let rule = PathBeneathAttr { allowed_access: FS_REFER, parent_fd: root.as_fd().as_raw_fd() };
    // SAFETY: `rule` is the struct this rule type demands and outlives the call.
    let rc = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), RULE_PATH_BENEATH, &raw const rule, 0)
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Domain { ruleset, scoped: false })
}

fn create(attr: &RulesetAttr, size: usize) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is at least `size` bytes long and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const *attr, size, 0) };
    match i32::try_from(fd) {
        // SAFETY: the kernel just gave us this descriptor (close-on-exec), and nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own, because a domain stays.
    #[allow(clippy::disallowed_methods, reason = "a test")]
    fn inside<T: Send>(domain: &Domain, check: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    nix::sys::prctl::set_no_new_privs().expect("no_new_privs");
                    domain.enter().expect("enter");
                    check()
                })
                .join()
                .expect("thread")
        })
    }

    /// What ptrace, process_vm_readv and pidfd_getfd ask of the kernel, without changing the other process.
    fn may_read(pid: i32) -> bool {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok()
    }

    #[test]
    fn both_kinds_of_domain_close_off_processes_outside() {
        if abi() < 2 {
            eprintln!("SKIP: needs Landlock");
            return;
        }
        let mut outside = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = i32::try_from(outside.id()).expect("pid");
        assert!(may_read(pid));
        let domain = ptrace_only().expect("ruleset");
        assert!(!inside(&domain, || may_read(pid)));
        // Files stay as open as they were: moving between folders is what a careless ruleset breaks.
        let folder = tempfile::tempdir().expect("tempdir");
        let (from, to) = (folder.path().join("a"), folder.path().join("b/a"));
        std::fs::create_dir(folder.path().join("b")).expect("mkdir");
        std::fs::write(&from, "x").expect("write");
        inside(&domain, || std::fs::rename(&from, &to)).expect("rename across folders");
        if abi() >= 6 {
            let domain = scoped().expect("ruleset");
            assert!(domain.scopes_signals());
            assert!(!inside(&domain, || may_read(pid)));
            let pid = nix::unistd::Pid::from_raw(pid);
            assert_eq!(inside(&domain, || nix::sys::signal::kill(pid, None)), Err(nix::errno::Errno::EPERM));
        }
        outside.kill().expect("kill");
        outside.wait().expect("wait");
    }
}
