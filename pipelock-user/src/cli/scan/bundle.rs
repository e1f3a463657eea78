//! Bundles of rules in files: FILE, and in FILE.sig the signature over its bytes. Called by the verbs `scan` and `sign`.
//!
//! Promises: what was signed here is taken there; a version lower than the highest that was seen, which is remembered in
//! the state folder, is refused, and so are other contents under the same version, and everything when that memory cannot be
//! read.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pipelock_receipt::bind::sha256_hex;
use pipelock_receipt::codec::unhex;
use pipelock_receipt::{PublicKey, SigningKey};
use pipelock_scan::RuleSet;
use pipelock_scan::rule::bundle::{Bundle, MOST_BYTES, VerifyingKey};

use super::super::files::read;
use super::super::{Failure, files, output};
use crate::app::folders;

/// Checks the bundle in `file` and writes its signature; gives the path of that.
pub(in super::super) fn sign(file: &Path, key: &SigningKey) -> Result<PathBuf, Failure> {
    let bytes = read(file, MOST_BYTES as u64)?;
    let hex = key.sign_hex(&bytes);
    let signature = unhex(&hex).ok_or_else(|| Failure::usage("the key made no Ed25519 signature"))?;
    let bundle = verify(file, &bytes, &signature, &verifying(&key.public())?)?;
    bundle.add_to(RuleSet::shipped()?).map_err(Failure::usage)?;
    let beside = beside(file);
    files::replace(&beside, &(hex + "\n"))?;
    Ok(beside)
}

/// Reads and verifies a bundle; FILE.sig holds the signature: 64 bytes, or 128 hex digits.
pub(super) fn load(file: &Path, key: &str) -> Result<Bundle, Failure> {
    let bytes = read(file, MOST_BYTES as u64)?;
    let beside = beside(file);
    let signature = read(&beside, 1024)?;
    let signature: [u8; 64] = match <[u8; 64]>::try_from(signature.as_slice()) {
        Ok(signature) => signature,
        Err(_) => std::str::from_utf8(&signature)
            .ok()
            .and_then(|text| unhex(&text.trim().to_ascii_lowercase()))
            .ok_or_else(|| {
                Failure::usage(format!("{}: not an Ed25519 signature of 64 bytes or 128 hex digits", beside.display()))
            })?,
    };
    let key = PublicKey::parse(key).or_else(|_| PublicKey::load(Path::new(key))).map_err(Failure::usage)?;
    let key = verifying(&key)?;
    let bundle = verify(file, &bytes, &signature, &key)?;
    // The highest version seen is remembered, so that an old bundle is not taken for a new one.
    let folder = folders::state().join("bundles");
    let memory = folder.join(bundle.name());
    let (seen, digest) = seen(&memory)?;
    bundle.check_seen(seen).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
    let own = sha256_hex(&bytes);
    if bundle.version() == seen && digest.as_ref().is_some_and(|digest| *digest != own) {
        return Err(Failure::usage(format!(
            "{}: version {seen} was seen with other contents: a change needs a higher monotonic_version",
            file.display()
        )));
    }
    if bundle.version() > seen || digest.is_none() {
        let line = format!("{} {own}\n", bundle.version());
        let stored = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&memory, line));
        if let Err(error) = stored {
            output::note(&format!("warning: {}: {error}: an older bundle will not be noticed", memory.display()));
        }
    }
    Ok(bundle)
}

/// The highest version seen so far, 0 when there was none, and the SHA-256 of the bundle that had it, as far as it was noted.
fn seen(memory: &Path) -> Result<(u64, Option<String>), Failure> {
    let parse = |text: &str| {
        let mut words = text.split_ascii_whitespace();
        let version = words.next()?.parse().ok()?;
        let digest = words.next().map(str::to_owned);
        words.next().is_none().then_some((version, digest))
    };
    match std::fs::read_to_string(memory) {
        Ok(text) => parse(&text).ok_or_else(|| {
            Failure::usage(format!(
                "{}: not the number of the newest version seen: write it there, or remove the file",
                memory.display()
            ))
        }),
        // A folder that is none is said when the version is to be stored.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok((0, None)),
        Err(error) => Err(Failure::usage(format!("{}: {error}", memory.display()))),
    }
}

fn verify(file: &Path, bytes: &[u8], signature: &[u8; 64], key: &VerifyingKey) -> Result<Bundle, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |time| time.as_secs());
    Bundle::verify(bytes, signature, std::slice::from_ref(key), now)
        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

fn verifying(key: &PublicKey) -> Result<VerifyingKey, Failure> {
    let key = unhex(&key.hex()).and_then(|key| VerifyingKey::from_bytes(&key).ok());
    key.ok_or_else(|| Failure::usage("not an Ed25519 key"))
}

fn beside(file: &Path) -> PathBuf {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".sig");
    PathBuf::from(beside)
}
