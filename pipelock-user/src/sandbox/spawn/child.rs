//! The steps between the fork into the agent's cgroup and exec, in the order in which they must happen.
//!
//! Called by [`super`] in the forked child of a process that may have threads: everything here is async-signal-safe,
//! nothing allocates, locks or panics; whatever needs memory was prepared before the fork. A step that fails ends the
//! child before it runs a single instruction of the agent, and tells the parent which one it was.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

use super::descriptors;
use crate::sandbox::caps;
use crate::sandbox::landlock::Domain;
use crate::sandbox::mounts::ReadOnlyKernel;
use crate::sandbox::refusals;
use crate::sandbox::seccomp::Filters;

/// Ignoring these is a wish of whoever started us (`nohup`, `&` in a script), so it is passed on.
const INHERITED: [libc::c_int; 6] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Which step failed; the number travels through the report pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Cgroup = 1,
    Signals,
    Limits,
    Mounts,
    Descriptors,
    Capabilities,
    User,
    Folder,
    Privileges,
    Landlock,
    Seccomp,
    Exec,
}

impl Step {
    const ALL: [Self; 12] = [
        Self::Cgroup,
        Self::Signals,
        Self::Limits,
        Self::Mounts,
        Self::Descriptors,
        Self::Capabilities,
        Self::User,
        Self::Folder,
        Self::Privileges,
        Self::Landlock,
        Self::Seccomp,
        Self::Exec,
    ];

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == number)
    }

    /// What was being done, to stand after "cannot".
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Cgroup => "enter the cgroup (by cgroup.procs)",
            Self::Signals => "reset the signals",
            Self::Limits => "forbid core dumps or give the limit of descriptors back",
            Self::Mounts => "make the kernel's control files read-only and hide the sockets of D-Bus and systemd",
            Self::Descriptors => "close the inherited descriptors (close_range or /proc/self/fd)",
            Self::Capabilities => "drop the capabilities",
            Self::User => "change to the agent's user",
            Self::Folder => "enter the working folder",
            Self::Privileges => "set no_new_privs",
            Self::Landlock => "enter the Landlock domain",
            Self::Seccomp => "install the system call filter",
            Self::Exec => "start the program",
        }
    }
}

/// A null-terminated list of C strings, as exec wants it, with the strings it points into.
pub(super) struct Strings {
    pointers: Vec<*const c_char>,
    _owned: Vec<CString>,
}

impl Strings {
    /// `slots` null pointers are left free at the front.
    pub(super) fn new(owned: Vec<CString>, slots: usize) -> Self {
        let pointers = std::iter::repeat_n(ptr::null(), slots)
            .chain(owned.iter().map(|text| text.as_ptr()))
            .chain([ptr::null()])
            .collect();
        Self { pointers, _owned: owned }
    }
}

/// Everything the child needs, allocated before the fork.
pub(super) struct Child {
    /// Where a failure is reported; close-on-exec.
    pub(super) report: OwnedFd,
    /// uid, gid, groups to change to.
    pub(super) user: Option<(u32, u32, Vec<u32>)>,
    /// The file that takes the child into the cgroup, if it was not born there.
    pub(super) entrance: Option<OwnedFd>,
    /// The limit of descriptors to go back to.
    pub(super) descriptors: Option<libc::rlimit>,
    /// The limit of core dumps, in bytes.
    pub(super) core: libc::rlim_t,
    pub(super) mounts: Option<ReadOnlyKernel>,
    pub(super) landlock: Option<Domain>,
    pub(super) filters: Option<Filters>,
    /// Where the supervisor's end of the filters is handed over; a UNIX socket, close-on-exec.
    pub(super) handover: OwnedFd,
    /// Files to try, in order.
    pub(super) candidates: Vec<CString>,
    /// Arguments, the program's name first, with a free slot before it (see [`Child::exec`]).
    pub(super) args: Strings,
    pub(super) env: Strings,
    /// The signal mask to start the agent with.
    pub(super) mask: libc::sigset_t,
}

