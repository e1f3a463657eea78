//! A PKCS#12 file (RFC 7292) of certificates to trust, for Java.
//!
//! Called by `trust`. Neither encrypted nor sealed by a password: it holds nothing secret, and every Java since 8 reads such
//! a file without being told one.

use super::der::{list, oid, sequence, tag, value};

const DATA: [u32; 7] = [1, 2, 840, 113_549, 1, 7, 1];
const CERTIFICATE_BAG: [u32; 9] = [1, 2, 840, 113_549, 1, 12, 10, 1, 3];
const X509: [u32; 8] = [1, 2, 840, 113_549, 1, 9, 22, 1];
/// Oracle's mark of a certificate that is trusted, and for what: anything.
const TRUSTED_FOR: [u32; 7] = [2, 16, 840, 1, 113_894, 746_875, 1];
const ANYTHING: [u32; 5] = [2, 5, 29, 37, 0];

/// The file with these certificates, each trusted for anything.
pub(super) fn write<'a>(certificates: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mark = sequence(&[&oid(&[&TRUSTED_FOR[..], &[1]].concat()), &list(tag::SET, &[&oid(&ANYTHING)])]);
    let bags: Vec<u8> = certificates
        .into_iter()
        .flat_map(|certificate| {
            let certificate = value(tag::explicit(0), &value(tag::OCTET_STRING, certificate));
            let bag = value(tag::explicit(0), &sequence(&[&oid(&X509), &certificate]));
            sequence(&[&oid(&CERTIFICATE_BAG), &bag, &list(tag::SET, &[&mark])])
        })
        .collect();
    let safe = sequence(&[&content(&sequence(&[&bags]))]);
    sequence(&[&value(tag::INTEGER, &[3]), &content(&safe)])
}

/// `ContentInfo` with plain data.
fn content(data: &[u8]) -> Vec<u8> {
    sequence(&[&oid(&DATA), &value(tag::explicit(0), &value(tag::OCTET_STRING, data))])
}
