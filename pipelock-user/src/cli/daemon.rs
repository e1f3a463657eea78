//! Going into the background: fork before any thread starts, tell the parent when everything is in force.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe, setsid};
use pipelock_receipt::Folder;

use super::{Failure, files, output};

/// The child's end of the pipe to the parent that waits.
#[derive(Debug)]
pub(super) struct Readiness(File);

impl Readiness {
    /// The parent ends with 0.
    pub(super) fn ready(&self) {
        let _ = (&self.0).write_all(b"+");
    }

    /// The parent ends with 1 and prints this.
    pub(super) fn failed(&self, why: &str) {
        let _ = (&self.0).write_all(format!("-{why}").as_bytes());
    }
}

/// Forks; returns in the child. The parent waits for the child's word and exits with it. The child has a session of its
/// own, no terminal, and writes its log into the evidence folder.
pub(super) fn daemonize(evidence: &Folder, pid_file: &Path) -> Result<Readiness, Failure> {
    let log = evidence.append("pipelock.log")?;
    let (parent, child) = pipe()?;
    // SAFETY: the process has one thread here, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Parent { child: pid } => {
            drop(child);
            let code = wait(parent, pid.as_raw(), pid_file);
            std::process::exit(code);
        }
        ForkResult::Child => {
            drop(parent);
            setsid()?;
            dup2_stdin(File::open("/dev/null")?)?;
            dup2_stdout(&log)?;
            dup2_stderr(&log)?;
            Ok(Readiness(File::from(child)))
        }
    }
}

fn wait(pipe: OwnedFd, pid: i32, pid_file: &Path) -> i32 {
    let mut first = [0];
    let mut pipe = File::from(pipe);
    match pipe.read(&mut first) {
        Ok(1) if first == *b"+" => {
            if let Err(error) = files::replace(pid_file, &format!("{pid}\n")) {
                output::error(&error.text);
            }
            output::note(&format!("in force, served by process {pid}"));
            0
        }
        Ok(1) => {
            let mut why = String::new();
            let _ = pipe.read_to_string(&mut why);
            output::error(&why);
            1
        }
        _ => {
            output::error(
                "the background process ended before anything was in force; see pipelock.log in the evidence folder",
            );
            1
        }
    }
}
