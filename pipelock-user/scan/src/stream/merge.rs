//! From hits to findings: the same thing seen in several ways is one finding, and a specific rule wins over a general
//! one. Called by [`super::Stream`].

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Budget, Hit, MOST_HITS};
use crate::finding::{Finding, Fingerprint};
use crate::rule::builtin::{self, Builtin};
use crate::rule::{Confidence, Kind, Rule, Severity};
use crate::scanner::{Core, FINDINGS};

/// The findings that remain, in order of their place.
pub(super) fn findings(core: &Core, hits: &[Hit], over: Option<Budget>, end: u64) -> Vec<Finding> {
    let rule = |hit: &Hit| core.rules.rule(hit.rule);
    let mut ranked: Vec<&Hit> = hits.iter().collect();
    // The best first: then each that overlaps a better one of its kind can go.
    ranked.sort_by(|one, other| {
        let key = |hit: &Hit| rule(hit).map(specificity);
        key(other)
            .cmp(&key(one))
            .then(one.path.len().cmp(&other.path.len()))
            .then(one.span.start.cmp(&other.span.start))
            .then(other.span.end.cmp(&one.span.end))
            .then(one.rule.cmp(&other.rule))
            .then_with(|| names(one).cmp(names(other)))
            .then(one.fingerprint.0.cmp(&other.fingerprint.0))
    });
    let mut kept: Vec<Kept<'_>> = Vec::new();
    for hit in ranked {
        let covered = |better: &Hit| {
            let same_kind = rule(better).map(|rule| rule.kind) == rule(hit).map(|rule| rule.kind);
            let overlap = better.span.start < hit.span.end && hit.span.start < better.span.end;
            // Two secrets in one encoded run share its place and are two. One that was decoded in two ways may look like two.
            let same_layer = better.path.is_empty() || hit.path.is_empty() || better.fingerprint == hit.fingerprint;
            let alike = better.rule == hit.rule && better.excerpt == hit.excerpt && better.path != hit.path;
            same_kind && overlap && (same_layer || alike)
        };
        match kept.iter_mut().find(|kept| covered(kept.hit)) {
            None => {
                let severity = rule(hit).map_or(Severity::Low, |rule| rule.severity);
                kept.push(Kept { hit, also: Vec::new(), cover: hit.span.clone(), severity });
            }
            Some(better) => {
                // What says more is not less serious for that.
                if let Some(rule) = rule(hit).filter(|rule| rule.confidence >= Confidence::Medium) {
                    better.severity = better.severity.max(rule.severity);
                }
                better.cover = better.cover.start.min(hit.span.start)..better.cover.end.max(hit.span.end);
                if better.hit.rule != hit.rule && !better.also.contains(&hit.rule) {
                    better.also.push(hit.rule);
                }
            }
        }
    }
    kept.sort_by_key(|Kept { hit, .. }| (hit.span.start, hit.span.end, hit.rule));
    let id = |index: usize| core.rules.rule(index).map(|rule| rule.id.clone());
    let made = |Kept { hit, also, cover, severity }: Kept<'_>| {
        let also = also.into_iter().filter_map(id).collect();
        Some(Finding { also, cover, severity, ..finding(rule(hit)?, hit) })
    };
    let secrets = Secrets::new(core, hits);
    let mut findings: Vec<Finding> = kept.into_iter().filter_map(made).collect();
    findings.iter_mut().for_each(|finding| secrets.withhold(finding));
    findings.dedup_by(|next, before| joined(before, next));
    // Hits beyond these were not kept, whatever became of those that were.
    let many = findings.len() > FINDINGS || hits.len() >= MOST_HITS;
    choose(&mut findings);
    if many {
        findings.push(whole(&builtin::BUDGET_FINDINGS, end));
    }
    match over {
        Some(Budget::Depth) => findings.push(whole(&builtin::BUDGET_DEPTH, end)),
        Some(Budget::Expansion) => findings.push(whole(&builtin::BUDGET_EXPANSION, end)),
        None => {}
    }
    findings
}

/// Leaves [`FINDINGS`] of the findings, in their order: of every rule the first few, then as they come, so that a thousand of
/// one kind hide none of another.
fn choose(findings: &mut Vec<Finding>) {
    if findings.len() <= FINDINGS {
        return;
    }
    let mut seen: HashMap<Arc<str>, usize> = HashMap::new();
    let mut order: Vec<(bool, Reverse<Severity>, usize)> = Vec::with_capacity(findings.len());
    for (at, finding) in findings.iter().enumerate() {
        let count = seen.entry(Arc::clone(&finding.rule)).or_default();
        *count += 1;
        let among_more = *count > OF_EACH;
        // More rules than there is room for: the serious ones first. Of the rest, the first.
        order.push((among_more, Reverse(if among_more { Severity::Low } else { finding.severity }), at));
    }
    order.sort_unstable();
    let mut chosen = vec![false; findings.len()];
    order.iter().take(FINDINGS).for_each(|(.., at)| chosen[*at] = true);
    let mut chosen = chosen.into_iter();
    findings.retain(|_| chosen.next().unwrap_or_default());
}

