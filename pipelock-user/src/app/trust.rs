//! Makes the agent's programs trust the authority: files in a folder of their own, and variables that name them.
//!
//! [`TrustFolder`] is made by `session`, and held by `run` until the agent is gone; it promises that the folder goes with
//! it. [`TrustFiles`] alone are what `ca` and `doctor` leave where they are told to.

use std::ffi::OsString;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::browsers;
use super::made::{Folder, make_folder};
use crate::proxy::{SYSTEM_BUNDLES, Trust};

/// Where the folders are: open to all, unlike /run/pipelock.
const FOLDER: &str = "/run/pipelock-trust";
/// The mode of folders for all to read.
pub(super) const OPEN: u32 = 0o755;
const BUNDLE: &str = "bundle.pem";
const ADDED: &str = "added.pem";
const KEYSTORE: &str = "bundle.p12";

/// What is to be read instead of the built-in or the system's roots: OpenSSL (Python, Ruby, PHP, .NET, Go and rustls hear
/// it too), curl, git, requests, pip, cargo, AWS, gRPC, Nix, Bundler, gcloud, Composer, Hex, httplib2, LWP, npm. That one hears
/// Node.js's own variable only while no npmrc names roots, and its own in either spelling.
const INSTEAD: [&str; 17] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "NIX_SSL_CERT_FILE",
    "BUNDLE_SSL_CA_CERT",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "COMPOSER_CAFILE",
    "HEX_CACERTS_PATH",
    "HTTPLIB2_CA_CERTS",
    "PERL_LWP_SSL_CA_FILE",
    "NPM_CONFIG_CAFILE",
    "npm_config_cafile",
];
/// What is read besides: Node.js, Deno.
const BESIDES: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// How often the folder is made again that another run, which was the last, has removed meanwhile.
const ATTEMPTS: usize = 8;

/// The files.
#[derive(Debug)]
pub struct TrustFiles {
    folder: Folder,
    /// Where it was opened, for the variables.
    path: PathBuf,
}

impl TrustFiles {
    /// Writes them into a folder that was opened at `path`, in the place of former ones; all users may read them, whatever the
    /// umask. No link in the folder is followed.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(folder: Folder, path: &Path, trust: &Trust) -> io::Result<Self> {
        let files = Self { folder, path: path.to_owned() };
        files.put_all(trust)?;
        Ok(files)
    }

    fn put_all(&self, trust: &Trust) -> io::Result<()> {
        self.put(BUNDLE, trust.bundle.as_bytes())?;
        self.put(ADDED, trust.added.as_bytes())?;
        self.put(KEYSTORE, &trust.keystore)
    }

    /// One file more, just so.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.folder.put(name, bytes)
    }

    /// The variables to set.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let named = |name: &str| self.path.join(name).into_os_string();
        let mut variables: Vec<_> = INSTEAD.iter().map(|variable| (*variable, named(BUNDLE))).collect();
        variables.extend(BESIDES.iter().map(|variable| (*variable, named(ADDED))));
        let mut options = std::env::var_os("JAVA_TOOL_OPTIONS").map_or_else(OsString::new, |mut before| {
            before.push(" ");
            before
        });
        options.push("-Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStore=");
        options.push(named(KEYSTORE));
        variables.push(("JAVA_TOOL_OPTIONS", options));
        variables
    }
}

/// The folder; removed when this is dropped.
#[derive(Debug)]
pub struct TrustFolder {
    files: TrustFiles,
    /// Folders with files for browsers, and those that they are laid over.
    layers: Vec<(PathBuf, PathBuf)>,
}

impl TrustFolder {
    /// Writes the files for the run of this name.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn write(id: &str, trust: &Trust) -> io::Result<Self> {
        let path = Path::new(FOLDER).join(id);
        // Left by a run of the same name that was killed.
        let folder = match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => make(&path)?,
        };
        // From here on it goes with this.
        let mut made = Self { files: TrustFiles { folder, path }, layers: Vec::new() };
        made.files.put_all(trust)?;
        made.layers = browsers::write((&made.files.folder, &made.files.path), &trust.added)?;
        Ok(made)
    }

    /// Whether a run of this name left anything.
    #[must_use]
    pub fn is_left(id: &str) -> bool {
        Path::new(FOLDER).join(id).symlink_metadata().is_ok()
    }

    /// Removes what a run of this name left that was killed.
    pub fn remove_left(id: &str) {
        remove(&Path::new(FOLDER).join(id));
    }

    /// The variables to set.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        self.files.variables()
    }

    /// The folders that are laid over others, so that browsers find in those what tells them whom to trust.
    #[must_use]
    pub fn layers(&self) -> &[(PathBuf, PathBuf)] {
        &self.layers
    }

    /// The file that takes the place of each of the system's own bundles that is there.
    #[must_use]
    pub fn covers(&self) -> Vec<(PathBuf, PathBuf)> {
        let there = SYSTEM_BUNDLES.iter().map(PathBuf::from).filter(|path| path.is_file());
        there.map(|path| (self.files.path.join(BUNDLE), path)).collect()
    }
}