impl Child {
    /// Runs the steps and becomes the agent, or reports and ends.
    pub(super) fn run(&mut self) -> ! {
        let Err((step, error)) = self.steps();
        let errno = error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes();
        let [a, b, c, d] = errno;
        let message = [step as u8, a, b, c, d];
        // SAFETY: the message is 5 readable bytes; _exit never returns and runs no destructors of the parent's state.
        unsafe {
            libc::write(self.report.as_raw_fd(), message.as_ptr().cast(), message.len());
            libc::_exit(127)
        }
    }

    fn steps(&mut self) -> Result<std::convert::Infallible, (Step, io::Error)> {
        let at = |step| move |error| (step, error);
        if let Some(entrance) = &self.entrance {
            // "0" is whoever writes it. When this returns we are in; until here nothing was done.
            // SAFETY: one readable byte.
            let written = unsafe { libc::write(entrance.as_raw_fd(), c"0".as_ptr().cast(), 1) };
            sys((written - 1) as libc::c_long).map_err(at(Step::Cgroup))?;
        }
        reset_signals(&self.mask).map_err(at(Step::Signals))?;
        // Not 0 if it can be helped: that does not keep the kernel from starting the program that core_pattern pipes to,
        // outside our cgroup and as root; 1 does (core(5)), and is less than any file takes. PR_SET_DUMPABLE would not
        // outlive exec.
        let core = libc::rlimit { rlim_cur: self.core, rlim_max: self.core };
        // SAFETY: `core` outlives the call.
        check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const core) }).map_err(at(Step::Limits))?;
        if let Some(mounts) = &self.mounts {
            mounts.apply().map_err(at(Step::Mounts))?;
        }
        descriptors::close_on_exec_from(3).map_err(at(Step::Descriptors))?;
        // The bounding set first: it takes CAP_SETPCAP, which the change of user takes away.
        caps::drop_bounding(0).map_err(at(Step::Capabilities))?;
        if let Some((uid, gid, groups)) = &self.user {
            change_user(*uid, *gid, groups).map_err(at(Step::User))?;
        }
        caps::set(0).map_err(at(Step::Capabilities))?;
        // SAFETY: the path is a literal.
        check(unsafe { libc::access(c".".as_ptr(), libc::X_OK) }).map_err(at(Step::Folder))?;
        caps::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(at(Step::Privileges))?;
        if let Some(domain) = &self.landlock {
            domain.enter().map_err(at(Step::Landlock))?;
        }
        if let Some(filters) = &self.filters {
            let listener = filters.install().map_err(at(Step::Seccomp))?;
            refusals::hand_over(&self.handover, &listener).map_err(at(Step::Seccomp))?;
        }
        // Last: what was inherited is closed by exec only, and new descriptors have higher numbers.
        if let Some(limit) = &self.descriptors {
            // SAFETY: `limit` outlives the call.
            check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) }).map_err(at(Step::Limits))?;
        }
        Err((Step::Exec, self.exec()))
    }

    /// Tries the candidates as execvp(3) does, a text file without `#!` by the shell; returns the error that says most.
    fn exec(&mut self) -> io::Error {
        let mut worst = io::Error::from_raw_os_error(libc::ENOENT);
        let env = self.env.pointers.as_ptr();
        for candidate in &self.candidates {
            let [shell, rest @ ..] = self.args.pointers.as_mut_slice() else { return worst };
            // SAFETY: the lists are null-terminated and their strings are owned by self.
            let error = unsafe {
                libc::execve(candidate.as_ptr(), rest.as_ptr(), env);
                io::Error::last_os_error()
            };
            match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) => {}
                Some(libc::EACCES) => worst = error,
                Some(libc::ENOEXEC) => {
                    // sh, the file, then the arguments after the program's own name, which therefore gives up its place.
                    *shell = c"/bin/sh".as_ptr();
                    if let Some(name) = rest.first_mut() {
                        *name = candidate.as_ptr();
                    }
                    // SAFETY: as above; the list begins at the slot that is no longer free.
                    return unsafe {
                        libc::execve(c"/bin/sh".as_ptr(), self.args.pointers.as_ptr(), env);
                        io::Error::last_os_error()
                    };
                }
                _ => return error,
            }
        }
        worst
    }
}

