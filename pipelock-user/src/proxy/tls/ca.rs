//! The certificate authority that the agent is told to trust: given by the policy, or made on first use and kept.
//!
//! Called by `leaf` for signatures and by `app` for its certificate. It promises that a key is never written where others
//! could read it, that two processes which make one at the same time end up with the same, and that a key that does not
//! belong to its certificate is refused at the start and not at the first connection.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pipelock_receipt::codec::hex;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use super::der::{self, tag};
use super::pem::{self, PemError};
use super::x509::{self, CertificateParts};

/// How long a CA of our own is valid.
const VALID_SECONDS: u64 = 87_600 * 3600;
/// How far in the past certificates begin: clocks of containers and virtual machines differ.
pub(super) const BACKDATED_SECONDS: u64 = 3600;
/// Certificate and key in one file, so that they cannot come apart.
const FILE: &str = "ca.pem";
/// What we sign with, in the order of preference, with the algorithm's identifier.
const SCHEMES: [(SignatureScheme, &[u32]); 4] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, &[1, 2, 840, 10045, 4, 3, 2]),
    (SignatureScheme::ECDSA_NISTP384_SHA384, &[1, 2, 840, 10045, 4, 3, 3]),
    (SignatureScheme::ED25519, &[1, 3, 101, 112]),
    (SignatureScheme::RSA_PKCS1_SHA256, &[1, 2, 840, 113_549, 1, 1, 11]),
];

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The folder in which ours is kept.
    #[error("the certificate authority cannot be kept in {}: {source}; make the folder writable for pipelock, or give tls.ca_cert and tls.ca_key", path.display())]
    Store {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others can read the key that we keep.
    #[error("{} can be read by others, and whoever has it can pose as any server to the agent; remove it, and a new one is made", .0.display())]
    Exposed(PathBuf),
    /// Somebody else has put the key there.
    #[error("{} belongs to another user, who could pose as any server to the agent; remove it, and a new one is made", .0.display())]
    Foreign(PathBuf),
    /// The cryptography failed: no random numbers, as a rule.
    #[error("no key could be made: {0}")]
    Crypto(&'static str),
}

/// An authority in use.
pub struct CertificateAuthority {
    /// Its certificate, and those above it as far as they were given.
    chain: Vec<CertificateDer<'static>>,
    pub(super) parts: CertificateParts,
    key: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    pub(super) algorithm: Vec<u8>,
}

impl CertificateAuthority {
    /// The file of the one that is kept in this folder, with its key.
    #[must_use]
    pub fn file(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// The one that is kept in this folder; made when there is none.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn kept(folder: &Path) -> Result<Self, CaError> {
        let path = Self::file(folder);
        let stored = |source| CaError::Store { path: folder.to_owned(), source };
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(stored)?;
                make(folder, &path)?;
                File::open(&path)
            }
            opened => opened,
        };
        let file = file.map_err(stored)?;
        // Of the open file: what the name stands for may change.
        let about = file.metadata().map_err(stored)?;
        if about.uid() != 0 && about.uid() != nix::unistd::geteuid().as_raw() {
            return Err(CaError::Foreign(path));
        }
        if about.mode() & 0o077 != 0 {
            return Err(CaError::Exposed(path));
        }
        let text = pem::read_open(&path, file)?;
        Self::read((&path, &text), (&path, &text))
    }

    /// The one in these files: the certificate first, then those above it; and its key.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn given(certificate: &Path, key: &Path) -> Result<Self, CaError> {
        Self::read((certificate, &pem::read(certificate)?), (key, &pem::read(key)?))
    }

    /// One that is kept nowhere: for tests, and for runs that must leave nothing behind.
    ///
    /// # Errors
    /// [`CaError::Crypto`].
    pub fn for_now() -> Result<Self, CaError> {
        let (certificate, key) = generate()?;
        let path = Path::new("a new authority");
        Self::new(path, vec![certificate], path, &key)
    }

    fn read(certificate: (&Path, &[u8]), key: (&Path, &[u8])) -> Result<Self, CaError> {
        let chain = pem::certificates(certificate.0, certificate.1)?;
        Self::new(certificate.0, chain, key.0, &pem::key(key.0, key.1)?)
    }

    fn new(
        path: &Path,
        chain: Vec<CertificateDer<'static>>,
        key_path: &Path,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, CaError> {
        let unsound = |why: String| CaError::Pem(PemError::content(path, why));
        let first = chain.first().ok_or_else(|| unsound("no certificate".into()))?;
        let parts = x509::read(first).ok_or_else(|| unsound("the certificate cannot be read".into()))?;
        if !parts.is_ca {
            return Err(unsound("the certificate is not that of an authority (basicConstraints CA:TRUE)".into()));
        }
        if parts.not_after < now() {
            return Err(unsound("the certificate has expired; remove the file or renew it".into()));
        }
        let wrong_key = |why: &str| CaError::Pem(PemError::content(key_path, why));
        let key = any_supported_type(key).map_err(|_| {
            wrong_key("a key of a kind that is not supported; use ECDSA P-256 or P-384, Ed25519 or RSA")
        })?;
        let supported =
            |(scheme, oid): (SignatureScheme, &[u32])| key.choose_scheme(&[scheme]).map(|_| (scheme, oid.to_vec()));
        let (scheme, oid) = SCHEMES
            .into_iter()
            .find_map(supported)
            .ok_or_else(|| wrong_key("the key signs in no way that is known"))?;
        CertifiedKey::new(vec![first.clone()], key.clone())
            .keys_match()
            .map_err(|_| wrong_key(&format!("the key does not belong to the certificate in {}", path.display())))?;
        let oid = der::oid(&oid);
        // RFC 4055 §5: the parameters of RSA are NULL; RFC 5758 §3.2: those of ECDSA are absent.
        let null = der::value(tag::NULL, &[]);
        let parameters: &[u8] = if scheme == SignatureScheme::RSA_PKCS1_SHA256 { &null } else { &[] };
        let algorithm = der::sequence(&[&oid, parameters]);
        Ok(Self { chain, parts, key, scheme, algorithm })
    }

    /// Signs what is to be signed of a certificate.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CaError> {
        let signer = self.key.choose_scheme(&[self.scheme]).ok_or(CaError::Crypto("no scheme to sign with"))?;
        signer.sign(message).map_err(|_| CaError::Crypto("the signature failed"))
    }

    /// The certificate that has to be trusted.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], |first| first)
    }

    /// That certificate, and those above it, as text.
    #[must_use]
    pub fn pem(&self) -> String {
        self.chain.iter().map(|certificate| pem::write("CERTIFICATE", certificate)).collect()
    }

    /// Certificates above the leaf that a server sends: not those that sign themselves, which are trusted or useless.
    pub(super) fn sent(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.chain
            .iter()
            .filter(|certificate| x509::read(certificate).is_none_or(|parts| parts.issuer != parts.subject))
    }

    /// SHA-256 of the certificate, in hex: how people tell authorities apart.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.certificate());
        hex(digest.as_ref())
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Makes an authority and puts it in its place, unless somebody else was quicker.
fn make(folder: &Path, path: &Path) -> Result<(), CaError> {
    let stored = |source| CaError::Store { path: folder.to_owned(), source };
    let (certificate, key) = generate()?;
    let text = pem::write("CERTIFICATE", &certificate) + &pem::write("PRIVATE KEY", key.secret_der());
    let temporary = folder.join(format!(".{FILE}.{}.{}", std::process::id(), hex(&random::<4>()?)));
    let written = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    let linked = written.and_then(|()| std::fs::hard_link(&temporary, path));
    let _ = std::fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(stored(error)),
        _ => Ok(()),
    }
}

