//! `pipelock scan`: looks for secrets and injections in files, folders, standard input or the added lines of a diff.
//! Uses the same engine and rules as the proxy; decides nothing and sends nothing.
//!
//! Exit codes: 0 nothing found and everything read, 1 something found, 2 nothing found but something could not be read, or the
//! command line is wrong.

mod baseline;
pub(super) mod bundle;
mod diff;
mod files;
mod name;
mod options;
mod place;
mod read;
mod report;

use std::path::{Path, PathBuf};

use pipelock_scan::{Kind, Scanner};

use super::{Failure, USAGE};
use baseline::Baseline;
use files::{Entry, Progress};
use name::Names;
use read::Unread;
use report::{Form, Located, Report};

/// Look for secrets and prompt injections.
///
/// Reads files, folders (without .git, links in them not followed) or standard input, undoes encodings and compression,
/// and reports what it finds: never the secret itself. A line with `pipelock:ignore`, or `pipelock:ignore RULE`, is passed
/// over. The first call compiles the rules and keeps them (root in /var/cache/pipelock, others in ~/.cache/pipelock).
///
/// Exit codes: 0 nothing was found, 1 something was found, 2 nothing was found but something could not be read, or the
/// command line is wrong.
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
    /// Look for the value of this environment variable too, in every encoding.
    #[arg(long, value_name = "NAME")]
    env: Vec<String>,
    /// Look for the values in this file too: `NAME=value`, `NAME: value` or a value a line.
    #[arg(long, value_name = "FILE")]
    secrets: Vec<PathBuf>,
    /// A wallet address that is yours: it is no finding, and what imitates it is.
    #[arg(long, value_name = "ADDRESS")]
    allow_address: Vec<String>,
    /// Add the rules of a signed bundle; its signature is in FILE.sig, where `pipelock sign` puts it.
    #[arg(long, value_name = "FILE", requires = "bundle_key")]
    rules_bundle: Vec<PathBuf>,
    /// The key that must have signed the bundles: a PEM or hex file, or the 64 hex digits.
    #[arg(long, value_name = "FILE|HEX")]
    bundle_key: Option<String>,
    /// Key fingerprints with what is in this file, so that they stay the same from run to run; else they are keyed at random.
    #[arg(long, value_name = "FILE")]
    fingerprint_key: Option<PathBuf>,
    /// Do not tell again what an earlier run found, with `--json` and the same key: the same value of the same rule in the
    /// same file.
    #[arg(long, value_name = "FILE", requires = "fingerprint_key")]
    baseline: Option<PathBuf>,
    /// Print the rules instead of looking for anything.
    #[arg(long, conflicts_with_all = ["paths", "diff", "sarif"])]
    list_rules: bool,
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
    // A failure must not look like a finding.
    run(args).map_err(|failure| Failure { code: USAGE, ..failure })
}

fn run(args: &Args) -> Result<u8, Failure> {
    let rules = options::rules(args)?;
    let kind = args.kind.map(|kind| match kind {
        What::Dlp => Kind::Dlp,
        What::Injection => Kind::Injection,
    });
    if args.list_rules {
        let rules = kind.map_or_else(|| rules.clone(), |kind| rules.only(kind));
        report::list(&rules, args.json);
        return Ok(0);
    }
    let scanner = options::scanner(args, rules)?;
    let form = match (args.json, args.sarif) {
        (true, _) => Form::Json,
        (_, true) => Form::Sarif,
        _ => Form::Text,
    };
    let baseline = args.baseline.as_deref().map(Baseline::load).transpose()?;
    let stdin = [PathBuf::from("-")];
    let paths = if args.paths.is_empty() { &stdin[..] } else { &args.paths };
    let mut entries: Vec<Entry> = Vec::new();
    paths.iter().for_each(|path| files::below(path, &mut entries));
    let mut progress = Progress::new(entries.iter().filter_map(|(_, length)| length.as_ref().ok()).sum());
    let mut report = Report::new(form, kind, baseline, args.fingerprint_key.is_some());
    let mut names = Names::default();
    let mut buffer = Vec::new();
    for (path, length) in entries {
        let (name, mut found) = match names.look(&scanner, path.as_os_str().as_encoded_bytes()) {
            Ok(looked) => looked,
            Err(error) => {
                report.unread("a file whose name cannot be shown", &error);
                continue;
            }
        };
        let mut input = Input { args, scanner: &scanner, buffer: &mut buffer, progress: &mut progress };
        let result = length.map_err(Unread::from).and_then(|_| input.read(&path, &name, &mut names, &mut found));
        if !found.is_empty() || result.is_err() {
            progress.clear();
        }
        found.into_iter().for_each(|located| report.add(located));
        // One that cannot be read is said, not passed over in silence.
        if let Err(error) = result {
            report.unread(&name, &error);
        }
    }
    progress.clear();
    Ok(report.finish(scanner.rules()))
}

/// What reading a file takes.
struct Input<'a> {
    args: &'a Args,
    scanner: &'a Scanner,
    buffer: &'a mut Vec<u8>,
    progress: &'a mut Progress,
}

impl Input<'_> {
    /// Adds what is in a file, also of one that is read in part.
    fn read(&mut self, path: &Path, name: &str, names: &mut Names, to: &mut Vec<Located>) -> Result<(), Unread> {
        let source = files::open(path)?;
        let read = |bytes| self.progress.add(bytes);
        if self.args.diff {
            return diff::scan(self.scanner, source, self.buffer, read, names, to);
        }
        let (found, unread) = read::scan(self.scanner, source, self.buffer, read)?;
        let located = |(place, end, finding)| Located { path: name.to_owned(), place, end, in_name: false, finding };
        to.extend(found.into_iter().map(located));
        unread.map_or(Ok(()), Err)
    }
}
