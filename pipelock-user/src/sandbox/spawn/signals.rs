//! The running agent: waiting for its end, passing signals on to it, stopping and going on with it.
//!
//! Called by the app room through [`AgentProcess::wait`]. It promises that the signals a supervisor, a shell or a CI
//! runner sends to us reach the agent, once, and do not end us before the evidence is written.
//!
//! A handler of our own instead of tokio's: only the sender's code (`si_code`) tells a Ctrl-C, which the terminal has
//! already given to the whole foreground group, from a SIGINT that was sent to us alone.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, raise, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpgid, getpgrp, pipe2, tcgetpgrp, tcsetpgrp};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::Confinement;
use crate::sandbox::refusals::RefusalListener;

/// The signals that are passed on to the agent.
const FORWARDED: [libc::c_int; 6] =
    [libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGINT, libc::SIGUSR1, libc::SIGUSR2];
/// How long a stopped agent has to stay stopped before we follow: after `fg` it may be continued a moment after us.
const STOP_GRACE: Duration = Duration::from_millis(50);

/// How the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentExit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl AgentExit {
    /// The code to exit with in its place: its own, or 128 and the signal, as shells do.
    #[must_use]
    pub fn code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        };
        // The kernel keeps 8 bits of an exit code, and signals end at 64.
        (code & 0xff) as u8
    }
}