/// A new P-256 key, and a certificate that it signs itself.
fn generate() -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), CaError> {
    let pkcs8 = new_key()?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8));
    let key = any_supported_type(&private).map_err(|_| CaError::Crypto("the new key cannot be used"))?;
    let spki = key.public_key().ok_or(CaError::Crypto("the new key has no public half"))?;
    let spki = spki.as_ref();
    let key_id = x509::key_id(spki);
    // The name is as unique as the key: clients that have seen another authority of ours must not mix them up.
    let short: String = key_id.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let name = x509::name(&[(&[2, 5, 4, 10], "pipelock"), (&[2, 5, 4, 3], &format!("pipelock CA {short}"))]);
    let from = now();
    let extensions = [
        x509::basic_constraints_ca(),
        x509::key_usage(&[x509::KEY_CERT_SIGN, x509::CRL_SIGN]),
        x509::subject_key_id(&key_id),
    ];
    let algorithm = der::sequence(&[&der::oid(&[1, 2, 840, 10045, 4, 3, 2])]);
    let signed = x509::to_be_signed(&x509::Draft {
        serial: &random::<16>()?,
        algorithm: &algorithm,
        issuer: &name,
        not_before: from.saturating_sub(BACKDATED_SECONDS),
        not_after: from + VALID_SECONDS,
        subject: &name,
        spki,
        extensions: &extensions,
    });
    let signer = key
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
        .ok_or(CaError::Crypto("the new key does not sign"))?;
    let signature = signer.sign(&signed).map_err(|_| CaError::Crypto("the signature failed"))?;
    let certificate = der::sequence(&[&signed, &algorithm, &der::bits(&signature)]);
    Ok((CertificateDer::from(certificate), private))
}

/// A new P-256 key as PKCS#8.
pub(super) fn new_key() -> Result<Vec<u8>, CaError> {
    EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
        .map(|document| document.as_ref().to_vec())
        .map_err(|_| CaError::Crypto("no random numbers"))
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], CaError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| CaError::Crypto("no random numbers"))?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
