//! The little DER (X.690) that certificates and keystores take: values written, and a certificate's parts read.
//!
//! Called by `ca`, `leaf`, `x509` and `keystore`. It promises minimal lengths, and no panic on any input.

use std::time::{Duration, UNIX_EPOCH};

use pipelock_receipt::canon::Timestamp;

/// Universal tags (X.680 §8.6), and the constructed bit where the type has it.
pub(super) mod tag {
    pub(in crate::proxy::tls) const BOOLEAN: u8 = 0x01;
    pub(in crate::proxy::tls) const INTEGER: u8 = 0x02;
    pub(in crate::proxy::tls) const BIT_STRING: u8 = 0x03;
    pub(in crate::proxy::tls) const OCTET_STRING: u8 = 0x04;
    pub(in crate::proxy::tls) const NULL: u8 = 0x05;
    pub(in crate::proxy::tls) const OID: u8 = 0x06;
    pub(in crate::proxy::tls) const UTF8: u8 = 0x0c;
    pub(in crate::proxy::tls) const UTC_TIME: u8 = 0x17;
    pub(in crate::proxy::tls) const GENERALIZED_TIME: u8 = 0x18;
    pub(in crate::proxy::tls) const SEQUENCE: u8 = 0x30;
    pub(in crate::proxy::tls) const SET: u8 = 0x31;
    /// `[n]`, primitive.
    pub(in crate::proxy::tls) const fn context(number: u8) -> u8 {
        0x80 | number
    }
    /// `[n]`, constructed.
    pub(in crate::proxy::tls) const fn explicit(number: u8) -> u8 {
        0xa0 | number
    }
}

/// One value: tag, length, content.
pub(super) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 6);
    out.push(tag);
    let length = content.len().to_be_bytes();
    match content.len() {
        short @ 0..0x80 => out.push(u8::try_from(short).unwrap_or_default()),
        _ => {
            let digits: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            out.extend(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A value out of values.
pub(super) fn list(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    value(tag, &parts.concat())
}

/// A sequence out of values.
pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    list(tag::SEQUENCE, parts)
}

/// An object identifier from its numbers; at least two of them.
pub(super) fn oid(numbers: &[u32]) -> Vec<u8> {
    let mut content = Vec::new();
    let (first, rest) = match numbers {
        [first, second, rest @ ..] => (first * 40 + second, rest),
        _ => (0, &[][..]),
    };
    for number in std::iter::once(&first).chain(rest) {
        let mut groups = vec![u8::try_from(number & 0x7f).unwrap_or_default()];
        let mut left = number >> 7;
        while left > 0 {
            groups.push(0x80 | u8::try_from(left & 0x7f).unwrap_or_default());
            left >>= 7;
        }
        content.extend(groups.iter().rev());
    }
    value(tag::OID, &content)
}

/// A string of whole bytes as bits.
pub(super) fn bits(bytes: &[u8]) -> Vec<u8> {
    value(tag::BIT_STRING, &[&[0], bytes].concat())
}

/// A moment, in seconds after 1970, as RFC 5280 §4.1.2.5 wants it: UTCTime up to 2049, GeneralizedTime after.
pub(super) fn time(seconds: u64) -> Vec<u8> {
    let moment = Timestamp::from(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    let digits: String = moment.chars().filter(char::is_ascii_digit).collect();
    match digits.split_at_checked(2) {
        Some((_, of_century)) if digits.as_str() < "2050" => value(tag::UTC_TIME, format!("{of_century}Z").as_bytes()),
        _ => value(tag::GENERALIZED_TIME, format!("{digits}Z").as_bytes()),
    }
}

/// Reads values one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value: its tag, its content, and the whole of it.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let all = self.0;
        let (&tag, rest) = all.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let digits = usize::from(first & 0x7f);
            let (digits, rest) = rest.split_at_checked(digits).filter(|_| (1..=4).contains(&digits))?;
            (digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit)), rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        let whole = all.get(..all.len() - rest.len())?;
        Some((tag, content, whole))
    }

    /// The content of the next value, which has this tag.
    pub(super) fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (tag, content, _) = self.next()?;
        (tag == wanted).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_written_as_the_standard_shows_them() {
        assert_eq!(oid(&[1, 2, 840, 10045, 4, 3, 2]), [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]);
        assert_eq!(value(4, &[7; 128])[..3], [4, 0x81, 128]);
        assert_eq!(value(4, &[7; 300])[..4], [4, 0x82, 1, 44]);
    }

    #[test]
    fn moments_have_the_form_of_their_century() {
        let text = |seconds| String::from_utf8(time(seconds)[2..].to_vec()).expect("text");
        assert_eq!(text(0), "700101000000Z");
        assert_eq!(text(951_827_696), "000229123456Z");
        assert_eq!(text(2_524_607_999), "491231235959Z");
        assert_eq!(text(2_524_608_000), "20500101000000Z");
        assert_eq!(text(4_107_542_400), "21000301000000Z");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(tag in 1u8..0x1f, content in proptest::collection::vec(any::<u8>(), 0..700), more: Vec<u8>) {
            let bytes = [value(tag, &content), more.clone()].concat();
            let mut reader = Reader(&bytes);
            let (found, inner, whole) = reader.next().expect("a value");
            prop_assert_eq!((found, inner, whole), (tag, &content[..], &value(tag, &content)[..]));
            prop_assert_eq!(reader.0, &more[..]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut reader = Reader(&bytes);
            while reader.next().is_some() {}
        }
    }
}
