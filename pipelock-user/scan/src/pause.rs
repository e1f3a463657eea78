//! What a sender that pauses has begun and not ended: the bytes at the end of a text that may be the beginning of a secret.
//!
//! Called by whoever lets a text go on as it comes, when nothing comes for a while. Tokens that show by their prefix and known
//! values are told by what they begin with. What shows only by its label or its form (`password = …`, card numbers) is told by
//! ending it in a few ways of our own: when a finding then begins in the text itself, so may a secret. Promises: bounded work for each
//! question, of the last [`MOST`] bytes; what is said begins no secret may still begin one of which nothing shows yet.

use std::ops::Range;

use crate::decode::codec::{Bits, Radix, in_run, is_hex};
use crate::engine::EngineError;
use crate::finding::Finding;
use crate::rule::Kind;
use crate::scanner::Scanner;
use crate::stream::Stream;
use crate::url;
use crate::validate;

/// Bytes at the end of a text that are looked at: a private key of 4,096 bits in PEM with its first line.
const MOST: usize = 4096;
/// Bytes before the last word that may say what it is.
const LABEL: usize = 96;
/// Longest last word that is ended by way of trial.
const TRIED: usize = 256;
/// Characters at the end that are decoded.
const WORD: usize = 1024;
/// Digits that may be the beginning of the number of a card; the numbers have one of these lengths.
const LEAST_DIGITS: usize = 6;
const CARDS: [usize; 2] = [16, 15];
/// Groups of a recovery key, and the digits of each.
const GROUPS: usize = 8;
const GROUP: usize = 6;
/// Characters of base64 and of hexadecimal of which something can be told.
const LEAST_CODED: usize = 12;
/// Characters of the last part of a JSON web token with which it shows by itself, and of the part before without a last one: as the
/// pattern of the rule has them.
const SIGNATURE: usize = 20;
const PAYLOAD: usize = 3 + 1125;
/// Lengths that values have for which a rule wants one.
const LENGTHS: [usize; 11] = [16, 20, 22, 24, 32, 36, 40, 43, 44, 48, 64];
/// Characters without an order, and digits of which the same is true.
const FILL: &[u8; 64] = b"K7vQ2mXz9LwT4bNc8JdY3hPf6SgA5uErV1iB0oMkHxCqRtZsWyDnFjGaUeLpIv7q";
const FILL_HEX: &[u8; 64] = b"7c1e9b3f5a08d6e24b7f91c03d8a6e5f2b94c7d1083fae65b92d4c7018e3f5a6";
const FILL_UUID: &[u8; 36] = b"7c1e9b3f-5a08-46e2-8b7f-91c03d8a6e5f";
const FILL_DIGITS: &[u8; 16] = b"5839201476385029";

impl Scanner {
    /// How many bytes at the end of a text may be the beginning of a secret that its sender, which pauses there, has not ended:
    /// what shows by its prefix, label or form, also in one layer of base64, hexadecimal or percent. `stops` says of what may be found
    /// then whether it is stopped: nothing else has to wait.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn begun_secret(&self, text: &[u8], stops: impl Fn(&Finding) -> bool) -> Result<usize, EngineError> {
        let stops: &dyn Fn(&Finding) -> bool = &stops;
        let text = &text[text.len().saturating_sub(MOST)..];
        let mut begun = self.begun_here(text, stops)?;
        for coded in [Coded::radix(text, Radix::Base64), Coded::radix(text, Radix::Hex), Coded::percent(text)] {
            for coded in coded {
                let within = self.begun_here(&coded.text, stops)?;
                if within > 0 {
                    begun = begun.max(coded.bytes_of(within));
                }
            }
        }
        Ok(begun.min(text.len()))
    }

    /// The same of a text as it stands.
    fn begun_here(&self, text: &[u8], stops: &dyn Fn(&Finding) -> bool) -> Result<usize, EngineError> {
        let shown = self.begun_token(text)?.max(begun_pem(text)).max(begun_jwt(text));
        let phrase = Stream::begun_phrase(&self.core, text)?;
        Ok(shown.max(phrase).max(self.begun_value(text, stops)?))
    }

    /// What shows by its label or its form.
    fn begun_value(&self, text: &[u8], stops: &dyn Fn(&Finding) -> bool) -> Result<usize, EngineError> {
        let trials = Trials::of(text);
        if trials.ends.is_empty() {
            return Ok(0);
        }
        let mut begun = 0;
        for found in self.scan(&trials.text)? {
            if found.kind == Kind::Dlp && stops(&found) {
                let place = found.span.start as usize..found.span.end as usize;
                begun = begun.max(trials.begun(&place));
            }
        }
        Ok(begun)
    }
}

