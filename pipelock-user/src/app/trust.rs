//! Makes the agent's programs trust the authority: files in a folder of their own, and variables that name them.
//!
//! Made by `session`, and held by `run` until the agent is gone. It promises that the folder goes with it.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::proxy::{SYSTEM_BUNDLES, Trust};

/// Where the folders are: open to all, unlike /run/pipelock.
const FOLDER: &str = "/run/pipelock-trust";
const BUNDLE: &str = "bundle.pem";
const ADDED: &str = "added.pem";
const KEYSTORE: &str = "bundle.p12";

/// What is to be read instead of the built-in or the system's roots: OpenSSL (Python, Ruby, PHP, .NET, Go and rustls hear
/// it too), curl, git, requests, pip, cargo, AWS, gRPC, Nix, Bundler, gcloud, Composer, Hex, httplib2, LWP.
const INSTEAD: [&str; 15] = [
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
];
/// What is read besides: Node.js, Deno.
const BESIDES: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// What the agent finds in the place of keys.
const NOTHING: &str = "/dev/null";
/// How often the folder is made again that another run, which was the last, has removed meanwhile.
const ATTEMPTS: usize = 8;

/// The folder; removed when this is dropped.
#[derive(Debug)]
pub struct TrustFolder {
    path: PathBuf,
    /// Keys that the agent must not have, whoever it runs as.
    keys: Vec<PathBuf>,
}

impl TrustFolder {
    /// Writes the files for the run of this name; `keys` are files that the agent must not see.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn write(id: &str, trust: &Trust, keys: &[PathBuf]) -> io::Result<Self> {
        let path = Path::new(FOLDER).join(id);
        // Left by a run of the same name that was killed.
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => make(&path)?,
        }
        // Mounts are made by the names that the agent sees.
        let keys = keys.iter().filter_map(|key| key.canonicalize().ok()).collect();
        let folder = Self { path, keys };
        let files: [(&str, &[u8]); 3] =
            [(BUNDLE, trust.bundle.as_bytes()), (ADDED, trust.added.as_bytes()), (KEYSTORE, &trust.keystore)];
        for (name, bytes) in files {
            let mut file =
                std::fs::OpenOptions::new().create_new(true).write(true).mode(0o644).open(folder.path.join(name))?;
            io::Write::write_all(&mut file, bytes)?;
        }
        Ok(folder)
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

    /// The file that takes the place of each of the system's own bundles that is there, and of each key.
    #[must_use]
    pub fn covers(&self) -> Vec<(PathBuf, PathBuf)> {
        let there = SYSTEM_BUNDLES.iter().map(PathBuf::from).filter(|path| path.is_file());
        let bundles = there.map(|path| (self.path.join(BUNDLE), path));
        bundles.chain(self.keys.iter().map(|key| (NOTHING.into(), key.clone()))).collect()
    }
}

/// Makes a folder that all may read. The one above it is gone whenever the last run ends.
fn make(path: &Path) -> io::Result<()> {
    let open = || {
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o755);
        builder
    };
    for _ in 1..ATTEMPTS {
        open().recursive(true).create(FOLDER)?;
        match open().create(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
    }
    open().create(path)
}

impl Drop for TrustFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
        // Only when no other run has one.
        let _ = std::fs::remove_dir(FOLDER);
    }
}
