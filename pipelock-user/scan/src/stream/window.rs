//! The part of a text that is in memory: what was kept of earlier pieces, and the new piece. Called by everything that
//! looks at a text. Offsets count from the start of the text.

use std::cell::RefCell;
use std::ops::Range;

/// Two neighbouring slices of a text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window<'a> {
    /// Offset of the first byte of `old`.
    pub(crate) first: u64,
    /// What was kept.
    pub(crate) old: &'a [u8],
    /// What came now.
    pub(crate) new: &'a [u8],
}

thread_local! {
    /// Where a range that lies in both slices is put together.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Window<'_> {
    /// Offset of the first byte.
    pub(crate) fn start(&self) -> u64 {
        self.first
    }

    /// Offset of the new piece.
    pub(crate) fn fresh(&self) -> u64 {
        self.first + self.old.len() as u64
    }

    /// Offset after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.fresh() + self.new.len() as u64
    }

    /// The byte at `at`, when it is in the window.
    pub(crate) fn byte(&self, at: u64) -> Option<u8> {
        let at = usize::try_from(at.checked_sub(self.first)?).ok()?;
        self.old.get(at).or_else(|| self.new.get(at.checked_sub(self.old.len())?)).copied()
    }

    /// The bytes of `range`, cut to what is there: copied only when they lie in both slices.
    pub(crate) fn with<T>(&self, range: Range<u64>, run: impl FnOnce(&[u8]) -> T) -> T {
        let bound = |at: u64| (at.clamp(self.first, self.end()) - self.first) as usize;
        let (start, end) = (bound(range.start), bound(range.end).max(bound(range.start)));
        let border = self.old.len();
        if end <= border {
            return run(&self.old[start..end]);
        }
        if start >= border {
            return run(&self.new[start - border..end - border]);
        }
        // Taken out while it is used, so that a call within a call works too.
        let mut joined = JOINED.take();
        joined.clear();
        joined.extend_from_slice(&self.old[start..]);
        joined.extend_from_slice(&self.new[..end - border]);
        let result = run(&joined);
        JOINED.replace(joined);
        result
    }

    /// The two slices of `range`, either may be empty.
    pub(crate) fn parts(&self, range: Range<u64>) -> [&[u8]; 2] {
        let bound = |at: u64| (at.clamp(self.first, self.end()) - self.first) as usize;
        let (start, end) = (bound(range.start), bound(range.end).max(bound(range.start)));
        let border = self.old.len();
        let old = &self.old[start.min(border)..end.min(border)];
        let new = &self.new[start.max(border) - border..end.max(border) - border];
        [old, new]
    }
}