/// The end of a text, ended in several ways.
struct Trials {
    text: Vec<u8>,
    /// Where in it the text ends, each time, and where that trial does.
    ends: Vec<(usize, usize)>,
}

impl Trials {
    fn of(text: &[u8]) -> Self {
        let mut trials = Self { text: Vec::new(), ends: Vec::new() };
        let word = text.iter().rev().take_while(|byte| !byte.is_ascii_whitespace()).count();
        if word > TRIED {
            return trials;
        }
        let context = &text[text.len().saturating_sub(word + LABEL)..];
        trials.add_cards(context);
        trials.add_groups(context);
        if word == 0 {
            return trials;
        }
        let in_value = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+/.~-".contains(byte);
        let value = context.len() - context.iter().rev().take_while(|byte| in_value(byte)).count();
        let value = &context[value..];
        let quote = open_quote(context);
        for length in LENGTHS.into_iter().filter(|length| *length > value.len()) {
            trials.add(context, &[&FILL[..length - value.len()], quote]);
        }
        trials.add(context, &[FILL, quote]);
        if value.iter().all(|byte| is_hex(*byte)) {
            for length in [32, 40, 64].into_iter().filter(|length| *length > value.len()) {
                trials.add(context, &[&FILL_HEX[..length - value.len()], quote]);
            }
        }
        let is_uuid = |(byte, fill): (&u8, &u8)| if *fill == b'-' { *byte == b'-' } else { is_hex(*byte) };
        if value.len() < FILL_UUID.len() && value.iter().zip(FILL_UUID).all(is_uuid) {
            trials.add(context, &[&FILL_UUID[value.len()..], quote]);
        }
        let word = &context[context.len() - word..];
        if word.windows(3).any(|part| part == b"://") {
            for fill in [&b"K7vQ2mXz9LwT@"[..], b":K7vQ2mXz9LwT@", b""] {
                trials.add(context, &[fill, b"db.example.net/main", quote]);
            }
        }
        trials
    }

    /// Ends a number of a card with its check digit.
    fn add_cards(&mut self, text: &[u8]) {
        let is_apart = |byte: u8| matches!(byte, b' ' | b'-');
        let count = text.iter().rev().take_while(|byte| byte.is_ascii_digit() || is_apart(**byte)).count();
        let number = text[text.len() - count..].trim_ascii_start();
        let mut digits: Vec<u8> = number.iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0').collect();
        let apart = number.iter().copied().find(|byte| is_apart(*byte));
        let begun = digits.len();
        for length in CARDS.into_iter().filter(|length| (LEAST_DIGITS..*length).contains(&begun)) {
            digits.truncate(begun);
            digits.extend(FILL_DIGITS[begun..length - 1].iter().map(|byte| byte - b'0'));
            let check = (0..10).find(|check| validate::luhn(&[&digits[..], &[*check]].concat()));
            digits.extend(check);
            let mut rest = Vec::new();
            for (at, digit) in digits.iter().enumerate().skip(begun) {
                let is_group = if length == 15 { matches!(at, 4 | 10) } else { at % 4 == 0 };
                let is_said = at == begun && number.last().is_some_and(|byte| is_apart(*byte));
                rest.extend(apart.filter(|_| is_group && !is_said));
                rest.push(digit + b'0');
            }
            self.add(text, &[&rest]);
        }
    }

    /// Ends a recovery key of BitLocker, of whose groups each is a number that eleven divides.
    fn add_groups(&mut self, text: &[u8]) {
        let in_key = |byte: &u8| byte.is_ascii_digit() || *byte == b'-';
        let count = text.iter().rev().take_while(|byte| in_key(byte)).count();
        let key = &text[text.len() - count..];
        let groups: Vec<&[u8]> = key.split(|byte| *byte == b'-').collect();
        let Some((last, whole)) = groups.split_last() else { return };
        let is_begun = (1..GROUPS).contains(&whole.len()) && whole.iter().all(|group| group.len() == GROUP);
        if !is_begun && last.len() != GROUP || last.len() > GROUP || whole.len() >= GROUPS {
            return;
        }
        let free = GROUP - last.len();
        let begun = last.iter().fold(0, |sum, byte| 10 * sum + usize::from(byte - b'0')) * 10_usize.pow(free as u32);
        let number = begun.next_multiple_of(11);
        let digits = format!("{number:06}");
        if number >= begun + 10_usize.pow(free as u32) {
            return;
        }
        let others: Vec<String> =
            (whole.len() + 1..GROUPS).map(|at| format!("-{:06}", 11 * (4_321 + 1_234 * at))).collect();
        self.add(text, &[digits.get(last.len()..).unwrap_or_default().as_bytes(), others.concat().as_bytes()]);
    }

