//! What is done about what was found in a body: it ends there, something is taken out of it, or it is noted.
//!
//! Called by `reader` as the body streams by. It promises that a body which is to be stopped is read no further, and that what is taken
//! out is replaced by the same placeholder wherever it comes.

use pipelock_scan::{Finding, Kind, Step};

use super::cuts::merge;
use super::pieces::{Said, Short};
use super::reader::Reader;
use super::terms::{MOST_TOLD, told};
use crate::flow::{Found, Verdict};
use crate::policy::FindingAction;

/// Rules read the beginning of a key, and nobody knows how long it is.
pub(super) fn has_no_end(finding: &Finding) -> bool {
    &*finding.class == "private_key"
}

impl Reader {
    /// What the beginning completes, if the body ends here; somebody may be asked about it where it `may_ask`.
    pub(super) fn judge_short(&mut self, may_ask: bool) -> Result<(), Verdict> {
        let said = self.short.as_mut().map(Short::rest).unwrap_or_default();
        self.judge_said(said, may_ask)
    }

    /// Judges what values complete of what other bodies began: all of them where somebody may be asked about it.
    pub(super) fn judge_said(&mut self, mut said: Said, may_ask: bool) -> Result<(), Verdict> {
        let outgrown = std::mem::take(&mut said.outgrown);
        outgrown.iter().for_each(|(_, _, tickets)| self.scanners.take_back(tickets));
        let mut wanted: Option<Verdict> = None;
        let grows: Vec<bool> = (0..said.values.len()).map(|number| said.may_grow(number)).collect();
        let (mut sent, mut refused) = (Vec::new(), Vec::new());
        for ((name, value), grows) in said.values.drain(..).zip(grows) {
            let place = || self.place.to_owned();
            match self.terms.check_piece(&self.scanners, self.side, ("body", &name), &value, place) {
                Ok((noted, tickets)) => {
                    noted.into_iter().for_each(|found| self.note(found));
                    sent.extend_from_slice(&tickets);
                    if let Some(short) = self.short.as_mut().filter(|_| grows) {
                        short.judged(name, value, tickets);
                    }
                }
                Err(verdict) if may_ask && verdict.is_askable() => {
                    refused.push((name, value));
                    verdict.add_to(&mut wanted);
                }
                Err(verdict) => {
                    wanted = Some(verdict);
                    break;
                }
            }
        }
        let Some(wanted) = wanted else { return Ok(()) };
        self.stream = None;
        if may_ask && wanted.is_askable() {
            // Whoever is asked may say yes, and then all of it is sent.
            self.say_again(&refused);
        } else {
            // None of what came with it is sent, so that nothing else completes it.
            self.scanners.take_back(&sent);
            if self.at > 0 {
                let gone: Vec<_> = outgrown.into_iter().map(|(name, value, _)| (name, value)).collect();
                self.say_again(&gone);
            }
        }
        Err(wanted)
    }

    /// Remembers what was judged by now, and has left or is to leave.
    fn say_again(&self, values: &[(String, Vec<u8>)]) {
        for (name, value) in values {
            // Where the scanner fails, nothing goes on any more.
            let _ = self.terms.piece(&self.scanners, ("body", name), value);
        }
    }

    pub(super) fn note(&mut self, found: Found) {
        if self.noted.len() < MOST_TOLD && !self.noted.contains(&found) {
            self.noted.push(found);
        }
    }

    pub(super) fn judge(&mut self, findings: &[Finding]) -> Result<(), Verdict> {
        let mut all = Vec::new();
        let mut stops = false;
        self.cuts.clear();
        for finding in findings {
            let mut action = self.terms.action(self.side, finding);
            if action == FindingAction::Redact {
                let cut = finding.cover.clone();
                // A placeholder is ASCII, which UTF-16 is not.
                let has_no_room = |step: &Step| step.is_packed() || *step == Step::Utf16;
                if !self.encoded.is_changeable() || finding.path.iter().any(has_no_room) || has_no_end(finding) {
                    action = FindingAction::Block;
                } else if cut.end > self.at {
                    let is_begun = cut.start < self.at && !self.was_told(finding);
                    let goes_on = finding.kind == Kind::Dlp && self.goes_on(cut.end);
                    if is_begun || goes_on {
                        // Its beginning is gone, or its end is not known, so it cannot be taken out.
                        action = FindingAction::Block;
                    } else {
                        if finding.kind == Kind::Dlp && cut.end == self.end {
                            self.open = Some((cut.end, told(finding, self.place, FindingAction::Block)));
                        }
                        let placeholder = self.placeholder(finding);
                        self.cuts.push_back((cut.start.max(self.at)..cut.end, placeholder));
                    }
                } else if !self.was_replaced(&cut) {
                    // What told that it is one came when it was gone.
                    action = FindingAction::Block;
                }
            }
            stops |= action == FindingAction::Block;
            if action != FindingAction::Off {
                all.push(told(finding, self.place, action));
            }
        }
        if stops {
            self.stream = None;
            all.retain(|found| found.action == "block");
            return Err(self.terms.stop(self.side, all));
        }
        merge(&mut self.cuts);
        all.into_iter().for_each(|found| self.note(found));
        Ok(())
    }

    /// Ends the body where something goes on that was taken out as far as it was there.
    pub(super) fn judge_open(&mut self) -> Result<(), Verdict> {
        let Some((end, found)) = self.open.take_if(|(end, _)| *end < self.end) else { return Ok(()) };
        let is_longer = self.cuts.iter().any(|(cut, _)| cut.start < end && end < cut.end);
        if is_longer || !self.goes_on(end) {
            return Ok(());
        }
        self.stream = None;
        Err(self.terms.stop(self.side, vec![found]))
    }

    /// Whether what a rule has found up to a place goes on there: what follows would be left of a secret that is longer than the rule
    /// reads, or of another that begins in it.
    fn goes_on(&self, end: u64) -> bool {
        let is_own = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+/=".contains(&byte);
        let is_at = |place: u64| self.byte(place).is_some_and(is_own);
        // What was taken out already ended in the secret's characters.
        let before = end.checked_sub(1).is_some_and(|last| last < self.at || is_at(last));
        before && (is_at(end) || self.byte(end) == Some(b'.') && is_at(end + 1))
    }

    /// Judges what was found in texts put together, which have no place of their own.
    pub(super) fn judge_apart(&mut self, findings: &[Finding], place: &str) -> Result<(), Verdict> {
        let mut stops = Vec::new();
        for finding in findings {
            match self.terms.action(self.side, finding) {
                FindingAction::Off => {}
                FindingAction::Warn => self.note(told(finding, place, FindingAction::Warn)),
                FindingAction::Block | FindingAction::Redact | FindingAction::Ask => {
                    stops.push(told(finding, place, FindingAction::Block));
                }
            }
        }
        if stops.is_empty() {
            return Ok(());
        }
        self.stream = None;
        Err(self.terms.stop(self.side, stops))
    }

    /// True when something was taken out, so that the bytes are not those that came.
    #[must_use]
    pub fn has_replaced(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Whether a finding was taken out before, wholly or in part.
    fn was_told(&self, finding: &Finding) -> bool {
        self.seen.iter().any(|(class, secret)| *class == finding.class && *secret == finding.fingerprint.0)
    }

    fn placeholder(&mut self, finding: &Finding) -> String {
        if !self.was_told(finding) {
            self.seen.push((finding.class.clone(), finding.fingerprint.0));
        }
        self.scanners.placeholders.of(finding)
    }
}
