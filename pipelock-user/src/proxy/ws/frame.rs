//! Frames, without a socket: bytes in, whole frames out, each with the bytes that it goes on in (RFC 6455 §5.2).
//!
//! Called by `relay`. It promises that a frame is only ever read in one way: reserved bits, masks on the wrong side,
//! lengths that are not written in their shortest form and control frames in pieces are refused; and that a mask is of its own making.

use bytes::{Bytes, BytesMut};

/// A text frame.
pub(in crate::proxy) const TEXT: u8 = 1;
/// A binary frame.
pub(in crate::proxy) const BINARY: u8 = 2;
/// The next piece of a message.
pub(in crate::proxy) const CONTINUATION: u8 = 0;
/// The end of the connection.
pub(in crate::proxy) const CLOSE: u8 = 8;

/// Close codes (RFC 6455 §7.4.1).
pub(in crate::proxy) const PROTOCOL_ERROR: u16 = 1002;
/// A text message that is no UTF-8 (RFC 6455 §8.1).
pub(in crate::proxy) const INVALID: u16 = 1007;
/// A message that breaks a policy.
pub(in crate::proxy) const POLICY: u16 = 1008;
/// A message that is too big.
pub(in crate::proxy) const TOO_BIG: u16 = 1009;

/// A whole frame.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Frame {
    /// The last one of its message.
    pub(in crate::proxy) is_last: bool,
    pub(in crate::proxy) opcode: u8,
    /// What it carries, without the mask.
    pub(in crate::proxy) payload: Vec<u8>,
    /// As it came, but for the mask.
    pub(in crate::proxy) raw: Bytes,
}

impl Frame {
    /// Ping, pong, close.
    pub(in crate::proxy) fn is_control(&self) -> bool {
        self.opcode >= CLOSE
    }
}

/// Why a frame is refused: the close code, and the words.
pub(in crate::proxy) type Refused = (u16, &'static str);

/// The frame at the front of `input`, taken out of it; none while it goes on. Frames carry at most `max` bytes.
///
/// # Errors
/// [`Refused`].
pub(in crate::proxy) fn next(input: &mut BytesMut, from_agent: bool, max: usize) -> Result<Option<Frame>, Refused> {
    let [first, second, rest @ ..] = &input[..] else { return Ok(None) };
    let (first, second) = (*first, *second);
    if first & 0x70 != 0 {
        return Err((PROTOCOL_ERROR, "a reserved bit is set, as by an extension that was not agreed on"));
    }
    let opcode = first & 0x0f;
    if !matches!(opcode, CONTINUATION | TEXT | BINARY | 8..=10) {
        return Err((PROTOCOL_ERROR, "an unknown kind of frame"));
    }
    let is_last = first & 0x80 != 0;
    let is_masked = second & 0x80 != 0;
    if is_masked != from_agent {
        return Err((PROTOCOL_ERROR, "a frame with a mask on the wrong side"));
    }
    let (length, of_length) = match second & 0x7f {
        126 => {
            let Some(bytes) = rest.first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*bytes)), 2)
        }
        127 => {
            let Some(bytes) = rest.first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*bytes), 8)
        }
        short => (u64::from(short), 0),
    };
    let shortest = match length {
        0..126 => 0,
        126..=0xffff => 2,
        _ => 8,
    };
    if of_length != shortest {
        return Err((PROTOCOL_ERROR, "a length that is not written in its shortest form"));
    }
    if opcode >= CLOSE && (length > 125 || !is_last) {
        return Err((PROTOCOL_ERROR, "a control frame that is too long, or in pieces"));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > max {
        return Err((TOO_BIG, "a message is longer than can be read whole"));
    }
    let head = 2 + of_length + if is_masked { 4 } else { 0 };
    let Some(mut payload) = input.get(head..head + length).map(<[u8]>::to_vec) else { return Ok(None) };
    if is_masked && let Some(mask) = input.get(..head).and_then(<[u8]>::last_chunk) {
        apply(*mask, &mut payload);
    }
    let mut raw = input.split_to(head + length);
    if is_masked {
        mask_anew(&mut raw, head);
    }
    Ok(Some(Frame { is_last, opcode, payload, raw: raw.freeze() }))
}

/// Masks a frame whose payload begins at `head` by another mask: the agent chose the one that it came with, so that it would be four bytes
/// that nobody reads. Without randomness the payload is masked by nothing, which says as little.
fn mask_anew(frame: &mut [u8], head: usize) {
    let mut new = [0; 4];
    let _ = getrandom::fill(&mut new);
    let Some((before, payload)) = frame.split_at_mut_checked(head) else { return };
    let Some(mask) = before.last_chunk_mut::<4>() else { return };
    apply(std::array::from_fn(|at| mask[at] ^ new[at]), payload);
    *mask = new;
}

/// Puts a mask on, or takes it off (RFC 6455 §5.3).
fn apply(mask: [u8; 4], payload: &mut [u8]) {
    for part in payload.chunks_mut(4) {
        part.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// Where frames end that nobody reads.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Bounds {
    /// The head of a frame, as far as it has gone by.
    head: Vec<u8>,
    /// What goes by before the next begins.
    left: u64,
}

impl Bounds {
    /// Takes what goes by; true when a frame ends with it.
    pub(in crate::proxy) fn follow(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left = self.left.saturating_sub(skipped as u64);
            let Some((first, rest)) = bytes.get(skipped..).and_then(<[u8]>::split_first) else {
                return self.left == 0 && self.head.is_empty();
            };
            self.head.push(*first);
            bytes = rest;
            if let Some(behind) = behind(&self.head) {
                self.left = behind;
                self.head.clear();
            }
        }
    }
}

