//! What sessions send, request by request: [`Sessions`]. Called by whoever sends requests on.

use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::{Budget, BudgetLimits, FragmentLimits, Fragments};
use crate::engine::EngineError;
use crate::entropy;
use crate::finding::Finding;
use crate::rule::builtin;
use crate::scanner::Scanner;
use crate::stream;
use crate::url::{self, Parts};

/// A scanner with a memory of what each session sent. Sessions are numbered by the caller; time is in milliseconds from any
/// fixed point.
#[derive(Debug)]
pub struct Sessions {
    scanner: Scanner,
    state: Mutex<State>,
    /// Keyed, so that nobody outside can choose which lanes meet.
    lanes: RandomState,
}

#[derive(Debug)]
struct State {
    budget: Budget,
    fragments: Fragments,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(scanner: Scanner, budget: BudgetLimits, fragments: FragmentLimits) -> Self {
        let state = State { budget: Budget::new(budget), fragments: Fragments::new(fragments) };
        Self { scanner, state: Mutex::new(state), lanes: RandomState::new() }
    }

    /// What is in a URL, as [`Scanner::scan_url`] says, and what it makes together with what this session sent before: a secret
    /// in pieces, more data in free values than a session may send.
    ///
    /// # Errors
    /// [`EngineError`]: the URL must then be taken for dirty.
    pub fn url(&self, session: u64, now: u64, url: &str) -> Result<Vec<Finding>, EngineError> {
        let mut findings = self.scanner.scan_url(url)?;
        let parts = Parts::of(url);
        let host = url.get(parts.host.clone()).unwrap_or_default();
        let bytes = url.as_bytes();
        for (at, part) in parts.segments.iter().enumerate() {
            let lane = self.lanes.hash_one((host, "", at));
            self.take(session, now, lane, &url::decoded(&bytes[part.clone()]), part, &mut findings)?;
        }
        for (key, value) in &parts.query {
            let lane = self.lanes.hash_one((host, &bytes[key.clone()], 0));
            self.take(session, now, lane, &url::decoded(&bytes[value.clone()]), value, &mut findings)?;
        }
        Ok(findings)
    }

    /// As [`url`](Self::url) for one value of a message: a header, a field of a form, an argument of a tool, a body of at most
    /// some kilobytes. `lane` says which: pieces of one lane are put together in order.
    ///
    /// # Errors
    /// [`EngineError`]: the value must then be taken for dirty.
    pub fn value(&self, session: u64, now: u64, lane: &str, value: &[u8]) -> Result<Vec<Finding>, EngineError> {
        let mut findings = self.scanner.scan(value)?;
        let lane = self.lanes.hash_one(lane);
        self.take(session, now, lane, value, &(0..value.len()), &mut findings)?;
        Ok(findings)
    }

    /// Forgets a session that ended.
    pub fn end(&self, session: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.budget.end(session);
        state.fragments.end(session);
    }

    fn take(
        &self,
        session: u64,
        now: u64,
        lane: u64,
        value: &[u8],
        place: &Range<usize>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), EngineError> {
        let place = place.start as u64..place.end as u64;
        let (joined, over) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let over = entropy::free(value) && state.budget.record(session, now, value).over;
            (state.fragments.push(session, lane, now, value), over)
        };
        findings.extend(self.scanner.scan_joined(&joined, &place)?);
        let told = findings.iter().any(|finding| *finding.rule == *builtin::SESSION_BUDGET.id);
        if over && !told && self.scanner.has(&builtin::SESSION_BUDGET) {
            let whole = stream::whole(&builtin::SESSION_BUDGET, 0);
            findings.push(Finding { span: place.clone(), cover: place, ..whole });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleSet;

    fn sessions(bits: f64) -> Sessions {
        let rule = "rules: [{id: token, name: token, kind: dlp, class: credential, severity: high, confidence: high, \
                    pattern: 'ghp_[A-Za-z0-9]{36}'}]";
        let rules = RuleSet::read(&[("test", rule)]).unwrap().with_builtins();
        let scanner = Scanner::new(rules, &[1; 32]).unwrap();
        Sessions::new(scanner, BudgetLimits { bits, ..BudgetLimits::default() }, FragmentLimits::default())
    }

    fn rules(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| &*finding.rule).collect()
    }

    #[test]
    fn a_secret_in_pieces_is_found_by_the_request_that_completes_it() {
        let sessions = sessions(1e9);
        let url = |value: &str| format!("https://example.com/?q={value}");
        assert_eq!(rules(&sessions.url(1, 0, &url("ghp_0123456789")).unwrap()), [] as [&str; 0]);
        assert_eq!(rules(&sessions.url(1, 1, &url("abcdefghij")).unwrap()), [] as [&str; 0]);
        assert_eq!(rules(&sessions.url(2, 1, &url("ABCDEFGHIJ012345")).unwrap()), [] as [&str; 0]);
        let found = sessions.url(1, 2, &url("ABCDEFGHIJ012345")).unwrap();
        assert_eq!(rules(&found), ["token"]);
        assert_eq!(found[0].span, 23..39);
        assert_eq!(found[0].path, [crate::Step::Joined]);
        sessions.value(3, 0, "body", b"ghp_0123456789abcdefghij").unwrap();
        assert_eq!(rules(&sessions.value(3, 1, "body", b"ABCDEFGHIJ012345").unwrap()), ["token"]);
    }

    #[test]
    fn a_budget_runs_out() {
        let sessions = sessions(300.0);
        let url = |value: u64| format!("https://example.com/?id=k{:x}", value.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let over = (0..20)
            .position(|at| rules(&sessions.url(1, at, &url(at + 1)).unwrap()).contains(&"session-entropy-budget"));
        assert!(matches!(over, Some(3..=8)), "{over:?}");
        let words = ["search", "settings", "documentation", "2026", "en", "12", "issues", "list-all-things"];
        for at in 0..200 {
            let url = format!("https://example.com/{}/{}", words[at % 8], words[at * 7 % 8]);
            assert_eq!(rules(&sessions.url(2, at as u64, &url).unwrap()), [] as [&str; 0], "{url}");
        }
        sessions.end(1);
        assert_eq!(rules(&sessions.url(1, 30, &url(9)).unwrap()), [] as [&str; 0]);
    }
}
