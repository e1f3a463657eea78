//! Starting the agent inside its cgroup, with nothing that leads out of it.
//!
//! Called by the app room, once the kernel programs are attached and the proxy listens, and before our own capabilities
//! are dropped ([`crate::sandbox::caps::drop_after_load`]): changing the user and entering the cgroup take them.
//!
//! Why an own fork and exec instead of `std::process::Command` with `pre_exec`: signals must be blocked across the fork
//! (or a Ctrl-C in between runs our handler in the child and is lost), the steps must run in exactly one order, and the
//! user must be told which one failed; the standard library gives none of these.
//!
//! The agent keeps the terminal, the session, the process group, the umask, the working folder and the environment: it
//! behaves as if there were no wrapper.

mod child;
mod descriptors;
mod fork;
mod signals;
mod user;

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

use self::child::{Child, Step, Strings};
pub use self::signals::{AgentExit, AgentProcess, is_ignored, signals_passed_on, without_stop};
pub use self::user::{AgentUser, UserError};
use super::caps;
use super::cgroup::{Cgroup, CgroupError};
use super::landlock::Domain;
use super::limits::{self, LimitsError};
use super::mounts::ReadOnlyKernel;
use super::refusals::RefusalListener;
use super::seccomp::{Filters, SeccompError};

/// Where programs are looked for when the environment has no PATH (what `confstr(_CS_PATH)` says, and /usr/local).
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// How long the child may take to reach the program, in milliseconds: a slow network file system, not a stuck one.
const START_MS: libc::c_int = 30_000;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A standard descriptor is a network socket: it belongs to a cgroup outside and would never be inspected.
    #[error(
        "descriptor {fd} ({name}) is a network socket (address family {family}), a way out that could not be inspected; put a pipe in between: … | pipelock run … | cat"
    )]
    NetworkDescriptor {
        /// 0, 1 or 2.
        fd: i32,
        /// Its name.
        name: &'static str,
        /// `AF_*` number.
        family: i32,
    },
    /// A program, argument or variable holds a NUL byte.
    #[error("{0} holds a NUL byte, which no program can be given")]
    Nul(&'static str),
    /// The cgroup cannot be used.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// What we were given is too little.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The cgroup is frozen: the agent would never start.
    #[error("the cgroup {0} is frozen; write 0 to its cgroup.freeze")]
    Frozen(String),
    /// The filters cannot be built.
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// No such program.
    #[error("{program}: not found{place}")]
    NotFound {
        /// As it was given.
        program: String,
        /// Where it was looked for.
        place: &'static str,
    },
    /// There is a file, but it cannot be started.
    #[error(
        "{program}: cannot be executed by user {user}: {source}; check the permissions of the file and of the folders above it, or choose another user with --user"
    )]
    NotExecutable {
        /// As it was given.
        program: String,
        /// The agent's user.
        user: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The agent's user may not be in the working folder.
    #[error(
        "user {user} may not enter the working folder {folder}: {source}; change to a folder that {user} can enter, or choose another user with --user"
    )]
    Folder {
        /// The agent's user.
        user: String,
        /// The working folder.
        folder: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step of the preparation failed.
    #[error("cannot {what} for the agent: {source}; nothing was started")]
    Step {
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SpawnError {
    /// The exit code that shells and CI expect: 127 not found, 126 not executable, 125 our own failure.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

/// Keeps from now on the signals that [`AgentCommand::spawn`] lists for an agent still to be started, which gets them then:
/// for whoever has something to clean up before that.
///
/// # Errors
/// What the kernel said.
pub fn keep_signals() -> io::Result<()> {
    signals::install().map(|_| ())
}

/// What closes the agent in, as it was really done; goes into the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The filters of `sandbox::seccomp` are installed.
    pub seccomp: bool,
    /// The agent cannot trace or read processes outside.
    pub landlock: bool,
    /// The agent cannot signal processes, or connect to abstract UNIX sockets, outside.
    pub landlock_scoped: bool,
    /// The cgroup tree, sysfs, bpffs and sysctls are read-only for the agent.
    pub kernel_read_only: bool,
    /// The agent runs as another user than we do.
    pub other_user: bool,
    /// The agent has uid 0: it has no capability, but root's files are its own, and with them whatever reads them
    /// outside the cgroup (cron, disks under /dev, shells of root). Worth a warning.
    pub root: bool,
}

/// A command to run as the agent.
#[derive(Clone, Debug)]
pub struct AgentCommand {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    user: AgentUser,
    seccomp: bool,
    protect_kernel: bool,
    covers: Vec<(PathBuf, PathBuf)>,
    layers: Vec<(PathBuf, PathBuf)>,
}

impl AgentCommand {
    /// A command with our environment and, when the user changes, its `HOME`, `USER`, `LOGNAME` and `SHELL`.
    #[must_use]
    pub fn new(program: impl Into<OsString>, args: impl IntoIterator<Item = OsString>, user: AgentUser) -> Self {
        let mut command = Self {
            program: program.into(),
            args: args.into_iter().collect(),
            env: std::env::vars_os().collect(),
            user,
            seccomp: true,
            protect_kernel: true,
            covers: Vec::new(),
            layers: Vec::new(),
        };
        if command.user.change {
            let AgentUser { name, home, shell, .. } = command.user.clone();
            for (key, value) in [
                ("HOME", home.into()),
                ("USER", name.clone().into()),
                ("LOGNAME", name.into()),
                ("SHELL", shell.into()),
            ] {
                let value: OsString = value;
                command = command.env(key, value);
            }
        }
        command
    }

    /// Sets a variable of the agent's environment.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let key = key.into();
        self.env.retain(|(old, _)| *old != key);
        self.env.push((key, value.into()));
        self
    }

    /// Shows the agent this file in the place of another, read-only; where mounts cannot be made it sees the other.
    #[must_use]
    pub fn cover(mut self, file: PathBuf, place: PathBuf) -> Self {
        self.covers.push((file, place));
        self
    }

    /// Shows the agent the files of a folder among those of another, read-only; where that cannot be done it sees the other.
    #[must_use]
    pub fn lay(mut self, layer: PathBuf, place: PathBuf) -> Self {
        self.layers.push((layer, place));
        self
    }

    /// Takes a variable out of the agent's environment.
    #[must_use]
    pub fn env_remove(mut self, key: &str) -> Self {
        self.env.retain(|(old, _)| old != key);
        self
    }

    /// Without the system call filter (`false`) the families that the hooks never see stay open; on by default.
    #[must_use]
    pub fn seccomp(mut self, on: bool) -> Self {
        self.seccomp = on;
        self
    }

    /// Without it (`false`) the agent sees the mounts as they are; on by default where we may (`CAP_SYS_ADMIN`).
    #[must_use]
    pub fn protect_kernel(mut self, on: bool) -> Self {
        self.protect_kernel = on;
        self
    }

    /// What will close the agent in, for the evidence that is opened before it starts; [`Self::spawn`] does just this
    /// or fails.
    ///
    /// # Errors
    /// [`SpawnError`] when the kernel does not answer.
    pub fn confinement(&self) -> Result<Confinement, SpawnError> {
        let landlock = Domain::create().map_err(step("make the Landlock domain"))?;
        Ok(self.confinement_with(landlock.as_ref(), self.may_protect_kernel()?))
    }

    fn confinement_with(&self, landlock: Option<&Domain>, kernel_read_only: bool) -> Confinement {
        Confinement {
            seccomp: self.seccomp,
            landlock: landlock.is_some(),
            landlock_scoped: landlock.is_some_and(Domain::scopes_signals),
            kernel_read_only,
            other_user: nix::unistd::geteuid().as_raw() != self.user.uid,
            root: self.user.uid == 0,
        }
    }

    fn may_protect_kernel(&self) -> Result<bool, SpawnError> {
        let held = caps::permitted().map_err(step("read our capabilities"))?;
        Ok(self.protect_kernel && held >> (caps::Cap::SysAdmin as u8) & 1 == 1)
    }

    /// Starts the agent in `cgroup`. Blocks until the program runs or a step failed, usually some milliseconds.
    ///
    /// From now on SIGTERM, SIGHUP, SIGQUIT, SIGINT, SIGUSR1 and SIGUSR2 do not end us any more: they are passed on by
    /// [`AgentProcess::wait`], so that we outlive the agent and can write its evidence.
    ///
    /// # Errors
    /// [`SpawnError`]; then nothing of the agent has run.
    pub fn spawn(&self, cgroup: &Cgroup) -> Result<AgentProcess, SpawnError> {
        refuse_network(io::stdin().as_fd(), "stdin")?;
        refuse_network(io::stdout().as_fd(), "stdout")?;
        refuse_network(io::stderr().as_fd(), "stderr")?;
        if cgroup.is_frozen()? {
            return Err(SpawnError::Frozen(cgroup.path().display().to_string()));
        }
        let landlock = Domain::create().map_err(step("make the Landlock domain"))?;
        let filters = if self.seccomp { Some(Filters::build(landlock.is_none())?) } else { None };
        let mounts = if self.may_protect_kernel()? {
            Some(ReadOnlyKernel::prepare(self.user.uid, self.user.gid)?.covering(&self.covers).under(&self.layers))
        } else {
            None
        };
        if mounts.is_some() && std::env::current_dir().is_ok_and(|folder| ReadOnlyKernel::hides(&folder)) {
            let refused = io::Error::from_raw_os_error(libc::EACCES);
            return Err(step("work in a folder below /run/user or /run/dbus, which is hidden,")(refused));
        }
        let confinement = self.confinement_with(landlock.as_ref(), mounts.is_some());
        let program = c_string(self.program.clone(), "the program")?;
        let args = std::iter::once(Ok(program))
            .chain(self.args.iter().map(|arg| c_string(arg.clone(), "an argument")))
            .collect::<Result<Vec<_>, _>>()?;
        let env = self.env.iter().map(|(key, value)| variable(key, value)).collect::<Result<Vec<_>, _>>()?;
        let (reader, report) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| step("make a pipe")(errno.into()))?;
        let (taker, handover) = UnixDatagram::pair().map_err(step("make a socket pair"))?;
        signals::install().map_err(step("handle signals"))?;
        let mut mask = SigSet::empty();
        let mut child = Child {
            report,
            user: self.user.change.then(|| (self.user.uid, self.user.gid, self.user.groups.clone())),
            entrance: None,
            descriptors: limits::descriptors_of_agent(),
            core: limits::core_of_agent()?,
            mounts,
            landlock,
            filters,
            handover: handover.into(),
            candidates: self.candidates()?,
            args: Strings::new(args, 1),
            env: Strings::new(env, 0),
            mask: *mask.as_ref(),
        };
        // Signals wait until the child has put them back to their defaults.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))
            .map_err(|errno| step("block signals")(errno.into()))?;
        child.mask = *mask.as_ref();
        let forked = start(&mut child, cgroup);
        let restored = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None);
        let pid = forked?;
        let pid = Pid::from_raw(libc::pid_t::try_from(pid).unwrap_or(libc::pid_t::MAX));
        // Our copy of the writing end has to go, or the pipe never ends.
        drop(child);
        match await_start(std::fs::File::from(reader)).and_then(|failed| {
            restored?;
            Ok(failed)
        }) {
            Ok(None) => match self.seccomp.then(|| RefusalListener::take(&taker)).transpose() {
                Ok(refusals) => Ok(AgentProcess::new(pid, confinement, refusals)),
                Err(source) => {
                    let _ = kill(pid, Signal::SIGKILL);
                    let _ = waitpid(pid, None);
                    Err(SpawnError::Step { what: "take over the system call filter", source })
                }
            },
            Ok(Some((failed, errno))) => {
                let _ = waitpid(pid, None);
                Err(self.explain(failed, io::Error::from_raw_os_error(errno)))
            }
            Err(source) => {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = waitpid(pid, None);
                Err(SpawnError::Step { what: "reach the program", source })
            }
        }
    }

    /// The files that the program's name can mean, in order.
    fn candidates(&self) -> Result<Vec<CString>, SpawnError> {
        if self.program.as_encoded_bytes().contains(&b'/') {
            return Ok(vec![c_string(self.program.clone(), "the program")?]);
        }
        if self.program.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.env.iter().find(|(key, _)| key == "PATH").map_or(OsStr::new(DEFAULT_PATH), |(_, path)| path);
        std::env::split_paths(path)
            // An empty entry means the working folder; a bare name would be looked up there as well, but say it.
            .map(|folder| if folder.as_os_str().is_empty() { Path::new(".").into() } else { folder })
            .map(|folder| c_string(folder.join(&self.program).into_os_string(), "PATH"))
            .collect()
    }

    fn explain(&self, failed: Step, source: io::Error) -> SpawnError {
        let program = self.program.to_string_lossy().into_owned();
        let user = self.user.name.clone();
        let named = self.program.as_encoded_bytes().contains(&b'/');
        match (failed, source.raw_os_error()) {
            (Step::Exec, Some(libc::ENOENT | libc::ENOTDIR)) => {
                let place =
                    if named { " (the file, or the interpreter that its first line names)" } else { " in PATH" };
                SpawnError::NotFound { program, place }
            }
            // A folder of PATH that the user may not enter is no finding; a file in it, which we can see, is.
            (Step::Exec, _) if !named => match self.candidates().ok().and_then(first_file) {
                Some(found) => SpawnError::NotExecutable { program: found, user, source },
                None => SpawnError::NotFound { program, place: " in PATH" },
            },
            (Step::Exec, _) => SpawnError::NotExecutable { program, user, source },
            (Step::Folder, _) => {
                let folder = std::env::current_dir().map_or_else(|_| ".".into(), |folder| folder.display().to_string());
                SpawnError::Folder { user, folder, source }
            }
            _ => SpawnError::Step { what: failed.what(), source },
        }
    }
}

