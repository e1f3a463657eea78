//! The roots that destinations are verified by: the system's, and those that the policy adds.
//!
//! Called by `outward`, and by `trust` for what the agent is told to trust. It promises that the system's bundle is found
//! wherever the distributions put it, and that a file which the policy names and which cannot be read is an error.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::pem::{self, PemError};

/// Where distributions keep the bundle of all roots.
pub const SYSTEM_BUNDLES: [&str; 7] = [
    // Debian, Ubuntu, Arch, Gentoo
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    // openSUSE
    "/etc/ssl/ca-bundle.pem",
    // Alpine, FreeBSD
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    // NixOS
    "/etc/ssl/certs/ca-bundle.crt",
];

/// The bundle of this system; `SSL_CERT_FILE` is heard first, as everywhere.
#[must_use]
pub(super) fn system_bundle() -> Option<PathBuf> {
    let told = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).filter(|path| path.is_file());
    told.or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()))
}

/// What destinations are verified by.
pub(super) struct Roots {
    pub(super) store: RootCertStore,
    /// Those that the policy adds, as they are: a server may show one of them itself.
    pub(super) extra: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// The system's, and those in these files.
    pub(super) fn load(extra: &[PathBuf]) -> Result<Self, PemError> {
        let mut store = RootCertStore::empty();
        if let Some(path) = system_bundle() {
            let certificates = pem::certificates(&path, &pem::read(&path)?)?;
            let (_, unread) = store.add_parsable_certificates(certificates);
            if unread > 0 {
                tracing::debug!(unread, path = %path.display(), "roots of the system that cannot be read are left out");
            }
        }
        let mut added = Vec::new();
        for path in extra {
            for certificate in pem::certificates(path, &pem::read(path)?)? {
                store
                    .add(certificate.clone())
                    .map_err(|error| PemError::content(path, format!("no root can be made of it: {error}")))?;
                added.push(certificate);
            }
        }
        if store.is_empty() {
            let why = "this system has no bundle of root certificates, so no destination could be verified; install \
                       ca-certificates, or name one under tls.extra_roots";
            return Err(PemError::content(Path::new(SYSTEM_BUNDLES[0]), why));
        }
        Ok(Self { store, extra: added })
    }
}
