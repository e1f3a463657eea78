//! Starting programs and talking to the person; used by every task.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigHandler, Signal};

/// A line of progress, on stderr.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "xtask: {text}");
}

/// A line of the result, on stdout.
pub(crate) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// The root of the workspace that this xtask belongs to.
pub(crate) fn root() -> PathBuf {
    // Set by `cargo run`; the other is for an xtask that is started directly.
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The target folder that cargo uses here.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let text = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).context("cargo metadata")?;
    let folder = metadata.get("target_directory").and_then(|folder| folder.as_str());
    Ok(folder.context("cargo metadata names no target_directory")?.into())
}

/// Cargo, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Of the `cargo run` that started us: they would make the inner cargo build again what it has.
    for (name, _) in std::env::vars_os() {
        let ours =
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST"));
        if ours {
            command.env_remove(name);
        }
    }
    command
}

/// Builds `pipelock` (debug) and returns where it is.
pub(crate) fn build_pipelock() -> Result<PathBuf> {
    say("building pipelock");
    check(cargo().args(["build", "--package", "pipelock-user", "--bin", "pipelock"]))?;
    Ok(target_dir()?.join("debug/pipelock"))
}

/// Runs it; its stdout goes to stderr, which leaves ours to the result.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    let stderr = std::io::stderr();
    let out = std::os::fd::AsFd::as_fd(&stderr).try_clone_to_owned().context("stderr")?;
    command.stdout(out).status().with_context(|| shown(command))
}

/// Runs it like [`status`] and fails when it does.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{}: {status}", shown(command));
    }
    Ok(())
}

/// Runs it and returns its stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let done = command.stderr(Stdio::inherit()).output().with_context(|| shown(command))?;
    if !done.status.success() {
        bail!("{}: {}", shown(command), done.status);
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Runs it, shows its stdout on stderr as it comes, and gives every line to `each`. For test runners.
pub(crate) fn watch(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    // Under nohup, or in the background of a script, signals are ignored, and what is ignored is inherited: tests of signals
    // would wait for ever.
    let reset = || {
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: the default action is no handler that could run at a bad moment.
            unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec nothing is called but signal(2), which is safe there.
    unsafe { command.pre_exec(reset) };
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| shown(command))?;
    let stdout = child.stdout.take().context("no stdout")?;
    for bytes in BufReader::new(stdout).split(b'\n') {
        let bytes = bytes.context("reading its output")?;
        let text = String::from_utf8_lossy(&bytes);
        let _ = writeln!(std::io::stderr().lock(), "{text}");
        each(&text);
    }
    child.wait().with_context(|| shown(command))
}

/// The command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// True when this program is in PATH.
pub(crate) fn has(program: &str) -> bool {
    find(program).is_some()
}

/// Where this program is, in PATH or where root's programs are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
}

/// True when we are root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// True when nobody is there to read a hint: then what is skipped is a failure.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true" || value == "1")
}

/// Fails with the one command that runs `task` as root.
pub(crate) fn need_root(task: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    // sudo forgets PATH, in which cargo is.
    bail!("{task} loads programs into the kernel and needs root:\n  sudo env \"PATH=$PATH\" cargo xtask {task}");
}

/// Every file below `folder`, sorted by path.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
