//! Bytes by the block: which of 64 bytes are of a kind, as the bits of one number. Called by what looks at every byte of
//! every text: the gates of [`crate::decode`] and [`crate::injection`].
//!
//! Promises no branches but those of the caller: the compiler makes vector instructions of [`of`], and what a byte has to do
//! with its neighbours becomes a shift of the number.

/// Bytes of a block.
pub(crate) const BLOCK: usize = 64;

/// The blocks of `bytes`; the last one is filled up with zeros.
pub(crate) fn blocks(bytes: &[u8]) -> impl Iterator<Item = [u8; BLOCK]> {
    let (whole, rest) = bytes.as_chunks::<BLOCK>();
    let rest = (!rest.is_empty()).then(|| {
        let mut block = [0; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        block
    });
    whole.iter().copied().chain(rest)
}

/// The bytes of `block` that `test` is true for; bit 0 is the first.
pub(crate) fn of(block: &[u8; BLOCK], test: impl Fn(u8) -> bool) -> u64 {
    let mut flags = [0u8; BLOCK];
    for (flag, byte) in flags.iter_mut().zip(block) {
        *flag = u8::from(test(*byte));
    }
    let (words, _) = flags.as_chunks::<8>();
    let mut bits = 0;
    for (number, word) in words.iter().enumerate() {
        // Eight bytes of 0 or 1: the product has each of them at its place in the highest byte.
        let packed = u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits |= packed << (8 * number);
    }
    bits
}

/// The places of the bits that are set, in ascending order.
pub(crate) fn each(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_bit() {
        for length in [0, 1, 8, 63, 64, 65, 130] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
            let wanted: Vec<usize> = (0..length).filter(|at| bytes[*at] % 3 == 1).collect();
            let found = blocks(&bytes)
                .enumerate()
                .flat_map(|(number, block)| each(of(&block, |byte| byte % 3 == 1)).map(move |at| number * BLOCK + at));
            assert_eq!(found.collect::<Vec<_>>(), wanted);
        }
    }
}
