//! Undoing other ways of writing: views, which leave the text a text ([`unescape`], [`fold`], …), and codecs, whose
//! output is a text of its own ([`codec`], [`inflate`]). Called by [`crate::stream`].
//!
//! A view is a function of the bytes ahead and of a bounded number of bytes before, never of how the text was cut. That is
//! all that scanning in pieces needs to agree with scanning the whole.

pub(crate) mod base85;
pub(crate) mod brotli;
pub(crate) mod codec;
pub(crate) mod dump;
pub(crate) mod fold;
pub(crate) mod gate;
mod gzip;
pub(crate) mod inflate;
mod joined;
pub(crate) mod leet;
pub(crate) mod lossy;
pub(crate) mod names;
pub(crate) mod pairs;
pub(crate) mod quoted;
pub(crate) mod sense;
pub(crate) mod shows;
pub(crate) mod spaced;
pub(crate) mod unescape;
pub(crate) mod unnamed;
pub(crate) mod unread;
pub(crate) mod utf16;
pub(crate) mod utf7;
mod zip;
pub(crate) mod zstd;

use crate::finding::Step;

/// Most bytes that one change of a view gives.
pub(crate) const OUT: usize = 48;

/// What a view does with the bytes ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// So many bytes stay; at least 1.
    Keep(usize),
    /// `take` bytes become `out[..put]`.
    Change { take: usize, out: [u8; OUT], put: usize, step: Step },
    /// It depends on bytes that are not there yet; not given when the text ends here.
    More,
}

impl Turn {
    pub(crate) fn byte(take: usize, byte: u8, step: Step) -> Self {
        Self::bytes(take, &[byte], step)
    }

    pub(crate) fn char(take: usize, char: char, step: Step) -> Self {
        Self::bytes(take, char.encode_utf8(&mut [0; 4]).as_bytes(), step)
    }

    /// At most [`OUT`] bytes.
    pub(crate) fn bytes(take: usize, bytes: &[u8], step: Step) -> Self {
        let mut out = [0; OUT];
        let put = bytes.len().min(OUT);
        out[..put].copy_from_slice(&bytes[..put]);
        Self::Change { take, out, put, step }
    }
}

/// Most bytes that a view looks ahead.
pub(crate) const AHEAD: usize = 512;
/// Most bytes that a view looks back.
pub(crate) const BACK: usize = 64;

/// The views, in the order in which they are laid over each other: each is applied to the text and to the views before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ViewKind {
    Unescape,
    Utf7,
    Quoted,
    Fold,
    Joined,
    Spaced,
    Leet,
}

impl ViewKind {
    pub(crate) const ALL: [Self; 7] =
        [Self::Unescape, Self::Utf7, Self::Quoted, Self::Fold, Self::Joined, Self::Spaced, Self::Leet];

    /// The gate's flags that can start a change.
    pub(crate) fn triggers(self) -> u16 {
        match self {
            Self::Unescape => gate::ESCAPE,
            Self::Utf7 => gate::UTF7,
            Self::Quoted => gate::EQUALS,
            Self::Fold => gate::UNICODE,
            Self::Joined => gate::JOINED,
            Self::Spaced => gate::SPACED,
            Self::Leet => gate::LEET,
        }
    }

    /// Can any bytes come out, as of escapes, which are written for those that are no text?
    pub(crate) fn gives_bytes(self) -> bool {
        matches!(self, Self::Unescape | Self::Quoted)
    }

    /// May the end of `tail` be the beginning of a change for which the gate has no flag before it sees more?
    pub(crate) fn may_begin(self, tail: &[u8]) -> bool {
        match self {
            Self::Unescape | Self::Quoted | Self::Fold => false,
            Self::Utf7 => matches!(tail, [.., b'+' | b'&']),
            Self::Joined => joined::may_begin(tail),
            Self::Spaced => spaced::may_begin(tail),
            Self::Leet => leet::may_begin(tail),
        }
    }

    /// How many bytes at the start of `text` are certainly kept.
    pub(crate) fn skip(self, text: &[u8]) -> usize {
        match self {
            Self::Unescape => memchr::memchr3(b'%', b'\\', b'&', text),
            Self::Utf7 => memchr::memchr2(b'+', b'&', text),
            Self::Quoted => memchr::memchr(b'=', text),
            Self::Fold => fold::place(text),
            Self::Joined => joined::place(text),
            Self::Spaced => spaced::place(text),
            Self::Leet => text.iter().position(|&byte| leet::letter(byte).is_some()),
        }
        .unwrap_or(text.len())
    }

    /// What becomes of the bytes at the start of `text`; `before` are those in front of it. `open` says that a change is
    /// near: some bytes are changed only then, because alone they mean nothing (the `4` of `4ll`).
    pub(crate) fn turn(self, before: &[u8], text: &[u8], last: bool, open: bool) -> Turn {
        match self {
            Self::Unescape => unescape::turn(before, text, last),
            Self::Utf7 => utf7::turn(text, last),
            Self::Quoted => quoted::turn(text, last, open),
            Self::Fold => fold::turn(before, text, last),
            Self::Joined => joined::turn(before, text, last),
            Self::Spaced => spaced::turn(before, text, last),
            Self::Leet => leet::turn(before, text, last, open),
        }
    }
}
