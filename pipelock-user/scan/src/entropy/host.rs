//! Secrets hidden in host names: looking a name up already delivers it to whoever runs the zone.
//!
//! Called by the engine before a name is resolved. Promises: linear in the name (253 bytes at most are looked at), no
//! panic. Names under zones whose labels their operator chooses (clouds, content networks) are judged only by what
//! decodes to readable text, because nobody else learns the questions asked of them.

use super::{shannon, words};

/// Why a host name looks like smuggled data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostSign {
    /// A label is hexadecimal for readable text.
    HexText,
    /// A label is Base32, for readable text or longer than names are.
    Base32,
    /// A label has more entropy than names have.
    Random,
    /// Three or more labels of one length carry data cut up.
    Chunked,
    /// More labels than names have, with data in them.
    LongChain,
}

/// What was found in a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFinding {
    /// The strongest sign.
    pub sign: HostSign,
    /// Bits of data the suspicious labels carry at least; for the session's budget.
    pub bits: u32,
}

/// Longest host name (RFC 1035).
const LONGEST: usize = 253;
/// Zones whose labels are made by machines for good reasons and where the one who asks learns nothing from a question.
const MACHINE_ZONES: [&str; 30] = [
    "amazonaws.com",
    "cloudfront.net",
    "awsglobalaccelerator.com",
    "elasticbeanstalk.com",
    "on.aws",
    "azureedge.net",
    "azurefd.net",
    "azurewebsites.net",
    "azure.com",
    "windows.net",
    "trafficmanager.net",
    "cloudapp.net",
    "googleusercontent.com",
    "googleapis.com",
    "googlevideo.com",
    "1e100.net",
    "gvt1.com",
    "run.app",
    "web.app",
    "akamaiedge.net",
    "akamaihd.net",
    "akamaized.net",
    "edgekey.net",
    "edgesuite.net",
    "fastly.net",
    "fbcdn.net",
    "cdn77.org",
    "in-addr.arpa",
    "ip6.arpa",
    "local",
];

/// Labels of the name that somebody who asks for it chooses: all but the registrable domain, which is taken to be the last
/// two, or three under a two-letter country with a short second label (`co.uk`).
fn free_labels(name: &str) -> Vec<&str> {
    let mut labels: Vec<&str> = name.split('.').collect();
    let country = labels.last().is_some_and(|last| last.len() == 2)
        && labels.len() >= 3
        && labels.get(labels.len() - 2).is_some_and(|second| second.len() <= 3);
    labels.truncate(labels.len().saturating_sub(if country { 3 } else { 2 }));
    labels
}

