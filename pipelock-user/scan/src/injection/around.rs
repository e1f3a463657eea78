//! What stands around a place of a text, at a glance: eight bytes on either side. Made by the build script for the anchors and by
//! the gates for the text. Promises that the case of ASCII letters and the amount of white space do not matter.

/// Eight bytes on either side of a place, the nearest one lowest, without regard to case and to the amount of white space;
/// zero where the text is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Around {
    pub(super) left: u64,
    pub(super) right: u64,
}

/// How many of the bytes on either side an anchor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reach {
    pub(super) left: u8,
    pub(super) right: u8,
}

impl Around {
    #[inline]
    pub(super) fn of(before: &[u8], behind: &[u8]) -> Self {
        let left = before.last_chunk().and_then(|eight| single(u64::from_be_bytes(*eight)));
        let right = behind.first_chunk().and_then(|eight| single(u64::from_le_bytes(*eight)));
        Self {
            left: left.unwrap_or_else(|| first_eight(before.iter().rev())),
            right: right.unwrap_or_else(|| first_eight(behind.iter())),
        }
    }

    /// The nearest four bytes of one side of [`of`](Self::of), when they are had at once: from eight bytes, the nearest one lowest.
    #[inline]
    pub(super) fn nearest(eight: u64) -> Option<u32> {
        single(eight & u64::from(u32::MAX) | u64::from_be_bytes(*b"xxxx\0\0\0\0")).map(|four| four as u32)
    }

    /// How far an anchor with this around it goes.
    pub(super) fn reach(self) -> Reach {
        let bytes = |side: u64| 8 - (side.leading_zeros() / u8::BITS) as u8;
        Reach { left: bytes(self.left), right: bytes(self.right) }
    }

    /// Whether it is `other`, as far as `reach` goes.
    pub(super) fn is(self, other: Self, reach: Reach) -> bool {
        (self.left ^ other.left) & lowest(reach.left) | (self.right ^ other.right) & lowest(reach.right) == 0
    }

    /// The nearest four bytes of each side, as far as `reach` goes.
    pub(super) fn near(self, reach: Reach) -> u64 {
        let [left, right] = [(self.left, reach.left), (self.right, reach.right)]
            .map(|(side, bytes)| side & lowest(bytes) & u64::from(u32::MAX));
        left << u32::BITS | right
    }
}

impl Reach {
    /// What of it [`Around::near`] sees.
    pub(super) fn near(self) -> Self {
        Self { left: self.left.min(4), right: self.right.min(4) }
    }
}

/// The mask of so many bytes.
fn lowest(bytes: u8) -> u64 {
    u64::MAX.checked_shr(u64::BITS - u32::from(bytes) * u8::BITS).unwrap_or_default()
}

/// What [`first_eight`] makes of eight bytes, when neither two spaces in a row nor control characters but line ends are among them.
fn single(eight: u64) -> Option<u64> {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    // The highest bit of each byte that is below 0x21; of one behind such a byte it may be wrong, which costs a closer look.
    let low = eight.wrapping_sub(each(0x21)) & !eight & each(0x80);
    let control = eight.wrapping_sub(each(0x20)) & !eight & each(0x80);
    // Of each line end; what this takes for one behind such a byte is a space too.
    let line = eight ^ each(b'\n');
    let ends = line.wrapping_sub(each(1)) & !line & each(0x80);
    let spaces = (ends >> 7).wrapping_mul(0xff);
    (low & low >> 8 == 0 && control & !ends == 0).then_some(eight & !spaces | each(0x20))
}

fn first_eight<'b>(bytes: impl Iterator<Item = &'b u8>) -> u64 {
    let (mut eight, mut shift, mut space) = (0, 0, false);
    for &byte in bytes {
        if is_space(byte) && std::mem::replace(&mut space, true) {
            continue;
        }
        space = is_space(byte);
        eight |= u64::from(if space { b' ' } else { byte | 0x20 }) << shift;
        shift += u8::BITS;
        if shift == u64::BITS {
            break;
        }
    }
    eight
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::{first_eight, single};

    #[test]
    fn eight_bytes_at_once_are_as_one_by_one() {
        let kinds = b" \taZ\n\0\x80!";
        let mut seen = 0;
        for number in 0..8usize.pow(5) {
            // Each neighbour of each kind, at every one of the places.
            for at in 0..4 {
                let mut eight = *b"abcdefgh";
                for (place, byte) in eight[at..at + 5].iter_mut().enumerate() {
                    *byte = kinds[number >> (3 * place) & 7];
                }
                if let Some(found) = single(u64::from_le_bytes(eight)) {
                    assert_eq!(found, first_eight(eight.iter()), "{eight:?}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 16_000, "{seen}");
    }
}
