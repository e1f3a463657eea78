//! Event streams (`text/event-stream`) and rows of JSON (`application/x-ndjson`): an event goes on when it is whole and clean, and what
//! events say together is read too.
//!
//! Used by `reader` beside the text as it stands. The form is that of the WHATWG HTML standard, §9.2: lines end in CR, LF or both, a
//! blank one ends the event, `data:` lines are joined by line ends. Of rows each is an event (ndjson.org; RFC 7464, where a record
//! separator stands before it; records of several lines are read as text alone). It promises bounded memory.

use pipelock_scan::{EngineError, Finding};

use super::lanes::Lanes;

/// Longest event that is taken apart; a longer one is read as text only.
const LONGEST: usize = 64 * 1024;

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What `data:` lines say up to a blank one.
    Events,
    /// A line.
    Rows,
}

impl Form {
    /// Of a body with this type, if it is made of events.
    #[must_use]
    pub fn of(kind: &[u8]) -> Option<Self> {
        const ROWS: [&str; 8] = [
            "application/x-ndjson",
            "application/ndjson",
            "application/jsonl",
            "application/x-jsonl",
            "application/jsonlines",
            "application/x-jsonlines",
            "application/json-seq",
            "application/stream+json",
        ];
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
        let is_events = kind.get(..17).is_some_and(|kind| kind.eq_ignore_ascii_case(b"text/event-stream"));
        match is_events {
            true => Some(Self::Events),
            false => ROWS.into_iter().any(is).then_some(Self::Rows),
        }
    }
}

/// An event stream on its way.
#[derive(Debug)]
pub(super) struct Events {
    lanes: Lanes,
    form: Form,
    line: Vec<u8>,
    data: Vec<u8>,
    after_cr: bool,
    is_too_long: bool,
    /// Bytes that were fed, and those up to the last whole event that nothing holds.
    fed: u64,
    free: u64,
    at_boundary: bool,
}

impl Events {
    pub(super) fn new(lanes: Lanes, form: Form) -> Self {
        Self {
            lanes,
            form,
            line: Vec::new(),
            data: Vec::new(),
            after_cr: false,
            is_too_long: false,
            fed: 0,
            free: 0,
            at_boundary: false,
        }
    }

    /// Takes the next bytes; what the events in them complete.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<Vec<Finding>, EngineError> {
        let mut found = Vec::new();
        for &byte in piece {
            self.fed += 1;
            let was_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            if byte == b'\n' && was_cr {
                // The second half of a line end.
                if self.at_boundary && !self.lanes.holds() {
                    self.free = self.fed;
                }
                continue;
            }
            self.at_boundary = false;
            if byte != b'\n' && byte != b'\r' {
                if self.line.len() < LONGEST {
                    self.line.push(byte);
                } else {
                    self.is_too_long = true;
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            if self.form == Form::Rows {
                self.data = line;
                found.extend(self.end()?);
            } else if line.is_empty() {
                found.extend(self.end()?);
            } else if let Some(data) = line.strip_prefix(b"data:") {
                let data = data.strip_prefix(b" ").unwrap_or(data);
                if self.data.len() + data.len() < LONGEST {
                    if !self.data.is_empty() {
                        self.data.push(b'\n');
                    }
                    self.data.extend_from_slice(data);
                } else {
                    self.is_too_long = true;
                }
            }
        }
        Ok(found)
    }

    fn end(&mut self) -> Result<Vec<Finding>, EngineError> {
        let data = std::mem::take(&mut self.data);
        let data = data.strip_prefix(b"\x1e").unwrap_or(&data);
        let mut found = Vec::new();
        if !data.is_empty() {
            found = self.lanes.push(data)?;
            // What goes on now is judged by what it says now.
            found.extend(self.lanes.ends_now()?);
        }
        self.is_too_long = false;
        self.at_boundary = true;
        if !self.lanes.holds() {
            self.free = self.fed;
        }
        Ok(found)
    }

    /// True at the end of an event that nothing holds: nothing more belongs to it.
    pub(super) fn is_between(&self) -> bool {
        self.at_boundary && !self.lanes.holds()
    }

    /// Bytes up to the end of the last event that no text to come can make part of a secret.
    pub(super) fn free(&self) -> u64 {
        let waits = self.fed - self.free;
        if self.is_too_long || waits > LONGEST as u64 { self.fed } else { self.free }
    }
}
