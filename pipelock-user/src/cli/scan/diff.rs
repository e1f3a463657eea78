//! The added lines of a unified diff. Called by `pipelock scan --diff`.
//!
//! Formats: `diff -u`, `git diff`, and git's combined diff of merges (git-diff, "Generating patch text with -p" and "Combined
//! diff format"). Names in quotes are as C writes them. What a binary patch holds is not text and not looked at, which is said.
//! Promises: memory does not grow with the diff but with the number of stretches of added lines in one hunk.

use std::io::Read;

use pipelock_scan::{EngineError, Scanner};

use super::name::Names;
use super::place::Place;
use super::read::{Text, Unread, fill};
use super::report::Located;

/// Longest line that is read as a header; longer ones are none.
const HEADER: usize = 16 << 10;
/// Added text that is collected before it is scanned.
const PIECE: usize = 1 << 20;

/// Adds what is in the added lines of everything that `source` gives, and in the names of their files; `read` hears how many
/// bytes came.
pub(super) fn scan(
    scanner: &Scanner,
    mut source: impl Read,
    buffer: &mut Vec<u8>,
    mut read: impl FnMut(u64),
    names: &mut Names,
    to: &mut Vec<Located>,
) -> Result<(), Unread> {
    let mut hunks = Hunks { scanner, names, text: None, name: None, found: to, unread: None };
    let mut diff = Diff::default();
    loop {
        let ended = fill(&mut source, buffer)?;
        read(buffer.len() as u64);
        diff.push(buffer, ended, &mut hunks)?;
        if ended {
            hunks.end()?;
            let unread = diff.problem().map(Unread::Form).or(hunks.unread);
            return unread.map_or(Ok(()), Err);
        }
    }
}

/// What a reader of a diff does with what is added.
trait Added {
    /// A file has this name now; it may be told more than once.
    fn named(&mut self, path: &str) -> Result<(), EngineError>;
    /// A hunk of this file begins.
    fn begin(&mut self, path: &str) -> Result<(), EngineError>;
    /// A piece of an added line; `number` counts lines of the new file from 1.
    fn add(&mut self, number: usize, piece: &[u8]) -> Result<(), EngineError>;
}

/// Scans each hunk's added lines as one text, so that what spans lines is found.
struct Hunks<'a> {
    scanner: &'a Scanner,
    names: &'a mut Names,
    text: Option<Hunk>,
    /// The last name that was looked at, and as it is shown.
    name: Option<(String, String)>,
    found: &'a mut Vec<Located>,
    /// What was not looked at in the first hunk of which that is so.
    unread: Option<Unread>,
}

struct Hunk {
    path: String,
    text: Text,
    waiting: Vec<u8>,
    /// Lines of the text so far.
    lines: usize,
    /// Stretches of neighbours: line in the text, line in the new file.
    numbers: Vec<(usize, usize)>,
    ended: bool,
}

impl Hunks<'_> {
    fn end(&mut self) -> Result<(), EngineError> {
        let Some(Hunk { path, text, waiting, numbers, .. }) = self.text.take() else { return Ok(()) };
        let (found, unread) = text.last(&waiting)?;
        self.unread = self.unread.take().or(unread);
        for (place, end, finding) in found {
            let line = |line: usize| {
                let after = numbers.partition_point(|(first, _)| *first <= line);
                let stretch = numbers.get(after.saturating_sub(1));
                stretch.map_or(line, |(first, number)| number.saturating_add(line.saturating_sub(*first)))
            };
            let of = |place: Place| Place { line: line(place.line), ..place };
            let (place, end) = (of(place), end.map(of));
            self.found.push(Located { path: path.clone(), place, end, in_name: false, finding });
        }
        Ok(())
    }
}