/// Makes the folder of a run, which all may read. The one above it is gone whenever the last run ends.
fn make(path: &Path) -> io::Result<Folder> {
    let open = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(OPEN));
    // Not `create_dir_all`: it fails when what is there already goes away while it looks.
    let above = || match std::fs::create_dir(FOLDER) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    };
    let attempt = || above().and_then(|()| open(Path::new(FOLDER))).and_then(|()| make_folder(path, OPEN));
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            made => return made,
        }
    }
    attempt()
}

impl Drop for TrustFolder {
    fn drop(&mut self) {
        remove(&self.files.path);
    }
}

fn remove(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
    // Only when no other run has one.
    let _ = std::fs::remove_dir(FOLDER);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::proxy::CertificateAuthority;

    #[test]
    fn everybody_may_read_the_files_and_every_variable_names_one() {
        let ca = CertificateAuthority::for_now().expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        let trust = Trust::gather(&Policy::deny_all(), &ca).expect("gathered");
        let held = || super::super::make_folders(folder.path(), OPEN).expect("there");
        TrustFiles::write(held(), folder.path(), &trust).expect("written");
        let files = TrustFiles::write(held(), folder.path(), &trust).expect("written again");
        for (variable, value) in files.variables() {
            let value = value.into_string().expect("text");
            let path = value.rsplit('=').next().expect("a path");
            let mode = std::fs::metadata(path).expect(variable).permissions().mode();
            assert_eq!(mode & 0o777, 0o644, "{variable}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 3, "nothing else is left");
        // npm with a cafile in an npmrc hears no NODE_EXTRA_CA_CERTS; what replaces a list of roots has to be the whole one.
        for name in ["npm_config_cafile", "NPM_CONFIG_CAFILE"] {
            let named = files.variables().into_iter().find(|(variable, _)| *variable == name).expect(name).1;
            assert_eq!(std::fs::read_to_string(named).expect(name), trust.bundle, "{name}");
        }
    }

    #[test]
    fn links_in_the_folder_lead_nowhere() {
        let ca = CertificateAuthority::for_now().expect("an authority");
        let trust = Trust::gather(&Policy::deny_all(), &ca).expect("gathered");
        let folder = tempfile::tempdir().expect("a folder");
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "as it was").expect("written");
        std::fs::set_permissions(&victim, Permissions::from_mode(0o600)).expect("closed");
        for name in [".bundle.pem.new", ".added.pem.new", ".bundle.p12.new", BUNDLE, ADDED, KEYSTORE] {
            std::os::unix::fs::symlink(&victim, folder.path().join(name)).expect("a link");
        }
        let held = super::super::make_folders(folder.path(), OPEN).expect("there");
        TrustFiles::write(held, folder.path(), &trust).expect("written");
        assert_eq!(std::fs::read_to_string(&victim).expect("read"), "as it was");
        assert_eq!(std::fs::metadata(&victim).expect("there").permissions().mode() & 0o777, 0o600);
        for name in [BUNDLE, ADDED, KEYSTORE] {
            assert!(std::fs::symlink_metadata(folder.path().join(name)).expect("there").is_file(), "{name}");
        }
    }

    // /run is root's.
    #[test]
    #[ignore = "needs root"]
    fn runs_that_end_do_not_take_the_folder_from_others() {
        let ca = CertificateAuthority::for_now().expect("an authority");
        let trust = Trust::gather(&Policy::deny_all(), &ca).expect("gathered");
        let trust = std::sync::Arc::new(trust);
        let runs: Vec<_> = (0..4)
            .map(|number| {
                let trust = trust.clone();
                let run = move || {
                    for round in 0..50 {
                        let id = format!("test-{}-{number}-{round}", std::process::id());
                        let folder = TrustFolder::write(&id, &trust).expect("written");
                        assert!(folder.files.path.join(BUNDLE).is_file());
                    }
                };
                std::thread::Builder::new().spawn(run).expect("a thread")
            })
            .collect();
        for run in runs {
            run.join().expect("no run failed");
        }
    }
}
