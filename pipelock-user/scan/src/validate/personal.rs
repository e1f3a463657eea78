//! Numbers that states give to people, told by their check digits.
//!
//! Called through [`super::lookup`] for rules/personal. Promises: linear, no panic, separators passed over. Each check
//! names the scheme it follows; where a number has no check digit the rule asks for a label instead.

use super::money::{digits, luhn};

/// The digits as an array, when there are exactly `N`.
fn exactly<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    digits(text)?.try_into().ok()
}

/// The sum of digits times weights.
fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(&digit, weight)| u32::from(digit) * weight).sum()
}

fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, &digit| number * 10 + u64::from(digit))
}

fn varied(digits: &[u8]) -> bool {
    digits.iter().any(|digit| Some(digit) != digits.first())
}

/// A social security number that may have been issued (SSA rules): area not 000, 666 or 900 and up, group and serial not
/// zero, not one known from advertisements, and not groups of one digit each.
pub(super) fn ssn(text: &[u8]) -> bool {
    let Some(digits) = exactly::<9>(text) else { return false };
    let (area, group, serial) = (number(&digits[..3]), number(&digits[3..5]), number(&digits[5..]));
    let advertised = matches!(number(&digits), 78_051_120 | 219_099_999 | 123_456_789 | 457_555_462);
    let drawn = area % 111 == 0 && group % 11 == 0 && serial % 1111 == 0;
    !drawn && area != 0 && area != 666 && area < 900 && group != 0 && serial != 0 && !advertised && varied(&digits)
}

/// A labelled social security number: as [`ssn`], but the numbers everybody knows count too.
pub(super) fn ssn_labelled(text: &[u8]) -> bool {
    ssn(text) || exactly::<9>(text).is_some_and(|digits| matches!(number(&digits), 123_456_789 | 78_051_120))
}

/// Luhn over nine digits: Canadian SIN. The first is not 0 or 8.
pub(super) fn sin(text: &[u8]) -> bool {
    exactly::<9>(text).is_some_and(|digits| !matches!(digits[0], 0 | 8) && varied(&digits) && luhn(&digits))
}

/// NHS number (UK): ten digits, modulus 11.
pub(super) fn nhs(text: &[u8]) -> bool {
    exactly::<10>(text).is_some_and(|digits| {
        let check = 11 - weighted(&digits, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
        varied(&digits) && check != 10 && check % 11 == u32::from(digits[9])
    })
}

/// Tax file number (Australia): nine digits, weights 1 4 3 7 5 8 6 9 10, modulus 11.
pub(super) fn tfn(text: &[u8]) -> bool {
    exactly::<9>(text)
        .is_some_and(|digits| varied(&digits) && weighted(&digits, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11))
}

/// CPF (Brazil): eleven digits, the last two modulus 11.
pub(super) fn cpf(text: &[u8]) -> bool {
    let check = |digits: &[u8], first: u32| {
        let sum: u32 = digits.iter().zip((2..=first).rev()).map(|(&digit, weight)| u32::from(digit) * weight).sum();
        (sum * 10 % 11 % 10) as u8
    };
    exactly::<11>(text).is_some_and(|digits| {
        varied(&digits) && check(&digits[..9], 10) == digits[9] && check(&digits[..10], 11) == digits[10]
    })
}

/// CNPJ (Brazil): fourteen digits, the last two modulus 11.
pub(super) fn cnpj(text: &[u8]) -> bool {
    const WEIGHTS: [u32; 13] = [6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2];
    let check = |sum: u32| match sum % 11 {
        0 | 1 => 0,
        rest => 11 - rest as u8,
    };
    exactly::<14>(text).is_some_and(|digits| {
        varied(&digits)
            && check(weighted(&digits[..12], &WEIGHTS[1..])) == digits[12]
            && check(weighted(&digits[..13], &WEIGHTS)) == digits[13]
    })
}

/// Aadhaar (India): twelve digits, not starting with 0 or 1, Verhoeff's check digit.
pub(super) fn aadhaar(text: &[u8]) -> bool {
    exactly::<12>(text).is_some_and(|digits| digits[0] > 1 && varied(&digits) && verhoeff(&digits))
}

fn verhoeff(digits: &[u8]) -> bool {
    // The dihedral group of order ten, and the permutation applied once more at every place.
    let times = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + b - 5) % 5 + 5,
        (false, true) => (a - 5 + 5 - b) % 5 + 5,
        (false, false) => (a + 5 - b) % 5,
    };
    const PERMUTED: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let mut sum = 0;
    for (place, &digit) in digits.iter().rev().enumerate() {
        let turned = (0..place % 8).fold(digit, |digit, _| PERMUTED[usize::from(digit % 10)]);
        sum = times(sum, turned);
    }
    sum == 0
}