/// How many bytes come behind the first ones of a frame, the mask's among them; none while it is not told.
fn behind(head: &[u8]) -> Option<u64> {
    let [_, second, rest @ ..] = head else { return None };
    let length = match second & 0x7f {
        126 => u64::from(u16::from_be_bytes(*rest.first_chunk()?)),
        127 => u64::from_be_bytes(*rest.first_chunk()?),
        short => u64::from(short),
    };
    Some(length.saturating_add(if second & 0x80 == 0 { 0 } else { 4 }))
}

/// A frame of ours, for the side that masks or the one that does not; at most 125 bytes of payload.
pub(in crate::proxy) fn write(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let payload = &payload[..payload.len().min(125)];
    let length = u8::try_from(payload.len()).unwrap_or(125);
    let mut bytes = vec![0x80 | opcode, length | if mask.is_some() { 0x80 } else { 0 }];
    bytes.extend(mask.iter().flatten());
    let head = bytes.len();
    bytes.extend(payload);
    if let (Some(mask), Some(payload)) = (mask, bytes.get_mut(head..)) {
        apply(mask, payload);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8], from_agent: bool) -> Result<Option<Frame>, Refused> {
        next(&mut BytesMut::from(bytes), from_agent, 1000)
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        // RFC 6455 §5.7.
        let frame = of(&[0x81, 5, 0x48, 0x65, 0x6c, 0x6c, 0x6f], false).expect("sound").expect("whole");
        assert_eq!((frame.is_last, frame.opcode, frame.payload.as_slice()), (true, TEXT, &b"Hello"[..]));
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let frame = of(&masked, true).expect("sound").expect("whole");
        assert_eq!((frame.payload.as_slice(), frame.raw.len()), (&b"Hello"[..], masked.len()));
        // What goes on says the same, and nothing that the agent chose besides.
        assert_ne!(frame.raw[2..6], masked[2..6]);
        let again = of(&frame.raw, true).expect("sound").expect("whole");
        assert_eq!(again.payload, frame.payload);
        let empty = of(b"\x89\x80ghp_", true).expect("sound").expect("whole");
        assert_ne!(&empty.raw[2..], b"ghp_");
        assert_eq!(of(&[0x82, 126, 1, 0], false), Ok(None));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (bytes, from_agent) in [
            (&[0xc1, 0][..], false),
            (&[0x83, 0], false),
            (&[0x81, 0], true),
            (&[0x81, 0x80, 0, 0, 0, 0], false),
            (&[0x82, 126, 0, 125], false),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0, 255, 255], false),
            (&[0x09, 0], false),
            (&[0x89, 126, 0, 126], false),
        ] {
            assert_eq!(of(bytes, from_agent).map_err(|(code, _)| code), Err(PROTOCOL_ERROR), "{bytes:x?}");
        }
        assert_eq!(of(&[0x82, 126, 0x10, 0], false).map_err(|(code, _)| code), Err(TOO_BIG));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), from_agent in any::<bool>()) {
            let _ = of(&bytes, from_agent);
        }

        #[test]
        fn frames_end_where_they_end(
            lengths in proptest::collection::vec(0_usize..70_000, 1..4), is_masked: bool, step in 1_usize..5000,
        ) {
            let (mut bytes, mut ends) = (Vec::new(), Vec::new());
            for length in lengths {
                let mask = if is_masked { 0x80 } else { 0 };
                bytes.push(0x82);
                match length {
                    0..126 => bytes.push(mask | u8::try_from(length).expect("short")),
                    126..0x1_0000 => {
                        bytes.push(mask | 126);
                        bytes.extend(u16::try_from(length).expect("short").to_be_bytes());
                    }
                    _ => {
                        bytes.push(mask | 127);
                        bytes.extend((length as u64).to_be_bytes());
                    }
                }
                bytes.resize(bytes.len() + length + if is_masked { 4 } else { 0 }, 7);
                ends.push(bytes.len());
            }
            let (mut bounds, mut gone) = (Bounds::default(), 0);
            for part in bytes.chunks(step) {
                gone += part.len();
                prop_assert_eq!(bounds.follow(part), ends.contains(&gone));
            }
        }

        #[test]
        fn what_is_written_is_read(payload in proptest::collection::vec(any::<u8>(), 0..126), mask in any::<Option<[u8; 4]>>()) {
            let bytes = write(BINARY, &payload, mask);
            for cut in 0..bytes.len() {
                prop_assert_eq!(of(&bytes[..cut], mask.is_some()), Ok(None));
            }
            let frame = of(&bytes, mask.is_some()).expect("sound").expect("whole");
            prop_assert_eq!(&frame.payload, &payload);
            // What goes on differs in the mask alone.
            prop_assert_eq!(frame.raw.len(), bytes.len());
            prop_assert!(mask.is_some() || frame.raw == bytes);
            prop_assert_eq!(of(&frame.raw, mask.is_some()).expect("sound").expect("whole").payload, frame.payload);
        }
    }
}
