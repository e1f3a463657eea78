//! What is ours alone, and a command is started without: files with keys and credentials, variables with credentials, and the
//! variables by which programs would look for a proxy themselves.
//!
//! Made by `cli` from the policy that a command is started under; asked at each reload, and every second by `serving`. It promises that
//! what another policy keeps in a variable is never one that the command was given, and that a file which another has taken the
//! place of, at its own path or behind a link, is told of and not forgotten: what covers a file in the command's mounts goes away with
//! the file, and covers nothing that a link leads to by then.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::folders::state as state_folder;
use super::session::SessionError;
use crate::flow::locked;
use crate::policy::{CredentialsIn, Policy};
use crate::proxy::CertificateAuthority;

/// Variables by which programs look for a proxy, in lower case.
const PROXY_VARIABLES: [&str; 4] = ["http_proxy", "https_proxy", "all_proxy", "ftp_proxy"];
/// What the agent finds in the place of files.
const NOTHING: &str = "/dev/null";

/// A file that was covered.
#[derive(Debug)]
struct Covered {
    /// As the policy names it; a link on the way may lead elsewhere by now.
    name: PathBuf,
    /// Where it was.
    place: PathBuf,
    /// The file itself. Held, since its number would be given to another file once nobody has it.
    held: File,
    /// Under which of the two the command may have seen another one, once it may: what it has read it has.
    shown: Option<PathBuf>,
}

impl Covered {
    fn hold(name: &Path, place: PathBuf) -> io::Result<Self> {
        let path_alone = libc::O_PATH | libc::O_CLOEXEC;
        let held = File::options().read(true).custom_flags(path_alone).open(&place)?;
        Ok(Self { name: name.to_owned(), place, held, shown: None })
    }

    /// Where another file is by now that the command may read.
    fn another(&self, may_read: impl Fn(&Metadata) -> bool) -> Option<&PathBuf> {
        let number = |facts: &Metadata| (facts.dev(), facts.ino());
        let own = self.held.metadata().ok().as_ref().map(number);
        let is_another =
            |path: &&PathBuf| path.metadata().is_ok_and(|facts| Some(number(&facts)) != own && may_read(&facts));
        [&self.name, &self.place].into_iter().find(is_another)
    }
}

/// What a command is started without.
#[derive(Clone, Debug)]
pub struct Withheld {
    files: Vec<PathBuf>,
    variables: Vec<String>,
    /// As whom the command runs.
    user: Option<u32>,
    /// The files that were covered.
    covered: Arc<Mutex<Vec<Covered>>>,
}

impl Withheld {
    /// What a policy keeps for itself.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        let proxies = PROXY_VARIABLES.iter().flat_map(|name| [(*name).to_owned(), name.to_ascii_uppercase()]);
        let mut variables: Vec<String> = policy.next_hop().into_iter().flat_map(|_| proxies.clone()).collect();
        variables.extend(named_variables(policy).map(|(_, name)| name.clone()));
        Self { files: files(policy), variables, user: None, covered: Arc::default() }
    }

    /// A file more.
    #[must_use]
    pub fn file(mut self, file: &Path) -> Self {
        self.files.push(file.to_owned());
        self
    }

    /// As whom the command runs, who need not be kept from what only others may read.
    #[must_use]
    pub fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }

    /// The variables.
    #[must_use]
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// What takes the place of each file that is there by now, and the file. What is none (a pipe, a terminal) cannot be read a
    /// second time.
    ///
    /// # Errors
    /// A file that cannot be held, of which nobody could say later that another has taken its place.
    pub fn covers(&self) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        // Mounts are made by the names that the agent sees.
        let there = self.files.iter().filter_map(|name| Some((name, name.canonicalize().ok()?)));
        let mut covers = Vec::new();
        for (name, place) in there.filter(|(_, place)| place.is_file()) {
            let failed = |error: io::Error| {
                io::Error::new(
                    error.kind(),
                    format!("{}: it is to be hidden and cannot be opened: {error}", place.display()),
                )
            };
            let covered = Covered::hold(name, place.clone()).map_err(failed)?;
            locked(&self.covered).push(covered);
            covers.push((NOTHING.into(), place));
        }
        Ok(covers)
    }

    /// The files that the command may have seen, since another has taken the place of the one that was covered.
    #[must_use]
    pub(super) fn shown(&self) -> Vec<PathBuf> {
        let mut covered = locked(&self.covered);
        let look = |covered: &mut Covered| {
            if covered.shown.is_none() {
                covered.shown = covered.another(|facts| self.may_read(facts)).cloned();
            }
            covered.shown.clone()
        };
        covered.iter_mut().filter_map(look).collect()
    }

    /// Whether the command may, whatever groups it is in.
    fn may_read(&self, facts: &Metadata) -> bool {
        facts.mode() & 0o044 != 0 || self.user.is_none_or(|user| user == facts.uid())
    }

    /// Refuses another policy that keeps something in a variable which the command has, and any once it may have seen a file that was
    /// hidden from it. Files that were not withheld from it are named in the log: whether it may read them is up to whom they belong to.
    pub(super) fn refuse_late(&self, policy: &Policy) -> Result<(), SessionError> {
        if let Some(file) = self.shown().into_iter().next() {
            return Err(SessionError::Shown(file));
        }
        let late = Self::of(policy);
        for file in late.files.iter().filter(|file| !self.files.contains(file)) {
            tracing::warn!(
                file = %file.display(),
                "the command was started before the policy named this file, which is not hidden from it: see that its user may not read it, or start the command anew"
            );
        }
        let given =
            |(_, name): &(&'static str, &String)| std::env::var_os(name).is_some() && !self.variables.contains(name);
        match named_variables(policy).find(given) {
            Some((key, name)) => Err(SessionError::GivenAway { key, name: name.clone() }),
            None => Ok(()),
        }
    }
}

