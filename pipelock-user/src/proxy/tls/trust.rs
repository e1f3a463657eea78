//! What the agent has to trust, as files that its programs read.
//!
//! Called by `app`, which writes them where the agent finds them. It promises that what the system trusts stays trusted.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;

use super::ca::{CaError, CertificateAuthority};
use super::roots::system_bundle;
use super::{keystore, pem};
use crate::policy::Policy;

/// Variables by which somebody may have named roots of their own; what they name is kept.
const NAMED: [&str; 6] = [
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "NPM_CONFIG_CAFILE",
    "npm_config_cafile",
];
/// The same, for roots besides others.
const NAMED_BESIDES: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// The content of the files.
#[derive(Clone, Debug)]
pub struct Trust {
    /// PEM: the system's roots and all that is added.
    pub bundle: String,
    /// PEM: what is added, our authority first.
    pub added: String,
    /// The bundle as PKCS#12.
    pub keystore: Vec<u8>,
}

impl Trust {
    /// The system's roots, those that the caller's environment names, those of the policy, and the authority.
    ///
    /// # Errors
    /// [`CaError::Pem`]: a file that the policy names.
    pub fn gather(policy: &Policy, ca: &CertificateAuthority) -> Result<Self, CaError> {
        let mut all: Vec<CertificateDer<'static>> = Vec::new();
        let own = ca.pem();
        let mut added = pem::certificates("the authority".as_ref(), own.as_bytes())?;
        for path in &policy.tls().extra_roots {
            let path = policy.locate(path);
            added.extend(pem::certificates(&path, &pem::read(&path)?)?);
        }
        let named = |variables: &[&str]| variables.iter().filter_map(std::env::var_os).map(PathBuf::from).collect();
        let system: Vec<_> = system_bundle().iter().flat_map(|path| found(path)).collect();
        let besides: Vec<PathBuf> = named(&NAMED_BESIDES);
        // The whole of the system's bundle is what some name there; programs that read this have those roots anyway.
        added.extend(besides.iter().flat_map(|path| found(path)).filter(|one| !system.contains(one)));
        all.extend(added.iter().cloned());
        let instead: Vec<PathBuf> = named(&NAMED);
        all.extend(system);
        all.extend(instead.iter().flat_map(|path| found(path)));
        for list in [&mut all, &mut added] {
            let mut seen = std::collections::HashSet::new();
            list.retain(|certificate| seen.insert(certificate.clone()));
        }
        let text = |list: &[CertificateDer<'_>]| list.iter().map(|one| pem::write("CERTIFICATE", one)).collect();
        let keystore = keystore::write(all.iter().map(AsRef::as_ref));
        Ok(Self { bundle: text(&all), added: text(&added), keystore })
    }
}

/// What could not be read did not count before either.
fn found(path: &Path) -> Vec<CertificateDer<'static>> {
    let found = pem::read(path).and_then(|text| pem::certificates(path, &text));
    found.inspect_err(|error| tracing::warn!(%error, "roots are left out")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_comes_first_and_nothing_twice() {
        let ca = CertificateAuthority::for_now().expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("own.pem"), ca.pem()).expect("write");
        let text = format!("version: 1\ntls: {{extra_roots: [{}]}}", folder.path().join("own.pem").display());
        let policy = Policy::parse(&text, "test").expect("a policy");
        let trust = Trust::gather(&policy, &ca).expect("gathered");
        assert!(trust.bundle.starts_with(&ca.pem()) && trust.bundle.matches(&ca.pem()).count() == 1);
        assert!(trust.added.starts_with(&ca.pem()));
    }

    #[test]
    fn java_and_openssl_read_the_keystore() {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = CertificateAuthority::for_now().expect("an authority");
        let other = CertificateAuthority::for_now().expect("an authority");
        let path = folder.path().join("trust.p12");
        std::fs::write(&path, keystore::write([ca.certificate(), other.certificate()])).expect("write");
        let run = |program: &str, args: &[&str]| {
            let out = std::process::Command::new(program).args(args).arg(&path).output().ok()?;
            Some((out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned()))
        };
        if let Some((is_read, text)) = run("openssl", &["pkcs12", "-nokeys", "-nomacver", "-passin", "pass:", "-in"]) {
            assert!(is_read && text.matches("BEGIN CERTIFICATE").count() == 2, "{text}");
        }
        let args = ["-list", "-storetype", "PKCS12", "-storepass", "", "-keystore"];
        if let Some((_, text)) = run("keytool", &args) {
            assert_eq!(text.matches("trustedCertEntry").count(), 2, "{text}");
        }
    }
}
