//! Runs every rule over folders and prints what it finds, by rule: `cargo run --release --example false_alarms DIR…`.
//!
//! For whoever writes rules: source trees hold few secrets, so nearly every line printed is a false alarm to explain.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const LARGEST: u64 = 4 << 20;
const CHUNK: usize = 64 << 10;
const OVERLAP: usize = 2 << 10;

type Found = BTreeMap<String, BTreeMap<Vec<u8>, BTreeSet<PathBuf>>>;

fn main() {
    let rules = common::load();
    let mut found = Found::new();
    let mut bytes = 0u64;
    for folder in std::env::args().skip(1) {
        walk(Path::new(&folder), &mut |path| {
            let Ok(text) = std::fs::read(path) else { return };
            if text[..text.len().min(8192)].contains(&0) {
                return;
            }
            bytes += text.len() as u64;
            let mut start = 0;
            while start < text.len() {
                let chunk = &text[start..text.len().min(start + CHUNK + OVERLAP)];
                for rule in &rules {
                    for secret in rule.find(chunk) {
                        let by_rule = found.entry(rule.rule.id.clone()).or_default();
                        by_rule.entry(secret.to_vec()).or_default().insert(path.to_path_buf());
                    }
                }
                start += CHUNK;
            }
        });
    }
    let mut total = 0;
    for (rule, secrets) in &found {
        println!(
            "{rule}: {} different in {} places",
            secrets.len(),
            secrets.values().map(BTreeSet::len).sum::<usize>()
        );
        for (secret, paths) in secrets {
            let shown: String = String::from_utf8_lossy(secret).escape_debug().take(100).collect();
            println!(
                "    {shown}  {} ({})",
                paths.iter().next().map(|path| path.display().to_string()).unwrap_or_default(),
                paths.len()
            );
        }
        total += secrets.len();
    }
    println!("{total} different findings in {} MB: {:.2} per 20 MB", bytes >> 20, total as f64 * 20e6 / bytes as f64);
}

fn walk(path: &Path, file: &mut dyn FnMut(&Path)) {
    let Ok(kind) = std::fs::symlink_metadata(path) else { return };
    if kind.is_file() && kind.len() <= LARGEST {
        file(path);
    } else if kind.is_dir() {
        let Ok(entries) = std::fs::read_dir(path) else { return };
        let mut entries: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        entries.sort();
        entries.iter().for_each(|entry| walk(entry, file));
    }
}
