//! Compiled rules on disk, so that only the first start pays for compiling. Called by [`crate::Scanner::cached`].
//!
//! The file's name is a hash of the rules, of the code that writes them for vectorscan, of vectorscan's version and the
//! processor's features; its content is checked by vectorscan's own checksums. What does not fit is compiled again and
//! replaced. Compiled rules are as good as code, so a folder or a file that another user may write is not read.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use pipelock_hs::Database;
use sha2::{Digest as _, Sha256};

use super::EngineError;
use super::sparse::Sparse;
use super::vector::Vector;
use crate::rule::RuleSet;

const MAGIC: &[u8; 8] = b"plscan5\n";
const HEADER: usize = 8 + 8 + 8 + 32;

/// Loads the compiled rules from `folder`, or compiles and stores them.
pub(crate) fn load_or_compile(rules: &RuleSet, folder: &Path) -> Result<Vector, EngineError> {
    let path = folder.join(name(rules)?);
    if let Some(engine) = load(rules.rules().len(), folder, &path) {
        return Ok(engine);
    }
    let engine = Vector::compile(rules.rules())?;
    // Without the file the next start compiles again: slower, not wrong.
    let _ = store(folder, &path, &engine);
    Ok(engine)
}

fn name(rules: &RuleSet) -> Result<PathBuf, EngineError> {
    let mut hash = Sha256::new();
    hash.update(MAGIC);
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(env!("ENGINE_SOURCES"));
    hash.update(pipelock_hs::platform()?);
    hash.update(rules.digest());
    let hash = hash.finalize();
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("rules-{hex}.db").into())
}

/// Only this user, or root, may have written it.
fn ours(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| {
        let me = fs::metadata("/proc/self").map(|own| own.uid()).unwrap_or(u32::MAX);
        !meta.file_type().is_symlink() && (meta.uid() == me || meta.uid() == 0) && meta.mode() & 0o022 == 0
    })
}

fn load(count: usize, folder: &Path, path: &Path) -> Option<Vector> {
    if !ours(folder) || !ours(path) {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (header, body) = bytes.split_at_checked(HEADER)?;
    let number = |at: usize| usize::try_from(u64::from_le_bytes(header[at..at + 8].try_into().ok()?)).ok();
    let (database, sparse) = body.split_at_checked(number(8)?)?;
    if header[..8] != *MAGIC || sparse.len() != number(16)? || header[24..] != Sha256::digest(sparse)[..] {
        return None;
    }
    let sparse = sparse.chunks(Sparse::STORED).map(Sparse::read).collect::<Option<Vec<_>>>()?;
    Some(Vector::of(count, sparse, Database::deserialize(database).ok()?))
}

fn store(folder: &Path, path: &Path, engine: &Vector) -> Result<(), io::Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if !ours(folder) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let database = engine.database().serialize().map_err(io::Error::other)?;
    // Written aside and moved, so that a reader never sees half of it.
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let mut sparse = Vec::new();
    engine.sparse().iter().for_each(|rule| rule.store(&mut sparse));
    let sizes: Vec<u8> = [&database, &sparse].iter().flat_map(|part| (part.len() as u64).to_le_bytes()).collect();
    let check = Sha256::digest(&sparse);
    let parts = [MAGIC, &sizes[..], &check, &database, &sparse];
    let written = parts.iter().try_for_each(|part| file.write_all(part));
    let result = written.and_then(|()| fs::rename(&aside, path));
    if result.is_err() {
        let _ = fs::remove_file(&aside);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> RuleSet {
        let text = "rules: [{id: a, name: a, kind: dlp, class: credential, severity: low, pattern: 'key-[a-z]{4}'}, \
                    {id: b, name: b, kind: dlp, class: credential, severity: low, pattern: '[0-9]{16}'}]";
        RuleSet::read(&[("test", text)]).unwrap()
    }

    #[test]
    fn what_is_stored_is_used_and_what_is_spoilt_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("cache");
        load_or_compile(&rules(), &folder).unwrap();
        let path = folder.join(name(&rules()).unwrap());
        let good = fs::read(&path).unwrap();
        assert!(load(2, &folder, &path).is_some());
        for at in [0, 10, 18, 26, 40, HEADER, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, bad).unwrap();
            assert!(load(2, &folder, &path).is_none(), "{at}");
        }
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        load_or_compile(&rules(), &folder).unwrap();
        assert_eq!(fs::read(&path).unwrap(), good);
    }

    #[test]
    fn what_others_may_write_is_not_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        load_or_compile(&rules(), folder.path()).unwrap();
        let path = folder.path().join(name(&rules()).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(load(2, folder.path(), &path).is_none());
    }
}
