//! Files that the policy names for TLS: an authority of the user's, more roots, certificates for the client's side.
//!
//! Called by `parse` and `rule`. It promises that what belongs together is given together. The files are not opened here:
//! a policy is read on machines that do not have them. `check` does open them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::error::{Report, quote};
use super::read::{Field, Reader};
use super::types::{Policy, Rule};

/// What its files are.
const PEM: &str = "a PEM file";

/// A certificate and the key that belongs to it, as files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// PEM: the certificate, then those above it.
    pub certificate: PathBuf,
    /// PEM: the private key.
    pub key: PathBuf,
}

/// `tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authority to sign with; none for one that pipelock makes and keeps.
    pub authority: Option<KeyPair>,
    /// PEM files with roots to trust besides the system's.
    pub extra_roots: Vec<PathBuf>,
}

impl Tls {
    pub(super) fn read(report: &mut Report, tls: &Reader<'_>) -> Self {
        let mut extra_roots = Vec::new();
        for item in tls.items(report, "extra_roots") {
            extra_roots.extend(path(report, &item, PEM));
        }
        Self { authority: pair(report, tls, "ca_cert", "ca_key"), extra_roots }
    }

    /// Its canonical form; none when it says nothing.
    pub(super) fn canonical(&self) -> Option<Value> {
        let mut value = Map::new();
        if let Some(KeyPair { certificate, key }) = &self.authority {
            value.insert("ca_cert".into(), json!(certificate));
            value.insert("ca_key".into(), json!(key));
        }
        if !self.extra_roots.is_empty() {
            value.insert("extra_roots".into(), json!(self.extra_roots));
        }
        (!value.is_empty()).then_some(value.into())
    }
}

impl Policy {
    /// A file that the policy names: relative to the folder of the policy file, when there is one.
    #[must_use]
    pub fn locate(&self, path: &Path) -> PathBuf {
        match self.file().and_then(Path::parent) {
            Some(folder) => folder.join(path),
            None => path.to_owned(),
        }
    }
}

/// Two keys that only make sense together.
pub(super) fn pair(report: &mut Report, reader: &Reader<'_>, certificate: &str, key: &str) -> Option<KeyPair> {
    let fields = (reader.get(certificate), reader.get(key));
    if let (Some(alone), None) | (None, Some(alone)) = &fields {
        alone.wrong(report, format!("{certificate} and {key} belong together"), "write both, or neither");
    }
    let read = |report: &mut Report, field: Option<Field<'_>>| field.and_then(|field| path(report, &field, PEM));
    let (certificate, key) = (read(report, fields.0), read(report, fields.1));
    Some(KeyPair { certificate: certificate?, key: key? })
}

pub(super) fn path(report: &mut Report, field: &Field<'_>, what: &str) -> Option<PathBuf> {
    let text = field.text(report, &format!("the path of {what}"))?;
    if text.is_empty() || text.len() > 4096 || text.contains('\0') {
        field.wrong(report, format!("{} is not a path", quote(text)), format!("write the path of {what}"));
        return None;
    }
    if text.starts_with("-----BEGIN") {
        field.wrong(report, "expected the path of a file, found its content", "write it to a file, and the path here");
        return None;
    }
    Some(PathBuf::from(text))
}
impl Rule {
    /// The certificate to show to destinations that ask for one.
    #[must_use]
    pub fn client_certificate(&self) -> Option<&KeyPair> {
        self.client.as_ref()
    }
}
