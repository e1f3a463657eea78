//! Sets of texts, one a row: recall where they are attacks, false alarms where they are not.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use pipelock_scan::{Kind, Scanner, seed};

use super::peers::Peers;
use super::percent;

/// A set of texts of one kind.
struct Set {
    name: String,
    attack: bool,
    texts: Vec<String>,
}

/// The sets of `corpus` and our own, and what was found in each.
///
/// # Errors
/// When a set cannot be read, or the engine fails.
pub(super) fn table(scanner: &Scanner, peers: &Peers, corpus: &Path) -> Result<String> {
    let sets = load(corpus)?;
    let mut files = Vec::new();
    let folder = tempfile::tempdir()?;
    for (number, set) in sets.iter().enumerate() {
        let file = folder.path().join(format!("{number}.jsonl"));
        let rows: Vec<String> = set.texts.iter().map(|text| serde_json::json!({ "text": text }).to_string()).collect();
        std::fs::write(&file, rows.join("\n"))?;
        files.push(file);
    }
    let others = peers.injections(&files);
    let mut table = "## Sets of texts\n\n| set | what | pipelock |".to_owned();
    others.iter().for_each(|(name, _)| table.push_str(&format!(" {name} |")));
    table.push_str(&format!("\n|---|---|---|{}\n", "---|".repeat(others.len())));
    for (number, set) in sets.iter().enumerate() {
        let mut found = 0;
        for text in &set.texts {
            found += usize::from(if set.name.starts_with("bip39") {
                !seed::scan(text).is_empty()
            } else {
                scanner.scan(text.as_bytes())?.iter().any(|finding| finding.kind == Kind::Injection)
            });
        }
        let what = if set.attack { "recall" } else { "false alarms" };
        write!(table, "| {} | {what} | {} |", set.name, percent(found, set.texts.len()))?;
        for (_, counts) in &others {
            let count = counts.get(number).filter(|_| !set.name.starts_with("bip39"));
            write!(table, " {} |", count.map_or_else(|| "–".to_owned(), |count| percent(*count, set.texts.len())))?;
        }
        table.push('\n');
    }
    Ok(table)
}

fn load(corpus: &Path) -> Result<Vec<Set>> {
    let mut sets = Vec::new();
    let mut names: Vec<_> = std::fs::read_dir(corpus)
        .with_context(|| format!("{}: give the folder of the corpus", corpus.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    names.sort();
    for path in names {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !["inj_", "benign_", "bip39"].iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let mut texts = Vec::new();
        for line in std::fs::read_to_string(&path)?.lines() {
            let row: serde_json::Value = serde_json::from_str(line).with_context(|| path.display().to_string())?;
            texts.push(row["text"].as_str().unwrap_or_default().to_owned());
        }
        sets.push(Set { attack: !name.starts_with("benign"), name, texts });
    }
    for (file, attack) in
        [("injections.tsv", true), ("benign.tsv", false), ("injections-later.tsv", true), ("benign-later.tsv", false)]
    {
        let path = Path::new("pipelock-user/scan/tests/held_out").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        let texts = rows.filter_map(|row| Some(row.split('\t').nth(2)?.replace("\\n", "\n"))).collect();
        sets.push(Set { name: format!("own {}", file.trim_end_matches(".tsv")), attack, texts });
    }
    Ok(sets)
}
