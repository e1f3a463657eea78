//! What is wrong with a policy: every mistake at once, each with its place and a way out.
//!
//! Filled by the reader, returned by `Policy::parse` and `Policy::load`, printed by the command line. It promises that
//! text taken from the file is quoted, cut and escaped before it is shown, and that the list is bounded.

use std::fmt;

/// More errors than this are counted, not kept.
const MAX_ERRORS: usize = 100;
/// Characters of a value that are shown in a message.
const MAX_QUOTED: usize = 60;

/// A place in the file, 1-based; line 0 means that no place is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pos {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// Line, from 1; 0 when the mistake has no place (the file cannot be read).
    pub line: usize,
    /// Column in characters, from 1; 0 when the mistake has no place.
    pub column: usize,
    /// Where in the structure, like `egress[0].methods[1]`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// Every mistake of one policy file, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors {
    /// The file, as the caller named it.
    pub source: String,
    /// The mistakes.
    pub errors: Vec<PolicyError>,
    /// How many more there are beyond those listed.
    pub omitted: usize,
}

impl PolicyErrors {
    /// A list of one, for a mistake without a place.
    pub(super) fn one(source: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        let error = PolicyError { line: 0, column: 0, path: String::new(), message: message.into(), help: help.into() };
        Self { source: source.to_owned(), errors: vec![error], omitted: 0 }
    }
}

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.source)?;
            if error.line > 0 {
                write!(f, ":{}:{}", error.line, error.column)?;
            }
            write!(f, ": {error}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n{}: and {} more", self.source, self.omitted)?;
        }
        Ok(())
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.message)?;
        if !self.help.is_empty() {
            write!(f, "\n    {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

/// Collects mistakes while the file is read.
#[derive(Debug)]
pub(super) struct Report {
    errors: Vec<PolicyError>,
    omitted: usize,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { errors: Vec::new(), omitted: 0 }
    }

    pub(super) fn push(&mut self, pos: Pos, path: &str, message: impl Into<String>, help: impl Into<String>) {
        if self.is_full() {
            self.omitted += 1;
            return;
        }
        self.errors.push(PolicyError {
            line: pos.line,
            column: pos.column,
            path: path.to_owned(),
            message: message.into(),
            help: help.into(),
        });
    }

    /// True when further mistakes are only counted, so that their texts need no work.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    /// The value, if nothing was wrong. A reader that gave up without saying why is an error as well.
    pub(super) fn finish<T>(mut self, source: &str, value: Option<T>) -> Result<T, PolicyErrors> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            None if self.errors.is_empty() => {
                Err(PolicyErrors::one(source, "the policy could not be read", "please report this file as a defect"))
            }
            _ => {
                self.errors.sort_by_key(|error| (error.line, error.column));
                Err(PolicyErrors { source: source.to_owned(), errors: self.errors, omitted: self.omitted })
            }
        }
    }
}

/// `text` in double quotes, escaped and cut, fit for a terminal and a log line.
pub(super) fn quote(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_QUOTED).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}
