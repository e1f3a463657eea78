//! The agent's cgroup: found, made, watched, emptied, removed.
//!
//! The app room makes one with [`Cgroup::create_child`] (for `run`) or opens one with [`Cgroup::open`] (for `attach`),
//! attaches the kernel programs to [`Cgroup::fd`] and starts the agent in it. What it promises: a `Cgroup` is a domain
//! cgroup of the version 2 tree, its id is the number the kernel programs see, and files in it are reached through one
//! open folder, so that a renamed path cannot lead elsewhere.

mod error;
pub(super) mod find;
mod freeze;
mod handle;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use error::CgroupError;
pub use freeze::Frozen;

/// How deep below a cgroup we follow (the kernel's own default for `cgroup.max.depth` is unlimited).
const MAX_DEPTH: usize = 64;
/// Pause between two looks at a cgroup that is emptying.
const POLL: Duration = Duration::from_millis(10);

/// A domain cgroup of the version 2 tree, held open.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    dir: File,
    id: u64,
}

/// Locks a new cgroup's folder. Whoever asks [`Cgroup::is_held`] has it for a moment, so it is tried for a while.
fn hold(dir: &File) -> Result<(), fs::TryLockError> {
    const TRIES: u32 = 40;
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
    for _ in 1..TRIES {
        if dir.try_lock().is_ok() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    dir.try_lock()
}

impl Cgroup {
    /// Makes the cgroup `name` below our own one, so that every limit that holds for us holds for it. It is held (see
    /// [`Cgroup::is_held`]) until this is dropped.
    ///
    /// # Errors
    /// [`CgroupError`]; an existing folder of that name is an error too (`what` = "create").
    pub fn create_child(name: &str) -> Result<Self, CgroupError> {
        check_name(name)?;
        let path = own_folder()?.join(name);
        fs::create_dir(&path).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                CgroupError::NotPermitted { path: path.parent().unwrap_or(&path).to_owned(), source }
            }
            _ => CgroupError::Io { what: "create", path: path.clone(), source },
        })?;
        let made = Self::open(&path).and_then(|made| match hold(&made.dir) {
            Ok(()) => Ok(made),
            Err(error) => Err(made.io("hold", error.into())),
        });
        made.inspect_err(|_| {
            // Nothing was put into it: leave no trace of a failed start.
            let _ = fs::remove_dir(&path);
        })
    }

    /// True while the process that made it with [`Cgroup::create_child`] lives and has not dropped it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        // A descriptor of its own: the lock of the one that holds it is not taken for granted.
        let Ok(dir) = File::open(&self.path) else { return false };
        // Shared: two that ask at once must not take each other for the holder.
        matches!(dir.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
    }

    /// The cgroups whose names begin with `prefix`, wherever below a mount of cgroup2 they are.
    ///
    /// # Errors
    /// [`CgroupError`] when the tree cannot be read.
    pub fn named(prefix: &str) -> Result<Vec<Self>, CgroupError> {
        let mut found: Vec<Self> = Vec::new();
        for point in mount_points()? {
            each_below(&point, |folder| {
                let name = folder.file_name().unwrap_or_default().to_string_lossy();
                // One that vanishes meanwhile is none.
                if name.starts_with(prefix)
                    && let Ok(cgroup) = Self::open(folder)
                    && found.iter().all(|other| other.id != cgroup.id)
                {
                    found.push(cgroup);
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// Whether a cgroup with this id lives, also where no path leads to it from here (another cgroup namespace, another
    /// mount), which takes `CAP_DAC_READ_SEARCH`. One that was removed does not, though a socket made in it keeps it in the kernel.
    ///
    /// # Errors
    /// [`CgroupError`] when nobody can say.
    pub fn lives(id: u64) -> Result<bool, CgroupError> {
        Ok(Self::folder_of(id)?.is_some() || Self::lives_unseen(id)?)
    }

    /// The folder of the cgroup with this id, if one is to be seen here.
    ///
    /// # Errors
    /// [`CgroupError`] when the tree cannot be read.
    pub fn folder_of(id: u64) -> Result<Option<PathBuf>, CgroupError> {
        for point in mount_points()? {
            if Self::is_at(&point, id) {
                return Ok(Some(point));
            }
            if let Some(folder) = find_below(&point, |folder| Ok(Self::is_at(folder, id)))? {
                return Ok(Some(folder));
            }
        }
        Ok(None)
    }

    /// Whether this folder, below a mount of cgroup2, is the one of the cgroup with this id.
    #[must_use]
    pub fn is_at(folder: &Path, id: u64) -> bool {
        fs::symlink_metadata(folder).is_ok_and(|meta| meta.ino() == id)
    }

    /// As [`Self::lives`], of one that no path leads to.
    ///
    /// # Errors
    /// [`CgroupError`] when nobody can say.
    pub fn lives_unseen(id: u64) -> Result<bool, CgroupError> {
        let point = mount_points()?.into_iter().next().ok_or(CgroupError::NotMounted)?;
        handle::lives(&point, id).map_err(|source| CgroupError::Io {
            what: "look for a cgroup below",
            path: point,
            source,
        })
    }

    /// Opens an existing cgroup.
    ///
    /// # Errors
    /// [`CgroupError`] when it is not a folder of cgroup2, is the root, or is threaded.
    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let io = |what| move |source| CgroupError::Io { what, path: path.to_owned(), source };
        let path = fs::canonicalize(path).map_err(io("open"))?;
        let dir = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotADirectory => CgroupError::NotCgroup2(path.clone()),
                _ => CgroupError::Io { what: "open", path: path.clone(), source },
            })?;
        let stat = nix::sys::statfs::fstatfs(&dir).map_err(|errno| CgroupError::Io {
            what: "statfs",
            path: path.clone(),
            source: errno.into(),
        })?;
        if stat.filesystem_type() != nix::sys::statfs::CGROUP2_SUPER_MAGIC {
            return Err(CgroupError::NotCgroup2(path));
        }
        let id = dir.metadata().map_err(|source| CgroupError::Io { what: "stat", path: path.clone(), source })?.ino();
        let group = Self { path, dir, id };
        match group.read("cgroup.type") {
            Ok(kind) if matches!(kind.trim(), "domain" | "domain threaded") => Ok(group),
            Ok(kind) => Err(CgroupError::Threaded { path: group.path, kind: kind.trim().to_owned() }),
            // Only the root has no cgroup.type.
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(CgroupError::IsRoot(group.path)),
            Err(source) => Err(group.io("read cgroup.type of", source)),
        }
    }

    /// Opens the cgroup with this id, wherever below a mount of cgroup2 it is; none when it is gone or not visible here.
    ///
    /// # Errors
    /// [`CgroupError`] when the tree cannot be read, or when the cgroup cannot be used.
    pub fn by_id(id: u64) -> Result<Option<Self>, CgroupError> {
        Self::folder_of(id)?.map(|folder| Self::open(&folder)).transpose()
    }

    /// The folder, canonical.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id that the kernel programs see (the inode of the folder).
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The open folder, to attach programs to.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The cgroups above it, with their ids, from its parent to the mount; those that are not to be seen are left out.
    #[must_use]
    pub fn ids_above(&self) -> Vec<(PathBuf, u64)> {
        let is_ours = |meta: &fs::Metadata| same_device(meta, &self.dir);
        let above = self.path.ancestors().skip(1);
        let known =
            above.map_while(|folder| fs::metadata(folder).ok().filter(is_ours).map(|meta| (folder, meta.ino())));
        known.map(|(folder, id)| (folder.to_owned(), id)).collect()
    }

    /// The ids of this cgroup and of every one below it. Those that vanish meanwhile are left out.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when this cgroup itself cannot be read.
    pub fn ids(&self) -> Result<BTreeSet<u64>, CgroupError> {
        let mut ids = BTreeSet::from([self.id]);
        each_below(&self.path, |folder| {
            if let Ok(meta) = fs::symlink_metadata(folder) {
                ids.insert(meta.ino());
            }
            Ok(())
        })?;
        Ok(ids)
    }

    /// The process ids in this cgroup and below it, without order or repetition.
    ///
    /// # Errors
    /// [`CgroupError::ForeignPid`] when one is not visible in our pid namespace (the kernel writes 0 for it).
    pub fn procs(&self) -> Result<Vec<i32>, CgroupError> {
        let mut pids = BTreeSet::new();
        let mut add = |folder: &Path, text: io::Result<String>| match text {
            Ok(text) => {
                for pid in text.lines().filter_map(|line| line.trim().parse::<i32>().ok()) {
                    if pid == 0 {
                        return Err(CgroupError::ForeignPid(folder.to_owned()));
                    }
                    pids.insert(pid);
                }
                Ok(())
            }
            // A threaded child (its processes stand in the domain above it) or one that was just removed.
            Err(source) if matches!(source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENODEV | libc::ENOENT)) => {
                Ok(())
            }
            Err(source) => Err(CgroupError::Io { what: "read cgroup.procs of", path: folder.to_owned(), source }),
        };
        add(&self.path, self.read("cgroup.procs"))?;
        each_below(&self.path, |folder| add(folder, fs::read_to_string(folder.join("cgroup.procs"))))?;
        Ok(pids.into_iter().collect())
    }

    /// True while a process lives here or below.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when `cgroup.events` cannot be read; a removed cgroup is not populated.
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        self.event("populated")
    }

    /// True when every process here and below is frozen.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when `cgroup.events` cannot be read.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        self.event("frozen")
    }

    fn event(&self, key: &str) -> Result<bool, CgroupError> {
        match self.read("cgroup.events") {
            Ok(text) => Ok(find::flat_key(&text, key) == Some(1)),
            Err(source) if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(false),
            Err(source) => Err(self.io("read cgroup.events of", source)),
        }
    }

    /// Kills every process here and below with SIGKILL, forks in progress included; frozen ones die too.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when `cgroup.kill` cannot be used, as that of a threaded cgroup.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        match self.write("cgroup.kill", "1") {
            Ok(()) => Ok(()),
            // Removed already.
            Err(source) if matches!(source.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(()),
            Err(source) => Err(self.io("kill the processes of", source)),
        }
    }

    /// Waits until no process lives here or below. Blocks the calling thread.
    ///
    /// # Errors
    /// [`CgroupError::NotEmpty`] after `timeout`.
    pub fn wait_empty(&self, timeout: Duration) -> Result<(), CgroupError> {
        let start = Instant::now();
        while self.is_populated()? {
            if start.elapsed() >= timeout {
                return Err(CgroupError::NotEmpty { path: self.path.clone(), waited: timeout });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Kills everything in it, and waits until nothing is left.
    ///
    /// # Errors
    /// As [`Self::kill_all`] and [`Self::wait_empty`]: then something may live.
    pub fn end(&self, timeout: Duration) -> Result<(), CgroupError> {
        self.kill_all()?;
        self.wait_empty(timeout)
    }

    /// Removes this cgroup and the ones below it; the kernel may call them busy for a moment after the last process
    /// ended, so this tries for a second. Removing what is already gone is no error.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when it stays busy or is not ours.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let start = Instant::now();
        loop {
            let mut folders = vec![self.path.clone()];
            each_below(&self.path, |folder| {
                folders.push(folder.to_owned());
                Ok(())
            })?;
            // Parents come before their children in the list.
            let failed = folders.iter().rev().find_map(|folder| match fs::remove_dir(folder) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => Some((folder.clone(), source)),
                _ => None,
            });
            match failed {
                None => return Ok(()),
                Some((_, source))
                    if source.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < Duration::from_secs(1) =>
                {
                    std::thread::sleep(POLL);
                }
                Some((path, source)) => return Err(CgroupError::Io { what: "remove", path, source }),
            }
        }
    }

    /// True when the calling process lives here or below: then the programs attached here would catch our own sockets.
    ///
    /// # Errors
    /// [`CgroupError`] when our own cgroup cannot be found, which is no answer.
    pub fn contains_self(&self) -> Result<bool, CgroupError> {
        let own = own_folder()?;
        let own = fs::canonicalize(&own).unwrap_or(own);
        // Compared by id and not by text: the same cgroup may be visible under two mounts.
        for folder in own.ancestors() {
            if fs::metadata(folder).is_ok_and(|meta| meta.ino() == self.id && same_device(&meta, &self.dir)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Its file that moves a process here, when the process itself writes "0" into it.
    pub(super) fn entrance(&self) -> io::Result<File> {
        self.at("cgroup.procs", libc::O_WRONLY)
    }

    fn at(&self, name: &str, flags: libc::c_int) -> io::Result<File> {
        let flags = nix::fcntl::OFlag::from_bits_truncate(flags | libc::O_CLOEXEC | libc::O_NOFOLLOW);
        Ok(nix::fcntl::openat(&self.dir, name, flags, nix::sys::stat::Mode::empty())?.into())
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        self.at(name, libc::O_RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn write(&self, name: &str, value: &str) -> io::Result<()> {
        self.at(name, libc::O_WRONLY)?.write_all(value.as_bytes())
    }

    fn io(&self, what: &'static str, source: io::Error) -> CgroupError {
        CgroupError::Io { what, path: self.path.clone(), source }
    }
}

/// Calls `visit` for every cgroup folder below `top`, parents first.
fn each_below(top: &Path, mut visit: impl FnMut(&Path) -> Result<(), CgroupError>) -> Result<(), CgroupError> {
    find_below(top, |folder| visit(folder).map(|()| false)).map(drop)
}

/// The first cgroup folder below `top`, parents first, that is the one looked for.
fn find_below(
    top: &Path,
    mut is_it: impl FnMut(&Path) -> Result<bool, CgroupError>,
) -> Result<Option<PathBuf>, CgroupError> {
    let mut todo = vec![(top.to_owned(), 0)];
    while let Some((folder, depth)) = todo.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(CgroupError::Io { what: "list", path: folder, source }),
        };
        if depth == MAX_DEPTH {
            let source = io::Error::other(format!("cgroups are nested deeper than {MAX_DEPTH}"));
            return Err(CgroupError::Io { what: "list", path: folder, source });
        }
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let path = entry.path();
            if is_it(&path)? {
                return Ok(Some(path));
            }
            todo.push((path, depth + 1));
        }
    }
    Ok(None)
}

/// Where cgroup2 is mounted, every mount.
///
/// # Errors
/// [`CgroupError::NotMounted`] when it is not, or `/proc` cannot be read.
pub fn mount_points() -> Result<Vec<PathBuf>, CgroupError> {
    Ok(mounts()?.into_iter().map(|mount| mount.point).collect())
}

fn mounts() -> Result<Vec<find::Mount>, CgroupError> {
    let mounts = find::mounts_of(&read_proc("/proc/self/mountinfo")?, b"cgroup2");
    if mounts.is_empty() { Err(CgroupError::NotMounted) } else { Ok(mounts) }
}

/// The folder of the cgroup we are in.
fn own_folder() -> Result<PathBuf, CgroupError> {
    let text = read_proc("/proc/self/cgroup")?;
    let own = find::own_path(&text).ok_or(CgroupError::NotMounted)?;
    find::locate(&mounts()?, &own).ok_or_else(|| CgroupError::OwnNotVisible(own.display().to_string()))
}

fn read_proc(path: &str) -> Result<Vec<u8>, CgroupError> {
    fs::read(path).map_err(|source| CgroupError::Io { what: "read", path: path.into(), source })
}

fn same_device(meta: &fs::Metadata, dir: &File) -> bool {
    dir.metadata().is_ok_and(|own| own.dev() == meta.dev())
}

fn check_name(name: &str) -> Result<(), CgroupError> {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b));
    if plain && (1..=255).contains(&name.len()) && !name.starts_with('.') && !name.starts_with("cgroup.") {
        Ok(())
    } else {
        Err(CgroupError::BadName(name.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_control_files_are_refused() {
        for name in ["", ".", "..", "a/b", "cgroup.procs", "a b", "ü", "a\0"] {
            assert!(matches!(check_name(name), Err(CgroupError::BadName(_))), "{name:?}");
        }
        check_name("pipelock-12:a@b.scope").expect("plain");
        assert!(check_name(&"x".repeat(256)).is_err());
    }

    #[test]
    fn who_has_found_a_folder_looks_no_further() {
        let top = tempfile::tempdir().expect("tempdir");
        for name in ["a", "b", "a/c"] {
            fs::create_dir(top.path().join(name)).expect("mkdir");
        }
        let mut seen = 0;
        let found = find_below(top.path(), |_| {
            seen += 1;
            Ok(seen == 2)
        });
        assert!(found.expect("a tree").is_some_and(|found| found.starts_with(top.path())));
        assert_eq!(seen, 2);
        let mut all = 0;
        each_below(top.path(), |_| {
            all += 1;
            Ok(())
        })
        .expect("a tree");
        assert_eq!(all, 3);
    }

    #[test]
    fn an_ordinary_folder_is_not_a_cgroup() {
        let folder = tempfile::tempdir().expect("tempdir");
        assert!(matches!(Cgroup::open(folder.path()), Err(CgroupError::NotCgroup2(_))));
        assert!(matches!(Cgroup::open(&folder.path().join("none")), Err(CgroupError::Io { .. })));
    }
}
