//! Tables that are read where they lie: records of one size as bytes, which the build script writes for the files that ship, so
//! that starting neither parses nor copies them. Used by the gates and the lexicon. Promises that no bytes make a read panic:
//! what is not there is `None`.

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Range;

/// Part of the program, or made by it.
pub(crate) type Bytes = Cow<'static, [u8]>;

/// What a table consists of. Numbers have their lowest byte first.
pub(crate) trait Record: Sized {
    /// How many bytes one takes.
    const SIZE: usize;

    /// Appends it.
    fn write(&self, to: &mut Vec<u8>);

    /// Reads one of exactly so many bytes.
    fn read(from: Fields<'_>) -> Option<Self>;
}

/// The fields of a record, one after the other.
pub(crate) struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    #[inline]
    fn next<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.next().map(u8::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.next().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.next().map(u64::from_le_bytes)
    }
}

impl Record for u32 {
    const SIZE: usize = 4;

    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.to_le_bytes());
    }

    #[inline]
    fn read(mut from: Fields<'_>) -> Option<Self> {
        from.u32()
    }
}

impl Record for u64 {
    const SIZE: usize = 8;

    fn write(&self, to: &mut Vec<u8>) {
        to.extend(self.to_le_bytes());
    }

    #[inline]
    fn read(mut from: Fields<'_>) -> Option<Self> {
        from.u64()
    }
}

/// Records that are numbered.
#[derive(Debug)]
pub(crate) struct Table<R> {
    bytes: Bytes,
    of: PhantomData<fn() -> R>,
}

impl<R: Record> Table<R> {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, of: PhantomData }
    }

    #[inline]
    pub(crate) fn get(&self, number: usize) -> Option<R> {
        let at = number.checked_mul(R::SIZE)?;
        R::read(Fields(self.bytes.get(at..at.checked_add(R::SIZE)?)?))
    }

    /// Those of these numbers, as far as they are there.
    pub(crate) fn range(&self, numbers: Range<usize>) -> impl Iterator<Item = R> {
        numbers.map_while(|number| self.get(number))
    }

    /// The first of these numbers that `before` is false for; it is true for all those before and for none behind.
    pub(crate) fn partition_point(&self, numbers: Range<usize>, before: impl Fn(&R) -> bool) -> usize {
        let (mut low, mut high) = (numbers.start, numbers.end.max(numbers.start));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(|record| before(&record)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

/// The bytes of a table.
pub(crate) fn written<R: Record>(records: impl IntoIterator<Item = R>) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.into_iter().for_each(|record| record.write(&mut bytes));
    bytes
}

/// Tables, one behind the other, each with its length before it.
#[derive(Debug, Default)]
pub(crate) struct Sections(Vec<u8>);

impl Sections {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.extend((bytes.len() as u64).to_le_bytes());
        self.0.extend(bytes);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Bits of a hash that chooses a bit of a [`Map`].
pub(crate) const BITS: u32 = 16;

/// One bit for each hash: 8 KiB, so that it stays in the first cache.
pub(crate) type Map = [u64; 1 << (BITS - 6)];

/// Sets a bit, of as many as there are in a power of two of numbers.
pub(crate) fn set<const N: usize>(map: &mut [u64; N], bit: usize) {
    map[bit >> 6 & (N - 1)] |= 1 << (bit & 63);
}

/// Whether it is set.
#[inline]
pub(crate) fn has<const N: usize>(map: &[u64; N], bit: usize) -> bool {
    map[bit >> 6 & (N - 1)] >> (bit & 63) & 1 == 1
}

/// What is left of them to be read.
#[derive(Debug)]
pub(crate) struct Unread(pub(crate) Bytes);

impl Unread {
    /// The next one.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let length = usize::try_from(u64::from_le_bytes(*self.0.first_chunk()?)).ok()?;
        let end = length.checked_add(8)?;
        let section = match &self.0 {
            Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(8..end)?),
            Cow::Owned(bytes) => Cow::Owned(bytes.get(8..end)?.to_vec()),
        };
        match &mut self.0 {
            Cow::Borrowed(bytes) => *bytes = bytes.get(end..)?,
            Cow::Owned(bytes) => drop(bytes.drain(..end)),
        }
        Some(section)
    }

    /// The next table, which has so many numbers.
    pub(crate) fn numbers<const N: usize>(&mut self) -> Option<[u64; N]> {
        let (table, mut numbers) = (self.table::<u64>()?, [0; N]);
        for (at, number) in numbers.iter_mut().enumerate() {
            *number = table.get(at)?;
        }
        Some(numbers)
    }

    /// The next table.
    pub(crate) fn table<R: Record>(&mut self) -> Option<Table<R>> {
        self.next().map(Table::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_as_they_were_written() {
        let mut sections = Sections::default();
        sections.add(&written([1u32, 5, 9]));
        sections.add(b"");
        sections.add(&written([7u64]));
        let bytes = sections.into_bytes();
        for bytes in [Cow::Borrowed(&*bytes.clone().leak()), Cow::Owned(bytes)] {
            let mut unread = Unread(bytes);
            let table = unread.table::<u32>().unwrap();
            assert_eq!(table.range(1..9).collect::<Vec<_>>(), [5, 9]);
            assert_eq!((table.partition_point(0..3, |number| *number < 6), table.get(usize::MAX)), (2, None));
            assert_eq!(unread.table::<u32>().unwrap().get(0), None);
            assert_eq!(unread.table::<u64>().unwrap().get(0), Some(7));
            assert!(unread.next().is_none());
        }
        assert!(Unread(Cow::Borrowed(&[9, 0, 0, 0, 0, 0, 0, 0, 1])).next().is_none());
    }
}
