//! Secrets in pieces: the values of what leaves, and what each completes of those that left before it.
//!
//! Called by `head` for headers, by `reader` for short bodies and by `messages`. The memory is one for all connections, streams
//! and protocols of an attachment. It promises bounded work for each message: at most [`MOST_VALUES`] values of at most
//! [`SHORT`] bytes in all.

use std::hash::Hash;

use pipelock_scan::session::{Sent, Ticket};
use pipelock_scan::url_decoded;

use super::head::{SESSION, unread};
use super::leaves::{Leaves, may_tell};
use super::scanners::Scanners;
use super::terms::{Side, Terms};
use crate::flow::{Found, Verdict};

/// Longest body, and message, whose values are put together with those of others.
pub(super) const SHORT: usize = 4096;
/// Values of one message.
const MOST_VALUES: usize = 32;
/// Bytes of the beginning of a longer body, which may end what others began.
const BEGINNING: usize = 512;

/// What is no JSON is judged again when it has grown by the eighth part.
const GROWTH: usize = 8;

/// Values with what they are called.
pub(super) type Values = Vec<(String, Vec<u8>)>;

impl Terms {
    /// What a value completes; `lane` says which value of the rule it is.
    ///
    /// # Errors
    /// [`crate::flow::Reason::ScannerUnavailable`].
    pub(super) fn piece(&self, scanners: &Scanners, lane: impl Hash, value: &[u8]) -> Result<Sent, Verdict> {
        scanners.sessions.piece(SESSION, scanners.now(), (self.rule(), lane), value).map_err(|error| unread(&error))
    }

    /// What a value completes, judged: what is to be noted, and by what it is taken back if it is not sent in the end.
    ///
    /// # Errors
    /// [`crate::flow::Reason::DlpMatch`], [`crate::flow::Reason::ScannerUnavailable`]. The value is taken back then.
    pub(super) fn check_piece(
        &self,
        scanners: &Scanners,
        side: Side,
        lane: impl Hash,
        value: &[u8],
        place: impl Fn() -> String,
    ) -> Result<(Vec<Found>, Vec<Ticket>), Verdict> {
        let Sent { findings, tickets } = self.piece(scanners, lane, value)?;
        match self.sort(side, &findings, |_| place()) {
            Ok(noted) => Ok((noted, tickets)),
            Err(verdict) => {
                scanners.take_back(&tickets);
                Err(verdict)
            }
        }
    }
}

/// The values of a short message: the texts of JSON, the fields of a form, else the whole; with names that may tell something.
pub(super) fn values(message: &[u8]) -> Values {
    let message = message.trim_ascii();
    if message.is_empty() {
        return Values::new();
    }
    if matches!(message.first(), Some(b'{' | b'['))
        && let Ok(leaves) = serde_json::from_slice(message)
    {
        return of_json(leaves);
    }
    fields(message).unwrap_or_else(|| vec![(String::new(), message.to_vec())])
}

/// The beginning of a message that is not short.
pub(super) fn beginning(message: &[u8]) -> Values {
    vec![(String::new(), message[..message.len().min(BEGINNING)].to_vec())]
}

fn of_json(leaves: Leaves) -> Values {
    let all = leaves.texts.into_iter().chain(leaves.names).take(MOST_VALUES);
    all.map(|(place, text)| (place, text.into_bytes())).collect()
}

/// The fields of a form (WHATWG URL standard, §5.1); none of what is no form.
fn fields(message: &[u8]) -> Option<Values> {
    let is_form = message.contains(&b'=')
        && message.iter().all(|byte| byte.is_ascii_graphic() && !b"{}<>\"".contains(byte))
        && message.split(|byte| *byte == b'&').all(|field| {
            let name = field.split(|byte| *byte == b'=').next().unwrap_or_default();
            field.is_empty() || (!name.is_empty() && name.len() < field.len() && name.len() <= 64)
        });
    if !is_form {
        return None;
    }
    let (mut values, mut names) = (Values::new(), Values::new());
    for field in message.split(|byte| *byte == b'&').take(MOST_VALUES) {
        let Some(at) = field.iter().position(|byte| *byte == b'=') else { continue };
        let name = url_decoded(&field[..at]);
        let value = url_decoded(&field[at + 1..]);
        if !value.is_empty() {
            values.push((String::from_utf8_lossy(&field[..at]).into_owned(), value.into_owned()));
        }
        if std::str::from_utf8(&name).is_ok_and(may_tell) {
            names.push(("{}".to_owned(), name.into_owned()));
        }
    }
    values.extend(names);
    values.truncate(MOST_VALUES);
    Some(values)
}

/// The beginning of a body that leaves, while the body is short.
#[derive(Debug, Default)]
pub(super) struct Short {
    /// What is not over: JSON that waits for its rest, or what is none and may go on.
    text: Vec<u8>,
    is_raw: bool,
    seen: usize,
    /// Bytes of what is no JSON that were judged; they go on.
    judged: usize,
    /// The values of those, with that by which they are taken back.
    open: Vec<Open>,
}

/// A value that may grow, and by what it is taken back.
pub(super) type Open = (String, Vec<u8>, Vec<Ticket>);

/// What a body says by now.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Values that have grown since they were told: they are to be taken back.
    pub(super) outgrown: Vec<Open>,
    /// What is new. Whoever judged one that [`may grow`](Self::may_grow) tells by what it is taken back.
    pub(super) values: Values,
    /// How many of them, from the last on, may grow.
    growing: usize,
}

