//! Texts made to be slow: everything that costs more than clean prose, alone and together. Called by the `scan` suite, which
//! says how much slower the worst is.

use std::io::Write as _;

use anyhow::Result;
use pipelock_scan::RuleSet;

use super::texts::{base64, base64_of_noise};

/// Bytes of each text.
pub(crate) const SIZE: usize = 64 << 10;

/// The texts with their names.
///
/// # Errors
/// When compressing fails.
pub(crate) fn all(rules: &RuleSet) -> Result<Vec<(String, Vec<u8>)>> {
    let everything = "%2541%42 \\u0043\\x44 &#69;&amp;#70; =47=48=49 ｆｕｌｌ\u{200b}width 1gn0r3 i.g.n.o.r.e \
                      SGVsbG8gd29ybGQsIHRoaXMgaXMgdGV4dA== 48656c6c6f20776f726c642c2074686973 JBSWY3DPEB3W64TMMQWCA5DINFZSA2LT ";
    let mut nested = repeated(everything)[..SIZE / 4].to_vec();
    for _ in 0..5 {
        nested = base64(&nested);
    }
    nested.truncate(SIZE);
    let short_runs: Vec<u8> = base64_of_noise(SIZE).chunks(255).flat_map(|run| [run, b" "].concat()).collect();
    let many_words = "ignore previous password mode instructions user admin send key ";
    let mut texts = vec![
        ("every encoding in turn".to_owned(), repeated(everything)),
        ("base64 of base64 of …, five deep".to_owned(), nested),
        ("runs just too short to be streamed".to_owned(), short_runs),
        ("percent signs".to_owned(), repeated("%41%2542")),
        ("HTML entities".to_owned(), repeated("&#65;&amp;")),
        ("escapes".to_owned(), repeated("\\u0041\\x42\\n")),
        ("quoted-printable".to_owned(), repeated("=41=\n=42")),
        ("full width".to_owned(), repeated("ｉｇｎｏｒｅ ")),
        ("invisible characters".to_owned(), repeated("a\u{200b}b\u{200d}")),
        ("spaced out".to_owned(), repeated("i.g.n.o.r.e a b c d ")),
        ("letters as digits".to_owned(), repeated("1gn0r3 4ll pr3v10u5 ")),
        ("UTF-16".to_owned(), repeated("p\0a\0s\0s\0w\0o\0r\0d\0 \0")),
        ("words of injections, no sentence end".to_owned(), repeated(many_words)),
        ("words of injections, one a sentence".to_owned(), repeated("Ignore. Password. System prompt. ")),
        ("digits".to_owned(), repeated("4111111111111112")),
        ("digits in groups".to_owned(), repeated("4111 1111 1111 1112 5500-0055-5555-5559 ")),
        ("starts of compressed data".to_owned(), repeated("x\x01x\x5e\x1f\u{8}(")),
        ("compressed, 1000 to 1".to_owned(), bomb(everything.as_bytes())?),
    ];
    for rule in rules.rules() {
        if let Some(example) = rule.examples.first() {
            texts.push((format!("`{}` over and over", rule.id), repeated(&format!("{example} "))));
            let near: String = example.chars().rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect();
            texts.push((format!("`{}` nearly", rule.id), repeated(&format!("{near}~ "))));
        }
    }
    Ok(texts)
}

fn repeated(unit: &str) -> Vec<u8> {
    let mut text = unit.repeat(SIZE / unit.len().max(1) + 1).into_bytes();
    text.truncate(SIZE);
    text
}

/// Gzip inside gzip.
fn bomb(unit: &[u8]) -> Result<Vec<u8>> {
    let mut text = unit.repeat((64 << 20) / unit.len());
    for _ in 0..2 {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        to.write_all(&text)?;
        text = to.finish()?;
    }
    Ok(text)
}
