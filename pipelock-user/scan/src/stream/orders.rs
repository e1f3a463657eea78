//! The concept scorer ([`crate::injection`]) on the bytes of one text of the graph. Called by [`super::layer`].
//!
//! The scorer reads characters, a text has bytes: what is no UTF-8 becomes as many `~`, which neither join words nor end
//! sentences, so that offsets stay and cuts change nothing.

use super::{Context, Hit};
use crate::decode::lossy;
use crate::finding::excerpt;
use crate::injection::Held;
use crate::rule::Kind;

/// Bytes that are scored at once: bounds what is copied.
const PIECE: usize = 16 * 1024;

/// The scorer's place in a text.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    held: Held,
    /// The beginning of a character that a later piece may complete: at most 3 bytes.
    cut: Vec<u8>,
}

impl Orders {
    /// Takes the next piece; `last` says that the text ends with it.
    pub(crate) fn push(&mut self, context: &Context<'_>, new: &[u8], last: bool, hits: &mut Vec<Hit>) {
        let mut pieces = new.chunks(PIECE).peekable();
        if pieces.peek().is_none() && last {
            self.take(context, &[], true, hits);
        }
        while let Some(piece) = pieces.next() {
            self.take(context, piece, last && pieces.peek().is_none(), hits);
        }
    }

    fn take(&mut self, context: &Context<'_>, piece: &[u8], last: bool, hits: &mut Vec<Hit>) {
        let Some(detector) = context.rules.detector() else { return };
        if self.cut.is_empty() {
            self.append(piece, last);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(piece);
            self.append(&joined, last);
        }
        self.held.advance(detector, last, |finding, text| {
            let Some(rule) = context.rules.concept(&finding.rule.id) else { return };
            if context.own(text.as_bytes()) {
                return;
            }
            hits.push(Hit {
                rule,
                span: finding.span.start as u64..finding.span.end as u64,
                seen: finding.span.start as u64..finding.span.end as u64,
                path: Vec::new(),
                fingerprint: context.key.fingerprint(text.as_bytes()),
                excerpt: excerpt(Kind::Injection, text.as_bytes()),
            });
        });
    }

    fn append(&mut self, bytes: &[u8], last: bool) {
        let whole = if last { bytes.len() } else { lossy::cut(bytes) };
        let (text, cut) = bytes.split_at(whole);
        lossy::append(text, &mut self.held.text);
        self.cut = cut.to_vec();
    }

    /// Bytes at the end of the text that no verdict covers yet.
    pub(crate) fn undecided(&self) -> u64 {
        (self.held.undecided() + self.cut.len()) as u64
    }

    pub(crate) fn memory(&self) -> usize {
        self.held.memory() + self.cut.capacity()
    }

    /// Starts over with a new text.
    pub(crate) fn clear(&mut self) {
        self.held.clear();
        self.cut.clear();
    }
}