    fn add(&mut self, text: &[u8], end: &[&[u8]]) {
        self.text.extend_from_slice(text);
        let begun = self.text.len();
        end.iter().for_each(|part| self.text.extend_from_slice(part));
        self.ends.push((begun, self.text.len()));
        self.text.extend_from_slice(b"\n\n");
    }

    /// How many bytes at the end of the text a finding begins with, that goes on in what ended it, or shows by that behind one mark.
    fn begun(&self, place: &Range<usize>) -> usize {
        let at = self.ends.partition_point(|(_, end)| *end < place.end);
        let from = at.checked_sub(1).map_or(0, |before| self.ends[before].1);
        let Some((begun, _)) = self.ends.get(at) else { return 0 };
        let is_begun = from <= place.start && place.start < *begun;
        let goes_on = *begun < place.end || *begun == place.end + 1;
        if is_begun && goes_on { begun - place.start } else { 0 }
    }
}

/// What the end of a text says when it is decoded.
struct Coded {
    text: Vec<u8>,
    /// For each byte of it, how many bytes of the text there are from where it is written.
    left: Vec<usize>,
}

impl Coded {
    /// In a codec of so many bits a character, from each that may be the first. Lines are no end of it.
    fn radix(text: &[u8], radix: Radix) -> Vec<Self> {
        let has = |byte: u8| if radix == Radix::Hex { is_hex(byte) } else { in_run(byte) };
        let is_line = |byte: u8| matches!(byte, b'\r' | b'\n');
        let mut run: Vec<(u8, usize)> = (text.iter().rev().take(WORD).enumerate())
            .take_while(|(_, byte)| has(**byte) || is_line(**byte))
            .filter(|(_, byte)| has(**byte))
            .map(|(at, byte)| (*byte, at + 1))
            .collect();
        if run.len() < LEAST_CODED {
            return Vec::new();
        }
        run.reverse();
        let per_byte = 8 / radix.bits() as usize;
        let phases = if radix == Radix::Hex { 2 } else { 4 };
        (0..phases)
            .filter_map(|phase| {
                let run = run.get(phase..)?;
                let bytes: Vec<u8> = run.iter().map(|(byte, _)| *byte).collect();
                let mut text = Vec::new();
                Bits::default().decode(radix, &bytes, &mut text);
                let place = |at: usize| run.get(at * 8 / radix.bits() as usize).map_or(0, |(_, left)| *left);
                let left = (0..text.len()).map(place).collect();
                // Data that is no text says nothing as it stands.
                let end = &text[text.len().saturating_sub(2 * LEAST_CODED)..];
                let is_text = end.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
                (is_text && text.len() > per_byte).then_some(Self { text, left })
            })
            .collect()
    }

    /// In percent.
    fn percent(text: &[u8]) -> Vec<Self> {
        let word = text.iter().rev().take(WORD).take_while(|byte| byte.is_ascii_graphic()).count();
        let word = &text[text.len() - word..];
        if !word.contains(&b'%') {
            return Vec::new();
        }
        let cut = word.iter().rev().take(2).position(|byte| *byte == b'%').map_or(0, |at| at + 1);
        let decoded = url::decoded(&word[..word.len() - cut]).into_owned();
        // A byte is written in three at most.
        let left = (0..decoded.len()).map(|at| (3 * (decoded.len() - at) + cut).min(word.len())).collect();
        vec![Self { text: decoded, left }]
    }

    /// Bytes of the text in which so many at the end of what it says are written.
    fn bytes_of(&self, count: usize) -> usize {
        self.left.get(self.text.len().saturating_sub(count)).copied().unwrap_or(0)
    }
}

/// The quotation mark that the end of a text stands in.
fn open_quote(text: &[u8]) -> &[u8] {
    let Some(at) = text.iter().rposition(|byte| b"\"'`".contains(byte)) else { return b"" };
    let opens = at.checked_sub(1).and_then(|before| text.get(before)).is_none_or(|byte| !byte.is_ascii_alphanumeric());
    if opens { &text[at..=at] } else { b"" }
}

