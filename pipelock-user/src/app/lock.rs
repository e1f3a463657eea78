//! One server at a time for a cgroup: a locked file under /run/pipelock beside the state.
//!
//! Taken by the verbs before they look at an attachment, and held by `session` while it is served. It promises that the
//! lock ends with its holder, whatever ends that, and that files which a killed holder left are removed by the next who
//! takes any lock.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::state::FOLDER;

/// How long a lock that is taken is asked for again: whoever removes old files holds each for a moment.
const PATIENCE: Duration = Duration::from_millis(200);
const PAUSE: Duration = Duration::from_millis(5);
const ENDING: &str = "lock";

/// Why a lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another pipelock is at work on {0}; `pipelock status` shows whether it serves it")]
    Held(String),
    /// The folder of the locks.
    #[error("{FOLDER} cannot be made or written: {0}")]
    Folder(#[source] io::Error),
}

/// The lock of a cgroup's attachment; held until it is dropped, also by a death.
#[derive(Debug)]
pub struct Lock {
    file: fs::File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of an attachment.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(id: &str) -> Result<Self, LockError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(FOLDER).map_err(LockError::Folder)?;
        let path = Path::new(FOLDER).join(format!("{id}.{ENDING}"));
        let deadline = Instant::now() + PATIENCE;
        let lock = loop {
            let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
            let file = file.map_err(LockError::Folder)?;
            match file.try_lock().map_err(io::Error::from) {
                Ok(()) => {
                    let lock = Self { file, path: path.clone() };
                    if lock.is_there() {
                        break lock;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Err(LockError::Held(id.to_owned()));
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(LockError::Folder(error)),
            }
        };
        remove_left();
        Ok(lock)
    }

    /// Whether somebody holds the lock of an attachment now.
    #[must_use]
    pub fn is_held(id: &str) -> bool {
        let file = fs::File::open(Path::new(FOLDER).join(format!("{id}.{ENDING}")));
        // Shared: two that ask at once must not take each other for the holder.
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// False when the one before removed the file between our opening and our locking it.
    fn is_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|there| self.file.metadata().is_ok_and(|ours| ours.ino() == there.ino()))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the files of locks that nobody holds.
fn remove_left() {
    let entries = fs::read_dir(FOLDER).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == ENDING)) {
        if let Ok(file) = fs::OpenOptions::new().write(true).open(&path)
            && file.try_lock().is_ok()
        {
            drop(Lock { file, path });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn a_lock_is_held_once_and_leaves_nothing() {
        // /run is root's.
        let id = format!("cg-{}", u64::MAX - u64::from(std::process::id()));
        let held = Lock::take(&id).expect("free");
        assert!(matches!(Lock::take(&id), Err(LockError::Held(of)) if of == id));
        let path = held.path.clone();
        // What a killed holder leaves: the file, and no lock on it.
        let left = path.with_file_name(format!("cg-{}.lock", u64::MAX / 2 - u64::from(std::process::id())));
        fs::write(&left, "").expect("write");
        let other = Lock::take(&format!("{id}0")).expect("free");
        assert!(!left.exists(), "removed by who takes another");
        assert!(path.exists() && other.path.exists(), "what is held stays");
        drop((held, other));
        assert!(!path.exists());
        drop(Lock::take(&id).expect("free again"));
    }
}
