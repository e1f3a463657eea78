//! What `status`, `reload` and `detach` read: one file per attachment under /run/pipelock, written by whoever serves it.
//!
//! The file is a convenience; the truth is what is pinned in bpffs. It promises that a dead process is never taken for
//! the one that wrote the file, even when its number is in use again.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::server::Server;

/// Where the files are.
pub(super) const FOLDER: &str = "/run/pipelock";
/// More than a state takes, in bytes.
const ROOM: usize = 4096;

/// One attachment, as its server describes it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct State {
    /// Name of the attachment.
    pub id: String,
    /// `run` or `attach`.
    pub mode: String,
    /// Process id of the server.
    pub pid: i32,
    /// When that process started, in clock ticks since boot (proc(5), stat field 22).
    pub pid_start: u64,
    /// The cgroup's folder.
    pub cgroup: PathBuf,
    /// The evidence folder.
    pub evidence: PathBuf,
    /// How the policy is named: its file, as a rule.
    pub policy: String,
    /// The policy file, absolute; none when the policy is no file's, and a reload leaves it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_file: Option<PathBuf>,
    /// Hash of the policy in force.
    pub policy_hash: String,
    /// The number under which flows name that policy; 0 in the file of a version that did not say.
    #[serde(default)]
    pub generation: u32,
    /// What the kernel gives.
    pub level: String,
    /// Public key of the signer, hex.
    pub public_key: String,
    /// How often the policy was asked to be read again.
    #[serde(default)]
    pub reloads: u64,
    /// Why the last time changed nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_error: Option<String>,
    /// Evidence can no longer be written, so nothing is let through.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evidence_lost: bool,
}

impl State {
    /// Writes the file.
    ///
    /// # Errors
    /// When /run/pipelock cannot be made or written.
    pub fn write(&self) -> io::Result<()> {
        fs::rename(draft(&self.id, &serde_json::to_vec_pretty(self)?)?, path(&self.id))
    }

    /// Sees whether there is room for the file, before anything is made that it would have to tell of.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(super) fn try_room(id: &str) -> io::Result<()> {
        fs::remove_file(draft(id, &[0; ROOM])?)
    }

    /// Reads the file of an attachment; none when there is none or it cannot be read.
    #[must_use]
    pub fn read(id: &str) -> Option<Self> {
        serde_json::from_slice(&fs::read(path(id)).ok()?).ok()
    }

    /// Removes the file, and the default pid file beside it.
    pub fn remove(id: &str) {
        let _ = fs::remove_file(path(id));
        let _ = fs::remove_file(temporary(id));
        let _ = fs::remove_file(pid_file(id));
    }

    /// The process that wrote the file; none when it has ended.
    #[must_use]
    pub fn server(&self) -> Option<Server> {
        Server::find(self.pid, self.pid_start)
    }
}

/// Where a server in the background writes its process id, if not told otherwise.
#[must_use]
pub fn pid_file(id: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{id}.pid"))
}

fn path(id: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{id}.json"))
}

/// Writes what becomes the file, under another name.
fn draft(id: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    use std::io::Write as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(FOLDER)?;
    let path = temporary(id);
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&path)?;
    if let Err(error) = file.write_all(bytes) {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(path)
}

/// Where a state is written before it takes the place of the former one. Not under the ending of [`path`]: `status` would
/// take it for an attachment.
fn temporary(id: &str) -> PathBuf {
    Path::new(FOLDER).join(format!(".{id}.json.new"))
}

/// The attachment whose state is in a file of this name.
fn id_of_file(name: &str) -> Option<&str> {
    name.strip_suffix(".json").filter(|id| !id.starts_with('.'))
}

/// The names of all attachments: those pinned, and those with a file.
#[must_use]
pub fn all() -> Vec<String> {
    let mut ids: Vec<String> = fs::read_dir(crate::kernel::pin_root())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    ids.extend(
        fs::read_dir(FOLDER)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(id_of_file(&entry.ok()?.file_name().into_string().ok()?)?.to_owned())),
    );
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_being_written_is_no_attachment() {
        let name = |path: PathBuf| path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
        assert_eq!(id_of_file(&name(path("cg-5"))), Some("cg-5"));
        assert_eq!(id_of_file(&name(temporary("cg-5"))), None);
        // The name that earlier versions gave it.
        assert_eq!(id_of_file(".cg-5.new.json"), None);
        assert_eq!(id_of_file(&name(pid_file("cg-5"))), None);
    }
}