/// Identity number (Turkey): eleven digits, the last two of them sums of the others.
pub(super) fn tckn(text: &[u8]) -> bool {
    exactly::<11>(text).is_some_and(|digits| {
        let sum = |from: usize| digits[..9].iter().skip(from).step_by(2).map(|digit| i32::from(*digit)).sum::<i32>();
        let tenth = (sum(0) * 7 - sum(1)).rem_euclid(10);
        let eleventh = digits[..10].iter().map(|digit| i32::from(*digit)).sum::<i32>() % 10;
        digits[0] != 0 && varied(&digits) && tenth == i32::from(digits[9]) && eleventh == i32::from(digits[10])
    })
}

/// Resident identity number (China, GB 11643): place, day of birth, serial, and a check character of modulus 11.
pub(super) fn cn_id(text: &[u8]) -> bool {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let Some((body, [check])) = text.split_first_chunk::<17>() else { return false };
    let Some(body) = exactly::<17>(body) else { return false };
    let (year, month, day) = (number(&body[6..10]), number(&body[10..12]), number(&body[12..14]));
    let born = (1900..2040).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let wanted = b"10X98765432"[(weighted(&body, &WEIGHTS) % 11) as usize];
    born && (1..=8).contains(&body[0]) && check.to_ascii_uppercase() == wanted
}

/// NIR (France): thirteen digits and the key, 97 minus their remainder of 97. Corsica's 2A and 2B are not covered.
pub(super) fn nir(text: &[u8]) -> bool {
    exactly::<15>(text).is_some_and(|digits| {
        let month = number(&digits[3..5]);
        matches!(digits[0], 1..=4 | 7 | 8)
            && (matches!(month, 1..=12 | 20..=42 | 50..=99))
            && 97 - number(&digits[..13]) % 97 == number(&digits[13..])
    })
}

/// DNI and NIE (Spain): eight digits, or X, Y, Z and seven, and the letter that belongs to the remainder of 23.
pub(super) fn dni(text: &[u8]) -> bool {
    let text: Vec<u8> = text.iter().filter(|byte| !matches!(byte, b'-' | b' ')).map(u8::to_ascii_uppercase).collect();
    let [first, middle @ .., letter] = text.as_slice() else { return false };
    let first = match first {
        b'X' => b'0',
        b'Y' => b'1',
        b'Z' => b'2',
        digit => *digit,
    };
    if text.len() != 9 || !first.is_ascii_digit() || !middle.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = middle.iter().fold(u32::from(first - b'0'), |number, byte| number * 10 + u32::from(byte - b'0'));
    b"TRWAGMYFPDXBNJZSQVHLCKE"[(number % 23) as usize] == *letter
}

/// Codice fiscale (Italy): sixteen characters, the last a check letter (decree of 23 December 1976).
pub(super) fn codice_fiscale(text: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    if text.len() != 16 {
        return false;
    }
    let value = |byte: u8| match byte.to_ascii_uppercase() {
        digit @ b'0'..=b'9' => Some(usize::from(digit - b'0')),
        letter @ b'A'..=b'Z' => Some(usize::from(letter - b'A')),
        _ => None,
    };
    let sum = text[..15].iter().enumerate().try_fold(0, |sum, (place, &byte)| {
        let value = value(byte)?;
        Some(sum + if place % 2 == 0 { ODD[value] } else { value as u32 })
    });
    sum.is_some_and(|sum| text[15].to_ascii_uppercase() == b'A' + (sum % 26) as u8)
}

