//! How `pipelock scan` says what it found: text, JSON lines, or SARIF 2.1.0 (OASIS). Called by the verb.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use pipelock_scan::rule::Rule;
use pipelock_scan::{Finding, Kind, RuleSet, Severity};
use serde_json::{Value, json};

use super::super::{USAGE, output};
use super::baseline::Baseline;
use super::place::Place;

/// A finding and its place in a file.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) path: String,
    pub(super) place: Place,
    /// Where it ends, as far as that is known.
    pub(super) end: Option<Place>,
    /// It is in the name of the file.
    pub(super) in_name: bool,
    pub(super) finding: Finding,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    Text,
    Json,
    Sarif,
}

/// What is to be said.
#[derive(Debug)]
pub(super) struct Report {
    form: Form,
    /// What is asked for; all when nothing is said.
    kind: Option<Kind>,
    /// What is known already.
    baseline: Option<Baseline>,
    /// Fingerprints are the same in the next run, so that services can tell findings by them.
    lasting: bool,
    results: Vec<Value>,
    /// Rules that results name and the list of rules may not have: of known values, by id.
    named: BTreeMap<Arc<str>, Value>,
    findings: usize,
    unread: Vec<Value>,
}

impl Report {
    pub(super) fn new(form: Form, kind: Option<Kind>, baseline: Option<Baseline>, lasting: bool) -> Self {
        let (results, named, unread) = (Vec::new(), BTreeMap::new(), Vec::new());
        Self { form, kind, baseline, lasting, results, named, findings: 0, unread }
    }

    pub(super) fn add(&mut self, located: Located) {
        // What could not be looked at is told whatever was asked for.
        let finding = &located.finding;
        if self.kind.is_some_and(|kind| kind != finding.kind) && &*finding.class != "budget" {
            return;
        }
        if self.baseline.as_mut().is_some_and(|known| known.has(&located.path, finding)) {
            return;
        }
        self.findings += 1;
        match self.form {
            Form::Text => output::line(&text(&located)),
            Form::Json => output::line(&json_of(&located).to_string()),
            Form::Sarif => self.results.push(sarif_of(&located, self.lasting)),
        }
    }

    pub(super) fn unread(&mut self, file: &str, error: &impl Display) {
        let message = format!("{}: {error}: not looked at", plain(file));
        output::error(&message);
        self.unread.push(json!({"level": "error", "message": {"text": message}}));
    }

    /// The exit code: 1 when something was found, else 2 when something could not be looked at.
    pub(super) fn finish(mut self, rules: &RuleSet) -> u8 {
        if self.form == Form::Sarif {
            output::line(&self.sarif(rules).to_string());
        }
        if let Some((seen, known)) = self.baseline.as_ref().map(Baseline::seen) {
            let gone = known - seen;
            output::note(&match seen {
                0 if known > 0 => {
                    format!("baseline: none of its {known} findings is there: another key, or other paths?")
                }
                _ if gone == 0 => format!("baseline: {seen} known findings not told again"),
                _ => format!("baseline: {seen} known findings not told again; {gone} are no longer there"),
            });
        }
        match (self.findings, self.unread.len()) {
            (0, 0) => 0,
            (0, _) => USAGE,
            _ => 1,
        }
    }

    fn sarif(&mut self, rules: &RuleSet) -> Value {
        for rule in all(rules) {
            self.named.entry(rule.id.clone()).or_insert_with(|| sarif_rule(rule));
        }
        let rules: Vec<&Value> = self.named.values().collect();
        let driver = json!({
            "name": "pipelock",
            "version": env!("CARGO_PKG_VERSION"),
            "semanticVersion": env!("CARGO_PKG_VERSION"),
            "rules": rules,
        });
        let invocation = json!({
            "executionSuccessful": self.unread.is_empty(),
            "toolExecutionNotifications": self.unread,
        });
        let run = json!({"tool": {"driver": driver},
            "columnKind": "unicodeCodePoints", "invocations": [invocation], "results": self.results});
        let schema = "https://json.schemastore.org/sarif-2.1.0.json";
        json!({"$schema": schema, "version": "2.1.0", "runs": [run]})
    }
}

fn all(rules: &RuleSet) -> impl Iterator<Item = &Rule> {
    rules.rules().iter().chain(rules.concepts()).chain(rules.builtins())
}

