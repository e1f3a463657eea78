//! Secrets in pieces: the values of what leaves, and what each completes of those that left before it.
//!
//! Called by `head` for headers, by `reader` for short bodies and by `messages`. The memory is one for all connections, streams
//! and protocols of an attachment. It promises bounded work for each message: at most [`MOST_VALUES`] values of at most
//! [`SHORT`] bytes in all.

use pipelock_scan::{Finding, url_decoded};
use serde_json::Value;

use super::head::{SESSION, unread};
use super::lanes::leaves;
use super::scanners::Scanners;
use super::terms::{Side, Terms};
use crate::flow::{Found, Verdict};

/// Longest body, and message, whose values are put together with those of others.
pub(super) const SHORT: usize = 4096;
/// Values of one message.
const MOST_VALUES: usize = 32;
/// Bytes of the beginning of a longer body, which may end what others began.
const BEGINNING: usize = 512;

/// Values with what they are called.
pub(super) type Values = Vec<(String, Vec<u8>)>;

impl Terms {
    /// What a value completes; `lane` says which value it is.
    ///
    /// # Errors
    /// [`crate::flow::Reason::ScannerUnavailable`].
    pub(super) fn piece(&self, scanners: &Scanners, lane: &str, value: &[u8]) -> Result<Vec<Finding>, Verdict> {
        let lane = format!("{} {lane}", self.rule());
        scanners.sessions.piece(SESSION, scanners.now(), &lane, value).map_err(|error| unread(&error))
    }

    /// Forgets a value that was only the beginning of one.
    pub(super) fn forget_piece(&self, scanners: &Scanners, lane: &str, value: &[u8]) {
        scanners.sessions.take_back(SESSION, scanners.now(), &format!("{} {lane}", self.rule()), value);
    }

    /// What a value completes, judged: what is to be noted.
    ///
    /// # Errors
    /// [`crate::flow::Reason::DlpMatch`], [`crate::flow::Reason::ScannerUnavailable`].
    pub(super) fn check_piece(
        &self,
        scanners: &Scanners,
        side: Side,
        (lane, place): (&str, &str),
        value: &[u8],
    ) -> Result<Vec<Found>, Verdict> {
        let findings = self.piece(scanners, lane, value)?;
        self.sort(side, &findings, |_| place.to_owned())
    }
}

/// The values of a short message: the texts of JSON, the fields of a form, else the whole.
pub(super) fn values(message: &[u8]) -> Values {
    let message = message.trim_ascii();
    if message.is_empty() {
        return Values::new();
    }
    if matches!(message.first(), Some(b'{' | b'['))
        && let Ok(value) = serde_json::from_slice::<Value>(message)
    {
        return texts(&value);
    }
    fields(message).unwrap_or_else(|| vec![(String::new(), message.to_vec())])
}

fn texts(value: &Value) -> Values {
    let mut all = Vec::new();
    leaves(value, String::new(), &mut all);
    all.into_iter().take(MOST_VALUES).map(|(place, text)| (place, text.as_bytes().to_vec())).collect()
}

/// The fields of a form (WHATWG URL standard, §5.1); none of what is no form.
fn fields(message: &[u8]) -> Option<Values> {
    let is_form = message.contains(&b'=')
        && message.iter().all(|byte| byte.is_ascii_graphic() && !b"{}<>\"".contains(byte))
        && message.split(|byte| *byte == b'&').all(|field| {
            let name = field.split(|byte| *byte == b'=').next().unwrap_or_default();
            !name.is_empty() && name.len() < field.len() && name.len() <= 64
        });
    let field = |field: &[u8]| {
        let at = field.iter().position(|byte| *byte == b'=')?;
        let value = url_decoded(field.get(at + 1..)?).into_owned();
        (!value.is_empty()).then(|| (String::from_utf8_lossy(&field[..at]).into_owned(), value))
    };
    is_form.then(|| message.split(|byte| *byte == b'&').take(MOST_VALUES).filter_map(field).collect())
}

/// The beginning of a body that leaves, while the body is short.
#[derive(Debug, Default)]
pub(super) struct Short {
    /// What is not over: JSON that waits for its rest, or what is none and may go on.
    text: Vec<u8>,
    is_raw: bool,
    seen: usize,
    /// The values of what is no JSON, as far as it came.
    open: Values,
}