/// Forks; the child runs and never returns here. The parent gets its number.
fn start(child: &mut Child, cgroup: &Cgroup) -> Result<libc::c_long, SpawnError> {
    // SAFETY: the child does nothing that is not async-signal-safe (see child.rs) and never returns.
    match unsafe { fork::into_cgroup(cgroup.fd()) } {
        0 => child.run(),
        -1 if Errno::last() == Errno::ENOSYS => {}
        pid => return Errno::result(pid).map_err(|errno| step("start a process in the cgroup (clone3)")(errno.into())),
    }
    tracing::warn!("there is no clone3: the command is started beside its cgroup and enters it before anything else");
    child.entrance = Some(cgroup.entrance().map_err(step("open cgroup.procs"))?.into());
    // SAFETY: as above.
    match unsafe { fork::beside_cgroup() } {
        0 => child.run(),
        pid => Errno::result(pid).map_err(|errno| step("start a process (clone)")(errno.into())),
    }
}

fn first_file(candidates: Vec<CString>) -> Option<String> {
    let mut paths = candidates.into_iter().map(|path| PathBuf::from(OsString::from_vec(path.into_bytes())));
    paths.find(|path| path.is_file()).map(|path| path.display().to_string())
}

fn step(what: &'static str) -> impl FnOnce(io::Error) -> SpawnError {
    move |source| SpawnError::Step { what, source }
}