/// Where the policy says that something secret is.
fn secrets(policy: &Policy) -> impl Iterator<Item = (&'static str, &CredentialsIn)> {
    let login = policy.next_hop().and_then(|hop| hop.credentials.as_ref());
    let webhook = policy.ask().webhook.as_ref().map(|webhook| &webhook.secret);
    let named = login.map(|login| ("upstream.credentials", login));
    named.into_iter().chain(webhook.map(|secret| ("ask.secret", secret)))
}

/// The variables of ours with something secret, and what they are for.
fn named_variables(policy: &Policy) -> impl Iterator<Item = (&'static str, &String)> {
    secrets(policy).filter_map(|(key, secret)| match secret {
        CredentialsIn::Variable(name) => Some((key, name)),
        CredentialsIn::File(_) => None,
    })
}

/// The files with the keys that a policy signs with, and with the words by which others know it or its operator.
fn files(policy: &Policy) -> Vec<PathBuf> {
    let tls = policy.tls().authority.iter().map(|pair| &pair.key);
    let clients = policy.rules().iter().filter_map(|rule| rule.client_certificate()).map(|pair| &pair.key);
    let secrets = secrets(policy).filter_map(|(_, secret)| match secret {
        CredentialsIn::File(file) => Some(file),
        CredentialsIn::Variable(_) => None,
    });
    let named = tls.chain(clients).chain(secrets).chain(&policy.metrics().token_file);
    // Ours is there for others, even where this policy names one of its own.
    let ours = CertificateAuthority::file(&state_folder());
    named.map(|file| policy.locate(file)).chain([ours]).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::super::inspection::Environment;
    use super::super::tls::rules_of;
    use super::*;

    #[test]
    fn whatever_a_policy_keeps_in_files_is_withheld() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let names = ["ca.key", "client.key", "login", "secret", "token"];
        for name in names {
            std::fs::write(path(name), "x").expect("written");
        }
        let text = "version: 1\n\
            egress: [{destination: a.test, client_cert: client.pem, client_key: client.key}]\n\
            tls: {ca_cert: ca.pem, ca_key: ca.key}\n\
            upstream: {proxy: \"http://127.0.0.1:9\", credentials_file: login}\n\
            ask: {webhook: \"https://a.test/\", secret_file: secret}\n\
            metrics: {listen: \"127.0.0.1:9464\", token_file: token}\n";
        std::fs::write(path("p.yaml"), text).expect("written");
        let withheld = Withheld::of(&Policy::load(&path("p.yaml")).expect("a policy")).file(&path("missing"));
        let covers = withheld.covers().expect("held");
        let covered: Vec<PathBuf> = covers.iter().map(|(_, place)| place.clone()).collect();
        for name in names {
            assert!(covered.contains(&path(name).canonicalize().expect("there")), "{name}: {covered:?}");
        }
        assert!(covers.iter().all(|(file, place)| file == Path::new(NOTHING) && place.is_file()), "{covered:?}");
    }

    /// A folder with a file `login`, which the policy in it names by `name`, and what is withheld of a command of the file's owner,
    /// and of another user.
    struct Hidden {
        folder: tempfile::TempDir,
        policy: Policy,
        same: Withheld,
        another: Withheld,
    }

    impl Hidden {
        fn with(prepare: impl FnOnce(&Path)) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            prepare(folder.path());
            let text = "version: 1\nupstream: {proxy: \"http://127.0.0.1:9\", credentials_file: login}\n";
            std::fs::write(folder.path().join("p.yaml"), text).expect("written");
            let policy = Policy::load(&folder.path().join("p.yaml")).expect("a policy");
            let login = folder.path().join("login");
            let owner = login.metadata().expect("there").uid();
            let [same, another] = [owner, owner + 1].map(|user| Withheld::of(&policy).user(user));
            for withheld in [&same, &another] {
                let covers = withheld.covers().expect("held");
                assert!(covers.iter().any(|(_, file)| *file == login.canonicalize().expect("there")));
            }
            Self { folder, policy, same, another }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn put(&self, name: &str, mode: u32) {
            put(&self.path(name), mode);
        }

        fn rename(&self, from: &str, to: &str) {
            std::fs::rename(self.path(from), self.path(to)).expect("renamed");
        }

        /// What is said of a command of the owner's and of another's: files that it may have seen, and whether reloads are refused.
        fn told(&self) -> [(usize, bool); 2] {
            [&self.same, &self.another]
                .map(|withheld| (withheld.shown().len(), withheld.refuse_late(&self.policy).is_err()))
        }
    }

    fn put(path: &Path, mode: u32) {
        std::fs::write(path, "user:word").expect("written");
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }

    const NO: (usize, bool) = (0, false);
    const YES: (usize, bool) = (1, true);

    #[test]
    fn a_file_that_another_has_taken_the_place_of_is_told_of() {
        let hidden = Hidden::with(|folder| put(&folder.join("login"), 0o600));
        // Written in place it is the same file.
        hidden.put("login", 0o644);
        assert_eq!(hidden.told(), [NO, NO]);
        hidden.put("new", 0o600);
        hidden.rename("new", "login");
        assert_eq!(hidden.told(), [YES, NO], "whose user may read it");
        hidden.put("login", 0o640);
        assert_eq!(hidden.told(), [YES, YES]);
        let error = hidden.another.refuse_late(&hidden.policy).expect_err("shown").to_string();
        assert!(error.contains("login") && error.contains("start the command anew"), "{error}");
        // It may have been read.
        hidden.put("login", 0o600);
        std::fs::remove_file(hidden.path("login")).expect("removed");
        assert_eq!(hidden.told(), [YES, YES]);
    }

    /// The number of a file that is gone is given to the next one.
    #[test]
    fn a_file_with_the_number_of_the_former_is_another() {
        let hidden = Hidden::with(|folder| put(&folder.join("login"), 0o600));
        std::fs::remove_file(hidden.path("login")).expect("removed");
        assert_eq!(hidden.told(), [NO, NO], "nothing is there");
        hidden.put("login", 0o644);
        assert_eq!(hidden.told(), [YES, YES]);
        let hidden = Hidden::with(|folder| put(&folder.join("login"), 0o600));
        for mode in [0o600, 0o644] {
            hidden.put("new", mode);
            hidden.rename("new", "login");
        }
        assert_eq!(hidden.told(), [YES, YES]);
    }

    /// As secrets are rotated that are mounted by Kubernetes, and by whoever keeps versions beside each other.
    #[test]
    fn a_link_that_leads_elsewhere_by_now_is_told_of() {
        let versions = |folder: &Path| {
            for version in ["v1", "v2"] {
                std::fs::create_dir(folder.join(version)).expect("made");
                put(&folder.join(version).join("login"), 0o644);
            }
            symlink("v1", folder.join("..data")).expect("a link");
            symlink("..data/login", folder.join("login")).expect("a link");
        };
        let hidden = Hidden::with(versions);
        assert_eq!(hidden.told(), [NO, NO]);
        symlink("v2", hidden.path("..data.new")).expect("a link");
        hidden.rename("..data.new", "..data");
        assert_eq!(hidden.told(), [YES, YES], "the folder's");
        let hidden = Hidden::with(versions);
        symlink("v2/login", hidden.path("login.new")).expect("a link");
        hidden.rename("login.new", "login");
        assert_eq!(hidden.told(), [YES, YES], "its own");
        let hidden = Hidden::with(versions);
        hidden.put("new", 0o644);
        hidden.rename("new", "v1/login");
        symlink("nowhere", hidden.path("login.new")).expect("a link");
        hidden.rename("login.new", "login");
        assert_eq!(hidden.told(), [YES, YES], "where it was");
    }

    #[test]
    fn a_variable_that_the_command_has_is_no_place_for_credentials() {
        let policy = |upstream: &str| Policy::parse(&format!("version: 1\n{upstream}\n"), "test").expect(upstream);
        let hop = |more: &str| policy(&format!("upstream: {{proxy: \"http://127.0.0.1:9\"{more}}}"));
        let (none, plain) = (Withheld::of(&policy("")), Withheld::of(&hop("")));
        assert!(none.variables().is_empty(), "without a next hop nobody is kept from another proxy");
        assert!(plain.variables().iter().any(|name| name == "HTTPS_PROXY"));
        // Set wherever tests run.
        let late = hop(", credentials_env: PATH");
        let error = |started: &Withheld, policy: &Policy| {
            let environment = Environment::OfTheAgent(started.clone());
            rules_of(policy.clone(), None, &environment, None).err().map(|error| error.to_string()).unwrap_or_default()
        };
        for started in [none, plain] {
            assert!(error(&started, &late).contains("with PATH in its environment"), "{}", error(&started, &late));
            let nowhere = hop(", credentials_env: PIPELOCK_NOT_SET");
            assert!(error(&started, &nowhere).contains("is not set"), "the command does not have it either");
        }
        assert!(!error(&Withheld::of(&late), &late).contains("in its environment"));
    }
}
