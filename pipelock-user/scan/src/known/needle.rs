//! Many literal needles in one pass: vectorscan, and Aho-Corasick as its measure. Called by [`super::KnownValues`].
//!
//! Promises: every occurrence of every needle is reported, so that what is found does not depend on how a text was cut.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Mutex;

use aho_corasick::AhoCorasick;
use pipelock_hs::{Database, Scratch};

use super::Encoding;
use crate::bits::Pairs;
use crate::engine::EngineError;

/// What a needle stands for: its bytes, the position of its value, how that is written.
type Needle = (Vec<u8>, usize, Encoding);

pub(super) struct Needles {
    /// In the order of their bytes.
    needles: Vec<Needle>,
    matcher: Matcher,
    longest: usize,
    /// What they begin with: next to no pair of a text does, and asking costs less than looking.
    begins: Pairs,
}

enum Matcher {
    None,
    Fast { database: Box<Database>, scratch: Mutex<Vec<Scratch>> },
    Plain(Box<AhoCorasick>),
}

impl Needles {
    pub(super) fn new(mut needles: Vec<Needle>, fast: bool) -> Result<Self, EngineError> {
        needles.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let matcher = if needles.is_empty() {
            Matcher::None
        } else if fast {
            let patterns: Vec<String> = needles.iter().map(|(bytes, ..)| literal(bytes)).collect();
            let database = Box::new(Database::compile(&patterns)?);
            Matcher::Fast { database, scratch: Mutex::default() }
        } else {
            let matcher = AhoCorasick::new(needles.iter().map(|(bytes, ..)| bytes));
            Matcher::Plain(Box::new(matcher.map_err(|_| pipelock_hs::Error::Argument(needles.len()))?))
        };
        let longest = needles.iter().map(|(bytes, ..)| bytes.len()).max().unwrap_or(0);
        let begins = Pairs::of(needles.iter().filter_map(|(bytes, ..)| bytes.first_chunk().copied()));
        Ok(Self { needles, matcher, longest, begins })
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Calls `found` with each occurrence.
    pub(super) fn each(
        &self,
        text: &[u8],
        mut found: impl FnMut(usize, Encoding, Range<usize>),
    ) -> Result<(), EngineError> {
        let mut report = |needle: usize, end: usize| {
            if let Some((bytes, value, encoding)) = self.needles.get(needle) {
                found(*value, *encoding, end.saturating_sub(bytes.len())..end);
            }
        };
        match &self.matcher {
            Matcher::None => {}
            Matcher::Plain(matcher) => {
                matcher.find_overlapping_iter(text).for_each(|hit| report(hit.pattern().as_usize(), hit.end()));
            }
            Matcher::Fast { database, scratch } => {
                let pooled = scratch.lock().ok().and_then(|mut pool| pool.pop());
                let mut own = match pooled {
                    Some(own) => own,
                    None => Scratch::new(database)?,
                };
                let result = database.scan(&mut own, text, |needle, end| report(needle as usize, end as usize));
                if let Ok(mut pool) = scratch.lock() {
                    pool.push(own);
                }
                result?;
            }
        }
        Ok(())
    }

    /// Bytes at the end of `text` that a needle may begin with, at most [`longest`](Self::longest).
    pub(super) fn begun(&self, text: &[u8]) -> usize {
        let end = &text[text.len() - self.longest.min(text.len())..];
        let mut starts = end.windows(2).enumerate().filter(|(_, pair)| self.begins.has([pair[0], pair[1]]));
        let start = starts.find(|(start, _)| self.begins(&end[*start..])).map(|(start, _)| start);
        start.map_or_else(
            // One byte is no pair.
            || usize::from(end.last_chunk::<1>().is_some_and(|last| self.begins(last))),
            |start| end.len() - start,
        )
    }

    /// Is `part` the beginning of a needle, but not all of it?
    fn begins(&self, part: &[u8]) -> bool {
        let after = self.needles.partition_point(|(bytes, ..)| bytes.as_slice() <= part);
        self.needles.get(after).is_some_and(|(bytes, ..)| bytes.starts_with(part))
    }
}

/// The pattern that matches these bytes and nothing else.
fn literal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 4), |mut pattern, &byte| {
        if byte.is_ascii_alphanumeric() {
            pattern.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(pattern, "\\x{byte:02x}");
        }
        pattern
    })
}
