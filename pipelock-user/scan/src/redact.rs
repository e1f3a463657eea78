//! Takes findings out of a text: each becomes a placeholder that tells its class. Called by whoever may send on a text
//! without its secrets.

use std::sync::Arc;

use crate::finding::Finding;

/// The text with `<pipelock:CLASS:N>` for each finding, where N counts different secrets of a class. What was found in
/// compressed data cannot be replaced inside it: the text is cut there. Findings that stand for the whole text (a budget)
/// leave only their placeholder.
pub fn redact(text: &[u8], findings: &[Finding]) -> Vec<u8> {
    let mut seen = Vec::new();
    redact_as(text, findings, |finding| {
        let known = |(class, secret): &(Arc<str>, _)| *class == finding.class && *secret == finding.fingerprint;
        let at = seen.iter().position(known).unwrap_or_else(|| {
            seen.push((finding.class.clone(), finding.fingerprint));
            seen.len() - 1
        });
        let number = seen[..=at].iter().filter(|(class, _)| *class == finding.class).count();
        format!("<pipelock:{}:{number}>", finding.class)
    })
}

/// The same with placeholders of the caller's.
pub fn redact_as(text: &[u8], findings: &[Finding], mut placeholder: impl FnMut(&Finding) -> String) -> Vec<u8> {
    let mut spans: Vec<(usize, usize, String)> = Vec::new();
    for finding in findings {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(text.len());
        let packed = finding.path.iter().any(|step| step.is_packed());
        let end = if packed { text.len() } else { place(finding.cover.end) };
        spans.push((place(finding.cover.start), end, placeholder(finding)));
    }
    spans.sort();
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for (start, end, placeholder) in spans {
        // One that overlaps the last is gone with it, as far as it goes.
        if start >= at {
            out.extend_from_slice(&text[at..start]);
            out.extend_from_slice(placeholder.as_bytes());
        }
        at = at.max(end);
    }
    out.extend_from_slice(&text[at..]);
    out
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::finding::Fingerprint;
    use crate::rule::{Confidence, Kind, Severity};

    fn finding(span: Range<u64>, secret: u8) -> Finding {
        Finding {
            rule: "r".into(),
            also: Vec::new(),
            name: "r".into(),
            kind: Kind::Dlp,
            class: "credential".into(),
            severity: Severity::High,
            confidence: Confidence::High,
            mitre: std::sync::Arc::default(),
            core: false,
            cover: span.clone(),
            span,
            path: Vec::new(),
            fingerprint: Fingerprint([secret; 32]),
            excerpt: String::new(),
        }
    }

    #[test]
    fn equal_secrets_get_equal_placeholders() {
        let findings = [finding(2..4, 1), finding(6..8, 2), finding(10..12, 1), finding(11..14, 3)];
        let text = redact(b"a:XX,b:YYc:XXXXend", &findings);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "a:<pipelock:credential:1>,b<pipelock:credential:2>Yc<pipelock:credential:1>Xend"
        );
    }
}