impl Said {
    /// Whether the value with this number may still grow.
    pub(super) fn may_grow(&self, number: usize) -> bool {
        number + self.growing >= self.values.len()
    }
}

impl Short {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Said {
        if self.seen > SHORT {
            return Said::default();
        }
        self.seen += bytes.len();
        if self.seen > SHORT {
            self.is_raw = true;
            let mut text = std::mem::take(&mut self.text);
            text.truncate(BEGINNING);
            text.extend_from_slice(&bytes[..bytes.len().min(BEGINNING - text.len())]);
            self.judged = 0;
            let outgrown = self.open.drain(..).collect();
            return Said { outgrown, values: beginning(&text), growing: 0 };
        }
        self.text.extend_from_slice(bytes);
        let mut whole = Values::new();
        if !self.is_raw && matches!(self.text.trim_ascii_start().first(), None | Some(b'{' | b'[')) {
            let mut documents = serde_json::Deserializer::from_slice(&self.text).into_iter::<Leaves>();
            let is_json = loop {
                match documents.next() {
                    Some(Ok(leaves)) => whole.extend(of_json(leaves)),
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
        // Each judging reads all of it again. Who sends byte by byte waits until it has grown by a part of itself, or for a pause.
        if self.is_raw && self.text.len().saturating_sub(self.judged) < self.judged / GROWTH {
            return Said::default();
        }
        let said = self.as_it_stands();
        whole.truncate(MOST_VALUES.saturating_sub(said.values.len()));
        whole.extend(said.values);
        Said { values: whole, ..said }
    }

    /// What waits is taken for whole.
    pub(super) fn rest(&mut self) -> Said {
        if self.waiting() == 0 { Said::default() } else { self.as_it_stands() }
    }

    /// A value that may grow was judged; by what it is taken back.
    pub(super) fn judged(&mut self, name: String, value: Vec<u8>, tickets: Vec<Ticket>) {
        self.open.push((name, value, tickets));
    }

    fn as_it_stands(&mut self) -> Said {
        self.is_raw = true;
        self.judged = self.text.len();
        let mut values = values(&self.text);
        let mut outgrown = Vec::new();
        for open in std::mem::take(&mut self.open) {
            match values.iter().position(|(new, text)| *new == open.0 && *text == open.1) {
                Some(at) => {
                    values.remove(at);
                    self.open.push(open);
                }
                None => outgrown.push(open),
            }
        }
        let growing = values.len();
        Said { outgrown, values, growing }
    }

    /// Bytes that wait.
    pub(super) fn waiting(&self) -> u64 {
        let judged = if self.is_raw { self.judged } else { 0 };
        self.text.len().saturating_sub(judged) as u64
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
            ("ghp%5f01=1&b=2", &["ghp%5f01=1", "b=2", "{}=ghp_01"]),
            ("{\"d\":\"ghp_01\",\"d\":\"\",\"x\":{\"ghp_02\":1}}", &[".d=ghp_01", ".x{}=ghp_02"]),
            ("{\"d\":\"cut", &["={\"d\":\"cut"]),
            ("a = b", &["=a = b"]),
            ("x==", &["x=="]),
        ] {
            assert_eq!(shown(values(message.as_bytes())), expected, "{message}");
        }
    }

    /// What is said of the next bytes, or of none: how many were taken back, what is new, how much waits.
    fn said(short: &mut Short, text: &str) -> (usize, String, u64) {
        let said = if text.is_empty() { short.rest() } else { short.push(text.as_bytes()) };
        let may_grow: Vec<bool> = (0..said.values.len()).map(|number| said.may_grow(number)).collect();
        for ((name, value), _) in said.values.iter().zip(&may_grow).filter(|(_, grows)| **grows) {
            short.judged(name.clone(), value.clone(), vec![Ticket::default()]);
        }
        (said.outgrown.len(), shown(said.values).join(" "), short.waiting())
    }

    #[test]
    fn json_waits_until_it_is_whole_and_nothing_else_does() {
        let mut short = Short::default();
        let mut push = |text: &str| said(&mut short, text);
        let said = |outgrown: usize, values: &str, waiting| (outgrown, values.to_owned(), waiting);
        assert_eq!(push("{\"d\":\"gh"), said(0, "", 8));
        assert_eq!(push("p_\"}\n{\"d\":\"01\"} {\"d"), said(0, ".d=ghp_ .d=01", 3));
        assert_eq!(push(""), said(0, "={\"d", 0));
        assert_eq!(push("plain"), said(1, "={\"dplain", 0));
        assert_eq!(push(""), said(0, "", 0));
        let mut short = Short::default();
        assert_eq!(super::tests::said(&mut short, "{]").1, "={]");
        let more = "x".repeat(SHORT);
        let (outgrown, beginning, _) = super::tests::said(&mut short, &more);
        assert_eq!((outgrown, beginning.len()), (1, 1 + BEGINNING));
        assert!(beginning.starts_with("={]xxx"));
        assert!(short.push(b"more").values.is_empty());
    }

    #[test]
    fn only_what_grows_is_judged_again() {
        let mut short = Short::default();
        for (text, expected) in
            [("a=1&b=2&c=3", (0, "a=1 b=2 c=3")), ("4", (1, "c=34")), ("5&d=6", (1, "c=345 d=6")), ("&", (0, ""))]
        {
            let (outgrown, values, _) = said(&mut short, text);
            assert_eq!((outgrown, values.as_str()), expected, "{text}");
        }
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
