//! Where pipelock keeps what outlives a run: its authority and what it has seen (state), compiled rules (cache).
//!
//! Called by `tls`, `inspection` and the verb `scan`. It promises that all of them mean the same folders: the one that systemd
//! gives a service, root's, or the user's own. What is not an absolute path is passed over, as the XDG specification says.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// What leads to one of the folders.
struct Place {
    /// Set by systemd, systemd.exec(5).
    service: &'static str,
    root: &'static str,
    /// XDG Base Directory Specification 0.8.
    user: &'static str,
    below_home: &'static str,
}

const STATE: Place =
    Place { service: "STATE_DIRECTORY", root: "/var/lib/pipelock", user: "XDG_STATE_HOME", below_home: ".local/state" };
const CACHE: Place =
    Place { service: "CACHE_DIRECTORY", root: "/var/cache/pipelock", user: "XDG_CACHE_HOME", below_home: ".cache" };

/// The folder of what must not be lost. It need not be there yet.
#[must_use]
pub fn state() -> PathBuf {
    // A user without a home is told that it cannot be made.
    STATE.find().unwrap_or_else(|| PathBuf::from("/").join(STATE.below_home).join("pipelock"))
}

/// The folder of what can be made again; none for a user without a home. It need not be there yet.
#[must_use]
fn cache() -> Option<PathBuf> {
    CACHE.find()
}

/// The folder of compiled rules, likewise.
#[must_use]
pub fn rules() -> Option<PathBuf> {
    cache().map(|folder| folder.join("rules"))
}

impl Place {
    fn find(&self) -> Option<PathBuf> {
        self.choose(nix::unistd::geteuid().is_root(), |name| std::env::var_os(name).map(PathBuf::from))
    }

    fn choose(&self, is_root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
        let absolute = |name| variable(name).filter(|path| path.is_absolute());
        // A service may have several, with colons between (systemd.exec(5)).
        let first = |path: PathBuf| {
            let all = path.into_os_string().into_encoded_bytes();
            PathBuf::from(OsStr::from_bytes(all.split(|byte| *byte == b':').next().unwrap_or_default()))
        };
        if let Some(given) = absolute(self.service).map(first) {
            return Some(given);
        }
        if is_root {
            return Some(PathBuf::from(self.root));
        }
        let above = absolute(self.user).or_else(|| Some(absolute("HOME")?.join(self.below_home)))?;
        Some(above.join("pipelock"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_root_and_users_have_folders_of_their_own() {
        let with = |is_root, variables: &[(&str, &str)]| {
            let find =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            let [state, cache] = [STATE, CACHE].map(|place| place.choose(is_root, find));
            (state, cache)
        };
        let both = |state: &str, cache: &str| (Some(PathBuf::from(state)), Some(PathBuf::from(cache)));
        let home = ("HOME", "/home/a");
        let service = [("STATE_DIRECTORY", "/s:/other"), ("CACHE_DIRECTORY", "/c"), home];
        let user = [("XDG_STATE_HOME", "/s"), ("XDG_CACHE_HOME", "/c"), home];
        for is_root in [true, false] {
            assert_eq!(with(is_root, &service), both("/s", "/c"));
        }
        // What sudo keeps of the caller's variables does not make root write there.
        assert_eq!(with(true, &user), both("/var/lib/pipelock", "/var/cache/pipelock"));
        assert_eq!(with(false, &user), both("/s/pipelock", "/c/pipelock"));
        let home_only = both("/home/a/.local/state/pipelock", "/home/a/.cache/pipelock");
        assert_eq!(with(false, &[home]), home_only);
        assert_eq!(
            with(false, &[home, ("XDG_STATE_HOME", "s"), ("CACHE_DIRECTORY", ""), ("XDG_CACHE_HOME", "")]),
            home_only
        );
        assert_eq!(with(false, &[("HOME", "")]), (None, None));
    }
}
