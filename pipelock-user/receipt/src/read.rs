//! Reads evidence files line by line: bounded memory, whatever the file holds.
//!
//! Used by [`crate::verify`] and [`crate::folder`]. Two layouts are told apart by the first line: JSON Lines
//! (`evidence.jsonl`) and the one-document form (`receipts.json`), in which the head takes one line per member and every
//! receipt takes one line, so that line tools work on both.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

use crate::MAX_LINE;
use crate::canon::strict;
use crate::stats::Totals;

/// `schema` of `receipts.json`.
pub const SCHEMA: &str = "pipelock.receipts.v1";
/// The head of `receipts.json` is a dozen short lines.
const MAX_HEAD_LINES: usize = 64;
const FIRST_LINE: &str = "{";
const LIST_OPENS: &str = "  \"receipts\": [";
const LIST_CLOSES: &str = "  ]";
const LAST_LINE: &str = "}";

/// What `receipts.json` says about the receipts in it. Nothing here is believed: the verifier counts again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The public key, 64 lower-case hex digits.
    pub signer_key: String,
    /// The policy that the run opened with.
    pub policy_hash: String,
    /// Number of receipts.
    pub receipt_count: u64,
    /// Receipts by verdict, the session's own included.
    pub totals: Totals,
    /// Hash of the last receipt.
    pub root_hash: String,
    /// Number of the last receipt.
    pub final_seq: u64,
    /// The run's nonce.
    pub run_nonce: String,
    /// Flows that the kernel counted; absent when no ledger was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flows: Option<u64>,
}

impl Head {
    /// The text of the file up to the first receipt.
    ///
    /// # Errors
    /// Those of serde_json; none are known to occur.
    pub fn render(&self) -> serde_json::Result<String> {
        let members = serde_json::to_string_pretty(self)?;
        Ok(format!("{},\n{LIST_OPENS}\n", members.trim_end_matches("\n}")))
    }

    /// The text of the file after the last receipt.
    pub(crate) fn render_end() -> String {
        format!("\n{LIST_CLOSES}\n{LAST_LINE}\n")
    }
}

/// One line, or why it is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The text without its line end.
    Text(&'a str),
    /// Not UTF-8, or longer than [`MAX_LINE`]: what is wrong, as half a sentence.
    Unreadable(&'static str),
    /// The file ends without a line end: what there is may be half a line.
    Torn,
}

/// A reader of lines that holds one line at a time.
pub struct Lines<R> {
    inner: R,
    buffer: Vec<u8>,
    number: u64,
    end: End,
    /// A line ended in CR LF.
    crlf: bool,
}

/// How the line in the buffer ended.
#[derive(Clone, Copy)]
enum End {
    Newline,
    Torn,
    TooLong,
}

impl<R: BufRead> Lines<R> {
    /// Reads lines from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, buffer: Vec::new(), number: 0, end: End::Newline, crlf: false }
    }

    /// The number of the line that was read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the ends of lines were changed to CR LF, in what was read up to here. The lines are given without them.
    pub fn has_crlf(&self) -> bool {
        self.crlf
    }

    /// The next line, or `None` at the end of the file.
    ///
    /// # Errors
    /// Those of reading.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        let limit = u64::try_from(MAX_LINE + 1).unwrap_or(u64::MAX);
        if self.inner.by_ref().take(limit).read_until(b'\n', &mut self.buffer)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.end = if self.buffer.pop_if(|last| *last == b'\n').is_some() {
            // What is written ends its lines in LF, and JSON has no bare CR: it was put there.
            self.crlf |= self.buffer.pop_if(|last| *last == b'\r').is_some();
            End::Newline
        } else if self.buffer.len() <= MAX_LINE {
            End::Torn
        } else {
            self.inner.skip_until(b'\n')?;
            End::TooLong
        };
        Ok(Some(self.current()))
    }

    /// The line that was read last.
    fn current(&self) -> Line<'_> {
        match (self.end, std::str::from_utf8(&self.buffer)) {
            (End::Newline, Ok(text)) => Line::Text(text),
            (End::Newline, Err(_)) => Line::Unreadable("it is not UTF-8"),
            (End::Torn, _) => Line::Torn,
            (End::TooLong, _) => Line::Unreadable("it is longer than 1 MiB"),
        }
    }
}