impl Added for Hunks<'_> {
    fn named(&mut self, path: &str) -> Result<(), EngineError> {
        if self.name.as_ref().is_none_or(|(last, _)| last != path) {
            let (shown, found) = self.names.look(self.scanner, path.as_bytes())?;
            self.found.extend(found);
            self.name = Some((path.to_owned(), shown));
        }
        Ok(())
    }

    fn begin(&mut self, path: &str) -> Result<(), EngineError> {
        self.end()?;
        self.named(path)?;
        let text = Text::new(self.scanner)?;
        let path = self.name.as_ref().map_or_else(String::new, |(_, shown)| shown.clone());
        self.text = Some(Hunk { path, text, waiting: Vec::new(), lines: 0, numbers: Vec::new(), ended: true });
        Ok(())
    }

    fn add(&mut self, number: usize, piece: &[u8]) -> Result<(), EngineError> {
        let Some(hunk) = &mut self.text else { return Ok(()) };
        if hunk.ended {
            hunk.lines += 1;
            let next = hunk.numbers.last().map(|(line, number)| number.saturating_add(hunk.lines - line));
            if next != Some(number) {
                hunk.numbers.push((hunk.lines, number));
            }
        }
        hunk.ended = piece.ends_with(b"\n");
        hunk.waiting.extend_from_slice(piece);
        if hunk.waiting.len() >= PIECE {
            hunk.text.push(&hunk.waiting)?;
            hunk.waiting.clear();
        }
        Ok(())
    }
}

