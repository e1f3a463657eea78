//! `size`: no source file grows beyond what a person reads in one go.

use std::path::Path;

use anyhow::{Result, bail};

use crate::run;

/// Most lines of a file, without its tests.
const HARD: usize = 500;
/// Lines from which on a file is named.
const SOFT: usize = 350;
/// Folders with sources.
const FOLDERS: &[&str] = &["pipelock-common", "pipelock-ebpf/src", "pipelock-user", "xtask/src", "bench"];

/// Check that no source file has more than 500 lines without its tests.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(_: &Args) -> Result<()> {
    let root = run::root();
    let mut sizes = Vec::new();
    for folder in FOLDERS {
        for file in run::files(&root.join(folder))? {
            let inner = file.strip_prefix(&root)?;
            if is_counted(inner) {
                sizes.push((lines(&std::fs::read_to_string(&file)?), inner.display().to_string()));
            }
        }
    }
    sizes.sort_by(|a, b| b.cmp(a));
    for (lines, file) in sizes.iter().filter(|(lines, _)| *lines > SOFT) {
        run::line(&format!("{lines:4} {file}"));
    }
    let over = sizes.iter().filter(|(lines, _)| *lines > HARD).count();
    if over > 0 {
        bail!("size: {over} files have more than {HARD} lines without tests; split them by purpose");
    }
    run::line(&format!("size: {} files, none over {HARD} lines without tests", sizes.len()));
    Ok(())
}

/// Sources, but not those that are tests as a whole.
fn is_counted(file: &Path) -> bool {
    let is_source = file.extension().is_some_and(|extension| extension == "rs");
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let is_test = stem == "tests" || stem.ends_with("_tests") || file.iter().any(|part| part == "tests");
    is_source && !is_test && !file.iter().any(|part| part == "target")
}

/// Lines before the tests.
fn lines(text: &str) -> usize {
    let all: Vec<_> = text.lines().collect();
    let is_start =
        |pair: &[&str]| matches!(pair, [a, b] if *a == "#[cfg(test)]" && b.starts_with("mod ") && b.ends_with('{'));
    all.windows(2).position(is_start).unwrap_or(all.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count() {
        assert_eq!(lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(lines("#[cfg(test)]\nmod tests;\na\n"), 3, "the tests are in another file");
        assert!(is_counted(Path::new("pipelock-user/src/app/session.rs")));
        assert!(!is_counted(Path::new("pipelock-user/src/policy/tests.rs")));
        assert!(!is_counted(Path::new("pipelock-user/tests/net.rs")));
    }
}
