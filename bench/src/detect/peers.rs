//! Peers of detection, installed from their registries into a folder of the cache; one that does not install is left out
//! and said. For secrets: detect-secrets, gitleaks, kingfisher. For injections there are a few packages of patterns that
//! run without a model; the better known guards (llm-guard, PromptGuard, PIGuard) load weights from a hub and cannot run
//! offline.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

const PACKAGES: &[&str] = &["detect-secrets", "kingfisher-bin", "clawguard-core", "ai-injection-guard"];
const GITLEAKS: &str = "github.com/zricethezav/gitleaks/v8@v8.30.1";

/// The peers that are there.
pub(super) struct Peers {
    folder: PathBuf,
    missing: RefCell<Vec<String>>,
}

impl Peers {
    /// Installs what is missing in `folder`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(super) fn install(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let peers = Self { folder: folder.to_owned(), missing: RefCell::default() };
        let venv = folder.join("venv");
        if !venv.join("bin/python").exists() {
            peers.attempt("Python", Command::new("python3").args(["-m", "venv"]).arg(&venv));
        }
        for package in PACKAGES {
            let mut pip = Command::new(venv.join("bin/python"));
            peers.attempt(
                package,
                pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]),
            );
        }
        if !folder.join("bin/gitleaks").exists() {
            peers.attempt("gitleaks", Command::new("go").args(["install", GITLEAKS]).env("GOBIN", folder.join("bin")));
        }
        Ok(peers)
    }

    fn attempt(&self, name: &str, command: &mut Command) {
        let why = match command.output() {
            Ok(done) if done.status.success() => return,
            Ok(done) => String::from_utf8_lossy(&done.stderr).lines().last().unwrap_or_default().to_owned(),
            Err(error) => error.to_string(),
        };
        self.missing.borrow_mut().push(format!("{name} ({why})"));
    }

    /// For each peer for injections, how many texts of each file it reports.
    pub(super) fn injections(&self, files: &[PathBuf]) -> Vec<(String, Vec<usize>)> {
        let mut python = Command::new(self.folder.join("venv/bin/python"));
        let Ok(done) = python.args(["-c", include_str!("peers.py")]).args(files).output() else { return Vec::new() };
        let mut found = Vec::new();
        for line in String::from_utf8_lossy(&done.stdout).lines() {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default().to_owned();
            match words.map(str::parse).collect() {
                Ok(counts) => found.push((name, counts)),
                Err(_) => self.missing.borrow_mut().push(line.to_owned()),
            }
        }
        found
    }

    /// How many secrets detect-secrets, gitleaks and kingfisher report in a folder.
    pub(super) fn secrets(&self, folder: &Path) -> [String; 3] {
        let bin = self.folder.join("venv/bin");
        let mut detect = Command::new(bin.join("detect-secrets"));
        detect.args(["-c", "1", "scan", "--no-verify", "--all-files", "."]);
        let mut gitleaks = Command::new(self.folder.join("bin/gitleaks"));
        gitleaks.args(["dir", "--no-banner", "--log-level", "error", "--report-format", "json", "--report-path", "-"]);
        gitleaks.arg(folder);
        let mut kingfisher = Command::new(bin.join("kingfisher"));
        kingfisher.args(["scan", "--quiet", "--jobs", "1", "--no-validate", "--no-update-check", "--format", "json"]);
        kingfisher.arg(folder);
        [
            count(folder, &detect, "\"hashed_secret\""),
            count(folder, &gitleaks, "\"Fingerprint\""),
            count(folder, &kingfisher, "\"fingerprint\""),
        ]
    }

    /// What is missing, as a paragraph.
    pub(super) fn remarks(&self) -> String {
        let missing = self.missing.borrow();
        if missing.is_empty() { String::new() } else { format!("\nNot installed: {}.\n", missing.join(", ")) }
    }
}

/// Longest that a peer may take for a tree, in seconds.
const PATIENCE: &str = "600";

/// How often `key` is in what the program prints.
fn count(folder: &Path, program: &Command, key: &str) -> String {
    // detect-secrets looks at what is below its working directory only.
    let mut limited = Command::new("timeout");
    limited.arg(PATIENCE).arg(program.get_program()).args(program.get_args()).current_dir(folder);
    match limited.output() {
        Ok(done) if done.status.code() == Some(124) => "too slow".to_owned(),
        Ok(done) => String::from_utf8_lossy(&done.stdout).matches(key).count().to_string(),
        Err(_) => "–".to_owned(),
    }
}