/// Waits for the pipe to end, which exec does; or for the report of a failed step.
fn await_start(mut pipe: std::fs::File) -> io::Result<Option<(Step, i32)>> {
    let mut ready = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: one pollfd, ours.
        match unsafe { libc::poll(&raw mut ready, 1, START_MS) } {
            0 => return Err(io::ErrorKind::TimedOut.into()),
            1.. => break,
            _ if Errno::last() == Errno::EINTR => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
    let mut message = Vec::with_capacity(5);
    pipe.by_ref().take(5).read_to_end(&mut message)?;
    match *message.as_slice() {
        [] => Ok(None),
        [number, a, b, c, d] => match Step::from_number(number) {
            Some(failed) => Ok(Some((failed, i32::from_ne_bytes([a, b, c, d])))),
            None => Err(io::ErrorKind::InvalidData.into()),
        },
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Refuses sockets that leave the machine, or could: all but UNIX ones.
fn refuse_network(fd: BorrowedFd<'_>, name: &'static str) -> Result<(), SpawnError> {
    let mut family: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the buffer is an int and `len` its size.
    let rc = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DOMAIN, (&raw mut family).cast(), &raw mut len)
    };
    match (rc, Errno::last()) {
        (0, _) if family == libc::AF_UNIX => Ok(()),
        (0, _) => Err(SpawnError::NetworkDescriptor { fd: fd.as_raw_fd(), name, family }),
        (_, Errno::ENOTSOCK | Errno::EBADF) => Ok(()),
        (_, errno) => Err(step("tell what the standard descriptors are")(errno.into())),
    }
}

fn c_string(text: OsString, what: &'static str) -> Result<CString, SpawnError> {
    CString::new(text.into_vec()).map_err(|_| SpawnError::Nul(what))
}

fn variable(key: &OsStr, value: &OsStr) -> Result<CString, SpawnError> {
    let mut text = key.to_owned();
    text.push("=");
    text.push(value);
    c_string(text, "an environment variable")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    fn command(program: &str) -> AgentCommand {
        AgentCommand::new(program, [], AgentUser::named(&nix::unistd::geteuid().to_string()).expect("ourselves"))
    }

    #[test]
    fn names_are_looked_up_in_the_agents_path() {
        let texts = |command: &AgentCommand| -> Vec<String> {
            command.candidates().expect("no NUL").iter().map(|path| path.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(texts(&command("sh").env("PATH", "/a::/b")), ["/a/sh", "./sh", "/b/sh"]);
        assert_eq!(texts(&command("./x/sh").env("PATH", "/a")), ["./x/sh"]);
        assert_eq!(texts(&command("sh").env_remove("PATH")), ["/usr/local/bin/sh", "/usr/bin/sh", "/bin/sh"]);
        assert!(texts(&command("")).is_empty());
        assert!(matches!(command("a\0b").candidates(), Err(SpawnError::Nul(_))));
    }

    #[test]
    fn the_environment_follows_the_user_only_when_it_changes() {
        let mut user = AgentUser::named(&nix::unistd::geteuid().to_string()).expect("ourselves");
        user.home = "/somewhere".into();
        let home = |user: &AgentUser| {
            let command = AgentCommand::new("x", [], user.clone());
            command.env.into_iter().find(|(key, _)| key == "HOME").map(|(_, value)| value)
        };
        user.change = true;
        assert_eq!(home(&user), Some("/somewhere".into()));
        user.change = false;
        assert_eq!(home(&user), std::env::var_os("HOME"));
    }

    #[test]
    fn network_sockets_are_refused_as_standard_descriptors() {
        let refuse = |fd: OwnedFd| refuse_network(fd.as_fd(), "stdin");
        let inet = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
        assert!(matches!(refuse(inet.into()), Err(SpawnError::NetworkDescriptor { family: libc::AF_INET, .. })));
        let (unix, _other) = std::os::unix::net::UnixStream::pair().expect("pair");
        refuse(unix.into()).expect("a UNIX socket");
        refuse(std::fs::File::open("/dev/null").expect("open").into()).expect("a file");
    }

    #[test]
    fn reports_are_read_and_garbage_is_an_error() {
        let read = |bytes: &[u8]| {
            let (reader, writer) = pipe2(OFlag::O_CLOEXEC).expect("pipe");
            std::fs::File::from(writer).write_all(bytes).expect("write");
            await_start(reader.into())
        };
        assert_eq!(read(&[]).expect("started"), None);
        let [a, b, c, d] = libc::EACCES.to_ne_bytes();
        assert_eq!(read(&[Step::Exec as u8, a, b, c, d]).expect("report"), Some((Step::Exec, libc::EACCES)));
        assert!(read(&[Step::Exec as u8]).is_err());
        assert!(read(&[99, a, b, c, d]).is_err());
    }

    #[test]
    fn exit_codes_are_the_shells() {
        let explain = |failed, errno| command("/x").explain(failed, io::Error::from_raw_os_error(errno)).exit_code();
        assert_eq!(explain(Step::Exec, libc::ENOENT), 127);
        assert_eq!(explain(Step::Exec, libc::EACCES), 126);
        assert_eq!(explain(Step::Exec, libc::E2BIG), 126);
        assert_eq!(explain(Step::Folder, libc::EACCES), 125);
    }
}
