//! Ed25519 keys: made, kept in files, used for signing and verifying.
//!
//! The recorder signs with one [`SigningKey`] per run; the verifier pins one [`PublicKey`]. Nothing outside this crate
//! can have bytes of its choice signed: the signing methods are private to it, because a receipt key that signs
//! arbitrary 32 bytes could mint receipts.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, VerifyingKey};

use crate::codec::{base64, hex, unbase64, unhex};

const PRIVATE_HEADER: &str = "pipelock-ed25519-private-v1";
const PUBLIC_HEADER: &str = "pipelock-ed25519-public-v1";
/// DER of SubjectPublicKeyInfo for Ed25519 up to the 32 key bytes (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// DER of PKCS#8 v1 for Ed25519 up to the 32 seed bytes (RFC 8410 §7), as `openssl genpkey` writes it.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Group write, group execute, and everything for others.
const FORBIDDEN_MODE: u32 = 0o037;
/// A key file is under 200 bytes.
const MAX_KEY_FILE: u64 = 4096;

/// Why a key could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be opened, read or written.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The private key is open to others.
    #[error("key file {path} has mode {mode:03o}; others can use the key. Run: chmod 600 {path}")]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not in one of the private key formats.
    #[error(
        "this is not an Ed25519 private key: expected two lines, `{PRIVATE_HEADER}` and base64, or an unencrypted PKCS#8 PEM"
    )]
    Private,
    /// Not in one of the public key formats.
    #[error(
        "this is not an Ed25519 public key: expected 64 hex digits, `{PUBLIC_HEADER}` and base64, or a PEM `PUBLIC KEY`"
    )]
    Public,
    /// The kernel gave no random bytes.
    #[error("the system has no random numbers: {0}")]
    Random(getrandom::Error),
}

