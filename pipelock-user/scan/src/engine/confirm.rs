//! From "some match of this rule ends near here" to exact matches, the same that a plain search of the whole text
//! finds. Called by [`super::vector`] with what vectorscan reports, and by [`super::oracle`] for the checks.
//!
//! Why this is exact. Every match of rule r that starts at s has a report at an offset e with s < e ≤ s + longest(r).
//! So the matches that start at or before e lie in `e - longest .. e + longest`: searching that range from the end of the
//! secret before finds them, and nothing that starts later is taken before its own report was seen.

use std::ops::Range;

use regex_automata::Input;

use super::Match;
use crate::rule::{Rule, RuleSet};
use crate::stream::Window;

/// Reports that are not resolved yet.
#[derive(Debug, Default)]
pub(super) struct Confirm {
    pending: Vec<Pending>,
    /// Per rule, where its next match may start at the earliest; forgotten once far behind.
    resume: Vec<(u32, u64)>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    rule: u32,
    first: u64,
    last: u64,
}

impl Confirm {
    /// Notes that a match of `rule` has its report at `end`.
    pub(super) fn note(&mut self, rules: &RuleSet, rule: u32, end: u64) {
        self.note_all(rules, rule, end, end);
    }

    /// Notes that matches of `rule` may have their reports anywhere from `first` to `last`.
    pub(super) fn note_all(&mut self, rules: &RuleSet, rule: u32, first: u64, last: u64) {
        let near = rules.rules().get(rule as usize).map_or(0, |rule| 2 * rule.pattern.longest() as u64);
        // The newest entry of the rule, which is among the last few: reports come in order.
        for pending in self.pending.iter_mut().rev().take(8) {
            if pending.rule == rule {
                if first <= pending.last + near && pending.first <= last + near {
                    // What is searched twice is reported twice.
                    pending.first = pending.first.min(first);
                    pending.last = pending.last.max(last);
                    return;
                }
                break;
            }
        }
        self.pending.push(Pending { rule, first, last });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Where the first match may start that is still to be resolved.
    pub(super) fn hold(&self, rules: &RuleSet) -> Option<u64> {
        self.pending
            .iter()
            .map(|pending| {
                let longest = rules.rules().get(pending.rule as usize).map_or(0, |rule| rule.pattern.longest() as u64);
                self.resume_of(pending.rule).max(pending.first.saturating_sub(longest))
            })
            .min()
    }

    /// Resolves what can be resolved with the bytes that are there.
    pub(super) fn resolve(&mut self, rules: &RuleSet, window: &Window<'_>, last: bool, matches: &mut Vec<Match>) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|entry| !self.resolve_one(rules, window, last, entry, matches));
        self.pending = pending;
        let horizon = window.end().saturating_sub(4 * crate::rule::pattern::MAX_LENGTH as u64);
        self.resume.retain(|(_, at)| *at > horizon);
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.resume.clear();
    }

    fn resume_of(&self, rule: u32) -> u64 {
        self.resume.iter().find(|(known, _)| *known == rule).map_or(0, |(_, at)| *at)
    }

    fn set_resume(&mut self, rule: u32, at: u64) {
        match self.resume.iter_mut().find(|(known, _)| *known == rule) {
            Some(entry) => entry.1 = at,
            None => self.resume.push((rule, at)),
        }
    }

    /// True when nothing is left of the entry.
    fn resolve_one(
        &mut self,
        rules: &RuleSet,
        window: &Window<'_>,
        last: bool,
        entry: &Pending,
        matches: &mut Vec<Match>,
    ) -> bool {
        let index = entry.rule as usize;
        let Some(rule) = rules.rules().get(index) else { return true };
        let longest = rule.pattern.longest() as u64;
        // Starts up to here have all the bytes they may need, and one more for assertions.
        let limit = match window.end().checked_sub(longest + 1) {
            _ if last => entry.last,
            Some(limit) => entry.last.min(limit),
            None => return false,
        };
        let mut at = self.resume_of(entry.rule).max(entry.first.saturating_sub(longest));
        let stop = entry.last.saturating_add(longest).min(window.end());
        while at <= limit && at < stop {
            let Some(found) = find(rule, window, at..stop) else {
                at = limit + 1;
                break;
            };
            if found.span.start > limit {
                at = found.span.start;
                break;
            }
            let accepted = window.with(found.span.clone(), |text| accept(rule, text, &found));
            at = if accepted { after_match(&found) } else { after_refusal(rule, &found.span) };
            if accepted {
                matches.push(Match { rule: index, ..found });
            }
        }
        self.set_resume(entry.rule, at);
        at > entry.last || last
    }
}

/// Where the search goes on behind a match: at the end of the secret, since what stands behind it may be what has to stand before
/// the next one, as in a list.
pub(super) fn after_match(found: &Match) -> u64 {
    if found.secret.end > found.span.start { found.secret.end } else { found.span.end }
}

/// Where the search goes on when a match did not pass the checks: what is checked by a validator may hide a good one
/// that starts inside it, such as a card number behind other digits; but hostile text must not make it expensive.
pub(super) fn after_refusal(rule: &Rule, span: &Range<u64>) -> u64 {
    if rule.validator.is_some() && span.end - span.start <= 64 { span.start + 1 } else { span.end }
}

/// The first match that starts in `range` and ends in it.
fn find(rule: &Rule, window: &Window<'_>, range: Range<u64>) -> Option<Match> {
    let regex = rule.pattern.regex()?;
    // One byte more on both sides for what looks around; the true ends of the text are ends.
    let around = range.start.saturating_sub(1).max(window.start())..(range.end + 1).min(window.end());
    window.with(around.clone(), |text| {
        let offset = around.start;
        let inside = (range.start - offset) as usize..(range.end - offset) as usize;
        let found = regex.search(&Input::new(text).range(inside.clone()))?;
        let mut secret = found.range();
        if rule.secret > 0 {
            let mut captures = regex.create_captures();
            regex.search_captures(&Input::new(text).range(found.start()..inside.end), &mut captures);
            if let Some(group) = captures.get_group(rule.secret) {
                secret = group.range();
            }
        }
        let shift = |range: Range<usize>| range.start as u64 + offset..range.end as u64 + offset;
        Some(Match { rule: 0, span: shift(found.range()), secret: shift(secret) })
    })
}

/// Does the match pass the rule's keywords, validator and entropy floor? `text` is the match's.
fn accept(rule: &Rule, text: &[u8], found: &Match) -> bool {
    let start = (found.secret.start - found.span.start) as usize;
    let end = (found.secret.end - found.span.start) as usize;
    checks(rule, text, text.get(start..end).unwrap_or_default())
}

/// The checks of a rule on the text of a match and the secret in it.
pub(super) fn checks(rule: &Rule, text: &[u8], secret: &[u8]) -> bool {
    let has = |word: &String| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()));
    (rule.keywords.is_empty() || rule.keywords.iter().any(has))
        && rule.entropy.is_none_or(|floor| entropy(secret) >= floor)
        && rule.validator.is_none_or(|validator| validator(secret))
}

/// Shannon entropy in bits per byte, 0 to 8.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    bytes.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    let total = bytes.len() as f64;
    counts.iter().filter(|&&count| count > 0).map(|&count| f64::from(count) / total).map(|p| -p * p.log2()).sum()
}
