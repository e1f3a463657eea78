//! What stands in a long run of random characters by chance. Called by [`super::layer`] for each match.
//!
//! Twenty megabytes of base64 hold every sequence of four of its characters, so what begins with four and ends where the run
//! has a `+` is no token. Promises: what a rule asks for that is not found in gigabytes of such characters is never taken for chance, nor
//! what has check digits, nor what stands in words, hexadecimal digits or padding or is made of these; the answer does not depend on
//! how the text was cut.

use regex_syntax::hir::{Class, Hir, HirKind, Look};

use super::Window;
use crate::engine::Match;
use crate::rule::{Kind, Rule};

/// Characters of the run in front of a secret.
const RUN: u64 = 512;
/// How many different ones these have at least: of 64 that are random, nearly all.
const DIFFERENT: u32 = 48;
/// What is less likely to begin at a place than this, once in four gigabytes, stands nowhere by chance.
const LIKELY: f64 = 1.0 / (1u64 << 32) as f64;
/// Longest beginning of what is likelier, behind which all characters are free.
const BEGINNING: usize = 4;

/// Whether a match of `rule` is one.
pub(super) fn is_chance(rule: &Rule, window: &Window<'_>, found: &Match) -> bool {
    if rule.kind != Kind::Dlp || !rule.is_of_form || rule.keywords.is_empty() {
        return false;
    }
    let Some(start) = found.secret.start.checked_sub(RUN).filter(|start| *start >= window.start()) else {
        return false;
    };
    window.with(start..found.secret.end, |text| {
        let body = text.get(RUN as usize + BEGINNING..).unwrap_or_default();
        let is_likely = |others: [u8; 2]| is_run(text, others) && likely(rule.pattern.hir(), others) >= LIKELY;
        is_random(body) && [*b"+/", *b"-_"].into_iter().any(is_likely)
    })
}

/// Of the alphabet of base64 with these two, and random at its beginning.
fn is_run(text: &[u8], others: [u8; 2]) -> bool {
    let mut seen = 0u128;
    text.iter().take(RUN as usize).filter(|byte| byte.is_ascii()).for_each(|byte| seen |= 1 << byte);
    seen.count_ones() >= DIFFERENT && text.iter().all(|byte| byte.is_ascii_alphanumeric() || others.contains(byte))
}

/// With letters of both kinds and some digits, as a part of a run is: tokens are often of fewer kinds, or of numbers.
fn is_random(body: &[u8]) -> bool {
    let count = |is_one: fn(&u8) -> bool| body.iter().filter(|byte| is_one(byte)).count();
    let digits = count(u8::is_ascii_digit);
    digits > 0 && 3 * digits <= body.len() && count(u8::is_ascii_uppercase) > 0 && count(u8::is_ascii_lowercase) > 0
}

/// How likely it is that a match of a pattern begins at a place in a run of that alphabet of base64, with these two besides letters and
/// digits: never less than it is.
fn likely(hir: &Hir, others: [u8; 2]) -> f64 {
    let of = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    let each = 1.0 / 64.0;
    match hir.kind() {
        // A run does not begin within itself.
        HirKind::Look(Look::Start | Look::StartLF | Look::StartCRLF) => 0.0,
        HirKind::Empty | HirKind::Look(_) => 1.0,
        HirKind::Literal(literal) => literal.0.iter().map(|byte| if of(*byte) { each } else { 0.0 }).product(),
        HirKind::Class(Class::Bytes(class)) => {
            let bytes = class.iter().flat_map(|range| range.start()..=range.end());
            bytes.filter(|byte| of(*byte)).map(|_| each).sum()
        }
        HirKind::Class(Class::Unicode(class)) => {
            let is_in = |byte: u8| class.iter().any(|range| (range.start()..=range.end()).contains(&char::from(byte)));
            (0..0x80).filter(|byte| of(*byte) && is_in(*byte)).map(|_| each).sum()
        }
        HirKind::Repetition(repeat) => likely(&repeat.sub, others).powf(f64::from(repeat.min)),
        HirKind::Capture(capture) => likely(&capture.sub, others),
        HirKind::Concat(parts) => parts.iter().map(|part| likely(part, others)).product(),
        HirKind::Alternation(parts) => parts.iter().map(|part| likely(part, others)).sum::<f64>().min(1.0),
    }
}