/// Prints the rules.
pub(super) fn list(rules: &RuleSet, as_json: bool) {
    for rule in all(rules) {
        if as_json {
            let line = json!({
                "rule": &*rule.id,
                "name": &*rule.name,
                "kind": rule.kind,
                "class": &*rule.class,
                "severity": rule.severity,
                "confidence": rule.confidence,
                "core": rule.core,
                "mitre": &*rule.mitre(),
            });
            output::line(&line.to_string());
        } else {
            let core = if rule.core { ", core" } else { "" };
            let (severity, mitre) = (word(rule.severity), rule.mitre().join(" "));
            output::line(&format!("{} ({}, {severity}{core}, {mitre}): {}", rule.id, rule.class, rule.name));
        }
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::High => "high",
        Severity::Medium => "medium",
        Severity::Low => "low",
    }
}

fn steps(finding: &Finding) -> Vec<&'static str> {
    finding.path.iter().map(|step| step.name()).collect()
}

/// Without what could move the cursor, turn the line round or is not seen: names of files are chosen by others.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            _ if char.is_control() => plain.push('?'),
            '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{61c}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}' => plain.extend(char.escape_unicode()),
            _ => plain.push(char),
        }
    }
    plain
}

fn text(located: &Located) -> String {
    let Located { path, place: Place { line, column, .. }, finding, .. } = located;
    let steps = steps(finding);
    let through = if steps.is_empty() { String::new() } else { format!(" in {}", steps.join(" in ")) };
    // Injections are shown as they are; what could move the cursor was taken out when the excerpt was made.
    let (path, name) = (plain(path), plain(&finding.name));
    let shown = if finding.excerpt.is_empty() { String::new() } else { format!(": {}", plain(&finding.excerpt)) };
    let place = if located.in_name { format!("{path}: in its name") } else { format!("{path}:{line}:{column}") };
    format!("{place}: {name} ({}, {}){through}{shown}", finding.rule, word(finding.severity))
}

fn json_of(located: &Located) -> Value {
    let finding = &located.finding;
    json!({
        "path": located.path,
        "line": located.place.line,
        "column": located.place.column,
        "in_name": located.in_name,
        "rule": &*finding.rule,
        "also": finding.also.iter().map(|rule| &**rule).collect::<Vec<_>>(),
        "name": &*finding.name,
        "kind": finding.kind,
        "class": &*finding.class,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "mitre": &*finding.mitre,
        "span": [finding.span.start, finding.span.end],
        "decode_path": steps(finding),
        "fingerprint": finding.fingerprint,
        "excerpt": finding.excerpt,
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    }
}

fn sarif_rule(rule: &Rule) -> Value {
    json!({
        "id": &*rule.id,
        "name": &*rule.name,
        "shortDescription": {"text": &*rule.name},
        "defaultConfiguration": {"level": level(rule.severity)},
        "properties": {"tags": [rule.kind, &*rule.class], "mitre": &*rule.mitre()},
    })
}

fn sarif_of(located: &Located, lasting: bool) -> Value {
    let finding = &located.finding;
    let mut place = json!({"artifactLocation": {"uri": uri(&located.path)}});
    if !located.in_name {
        place["region"] = region(located);
    }
    let message = match located.in_name {
        true => format!("{}, in the name of the file: {}", finding.name, finding.excerpt),
        false => format!("{}: {}", finding.name, finding.excerpt),
    };
    let mut result = json!({
        "ruleId": &*finding.rule,
        "level": level(finding.severity),
        "message": {"text": message},
        "locations": [{"physicalLocation": place}],
        "properties": {"decode_path": steps(finding), "mitre": &*finding.mitre, "confidence": finding.confidence},
    });
    if lasting {
        result["partialFingerprints"] = json!({"pipelockSecret/v1": finding.fingerprint});
    }
    result
}

/// In characters, as `columnKind` says; the end is the place behind the last one.
fn region(Located { place, end, .. }: &Located) -> Value {
    let mut region = json!({"startLine": place.line, "startColumn": place.character});
    if let Some(end) = end.filter(|end| (end.line, end.character) >= (place.line, place.character)) {
        region["endLine"] = end.line.into();
        region["endColumn"] = end.character.into();
    }
    region
}

/// The path as a URI reference (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}
