//! What stands behind a compressed member of a text. Called by [`super::packed`] with the first bytes there.
//!
//! Promises: the answer depends on [`LOOK`] bytes, or on those that are left of the text, and not on how it was cut. What unpacks the
//! text by the book comes first: another member behind the trailer, or behind padding there. Only where none is one may
//! begin in the trailer, for who left that out.

use crate::decode::inflate::{Format, Inflate, Progress};

/// Bytes that tell.
pub(super) const LOOK: usize = 256;
/// Those of them that tell what a member is.
const MAGIC: usize = 4;
/// Bytes that come out of what may be a member before it is taken for one.
const ENOUGH: usize = 4096;

/// What stands behind a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follower {
    /// Another one, after so many bytes.
    At(usize, Format),
    /// So many bytes that mean nothing.
    After(usize),
    /// After so many bytes as many as the second says that are to be passed over, and may be read by themselves.
    Frame(usize, u32),
    None,
}

impl Follower {
    /// What `text` is, which begins where a member ended that may have a trailer of so many bytes.
    pub(super) fn of(text: &[u8], trailer: usize) -> Self {
        let behind = text.get(trailer..).unwrap_or_default();
        // RFC 8878 §3.1.2.
        if let &[0x50..=0x5f, 0x2a, 0x4d, 0x18, first, second, third, fourth, ..] = behind {
            return Self::Frame(trailer + 8, u32::from_le_bytes([first, second, third, fourth]));
        }
        // What tapes want and readers pass over.
        let padding = behind.iter().take_while(|byte| **byte == 0).count();
        if text.len() >= LOOK && trailer + padding > LOOK - MAGIC {
            return Self::After(trailer + padding);
        }
        let places = [trailer, trailer + padding].into_iter().take(1 + usize::from(padding > 0));
        let mut members = places.chain(0..trailer).filter_map(|at| Some((at, Format::following(text.get(at..)?)?)));
        match (members.next(), members.next()) {
            (Some((at, format)), None) => Self::At(at, format),
            (Some(first), Some(second)) => {
                let mut all = [first, second].into_iter().chain(members);
                let (at, format) = all.find(|(at, format)| is_sound(*format, &text[*at..])).unwrap_or(first);
                Self::At(at, format)
            }
            (None, _) if padding == behind.len() => Self::After(text.len()),
            (None, _) => Self::None,
        }
    }
}

/// Is it what two bytes of it look like, as far as it is there?
fn is_sound(format: Format, text: &[u8]) -> bool {
    // Its four bytes are no chance, and it may want megabytes.
    if format == Format::Zstd {
        return true;
    }
    let mut made = 0;
    let progress = Inflate::new(format).feed(text, false, |out| {
        made += out.len();
        made < ENOUGH
    });
    progress != Progress::Broken || made >= ENOUGH
}

#[cfg(test)]
mod tests {
    use super::*;

    const GZIP: [u8; 4] = [0x1f, 0x8b, 8, 0];

    #[test]
    fn what_stands_in_its_place_comes_first() {
        let text = |parts: &[&[u8]]| parts.concat();
        let trailer = [1, 2, 3, 4, 0x78, 1, 0, 0];
        assert_eq!(Follower::of(&text(&[&trailer, &GZIP]), 8), Follower::At(8, Format::Gzip));
        assert_eq!(Follower::of(&text(&[&trailer, &[0; 40], &GZIP]), 8), Follower::At(48, Format::Gzip));
        assert_eq!(Follower::of(&text(&[&trailer, &[0; 248]]), 8), Follower::After(256));
        assert_eq!(Follower::of(&text(&[&GZIP, b"some words and more"]), 8), Follower::At(0, Format::Gzip));
        assert_eq!(Follower::of(b"some words", 8), Follower::None);
        assert_eq!(Follower::of(&[0; 9], 0), Follower::After(9));
        assert_eq!(Follower::of(&[1, 2], 8), Follower::After(2));
        assert_eq!(Follower::of(&[], 0), Follower::After(0));
        let frame = [0x50, 0x2a, 0x4d, 0x18, 1, 2, 0, 0];
        assert_eq!(Follower::of(&frame, 0), Follower::Frame(8, 0x201));
        assert_eq!(Follower::of(&text(&[&frame, &GZIP]), 8), Follower::At(8, Format::Gzip), "a checksum is none");
    }

    #[test]
    fn what_two_bytes_look_like_is_tried() {
        // Behind it stands what only looks like a member, and in its place one whose trailer was left out.
        let mut member = GZIP.to_vec();
        member.extend([0, 0, 0, 0, 0x78, 0x9c, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Follower::of(&[&member[..], b"and some words"].concat(), 8), Follower::At(0, Format::Gzip));
    }
}
