//! The evidence folder as it is held open: every file in it is made, read and renamed by the open folder and never by the
//! path, which leads through folders that others may own.
//!
//! The recorder makes it before the agent starts and holds it until the last file is written. In between the agent may own
//! the folder above and put something of its own under the name: that is never written to, and [`Folder::elsewhere`] says
//! where the evidence is then. It promises that no file outside the folder is made or changed, whatever lies in the folder:
//! no link is followed, and no file that was there before is opened for writing, but for a log that goes on.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::{EVIDENCE, FolderError};

/// Write permission for group and others.
const OPEN_TO_OTHERS: u32 = 0o022;

/// How much room evidence takes, and has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the chain.
    pub taken: u64,
    /// Bytes that the disk has left for who is not root.
    pub left: u64,
}

/// An evidence folder, held open.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    dir: File,
    is_new: bool,
    /// The chain, once it was begun.
    evidence: Option<File>,
}

impl Folder {
    /// Makes the folder (mode 0700), and those above it, or takes one that is there if nobody else can write to it.
    ///
    /// # Errors
    /// [`FolderError::Io`]; [`FolderError::Foreign`] when it is a link, or somebody else owns it or may write to it.
    pub fn make(path: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Io { path: path.to_owned(), source };
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(failed)?;
        }
        let is_new = match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(failed(error)),
        };
        // What was just made may be something else by now, if somebody else may write to the folder above.
        Self::hold(path, is_new)
    }

    /// Holds a folder that is there, as [`Self::make`] does.
    ///
    /// # Errors
    /// As for [`Self::make`].
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Self::hold(path, false)
    }

    fn hold(path: &Path, is_new: bool) -> Result<Self, FolderError> {
        let foreign = |why: &str| FolderError::Foreign { path: path.to_owned(), why: why.to_owned() };
        let failed = |source| FolderError::Io { path: path.to_owned(), source };
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let dir = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(|source| {
            if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
                foreign("it is a symbolic link, which may lead anywhere by the time it is used")
            } else {
                failed(source)
            }
        })?;
        let found = dir.metadata().map_err(failed)?;
        if found.uid() != 0 && found.uid() != geteuid().as_raw() {
            return Err(foreign(&format!(
                "it belongs to user {}, who could change what is written there",
                found.uid()
            )));
        }
        if found.mode() & OPEN_TO_OTHERS != 0 {
            return Err(foreign("others may write to it (chmod go-w closes it)"));
        }
        Ok(Self { path: path.to_owned(), dir, is_new, evidence: None })
    }

    /// The path it was made by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the folder is now, when its path does not lead to it any more: moved, or something else was put in its place.
    /// The folder that is held stays what it was.
    #[must_use]
    pub fn elsewhere(&self) -> Option<PathBuf> {
        let (Ok(held), found) = (self.dir.metadata(), fs::symlink_metadata(&self.path)) else {
            return Some(self.whereabouts());
        };
        let is_same = found.is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino()));
        (!is_same).then(|| self.whereabouts())
    }

    /// How much the chain takes, and how much the disk has left for it, in bytes.
    ///
    /// # Errors
    /// What the system said.
    pub fn room(&self) -> io::Result<Room> {
        let taken = self.evidence.as_ref().map_or(Ok(0), |file| file.metadata().map(|found| found.len()))?;
        let disk = nix::sys::statvfs::fstatvfs(&self.dir)?;
        Ok(Room { taken, left: disk.blocks_available().saturating_mul(disk.fragment_size()) })
    }

    /// What the kernel calls the open folder; as it was called, and `(deleted)`, when nothing leads there any more.
    fn whereabouts(&self) -> PathBuf {
        fs::read_link(format!("/proc/self/fd/{}", self.dir.as_raw_fd())).unwrap_or_else(|_| self.path.clone())
    }

    /// Makes the empty evidence file (mode 0600) and keeps it open for reading.
    ///
    /// # Errors
    /// [`FolderError::Io`], also when it exists: evidence is never overwritten or continued.
    pub fn begin(&mut self) -> Result<File, FolderError> {
        let file = self.open_at(EVIDENCE, OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL)?;
        self.evidence = Some(file.try_clone().map_err(self.failed(EVIDENCE))?);
        Ok(file)
    }

    /// The evidence from its first byte: the file that was begun, whatever has its name by now.
    pub(super) fn evidence(&self) -> Result<FromStart, FolderError> {
        let file = match &self.evidence {
            Some(file) => file.try_clone().map_err(self.failed(EVIDENCE))?,
            None => self.open_at(EVIDENCE, OFlag::O_RDONLY)?,
        };
        Ok(FromStart { file, at: 0 })
    }

    /// Makes a file (mode 0600).
    ///
    /// # Errors
    /// [`FolderError::Io`], also when it exists.
    pub fn create(&self, name: &str) -> Result<File, FolderError> {
        self.open_at(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    /// A file of mode 0600 to write on at the end of, made if it is not there.
    ///
    /// # Errors
    /// [`FolderError::Io`], also when it is a link.
    pub fn append(&self, name: &str) -> Result<File, FolderError> {
        self.open_at(name, OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT)
    }

    /// Whether there is a file of this name: no link, folder or pipe. It is not opened, which could wait without end.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        let found = fstatat(&self.dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| SFlag::S_IFMT.bits() & found.st_mode == SFlag::S_IFREG.bits())
    }

    /// Removes a file; none is as good.
    pub(super) fn remove(&self, name: &str) {
        let _ = unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir);
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), FolderError> {
        renameat(&self.dir, from, &self.dir, to).map_err(|error| self.failed(to)(error.into()))
    }

    /// Brings names onto the disk.
    pub(super) fn sync(&self) -> Result<(), FolderError> {
        self.dir.sync_all().map_err(self.failed(""))
    }

    /// Removes these files, and the folder if it was made and nothing else is in it: for a chain that was never opened.
    pub fn discard(&self, names: &[&str]) {
        for name in names {
            self.remove(name);
        }
        if self.is_new && self.elsewhere().is_none() {
            let _ = fs::remove_dir(&self.path);
        }
    }

    pub(super) fn failed(&self, name: &str) -> impl FnOnce(io::Error) -> FolderError + use<> {
        let path = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        move |source| FolderError::Io { path, source }
    }

    fn open_at(&self, name: &str, flags: OFlag) -> Result<File, FolderError> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        openat(&self.dir, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, mode)
            .map(File::from)
            .map_err(|error| self.failed(name)(error.into()))
    }
}

/// Reads a file from its start, with a place of its own: whoever writes it has another.
pub(super) struct FromStart {
    file: File,
    at: u64,
}

impl io::Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}