/// The bytes of hexadecimal or of Base32 text, when it is such.
fn decode(label: &str, alphabet: fn(u8) -> Option<u8>, width: u32) -> Option<Vec<u8>> {
    let (mut bits, mut count) = (0u32, 0);
    let mut bytes = Vec::with_capacity(label.len());
    for byte in label.bytes() {
        bits = (bits << width) | u32::from(alphabet(byte)?);
        count += width;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn base32(byte: u8) -> Option<u8> {
    match byte {
        b'a'..=b'z' => Some(byte - b'a'),
        b'2'..=b'7' => Some(byte - b'2' + 26),
        _ => None,
    }
}

/// Whether bytes are printable ASCII throughout, at least `least` of them.
fn printable(bytes: &[u8], least: usize) -> bool {
    bytes.len() >= least && bytes.iter().all(|byte| (0x20..0x7f).contains(byte))
}

/// What a single label shows, with the machine zones' leniency.
fn label_sign(label: &str, strict: bool) -> Option<HostSign> {
    let text = label.as_bytes();
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    if label.len() >= 10
        && label.len().is_multiple_of(2)
        && decode(label, hex, 4).is_some_and(|bytes| printable(&bytes, 5))
    {
        // `cafe` and `dead` are words too, but digits make up most of the hexadecimal of text.
        if digits * 2 >= label.len() {
            return Some(HostSign::HexText);
        }
    }
    let base32_text = || decode(label, base32, 5).is_some_and(|bytes| printable(&bytes, 6));
    let in_base32 = digits > 0 && text.iter().all(|&byte| base32(byte).is_some());
    if label.len() >= 10 && in_base32 && base32_text() {
        return Some(HostSign::Base32);
    }
    if strict {
        return None;
    }
    let noise = !words::readable(text) && digits > 0 && digits < label.len();
    if label.len() >= 16 && in_base32 && noise && shannon(text) > 2.9 && !text.iter().all(u8::is_ascii_hexdigit) {
        return Some(HostSign::Base32);
    }
    if label.len() >= 24 && text.iter().all(u8::is_ascii_hexdigit) && shannon(text) > 2.8 && !matches!(label.len(), 32)
    {
        return Some(HostSign::Random);
    }
    let dashes = text.iter().filter(|&&byte| byte == b'-').count();
    (label.len() >= 20 && noise && dashes * 6 < label.len() && shannon(text) > 3.6).then_some(HostSign::Random)
}

/// Hexadecimal or Base32 with a digit, or letters that no word has.
fn data_label(label: &str) -> bool {
    let text = label.as_bytes();
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    let encoded = text.iter().all(u8::is_ascii_hexdigit) || text.iter().all(|&byte| base32(byte).is_some());
    label.len() >= 6 && ((digits > 0 && digits < label.len() && encoded) || repetitive(text))
}

/// `xxxx`, `yyyyzzzz`: no name, but what people write when they show how a secret is cut up.
fn repetitive(text: &[u8]) -> bool {
    text.len() >= 8 && text.chunk_by(|a, b| a == b).all(|run| run.len() >= 4)
}

/// Is the name the zone or below it? Both in lower case.
fn below(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Is the name in or below one of these zones (`example.com`, `*.example.com`)?
pub(crate) fn excluded(name: &str, zones: &[String]) -> bool {
    !zones.is_empty() && {
        let name = name.to_ascii_lowercase();
        zones.iter().any(|zone| below(&name, &zone.trim_start_matches("*.").to_ascii_lowercase()))
    }
}

/// The labels before a zone that look like data; none where machines make names. The name in lower case.
pub(crate) fn data_labels<'n>(name: &'n str, zone: &str) -> impl Iterator<Item = &'n str> {
    let is_machines = MACHINE_ZONES.iter().any(|machines| below(name, machines));
    let chosen = if is_machines { "" } else { before(name, zone) };
    chosen.split('.').filter(|label| telling(label))
}

/// What whoever asks for a name below a zone has chosen of it.
pub(crate) fn before<'n>(name: &'n str, zone: &str) -> &'n str {
    name.strip_suffix(zone).unwrap_or(name).trim_end_matches('.')
}

/// Encoded data by its alphabet, or long and of no language.
fn telling(label: &str) -> bool {
    let text = label.as_bytes();
    data_label(label)
        || (text.len() >= 12 && text.iter().any(u8::is_ascii_digit) && !text.contains(&b'-') && !words::readable(text))
}

