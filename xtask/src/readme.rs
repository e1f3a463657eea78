//! `readme`: runs every example command of README.md, so that none of them goes stale.
//!
//! An example is a fenced block of the language `sh`. A block ends with 0, or with the code that a comment before it
//! names: `<!-- exit 3 -->`. Blocks that call cargo run in the checkout, the others in a folder of their own that holds
//! the shipped policies, because an agent's user may not enter every checkout.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::run;

/// Run every example command of README.md. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out examples that are exactly this; for what has just been run.
    #[arg(long, value_name = "COMMAND")]
    except: Vec<String>,
    /// Only list the examples.
    #[arg(long)]
    list: bool,
}

/// One fenced block.
#[derive(Debug, PartialEq, Eq)]
struct Example {
    line: usize,
    text: String,
    exit: i32,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let text = std::fs::read_to_string(run::root().join("README.md")).context("README.md")?;
    let examples = examples(&text)?;
    if args.list {
        for example in &examples {
            run::line(&format!("README.md:{}: exit {}\n{}", example.line, example.exit, example.text));
        }
        return Ok(());
    }
    run::need_root("readme")?;
    let place = Place::make(&run::build_pipelock()?)?;
    let mut failed = 0;
    for example in &examples {
        if args.except.iter().any(|except| *except == example.text.trim()) {
            run::say(&format!("README.md:{}: left out: {}", example.line, example.text.trim()));
            continue;
        }
        run::say(&format!("README.md:{}:\n{}", example.line, example.text.trim_end()));
        let status = run::status(&mut place.command(example))?;
        if status.code() != Some(example.exit) {
            run::say(&format!("README.md:{}: {status}, but the README says {}", example.line, example.exit));
            failed += 1;
        }
    }
    if failed > 0 {
        bail!("{failed} of {} examples of README.md do not do what it says", examples.len());
    }
    run::line(&format!("readme: {} examples do what README.md says", examples.len()));
    Ok(())
}

/// Where examples run.
struct Place {
    folder: tempfile::TempDir,
    path: std::ffi::OsString,
}

impl Place {
    fn make(pipelock: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let root = run::root();
        for file in run::files(&root.join("policies"))? {
            let copy = folder.path().join(file.strip_prefix(&root)?);
            std::fs::create_dir_all(copy.parent().context("a file without a folder")?)?;
            std::fs::copy(&file, &copy)?;
        }
        // We are root already, and sudo would forget where pipelock is.
        let bin = folder.path().join(".bin");
        std::fs::create_dir(&bin)?;
        std::fs::write(bin.join("sudo"), "#!/bin/sh\nexec \"$@\"\n")?;
        std::fs::set_permissions(bin.join("sudo"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        std::os::unix::fs::symlink(pipelock, bin.join("pipelock"))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?;
        Ok(Self { folder, path })
    }

    fn command(&self, example: &Example) -> Command {
        let folder: PathBuf =
            if example.text.starts_with("cargo ") { run::root() } else { self.folder.path().to_owned() };
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &example.text])
            .current_dir(folder)
            .env("PATH", &self.path)
            .env_remove("SUDO_UID")
            .env_remove("SUDO_GID")
            .env_remove("SUDO_USER")
            .stdin(std::process::Stdio::null());
        command
    }
}

/// The examples of a Markdown text.
fn examples(text: &str) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    let mut exit = 0;
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        if let Some(code) = line.strip_prefix("<!-- exit ").and_then(|rest| rest.strip_suffix(" -->")) {
            exit = code.parse().with_context(|| format!("README.md:{number}: {line}"))?;
            continue;
        }
        let Some(language) = line.trim_start().strip_prefix("```") else {
            if !line.trim().is_empty() {
                exit = 0;
            }
            continue;
        };
        let mut block = String::new();
        let mut is_closed = false;
        for (_, line) in lines.by_ref() {
            if line.trim_start().starts_with("```") {
                is_closed = true;
                break;
            }
            block.push_str(line);
            block.push('\n');
        }
        ensure!(is_closed, "README.md:{number}: the block is not closed");
        if language == "sh" {
            examples.push(Example { line: number + 1, text: block, exit });
        }
        exit = 0;
    }
    Ok(examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_the_codes_they_end_with() {
        let text = "# A\n\n```sh\necho 1\necho 2\n```\n\n<!-- exit 3 -->\n```sh\nfalse\n```\n```yaml\na: b\n```\n\
                    <!-- exit 4 -->\ntext\n```sh\ntrue\n```\n";
        let expected = [(4, "echo 1\necho 2\n", 0), (10, "false\n", 3), (18, "true\n", 0)];
        let expected = expected.map(|(line, text, exit)| Example { line, text: text.to_owned(), exit });
        assert_eq!(examples(text).expect("well formed"), expected);
        assert!(examples("```sh\ntrue\n").is_err());
    }

    #[test]
    fn the_readme_can_be_read() {
        let text = std::fs::read_to_string(run::root().join("README.md")).expect("it is there");
        let examples = examples(&text).expect("well formed");
        for task in ["cargo xtask demo\n", "cargo xtask test\n"] {
            assert!(examples.iter().any(|example| example.text == task), "{task} is among the examples");
        }
    }
}
