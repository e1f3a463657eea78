//! `detect CORPUS [TREE…]`: how much is found, and how much is found in vain, set by set, beside peers on the same sets.
//!
//! CORPUS is a folder with `*.jsonl` of {text, label} and `egress-bench/*/*.json`; it is no part of the project. Our own
//! phrases (pipelock-user/scan/tests/held_out) are measured with it. Each TREE is a folder of source text, where next to
//! everything that is found is found in vain.

mod cases;
mod peers;
mod sets;
mod trees;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use pipelock_scan::{RuleSet, Scanner};

pub(crate) fn run(corpus: &Path, folders: &[&str]) -> Result<()> {
    let home = std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")?;
    let folder = tempfile::tempdir()?;
    let scanner = Scanner::cached(RuleSet::shipped()?, &[0; 32], &folder.path().join("rules"))?;
    let peers = peers::Peers::install(&home.join(".cache/pipelock/detect-peers"))?;
    let table = format!(
        "# What is found, and what in vain\n\n{}\n{}\n{}{}",
        sets::table(&scanner, &peers, corpus)?,
        cases::table(&scanner, &corpus.join("egress-bench"))?,
        trees::table(&scanner, &peers, folders)?,
        peers.remarks(),
    );
    println!("{table}");
    let results = Path::new("bench/results");
    if results.is_dir() {
        std::fs::write(results.join("detect.md"), table)?;
    }
    Ok(())
}

/// `part` of `all` in percent.
fn percent(part: usize, all: usize) -> String {
    format!("{part}/{all} = {:.1} %", 100.0 * part as f64 / all.max(1) as f64)
}