/// Whether a child of ours has stopped, and nobody was told yet.
fn has_stopped(pid: Pid, flags: WaitPidFlag) -> io::Result<bool> {
    match waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | flags) {
        Ok(status) => Ok(matches!(status, WaitStatus::Stopped(..))),
        // It has ended since it was looked at: who asks for stops alone is told of no child then.
        Err(Errno::ECHILD) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// The agent's first process, a child of ours. Dropping it leaves the agent running: to end it, use
/// [`crate::sandbox::cgroup::Cgroup::kill_all`], which reaches what it started too.
#[derive(Debug)]
pub struct AgentProcess {
    pid: Pid,
    confinement: Confinement,
    refusals: Option<RefusalListener>,
    exit: Option<AgentExit>,
}

impl AgentProcess {
    pub(super) fn new(pid: Pid, confinement: Confinement, refusals: Option<RefusalListener>) -> Self {
        Self { pid, confinement, refusals, exit: None }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// What closes it in.
    #[must_use]
    pub fn confinement(&self) -> Confinement {
        self.confinement
    }

    /// What asks us about refused sockets; none without the system call filter, or when it was taken before. Until it is
    /// served, an agent that asks for such a socket waits.
    #[must_use]
    pub fn take_refusals(&mut self) -> Option<RefusalListener> {
        self.refusals.take()
    }

    /// Waits for its end, passing signals on meanwhile. Must run on a tokio runtime; may be dropped and called again.
    /// Other processes of the agent may live on: see [`crate::sandbox::cgroup::Cgroup::is_populated`].
    ///
    /// # Errors
    /// What the kernel said; the agent's state is then unknown.
    pub async fn wait(&mut self) -> io::Result<AgentExit> {
        // Listen before the first look, or an end in between would go unnoticed.
        let mut children = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())?;
        // SAFETY: the pipe is never closed, so the descriptor means the same for as long as the relay lives.
        let relay = unsafe { AsyncFd::register_with_interest(install()?, Interest::READABLE) }?;
        loop {
            if let Some(exit) = self.look()? {
                return Ok(exit);
            }
            let stopped = self.is_stopped()?;
            tokio::select! {
                _ = children.recv() => {}
                received = next(&relay) => self.forward(received?),
                () = tokio::time::sleep(STOP_GRACE), if stopped => self.follow_stop()?,
            }
        }
    }

    /// Sends a signal to the first process, if it still runs.
    ///
    /// # Errors
    /// What the kernel said; an agent that has ended is no error.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let signal = Signal::try_from(signal)?;
        match self.exit {
            Some(_) => Ok(()),
            // Not yet reaped, so the number is still its own.
            None => match kill(self.pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(errno) => Err(errno.into()),
            },
        }
    }

    fn look(&mut self) -> io::Result<Option<AgentExit>> {
        if self.exit.is_none() {
            self.exit = match waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)? {
                WaitStatus::Exited(_, code) => Some(AgentExit::Code(code)),
                WaitStatus::Signaled(_, signal, _) => Some(AgentExit::Signal(signal as i32)),
                _ => None,
            };
        }
        Ok(self.exit)
    }

    fn is_stopped(&self) -> io::Result<bool> {
        has_stopped(self.pid, WaitPidFlag::WNOWAIT)
    }

    /// The agent stopped itself (Ctrl-Z in a program that handles it, `suspend` in a shell): stop with it, so that the
    /// shell that started us takes the terminal back; when it lets us go on, let the agent go on.
    fn follow_stop(&self) -> io::Result<()> {
        if !has_stopped(self.pid, WaitPidFlag::empty())? {
            return Ok(());
        }
        // No terminal, no job control: whoever stopped the agent will let it go on.
        let Ok(terminal) = File::options().read(true).write(true).open("/dev/tty") else { return Ok(()) };
        let (own, group) = (getpgrp(), getpgid(Some(self.pid))?);
        let had_terminal = group != own && tcgetpgrp(&terminal) == Ok(group);
        if had_terminal {
            give_terminal(&terminal, own)?;
        }
        // To this thread, so that nothing below runs before the stop.
        raise(Signal::SIGSTOP)?;
        if had_terminal && tcgetpgrp(&terminal) == Ok(own) {
            give_terminal(&terminal, group)?;
        }
        match if group == own { kill(self.pid, Signal::SIGCONT) } else { killpg(group, Signal::SIGCONT) } {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn forward(&self, received: Received) {
        // The terminal gave it to the whole foreground group, and the agent is in it or chose not to be.
        let is_own = received.sender == nix::unistd::getpid().as_raw();
        let by_terminal = (received.kernel || is_own) && matches!(received.signal, libc::SIGINT | libc::SIGQUIT);
        // An agent that signals its own group has had its own signal.
        let by_agent = received.sender == self.pid.as_raw();
        if !by_terminal && !by_agent {
            PASSED_ON.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.signal(received.signal) {
                tracing::warn!(signal = received.signal, %error, "a signal could not be passed on to the agent");
            }
        }
    }
}

fn give_terminal(terminal: &File, group: Pid) -> io::Result<()> {
    without_stop(|| tcsetpgrp(terminal, group))
}

/// Writing to the terminal's settings from the background would stop us, unless SIGTTOU is blocked.
///
/// # Errors
/// What the kernel said.
pub fn without_stop(work: impl FnOnce() -> nix::Result<()>) -> io::Result<()> {
    let mut before = SigSet::empty();
    let block = SigSet::from_iter([Signal::SIGTTOU]);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&block), Some(&mut before))?;
    let done = work();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(done?)
}

/// One signal, as it went through the pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Received {
    signal: i32,
    /// Made by the kernel (the terminal) and not by a process.
    kernel: bool,
    /// Process id of the sender, 0 for the kernel.
    sender: i32,
}

impl Received {
    fn encode(self) -> [u8; 8] {
        let [a, b, c, d] = self.sender.to_ne_bytes();
        [(self.signal & 0xff) as u8, u8::from(self.kernel), 0, 0, a, b, c, d]
    }

    fn decode([signal, kernel, _, _, a, b, c, d]: [u8; 8]) -> Self {
        Self { signal: signal.into(), kernel: kernel != 0, sender: i32::from_ne_bytes([a, b, c, d]) }
    }
}

/// How many signals were passed on to agents.
static PASSED_ON: AtomicU64 = AtomicU64::new(0);

