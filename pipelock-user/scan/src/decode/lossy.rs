//! Bytes as text where some are none: each byte that is of no character of UTF-8 becomes `~`, so that places stay. Called by
//! `stream::orders`, which reads all sorts of data, and by `stream::quiet` for the question which bytes are characters.
//!
//! Promises: what is a character is decided by its own bytes, as the standard library does; loops without branches, of which
//! the compiler makes vector instructions, since half of noise is no text.

/// Bytes that are looked at together.
const PART: usize = 128;
/// Most bytes of a character before or behind one of its own.
const NEAR: usize = 3;

/// What stands for a byte that is no text.
const NONE: u8 = b'~';

/// Where a character begins that is cut off by the end of `bytes`; their length without such.
pub(crate) fn cut(bytes: &[u8]) -> usize {
    let near = bytes.len().saturating_sub(NEAR)..bytes.len();
    let unfinished = |at: &usize| {
        let rest = bytes.get(*at..).unwrap_or_default();
        rest.first().is_some_and(|byte| *byte >= 0xc2)
            && std::str::from_utf8(rest).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    near.rev().find(unfinished).unwrap_or(bytes.len())
}

/// Appends `bytes` to `text`.
pub(crate) fn append(bytes: &[u8], text: &mut String) {
    if let Ok(valid) = std::str::from_utf8(bytes) {
        return text.push_str(valid);
    }
    let mut out = Vec::with_capacity(bytes.len());
    for at in (0..bytes.len()).step_by(PART) {
        let mut padded = [0; PART + 2 * NEAR];
        let from = at.saturating_sub(NEAR);
        let to = bytes.len().min(at + PART + NEAR);
        let part = bytes.get(from..to).unwrap_or_default();
        let first = NEAR - (at - from);
        if let Some(place) = padded.get_mut(first..first + part.len()) {
            place.copy_from_slice(part);
        }
        let count = PART.min(bytes.len() - at);
        out.extend_from_slice(shown(&padded).get(..count).unwrap_or_default());
    }
    match String::from_utf8(out) {
        Ok(valid) => text.push_str(&valid),
        // Never: what is no character was replaced.
        Err(error) => {
            text.extend(error.as_bytes().iter().map(|byte| if *byte < 0x80 { char::from(*byte) } else { '~' }))
        }
    }
}

/// The bytes in the middle, of those that are of no character another.
fn shown(padded: &[u8; PART + 2 * NEAR]) -> [u8; PART] {
    // Where characters of two, three and four bytes begin (Unicode 15, table 3-7).
    let mut begins = [[0u8; PART + NEAR]; 3];
    let within = |byte: u8, from: u8, to: u8| byte.wrapping_sub(from) <= to - from;
    let rest = |byte: u8| within(byte, 0x80, 0xbf);
    for at in 0..PART + NEAR {
        let (first, second) = (padded[at], padded[at + 1]);
        begins[0][at] = u8::from(within(first, 0xc2, 0xdf) & rest(second));
    }
    for at in 0..PART + NEAR {
        let (first, second, third) = (padded[at], padded[at + 1], padded[at + 2]);
        let low = (first == 0xe0) & (second < 0xa0);
        let surrogate = (first == 0xed) & (second > 0x9f);
        begins[1][at] = u8::from(within(first, 0xe0, 0xef) & rest(second) & rest(third) & !low & !surrogate);
    }
    for at in 0..PART + NEAR {
        let (first, second, third, fourth) = (padded[at], padded[at + 1], padded[at + 2], padded[at + 3]);
        let low = (first == 0xf0) & (second < 0x90);
        let high = (first == 0xf4) & (second > 0x8f);
        begins[2][at] = u8::from(within(first, 0xf0, 0xf4) & rest(second) & rest(third) & rest(fourth) & !low & !high);
    }
    let mut out = [0; PART];
    let [two, three, four] = &begins;
    for (at, out) in out.iter_mut().enumerate() {
        let own = at + NEAR;
        let of = two[own] | two[own - 1] | three[own] | three[own - 1] | three[own - 2];
        let of = of | four[own] | four[own - 1] | four[own - 2] | four[own - 3];
        let byte = padded[own];
        *out = if (byte < 0x80) | (of != 0) { byte } else { NONE };
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the standard library says it.
    fn plain(bytes: &[u8]) -> String {
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            chunk.invalid().iter().for_each(|_| text.push('~'));
        }
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn it_is_what_the_library_says(
            parts in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..9),
                prop::collection::vec(prop::sample::select(vec![
                    0x41u8, 0x7e, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xed, 0xee, 0xef,
                    0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
                ]), 0..9),
                "\\PC{0,5}".prop_map(String::into_bytes),
                "[a-z]{0,70}".prop_map(String::into_bytes),
            ], 0..30),
        ) {
            let bytes = parts.concat();
            let mut text = String::new();
            append(&bytes, &mut text);
            prop_assert_eq!(&text, &plain(&bytes));
            let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
            let unfinished = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
            prop_assert_eq!(bytes.len() - cut(&bytes), if unfinished { last.len() } else { 0 });
        }
    }
}