/// What a host name shows, if anything. `exclusions` are zones of the user's; a name in or below one is not judged.
pub fn host(name: &str, exclusions: &[String]) -> Option<HostFinding> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = name.get(..LONGEST).unwrap_or(name).to_ascii_lowercase();
    if name.contains(':') || name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    if excluded(&name, exclusions) {
        return None;
    }
    let strict = MACHINE_ZONES.iter().any(|zone| below(&name, zone));
    let labels = free_labels(&name);
    let bits = |labels: &[&str]| labels.iter().map(|label| super::bits(label.as_bytes())).sum::<f64>() as u32;
    for label in &labels {
        if let Some(sign) = label_sign(label, strict) {
            return Some(HostFinding { sign, bits: bits(&[label]) });
        }
    }
    if strict || name.ends_with(".arpa") {
        return None;
    }
    // Labels together: readable text cut up, chains, pieces of one length.
    let joined: String = labels
        .iter()
        .filter(|label| label.len() >= 4 && label.bytes().all(|byte| hex(byte).is_some()))
        .copied()
        .collect();
    if joined.len() >= 16
        && joined.len().is_multiple_of(2)
        && decode(&joined, hex, 4).is_some_and(|bytes| printable(&bytes, 8))
    {
        return Some(HostFinding { sign: HostSign::HexText, bits: bits(&labels) });
    }
    let data: Vec<&str> = labels.iter().filter(|label| data_label(label)).copied().collect();
    if labels.len() >= 6 && data.len() >= 3 {
        return Some(HostFinding { sign: HostSign::LongChain, bits: bits(&data) });
    }
    let equal = data.chunk_by(|a, b| a.len() == b.len()).map(<[&str]>::len).max().unwrap_or(0);
    (equal >= 3).then(|| HostFinding { sign: HostSign::Chunked, bits: bits(&data) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sign(name: &str) -> Option<HostSign> {
        host(name, &[]).map(|found| found.sign)
    }

    #[test]
    fn smuggled_labels_are_told() {
        for (name, expected) in [
            ("7365637265745f6170695f6b65795f3132333435.exfil.evil.com", HostSign::HexText),
            ("4a6f686e446f65.53656372657431.exfil.evil.example.com", HostSign::HexText),
            ("4150494b4559.313233343536.JBSWY3DP.EHPK3PXP.exfil.evil.com", HostSign::HexText),
            ("JBSWY3DPEHPK3PXP.exfil.evil.com", HostSign::Base32),
            ("a1b2c3d4.e5f6a7b8.c9d0e1f2.a3b4c5d6.e7f8a9b0.c1d2e3f4.a5b6c7d8.exfil.evil.com", HostSign::LongChain),
            ("ghp-xxxx.yyyyzzzz.aaaabbbb.ccccdddd.exfil.evil.com", HostSign::Chunked),
            ("x7kp2mq9vr4sl8nw1by6ct3fa0jh5de.evil.com", HostSign::Random),
            ("9f86d081884c7d659a2feaa0.t.evil.com", HostSign::Random),
        ] {
            assert_eq!(sign(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn ordinary_names_are_not() {
        for name in [
            "cdnjs.cloudflare.com",
            "api.github.com",
            "kubernetes-dashboard.monitoring.svc.cluster.local",
            "d111111abcdef8.cloudfront.net",
            "ec2-52-14-221-7.us-east-2.compute.amazonaws.com",
            "my-app-git-feature-login-page-acme-team.vercel.app",
            "objects.githubusercontent.com",
            "pipelines.actions.githubusercontent.com",
            "a1234567890abcdef-1234567890.us-east-1.elb.amazonaws.com",
            "1.0.0.127.in-addr.arpa",
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa",
            "security.ubuntu.com",
            "registry-1.docker.io",
            "production.cloudflare.docker.com",
            "static.crates.io",
            "files.pythonhosted.org",
            "www.bbc.co.uk",
            "o123456.ingest.sentry.io",
            "192.168.0.1",
            "xn--bcher-kva.example",
            "donaudampfschifffahrtsgesellschaft.example.de",
            "",
            ".",
        ] {
            assert_eq!(sign(name), None, "{name}");
        }
    }

    #[test]
    fn a_zone_can_be_excluded() {
        let zones = ["*.evil.com".to_owned()];
        assert_eq!(host("JBSWY3DPEHPK3PXP.exfil.evil.com", &zones), None);
        assert!(host("JBSWY3DPEHPK3PXP.exfil.notevil.com", &zones).is_some());
    }

    proptest! {
        #[test]
        fn nothing_panics(name in any::<String>(), dotted in "[a-z0-9.-]{0,300}") {
            host(&name, &[]);
            host(&dotted, &[]);
        }
    }
}
