//! `rooms`: checks that every room of pipelock-user uses only rooms below it.
//!
//! Reads the sources line by line, without comments and texts, tests included: a test that reaches into a room above ties
//! the two together as well.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::run;

/// The rooms and their floors. A room uses only rooms on lower floors; rooms on one floor never see each other.
const FLOORS: &[(&str, u8)] = &[
    ("main", 8),
    ("cli", 7),
    ("app", 6),
    ("proxy", 5),
    ("sandbox", 5),
    ("mcp", 4),
    ("net", 4),
    ("inspect", 3),
    ("recorder", 3),
    ("kernel", 3),
    ("policy", 2),
    ("flow", 1),
    ("telemetry", 1),
];
/// The crates below all rooms, and what must not be in their manifests.
const CRATES: &[(&str, &[&str])] = &[
    ("pipelock-common/Cargo.toml", &["pipelock-user", "pipelock-receipt", "tokio"]),
    ("pipelock-user/receipt/Cargo.toml", &["pipelock-user", "tokio", "hyper", "socket2", "reqwest"]),
    ("pipelock-user/scan/hs/Cargo.toml", &["pipelock-user", "pipelock-scan", "tokio", "hyper", "socket2", "reqwest"]),
    ("pipelock-user/scan/Cargo.toml", &["pipelock-user", "tokio", "hyper", "socket2", "reqwest"]),
];

/// Check that every room uses only rooms below it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn main(_: &Args) -> Result<()> {
    let src = run::root().join("pipelock-user/src");
    let mut wrong = Vec::new();
    let mut count = 0;
    for file in run::files(&src)? {
        if file.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        count += 1;
        let inner = file.strip_prefix(&src)?.to_owned();
        let text = std::fs::read_to_string(&file)?;
        for (line, why) in violations(&inner, &text)? {
            wrong.push(format!("pipelock-user/src/{}:{line}: {why}", inner.display()));
        }
    }
    for (manifest, banned) in CRATES {
        let Ok(text) = std::fs::read_to_string(run::root().join(manifest)) else { continue };
        let depends = |name: &str| text.lines().any(|line| line.split(['=', '.', ' ']).next() == Some(name));
        wrong.extend(banned.iter().filter(|name| depends(name)).map(|name| format!("{manifest}: depends on {name}")));
    }
    if !wrong.is_empty() {
        bail!("rooms: {} uses that lead up or sideways:\n  {}", wrong.len(), wrong.join("\n  "));
    }
    run::line(&format!("rooms: {count} files, none uses a room above or beside its own"));
    Ok(())
}

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

/// The lines of a file, given by its path below src, that use a room they must not.
fn violations(inner: &Path, text: &str) -> Result<Vec<(usize, String)>> {
    let first = inner.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    let room = first.unwrap_or_default().trim_end_matches(".rs").to_owned();
    if room == "lib" {
        return Ok(Vec::new());
    }
    let own = floor(&room);
    ensure!(own.is_some(), "pipelock-user/src/{} is in no room of the table in xtask/src/rooms.rs", inner.display());
    let is_mod = inner.file_name().is_some_and(|name| name == "mod.rs");
    // How many `super::` lead from this file to the root of the crate.
    let depth = inner.components().count() - usize::from(is_mod);
    let code = code_only(text);
    let mut wrong = Vec::new();
    let mut uses = Vec::new();
    for root in ["crate::", "pipelock::"] {
        uses.extend(paths_after(&code, root));
    }
    uses.extend(paths_after(&code, &"super::".repeat(depth)));
    for (line, used) in uses {
        let is_own = used == room;
        if let Some(other) = floor(&used)
            && !is_own
            && own.is_none_or(|own| other >= own)
        {
            wrong.push((line, format!("{room} uses {used}")));
        }
    }
    wrong.sort();
    wrong.dedup();
    Ok(wrong)
}

/// The text without comments and string literals, line by line as it was.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                while rest.peek().is_some_and(|c| *c != '\n') {
                    rest.next();
                }
            }
            // A quote in a character literal.
            '\'' if rest.peek() == Some(&'"') => {
                rest.next();
            }
            '"' => {
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => code.extend(rest.next().filter(|c| *c == '\n')),
                        '"' => break,
                        '\n' => code.push('\n'),
                        _ => {}
                    }
                }
            }
            c => code.push(c),
        }
    }
    code
}

/// The first names after every `root` in the code, with their lines; a group in braces gives all of its names.
fn paths_after(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(root) {
        let before = code.get(..at).unwrap_or_default();
        // `super::` in the middle of a longer chain, or the end of another word.
        if before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let mut line = before.matches('\n').count() + 1;
        let after = code.get(at + root.len()..).unwrap_or_default();
        let Some(group) = after.strip_prefix('{') else {
            found.push((line, name(after)));
            continue;
        };
        let mut depth = 1;
        let mut starts = true;
        for (at, c) in group.char_indices() {
            match c {
                '\n' => line += 1,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => starts = true,
                c if starts && !c.is_whitespace() => {
                    found.push((line, name(group.get(at..).unwrap_or_default())));
                    starts = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

fn name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(file: &str, text: &str) -> Vec<String> {
        violations(Path::new(file), text).expect("a known room").into_iter().map(|(_, why)| why).collect()
    }

    #[test]
    fn down_is_fine_and_up_and_sideways_are_not() {
        assert!(rooms("proxy/listen.rs", "use crate::policy::Policy;\nuse crate::proxy::detect;").is_empty());
        assert_eq!(rooms("policy/mod.rs", "fn f() { crate::proxy::serve() }"), ["policy uses proxy"]);
        assert_eq!(rooms("net/dial.rs", "use crate::mcp::Session;"), ["net uses mcp"]);
        assert_eq!(rooms("app/mod.rs", "use crate::cli::Args;"), ["app uses cli"]);
        assert!(rooms("main.rs", "pipelock::cli::main()").is_empty());
        assert_eq!(rooms("cli/mod.rs", "crate::main::f()"), ["cli uses main"]);
    }

    #[test]
    fn groups_and_chains_of_super_are_followed() {
        assert_eq!(
            rooms("kernel/maps.rs", "use crate::{flow::{Flow, x}, recorder,\n net::Permit};"),
            ["kernel uses recorder", "kernel uses net"]
        );
        assert_eq!(rooms("kernel/a/b.rs", "use super::super::super::app::Session;"), ["kernel uses app"]);
        assert!(rooms("kernel/a/b.rs", "use super::super::app::Session;").is_empty(), "a module of its own room");
        assert_eq!(rooms("flow/mod.rs", "use super::policy::X;"), ["flow uses policy"]);
    }

    #[test]
    fn comments_and_texts_use_nothing() {
        let text = "//! See [`crate::app`].\nconst A: &str = \"crate::app\\\" crate::cli\"; // crate::cli\nconst B: char = '\"';\n";
        assert!(rooms("flow/host.rs", text).is_empty());
    }

    #[test]
    fn a_room_that_is_not_in_the_table_is_an_error() {
        assert!(violations(Path::new("attic/mod.rs"), "").is_err());
    }
}