/// What a file of evidence holds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A line that should be a receipt or a recorder entry.
    Line(&'a str),
    /// A line that cannot be read at all: why.
    Unreadable(&'static str),
    /// The layout around the receipts is wrong: what and where.
    Layout(String),
    /// The file ends in the middle of a line, or of the document.
    Torn,
    /// A closing line of the document, as it should be.
    Closing,
}

enum Place {
    Start,
    JsonLines,
    /// In the list of the one-document form; whether a comma announced another receipt.
    List {
        more: bool,
    },
    /// After the list, before the last brace; then at the end.
    Closing,
    End,
}

/// A file of evidence in either layout.
pub struct Evidence<R> {
    lines: Lines<R>,
    place: Place,
    head: Option<Head>,
}

impl<R: BufRead> Evidence<R> {
    /// Reads evidence from `inner`.
    pub fn new(inner: R) -> Self {
        Self { lines: Lines::new(inner), place: Place::Start, head: None }
    }

    /// The head of the one-document form, once the first item was read and the head was sound.
    pub fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// See [`Lines::has_crlf`].
    pub fn has_crlf(&self) -> bool {
        self.lines.has_crlf()
    }

    /// The next item with the number of its line, or `None` at the end.
    ///
    /// # Errors
    /// Those of reading.
    pub fn next_item(&mut self) -> io::Result<Option<(u64, Item<'_>)>> {
        if matches!(self.place, Place::Start) {
            self.place = Place::JsonLines;
            match self.lines.next_line()? {
                None => return Ok(None),
                Some(Line::Text(FIRST_LINE)) => {
                    self.place = Place::List { more: true };
                    if let Err(item) = self.read_head()? {
                        return Ok(Some((self.lines.number(), item)));
                    }
                }
                Some(_) => return Ok(Some((1, place_line(&mut self.place, self.lines.current())))),
            }
        }
        if self.lines.next_line()?.is_none() {
            let open = matches!(self.place, Place::List { .. } | Place::Closing);
            self.place = Place::End;
            return Ok(open.then_some((self.lines.number(), Item::Torn)));
        }
        Ok(Some((self.lines.number(), place_line(&mut self.place, self.lines.current()))))
    }

    /// Reads the head, up to the line before the first receipt; `Err` is what is wrong with it.
    fn read_head(&mut self) -> io::Result<Result<(), Item<'static>>> {
        let mut text = format!("{FIRST_LINE}\n");
        for _ in 0..MAX_HEAD_LINES {
            match self.lines.next_line()? {
                Some(Line::Text(line)) => {
                    text.push_str(line);
                    text.push('\n');
                    if line == LIST_OPENS {
                        return Ok(parse_head(&text).map(|head| self.head = Some(head)).map_err(|why| {
                            Item::Layout(format!("the head of the document is not as written: {why}"))
                        }));
                    }
                }
                Some(Line::Unreadable(_)) => break,
                Some(Line::Torn) | None => return Ok(Err(Item::Torn)),
            }
        }
        Ok(Err(Item::Layout("the document has no list of receipts".to_owned())))
    }
}

fn parse_head(text: &str) -> Result<Head, String> {
    let members = text.strip_suffix(&format!(",\n{LIST_OPENS}\n")).ok_or("the list does not follow the members")?;
    let json = format!("{members}\n}}");
    strict::check(&json)?;
    let head: Head = serde_json::from_str(&json).map_err(|error| error.to_string())?;
    if head.schema != SCHEMA {
        return Err(format!("the schema is {:?}, expected {SCHEMA:?}", head.schema));
    }
    if head.render().map_err(|error| error.to_string())? != text {
        return Err("its members are not laid out as they are written".to_owned());
    }
    Ok(head)
}

/// What `line` is at this place of the file.
fn place_line<'a>(place: &mut Place, line: Line<'a>) -> Item<'a> {
    let text = match line {
        Line::Text(text) => text,
        Line::Unreadable(why) => return Item::Unreadable(why),
        Line::Torn => {
            *place = Place::End;
            return Item::Torn;
        }
    };
    match place {
        Place::Start | Place::JsonLines => Item::Line(text),
        Place::List { more } if text == LIST_CLOSES => {
            let dangling = *more;
            *place = Place::Closing;
            if dangling { Item::Layout("a comma before the end of the list".to_owned()) } else { Item::Closing }
        }
        Place::List { more } => {
            let expected = std::mem::replace(more, text.ends_with(','));
            match text.strip_suffix(',') {
                _ if !expected => {
                    Item::Layout("a receipt without a comma before it, or text after the list".to_owned())
                }
                Some(receipt) => Item::Line(receipt),
                None => Item::Line(text),
            }
        }
        Place::Closing if text == LAST_LINE => {
            *place = Place::End;
            Item::Closing
        }
        Place::Closing | Place::End => Item::Layout("text after the end of the document".to_owned()),
    }
}
