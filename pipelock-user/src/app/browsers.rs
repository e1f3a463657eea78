//! Makes browsers trust the authority, which heed neither variables nor the system's bundle: a policy of theirs, in a layer over
//! the folder in which each looks for what its administrators say.
//!
//! Called by `trust`, which holds the files; `sandbox` lays them over the folders, in the agent's mounts alone.

use std::io;
use std::path::{Path, PathBuf};

use super::made::Folder;
use super::trust::OPEN;

/// Folders that are there when a browser is, or on every system, and where below them it looks for policies (Chromium's
/// `chrome_paths.cc`): Chromium; Chrome, Chrome for Testing and Edge; Brave.
const BROWSERS: [(&str, &[&str]); 3] = [
    ("/etc/chromium", &["policies/managed"]),
    ("/etc/opt", &["chrome/policies/managed", "chrome_for_testing/policies/managed", "edge/policies/managed"]),
    ("/etc/brave", &["policies/managed"]),
];
/// Of several files that say the same the last one counts.
const FILE: &str = "zz-pipelock.json";

/// Writes the layers into a folder that was opened at `path`: each, and the folder that it is to be laid over.
///
/// # Errors
/// When they cannot be written.
pub(super) fn write((folder, path): (&Folder, &Path), added: &str) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let policy = policy(added);
    let mut layers = Vec::new();
    for (place, below) in BROWSERS.iter().filter(|(place, _)| Path::new(place).is_dir()) {
        let name = format!("browsers{}", place.replace('/', "-"));
        let layer = folder.make(name.as_ref(), OPEN)?;
        for below in *below {
            let mut names = Path::new(below).iter();
            let Some(first) = names.next() else { continue };
            let first = layer.make(first, OPEN)?;
            let last = names.try_fold(first, |above, name| above.make(name, OPEN))?;
            last.put(FILE, policy.as_bytes())?;
        }
        layers.push((path.join(name), PathBuf::from(place)));
    }
    Ok(layers)
}

/// The policy `CACertificates`: certificates to trust besides others, as base64 of their DER, which is what PEM holds.
fn policy(added: &str) -> String {
    let bodies = added.split("-----BEGIN CERTIFICATE-----").skip(1);
    let certificates: Vec<String> = bodies
        .filter_map(|rest| rest.split("-----END CERTIFICATE-----").next())
        .map(|body| body.split_ascii_whitespace().collect())
        .collect();
    serde_json::json!({ "CACertificates": certificates }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::CertificateAuthority;

    #[test]
    fn the_policy_names_each_certificate() {
        let (one, other) = (CertificateAuthority::for_now(), CertificateAuthority::for_now());
        let (one, other) = (one.expect("an authority").pem(), other.expect("an authority").pem());
        let value: serde_json::Value = serde_json::from_str(&policy(&format!("{one}{other}"))).expect("JSON");
        let named = value["CACertificates"].as_array().expect("a list");
        assert_eq!(named.len(), 2);
        for (named, pem) in named.iter().zip([one, other]) {
            let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
            assert_eq!(named.as_str(), Some(body.as_str()));
        }
    }
}
