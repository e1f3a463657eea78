//! Certificates (RFC 5280): the parts that ours have, and the parts of others that ours repeat.
//!
//! Called by `ca` and `leaf`. It promises that what it writes passes the strict checks of OpenSSL, Go, Java and webpki:
//! key identifiers, critical constraints, serial numbers of at most 20 octets that are not negative.

use pipelock_receipt::canon::Timestamp;
use ring::digest;

use super::der::{self, Reader, list, oid, sequence, tag, value};

/// Bits of the key usage extension (RFC 5280 §4.2.1.3).
pub(super) const DIGITAL_SIGNATURE: u8 = 0;
pub(super) const KEY_CERT_SIGN: u8 = 5;
pub(super) const CRL_SIGN: u8 = 6;

const SUBJECT_KEY_ID: [u32; 4] = [2, 5, 29, 14];
const KEY_USAGE: [u32; 4] = [2, 5, 29, 15];
const SUBJECT_ALT_NAME: [u32; 4] = [2, 5, 29, 17];
const BASIC_CONSTRAINTS: [u32; 4] = [2, 5, 29, 19];
const AUTHORITY_KEY_ID: [u32; 4] = [2, 5, 29, 35];
const EXTENDED_KEY_USAGE: [u32; 4] = [2, 5, 29, 37];
const SERVER_AUTH: [u32; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 1];

/// What a certificate is made from.
pub(super) struct Draft<'a> {
    /// Random octets.
    pub(super) serial: &'a [u8; 16],
    pub(super) algorithm: &'a [u8],
    pub(super) issuer: &'a [u8],
    /// Seconds since 1970.
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    pub(super) subject: &'a [u8],
    pub(super) spki: &'a [u8],
    pub(super) extensions: &'a [Vec<u8>],
}

/// The part that is signed.
pub(super) fn to_be_signed(draft: &Draft<'_>) -> Vec<u8> {
    // Never zero, never negative, always of one length.
    let mut serial = *draft.serial;
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x3f | 0x40;
    }
    let extensions: Vec<&[u8]> = draft.extensions.iter().map(Vec::as_slice).collect();
    sequence(&[
        &value(tag::explicit(0), &value(tag::INTEGER, &[2])),
        &value(tag::INTEGER, &serial),
        draft.algorithm,
        draft.issuer,
        &sequence(&[&der::time(draft.not_before), &der::time(draft.not_after)]),
        draft.subject,
        draft.spki,
        &value(tag::explicit(3), &sequence(&extensions)),
    ])
}