/// A private key. Never printed; wiped from memory when dropped.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A fresh random key.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the kernel gives no random bytes.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(KeyError::Random)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key that belongs to a 32-byte seed (RFC 8032).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Reads a key from its text: the two-line format, or an unencrypted PKCS#8 PEM.
    ///
    /// # Errors
    /// [`KeyError::Private`] for anything else, also when the stored public half does not belong to the seed.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if let Some(der) = pem(text, "PRIVATE KEY") {
            let seed =
                der.strip_prefix(&PKCS8_PREFIX).and_then(|seed| seed.try_into().ok()).ok_or(KeyError::Private)?;
            return Ok(Self::from_seed(seed));
        }
        let pair = two_lines(text, PRIVATE_HEADER).ok_or(KeyError::Private)?;
        let pair: &[u8; 64] = pair.as_slice().try_into().map_err(|_| KeyError::Private)?;
        ed25519_dalek::SigningKey::from_keypair_bytes(pair).map(Self).map_err(|_| KeyError::Private)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyError::Mode`] when the group may write it or others may do anything with it; otherwise as [`Self::parse`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // The mode of the file that is open, not of whatever has the name by now.
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & FORBIDDEN_MODE != 0 {
            return Err(KeyError::Mode { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text)
    }

    /// Writes the key in the two-line format to a new file of mode 0600.
    ///
    /// # Errors
    /// [`KeyError::Io`], also when the file exists: a key is never overwritten.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        let text = format!("{PRIVATE_HEADER}\n{}\n", base64(&self.0.to_keypair_bytes()));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|source| {
            // A part of a key, just made, is of no use and in the way of the next attempt.
            let _ = std::fs::remove_file(path);
            failed(source)
        })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs `message`; the text is 128 lower-case hex digits.
    #[must_use]
    pub fn sign_hex(&self, message: &[u8]) -> String {
        hex(&self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

/// A public key. Displayed as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads a key from its text: 64 hex digits, the two-line format, or a PEM `PUBLIC KEY`. Surrounding blanks are
    /// ignored.
    ///
    /// # Errors
    /// [`KeyError::Public`] for anything else, and for points that are not usable as a key.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if let Some(key) = unhex::<32>(&text.to_ascii_lowercase()) {
            return Self::from_bytes(&key).ok_or(KeyError::Public);
        }
        let key = match pem(text, "PUBLIC KEY") {
            Some(der) => der.strip_prefix(&SPKI_PREFIX).map(<[u8]>::to_vec),
            None => two_lines(text, PUBLIC_HEADER),
        };
        let key: [u8; 32] = key.and_then(|key| key.try_into().ok()).ok_or(KeyError::Public)?;
        Self::from_bytes(&key).ok_or(KeyError::Public)
    }

    /// Reads a key file, as [`Self::parse`].
    ///
    /// # Errors
    /// [`KeyError::Io`] and [`KeyError::Public`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::Io { path: path.to_owned(), source };
        let mut text = String::new();
        File::open(path).map_err(failed)?.take(MAX_KEY_FILE).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text)
    }

    /// The key with these 32 bytes; `None` for points off the curve and for the weak points every signature fits.
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(Self)
    }

    /// The key as 64 lower-case hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex(self.0.as_bytes())
    }

    /// The key as a SubjectPublicKeyInfo PEM, which openssl reads.
    #[must_use]
    pub fn pem(&self) -> String {
        let der = [SPKI_PREFIX.as_slice(), self.0.as_bytes()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", base64(&der))
    }

    /// True when `signature`, 128 lower-case hex digits, is this key's over `message`. Strict: no second signature
    /// text fits the same message and key.
    pub(crate) fn verify_hex(&self, message: &[u8], signature: &str) -> bool {
        unhex::<64>(signature)
            .is_some_and(|bytes| self.0.verify_strict(message, &Signature::from_bytes(&bytes)).is_ok())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

fn two_lines(text: &str, header: &str) -> Option<Vec<u8>> {
    unbase64(text.trim_end().strip_prefix(header)?.strip_prefix("\n")?)
}

/// The bytes of a PEM block with this label; `None` when the text is not such a block.
fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let body = text
        .trim()
        .strip_prefix(format!("-----BEGIN {label}-----").as_str())?
        .strip_suffix(format!("-----END {label}-----").as_str())?;
    unbase64(&body.split_ascii_whitespace().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "81c72059658159ed6c58ea6f5c74946d4bc1228ff393d6a241f3efd01037e050";
    const PUBLIC: &str = "2e32a46550e6f0778ba1474445bcea6ae13985e6c39d7a960c2c706350fc3318";
    const PRIVATE_FILE: &str = "pipelock-ed25519-private-v1\ngccgWWWBWe1sWOpvXHSUbUvBIo/zk9aiQfPv0BA34FAuMqRlUObwd4uhR0RFvOpq4TmF5sOdepYMLHBjUPwzGA==\n";

    #[test]
    fn every_spelling_of_a_public_key_is_the_same_key() {
        let key = SigningKey::from_seed(&unhex(SEED).unwrap()).public();
        assert_eq!(key.hex(), PUBLIC);
        for text in [
            PUBLIC.to_owned(),
            format!(" {}\n", PUBLIC.to_uppercase()),
            "pipelock-ed25519-public-v1\nLjKkZVDm8HeLoUdERbzqauE5hebDnXqWDCxwY1D8Mxg=\n".to_owned(),
            key.pem(),
        ] {
            assert_eq!(PublicKey::parse(&text).unwrap(), key, "{text}");
        }
        for bad in ["", "00", &"0".repeat(64), &key.pem().replace("MCow", "MCox"), &PUBLIC[1..]] {
            assert!(PublicKey::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn private_key_files_round_trip_and_must_be_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = SigningKey::from_seed(&unhex(SEED).unwrap());
        key.save(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), PRIVATE_FILE);
        assert_eq!(SigningKey::load(&path).unwrap().public(), key.public());
        assert!(key.save(&path).is_err(), "an existing key was overwritten");
        for (mode, fine) in [(0o640, true), (0o600, true), (0o660, false), (0o604, false), (0o610, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(SigningKey::load(&path).is_ok(), fine, "{mode:o}");
        }
        assert!(!format!("{key:?}").contains("81c720"));
    }

    #[test]
    fn private_keys_from_openssl_are_read_and_mismatched_halves_are_not() {
        let der = [PKCS8_PREFIX.as_slice(), &unhex::<32>(SEED).unwrap()].concat();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", base64(&der));
        assert_eq!(SigningKey::parse(&pem).unwrap().public().hex(), PUBLIC);
        let mut pair = SigningKey::parse(PRIVATE_FILE).unwrap().0.to_keypair_bytes();
        pair[40] ^= 1;
        assert!(SigningKey::parse(&format!("{PRIVATE_HEADER}\n{}\n", base64(&pair))).is_err());
        assert!(SigningKey::parse("").is_err());
    }
}
