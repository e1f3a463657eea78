//! Whose rights the agent runs with.
//!
//! Called by the app room, which gets the user's wish from the command line. Promises: never root by default, and never
//! in a group whose socket or device is root's door.

use std::ffi::{CString, OsStr, OsString};
use std::path::PathBuf;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, getgroups};

/// Groups whose members can have a daemon, or a raw disk, do what root can: a container started by dockerd runs in
/// another cgroup, out of reach of our programs. So is group 0, whatever its name: it owns the sockets of containerd and
/// podman.
const DOORS: [&str; 13] = [
    "docker",
    "podman",
    "containerd",
    "lxd",
    "lxc",
    "incus",
    "incus-admin",
    "libvirt",
    "libvirt-qemu",
    "microk8s",
    "disk",
    "kmem",
    "cri",
];
/// The overflow user and group, which own nothing.
const NOBODY: u32 = 65534;
const ROOT: Gid = Gid::from_raw(0);

/// The user that the agent runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, without [`AgentUser::left_out`].
    pub groups: Vec<u32>,
    /// Groups of the user that the agent does not get, by name.
    pub left_out: Vec<String>,
    /// Login name; the number when the user has none.
    pub name: String,
    /// Home folder; `/` when the user has none.
    pub home: PathBuf,
    /// Login shell; `/bin/sh` when the user has none.
    pub shell: PathBuf,
    /// False when the agent stays what we are: then ids, groups and environment are left alone.
    pub change: bool,
}

/// Why there is no such user.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No entry of that name, and not a number.
    #[error("there is no user {0:?}; give a login name, a uid, or uid:gid")]
    Unknown(String),
    /// Only root can become somebody else.
    #[error("only root can run the agent as another user ({0}); run pipelock as root or leave the user out")]
    NotRoot(String),
    /// The primary group cannot be left out, and is one of the doors.
    #[error(
        "the primary group of {user} is {group}, through which the agent could run commands outside its cgroup; give another as uid:gid"
    )]
    Door {
        /// The user.
        user: String,
        /// The group.
        group: String,
    },
    /// The user database could not be read.
    #[error("cannot look up {what} in the user database: {source}")]
    Database {
        /// Which entry.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl AgentUser {
    /// The user when none was asked for: ourselves if we are not root; else whoever called sudo; else `nobody`.
    /// `env` looks up our environment. A sudo from root to root gives `nobody` too: root has to be asked for.
    ///
    /// # Errors
    /// [`UserError`] when the user database cannot be read.
    pub fn by_default(env: impl Fn(&str) -> Option<OsString>) -> Result<Self, UserError> {
        let uid = Uid::effective();
        if !uid.is_root() {
            return Self::ourselves(uid);
        }
        let number = |key| env(key).as_deref().and_then(OsStr::to_str).and_then(id);
        match (number("SUDO_UID"), number("SUDO_GID")) {
            (Some(uid @ 1..), Some(gid)) => Self::numeric(uid, Some(gid)),
            _ => Self::numeric(NOBODY, None),
        }
    }

    /// The user named on the command line: a login name, `uid` or `uid:gid`.
    ///
    /// # Errors
    /// [`UserError`] when there is none, or we are not root and it is somebody else.
    pub fn named(text: &str) -> Result<Self, UserError> {
        let user = match lookup(text, User::from_name(text))? {
            Some(entry) => Self::from_entry(entry, None)?,
            None => {
                let (uid, gid) = numbers(text).ok_or_else(|| UserError::Unknown(text.chars().take(64).collect()))?;
                Self::numeric(uid, gid)?
            }
        };
        let own = Uid::effective();
        match (own.is_root(), own.as_raw() == user.uid) {
            (true, _) => Ok(user),
            (false, true) => Self::ourselves(own),
            (false, false) => Err(UserError::NotRoot(user.name)),
        }
    }

    fn ourselves(uid: Uid) -> Result<Self, UserError> {
        let entry = lookup(&uid.to_string(), User::from_uid(uid))?;
        let groups =
            getgroups().map_err(|errno| UserError::Database { what: "our groups".into(), source: errno.into() })?;
        Ok(Self {
            uid: uid.as_raw(),
            gid: Gid::effective().as_raw(),
            // Only root can leave a group.
            groups: groups.into_iter().map(Gid::as_raw).collect(),
            left_out: Vec::new(),
            name: entry.as_ref().map_or_else(|| uid.to_string(), |entry| entry.name.clone()),
            home: entry.as_ref().map_or_else(|| "/".into(), |entry| entry.dir.clone()),
            shell: entry.map_or_else(|| "/bin/sh".into(), |entry| entry.shell),
            change: false,
        })
    }

    fn numeric(uid: u32, gid: Option<u32>) -> Result<Self, UserError> {
        match lookup(&uid.to_string(), User::from_uid(Uid::from_raw(uid)))? {
            Some(entry) => Self::from_entry(entry, gid),
            None => Ok(Self {
                uid,
                // Without an entry nothing says which group is the user's; the one of its number may be anybody's.
                gid: match gid.map(Gid::from_raw) {
                    None => NOBODY,
                    Some(gid) => match door(gid)? {
                        Some(group) => return Err(UserError::Door { user: uid.to_string(), group }),
                        None => gid.as_raw(),
                    },
                },
                groups: Vec::new(),
                left_out: Vec::new(),
                name: uid.to_string(),
                home: "/".into(),
                shell: "/bin/sh".into(),
                change: true,
            }),
        }
    }

    fn from_entry(entry: User, gid: Option<u32>) -> Result<Self, UserError> {
        let gid = gid.map_or(entry.gid, Gid::from_raw);
        let name = CString::new(entry.name.clone()).map_err(|_| UserError::Unknown(entry.name.clone()))?;
        let groups = getgrouplist(&name, gid).map_err(|errno| UserError::Database {
            what: format!("the groups of {}", entry.name),
            source: errno.into(),
        })?;
        let mut kept = Vec::new();
        let mut left_out = Vec::new();
        for group in groups {
            match door(group)? {
                // Who asks for root gets root's own group, through which there is no more to reach.
                Some(_) if entry.uid.is_root() && group == ROOT => kept.push(group.as_raw()),
                Some(name) if group == gid => return Err(UserError::Door { user: entry.name, group: name }),
                Some(name) => left_out.push(name),
                None => kept.push(group.as_raw()),
            }
        }
        Ok(Self {
            uid: entry.uid.as_raw(),
            gid: gid.as_raw(),
            groups: kept,
            left_out,
            name: entry.name,
            home: entry.dir,
            shell: if entry.shell.as_os_str().is_empty() { "/bin/sh".into() } else { entry.shell },
            change: true,
        })
    }
}

