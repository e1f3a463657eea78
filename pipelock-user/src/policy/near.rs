//! Near misses: which known word someone probably meant.
//!
//! Called by the reader for unknown keys and words. It promises short work whatever the text: long words are not compared.

/// Words longer than this have no near miss.
const MAX_WORD: usize = 40;

/// The candidate nearest to `word`, if one is near enough to be meant: one slip in a short word, two in a longer one.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > MAX_WORD {
        return None;
    }
    let plain = fold(word);
    let allowed = if plain.len() <= 4 { 1 } else { 2 };
    candidates
        .into_iter()
        .map(|candidate| (distance(&plain, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case, hyphens and spaces are spelling, not meaning.
fn fold(word: &str) -> Vec<char> {
    word.chars().filter(|c| !matches!(c, '_' | '-' | ' ' | '.')).flat_map(char::to_lowercase).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours between the two (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    let mut left_before = None;
    for (row, l) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        let mut right_before = None;
        for (column, r) in right.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&previous, column) + usize::from(l != r);
            let mut best = replaced.min(at(&previous, column + 1) + 1).min(at(&current, column) + 1);
            if column > 0 && left_before == Some(r) && right_before == Some(l) {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
            right_before = Some(r);
        }
        left_before = Some(l);
        before = std::mem::replace(&mut previous, current);
    }
    previous.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["methods", "paths", "ports", "scan", "destination"];
        for (word, meant) in [
            ("method", Some("methods")),
            ("mehtods", Some("methods")),
            ("Methods", Some("methods")),
            ("scna", Some("scan")),
            ("destinaton", Some("destination")),
            ("snac", None),
            ("frobnicate", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!(nearest("default-deny", ["default_deny"]), Some("default_deny"));
    }
}
