//! The added lines of a unified diff. Called by `pipelock scan --diff`.

use pipelock_scan::Scanner;

use super::report::Located;
use super::{Failure, Lines, ignored};

/// Added lines that stand together, and where they will be.
#[derive(Debug, Default, PartialEq)]
struct Added {
    path: String,
    text: Vec<u8>,
    /// The number of each line in the new file.
    numbers: Vec<usize>,
}

pub(super) fn scan(scanner: &Scanner, diff: &[u8]) -> Result<Vec<Located>, Failure> {
    let mut found = Vec::new();
    for added in added(diff) {
        let lines = Lines::new(&added.text);
        for finding in scanner.scan(&added.text)? {
            let (line, column) = lines.place(finding.span.start);
            if !ignored(lines.text(line), &finding.rule) {
                let line = added.numbers.get(line - 1).copied().unwrap_or(0);
                found.push(Located { path: added.path.clone(), line, column, finding });
            }
        }
    }
    Ok(found)
}

/// The added lines of each hunk: of one text, so that what spans lines is found.
fn added(diff: &[u8]) -> Vec<Added> {
    let mut hunks: Vec<Added> = Vec::new();
    let mut path = String::new();
    // Lines that the hunk still has, old and new, and the number of the next new one: a removed line `-- x` looks like a header.
    let (mut old, mut new, mut number) = (0, 0, 0);
    for line in diff.split_inclusive(|byte| *byte == b'\n') {
        if old == 0 && new == 0 {
            if let Some(name) = line.strip_prefix(b"+++ ") {
                let name = String::from_utf8_lossy(name);
                let name = name.split('\t').next().unwrap_or_default().trim_end();
                path = name.strip_prefix("b/").unwrap_or(name).to_owned();
            } else if let Some((lines_old, first, lines_new)) = hunk(line) {
                (old, number, new) = (lines_old, first, lines_new);
                hunks.push(Added { path: path.clone(), ..Added::default() });
            }
            continue;
        }
        match line.split_first() {
            Some((b'+', text)) => {
                if let Some(hunk) = hunks.last_mut() {
                    hunk.text.extend_from_slice(text);
                    hunk.numbers.push(number);
                }
                (number, new) = (number + 1, new.saturating_sub(1));
            }
            Some((b'-', _)) => old = old.saturating_sub(1),
            // "\ No newline at end of file"
            Some((b'\\', _)) => {}
            _ => (number, old, new) = (number + 1, old.saturating_sub(1), new.saturating_sub(1)),
        }
    }
    hunks.retain(|hunk| !hunk.text.is_empty());
    hunks
}

/// `@@ -1,2 +3,4 @@`: lines of the old file, first line and lines of the new one.
fn hunk(line: &[u8]) -> Option<(usize, usize, usize)> {
    let line = std::str::from_utf8(line.strip_prefix(b"@@ -")?).ok()?;
    let (old, rest) = line.split_once(" +")?;
    let new = rest.split_once(" @@")?.0;
    let count = |range: &str| range.split_once(',').map_or(Ok(1), |(_, count)| count.parse()).ok();
    Some((count(old)?, new.split(',').next()?.parse().ok()?, count(new)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_added_lines_with_their_numbers() {
        let diff =
            b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,3 +1,4 @@\n same\n--- removed\n+++ added\n+two\n last\n\
                     @@ -9 +10 @@\n-a\n+b\n\\ No newline at end of file\n";
        let hunks = added(diff);
        assert_eq!(hunks.len(), 2);
        assert_eq!((hunks[0].path.as_str(), hunks[0].text.as_slice()), ("x", &b"++ added\ntwo\n"[..]));
        assert_eq!(hunks[0].numbers, [2, 3]);
        assert_eq!(hunks[1].numbers, [10]);
    }
}
