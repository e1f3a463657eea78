//! `pipelock attach` to a cgroup of the test's own, with processes in it that nothing confines but the kernel programs.
//!
//! Used where the agent must have privileges that `run` takes away, or must be there before pipelock is.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clients::PATH;
use crate::evidence::pipelock;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A cgroup; its processes are killed and it is removed when it is dropped.
pub struct OwnCgroup {
    /// Its folder.
    pub path: PathBuf,
}

impl OwnCgroup {
    /// Makes one below our own.
    ///
    /// # Panics
    /// Without cgroup2 or without root.
    #[must_use]
    pub fn new() -> Self {
        let name = format!("pl-e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = own_cgroup().join(name);
        fs::create_dir(&path).expect("make a cgroup");
        Self { path }
    }

    /// A command that will run in it, as root with every capability.
    ///
    /// # Panics
    /// When the cgroup cannot be opened.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
        let procs = self.path.join("cgroup.procs");
        let text = std::ffi::CString::new(procs.into_os_string().into_encoded_bytes()).expect("no NUL");
        // SAFETY: open, write and close are async-signal-safe, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                let fd = libc::open(text.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                let written = libc::write(fd, c"0".as_ptr().cast(), 1);
                libc::close(fd);
                if written == 1 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
            });
        }
        command
    }
}

impl Default for OwnCgroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        remove_cgroup(&self.path);
    }
}

/// Kills what is in a cgroup and removes it.
pub fn remove_cgroup(path: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while path.exists() && Instant::now() < deadline {
        let _ = fs::write(path.join("cgroup.kill"), "1");
        if fs::remove_dir(path).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Where cgroup2 is mounted, and our own place in it.
fn own_cgroup() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup2 is mounted");
    let point = mount.split(' ').nth(4).expect("a mount point");
    let own = fs::read_to_string("/proc/self/cgroup").expect("our cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("a place in cgroup2");
    Path::new(point).join(own)
}

/// A running `pipelock attach`.
pub struct Attached {
    /// The process.
    pub child: Child,
}

impl Attached {
    /// Attaches and waits until it is in force.
    ///
    /// # Panics
    /// When it is not within ten seconds; says what pipelock said.
    #[must_use]
    pub fn start(cgroup: &Path, policy: &Path, evidence: &Path) -> Self {
        let mut child = Command::new(pipelock())
            .args(["attach", "--cgroup"])
            .arg(cgroup)
            .arg("--policy")
            .arg(policy)
            .arg("--evidence")
            .arg(evidence)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pipelock attach");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (said, hear) = mpsc::channel();
        std::thread::spawn(move || {
            // Read on to the end, or pipelock would block on a full pipe.
            for line in stderr.lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let mut all = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = hear.recv_timeout(left) else {
                let _ = child.kill();
                let _ = child.wait();
                panic!("pipelock attach is not ready: {all:#?}");
            };
            all.push(line.clone());
            if line.contains("attached") || line.contains("taken over") {
                break;
            }
        }
        Self { child }
    }

    /// Ends it in good order; the evidence is complete after this.
    ///
    /// # Panics
    /// When it ends with another code than 0.
    pub fn end(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("kill");
        assert_eq!(self.child.wait().expect("wait").code(), Some(0));
    }

    /// Kills it as nobody can prevent.
    ///
    /// # Panics
    /// When it is gone already.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}