/// Hits and findings of a rule that others cannot displace.
const OF_EACH: usize = 4;

/// Bounds what is kept of a text: its first [`MOST_HITS`] hits, and of each rule that has none or few among them as many as
/// [`OF_EACH`]. `before` are there from earlier pieces.
pub(super) fn limit(hits: &mut Vec<Hit>, before: usize) {
    let from = before.max(MOST_HITS);
    if hits.len() <= from {
        return;
    }
    let mut counts: HashMap<usize, usize> = HashMap::new();
    let mut at = 0;
    hits.retain(|hit| {
        let count = counts.entry(hit.rule).or_default();
        at += 1;
        let keep = at <= from || *count < OF_EACH;
        *count += usize::from(keep);
        keep
    });
}

/// Where secrets lie, whatever became of the hits that told.
struct Secrets {
    /// Sorted, none inside another.
    spans: Vec<Range<u64>>,
    /// There were more than are known.
    many: bool,
}

impl Secrets {
    fn new(core: &Core, hits: &[Hit]) -> Self {
        let secret = |hit: &&Hit| core.rules.rule(hit.rule).is_some_and(|rule| rule.kind == Kind::Dlp);
        let mut spans: Vec<Range<u64>> = hits.iter().filter(secret).map(|hit| hit.span.clone()).collect();
        spans.sort_by_key(|span| (span.start, Reverse(span.end)));
        spans.dedup_by(|next, before| next.end <= before.end);
        Self { spans, many: hits.len() >= MOST_HITS }
    }

    /// Takes the text out of an injection's excerpt when a secret stands in it.
    fn withhold(&self, finding: &mut Finding) {
        let first = self.spans.partition_point(|span| span.end <= finding.cover.start);
        let overlaps = self.many || self.spans.get(first).is_some_and(|span| span.start < finding.cover.end);
        if finding.kind == Kind::Injection && overlaps {
            finding.excerpt = format!("…({})", finding.span.end - finding.span.start);
        }
    }
}

/// How much a rule says: what nothing else looks like before what many things look like. A rule that names one vendor has
/// few keywords; one that takes any `password =` has many, or none.
fn specificity(rule: &Rule) -> (Confidence, Reverse<usize>, bool, Severity) {
    // A value that somebody named says more than its form.
    let known = *rule.id == *builtin::KNOWN.id;
    let words = if rule.keywords.is_empty() && !known { usize::MAX } else { rule.keywords.len() };
    (rule.confidence, Reverse(words), rule.validator.is_some(), rule.severity)
}

/// A hit that became a finding.
struct Kept<'a> {
    hit: &'a Hit,
    also: Vec<usize>,
    /// The bytes of all hits that went into it.
    cover: Range<u64>,
    /// The worst of theirs, of those that are sure enough.
    severity: Severity,
}

/// Makes two parts of one flood one.
fn joined(before: &mut Finding, next: &Finding) -> bool {
    let same = *before.rule == *builtin::FLOOD.id && before.rule == next.rule && before.path == next.path;
    if same && before.span.end == next.span.start {
        before.span.end = next.span.end;
        before.cover.end = before.cover.end.max(next.cover.end);
        return true;
    }
    false
}

fn finding(rule: &Rule, hit: &Hit) -> Finding {
    Finding {
        rule: rule.id.clone(),
        also: Vec::new(),
        name: rule.name.clone(),
        kind: rule.kind,
        class: rule.class.clone(),
        severity: rule.severity,
        confidence: rule.confidence,
        mitre: rule.mitre(),
        core: rule.core,
        span: hit.span.clone(),
        cover: hit.span.clone(),
        path: hit.path.clone(),
        fingerprint: hit.fingerprint,
        excerpt: hit.excerpt.clone(),
    }
}

/// A finding of a detector that is no pattern, about the whole text.
pub(crate) fn whole(builtin: &Builtin, end: u64) -> Finding {
    let (path, fingerprint, excerpt) = (Vec::new(), Fingerprint([0; 32]), String::new());
    let hit = Hit { rule: 0, span: 0..end, seen: 0..end, path, fingerprint, excerpt };
    finding(&builtin.rule(), &hit)
}

fn names(hit: &Hit) -> impl Iterator<Item = &'static str> {
    hit.path.iter().map(|step| step.name())
}
