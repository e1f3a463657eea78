//! Which files `pipelock scan` reads, and how far it is. Called by the verb.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// A file to be read, with its length as far as it is known; or a path that cannot be read.
pub(super) type Entry = (PathBuf, io::Result<u64>);

/// The files below a path, sorted; the path itself when it is no folder, whatever it is. Links in folders are not followed,
/// pipes and devices in them are not read, and git's own folder is left out: what it holds is in the files, or is history.
pub(super) fn below(path: &Path, entries: &mut Vec<Entry>) {
    if path == Path::new("-") {
        entries.push((path.to_owned(), Ok(0)));
        return;
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let from = entries.len();
            folder(path, entries);
            entries[from..].sort_by(|one, other| one.0.cmp(&other.0));
        }
        Ok(meta) => entries.push((path.to_owned(), Ok(meta.len()))),
        Err(error) => entries.push((path.to_owned(), Err(error))),
    }
}

fn folder(path: &Path, entries: &mut Vec<Entry>) {
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let listed = match std::fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) => {
                entries.push((folder, Err(error)));
                continue;
            }
        };
        for entry in listed {
            // What vanishes while it is listed is no file any more.
            let Ok(entry) = entry else { continue };
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && entry.file_name() != ".git" {
                folders.push(entry.path());
            } else if kind.is_file() {
                entries.push((entry.path(), Ok(entry.metadata().map_or(0, |meta| meta.len()))));
            }
        }
    }
}

/// The file, or standard input.
pub(super) fn open(path: &Path) -> io::Result<Box<dyn Read>> {
    if path == Path::new("-") {
        if is_closed() {
            return Err(io::Error::other("standard input is closed: give a PATH, or something to read"));
        }
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(File::open(path)?))
}

/// Is nobody there who could send anything? A process that starts without standard input gets /dev/null for it, open for
/// reading and writing; `< /dev/null` opens it for reading.
fn is_closed() -> bool {
    let null = std::fs::metadata("/dev/null").map(|meta| meta.rdev());
    let here = std::fs::metadata("/proc/self/fd/0").map(|meta| meta.rdev());
    let mode = fcntl(io::stdin(), FcntlArg::F_GETFL).map(|flags| OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE);
    mode == Ok(OFlag::O_RDWR) && null.is_ok_and(|null| here.is_ok_and(|here| null == here))
}

/// A bar on stderr when that is a terminal and the work is long.
#[derive(Debug)]
pub(super) struct Progress {
    /// Bytes, 0 when nobody knows.
    total: u64,
    done: u64,
    shown: Option<Instant>,
    started: Instant,
    terminal: bool,
}

const PATIENCE: Duration = Duration::from_millis(500);
const WIDTH: usize = 30;

impl Progress {
    pub(super) fn new(total: u64) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { total, done: 0, shown: None, started: Instant::now(), terminal }
    }

    /// So many bytes more were read.
    pub(super) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if !self.terminal || self.shown.unwrap_or(self.started).elapsed() < PATIENCE {
            return;
        }
        let _ = write!(io::stderr().lock(), "\r{}\u{1b}[K", self.bar());
        self.shown = Some(Instant::now());
    }

    fn bar(&self) -> String {
        let size = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        // A file may grow while it is read.
        let total = self.total.max(self.done);
        if self.total == 0 {
            return size(self.done);
        }
        let width = (self.done as f64 / total as f64 * WIDTH as f64) as usize;
        format!("[{:WIDTH$}] {} of {}", "#".repeat(width), size(self.done), size(total))
    }

    /// Takes the bar away, so that something can be said.
    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr().lock(), "\r\u{1b}[K");
            self.started = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_never_longer_than_it_is_wide() {
        let mut progress = Progress::new(100);
        assert_eq!(progress.bar(), format!("[{}] 0.0 MB of 0.0 MB", " ".repeat(WIDTH)));
        progress.done = 250;
        assert_eq!(progress.bar(), format!("[{}] 0.0 MB of 0.0 MB", "#".repeat(WIDTH)));
        let mut unknown = Progress::new(0);
        unknown.done = 12_340_000;
        assert_eq!(unknown.bar(), "12.3 MB");
    }
}
