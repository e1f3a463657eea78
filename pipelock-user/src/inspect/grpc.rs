//! Messages of gRPC that are compressed one by one. Made by `reader` for a body of that kind, which it reads as it stands too.
//!
//! A message has five bytes in front of it: whether it is compressed, and its length; how, a header says. It promises that a
//! compressed message which is not what the header says is refused, and that of such a message no more is held than its scanner asks for.

use pipelock_scan::{Coding, Decoded, Finding, Scanner, Stream, Unread};

use super::encoded::{Encoded, unreadable};
use super::head::unread;
use crate::flow::Verdict;

/// Flag and length.
const PREFIX: usize = 5;

/// The messages of one body.
#[derive(Debug)]
pub(super) struct Grpc {
    scanner: Scanner,
    coding: Option<Coding>,
    /// What is there of the five bytes in front of the next message.
    prefix: Vec<u8>,
    /// Bytes of the message that are still to come.
    left: u64,
    /// The message, if it is compressed.
    message: Option<Message>,
    end: u64,
    /// What in the messages nobody can unpack.
    unread: Unread,
}

#[derive(Debug)]
struct Message {
    stream: Stream,
    /// Where in the body it begins, and how much of it may go on.
    start: u64,
    released: u64,
    /// Findings that were told, as the scanner counts them.
    told: usize,
}

impl Grpc {
    /// Of a body that is made of messages, if it is.
    pub(super) fn of(scanner: &Scanner, encoded: Encoded) -> Option<Self> {
        let Encoded::Grpc(coding) = encoded else { return None };
        Some(Self {
            scanner: scanner.clone(),
            coding,
            prefix: Vec::new(),
            left: 0,
            message: None,
            end: 0,
            unread: Unread::default(),
        })
    }

    /// Is the end of a compressed message still to come?
    pub(super) fn is_within(&self) -> bool {
        self.message.is_some()
    }

    /// Reads the next bytes: what is found in them.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<Vec<Finding>, Verdict> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            if self.left == 0 {
                let (taken, rest) = bytes.split_at(bytes.len().min(PREFIX - self.prefix.len()));
                self.prefix.extend_from_slice(taken);
                self.end += taken.len() as u64;
                bytes = rest;
                self.begin()?;
                continue;
            }
            let count = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let (taken, rest) = bytes.split_at(count);
            self.left -= count as u64;
            self.end += count as u64;
            bytes = rest;
            if let Some(message) = &mut self.message {
                let progress = message.stream.push(taken).map_err(|error| unread(&error))?;
                message.released = progress.released;
                self.unread = self.unread.and(message.stream.unread());
                if progress.findings != message.told {
                    message.told = progress.findings;
                    found.extend(message.stream.findings());
                }
                readable(message.stream.decoded(), false)?;
            }
            if self.left == 0 {
                found.extend(self.over()?);
            }
        }
        Ok(found)
    }

    /// The body is over: what is found in a message that it breaks off.
    pub(super) fn finish(&mut self) -> Result<Vec<Finding>, Verdict> {
        self.over()
    }

    /// Up to where nothing is found by what comes.
    pub(super) fn free(&self) -> u64 {
        self.message.as_ref().map_or(u64::MAX, |message| message.start + message.released)
    }

    /// What in the messages so far nobody can unpack.
    pub(super) fn unread(&self) -> Unread {
        self.unread
    }

    fn begin(&mut self) -> Result<(), Verdict> {
        let &[flag, first, second, third, fourth] = self.prefix.as_slice() else { return Ok(()) };
        self.prefix.clear();
        self.left = u64::from(u32::from_be_bytes([first, second, third, fourth]));
        if flag & 1 == 0 || self.left == 0 {
            return Ok(());
        }
        let coding = self.coding.ok_or_else(|| unreadable("compressed messages that no grpc-encoding names"))?;
        let stream = self.scanner.stream_as(coding).map_err(|error| unread(&error))?;
        self.message = Some(Message { stream, start: self.end, released: 0, told: 0 });
        Ok(())
    }

    fn over(&mut self) -> Result<Vec<Finding>, Verdict> {
        let Some(Message { mut stream, .. }) = self.message.take() else { return Ok(Vec::new()) };
        stream.last(&[]).map_err(|error| unread(&error))?;
        self.unread = self.unread.and(stream.unread());
        readable(stream.decoded(), true)?;
        Ok(stream.findings())
    }
}

fn readable(decoded: Decoded, is_over: bool) -> Result<(), Verdict> {
    match decoded {
        Decoded::Going { .. } if is_over => Err(unreadable("a compressed message that does not end")),
        Decoded::Broken => Err(unreadable("grpc-encoding does not say")),
        Decoded::Going { .. } | Decoded::Whole => Ok(()),
    }
}
