//! A destination as a client names it: a canonical DNS name or an IP address.
//!
//! Every place that compares host names (policy, DNS, Host header, SNI) compares values of this type, so that spelling
//! (case, trailing dot, IDNA, brackets, mapped IPv6) can never make two rooms disagree.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A canonical host: a lower-case ASCII DNS name without trailing dot, or an IP address (IPv4-mapped IPv6 unmapped).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// A DNS name: lower-case A-label form, 1 to 253 octets, labels of 1 to 63 octets of `a-z 0-9 - _`.
    Name(String),
    /// An address literal.
    Addr(IpAddr),
}

/// Why a text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing was left after trimming the trailing dot.
    #[error("the host name is empty")]
    Empty,
    /// Over 253 octets, or a label over 63.
    #[error("the host name is longer than DNS allows (253 octets, 63 a label)")]
    TooLong,
    /// Characters outside letters, digits, hyphen and underscore, or a label that begins or ends with a hyphen.
    #[error("the host name holds characters or labels that DNS host names do not have")]
    Malformed,
    /// Looks like a number but is not a canonical dotted IPv4 address (`0x7f.1`, `127.1`, `2130706433`).
    #[error("the host looks like a number but is not a plain IPv4 address")]
    NumericButNotAddress,
}

impl Host {
    /// Parses and canonicalises `text`: a name, an IPv4 address, an IPv6 address with or without brackets.
    ///
    /// # Errors
    /// [`HostError`] when the text is neither; numeric spellings that resolvers expand differently are refused.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inner.parse::<Ipv6Addr>().map(|v6| Self::from(IpAddr::V6(v6))).map_err(|_| HostError::Malformed);
        }
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Ok(Self::from(addr));
        }
        let trimmed = text.strip_suffix('.').unwrap_or(text);
        if trimmed.is_empty() {
            return Err(HostError::Empty);
        }
        let name = if trimmed.is_ascii() {
            trimmed.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(trimmed).map_err(|_| HostError::Malformed)?
        };
        if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
            return Err(HostError::TooLong);
        }
        if !name.split('.').all(is_label) {
            return Err(HostError::Malformed);
        }
        // A last label that is a number makes inet_aton-style resolvers read the whole as an address (WHATWG URL §3.5).
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit())
            || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(HostError::NumericButNotAddress);
        }
        Ok(Self::Name(name))
    }

    /// True for a canonical name that is loopback everywhere, whatever a resolver says of it (RFC 6761 §6.3).
    #[must_use]
    pub fn is_localhost(name: &str) -> bool {
        name == "localhost" || name.ends_with(".localhost")
    }

    /// The DNS name, if this is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Addr(_) => None,
        }
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

impl From<IpAddr> for Host {
    fn from(addr: IpAddr) -> Self {
        Self::Addr(addr.to_canonical())
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Addr(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            Self::Addr(IpAddr::V4(v4)) => write!(f, "{v4}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_host_are_equal() {
        for (text, canonical) in [
            ("API.GitHub.com", "api.github.com"),
            ("api.github.com.", "api.github.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("[::1]", "[::1]"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("[::ffff:10.0.0.1]", "10.0.0.1"),
            ("_dmarc.example.com", "_dmarc.example.com"),
        ] {
            assert_eq!(Host::parse(text).expect(text).to_string(), canonical);
        }
    }

    #[test]
    fn texts_that_two_parsers_could_read_differently_are_refused() {
        for text in
            ["", ".", "a..b", "-a.com", "a b", "0x7f.1", "127.1", "2130706433", "1.2.3.4.5", "a%2e.com", "ex\0.com"]
        {
            assert!(Host::parse(text).is_err(), "{text:?} was accepted");
        }
        assert_eq!(Host::parse(&"a".repeat(64)), Err(HostError::TooLong));
    }
}