/// A private key in PEM whose last line is not there.
fn begun_pem(text: &[u8]) -> usize {
    let find = |text: &[u8], word: &[u8]| text.windows(word.len()).rposition(|part| part == word);
    let Some(from) = find(text, b"-----BEGIN ") else { return 0 };
    let key = &text[from..];
    let line = key.iter().position(|byte| matches!(byte, b'\r' | b'\n' | b'\\')).unwrap_or(key.len());
    let is_private = line < key.len() && find(&key[..line], b"PRIVATE KEY").is_some();
    if is_private && find(key, b"-----END").is_none() { key.len() } else { 0 }
}

/// A token of JSON (RFC 7519) whose last part is not there: `{"` in base64 is `eyJ`. A token in three parts may be whole, and is found
/// then, as one with a long second part is.
fn begun_jwt(text: &[u8]) -> usize {
    let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let word = text.iter().rev().take_while(|byte| in_token(byte)).count();
    let word = &text[text.len() - word..];
    let mut parts = word.splitn(3, |byte| *byte == b'.').skip(1);
    let is_long = parts.next().is_some_and(|payload| payload.len() >= PAYLOAD && payload.starts_with(b"eyJ"));
    let is_whole = is_long || parts.next().is_some_and(|last| last.len() >= SIGNATURE);
    if word.starts_with(b"eyJ") && !is_whole { word.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::RuleSet;

    static SCANNER: LazyLock<Scanner> = LazyLock::new(|| Scanner::new(RuleSet::shipped().unwrap(), &[1; 32]).unwrap());

    const TOKEN: &str = "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";
    /// "the key is ", the token, " and no other".
    const BASE64: &str = "dGhlIGtleSBpcyBnaHBfcTdYdlIybUt6OUx3VDRiTmM4SmRZM2hQZjZTZ0E1M1VicWxpIGFuZCBubyBvdGhlcg==";

    const JAPANESE: &str =
        "いがく　ほたて　あてはまる　すける　あいさつ　ときどき　はいしん　がいき　おいしい　はいご　つかう　おこる";

    /// Secrets as they stand in messages: what stands before, the secret, what stands behind; and how much of it says nothing yet.
    fn written() -> Vec<([String; 3], usize)> {
        let hex: String =
            format!("the key is {TOKEN} and no other").bytes().map(|byte| format!("{byte:02x}")).collect();
        let percent: String = TOKEN.bytes().map(|byte| format!("%{byte:02X}")).collect();
        [
            (["{\"note\": \"a clean text before\", \"k\": \"", TOKEN, "\"}"], 3),
            (["[default]\naws_secret_access_key = ", "wJ7rXUtnFeMIqK7MDENGbPxRfiCYzR4mQ9Lk2VhT", "\nregion = eu"], 0),
            (["{\"password\": \"", "Tr0ub4dor&3xKq!9", "\"}"], 0),
            (["url: ", "postgres://app:xK9mQ2vTr7LpWz@db.example.net/prod", "\n"], 15),
            (
                [
                    "Authorization: Bearer ",
                    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJxd2VydHl1aW9wIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJVadQssw5cq",
                    "\n",
                ],
                2,
            ),
            (["note ", BASE64, " end"], 22),
            (["note ", &hex, " end"], 30),
            (["x=", &percent, "&y=1"], 11),
            (
                [
                    "-----BEGIN PRIVATE KEY-----\n",
                    "MC4CAQAwBQYDK2VwBCIEIJ8ZkQ0sW3vTg5yHn1Lx7RdPq2Ub6KmCf4EoXa9IjYwz",
                    "\n-----END PRIVATE KEY-----\n",
                ],
                0,
            ),
            (["phrase: ", "legal winner thank year wave sausage worth useful legal winner thank yellow", "\n"], 22),
            (["card ", "4539 1488 0343 6467", " thank you"], 6),
            (["Recovery Key: ", "419320-308308-157157-668668-259259-540540-631631-382382", "\r\n"], 5),
            (["キー: ", JAPANESE, "\n"], 75),
        ]
        .map(|(row, quiet): ([&str; 3], usize)| (row.map(str::to_owned), quiet))
        .into()
    }

    #[test]
    fn the_beginning_of_a_secret_waits_for_its_end() {
        let scanner = &*SCANNER;
        let mut leaks = String::new();
        for ([before, secret, after], quiet) in written() {
            let text = format!("{before}{secret}{after}");
            if !scanner.scan(text.as_bytes()).unwrap().iter().any(|found| found.kind == Kind::Dlp) {
                leaks += &format!("nothing in {secret}\n");
            }
            let gone = (1..secret.len()).map(|at| {
                let begun = &text.as_bytes()[..before.len() + at];
                // What is found already does not go on.
                let is_found = scanner.scan(begun).unwrap().iter().any(|found| found.kind == Kind::Dlp);
                (if is_found { 0 } else { at.saturating_sub(scanner.begun_secret(begun, |_| true).unwrap()) }, at)
            });
            let worst = gone.max().unwrap();
            if worst.0 > quiet {
                leaks += &format!("{worst:?} of {} in {secret}\n", secret.len());
            }
        }
        assert!(leaks.is_empty(), "{leaks}");
    }

    #[test]
    fn a_long_web_token_is_found_and_waited_for() {
        let coded = |text: &str| base64(text.as_bytes());
        let scanner = &*SCANNER;
        for length in [600, 800, 840, 850, 900, 1200, 1800, 3000] {
            let claims = format!("{{\"sub\":\"qwertyuiop\",\"groups\":\"{}\"}}", noise(length));
            let token = format!("{}.{}.{}", coded("{\"alg\":\"RS256\",\"typ\":\"JWT\"}"), coded(&claims), noise(342));
            let text = format!("Authorization: Bearer {token}\n");
            let rules = |found: Vec<Finding>| found.iter().map(|found| found.rule.to_string()).collect::<Vec<_>>();
            let whole = scanner.scan(text.as_bytes()).unwrap();
            assert_eq!(rules(whole.clone()), ["jwt"], "{length}");
            for cut in [30, 60, 600, 1180, 1199, 1200, 1600, text.len() - 300, text.len() - 1] {
                let cut = cut.min(text.len() - 1);
                let mut stream = scanner.stream().unwrap();
                let _ = stream.push(&text.as_bytes()[..cut]).unwrap();
                stream.last(&text.as_bytes()[cut..]).unwrap();
                assert_eq!(stream.findings(), whole, "{length} {cut}");
                let begun = &text.as_bytes()[..cut];
                let is_found = !scanner.scan(begun).unwrap().is_empty();
                let waits = scanner.begun_secret(begun, |_| true).unwrap();
                assert!(is_found || waits == cut - 22 || cut == text.len() - 1, "{length} {cut} {waits}");
            }
        }
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let bits =
            |group: &[u8]| group.iter().fold(0, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - group.len()));
        let digit = |bits: usize, at: usize| char::from(DIGITS[bits >> (18 - 6 * at) & 63]);
        bytes.chunks(3).flat_map(|group| (0..=group.len()).map(move |at| digit(bits(group), at))).collect()
    }

    /// Letters and digits without an order.
    fn noise(length: usize) -> String {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(FILL[(state >> 58) as usize])
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn what_begins_no_secret_does_not_wait() {
        let scanner = &*SCANNER;
        for text in [
            "",
            "a line of words\n",
            "and the last word is wor",
            "{\"name\": \"report-2024\", \"size\": 12345, \"id\": \"3f2a9c1e-77b0-4d51-9a3e-0c5d8e6f1a2b\"",
            "GET /v1/items/88 took 12 ms, 200",
            "see https://docs.example.com/guide/install.ht",
            "event: tick\ndata: {\"c\":\"tok17\"}\n\n",
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
            "the year 2024",
            "-----BEGIN CERTIFICATE-----\nMIIB",
        ] {
            assert_eq!(scanner.begun_secret(text.as_bytes(), |_| true).unwrap(), 0, "{text}");
        }
        // A whole JSON web token is told by its rule, and held where that is stopped only.
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJxd2VydHl1aW9wIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJVadQssw5cq";
        let begun = |text: &str| scanner.begun_secret(text.as_bytes(), |_| false).unwrap();
        assert_eq!((begun(token), begun(&token[..60])), (0, 60));
        // What is found and let go on holds nothing.
        let text = b"password = Tr0ub4dor";
        assert_eq!(scanner.begun_secret(text, |_| true).unwrap(), 9);
        assert_eq!(scanner.begun_secret(text, |_| false).unwrap(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_more_than_there_is_and_nothing_panics(
            text in proptest::collection::vec(any::<u8>(), 0..300),
            word in "[A-Za-z0-9+/=%:@. -]{0,60}",
        ) {
            let text = [&text[..], word.as_bytes()].concat();
            prop_assert!(SCANNER.begun_secret(&text, |_| true).unwrap() <= text.len());
        }
    }
}