/// How many signals were passed on to agents until now: somebody wants them to act, who may hold still.
pub fn signals_passed_on() -> u64 {
    PASSED_ON.load(Ordering::Relaxed)
}

/// The reading and the writing end; they live as long as the process.
static PIPE: OnceLock<(OwnedFd, OwnedFd)> = OnceLock::new();
/// The writing end, for the handler.
static WRITER: AtomicI32 = AtomicI32::new(-1);

/// Whether a signal is ignored: `nohup` and others wish so, and whoever installs a handler has to ask before.
///
/// # Errors
/// What the kernel said.
pub fn is_ignored(signal: i32) -> io::Result<bool> {
    // SAFETY: the struct is ours, all zeros are one, and nothing is installed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &raw mut action) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(action.sa_sigaction == libc::SIG_IGN)
    }
}

/// Installs the handlers, once. Signals that are ignored stay so: that is `nohup`'s wish, and the agent's too.
pub(super) fn install() -> io::Result<BorrowedFd<'static>> {
    if let Some((reader, _)) = PIPE.get() {
        return Ok(reader.as_fd());
    }
    let pipe = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let (reader, writer) = PIPE.get_or_init(|| pipe);
    WRITER.store(writer.as_raw_fd(), Ordering::Release);
    for signal in FORWARDED {
        if is_ignored(signal)? {
            continue;
        }
        // SAFETY: the structs are ours; the handler is async-signal-safe and has the signature that SA_SIGINFO demands.
        unsafe {
            let mut ours: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
            ours.sa_sigaction = handler as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
            if libc::sigaction(signal, &raw const ours, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(reader.as_fd())
}

/// Async-signal-safe: writes one message and keeps errno. A full pipe loses it: 8192 signals nobody has read yet.
extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: SA_SIGINFO makes the kernel pass a valid siginfo; si_pid is meaningful for every signal a process sends
    // and 0 for the terminal's; errno is this thread's own.
    unsafe {
        let errno = *libc::__errno_location();
        let kernel = (*info).si_code == libc::SI_KERNEL;
        let message = Received { signal, kernel, sender: if kernel { 0 } else { (*info).si_pid() } }.encode();
        libc::write(WRITER.load(Ordering::Acquire), message.as_ptr().cast(), message.len());
        *libc::__errno_location() = errno;
    }
}

async fn next(relay: &AsyncFd<BorrowedFd<'static>>) -> io::Result<Received> {
    loop {
        let mut guard = relay.readable().await?;
        let read = guard.try_io(|fd| {
            let mut message = [0; 8];
            // Messages are written whole (under PIPE_BUF), so they are read whole.
            match nix::unistd::read(fd.get_ref(), &mut message)? {
                8 => Ok(Received::decode(message)),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        });
        if let Ok(received) = read {
            return received;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_has_ended_has_not_stopped() {
        let mut child = std::process::Command::new("true").spawn().expect("true");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).expect("its end");
        assert!(!has_stopped(pid, WaitPidFlag::WNOWAIT).expect("no error"));
        assert!(!has_stopped(pid, WaitPidFlag::empty()).expect("no error"));
        assert!(child.wait().expect("its status").success());
    }

    #[test]
    fn exit_codes_are_the_shells() {
        assert_eq!(AgentExit::Code(0).code(), 0);
        assert_eq!(AgentExit::Code(255).code(), 255);
        assert_eq!(AgentExit::Signal(libc::SIGINT).code(), 130);
        assert_eq!(AgentExit::Signal(libc::SIGKILL).code(), 137);
    }

    #[test]
    fn messages_survive_the_pipe() {
        for received in [
            Received { signal: libc::SIGTERM, kernel: false, sender: 4_194_303 },
            Received { signal: libc::SIGINT, kernel: true, sender: 0 },
        ] {
            assert_eq!(Received::decode(received.encode()), received);
        }
    }
}