/// A distinguished name of these attributes.
pub(super) fn name(attributes: &[(&[u32], &str)]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = attributes
        .iter()
        .map(|(kind, text)| list(tag::SET, &[&sequence(&[&oid(kind), &value(tag::UTF8, text.as_bytes())])]))
        .collect();
    sequence(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn extension(id: &[u32], is_critical: bool, content: &[u8]) -> Vec<u8> {
    let critical = value(tag::BOOLEAN, &[0xff]);
    sequence(&[&oid(id), if is_critical { &critical } else { &[] }, &value(tag::OCTET_STRING, content)])
}

/// An authority that signs servers and no further authorities.
pub(super) fn basic_constraints_ca() -> Vec<u8> {
    let content = sequence(&[&value(tag::BOOLEAN, &[0xff]), &value(tag::INTEGER, &[0])]);
    extension(&BASIC_CONSTRAINTS, true, &content)
}

/// No authority.
pub(super) fn basic_constraints_end() -> Vec<u8> {
    extension(&BASIC_CONSTRAINTS, true, &sequence(&[]))
}

pub(super) fn key_usage(bits: &[u8]) -> Vec<u8> {
    // All bits that are used here are in the first octet; the highest is bit 0.
    let octet = bits.iter().fold(0_u8, |octet, bit| octet | 0x80 >> (bit & 7));
    let unused = u8::try_from(octet.trailing_zeros()).unwrap_or_default() & 7;
    extension(&KEY_USAGE, true, &value(tag::BIT_STRING, &[unused, octet]))
}

pub(super) fn server_auth() -> Vec<u8> {
    extension(&EXTENDED_KEY_USAGE, false, &sequence(&[&oid(&SERVER_AUTH)]))
}

pub(super) fn subject_key_id(id: &[u8]) -> Vec<u8> {
    extension(&SUBJECT_KEY_ID, false, &value(tag::OCTET_STRING, id))
}

pub(super) fn authority_key_id(id: &[u8]) -> Vec<u8> {
    extension(&AUTHORITY_KEY_ID, false, &sequence(&[&value(tag::context(0), id)]))
}

/// The one host that a certificate is for.
pub(super) fn alt_name(host: &crate::flow::Host, is_critical: bool) -> Vec<u8> {
    use std::net::IpAddr;
    let general = match host {
        crate::flow::Host::Name(name) => value(tag::context(2), name.as_bytes()),
        crate::flow::Host::Addr(IpAddr::V4(addr)) => value(tag::context(7), &addr.octets()),
        crate::flow::Host::Addr(IpAddr::V6(addr)) => value(tag::context(7), &addr.octets()),
    };
    extension(&SUBJECT_ALT_NAME, is_critical, &sequence(&[&general]))
}

/// An identifier for a key: the first 160 bits of SHA-256 over it (RFC 7093 §2, method 1).
pub(super) fn key_id(spki: &[u8]) -> Vec<u8> {
    let bits = Reader(spki).expect(tag::SEQUENCE).and_then(|inner| {
        let mut inner = Reader(inner);
        inner.next()?;
        inner.expect(tag::BIT_STRING)
    });
    let key = bits.and_then(|bits| bits.get(1..)).unwrap_or(spki);
    digest::digest(&digest::SHA256, key).as_ref().iter().take(20).copied().collect()
}

/// What is read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateParts {
    /// The issuer's name, whole.
    pub(super) issuer: Vec<u8>,
    /// Its own name, whole.
    pub(super) subject: Vec<u8>,
    /// Identifier of its key: as it says, or else as computed.
    pub(super) key_id: Vec<u8>,
    /// Seconds since 1970.
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    pub(super) is_ca: bool,
}

/// Reads a certificate; none when it is not one.
pub(super) fn read(certificate: &[u8]) -> Option<CertificateParts> {
    let mut whole = Reader(Reader(certificate).expect(tag::SEQUENCE)?);
    let mut fields = Reader(whole.expect(tag::SEQUENCE)?);
    let (first, _, _) = fields.next()?;
    if first == tag::explicit(0) {
        fields.expect(tag::INTEGER)?;
    }
    fields.expect(tag::SEQUENCE)?;
    let (_, _, issuer) = fields.next()?;
    let mut validity = Reader(fields.expect(tag::SEQUENCE)?);
    let mut next_moment = || validity.next().and_then(|(kind, text, _)| moment(kind, text));
    let (not_before, not_after) = (next_moment()?, next_moment()?);
    let (_, _, subject) = fields.next()?;
    let (_, _, spki) = fields.next()?;
    let mut parts = CertificateParts {
        issuer: issuer.to_vec(),
        subject: subject.to_vec(),
        key_id: key_id(spki),
        not_before,
        not_after,
        is_ca: false,
    };
    while let Some((kind, content, _)) = fields.next() {
        if kind == tag::explicit(3) {
            extensions(Reader(Reader(content).expect(tag::SEQUENCE)?), &mut parts)?;
        }
    }
    Some(parts)
}

fn extensions(mut list: Reader<'_>, parts: &mut CertificateParts) -> Option<()> {
    while !list.0.is_empty() {
        let mut extension = Reader(list.expect(tag::SEQUENCE)?);
        let (_, _, id) = extension.next()?;
        let (mut kind, mut content, _) = extension.next()?;
        if kind == tag::BOOLEAN {
            (kind, content, _) = extension.next()?;
        }
        if kind != tag::OCTET_STRING {
            return None;
        }
        if id == oid(&SUBJECT_KEY_ID) {
            parts.key_id = Reader(content).expect(tag::OCTET_STRING)?.to_vec();
        } else if id == oid(&BASIC_CONSTRAINTS) {
            let mut inner = Reader(Reader(content).expect(tag::SEQUENCE)?);
            parts.is_ca = matches!(inner.next(), Some((tag::BOOLEAN, [0xff], _)));
        }
    }
    Some(())
}

/// A moment of either form, in seconds since 1970.
fn moment(kind: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match kind {
        // RFC 5280 §4.1.2.5.1: years from 50 on are of the former century.
        tag::UTC_TIME if text.len() == 12 => {
            let (year, rest) = text.split_at_checked(2)?;
            (format!("{}{year}", if year < "50" { "20" } else { "19" }), rest)
        }
        tag::GENERALIZED_TIME if text.len() == 14 => {
            text.split_at_checked(4).map(|(year, rest)| (year.to_owned(), rest))?
        }
        _ => return None,
    };
    let part = |at: usize| rest.get(at..at + 2);
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    let moment: Timestamp = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z").parse().ok()?;
    Some(moment.millis() / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moments_are_read_as_they_are_written(seconds in 0u64..200_000_000_000) {
            let written = der::time(seconds);
            let (kind, text, _) = Reader(&written).next().expect("a value");
            prop_assert_eq!(moment(kind, text), Some(seconds));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = read(&sequence(&[&sequence(&[&bytes])]));
        }
    }
}
