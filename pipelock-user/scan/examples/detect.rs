//! Measures the injection rules on files: `cargo run --release --example detect -- [--show misses|alarms|all|groups] [--half N] [--no-patterns] PATH…`.
//! `*.jsonl` with {text, label, meta} gives recall or false alarms, in two halves by the hash of the text (tune on half 0
//! only); any other file or folder gives findings per megabyte. For whoever changes a rule.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a tool for developers")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pipelock_scan::injection::Detector;

struct Scanner {
    detector: Detector,
    patterns: Vec<common::Compiled>,
}

impl Scanner {
    fn rules(&self, text: &str) -> Vec<(String, String)> {
        let cut = |range: std::ops::Range<usize>| text[range].replace(['\n', '\r'], "⏎");
        let mut found: Vec<(String, String)> = self
            .detector
            .scan(text)
            .into_iter()
            .map(|f| (f.rule.id.clone(), format!("[{}] {}  ({})", f.points, cut(f.span), f.concepts.join(" "))))
            .collect();
        found.extend(Detector::floods(text).into_iter().map(|range| ("token-flood".to_owned(), cut(range))));
        for pattern in &self.patterns {
            if let Some(part) = pattern.find(text.as_bytes()).first() {
                let shown = String::from_utf8_lossy(part).replace(['\n', '\r'], "⏎");
                found.push((pattern.rule.id.clone(), shown.chars().take(160).collect()));
            }
        }
        found
    }
}

/// The half of a row: stable, and independent of its place in the file. FNV-1a, with the upper bits folded in.
fn half(text: &str) -> usize {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ hash >> 32) as usize & 1
}

fn main() {
    let mut show = String::new();
    let mut only = None;
    let mut with_patterns = true;
    let mut paths = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--show" => show = args.next().unwrap(),
            "--no-patterns" => with_patterns = false,
            "--half" => only = args.next().map(|n| n.parse::<usize>().unwrap()),
            _ => paths.push(PathBuf::from(arg)),
        }
    }
    let started = Instant::now();
    let detector = Detector::builtin().unwrap();
    println!("loaded {} concept rules in {:?}", detector.rules().len(), started.elapsed());
    let scanner = Scanner { detector, patterns: common::injection().into_iter().filter(|_| with_patterns).collect() };
    println!("{} pattern rules", scanner.patterns.len());
    for path in &paths {
        let mut files = Vec::new();
        walk(path, &mut files);
        files.sort();
        let (rows, plain): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|f| f.extension().is_some_and(|e| e == "jsonl"));
        for file in rows {
            jsonl(&scanner, &file, &show, only);
        }
        if !plain.is_empty() {
            documents(&scanner, path, &plain, &show);
        }
    }
}

fn walk(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(meta) = path.symlink_metadata() else { return };
    if meta.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            walk(&entry.path(), files);
        }
    } else if meta.is_file() {
        files.push(path.to_owned());
    }
}

fn strings(value: &serde_json::Value, visit: &mut impl FnMut(&str)) {
    match value {
        serde_json::Value::String(text) => visit(text),
        serde_json::Value::Array(items) => items.iter().for_each(|item| strings(item, visit)),
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                // Fields of the benchmark's case files that describe the case rather than being part of it.
                if !matches!(key.as_str(), "title" | "description" | "why_expected" | "notes" | "id" | "source")
                    || depth_is_payload(map)
                {
                    strings(value, visit);
                }
            }
        }
        _ => {}
    }
}

/// Whether an object is not the top of a case file.
fn depth_is_payload(map: &serde_json::Map<String, serde_json::Value>) -> bool {
    !map.contains_key("expected_verdict")
}

fn jsonl(scanner: &Scanner, file: &Path, show: &str, only: Option<usize>) {
    let content = std::fs::read_to_string(file).unwrap();
    let mut counts = [[0usize; 2]; 2];
    let mut groups: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    let mut rules: BTreeMap<String, usize> = BTreeMap::new();
    let mut injection = true;
    for line in content.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let Some(text) = row["text"].as_str() else { continue };
        injection = row["label"] == "block";
        let half = half(text);
        let found = scanner.rules(text);
        counts[half][0] += usize::from(!found.is_empty());
        counts[half][1] += 1;
        let meta = &row["meta"];
        for key in ["variant", "lang", "cat"] {
            if let Some(value) = meta[key].as_str() {
                let group = groups.entry(format!("{key} {value}")).or_default();
                group[0] += usize::from(!found.is_empty());
                group[1] += 1;
            }
        }
        for (rule, _) in &found {
            *rules.entry(rule.clone()).or_default() += 1;
        }
        let shown = match show {
            "misses" => injection && found.is_empty(),
            "alarms" => !injection && !found.is_empty(),
            "all" => true,
            _ => false,
        };
        if shown && only.is_none_or(|only| only == half) {
            let label = meta["lang"].as_str().or(meta["variant"].as_str()).unwrap_or("");
            println!("  {label}: {}", text.chars().take(300).collect::<String>().replace('\n', "⏎"));
            for (rule, what) in found {
                println!("      {rule} {what}");
            }
        }
    }
    let percent =
        |[found, all]: [usize; 2]| format!("{found}/{all} = {:.1} %", 100.0 * found as f64 / all.max(1) as f64);
    let total = [counts[0][0] + counts[1][0], counts[0][1] + counts[1][1]];
    println!(
        "{} ({}): all {}, half 0 {}, half 1 {}",
        file.file_name().unwrap().to_string_lossy(),
        if injection { "recall" } else { "false alarms" },
        percent(total),
        percent(counts[0]),
        percent(counts[1]),
    );
    if show == "groups" {
        groups.iter().for_each(|(group, counts)| println!("    {group}: {}", percent(*counts)));
        rules.iter().for_each(|(rule, count)| println!("    {rule}: {count}"));
    }
}

fn documents(scanner: &Scanner, root: &Path, files: &[PathBuf], show: &str) {
    let (mut bytes, mut hits, mut hit_files, mut read) = (0usize, 0usize, 0usize, 0usize);
    let mut rules: BTreeMap<String, usize> = BTreeMap::new();
    let mut spent = std::time::Duration::ZERO;
    for file in files {
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        bytes += text.len();
        read += 1;
        let started = Instant::now();
        std::hint::black_box(scanner.detector.scan(&text));
        spent += started.elapsed();
        let mut found = Vec::new();
        match serde_json::from_str(&text) {
            // What counts in JSON is the strings, not their escapes.
            Ok(value) if file.extension().is_some_and(|e| e == "json") => {
                strings(&value, &mut |text| found.extend(scanner.rules(text)));
            }
            _ => found = scanner.rules(&text),
        }
        hits += found.len();
        hit_files += usize::from(!found.is_empty());
        for (rule, what) in found {
            if show == "alarms" || show == "all" {
                println!("  {}: {rule} {what}", file.display());
            }
            *rules.entry(rule).or_default() += 1;
        }
    }
    let mega = bytes as f64 / 1e6;
    println!(
        "{}: {read} files, {mega:.1} MB, {hits} findings in {hit_files} files ({:.2} per MB), scorer {:.0} MB/s",
        root.display(),
        hits as f64 / mega,
        mega / spent.as_secs_f64(),
    );
    rules.iter().for_each(|(rule, count)| println!("    {rule}: {count}"));
}
