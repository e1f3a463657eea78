//! From hits to findings: the same thing seen in several ways is one finding, and a specific rule wins over a general
//! one. Called by [`super::Stream`].

use std::cmp::Reverse;

use super::{Budget, Hit};
use crate::finding::{Finding, Fingerprint};
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
    let mut kept: Vec<(&Hit, Vec<usize>)> = Vec::new();
    for hit in ranked {
        let covered = |better: &Hit| {
            let same_kind = rule(better).map(|rule| rule.kind) == rule(hit).map(|rule| rule.kind);
            let overlap = better.span.start < hit.span.end && hit.span.start < better.span.end;
            // Two secrets in one encoded run share its place and are two.
            let same_layer = better.path.is_empty() || hit.path.is_empty() || better.fingerprint == hit.fingerprint;
            same_kind && overlap && (same_layer || better.rule == hit.rule && better.excerpt == hit.excerpt)
        };
        match kept.iter_mut().find(|(better, _)| covered(better)) {
            None => kept.push((hit, Vec::new())),
            Some((better, also)) if better.rule != hit.rule && !also.contains(&hit.rule) => also.push(hit.rule),
            Some(_) => {}
        }
    }
    kept.sort_by_key(|(hit, _)| (hit.span.start, hit.span.end, hit.rule));
    let id = |index: usize| core.rules.rule(index).map(|rule| rule.id.clone());
    let made = |(hit, also): (&Hit, Vec<usize>)| {
        let also = also.into_iter().filter_map(id).collect();
        Some(Finding { also, ..finding(rule(hit)?, hit) })
    };
    let mut findings: Vec<Finding> = kept.into_iter().filter_map(made).collect();
    let many = findings.len() > FINDINGS;
    findings.truncate(FINDINGS);
    if many {
        findings.push(budget("budget-findings", "More findings than are reported", end));
    }
    match over {
        Some(Budget::Depth) => findings.push(budget("budget-depth", "Encoded more often than is decoded", end)),
        Some(Budget::Expansion) => findings.push(budget("budget-expansion", "Decodes to more than is scanned", end)),
        None => {}
    }
    findings
}

/// How much a rule says: what nothing else looks like before what many things look like. A rule that names one vendor has
/// few keywords; one that takes any `password =` has many, or none.
fn specificity(rule: &Rule) -> (Confidence, Reverse<usize>, bool, Severity) {
    let words = if rule.keywords.is_empty() { usize::MAX } else { rule.keywords.len() };
    (rule.confidence, Reverse(words), rule.validator.is_some(), rule.severity)
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
        core: rule.core,
        span: hit.span.clone(),
        path: hit.path.clone(),
        fingerprint: hit.fingerprint,
        excerpt: hit.excerpt.clone(),
    }
}

/// The finding that a budget was not enough: it stands for the whole text.
fn budget(rule: &'static str, name: &'static str, end: u64) -> Finding {
    Finding {
        rule: rule.into(),
        also: Vec::new(),
        name: name.into(),
        kind: Kind::Dlp,
        class: "budget".into(),
        severity: Severity::High,
        confidence: Confidence::High,
        core: true,
        span: 0..end,
        path: Vec::new(),
        fingerprint: Fingerprint([0; 32]),
        excerpt: String::new(),
    }
}

fn names(hit: &Hit) -> impl Iterator<Item = &'static str> {
    hit.path.iter().map(|step| step.name())
}
