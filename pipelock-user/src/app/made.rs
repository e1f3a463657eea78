//! Folders that are made new, with a mode of their own whatever the umask.
//!
//! Called by `trust`, `browsers` and the verbs `ca` and `doctor`, often as root in a folder of somebody else. It promises that what
//! was there before keeps its mode, and that no link is followed to what is given one.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;

/// Makes a folder that was not there.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if something was, a link too; and when it cannot be made.
pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::create_dir(path)?;
    // Another may have put a link in its place meanwhile.
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let folder = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    folder.set_permissions(Permissions::from_mode(mode))
}

/// Makes a folder, unless it is there, and those above it that are missing.
///
/// # Errors
/// When one cannot be made.
pub fn make_folders(path: &Path, mode: u32) -> io::Result<()> {
    let is_missing = |path: &&Path| {
        let found = path.symlink_metadata();
        !path.as_os_str().is_empty() && found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    for folder in missing.into_iter().rev() {
        match make_folder(folder, mode) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            // Made by another meanwhile, and so not ours to open.
            _ => {}
        }
    }
    Ok(())
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
        assert!(!path("nowhere").exists());
    }

    #[test]
    fn who_swaps_folders_for_links_opens_nothing() {
        let above = tempfile::tempdir().expect("a folder");
        let (victim, folder) = (above.path().join("victim"), above.path().join("folder"));
        std::fs::create_dir(&victim).expect("made");
        std::fs::set_permissions(&victim, Permissions::from_mode(0o700)).expect("closed");
        let is_over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let swapping = std::thread::Builder::new().spawn_scoped(scope, || {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = std::fs::remove_dir(&folder);
                    let _ = symlink(&victim, &folder);
                    let _ = std::fs::remove_file(&folder);
                }
            });
            for _ in 0..20_000 {
                let _ = make_folders(&folder, 0o755);
            }
            is_over.store(true, std::sync::atomic::Ordering::Relaxed);
            swapping.expect("a thread").join().expect("ended");
        });
        assert_eq!(mode(&victim), 0o700);
    }
}
