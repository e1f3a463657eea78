//! Whether it is the agent that serves the other end of a connection of ours: it may listen on any loopback port that is free, and
//! so on that of a service of this host which is down.
//!
//! Asked by `app` for the next hop, before anything is said to it. It promises that nothing is sent in finding out, and that what
//! nobody can tell, as of a socket whose cgroup was removed, is an error.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use super::cgroup::{Cgroup, CgroupError};
use super::diag::{self, DiagError, Listed, state};
use crate::flow::locked;

const TCP: u8 = libc::IPPROTO_TCP as u8;

/// Folders of cgroups that are remembered, of which there are as many as services that were asked about.
const MOST_FOLDERS: usize = 64;

/// The sockets of those who live in a cgroup.
#[derive(Debug)]
pub struct AgentSockets {
    cgroup: Cgroup,
    folders: Folders,
}

impl AgentSockets {
    /// Those of this cgroup and of all below it.
    #[must_use]
    pub fn of(cgroup: Cgroup) -> Self {
        Self { cgroup, folders: Folders::default() }
    }

    /// Whether the other end of a TCP connection of this network namespace is one of them; no for one that is not on this host.
    ///
    /// # Errors
    /// The kernel does not tell, or the cgroup that it was made in is gone: that may have been one of the agent's.
    pub fn serve(&self, near: SocketAddr, far: SocketAddr) -> io::Result<bool> {
        let Some(end) = diag::find(TCP, far, near).map_err(other)? else { return Ok(false) };
        let made_in = match end {
            // A connection that was not taken yet has no cgroup of its own: it is for whoever listens.
            Listed { state: state::SYN_RECEIVED, .. } | Listed { cgroup_id: None, .. } => {
                let mut made_in = BTreeSet::new();
                for family in [libc::AF_INET, libc::AF_INET6] {
                    let family = u8::try_from(family).unwrap_or_default();
                    diag::list_in(family, TCP, state::LISTEN, |listener| {
                        if listener.local.port() == far.port() {
                            made_in.insert(listener.cgroup_id);
                        }
                    })
                    .map_err(other)?;
                }
                made_in
            }
            Listed { cgroup_id, .. } => [cgroup_id].into(),
        };
        // Only now: the agent may have made the cgroup of a socket that is there already, and none of one that comes later.
        let agents = self.cgroup.ids().map_err(io::Error::other)?;
        is_any_of(&agents, &made_in, |id| self.folders.have(id, Cgroup::folder_of, Cgroup::lives_unseen))
    }
}

/// Where cgroups were seen, so that not every connection looks through all there are.
#[derive(Debug, Default)]
struct Folders(Mutex<BTreeMap<u64, PathBuf>>);

impl Folders {
    /// Whether a cgroup lives: at its folder, where that is known; else as it is found, or lives unseen.
    fn have(
        &self,
        id: u64,
        find: impl Fn(u64) -> Result<Option<PathBuf>, CgroupError>,
        lives_unseen: impl Fn(u64) -> Result<bool, CgroupError>,
    ) -> Result<bool, CgroupError> {
        let known = locked(&self.0).get(&id).cloned();
        if known.is_some_and(|folder| Cgroup::is_at(&folder, id)) {
            return Ok(true);
        }
        let Some(folder) = find(id)? else {
            locked(&self.0).remove(&id);
            return lives_unseen(id);
        };
        let mut folders = locked(&self.0);
        if folders.len() >= MOST_FOLDERS {
            folders.clear();
        }
        folders.insert(id, folder);
        Ok(true)
    }
}

/// Whether one of these sockets, by the cgroups that they were made in, may be of the `agents`: one of a cgroup that the kernel does
/// not name is.
fn is_any_of(
    agents: &BTreeSet<u64>,
    made_in: &BTreeSet<Option<u64>>,
    lives: impl Fn(u64) -> Result<bool, CgroupError>,
) -> io::Result<bool> {
    let is_agents = |id: &Option<u64>| id.is_none_or(|id| agents.contains(&id));
    if made_in.iter().any(is_agents) {
        return Ok(true);
    }
    for id in made_in.iter().flatten() {
        let why = match lives(*id) {
            Ok(true) => continue,
            Ok(false) => String::new(),
            Err(error) => format!(" ({error})"),
        };
        return Err(io::Error::other(format!(
            "what listens there was made in a cgroup (id {id}) that is gone or not to be seen from here{why}, and may be the agent's; \
             start it again"
        )));
    }
    Ok(false)
}

fn other(error: DiagError) -> io::Error {
    match error {
        DiagError::Io(error) => error,
        short @ DiagError::Short => io::Error::other(short),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_folder_that_is_known_is_not_looked_for() {
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("cgroup");
        std::fs::create_dir(&folder).expect("mkdir");
        let id = std::fs::metadata(&folder).expect("there").ino();
        let (folders, looked) = (Folders::default(), Cell::new(0));
        let have = |id| {
            let find = |id| {
                looked.set(looked.get() + 1);
                Ok(Cgroup::is_at(&folder, id).then(|| folder.clone()))
            };
            folders.have(id, find, |id| Ok(id == 1)).expect("told")
        };
        assert!(have(id) && have(id) && have(id));
        assert_eq!(looked.get(), 1);
        std::fs::remove_dir(&folder).expect("removed");
        assert!(!have(id), "it is gone");
        assert!(have(1) && looked.get() == 3, "unseen");
        assert!(locked(&folders.0).is_empty());
    }

    #[test]
    fn what_nobody_can_place_is_not_taken_for_somebody_elses() {
        let agents = BTreeSet::from([7, 8]);
        let lives = |id| match id {
            1 => Ok(true),
            2 => Ok(false),
            _ => Err(CgroupError::NotMounted),
        };
        let judged = |made_in: &[Option<u64>]| {
            is_any_of(&agents, &made_in.iter().copied().collect(), lives).map_err(|error| error.to_string())
        };
        assert_eq!((judged(&[Some(1)]), judged(&[])), (Ok(false), Ok(false)));
        for agents in [&[Some(8)][..], &[None], &[Some(1), Some(7)], &[Some(2), Some(7)], &[Some(3), None]] {
            assert_eq!(judged(agents), Ok(true), "{agents:?}");
        }
        let gone = judged(&[Some(1), Some(2)]).expect_err("gone");
        assert!(gone.contains("id 2") && gone.contains("start it again"), "{gone}");
        judged(&[Some(3)]).expect_err("nobody can say");
    }
}
