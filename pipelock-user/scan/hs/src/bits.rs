//! Bytes by the block: which of 64 bytes are of a kind, as the bits of one number. Called by pipelock-scan for every byte of
//! every text. It is here because the one instruction that makes such a number of a vector needs `unsafe`.

/// Bytes of a block.
pub const BLOCK: usize = 64;

/// The bytes of `block` that `test` is true for; bit 0 is the first. `test` should have no branches, so that the compiler
/// makes vector instructions of it.
#[inline(always)]
pub fn bits(block: &[u8; BLOCK], test: impl Fn(u8) -> bool) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    let mut bits = 0;
    for (number, part) in parts.iter().enumerate() {
        let mut flags = [0u8; 16];
        for (flag, byte) in flags.iter_mut().zip(part) {
            *flag = if test(*byte) { 0x80 } else { 0 };
        }
        bits |= u64::from(upper(flags)) << (16 * number);
    }
    bits
}

/// The highest bit of each byte.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn upper(flags: [u8; 16]) -> u16 {
    use std::arch::x86_64::{__m128i, _mm_movemask_epi8};
    // SAFETY: both types are 16 bytes of which every value is valid.
    let vector: __m128i = unsafe { std::mem::transmute(flags) };
    // SAFETY: SSE2 is part of x86-64.
    let mask = unsafe { _mm_movemask_epi8(vector) };
    mask as u16
}

/// The highest bit of each byte.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn upper(flags: [u8; 16]) -> u16 {
    let (words, _) = flags.as_chunks::<8>();
    let mut bits = 0;
    for (number, word) in words.iter().enumerate() {
        // Eight bytes of 0 or 1: the product has each of them at its place in the highest byte.
        let packed = (u64::from_le_bytes(*word) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        bits |= (packed as u16) << (8 * number);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_bit() {
        for seed in 0..=255u8 {
            let block: [u8; BLOCK] = std::array::from_fn(|at| (at as u8).wrapping_mul(seed).wrapping_add(seed >> 3));
            let wanted = (0..BLOCK).filter(|at| block[*at] % 3 == 1).fold(0u64, |bits, at| bits | 1 << at);
            assert_eq!(bits(&block, |byte| byte % 3 == 1), wanted);
        }
    }
}
