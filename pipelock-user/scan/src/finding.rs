//! What the engine says: [`Finding`], which never holds the secret. Called by everything above the scan engine.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::rule::{Confidence, Kind, Severity};

/// One way of writing text down differently that was undone before a rule matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// `%41`
    Percent,
    /// `\u0041`, `\x41`, `\n`
    Escape,
    /// `&#65;`, `&lt;`
    Html,
    /// `=41`, a soft line break
    QuotedPrintable,
    /// Characters without a shape were taken out.
    Invisible,
    /// Compatibility forms, look-alikes and accents became plain letters.
    Unicode,
    /// `1gn0r3`
    Leet,
    /// `i.g.n.o.r.e`
    Spaced,
    /// Labels joined: `AKIA.IOSF.…`; strings, lines and tags as well: `"AKIA" + "IOSF"`.
    Joined,
    /// UTF-16, either order.
    Utf16,
    /// Base64, standard or URL alphabet, wrapped or not.
    Base64,
    /// Hexadecimal digits, with delimiters or not.
    Hex,
    /// Decimal numbers: `[65, 66]`.
    Decimal,
    /// Base32.
    Base32,
    /// Base58 as Bitcoin writes it.
    Base58,
    /// Ascii85 or base85.
    Base85,
    /// `xn--…`
    Punycode,
    /// gzip
    Gzip,
    /// zlib
    Zlib,
    /// Zstandard
    Zstd,
    /// A file in a ZIP archive.
    Zip,
    /// Raw deflate, where a header said so or text comes out of it.
    Deflate,
    /// Brotli
    Brotli,
    /// `+AGE-`, or `&AGE-` as mailbox names have it.
    Utf7,
    /// Letters moved by 13.
    Rot13,
    /// In upper or lower case.
    Case,
    /// Backwards.
    Reversed,
    /// Sixteen bytes of it.
    Part,
}

impl Step {
    /// True for compressed data, inside which nothing can be replaced.
    #[must_use]
    pub fn is_packed(self) -> bool {
        matches!(self, Self::Gzip | Self::Zlib | Self::Zstd | Self::Zip | Self::Deflate | Self::Brotli)
    }

    /// Its name in findings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Percent => "percent",
            Self::Escape => "escape",
            Self::Html => "html",
            Self::QuotedPrintable => "quoted-printable",
            Self::Invisible => "invisible",
            Self::Unicode => "unicode",
            Self::Leet => "leet",
            Self::Spaced => "spaced",
            Self::Joined => "joined",
            Self::Utf16 => "utf16",
            Self::Base64 => "base64",
            Self::Hex => "hex",
            Self::Decimal => "decimal",
            Self::Base32 => "base32",
            Self::Base58 => "base58",
            Self::Base85 => "base85",
            Self::Punycode => "punycode",
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Zstd => "zstd",
            Self::Zip => "zip",
            Self::Deflate => "deflate",
            Self::Brotli => "brotli",
            Self::Utf7 => "utf7",
            Self::Rot13 => "rot13",
            Self::Case => "case",
            Self::Reversed => "reversed",
            Self::Part => "part",
        }
    }
}

/// HMAC-SHA256 of a secret under the scanner's key: the same secret has the same fingerprint within one process and none
/// can be computed back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..16].iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Id of the rule.
    pub rule: Arc<str>,
    /// Rules that found the same and say less about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Arc<str>>,
    /// Name of the rule.
    pub name: Arc<str>,
    /// What it is about.
    pub kind: Kind,
    /// Its class.
    pub class: Arc<str>,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// MITRE ids of the rule, ATT&CK before ATLAS; at least one.
    pub mitre: Arc<[String]>,
    /// True when the rule cannot be switched off.
    pub core: bool,
    /// Bytes of the input that hold it.
    pub span: Range<u64>,
    /// Bytes of the input that have to go with it: of everything that overlaps it and was found to be the same.
    #[serde(skip)]
    pub cover: Range<u64>,
    /// How it was decoded, outermost first; empty for what stands in the input itself.
    pub path: Vec<Step>,
    /// The secret's fingerprint.
    pub fingerprint: Fingerprint,
    /// Enough to recognise it, never enough to use it.
    pub excerpt: String,
}

/// Makes fingerprints.
#[derive(Clone)]
pub(crate) struct Key([[u8; 64]; 2]);

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key(…)")
    }
}

impl Key {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let pad = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(key).for_each(|(to, from)| *to ^= from);
            block
        };
        Self([pad(0x36), pad(0x5c)])
    }

    /// HMAC-SHA256 (RFC 2104).
    pub(crate) fn fingerprint(&self, secret: &[u8]) -> Fingerprint {
        let inner = Sha256::new().chain_update(self.0[0]).chain_update(secret).finalize();
        Fingerprint(Sha256::new().chain_update(self.0[1]).chain_update(inner).finalize().into())
    }
}

/// The first characters of long secrets and the length: `ghp_…(40)`. Of an injection, the text itself, which is no
/// secret, up to 80 characters.
pub(crate) fn excerpt(kind: Kind, text: &[u8]) -> String {
    let shown = match kind {
        Kind::Injection => 80,
        Kind::Dlp => (text.len() / 8).min(4),
    };
    let whole = String::from_utf8_lossy(text);
    let plain = |char: char| if char.is_control() { ' ' } else { char };
    let start: String = whole.chars().take(shown).map(plain).collect();
    if whole.chars().count() <= shown { start } else { format!("{start}…({})", text.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_hmac_sha256() {
        // RFC 4231, test case 2, its key padded with zeros as HMAC does.
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let text = Key::new(&key).fingerprint(b"what do ya want for nothing?").to_string();
        assert_eq!(text, "5bdcc146bf60754e6a042426089575c7");
    }

    #[test]
    fn an_excerpt_shows_little_of_a_secret() {
        assert_eq!(excerpt(Kind::Dlp, b"ghp_0123456789012345678901234567890123"), "ghp_…(38)");
        assert_eq!(excerpt(Kind::Dlp, b"1234567"), "…(7)");
        assert_eq!(excerpt(Kind::Injection, b"ignore\nall"), "ignore all");
    }
}
