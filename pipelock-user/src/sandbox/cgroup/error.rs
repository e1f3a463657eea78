//! Why a cgroup could not be used.
//!
//! Every function of [`Cgroup`](super::Cgroup) says one of these; the commands print them as they are. What it promises:
//! each names the path it is about and what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a cgroup could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No cgroup2 mount in `/proc/self/mountinfo`.
    #[error("cgroup2 is not mounted; mount it with: mount -t cgroup2 none /sys/fs/cgroup/unified")]
    NotMounted,
    /// Our own cgroup is not below any cgroup2 mount that we can see.
    #[error(
        "our own cgroup ({0}) is not under any cgroup2 mount visible here; in a container, run with the cgroup namespace of the container (--cgroupns=private) and /sys/fs/cgroup mounted"
    )]
    OwnNotVisible(String),
    /// The name is not a plain file name.
    #[error(
        "{0:?} cannot name a cgroup: use 1 to 255 letters, digits, '-', '_', '.', ':' or '@', not beginning with '.' or 'cgroup.'"
    )]
    BadName(String),
    /// Creating it is not permitted.
    #[error(
        "may not create a cgroup in {path}: {source}. Run as root, or have it delegated to you: systemd-run --user --scope -p Delegate=yes, or mount /sys/fs/cgroup writable in the container"
    )]
    NotPermitted {
        /// The folder in which it was tried.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The path is not a folder of a cgroup2 tree.
    #[error("{0} is not a cgroup2 folder; `findmnt -t cgroup2` shows where they are")]
    NotCgroup2(PathBuf),
    /// The root of the tree holds every process of the machine, ours included.
    #[error("{0} is the root cgroup: it holds every process, ours too; name a cgroup below it")]
    IsRoot(PathBuf),
    /// Threaded cgroups hold threads of processes that live elsewhere.
    #[error("{path} is a {kind} cgroup: its processes belong to a domain cgroup above it; use that one")]
    Threaded {
        /// The cgroup.
        path: PathBuf,
        /// The content of `cgroup.type`.
        kind: String,
    },
    /// A process of the cgroup lies outside our pid namespace.
    #[error(
        "{0} holds a process outside our pid namespace, so it cannot be examined; run pipelock in the host's pid namespace"
    )]
    ForeignPid(PathBuf),
    /// It still holds processes.
    #[error("{path} still holds processes after {waited:?}; they are stuck in the kernel or are not ours to kill")]
    NotEmpty {
        /// The cgroup.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// Anything else the kernel said.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
