//! What is ours alone, and a command is started without: files with keys and credentials, variables with credentials, and the
//! variables by which programs would look for a proxy themselves.
//!
//! Made by `cli` from the policy that a command is started under; asked at each reload, and every second by `serving`. It promises that
//! what another policy keeps in a variable is never one that the command was given, and that a file which another has taken the
//! place of is told of: what covers a file in the command's mounts goes away with the file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
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

/// A file, with the device and the number that it had.
type Covered = (PathBuf, (u64, u64));

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
    pub fn covers(&self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        // Mounts are made by the names that the agent sees.
        let there = self.files.iter().filter_map(|file| file.canonicalize().ok()).filter(|file| file.is_file());
        there.map(|file| {
            if let Ok(facts) = file.metadata() {
                locked(&self.covered).push((file.clone(), (facts.dev(), facts.ino())));
            }
            (NOTHING.into(), file)
        })
    }

    /// The files that the command may see by now, since another has taken the place of the one that was covered.
    #[must_use]
    pub(super) fn shown(&self) -> Vec<PathBuf> {
        let covered = locked(&self.covered).clone();
        let is_another = |(file, number): &Covered| {
            let facts = file.metadata();
            facts.is_ok_and(|facts| (facts.dev(), facts.ino()) != *number && self.may_read(&facts))
        };
        covered.into_iter().filter(is_another).map(|(file, _)| file).collect()
    }

    /// Whether the command may, whatever groups it is in.
    fn may_read(&self, facts: &Metadata) -> bool {
        facts.mode() & 0o044 != 0 || self.user.is_none_or(|user| user == facts.uid())
    }

    /// Refuses another policy that keeps something in a variable which the command has, and any while it may see a file that was
    /// hidden from it. Files that were not withheld from it are
    /// named in the log: whether it may read them is up to whom they belong to.
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
    use std::os::unix::fs::PermissionsExt as _;

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
        let covered: Vec<PathBuf> = withheld.covers().map(|(_, place)| place).collect();
        for name in names {
            assert!(covered.contains(&path(name).canonicalize().expect("there")), "{name}: {covered:?}");
        }
        assert!(withheld.covers().all(|(file, place)| file == Path::new(NOTHING) && place.is_file()), "{covered:?}");
    }

    #[test]
    fn a_file_that_another_has_taken_the_place_of_is_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let put = |name: &str, mode: u32| {
            std::fs::write(path(name), "user:word").expect("written");
            std::fs::set_permissions(path(name), Permissions::from_mode(mode)).expect("set");
        };
        put("login", 0o600);
        let text = "version: 1\nupstream: {proxy: \"http://127.0.0.1:9\", credentials_file: login}\n";
        std::fs::write(path("p.yaml"), text).expect("written");
        let policy = Policy::load(&path("p.yaml")).expect("a policy");
        let owner = path("login").metadata().expect("there").uid();
        let another = Withheld::of(&policy).user(owner + 1);
        let same = Withheld::of(&policy).user(owner);
        for withheld in [&another, &same] {
            assert!(withheld.covers().any(|(_, file)| file == path("login").canonicalize().expect("there")));
        }
        let told = |withheld: &Withheld| (withheld.shown().len(), withheld.refuse_late(&policy).is_err());
        // Written in place it is the same file.
        put("login", 0o644);
        assert_eq!((told(&another), told(&same)), ((0, false), (0, false)));
        put("new", 0o600);
        std::fs::rename(path("new"), path("login")).expect("renamed");
        assert_eq!((told(&another), told(&same)), ((0, false), (1, true)), "whose user may read it");
        put("login", 0o640);
        assert_eq!((told(&another), told(&same)), ((1, true), (1, true)));
        let error = another.refuse_late(&policy).expect_err("shown").to_string();
        assert!(error.contains("login") && error.contains("start the command anew"), "{error}");
        std::fs::remove_file(path("login")).expect("removed");
        assert_eq!(told(&another), (0, false));
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