/// Reads a diff that comes in pieces.
#[derive(Debug, Default)]
struct Diff {
    path: String,
    /// The file before, to tell whether names have git's `a/` and `b/`.
    old: String,
    /// The beginning of a line whose rest is to come.
    held: Vec<u8>,
    /// Lines the hunk still has: one count for each old file, and one for the new.
    left_old: Vec<usize>,
    left_new: usize,
    number: usize,
    /// What the line is that goes on.
    line: Line,
    /// Something in it that only diffs have.
    is_diff: bool,
    /// The line between the files of a context diff.
    is_context: bool,
    /// There was anything but blanks.
    has_text: bool,
    /// A hunk ended before it had the lines that it says it has.
    is_short: bool,
    /// What `git diff --binary` writes of what is no text.
    is_binary: bool,
    /// Behind the line with which git begins what it says of a file.
    in_header: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Line {
    #[default]
    Start,
    Added,
    Other,
}

impl Diff {
    fn push(&mut self, piece: &[u8], last: bool, to: &mut impl Added) -> Result<(), EngineError> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let ends = part.ends_with(b"\n");
            match self.line {
                Line::Start => {
                    self.held.extend_from_slice(part);
                    if ends || self.held.len() > HEADER {
                        let line = std::mem::take(&mut self.held);
                        self.begin(&line, ends, to)?;
                    }
                }
                Line::Added => self.go_on(part, ends, to)?,
                Line::Other if ends => self.line = Line::Start,
                Line::Other => {}
            }
        }
        if last && !self.held.is_empty() {
            let line = std::mem::take(&mut self.held);
            self.begin(&line, true, to)?;
        }
        Ok(())
    }

    /// Why this, read to its end, was no whole diff.
    fn problem(&self) -> Option<&'static str> {
        if self.is_context {
            return Some("it is a context diff, of which no line is read: make a unified one (diff -u)");
        }
        if self.has_text && !self.is_diff {
            return Some("it is no unified diff");
        }
        let is_short = self.is_short || self.left_new > 0 || self.left_old.iter().any(|left| *left > 0);
        if is_short {
            return Some("a hunk has fewer lines than its header says: something may have been cut off");
        }
        self.is_binary.then_some("a binary patch in it is not read: scan the files, or leave out --binary")
    }

    fn go_on(&mut self, part: &[u8], ends: bool, to: &mut impl Added) -> Result<(), EngineError> {
        to.add(self.number, part)?;
        if ends {
            self.number = self.number.saturating_add(1);
            self.line = Line::Start;
        }
        Ok(())
    }

    /// A line, or the beginning of a long one.
    fn begin(&mut self, line: &[u8], ends: bool, to: &mut impl Added) -> Result<(), EngineError> {
        self.line = if ends { Line::Start } else { Line::Other };
        let parents = self.left_old.len();
        if self.left_new == 0 && self.left_old.iter().all(|left| *left == 0) {
            return self.header(line, to);
        }
        if line.starts_with(b"\\") {
            // "\ No newline at end of file"
            return Ok(());
        }
        // One column for each old file. An empty line stands for an unchanged one, from which a mailer took the space.
        if !matches!(line.first(), Some(b' ' | b'+' | b'-' | b'\r' | b'\n')) {
            // No line of a hunk: whatever follows is read as if the hunk were over.
            (self.left_old, self.left_new, self.is_short) = (Vec::new(), 0, true);
            return self.header(line, to);
        }
        let columns = line.get(..parents).filter(|columns| !columns.iter().any(|byte| b"\r\n".contains(byte)));
        let columns = columns.unwrap_or_default();
        let removed = columns.contains(&b'-');
        for (at, left) in self.left_old.iter_mut().enumerate() {
            let there = if removed { columns.get(at) == Some(&b'-') } else { columns.get(at) != Some(&b'+') };
            *left = left.saturating_sub(usize::from(there));
        }
        if removed {
            return Ok(());
        }
        self.left_new = self.left_new.saturating_sub(1);
        if columns.contains(&b'+') {
            self.line = Line::Added;
            return self.go_on(&line[columns.len()..], ends, to);
        }
        self.number = self.number.saturating_add(1);
        Ok(())
    }

    fn header(&mut self, line: &[u8], to: &mut impl Added) -> Result<(), EngineError> {
        self.is_context |= line.starts_with(b"***************");
        self.is_binary |= self.in_header && line.trim_ascii_end() == b"GIT binary patch";
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Changes without a hunk: of names, modes, empty files, and of what is no text.
        let others: [&[u8]; 6] = [b"diff ", b"Binary files ", b"Only in ", b"--- ", b"+++ ", b"* Unmerged path "];
        self.is_diff |= others.iter().any(|start| line.starts_with(start));
        self.has_text |= !line.trim_ascii().is_empty();
        // The text of a mail around a diff may say anything.
        let ends = line.is_empty() || line.starts_with(b"--- ") || line.starts_with(b"@@");
        self.in_header = line.starts_with(b"diff --git ") || self.in_header && !ends;
        if let Some(name) = line.strip_prefix(b"--- ") {
            self.old = named(name);
        } else if let Some(name) = line.strip_prefix(b"+++ ") {
            let name = named(name);
            // git's own prefixes, of which the two differ; `diff -u` and --no-prefix have none.
            let prefixed = |name: &str| name.get(1..2) == Some("/") && name.as_bytes()[0].is_ascii_lowercase();
            let differ = prefixed(&self.old) && self.old.get(..1) != name.get(..1);
            let both = prefixed(&name) && (self.old == "/dev/null" || differ);
            self.path = if both { name[2..].to_owned() } else { name };
            if self.path != "/dev/null" {
                to.named(&self.path)?;
            }
        } else if let Some(name) = new_name(line) {
            to.named(&name)?;
        } else if let Some((old, first, new)) = hunk(line) {
            (self.left_old, self.number, self.left_new, self.is_diff) = (old, first, new, true);
            to.begin(&self.path)?;
        }
        Ok(())
    }
}

/// The new name of a file of which nothing else may be said: it is renamed, copied, empty or no text.
fn new_name(line: &[u8]) -> Option<String> {
    let behind = |text: &[u8], mark: &[u8]| {
        let at = text.windows(mark.len()).rposition(|window| window == mark)?;
        Some(named(text.get(at + mark.len()..)?))
    };
    let git = |text: &[u8]| {
        // In quotes the name has its prefix in them.
        behind(text, b" b/").or_else(|| Some(behind(text, b" ").filter(|name| name.starts_with("b/"))?.split_off(2)))
    };
    if let Some(name) = line.strip_prefix(b"rename to ").or_else(|| line.strip_prefix(b"copy to ")) {
        return Some(named(name));
    }
    if line.starts_with(b"diff --git ") {
        return git(line);
    }
    let both = line.strip_prefix(b"Binary files ")?.strip_suffix(b" differ")?;
    git(both).or_else(|| behind(both, b" and ")).filter(|name| name != "/dev/null")
}

