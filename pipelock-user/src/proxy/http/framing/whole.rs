//! All that the framing makes of some bytes: for tests and fuzz targets.

use bytes::BytesMut;

use super::{Framing, Refusal};

/// Everything that comes out for bytes that come in these pieces, with heads of at most `max` bytes; what ended it; and
/// whether a head is awaited.
pub(in crate::proxy) fn through<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    max: usize,
) -> (Vec<u8>, Option<Refusal>, bool) {
    let mut framing = Framing::new(max, false);
    let (mut input, mut out) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let mut output = BytesMut::new();
            if let Err(refusal) = framing.advance(&mut input, &mut output) {
                return (out, Some(refusal), framing.is_in_head());
            }
            if output.is_empty() {
                break;
            }
            out.extend_from_slice(&output);
        }
    }
    (out, None, framing.is_in_head())
}
