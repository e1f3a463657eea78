//! Numbers of payment: cards, IBAN, ABA routing numbers.
//!
//! Called through [`super::lookup`] and by the personal checks (Luhn). Promises: linear, no panic.

/// Digits of a text; spaces, dashes and dots between them are passed over. `None` at any other byte or over 40 digits.
pub(super) fn digits(text: &[u8]) -> Option<Vec<u8>> {
    let mut digits = Vec::with_capacity(24);
    for &byte in text {
        match byte {
            b'0'..=b'9' if digits.len() < 40 => digits.push(byte - b'0'),
            b' ' | b'-' | b'.' | b'/' => {}
            _ => return None,
        }
    }
    Some(digits)
}

/// The Luhn sum (ISO/IEC 7812-1, annex B) is a multiple of ten.
pub(crate) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| match u32::from(digit) * if place % 2 == 1 { 2 } else { 1 } {
            doubled @ 10.. => doubled - 9,
            value => value,
        })
        .sum();
    !digits.is_empty() && sum.is_multiple_of(10)
}

/// A card number: an issuer's range with a length that issuer uses, a right Luhn sum, and not all of one or two digits.
/// Ranges: ISO/IEC 7812 and the networks' published tables.
pub(super) fn card(text: &[u8]) -> bool {
    let Some(digits) = digits(text) else { return false };
    if !(13..=19).contains(&digits.len()) {
        return false;
    }
    let six = digits[..6].iter().fold(0u32, |number, &digit| number * 10 + u32::from(digit));
    let length = digits.len();
    let issued = match six {
        400_000..=499_999 => matches!(length, 13 | 16 | 19),   // Visa
        510_000..=559_999 | 222_100..=272_099 => length == 16, // Mastercard
        340_000..=349_999 | 370_000..=379_999 => length == 15, // American Express
        601_100..=601_199 | 644_000..=659_999 | 622_126..=622_925 => (16..=19).contains(&length), // Discover
        352_800..=358_999 => (16..=19).contains(&length),      // JCB
        300_000..=305_999 | 309_500..=309_599 | 360_000..=369_999 | 380_000..=399_999 => (14..=19).contains(&length), // Diners
        620_000..=622_125 | 622_926..=629_999 | 810_000..=817_199 => (16..=19).contains(&length), // UnionPay
        500_000..=509_999 | 560_000..=589_999 | 630_000..=639_999 | 670_000..=679_999 => (13..=19).contains(&length), // Maestro
        220_000..=220_499 => (16..=19).contains(&length), // Mir
        _ => false,
    };
    let varied = digits.iter().collect::<std::collections::BTreeSet<_>>().len() > 1;
    issued && varied && !is_row(text) && luhn(&digits)
}

/// Four numbers of a table rather than of a card: those of characters, years and the like begin alike, and rise.
fn is_row(text: &[u8]) -> bool {
    let groups: Vec<&[u8]> = text.split(|byte| !byte.is_ascii_digit()).collect();
    groups.len() == 4
        && groups.iter().all(|group| group.get(..2) == text.get(..2))
        && groups.windows(2).all(|pair| pair[0] < pair[1])
}

/// Countries and the length of their IBAN, in characters (ISO 13616, SWIFT's registry).
const IBAN_LENGTHS: [(&[u8; 2], u8); 84] = [
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
];

/// An IBAN (ISO 13616): a country of the registry, its length, and 1 as the remainder of 97 (ISO 7064).
pub(super) fn iban(text: &[u8]) -> bool {
    let text: Vec<u8> = text.iter().filter(|byte| !matches!(byte, b' ' | b'-')).map(u8::to_ascii_uppercase).collect();
    let length = match text.get(..2) {
        Some(b"VG") => Some(24),
        Some(b"VA") => Some(22),
        Some(b"XK") => Some(20),
        Some(country) => IBAN_LENGTHS.iter().find(|(known, _)| *known == country).map(|(_, length)| *length),
        None => None,
    };
    if length.map(usize::from) != Some(text.len()) {
        return false;
    }
    let remainder = text[4..].iter().chain(&text[..4]).try_fold(0u32, |rest, &byte| match byte {
        b'0'..=b'9' => Some((rest * 10 + u32::from(byte - b'0')) % 97),
        b'A'..=b'Z' => Some((rest * 100 + u32::from(byte - b'A') + 10) % 97),
        _ => None,
    });
    remainder == Some(1)
}

/// An ABA routing number: nine digits, a Federal Reserve prefix, weights 3-7-1.
pub(super) fn aba(text: &[u8]) -> bool {
    let Some(digits) = digits(text) else { return false };
    if digits.len() != 9 {
        return false;
    }
    let prefix = digits[0] * 10 + digits[1];
    let district = matches!(prefix, 1..=12 | 21..=32 | 61..=72 | 80);
    let sum: u32 = digits.iter().zip([3, 7, 1].iter().cycle()).map(|(&digit, weight)| u32::from(digit) * weight).sum();
    district && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_need_issuer_length_and_sum() {
        for text in
            ["4111111111111111", "4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444", "30569309025904"]
        {
            assert!(card(text.as_bytes()), "{text}");
        }
        for text in [
            "4111111111111112",
            "5120 5121 5122 5123",
            "411111111111111",
            "9999999999999995",
            "0000000000000000",
            "4111x11111111111",
        ] {
            assert!(!card(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn ibans_need_country_length_and_remainder() {
        for text in
            ["GB82WEST12345698765432", "GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "NO9386011117947"]
        {
            assert!(iban(text.as_bytes()), "{text}");
        }
        for text in ["GB82WEST12345698765433", "GB82WEST1234569876543", "ZZ82WEST12345698765432", "", "G"] {
            assert!(!iban(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn routing_numbers_need_a_district() {
        assert!(aba(b"021000021"));
        assert!(!aba(b"021000022"));
        assert!(!aba(b"990000009"));
    }
}