/// Gives every signal its default action, but for the ones of [`INHERITED`] that are ignored, then sets the mask. They
/// were all blocked since before the fork, so that no handler of the parent ran in the child.
fn reset_signals(mask: &libc::sigset_t) -> io::Result<()> {
    // struct sigaction of the kernel: handler, flags, then restorer and mask or mask alone; all zero is the default.
    type KernelAction = [usize; 4];
    const DEFAULT: KernelAction = [0; 4];
    for signal in 1..=64 {
        let mut action = DEFAULT;
        // The raw call, because libc hides the signals it uses itself.
        // SAFETY: both arrays are at least as large as the kernel's struct; 8 is the size of its signal mask.
        let asked = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, ptr::null::<u8>(), action.as_mut_ptr(), 8) };
        let [handler, ..] = action;
        if asked == 0 && handler == libc::SIG_IGN && INHERITED.contains(&signal) {
            continue;
        }
        // KILL and STOP answer EINVAL: they have nothing but a default.
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), ptr::null_mut::<u8>(), 8) };
    }
    // SAFETY: the mask outlives the call.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, ptr::null_mut()) })
}

/// Raw system calls: libc's wrappers would look for the other threads, which the child does not have. The kernel is asked
/// what came of it, because it takes -1 for "leave it" and says that all went well.
fn change_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    let (mut uids, mut gids) = ([!uid; 3], [!gid; 3]);
    let ([real, effective, saved], [group, effective_group, saved_group]) = (&mut uids, &mut gids);
    // SAFETY: the list and the six numbers outlive the calls; the others take numbers only.
    unsafe {
        sys(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        sys(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        sys(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        sys(libc::syscall(libc::SYS_getresgid, &raw mut *group, &raw mut *effective_group, &raw mut *saved_group))?;
        sys(libc::syscall(libc::SYS_getresuid, &raw mut *real, &raw mut *effective, &raw mut *saved))?;
    }
    if uids == [uid; 3] && gids == [gid; 3] { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

fn sys(rc: libc::c_long) -> io::Result<()> {
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn check(rc: libc::c_int) -> io::Result<()> {
    sys(rc.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_comes_back_from_its_number() {
        for step in Step::ALL {
            assert_eq!(Step::from_number(step as u8), Some(step));
        }
        assert_eq!(Step::from_number(0), None);
        assert_eq!(Step::from_number(13), None);
    }

    #[test]
    #[ignore = "needs root"]
    fn a_user_that_the_kernel_takes_for_none_is_an_error() {
        // Raw calls change the calling thread alone.
        let change = |uid, gid| {
            #[allow(clippy::disallowed_methods, reason = "a test")]
            let thread = std::thread::spawn(move || change_user(uid, gid, &[]).map_err(|error| error.raw_os_error()));
            thread.join().expect("thread")
        };
        assert_eq!(change(54321, 54321), Ok(()));
        assert_eq!(change(u32::MAX, 54321), Err(Some(libc::EPERM)));
        assert_eq!(change(54321, u32::MAX), Err(Some(libc::EPERM)));
    }

    #[test]
    fn lists_end_in_null() {
        let list = Strings::new(vec![c"a".into(), c"b".into()], 2);
        let null: Vec<bool> = list.pointers.iter().map(|pointer| pointer.is_null()).collect();
        assert_eq!(null, [true, true, false, false, true]);
    }
}
