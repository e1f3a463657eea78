//! Where the real clients are, and what happens when one is missing.
//!
//! Used by the `need!` macro and by tests that run Python. It promises that a missing client is a failure in CI and
//! never a silent pass elsewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Where programs are looked for: what an unprivileged user can reach, so no folders of root's.
pub(crate) const PATH: &str = "/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/// The file that a program's name stands for.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.exists());
    }
    PATH.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

/// Says that a client is missing.
///
/// # Panics
/// In CI (`CI=true`), where every client has to be there.
pub fn missing(what: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{what} is missing, and CI has to have it");
    eprintln!("SKIP: {what} is missing; `cargo xtask setup --e2e` installs it");
}

/// Programs written in Go: built once, where every user can run them, a folder for each version.
const GO_FOLDER: &str = "/var/cache/pipelock-e2e/go";

/// A program of a Go module in one version; builds it when it is not there. None, as [`missing`] has it, when that fails.
pub fn go_tool(module: &str, version: &str) -> Option<String> {
    static BUILDING: Mutex<()> = Mutex::new(());
    let _alone = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let name = module.rsplit('/').next()?;
    let folder = format!("{GO_FOLDER}/{name}-{version}");
    let program = format!("{folder}/{name}");
    if !Path::new(&program).exists() {
        let _ = fs::create_dir_all(&folder);
        let Some(go) = find("go") else {
            missing("go");
            return None;
        };
        let built = Command::new(go).arg("install").arg(format!("{module}@{version}")).env("GOBIN", &folder).output();
        let said = built.map(|built| String::from_utf8_lossy(&built.stderr).into_owned()).unwrap_or_default();
        if !Path::new(&program).exists() {
            eprintln!("{module}@{version} could not be built: {said}");
            missing(name);
            return None;
        }
        let _ = fs::set_permissions(GO_FOLDER, fs::Permissions::from_mode(0o755));
        let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(0o755));
        let _ = fs::set_permissions(&program, fs::Permissions::from_mode(0o755));
    }
    Some(program)
}

/// Where `cargo xtask setup --e2e` puts Python modules that the system may not have; every user can read it.
const PYTHON_FOLDER: &str = "/var/cache/pipelock-e2e/python";

/// What to put into PYTHONPATH so that `requests`, `aiohttp`, `grpc`, `httpx` and `websockets` are found.
#[must_use]
pub fn python_path() -> &'static str {
    PYTHON_FOLDER
}

/// Whether Python can import a module (with [`python_path`]).
#[must_use]
pub fn has_python_module(module: &str) -> bool {
    Command::new("/usr/bin/python3")
        .args(["-c", &format!("import {module}")])
        .env("PYTHONPATH", python_path())
        .output()
        .is_ok_and(|out| out.status.success())
}

/// Where `cargo xtask setup --e2e` puts packages of npm; every user can read it.
const NODE_FOLDER: &str = "/var/cache/pipelock-e2e/node/node_modules";

/// What to put into NODE_PATH so that `undici`, `ws` and `https-proxy-agent` are found.
#[must_use]
pub fn node_path() -> &'static str {
    NODE_FOLDER
}

/// Whether Node.js finds a package (with [`node_path`]).
#[must_use]
pub fn has_node_module(module: &str) -> bool {
    Path::new(NODE_FOLDER).join(module).join("package.json").exists()
}

/// schemathesis, which tests an API by its contract, from where `cargo xtask setup --e2e` puts it. None, as [`missing`] has it,
/// when it is not there.
pub fn schemathesis() -> Option<PathBuf> {
    let program = PathBuf::from("/var/cache/pipelock-e2e/schemathesis/bin/schemathesis");
    if !program.exists() {
        missing("schemathesis");
        return None;
    }
    Some(program)
}
