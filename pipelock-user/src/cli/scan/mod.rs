//! `pipelock scan`: looks for secrets and injections in files, folders, standard input or the added lines of a diff.
//! Uses the same engine and rules as the proxy; decides nothing and sends nothing.

mod diff;
mod files;
mod report;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use pipelock_scan::{Finding, Kind, RuleSet, Scanner};

use super::{Failure, output};
use report::{Form, Located, Report};

/// Look for secrets and prompt injections.
///
/// Reads files, folders (without .git) or standard input, undoes encodings, and reports what it finds: never the secret
/// itself. A line with `pipelock:ignore`, or `pipelock:ignore RULE`, is passed over. Exits with 1 when there are findings.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and folders; `-` is standard input, which is also the default.
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// What to look for; both by default.
    #[arg(long, value_enum)]
    kind: Option<What>,
    /// The input is a unified diff (`git diff`): only its added lines are looked at.
    #[arg(long)]
    diff: bool,
    /// Print one JSON object per finding and line.
    #[arg(long, conflicts_with = "sarif")]
    json: bool,
    /// Print a SARIF 2.1.0 document, for code scanning services.
    #[arg(long)]
    sarif: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// Secrets and personal data.
    Dlp,
    /// Instructions meant for a model.
    Injection,
}

pub(super) fn scan(args: &Args) -> Result<u8, Failure> {
    let scanner = scanner(args.kind)?;
    let form = match (args.json, args.sarif) {
        (true, _) => Form::Json,
        (_, true) => Form::Sarif,
        _ => Form::Text,
    };
    let mut report = Report::new(form);
    let stdin = [PathBuf::from("-")];
    let paths = if args.paths.is_empty() { &stdin[..] } else { &args.paths };
    let mut files = Vec::new();
    for path in paths {
        files.extend(files::below(path)?);
    }
    let mut progress = files::Progress::new(files.len());
    for file in files {
        progress.next();
        let text = match read(&file) {
            Ok(text) => text,
            // One that cannot be read is said, not passed over in silence.
            Err(error) => {
                progress.clear();
                report.unread(&file, &error);
                continue;
            }
        };
        let found = if args.diff { diff::scan(&scanner, &text)? } else { whole(&scanner, &file, &text)? };
        if !found.is_empty() {
            progress.clear();
        }
        found.into_iter().for_each(|located| report.add(located));
    }
    progress.clear();
    Ok(report.finish(scanner.rules()))
}

/// The shipped rules, compiled at the first call on this machine.
fn scanner(kind: Option<What>) -> Result<Scanner, Failure> {
    let rules = RuleSet::shipped()?;
    let rules = match kind {
        None => rules,
        Some(What::Dlp) => rules.only(Kind::Dlp),
        Some(What::Injection) => rules.only(Kind::Injection),
    };
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    let home = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .filter(|folder| folder.is_absolute());
    Ok(match home {
        Some(folder) => Scanner::cached(rules, &key, &folder.join("pipelock/rules"))?,
        None => Scanner::new(rules, &key)?,
    })
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return std::fs::read(file);
    }
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text)?;
    Ok(text)
}

fn whole(scanner: &Scanner, file: &Path, text: &[u8]) -> Result<Vec<Located>, Failure> {
    let findings = scanner.scan(text)?;
    if findings.is_empty() {
        return Ok(Vec::new());
    }
    let lines = Lines::new(text);
    let keep = |finding: Finding| {
        let (line, column) = lines.place(finding.span.start);
        let path = file.display().to_string();
        (!ignored(lines.text(line), &finding.rule)).then_some(Located { path, line, column, finding })
    };
    Ok(findings.into_iter().filter_map(keep).collect())
}

/// Where the lines of a text begin.
struct Lines<'a> {
    text: &'a [u8],
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a [u8]) -> Self {
        let breaks = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// Line and column of a byte, both from 1; the column counts bytes.
    fn place(&self, at: u64) -> (usize, usize) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let line = self.starts.partition_point(|start| *start <= at);
        (line, at - self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0) + 1)
    }

    /// The text of a line, numbered from 1.
    fn text(&self, line: usize) -> &'a [u8] {
        let start = line.checked_sub(1).and_then(|line| self.starts.get(line)).copied().unwrap_or(self.text.len());
        let end = self.starts.get(line).copied().unwrap_or(self.text.len());
        &self.text[start..end]
    }
}

/// Does the line say that this rule is to be ignored on it: `pipelock:ignore`, with rule ids behind it or none for all?
fn ignored(line: &[u8], rule: &str) -> bool {
    let line = String::from_utf8_lossy(line);
    let Some((_, rest)) = line.split_once("pipelock:ignore") else { return false };
    let id = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let words = rest.split([' ', ',', '\t', '[', ']']).map(str::trim).filter(|word| !word.is_empty());
    let mut ids = words.take_while(id).filter(|word| word.bytes().any(|byte| byte != b'-')).peekable();
    ids.peek().is_none() || ids.any(|word| word == rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_ignore_all_rules_or_those_they_name() {
        assert!(ignored(b"x = 1  # pipelock:ignore", "a-b"));
        assert!(ignored(b"x = 1  <!-- pipelock:ignore -->", "a-b"));
        assert!(ignored(b"x = 1  # pipelock:ignore c, a-b", "a-b"));
        assert!(ignored(b"x = 1  # pipelock:ignore [a-b]", "a-b"));
        assert!(!ignored(b"x = 1  # pipelock:ignore c", "a-b"));
        assert!(!ignored(b"x = 1", "a-b"));
    }

    #[test]
    fn places_count_from_one() {
        let lines = Lines::new(b"ab\ncd\n");
        assert_eq!(lines.place(0), (1, 1));
        assert_eq!(lines.place(4), (2, 2));
        assert_eq!(lines.text(2), b"cd\n");
        assert_eq!(lines.text(9), b"");
    }
}
