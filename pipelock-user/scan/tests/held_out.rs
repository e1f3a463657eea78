//! Phrases that were written without a look at the engine: how many of the attacks it finds, and how many harmless texts
//! near them it takes for attacks. The figures are floors, a little below what was measured; raise them when it gets better.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use pipelock_scan::injection::Detector;

/// Texts of a file in which the detector finds something, and how many texts there are.
fn found(file: &str) -> (usize, usize) {
    let path = format!("{}/tests/held_out/{file}", std::env::var("CARGO_MANIFEST_DIR").unwrap());
    let detector = Detector::builtin().unwrap();
    let content = std::fs::read_to_string(path).unwrap();
    let texts: Vec<String> = content
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').nth(2).unwrap_or_else(|| panic!("{line}")).replace("\\n", "\n"))
        .collect();
    (texts.iter().filter(|text| !detector.scan(text).is_empty()).count(), texts.len())
}

#[test]
fn most_attacks_are_found() {
    let (hits, all) = found("injections.tsv");
    assert!(all >= 300 && hits * 100 >= all * 78, "{hits} of {all}");
    let (hits, all) = found("injections-later.tsv");
    assert!(all >= 100 && hits * 100 >= all * 38, "{hits} of {all}");
}

#[test]
fn few_harmless_texts_are_not() {
    let (hits, all) = found("benign.tsv");
    assert!(all >= 300 && hits * 100 <= all, "{hits} of {all}");
    let (hits, all) = found("benign-later.tsv");
    assert!(all >= 90 && hits * 100 <= all * 3, "{hits} of {all}");
}
