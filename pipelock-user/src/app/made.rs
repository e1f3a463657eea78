//! Folders that are made new, with a mode of their own whatever the umask, and held open for the files in them.
//!
//! Called by `trust`, `browsers` and the verbs `ca` and `doctor`, often as root in a folder of somebody else. It promises that what
//! was there before keeps its mode, that no link is followed to what is given one, and that what is made in a folder is made in the
//! one that was opened, whatever has come to stand under its path since.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};

use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// A folder, held open.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens one that is there; links in its path are followed.
    fn open(path: &Path) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    /// Opens one in it, which is no link.
    fn enter(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self(openat(self.0.as_fd(), name, flags, Mode::empty())?))
    }

    /// Makes one in it that was not there.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if something was, a link too; and when it cannot be made.
    pub(super) fn make(&self, name: &OsStr, mode: u32) -> io::Result<Self> {
        // Readable for us, so that it can be opened: whatever more it has to be, it is made.
        mkdirat(self.0.as_fd(), name, Mode::S_IRWXU)?;
        // Another may have put a link in its place meanwhile.
        let made = File::from(self.enter(name)?.0);
        made.set_permissions(Permissions::from_mode(mode))?;
        Ok(Self(made.into()))
    }

    /// Writes a file into it that all may read, in the place of a former one: whole or not at all, so that programs that read the
    /// former one go on reading that. No link is followed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = format!(".{name}.new");
        let here = self.0.as_fd();
        // The folder may be somebody else's, who may have put a link there.
        match unlinkat(here, new.as_str(), UnlinkatFlags::NoRemoveDir) {
            Err(error) if error != nix::Error::ENOENT => return Err(error.into()),
            _ => {}
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(here, new.as_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        Ok(renameat(here, new.as_str(), here, name)?)
    }
}

/// Makes a folder that was not there.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if something was, a link too; and when it cannot be made.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<Folder> {
    match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) => Folder::open(above)?.make(name, mode),
        _ => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// Opens a folder; makes it, unless it is there, and those above it that are missing.
///
/// # Errors
/// When one cannot be made or opened; [`io::ErrorKind::InvalidInput`] for a `..` behind one that would have to be made.
pub fn make_folders(path: &Path, mode: u32) -> io::Result<Folder> {
    let mut missing: Vec<OsString> = Vec::new();
    let mut there = path;
    while let (Err(error), Some(above), Some(name)) = (there.symlink_metadata(), there.parent(), there.file_name()) {
        if error.kind() != io::ErrorKind::NotFound {
            break;
        }
        missing.push(name.to_owned());
        there = above;
    }
    if there.components().next_back() == Some(Component::ParentDir) && !there.exists() {
        let why = format!("{} leads back out of a folder that is not there; leave the .. out", there.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut folder = Folder::open(there)?;
    for name in missing.iter().rev() {
        folder = match folder.make(name, mode) {
            // Made by another meanwhile, and so not ours to open.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => folder.enter(name)?,
            made => made?,
        };
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sched::{CloneFlags, unshare};
    use nix::sys::stat::{Mode, umask};

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("there").permissions().mode() & 0o777
    }

    /// With a umask that would close everything, which is that of one thread alone.
    fn closed<T: Send>(make: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || {
                unshare(CloneFlags::CLONE_FS).expect("a umask of its own");
                umask(Mode::from_bits_truncate(0o077));
                make()
            });
            thread.expect("a thread").join().expect("made")
        })
    }

    #[test]
    fn what_is_made_is_open_and_what_was_there_stays_as_it_is() {
        let above = tempfile::tempdir().expect("a folder");
        let path = |name: &str| above.path().join(name);
        closed(|| make_folders(&path("a/b/c"), 0o755)).expect("made");
        assert_eq!(["a", "a/b", "a/b/c"].map(|name| mode(&path(name))), [0o755; 3]);
        std::fs::create_dir(path("closed")).expect("made");
        std::fs::set_permissions(path("closed"), Permissions::from_mode(0o700)).expect("closed");
        symlink(path("closed"), path("link")).expect("a link");
        symlink(path("nowhere"), path("dangling")).expect("a link");
        for (name, is_there) in [("closed", true), ("link", true), ("link/in", true), ("dangling/in", false)] {
            assert_eq!(make_folders(&path(name), 0o755).is_ok(), is_there, "{name}");
            assert!(make_folder(&path(name), 0o755).is_err(), "{name} is there, or its folder is not");
        }
        assert_eq!([mode(&path("closed")), mode(&path("closed/in"))], [0o700, 0o755]);
        make_folders(&path("a/../beside"), 0o755).expect("made");
        assert_eq!(mode(&path("beside")), 0o755);
        for name in ["missing/../in", "missing/..", "missing/in/../../in"] {
            let error = make_folders(&path(name), 0o755).expect_err(name).to_string();
            assert!(error.contains("leave the .. out") && !path("missing").exists(), "{name}: {error}");
        }
        assert!(!path("nowhere").exists());
    }

    #[test]
    fn who_swaps_folders_for_links_opens_nothing() {
        let above = tempfile::tempdir().expect("a folder");
        let (victim, folder) = (above.path().join("victim"), above.path().join("folder"));
        std::fs::create_dir(&victim).expect("made");
        std::fs::set_permissions(&victim, Permissions::from_mode(0o700)).expect("closed");
        std::fs::create_dir(victim.join("in")).expect("made");
        std::fs::set_permissions(victim.join("in"), Permissions::from_mode(0o700)).expect("closed");
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let swapping = std::thread::Builder::new().spawn_scoped(scope, || {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = std::fs::remove_dir(folder.join("in"));
                    let _ = std::fs::remove_dir(&folder);
                    let _ = symlink(&victim, &folder);
                    let _ = std::fs::remove_file(&folder);
                }
            });
            for _ in 0..20_000 {
                let _ = make_folders(&folder.join("in"), 0o755);
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            swapping.expect("a thread").join().expect("ended");
        });
        assert_eq!([mode(&victim), mode(&victim.join("in"))], [0o700; 2]);
    }

    #[test]
    fn what_is_put_into_a_folder_is_in_the_one_that_was_opened() {
        let above = tempfile::tempdir().expect("a folder");
        let (victim, folder, moved) =
            (above.path().join("victim"), above.path().join("folder"), above.path().join("moved"));
        std::fs::create_dir(&victim).expect("made");
        let held = make_folders(&folder, 0o755).expect("made");
        std::fs::rename(&folder, &moved).expect("moved");
        symlink(&victim, &folder).expect("a link");
        held.put("file", b"x").expect("written");
        held.make("in".as_ref(), 0o755).expect("made").put("file", b"y").expect("written");
        assert_eq!(std::fs::read_dir(&victim).expect("a folder").count(), 0);
        let above = Folder::open(above.path()).expect("there");
        assert!(
            above.enter("folder".as_ref()).is_err() && above.enter("moved".as_ref()).is_ok(),
            "a link is not entered"
        );
        assert_eq!(std::fs::read(moved.join("file")).expect("read"), b"x");
        assert_eq!((mode(&moved.join("in")), mode(&moved.join("in/file"))), (0o755, 0o644));
    }
}
