//! What the verbs that serve a cgroup share: their options, where their evidence goes, waiting for a server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pipelock_receipt::SigningKey;

use super::{Failure, keys};
use crate::kernel::{Attachment, Level, Pinned, attachment_id};
use crate::policy::Policy;
use crate::sandbox::cgroup::Cgroup;

/// Refuses a cgroup inside one that is attached, or with one inside it: the programs of both would run for every socket, and
/// what one redirects is foreign to the other.
pub(super) fn refuse_nested(cgroup: &Cgroup) -> Result<(), Failure> {
    let path = cgroup.path().display();
    let is_attached = |id: u64| matches!(Attachment::pinned(&attachment_id(id)), Ok(Pinned::Live(live)) if live == id);
    if let Some((above, id)) = cgroup.ids_above().into_iter().find(|(_, id)| is_attached(*id)) {
        return Err(Failure::usage(format!(
            "{path} is inside {}, to which pipelock is attached already ({}): what applies there applies here. Change its \
             policy (pipelock reload), or detach it first",
            above.display(),
            attachment_id(id)
        )));
    }
    let below = cgroup.ids()?;
    match below.into_iter().find(|id| *id != cgroup.id() && is_attached(*id)) {
        Some(id) => Err(Failure::usage(format!(
            "pipelock is attached already ({}) to a cgroup inside {path}; detach that first",
            attachment_id(id)
        ))),
        None => Ok(()),
    }
}

/// The options of `run` and `attach`.
#[derive(Debug, clap::Args)]
pub(super) struct SessionArgs {
    /// The policy file; without one nothing is allowed.
    #[arg(long, short, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Where the evidence goes; must not hold any yet [default: a new folder in ./pipelock-evidence].
    #[arg(long, short, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// The key that signs (see keygen); without one a key is made for this run only.
    #[arg(long, short, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Refuse when this kernel gives less [default: full].
    #[arg(long, value_enum)]
    require_level: Option<RequireLevel>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RequireLevel {
    /// Connects and sends are decided; packets and other protocols may not be.
    Redirect,
    /// Every hook.
    Full,
}

impl SessionArgs {
    /// The policy; what it or this build leaves open is said unless `quiet`.
    pub(super) fn policy(&self, quiet: bool) -> Result<Policy, Failure> {
        keys::policy(self.policy.as_deref(), quiet)
    }

    /// The key that signs.
    pub(super) fn key(&self) -> Result<SigningKey, Failure> {
        keys::signing_key(self.key.as_deref())
    }

    /// The file that it is in, if it is in one.
    pub(super) fn key_file(&self) -> Option<&Path> {
        self.key.as_deref()
    }

    /// The evidence folder for a run of this name.
    pub(super) fn evidence(&self, name: &str) -> Result<PathBuf, Failure> {
        evidence_folder(self.evidence.as_deref(), name)
    }

    /// The level below which nothing is started.
    pub(super) fn level(&self) -> Level {
        match self.require_level {
            Some(RequireLevel::Redirect) => Level::Redirect,
            Some(RequireLevel::Full) | None => Level::Full,
        }
    }

    /// True when the command line names that level.
    pub(super) fn names_level(&self) -> bool {
        self.require_level.is_some()
    }
}

/// The folder that was given, or a new one; absolute, since a server may change its working folder.
pub(super) fn evidence_folder(given: Option<&Path>, name: &str) -> Result<PathBuf, Failure> {
    let folder = match given {
        Some(folder) => folder.to_owned(),
        None => PathBuf::from("pipelock-evidence").join(format!("{name}-{}", keys::run_id()?)),
    };
    Ok(std::path::absolute(folder)?)
}

/// Asks again and again until there is an answer; none when time is up.
pub(super) fn wait_for<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        match ask() {
            Some(answer) => return Some(answer),
            None if Instant::now() > deadline => return None,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
