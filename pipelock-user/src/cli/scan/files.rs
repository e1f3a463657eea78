//! Which files `pipelock scan` reads, and how far it is. Called by the verb.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Failure;

/// The files below a path, sorted; the path itself when it is no folder. Links are not followed, git's own folder is left
/// out: what it holds is in the files, or is history.
pub(super) fn below(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if path == Path::new("-") {
        return Ok(vec![path.to_owned()]);
    }
    let meta = std::fs::metadata(path).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    if !meta.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() && entry.file_name() != ".git" {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A bar on stderr when that is a terminal and the work is long.
pub(super) struct Progress {
    total: usize,
    done: usize,
    shown: Option<Instant>,
    started: Instant,
    terminal: bool,
}

const PATIENCE: Duration = Duration::from_millis(500);
const WIDTH: usize = 30;

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { total, done: 0, shown: None, started: Instant::now(), terminal }
    }

    /// The next file begins.
    pub(super) fn next(&mut self) {
        let due = self.shown.unwrap_or(self.started).elapsed() > PATIENCE;
        if self.terminal && due && self.total > 1 {
            let bar = "#".repeat(self.done * WIDTH / self.total);
            let _ = write!(std::io::stderr().lock(), "\r[{bar:WIDTH$}] {}/{} files", self.done, self.total);
            self.shown = Some(Instant::now());
        }
        self.done += 1;
    }

    /// Takes the bar away, so that something can be said.
    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr().lock(), "\r\u{1b}[K");
            self.started = Instant::now();
        }
    }
}
