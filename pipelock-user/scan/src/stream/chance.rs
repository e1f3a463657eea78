//! What stands in a long run of random characters by chance. Called by [`super::layer`] for each match.
//!
//! Twenty megabytes of base64 hold every sequence of four of its characters, so what begins with four and ends where the run
//! has a `+` is no token. Promises: what has a longer beginning or check digits is never taken for chance, nor what stands
//! in words, hexadecimal digits or padding; the answer does not depend on how the text was cut.

use super::Window;
use crate::engine::Match;
use crate::rule::{Kind, Rule};

/// Characters of the run in front of a secret.
const RUN: u64 = 512;
/// How many different ones these have at least: of 64 that are random, nearly all.
const DIFFERENT: u32 = 48;
/// Longest beginning that stands in a run by chance.
const LONGEST: usize = 5;

/// Whether a match of `rule` is one.
pub(super) fn is_chance(rule: &Rule, window: &Window<'_>, found: &Match) -> bool {
    if rule.kind != Kind::Dlp || !rule.is_shape || rule.keywords.is_empty() {
        return false;
    }
    let Some(start) = found.secret.start.checked_sub(RUN).filter(|start| *start >= window.start()) else {
        return false;
    };
    window.with(start..found.secret.end, |text| {
        let secret = text.get(RUN as usize..).unwrap_or_default();
        let begins = |word: &String| {
            word.len() > LONGEST && secret.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
        };
        is_run(text) && !rule.keywords.iter().any(begins)
    })
}

/// Of one alphabet of base64, and random at its beginning.
fn is_run(text: &[u8]) -> bool {
    let of = |others: [u8; 2]| text.iter().all(|byte| byte.is_ascii_alphanumeric() || others.contains(byte));
    let mut seen = 0u128;
    text.iter().take(RUN as usize).filter(|byte| byte.is_ascii()).for_each(|byte| seen |= 1 << byte);
    seen.count_ones() >= DIFFERENT && (of(*b"+/") || of(*b"-_"))
}
