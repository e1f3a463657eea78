//! Names of files: others choose them, so they are read like contents, and shown without what was found in them. Called by the
//! verb for what it reads, and by `diff` for what that names.
//!
//! Promises: what a name holds is told once, however many files lie below it; no secret in a name reaches a report.

use std::collections::HashSet;
use std::sync::Arc;

use pipelock_scan::{EngineError, Fingerprint, Kind, Scanner, redact};

use super::place::Place;
use super::report::Located;

/// What was told of names already.
#[derive(Debug, Default)]
pub(super) struct Names {
    told: HashSet<(Arc<str>, Fingerprint)>,
}

impl Names {
    /// The name as it may be shown, and what is in it that was not told before.
    pub(super) fn look(&mut self, scanner: &Scanner, name: &[u8]) -> Result<(String, Vec<Located>), EngineError> {
        let found = scanner.scan(name)?;
        let secrets: Vec<_> = found.iter().filter(|finding| finding.kind == Kind::Dlp).cloned().collect();
        let shown = String::from_utf8_lossy(&redact(name, &secrets)).into_owned();
        let new = found.into_iter().filter(|finding| self.told.insert((finding.rule.clone(), finding.fingerprint)));
        let located = |finding| Located { path: shown.clone(), place: Place::FIRST, end: None, in_name: true, finding };
        let located = new.map(located).collect();
        Ok((shown, located))
    }
}
