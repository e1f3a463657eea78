//! Certificates and keys as text (RFC 7468).
//!
//! Called by `ca`, `roots` and whoever writes a bundle. It promises that what cannot be read is an error that
//! names the file.

use std::path::{Path, PathBuf};

use pipelock_receipt::codec::base64;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The largest file that is read: the bundle of every public CA has some 250 KiB.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Why a file holds no certificates or key.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It can, and is not what it should be.
    #[error("{}: {why}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
}

impl PemError {
    pub(super) fn content(path: &Path, why: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), why: why.into() }
    }
}

/// The bytes of a file, at most 16 MiB.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, PemError> {
    let file = std::fs::File::open(path).map_err(|source| PemError::Io { path: path.to_owned(), source })?;
    read_open(path, file)
}

/// The same of a file that is open.
pub(super) fn read_open(path: &Path, file: std::fs::File) -> Result<Vec<u8>, PemError> {
    use std::io::Read as _;
    let failed = |source| PemError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(PemError::content(path, "the file is larger than 16 MiB"));
    }
    Ok(bytes)
}

/// Every certificate in a text, in its order; at least one.
pub(super) fn certificates(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(PemError::content(
            path,
            "no certificate in it; expected PEM, which begins with -----BEGIN CERTIFICATE----- (openssl x509 -inform DER turns DER into it)",
        )),
        Err(error) => Err(PemError::content(path, format!("not PEM: {error}"))),
    }
}

/// The one private key in a text: PKCS#8, SEC1 or PKCS#1, not encrypted.
pub(super) fn key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    if text.windows(9).any(|nine| nine == b"ENCRYPTED") {
        return Err(PemError::content(path, "the key is encrypted; give it unencrypted (openssl pkey -in FILE)"));
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| {
        PemError::content(path, format!("no private key in it ({error}); expected PEM, -----BEGIN PRIVATE KEY-----"))
    })
}

/// A value as text.
#[must_use]
pub(super) fn write(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 bytes are the 64 characters of a line.
    for line in der.chunks(48) {
        text.push_str(&base64(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..200), 1..4)) {
            let text: String = values.iter().map(|value| write("CERTIFICATE", value)).collect();
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            let found = certificates("x".as_ref(), text.as_bytes()).expect("PEM");
            prop_assert_eq!(found.iter().map(|found| found.to_vec()).collect::<Vec<_>>(), values);
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let path = Path::new("f.pem");
        let said = |error: PemError| error.to_string();
        assert!(said(certificates(path, b"").expect_err("none")).contains("BEGIN CERTIFICATE"));
        assert!(said(key(path, b"-----BEGIN ENCRYPTED PRIVATE KEY-----").expect_err("none")).contains("unencrypted"));
        assert!(said(key(path, b"nothing").expect_err("none")).contains("f.pem: no private key"));
        assert!(said(read("/nonexistent/x".as_ref()).expect_err("none")).starts_with("/nonexistent/x: "));
    }
}
