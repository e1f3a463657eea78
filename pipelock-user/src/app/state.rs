//! What `status`, `reload` and `detach` read: one file per attachment under /run/pipelock, written by whoever serves it.
//!
//! The file is a convenience; the truth is what is pinned in bpffs. It promises that a dead process is never taken for
//! the one that wrote the file, even when its number is in use again.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the files are.
const FOLDER: &str = "/run/pipelock";

/// One attachment, as its server describes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    /// Name of the attachment.
    pub id: String,
    /// `run` or `attach`.
    pub mode: String,
    /// Process id of the server.
    pub pid: i32,
    /// When that process started, in clock ticks since boot (proc(5), stat field 22).
    pub pid_start: u64,
    /// The cgroup's folder.
    pub cgroup: PathBuf,
    /// The evidence folder.
    pub evidence: PathBuf,
    /// The policy file.
    pub policy: String,
    /// Hash of the policy at the start.
    pub policy_hash: String,
    /// What the kernel gives.
    pub level: String,
    /// Public key of the signer, hex.
    pub public_key: String,
    /// How often the policy was asked to be read again.
    #[serde(default)]
    pub reloads: u64,
    /// Why the last time changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_error: Option<String>,
    /// Evidence can no longer be written, so nothing is let through.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evidence_lost: bool,
}

impl State {
    /// Writes the file.
    ///
    /// # Errors
    /// When /run/pipelock cannot be made or written.
    pub fn write(&self) -> io::Result<()> {
        use std::io::Write as _;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(FOLDER)?;
        let temporary = path(&format!(".{}.new", self.id));
        let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        fs::rename(temporary, path(&self.id))
    }

    /// Reads the file of an attachment; none when there is none or it cannot be read.
    #[must_use]
    pub fn read(id: &str) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(id)).ok()?).ok()
    }

    /// Removes the file, and the default pid file beside it.
    pub fn remove(id: &str) {
        let _ = fs::remove_file(path(id));
        let _ = fs::remove_file(pid_file(id));
    }

    /// True while the process that wrote the file lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.pid_start) && has_living_thread(self.pid)
    }
}

/// Where a server in the background writes its process id, if not told otherwise.
#[must_use]
pub fn pid_file(id: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{id}.pid"))
}

fn path(id: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{id}.json"))
}

/// The lock of a cgroup's attachment; held until it is dropped, also by a death.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes the lock.
///
/// # Errors
/// `WouldBlock` when another process holds it; others when /run/pipelock cannot be made or written.
pub fn lock(cgroup_id: u64) -> io::Result<Lock> {
    use std::os::unix::fs::MetadataExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(FOLDER)?;
    let path = Path::new(FOLDER).join(format!("{}.lock", crate::kernel::attachment_id(cgroup_id)));
    loop {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path)?;
        file.try_lock().map_err(io::Error::from)?;
        // The one before may have removed the file between our opening and our locking it.
        if fs::metadata(&path).is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino())) {
            return Ok(Lock { _file: file, path });
        }
    }
}

/// When a process started, in clock ticks since boot; none when there is none.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|(_, start)| start)
}

/// Whether any thread of a process is alive: the first one may end before the others, which then go on serving behind
/// what looks like a zombie, and nothing but a zombie may be left of all.
fn has_living_thread(pid: i32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok();
        stat.and_then(|stat| parse_stat(&stat)).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
    })
}

/// State and start of a process or thread, from its stat file (proc_pid_stat(5), fields 3 and 22).
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    // The name stands in parentheses and may hold anything, also ") R 1".
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// The names of all attachments: those pinned, and those with a file.
#[must_use]
pub fn all() -> Vec<String> {
    let mut ids: Vec<String> = fs::read_dir(crate::kernel::pin_root())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    ids.extend(
        fs::read_dir(FOLDER)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.file_name().into_string().ok()?.strip_suffix(".json")?.to_owned())),
    );
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_leaves_nothing() {
        if !nix::unistd::geteuid().is_root() {
            return; // /run is root's
        }
        let id = u64::MAX - u64::from(std::process::id());
        let held = lock(id).expect("free");
        assert_eq!(lock(id).map(|_| ()).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        let path = held.path.clone();
        drop(held);
        assert!(!path.exists());
        drop(lock(id).expect("free again"));
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let stat = "12 (a) b) S 1 12 12 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 4096 1";
        assert_eq!(parse_stat(stat), Some(('S', 98765)));
        assert_eq!(parse_stat("garbage"), None);
        assert!(start_time(i32::try_from(std::process::id()).expect("a pid")).is_some());
    }

    fn state_of(pid: i32) -> State {
        State {
            id: String::new(),
            mode: String::new(),
            pid,
            pid_start: start_time(pid).expect("there"),
            cgroup: PathBuf::new(),
            evidence: PathBuf::new(),
            policy: String::new(),
            policy_hash: String::new(),
            level: String::new(),
            public_key: String::new(),
            reloads: 0,
            reload_error: None,
            evidence_lost: false,
        }
    }

    /// The second thread of the child below: sleeps until it is killed.
    extern "C" fn sleep_on(_: *mut libc::c_void) -> libc::c_int {
        loop {
            // SAFETY: takes nothing.
            unsafe { libc::pause() };
        }
    }

    #[test]
    fn a_server_whose_first_thread_has_ended_is_alive() {
        const STACK: usize = 64 * 1024;
        let mut stack = vec![0_u8; STACK];
        let top = stack.as_mut_ptr_range().end.cast::<libc::c_void>();
        let thread = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        // SAFETY: the child makes system calls only, on memory of its own.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: the stack is the thread's alone; it and the first thread do nothing but sleep and end.
            unsafe {
                libc::clone(sleep_on, top, thread, std::ptr::null_mut());
                libc::syscall(libc::SYS_exit, 0);
            }
        }
        assert!(pid > 0, "fork: {}", io::Error::last_os_error());
        let state = state_of(pid);
        let leader = || fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| parse_stat(&stat));
        while leader().is_some_and(|(state, _)| state != 'Z') {
            std::thread::yield_now();
        }
        assert!(state.is_alive(), "a thread of it lives");
        // SAFETY: a process of our own; WNOWAIT leaves it a zombie.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            let mut info = std::mem::zeroed();
            assert_eq!(libc::waitid(libc::P_PID, pid as u32, &raw mut info, libc::WEXITED | libc::WNOWAIT), 0);
        }
        assert!(leader().is_some() && !state.is_alive(), "only a zombie is left");
        // SAFETY: as above.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
        assert!(!state.is_alive());
    }
}