/// BSN (Netherlands): nine digits, the eleven test with a last weight of -1.
pub(super) fn bsn(text: &[u8]) -> bool {
    exactly::<9>(text).is_some_and(|digits| {
        varied(&digits) && weighted(&digits, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11 == u32::from(digits[8]) % 11
    })
}

/// PESEL (Poland): eleven digits, weights 1 3 7 9, a possible date.
pub(super) fn pesel(text: &[u8]) -> bool {
    exactly::<11>(text).is_some_and(|digits| {
        let (month, day) = (number(&digits[2..4]) % 20, number(&digits[4..6]));
        (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && (weighted(&digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) + u32::from(digits[10])).is_multiple_of(10)
    })
}

/// Personnummer (Sweden): ten digits, Luhn, a possible date; twelve when the century is written.
pub(super) fn personnummer(text: &[u8]) -> bool {
    let Some(digits) = digits(text) else { return false };
    let short = if digits.len() == 12 { &digits[2..] } else { &digits[..] };
    short.len() == 10
        && (1..=12).contains(&number(&short[2..4]))
        && (1..=91).contains(&number(&short[4..6]))
        && luhn(short)
}

/// AHV number (Switzerland): thirteen digits starting with 756, an EAN-13 check digit.
pub(super) fn ahv(text: &[u8]) -> bool {
    exactly::<13>(text).is_some_and(|digits| {
        digits.starts_with(&[7, 5, 6]) && weighted(&digits, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]).is_multiple_of(10)
    })
}

/// National number (Belgium): eleven digits, 97 minus the remainder of the first nine (with a leading 2 from 2000 on).
pub(super) fn rijksregister(text: &[u8]) -> bool {
    exactly::<11>(text).is_some_and(|digits| {
        let (first, check) = (number(&digits[..9]), number(&digits[9..]));
        number(&digits[2..4]) <= 12
            && number(&digits[4..6]) <= 31
            && varied(&digits)
            && (97 - first % 97 == check || 97 - (2_000_000_000 + first) % 97 == check)
    })
}

/// Tax identification number (Germany): eleven digits, ISO 7064 MOD 11,10, and one digit twice or thrice among ten.
pub(super) fn steuer_id(text: &[u8]) -> bool {
    exactly::<11>(text).is_some_and(|digits| {
        let mut counts = [0u8; 10];
        digits[..10].iter().for_each(|&digit| counts[usize::from(digit % 10)] += 1);
        let repeated = counts.iter().filter(|&&count| count > 1).count();
        let product = digits[..10].iter().fold(10u32, |product, &digit| {
            let sum = (product + u32::from(digit)) % 10;
            (if sum == 0 { 10 } else { sum }) * 2 % 11
        });
        digits[0] != 0 && repeated == 1 && (11 - product) % 10 == u32::from(digits[10])
    })
}

/// The second line of a passport's machine-readable zone (ICAO 9303, TD3): number, birth and expiry with check digits.
pub(super) fn passport_mrz(text: &[u8]) -> bool {
    let value = |byte: u8| match byte {
        b'0'..=b'9' => Some(u32::from(byte - b'0')),
        b'A'..=b'Z' => Some(u32::from(byte - b'A') + 10),
        b'<' => Some(0),
        _ => None,
    };
    let checked = |field: &[u8], check: u8| {
        let sum = field
            .iter()
            .zip([7, 3, 1].iter().cycle())
            .try_fold(0, |sum, (&byte, weight)| Some(sum + value(byte)? * weight));
        sum.map(|sum| sum % 10) == value(check)
    };
    text.len() == 44
        && checked(&text[..9], text[9])
        && checked(&text[13..19], text[19])
        && checked(&text[21..27], text[27])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A right number and the same with its last character changed.
    fn right_and_wrong(check: fn(&[u8]) -> bool, right: &[&str]) {
        for text in right {
            assert!(check(text.as_bytes()), "{text}");
            let mut wrong = text.as_bytes().to_vec();
            let last = wrong.len() - 1;
            wrong[last] = if wrong[last] == b'9' || wrong[last] == b'Z' { wrong[last] - 1 } else { wrong[last] + 1 };
            assert!(!check(&wrong), "{text} changed");
        }
        assert!(!check(b"") && !check(b"x") && !check(&[0xff; 64]));
    }

    #[test]
    fn turkish_and_chinese_numbers_have_their_checks() {
        assert!(tckn(b"10000000146") && !tckn(b"10000000147") && !tckn(b"00000000000"));
        // The example of the standard.
        assert!(cn_id(b"11010519491231002X") && cn_id(b"11010519491231002x"));
        assert!(!cn_id(b"110105194912310021") && !cn_id(b"11010519491331002X") && !cn_id(b"1101"));
    }

    #[test]
    fn check_digits_are_checked() {
        right_and_wrong(sin, &["130 692 544", "130692544"]);
        right_and_wrong(nhs, &["943 476 5919"]);
        right_and_wrong(tfn, &["123 456 782"]);
        right_and_wrong(cpf, &["529.982.247-25"]);
        right_and_wrong(cnpj, &["11.222.333/0001-81"]);
        right_and_wrong(aadhaar, &["2341 2341 2346"]);
        right_and_wrong(dni, &["12345678Z", "X1234567L"]);
        right_and_wrong(codice_fiscale, &["RSSMRA85T10A562S"]);
        right_and_wrong(bsn, &["111222333"]);
        right_and_wrong(pesel, &["44051401359"]);
        right_and_wrong(personnummer, &["811218-9876", "19811218-9876"]);
        right_and_wrong(ahv, &["756.9217.0769.85"]);
        right_and_wrong(rijksregister, &["85.07.30-033 28".replace(' ', ".").as_str()]);
        right_and_wrong(steuer_id, &["86095742719"]);
    }

    #[test]
    fn a_social_security_number_may_have_been_issued() {
        assert!(ssn(b"536-22-8726"));
        for text in ["000-12-3456", "666-12-3456", "900-12-3456", "536-00-8726", "536-22-0000", "078-05-1120"] {
            assert!(!ssn(text.as_bytes()), "{text}");
        }
        assert!(ssn_labelled(b"123-45-6789"));
    }

    #[test]
    fn a_french_number_has_its_key() {
        assert!(nir(b"1 84 12 76 451 089 46"));
        assert!(!nir(b"1 84 12 76 451 089 47"));
    }

    #[test]
    fn a_passport_line_sums_up() {
        assert!(passport_mrz(b"L898902C36UTO7408122F1204159ZE184226B<<<<<10"));
        assert!(!passport_mrz(b"L898902C37UTO7408122F1204159ZE184226B<<<<<10"));
    }
}