/// The group's name if it is one of the doors.
fn door(group: Gid) -> Result<Option<String>, UserError> {
    let name = lookup(&group.to_string(), Group::from_gid(group))?.map(|group| group.name);
    Ok(match name {
        Some(name) => (group == ROOT || is_door(&name)).then_some(name),
        None => (group == ROOT).then(|| group.to_string()),
    })
}

fn is_door(group: &str) -> bool {
    DOORS.contains(&group)
}

/// An id; -1 is none but the kernel's word for "leave it", so that asking for it would keep ours.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// `uid` or `uid:gid`.
fn numbers(text: &str) -> Option<(u32, Option<u32>)> {
    match text.split_once(':') {
        Some((uid, gid)) => Some((id(uid)?, Some(id(gid)?))),
        None => Some((id(text)?, None)),
    }
}

fn lookup<T>(what: &str, found: nix::Result<Option<T>>) -> Result<Option<T>, UserError> {
    found.map_err(|errno| UserError::Database { what: what.to_owned(), source: errno.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(uid: &'static str) -> impl Fn(&str) -> Option<OsString> {
        move |key| (key == "SUDO_UID" || key == "SUDO_GID").then(|| uid.into())
    }

    #[test]
    #[ignore = "needs root"]
    fn root_never_becomes_root_by_default() {
        assert_eq!(AgentUser::by_default(|_| None).expect("nobody").uid, NOBODY);
        assert_eq!(AgentUser::by_default(env("0")).expect("nobody").uid, NOBODY);
        assert_eq!(AgentUser::by_default(env("-1")).expect("nobody").uid, NOBODY);
        // setresuid(2) would read it as "leave it", and the agent stay root.
        assert_eq!(AgentUser::by_default(env("4294967295")).expect("nobody").uid, NOBODY);
        let caller = AgentUser::by_default(env("54321")).expect("no entry is needed");
        assert_eq!((caller.uid, caller.gid, caller.home.to_str(), caller.change), (54321, 54321, Some("/"), true));
        assert_eq!(AgentUser::named("root").expect("asked for").uid, 0);
    }

    #[test]
    fn ids_are_plain_numbers_and_never_minus_one() {
        assert_eq!(numbers("1000"), Some((1000, None)));
        assert_eq!(numbers("1000:20"), Some((1000, Some(20))));
        for text in ["", ":", "1:", "-1", "4294967295", "1:4294967295", "1:2:3", "root:0"] {
            assert_eq!(numbers(text), None, "{text:?}");
        }
        assert!(matches!(AgentUser::named("no such user"), Err(UserError::Unknown(_))));
    }

    #[test]
    fn the_docker_group_is_a_door() {
        assert!(is_door("docker") && !is_door("dockers") && !is_door("users"));
    }

    #[test]
    #[ignore = "needs root"]
    fn doors_are_closed_to_users_with_and_without_an_entry() {
        let is_refused = |text: &str| matches!(AgentUser::named(text), Err(UserError::Door { .. }));
        // Group 0 owns containerd.sock and podman.sock; disk has an entry on every system.
        for text in ["1234567:0", "65534:0"] {
            assert!(is_refused(text), "{text}");
        }
        if let Ok(Some(disk)) = Group::from_name("disk") {
            assert!(is_refused(&format!("1234567:{}", disk.gid)) && is_refused(&format!("65534:{}", disk.gid)));
        }
        // The group of a user's number may be docker's.
        let user = AgentUser::named("1234567").expect("no entry is needed");
        assert_eq!((user.gid, user.groups, user.left_out), (NOBODY, vec![], vec![]));
        let root = AgentUser::named("root").expect("asked for");
        assert_eq!((root.gid, root.groups.contains(&0)), (0, true));
    }
}
