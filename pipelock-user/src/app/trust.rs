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

/// The folder; removed when this is dropped.
#[derive(Debug)]
pub struct TrustFolder(PathBuf);

impl TrustFolder {
    /// Writes the files for the run of this name.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn write(id: &str, trust: &Trust) -> io::Result<Self> {
        let open = || {
            let mut builder = std::fs::DirBuilder::new();
            builder.mode(0o755);
            builder
        };
        open().recursive(true).create(FOLDER)?;
        let path = Path::new(FOLDER).join(id);
        // Left by a run of the same name that was killed.
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => open().create(&path)?,
        }
        let folder = Self(path);
        let files: [(&str, &[u8]); 3] =
            [(BUNDLE, trust.bundle.as_bytes()), (ADDED, trust.added.as_bytes()), (KEYSTORE, &trust.keystore)];
        for (name, bytes) in files {
            let mut file =
                std::fs::OpenOptions::new().create_new(true).write(true).mode(0o644).open(folder.0.join(name))?;
            io::Write::write_all(&mut file, bytes)?;
        }
        Ok(folder)
    }

    /// The variables to set.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let named = |name: &str| self.0.join(name).into_os_string();
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

    /// The file that takes the place of each of the system's own bundles that is there.
    #[must_use]
    pub fn covers(&self) -> Vec<(PathBuf, PathBuf)> {
        let there = SYSTEM_BUNDLES.iter().map(PathBuf::from).filter(|path| path.is_file());
        there.map(|path| (self.0.join(BUNDLE), path)).collect()
    }
}

impl Drop for TrustFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        // Only when no other run has one.
        let _ = std::fs::remove_dir(FOLDER);
    }
}