/// What a body says by now.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Values that have grown since they were told, and are to be forgotten.
    pub(super) outgrown: Values,
    pub(super) values: Values,
}

impl Short {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Said {
        if self.seen > SHORT {
            return Said::default();
        }
        self.seen += bytes.len();
        self.text.extend_from_slice(bytes);
        if self.seen > SHORT {
            self.is_raw = true;
            let text = std::mem::take(&mut self.text);
            let beginning = text.get(..BEGINNING).unwrap_or(&text).to_vec();
            return Said { outgrown: std::mem::take(&mut self.open), values: vec![(String::new(), beginning)] };
        }
        let mut whole = Values::new();
        if !self.is_raw && matches!(self.text.trim_ascii_start().first(), None | Some(b'{' | b'[')) {
            let mut documents = serde_json::Deserializer::from_slice(&self.text).into_iter::<Value>();
            let is_json = loop {
                match documents.next() {
                    Some(Ok(value)) => whole.extend(texts(&value)),
                    Some(Err(error)) => break error.is_eof(),
                    None => break true,
                }
            };
            let end = documents.byte_offset();
            self.text.drain(..end);
            if self.text.iter().all(u8::is_ascii_whitespace) {
                self.text.clear();
            }
            if is_json {
                whole.truncate(MOST_VALUES);
                return Said { values: whole, ..Said::default() };
            }
        }
        let mut said = self.as_it_stands();
        said.values.extend(whole);
        said.values.truncate(MOST_VALUES);
        said
    }

    /// What waits is taken for whole.
    pub(super) fn rest(&mut self) -> Said {
        if self.is_raw { Said::default() } else { self.as_it_stands() }
    }

    fn as_it_stands(&mut self) -> Said {
        self.is_raw = true;
        let values = values(&self.text);
        Said { outgrown: std::mem::replace(&mut self.open, values.clone()), values }
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> u64 {
        if self.is_raw { 0 } else { self.text.len() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(values: Values) -> Vec<String> {
        values.into_iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(&value))).collect()
    }

    #[test]
    fn messages_are_taken_apart() {
        for (message, expected) in [
            ("", &[][..]),
            (" ghp_01 \n", &["=ghp_01"]),
            ("{\"d\":\"ghp_01\",\"n\":[1,\"x\"]}", &[".d=ghp_01", ".n[]=x"]),
            ("a=gh%70_01&b=c+d&e=", &["a=ghp_01", "b=c d"]),
            ("{\"d\":\"cut", &["={\"d\":\"cut"]),
            ("a = b", &["=a = b"]),
            ("x==", &["x=="]),
        ] {
            assert_eq!(shown(values(message.as_bytes())), expected, "{message}");
        }
    }

    #[test]
    fn json_waits_until_it_is_whole_and_nothing_else_does() {
        let mut short = Short::default();
        let mut push = |text: &str| {
            let Said { outgrown, values } = if text.is_empty() { short.rest() } else { short.push(text.as_bytes()) };
            (shown(outgrown).join(" "), shown(values).join(" "), short.waiting())
        };
        let said = |outgrown: &str, values: &str, waiting| (outgrown.to_owned(), values.to_owned(), waiting);
        assert_eq!(push("{\"d\":\"gh"), said("", "", 8));
        assert_eq!(push("p_\"}\n{\"d\":\"01\"} {\"d"), said("", ".d=ghp_ .d=01", 3));
        assert_eq!(push(""), said("", "={\"d", 0));
        assert_eq!(push("plain"), said("={\"d", "={\"dplain", 0));
        assert_eq!(push(""), said("", "", 0));
        let mut short = Short::default();
        assert_eq!(shown(short.push(b"{]").values), ["={]"]);
        let said = short.push(&[b'x'; SHORT]);
        assert_eq!((said.values[0].1.len(), said.outgrown.len()), (BEGINNING, 1));
        assert!(short.push(b"more").values.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_little_waits(pieces in proptest::collection::vec("[{}\\[\\]\":a-c,=& ]{0,40}", 0..200)) {
            let mut short = Short::default();
            for piece in &pieces {
                prop_assert!(short.push(piece.as_bytes()).values.len() <= MOST_VALUES);
                prop_assert!(short.waiting() <= SHORT as u64);
            }
            short.rest();
        }
    }
}
