//! Reading and writing the files that an option names: tokens and secrets; public keys, reports, process ids.
//!
//! pipelock often runs as root in a folder of somebody else, such as the user whose agent ran in it just before. So it
//! follows no link there that somebody else made, and what is to be new replaces nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::{OFlag, readlinkat};
use nix::unistd::geteuid;

use super::Failure;

/// Writes a file that must not be there yet.
pub(super) fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|error| failure(path, &error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        // Just made, and not what it should be.
        let _ = std::fs::remove_file(path);
        failure(path, &error)
    })
}

/// Writes a file anew. A link is followed if it is our own or root's, as /dev/stdout is, and only this one.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let open = |path: &Path, flags: OFlag| {
        OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags.bits()).open(path)
    };
    let file = match open(path, OFlag::O_NOFOLLOW) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let target = own_link(path).map_err(|error| failure(path, &error))?;
            open(&target, OFlag::empty())
        }
        other => other,
    };
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| failure(path, &error))
}

/// Where a link of our own or of root's leads. The link itself is opened, so that it is one link that is asked and read.
fn own_link(path: &Path) -> io::Result<std::path::PathBuf> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let link: File = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let owner = link.metadata()?.uid();
    if owner != 0 && owner != geteuid().as_raw() {
        return Err(io::Error::other(format!("it is a symbolic link that user {owner} made; name the file itself")));
    }
    let target = readlinkat(&link, "")?;
    Ok(path.parent().unwrap_or(Path::new("")).join(target))
}

/// Reads a file of at most so many bytes.
pub(super) fn read(file: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| Failure::usage(format!("{}: {error}", file.display()));
    let mut text = Vec::new();
    std::fs::File::open(file).map_err(failed)?.take(most + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > most {
        return Err(Failure::usage(format!("{}: more than {most} bytes", file.display())));
    }
    Ok(text)
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    format!("{}: {error}", path.display()).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    #[test]
    fn a_new_file_replaces_nothing_and_follows_no_link() {
        let dir = tempfile::tempdir().expect("a folder");
        let (victim, link, new) = (dir.path().join("victim"), dir.path().join("link"), dir.path().join("new"));
        std::fs::write(&victim, "as it was").expect("write");
        symlink(&victim, &link).expect("a link");
        symlink(dir.path().join("absent"), dir.path().join("dangling")).expect("a link");
        for path in [&victim, &link, &dir.path().join("dangling")] {
            assert!(create(path, "x").is_err(), "{}", path.display());
        }
        create(&new, "text").expect("a new file");
        assert_eq!(std::fs::read_to_string(&new).expect("read"), "text");
        assert_eq!(std::fs::read_to_string(&victim).expect("read"), "as it was");
        assert!(!dir.path().join("absent").exists());
    }

    #[test]
    fn a_file_is_written_anew_through_links_of_our_own_only() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        replace(&file, "longer than the next").expect("made");
        replace(&file, "first").expect("written anew");
        symlink("file", &link).expect("a link");
        replace(&link, "second").expect("our own link");
        assert_eq!(std::fs::read_to_string(&file).expect("read"), "second");
        assert_eq!(own_link(Path::new("/dev/stdout")).expect("root's link"), Path::new("/proc/self/fd/1"));
        if geteuid().is_root() {
            lchown(&link, Some(65534), None).expect("give the link away");
            assert!(replace(&link, "third").is_err_and(|failure| failure.text.contains("user 65534 made")));
            assert_eq!(std::fs::read_to_string(&file).expect("read"), "second");
        }
    }
}