/// The name in a header: in quotes with escapes, or up to a tab.
fn named(text: &[u8]) -> String {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let name = text.split(|byte| *byte == b'\t').next().unwrap_or_default();
        return String::from_utf8_lossy(name).into_owned();
    };
    let mut name = Vec::new();
    let mut bytes = quoted.iter().copied().peekable();
    while let Some(byte) = bytes.next().filter(|byte| *byte != b'"') {
        if byte != b'\\' {
            name.push(byte);
            continue;
        }
        name.push(match bytes.next() {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'a') => 7,
            Some(b'b') => 8,
            Some(b'v') => 11,
            Some(b'f') => 12,
            Some(digit @ b'0'..=b'7') => {
                let mut value = u32::from(digit - b'0');
                for _ in 0..2 {
                    if let Some(digit) = bytes.next_if(|byte| (b'0'..=b'7').contains(byte)) {
                        value = value * 8 + u32::from(digit - b'0');
                    }
                }
                value as u8
            }
            Some(other) => other,
            None => break,
        });
    }
    String::from_utf8_lossy(&name).into_owned()
}

/// `@@ -1,2 +3,4 @@`, or `@@@ -1 -2 +3,4 @@@` of a merge: lines of each old file, first line and lines of the new one.
fn hunk(line: &[u8]) -> Option<(Vec<usize>, usize, usize)> {
    let marks = line.iter().take_while(|byte| **byte == b'@').count();
    let text = std::str::from_utf8(line.get(marks..line.len().min(512))?.split(|byte| *byte == b'@').next()?).ok()?;
    let mut ranges = text.strip_prefix(' ')?.split_ascii_whitespace();
    let mut old = Vec::new();
    // What is beyond any file is a number all the same: the lines behind it are read.
    let number = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse::<u32>().unwrap_or(u32::MAX) as usize)
    };
    let count = |range: &str| range.split_once(',').map_or(Some(1), |(_, count)| number(count));
    for _ in 1..marks {
        old.push(count(ranges.next()?.strip_prefix('-')?)?);
    }
    let new = ranges.next()?.strip_prefix('+')?;
    (marks >= 2).then_some((old, number(new.split(',').next()?)?, count(new)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default, Debug, PartialEq)]
    struct Seen(Vec<(String, Vec<(usize, String)>)>, Vec<String>);

    impl Added for Seen {
        fn named(&mut self, path: &str) -> Result<(), EngineError> {
            if self.1.last().is_none_or(|last| last != path) {
                self.1.push(path.to_owned());
            }
            Ok(())
        }

        fn begin(&mut self, path: &str) -> Result<(), EngineError> {
            self.0.push((path.to_owned(), Vec::new()));
            Ok(())
        }

        fn add(&mut self, number: usize, piece: &[u8]) -> Result<(), EngineError> {
            let lines = &mut self.0.last_mut().unwrap().1;
            let piece = String::from_utf8_lossy(piece);
            match lines.last_mut().filter(|(last, _)| *last == number) {
                Some((_, line)) => line.push_str(&piece),
                None => lines.push((number, piece.into_owned())),
            }
            Ok(())
        }
    }

    /// What is added, the same for every size of pieces: path, and number and text of each line.
    fn added(diff: &str) -> Vec<(String, Vec<(usize, String)>)> {
        let mut whole = Seen::default();
        Diff::default().push(diff.as_bytes(), true, &mut whole).unwrap();
        for size in [1, 3, 64] {
            let mut seen = Seen::default();
            let mut reader = Diff::default();
            diff.as_bytes().chunks(size).for_each(|piece| reader.push(piece, false, &mut seen).unwrap());
            reader.push(b"", true, &mut seen).unwrap();
            assert_eq!(seen, whole, "{size}");
        }
        whole.0
    }

    fn lines(lines: &[(usize, &str)]) -> Vec<(usize, String)> {
        lines.iter().map(|(number, line)| (*number, (*line).to_owned())).collect()
    }

    #[test]
    fn only_added_lines_with_their_numbers() {
        let diff = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,3 +1,4 @@ fn @@ x\n same\n--- removed\n+++ added\n+two\n last\n\
                    @@ -9 +10 @@\n-a\n+b\n\\ No newline at end of file\n";
        let found = added(diff);
        assert_eq!(found[0], ("x".to_owned(), lines(&[(2, "++ added\n"), (3, "two\n")])));
        assert_eq!(found[1], ("x".to_owned(), lines(&[(10, "b\n")])));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_is_not_read_of_a_diff_is_said() {
        let problem = |text: &str| {
            let mut diff = Diff::default();
            diff.push(text.as_bytes(), true, &mut Seen::default()).expect("read");
            diff.problem()
        };
        let binary = "diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 3\nKcmZ\n\nliteral 0\nHcmV\n\n";
        assert!(problem(binary).is_some_and(|why| why.contains("--binary")));
        assert_eq!(problem("diff --git a/x b/x\nBinary files a/x and b/x differ\n"), None);
        let mail = "Subject: what it says\n\nGIT binary patch\n---\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n\
                    @@ -1 +1 @@\n-a\n+b\n-- \nGIT binary patch\n";
        assert_eq!(problem(mail), None);
    }

    #[test]
    fn lines_beyond_any_file_are_read() {
        let most = u32::MAX as usize;
        for first in ["4294967295", "18446744073709551615", "99999999999999999999999"] {
            let found = added(&format!("--- a/x\n+++ b/x\n@@ -0,0 +{first},3 @@\n+a\n+b\n c\n"));
            assert_eq!(found, [("x".to_owned(), lines(&[(most, "a\n"), (most + 1, "b\n")]))], "{first}");
        }
        let rules = "rules: [{id: a, name: a, kind: dlp, class: credential, severity: low, pattern: 'abcdefgh'}]";
        let rules = pipelock_scan::RuleSet::read(&[("test", rules)]).expect("rules");
        let scanner = Scanner::new(rules, &[1; 32]).expect("made");
        let (mut names, mut found) = (Names::default(), Vec::new());
        let mut hunks =
            Hunks { scanner: &scanner, names: &mut names, text: None, name: None, found: &mut found, unread: None };
        hunks.begin("x").expect("begun");
        for number in [usize::MAX, usize::MAX] {
            hunks.add(number, b"a\n").expect("added");
        }
        hunks.end().expect("read");
    }

    #[test]
    fn names_are_read_as_git_writes_them() {
        for (old, new, path) in [
            ("a/x", "b/x", "x"),
            ("a/with space\t", "b/with space\t", "with space"),
            ("\"a/na\\303\\257ve\\\"q\\\".txt\"", "\"b/na\\303\\257ve\\\"q\\\".txt\"", "naïve\"q\".txt"),
            ("/dev/null", "b/new", "new"),
            ("i/x", "w/x", "x"),
            ("src/x", "src/x", "src/x"),
            ("b/x", "b/x", "b/x"),
            ("old.c\t2026-01-01 00:00:00 +0000", "new.c\t2026-01-01 00:00:00 +0000", "new.c"),
        ] {
            let diff = format!("--- {old}\n+++ {new}\n@@ -0,0 +1 @@\n+line\n");
            assert_eq!(added(&diff)[0].0, path);
            assert_eq!(added(&diff.replace('\n', "\r\n"))[0], (path.to_owned(), lines(&[(1, "line\r\n")])));
        }
    }

    #[test]
    fn merges_have_a_column_for_each_parent() {
        let diff = "diff --cc f\nindex 1,2..3\n--- a/f\n+++ b/f\n@@@ -1,3 -1,3 +1,4 @@@\n  same\n- one\n -two\n++both\n +mine\n\
                    + theirs\n@@@ -9,0 -9,0 +10,1 @@@\n++end\n";
        let found = added(diff);
        assert_eq!(found[0].1, lines(&[(2, "both\n"), (3, "mine\n"), (4, "theirs\n")]));
        assert_eq!(found[1].1, lines(&[(10, "end\n")]));
    }

    #[test]
    fn every_new_name_is_told() {
        let diff = "diff --git a/o b/n new\nsimilarity index 100%\nrename from o\nrename to n new\n\
                    diff --git a/p b/p\nBinary files a/p and b/p differ\n\
                    diff --git a/e b/e\nnew file mode 100644\nindex 0000000..e69de29\n\
                    diff --git \"a/\\303\\257\" \"b/\\303\\257\"\n--- \"a/\\303\\257\"\n+++ \"b/\\303\\257\"\n@@ -1 +1 @@\n-a\n+b\n@@ -9 +9 @@\n-a\n+b\n\
                    Binary files /dev/null and x/q differ\nBinary files x/r and /dev/null differ\n";
        let mut seen = Seen::default();
        Diff::default().push(diff.as_bytes(), true, &mut seen).unwrap();
        assert_eq!(seen.1, ["n new", "p", "e", "\u{ef}", "x/q"]);
    }

    #[test]
    fn renames_and_binaries_add_nothing() {
        let diff = "diff --git a/o b/n\nsimilarity index 100%\nrename from o\nrename to n\n\
                    diff --git a/p b/p\nBinary files a/p and b/p differ\n\
                    diff --git a/q b/q\nGIT binary patch\nliteral 5\nMcmZ?wbhEHbWMp7u0096L0RR91\n\nliteral 0\nHcmV?d00001\n\n\
                    diff --git a/r b/r\n--- a/r\n+++ b/r\n@@ -1 +1 @@\n-a\n+last";
        assert_eq!(added(diff), [("r".to_owned(), lines(&[(1, "last")]))]);
    }

    #[test]
    fn what_is_no_whole_diff_is_told() {
        let problem = |diff: &str| {
            let (mut reader, mut seen) = (Diff::default(), Seen::default());
            reader.push(diff.as_bytes(), true, &mut seen).unwrap();
            (reader.problem().map(|problem| problem.split(' ').next().unwrap()), seen.0)
        };
        for whole in ["", "\n \n", "--- a\n+++ b\n@@ -1 +1 @@\n-a\n+b\n", "diff --git a/x b/x\nold mode 100644\n"] {
            assert_eq!(problem(whole).0, None, "{whole}");
        }
        assert_eq!(problem("token = 1\n").0, Some("it"));
        let context = "*** a\n--- b\n***************\n*** 1 ****\n! x\n--- 1 ----\n! token\n";
        assert_eq!(problem(context), (Some("it"), Vec::new()));
        assert_eq!(problem("--- a\n+++ b\n@@ -1 +1,3 @@\n-a\n+b\n").0, Some("a"));
        // A hunk that says it is longer does not hide the file behind it.
        let (told, seen) =
            problem("--- a\n+++ b\n@@ -0,0 +1,9 @@\n+a\ndiff --git c d\n--- c\n+++ d\n@@ -0,0 +1 @@\n+x\n");
        assert_eq!((told, seen.len(), &*seen[1].0), (Some("a"), 2, "d"));
    }

    #[test]
    fn whatever_comes_is_read_to_its_end() {
        for text in [
            "@@",
            "@@ -1 +1",
            "@@@@@@@@ -1 @@",
            "+++ \"\\",
            "@@ -99999999999999999999 +1 @@",
            "@@ -1,5 +1,5 @@\n\n+x\n",
        ] {
            added(text);
        }
    }
}
