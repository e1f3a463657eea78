//! Source trees: what the engine and its peers find where there is next to nothing to find.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use pipelock_scan::{Kind, Scanner};

use super::peers::Peers;

/// Larger files are left out, as are those with a zero byte at their beginning.
const LARGEST: u64 = 4 << 20;

/// Findings in each of `folders`, and the distinct secrets with their places.
///
/// # Errors
/// When the engine fails.
pub(super) fn table(scanner: &Scanner, peers: &Peers, folders: &[&str]) -> Result<String> {
    let mut table = "## Source trees\n\nSecrets: different ones. Injections: findings.\n\n\
                     | tree | MB | secrets | per 20 MB | injections | detect-secrets | gitleaks | kingfisher |\n|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    let mut list = String::new();
    for folder in folders {
        let mut files = Vec::new();
        walk(Path::new(folder), &mut files);
        let (mut bytes, mut injections) = (0, 0);
        let mut secrets: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in &files {
            let Ok(text) = std::fs::read(file) else { continue };
            if text.get(..text.len().min(8192)).unwrap_or_default().contains(&0) {
                continue;
            }
            bytes += text.len();
            for finding in scanner.scan(&text)? {
                let place = format!("{}:{}", file.display(), finding.span.start);
                match finding.kind {
                    Kind::Dlp => {
                        let key = format!("{} {} {}", finding.rule, finding.excerpt, finding.fingerprint);
                        secrets.entry(key).or_default().insert(place);
                    }
                    Kind::Injection => {
                        injections += 1;
                        writeln!(list, "- {place}: {} ({})", finding.rule, finding.excerpt.replace('`', "'"))?;
                    }
                }
            }
        }
        for (secret, places) in &secrets {
            let mut words = secret.split(' ');
            let (rule, excerpt) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            writeln!(list, "- {}: {rule} ({excerpt})", places.first().map_or("", String::as_str))?;
        }
        let mega = bytes as f64 / 1e6;
        let per = secrets.len() as f64 * 20.0 / mega.max(0.001);
        write!(table, "| {folder} | {mega:.0} | {} | {per:.2} | {injections} |", secrets.len())?;
        peers.secrets(Path::new(folder)).iter().for_each(|count| table.push_str(&format!(" {count} |")));
        table.push('\n');
    }
    Ok(format!("{table}\n<details><summary>All of ours</summary>\n\n{list}\n</details>\n"))
}

fn walk(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(kind) = path.symlink_metadata() else { return };
    if kind.is_file() && kind.len() <= LARGEST {
        files.push(path.to_owned());
    } else if kind.is_dir() {
        let mut entries: Vec<_> =
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| walk(entry, files));
    }
}
