//! The findings of an earlier run, which are not told again. Called by the verb and its report.
//!
//! A finding is known by its file, its rule and the fingerprint of its secret, so that the lines around it may move and a secret that
//! comes anew, or in another file, is told. Fingerprints can be compared only under one key: `--fingerprint-key`.
//! Format: what `pipelock scan --json` prints, one finding a line.

use std::collections::HashMap;
use std::path::Path;

use pipelock_scan::Finding;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::super::Failure;
use super::super::files::read;

/// Longest file of findings, in bytes.
const MOST: u64 = 64 << 20;
/// Longest and shortest file with a key, in bytes.
const MOST_KEY: u64 = 1 << 16;
const LEAST_KEY: usize = 16;

#[derive(Debug, Deserialize, PartialEq, Eq, Hash)]
struct Known {
    path: String,
    rule: String,
    fingerprint: String,
}

/// Findings that are known, and whether they were seen again.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    known: HashMap<Known, bool>,
}

impl Baseline {
    /// Reads the findings of an earlier run.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is larger than 64 MiB, or has a line that is no finding.
    pub(super) fn load(file: &Path) -> Result<Self, Failure> {
        let text = read(file, MOST)?;
        let mut known = HashMap::new();
        for (line, at) in text.split(|byte| *byte == b'\n').zip(1u64..) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let finding: Known = serde_json::from_slice(line).map_err(|error| {
                Failure::usage(format!(
                    "--baseline {}, line {at}: {error}: not what `pipelock scan --json` prints",
                    file.display()
                ))
            })?;
            known.insert(finding, false);
        }
        Ok(Self { known })
    }

    /// Is the finding known?
    pub(super) fn has(&mut self, path: &str, finding: &Finding) -> bool {
        let key = Known {
            path: path.to_owned(),
            rule: finding.rule.as_ref().to_owned(),
            fingerprint: finding.fingerprint.to_string(),
        };
        self.known.get_mut(&key).is_some_and(|seen| {
            *seen = true;
            true
        })
    }

    /// How many were seen again, of how many.
    pub(super) fn seen(&self) -> (usize, usize) {
        (self.known.values().filter(|seen| **seen).count(), self.known.len())
    }
}

/// The key that a file holds: its SHA-256, so that whatever makes random bytes or letters can make one.
///
/// # Errors
///
/// When the file cannot be read, or is shorter than 16 bytes or longer than 64 KiB.
pub(super) fn key(file: &Path) -> Result<[u8; 32], Failure> {
    let text = read(file, MOST_KEY)?;
    let text = text.trim_ascii();
    if text.len() < LEAST_KEY {
        let name = file.display();
        return Err(Failure::usage(format!(
            "--fingerprint-key {name}: {} bytes are no key: make one with `head -c 32 /dev/urandom | base64 > {name}`",
            text.len()
        )));
    }
    Ok(Sha256::new_with_prefix(b"pipelock scan fingerprint key v1\0").chain_update(text).finalize().into())
}
