//! The cases of agent-egress-bench as far as contents tell: the texts of each case go through the engine. Cases that only
//! a proxy can decide (addresses, chains of calls, shell commands, compressed frames without a body) are said to be so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use pipelock_scan::{Kind, Scanner, entropy, wallet};
use serde_json::Value;

/// Categories that are decided by what is asked for rather than by what it says.
const OTHERS: &[&str] = &["ssrf_bypass", "mcp_chain", "shell_obfuscation"];

/// Found and missed cases by category, and the names of those that went wrong.
///
/// # Errors
/// When a case cannot be read, or the engine fails.
pub(super) fn table(scanner: &Scanner, folder: &Path) -> Result<String> {
    let mut categories: BTreeMap<String, [usize; 4]> = BTreeMap::new();
    let mut wrong = Vec::new();
    for category in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        for file in std::fs::read_dir(category?.path())? {
            let path = file?.path();
            let case: Value =
                serde_json::from_slice(&std::fs::read(&path)?).with_context(|| path.display().to_string())?;
            let name = case["category"].as_str().unwrap_or_default();
            let inbound = ["response_content", "mcp_tool_result"].iter().any(|kind| case["input_type"] == *kind);
            let found = scan(scanner, &case["payload"], inbound)?;
            let attack = case["expected_verdict"] == "block";
            let row = categories.entry(name.to_owned()).or_default();
            let place = if attack { 0 } else { 2 };
            row[place] += usize::from(found.is_empty() != attack);
            row[place + 1] += 1;
            if found.is_empty() == attack {
                let other = if OTHERS.contains(&name) { " (not about contents)" } else { "" };
                wrong.push(format!("{}{other}{}", case["id"].as_str().unwrap_or_default(), found));
            }
        }
    }
    let mut table =
        "## agent-egress-bench, contents alone\n\n| category | attacks found | harmless passed |\n|---|---|---|\n"
            .to_owned();
    for (name, [found, attacks, silent, harmless]) in categories {
        writeln!(table, "| {name} | {found}/{attacks} | {silent}/{harmless} |")?;
    }
    wrong.sort();
    writeln!(table, "\nNot as expected: {}.", wrong.join(", "))?;
    Ok(table)
}

/// What was found in the strings of `payload`, as text; empty when nothing was.
fn scan(scanner: &Scanner, payload: &Value, inbound: bool) -> Result<String> {
    let mut texts = Vec::new();
    strings(payload, &mut texts);
    if payload["frames"].is_array() {
        // What a message says is what its frames say together.
        texts.push(texts.iter().skip(1).filter(|text| text.len() > 6).cloned().collect());
    }
    let mut found = String::new();
    for text in &texts {
        // An address to pay to is a leak on its way out and an example on its way in.
        for finding in scanner.scan(text.as_bytes())?.iter().filter(|one| !inbound || one.kind == Kind::Injection) {
            write!(found, " {}", finding.rule)?;
        }
    }
    if let Some(url) = payload["url"].as_str().filter(|_| payload["response_body"].is_null()) {
        let host = url.split('/').nth(2).unwrap_or_default();
        if entropy::host(host, &[]).is_some() {
            found.push_str(" host");
        }
        let parts = url.split(['/', '?', '&', '=']).skip(3);
        if parts.into_iter().any(|part| entropy::url_part(part.as_bytes(), entropy::Limits::default())) {
            found.push_str(" entropy");
        }
        if !wallet::find(url.as_bytes(), wallet::Chains::default()).is_empty() {
            found.push_str(" wallet");
        }
    }
    Ok(found)
}

fn strings(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| strings(item, texts)),
        Value::Object(map) => map.values().for_each(|item| strings(item, texts)),
        _ => {}
    }
}
