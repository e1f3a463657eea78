//! How `pipelock scan` says what it found: text, JSON lines, or SARIF 2.1.0 (OASIS). Called by the verb.

use std::path::Path;

use pipelock_scan::{Finding, RuleSet, Severity};
use serde_json::{Value, json};

use super::output;

/// A finding and its place in a file.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) path: String,
    /// From 1.
    pub(super) line: usize,
    /// From 1, in bytes.
    pub(super) column: usize,
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
    results: Vec<Value>,
    findings: usize,
    unread: usize,
}

impl Report {
    pub(super) fn new(form: Form) -> Self {
        Self { form, results: Vec::new(), findings: 0, unread: 0 }
    }

    pub(super) fn add(&mut self, located: Located) {
        self.findings += 1;
        match self.form {
            Form::Text => output::line(&text(&located)),
            Form::Json => output::line(&json_of(&located).to_string()),
            Form::Sarif => self.results.push(sarif_of(&located)),
        }
    }

    pub(super) fn unread(&mut self, file: &Path, error: &std::io::Error) {
        self.unread += 1;
        output::error(&format!("{}: {error}", file.display()));
    }

    /// The exit code: 1 when something was found, or could not be looked at.
    pub(super) fn finish(self, rules: &RuleSet) -> u8 {
        if self.form == Form::Sarif {
            let rules: Vec<Value> = rules
                .rules()
                .iter()
                .map(|rule| json!({"id": &*rule.id, "name": &*rule.name, "shortDescription": {"text": &*rule.name}}))
                .collect();
            let driver = json!({"name": "pipelock", "version": env!("CARGO_PKG_VERSION"), "rules": rules});
            let run = json!({"tool": {"driver": driver}, "results": self.results});
            let schema = "https://json.schemastore.org/sarif-2.1.0.json";
            output::line(&json!({"$schema": schema, "version": "2.1.0", "runs": [run]}).to_string());
        }
        u8::from(self.findings > 0 || self.unread > 0)
    }
}

fn steps(finding: &Finding) -> Vec<&'static str> {
    finding.path.iter().map(|step| step.name()).collect()
}

fn text(located: &Located) -> String {
    let Located { path, line, column, finding } = located;
    let steps = steps(finding);
    let through = if steps.is_empty() { String::new() } else { format!(" in {}", steps.join(" in ")) };
    // Injections are shown as they are; what could move the cursor was taken out when the excerpt was made.
    format!("{path}:{line}:{column}: {} ({}){through}: {}", finding.name, finding.rule, finding.excerpt)
}

fn json_of(located: &Located) -> Value {
    let finding = &located.finding;
    json!({
        "path": located.path,
        "line": located.line,
        "column": located.column,
        "rule": &*finding.rule,
        "also": finding.also.iter().map(|rule| &**rule).collect::<Vec<_>>(),
        "name": &*finding.name,
        "kind": finding.kind,
        "class": &*finding.class,
        "severity": finding.severity,
        "confidence": finding.confidence,
        "span": [finding.span.start, finding.span.end],
        "decode_path": steps(finding),
        "fingerprint": finding.fingerprint,
        "excerpt": finding.excerpt,
    })
}

fn sarif_of(located: &Located) -> Value {
    let finding = &located.finding;
    let level = match finding.severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    };
    // Without a column: SARIF counts characters, we count bytes.
    let region = json!({"startLine": located.line});
    json!({
        "ruleId": &*finding.rule,
        "level": level,
        "message": {"text": format!("{}: {}", finding.name, finding.excerpt)},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": located.path}, "region": region}}],
        "properties": {"decode_path": steps(finding)},
    })
}
