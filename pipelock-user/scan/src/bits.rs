//! Bytes by the block: which of 64 bytes are of a kind, as the bits of one number. Called by what looks at every byte of
//! every text: the gates of [`crate::decode`] and [`crate::injection`].
//!
//! Promises no branches but those of the caller: the compiler makes vector instructions of [`of`], and what a byte has to do
//! with its neighbours becomes a shift of the number.

pub(crate) use pipelock_hs::{BLOCK, bits as of};

/// The blocks of `bytes`; the last one is filled up with zeros.
pub(crate) fn blocks(bytes: &[u8]) -> impl Iterator<Item = [u8; BLOCK]> {
    let (whole, rest) = bytes.as_chunks::<BLOCK>();
    whole.iter().copied().chain((!rest.is_empty()).then(|| block(rest, 0)))
}

/// The block at `at`, filled up with zeros where `bytes` are over.
#[inline(always)]
pub(crate) fn block(bytes: &[u8], at: usize) -> [u8; BLOCK] {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.first_chunk().copied().unwrap_or_else(|| {
        let mut block = [0; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        block
    })
}

/// Where the first byte is that `test` is true for, which few are: a block is passed over at once.
pub(crate) fn position(bytes: &[u8], test: impl Fn(u8) -> bool) -> Option<usize> {
    let has = |block: &[u8]| block.iter().fold(false, |any, byte| any | test(*byte));
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let passed = blocks.iter().position(|block| has(block)).unwrap_or(blocks.len()) * BLOCK;
    let near = bytes.get(passed..).unwrap_or(rest);
    near.iter().position(|byte| test(*byte)).map(|at| passed + at)
}

/// How many bytes `test` is true for, which it must not be for 0.
pub(crate) fn count(bytes: &[u8], test: impl Fn(u8) -> bool) -> usize {
    blocks(bytes).map(|block| of(&block, &test).count_ones() as usize).sum()
}

/// Where the first `least` bytes in a row begin, 1 to 64 of them, that `test` is true for.
#[inline(always)]
pub(crate) fn run(bytes: &[u8], least: usize, test: impl Fn(u8) -> bool) -> Option<usize> {
    // Bytes in a row at the end of the blocks before.
    let mut before = 0;
    for (block, number) in blocks(bytes).zip(0..) {
        let bits = of(&block, &test);
        let ahead = (!bits).trailing_zeros() as usize;
        let at = if before > 0 && before + ahead >= least {
            number * BLOCK - before
        } else {
            let begin = rows(bits, least);
            before = (!bits).leading_zeros() as usize;
            if begin == 0 {
                continue;
            }
            number * BLOCK + begin.trailing_zeros() as usize
        };
        // The zeros behind the end may pass the test.
        return (at + least <= bytes.len()).then_some(at);
    }
    None
}

/// Where so many bits in a row begin, at least 1.
pub(crate) fn rows(bits: u64, least: usize) -> u64 {
    // Bit by bit: whether a row of one begins here, of two, of four, …
    let (mut begin, mut length) = (bits, 1);
    while length < least {
        let step = length.min(least - length);
        begin &= begin >> step;
        length += step;
    }
    begin
}

/// Writes the places of the bits that are set to `to` from `count` on, each as the sum with `base`; gives the number of
/// places there are then. Eight at a time, as few branches as can be; `to` must have room for seven more.
pub(crate) fn write(mut bits: u64, base: u32, to: &mut [u32], count: usize) -> usize {
    let after = count + bits.count_ones() as usize;
    let mut at = count;
    while at < after {
        for slot in to.get_mut(at..at + 8).unwrap_or_default() {
            *slot = base + bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
        }
        at += 8;
    }
    after
}

/// A set of numbers below 64 `N`, a power of two; of greater ones the lower bits count.
#[derive(Debug)]
pub(crate) struct Set<const N: usize>(Box<[u64; N]>);

impl<const N: usize> Set<N> {
    pub(crate) fn of(numbers: impl IntoIterator<Item = usize>) -> Self {
        let mut all = Self(Box::new([0; N]));
        for number in numbers {
            all.0[number / 64 % N] |= 1 << (number % 64);
        }
        all
    }

    #[inline]
    pub(crate) fn has(&self, number: usize) -> bool {
        self.0[number / 64 % N] >> (number % 64) & 1 == 1
    }
}

/// Which two bytes stand side by side in something.
#[derive(Debug)]
pub(crate) struct Pairs(Set<1024>);

impl Pairs {
    pub(crate) fn of(pairs: impl IntoIterator<Item = [u8; 2]>) -> Self {
        Self(Set::of(pairs.into_iter().map(|pair| usize::from(u16::from_le_bytes(pair)))))
    }

    pub(crate) fn has(&self, pair: [u8; 2]) -> bool {
        self.0.has(usize::from(u16::from_le_bytes(pair)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_run_is_found() {
        for (before, length, behind) in (0..150).flat_map(|before| [(before, 30, 0), (before, 70, 3), (before, 16, 80)])
        {
            let text = [vec![b' '; before], vec![b'x'; length], vec![b' '; behind]].concat();
            for least in [1, 2, 15, 16, 17, 30, 31, 64] {
                assert_eq!(run(&text, least, |byte| byte == b'x'), (least <= length).then_some(before));
                assert_eq!(run(&text[..before], least, |byte| byte != b' '), None);
            }
        }
    }

    #[test]
    fn every_byte_has_its_bit() {
        for length in [0, 1, 8, 63, 64, 65, 130] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
            let wanted: Vec<usize> = (0..length).filter(|at| bytes[*at] % 3 == 1).collect();
            let (mut found, mut count) = ([0; 200], 0);
            for (block, number) in blocks(&bytes).zip(0..) {
                count = write(of(&block, |byte| byte % 3 == 1), number * BLOCK as u32, &mut found, count);
            }
            assert!(found[..count].iter().map(|at| *at as usize).eq(wanted.iter().copied()));
            assert_eq!(super::count(&bytes, |byte| byte % 3 == 1), wanted.len());
            for (from, rest) in (0..=bytes.len()).map(|from| (from, &bytes[from..])) {
                let first = wanted.iter().find(|at| **at >= from).map(|at| at - from);
                assert_eq!(position(rest, |byte| byte % 3 == 1), first);
            }
        }
    }
}
