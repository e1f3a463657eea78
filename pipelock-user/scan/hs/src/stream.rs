//! Scanning: whole texts, and streams of pieces. Called by the crate's users with a [`Scratch`] that they keep.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use vectorscan_rs_sys as sys;

use crate::{Database, Error, Mode, check};

/// Working memory of one scan at a time, for every database it was made for.
#[derive(Debug)]
pub struct Scratch {
    raw: NonNull<sys::hs_scratch_t>,
}

// SAFETY: scratch is plain memory without ties to a thread; only one scan may use it, which `&mut` sees to.
unsafe impl Send for Scratch {}

impl Scratch {
    /// Memory for scans with any of `databases`.
    ///
    /// # Errors
    /// When memory runs out or the list is empty.
    pub fn new(databases: &[&Database]) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        for database in databases {
            // SAFETY: the database is valid; `raw` is null or an earlier scratch that the call may replace.
            let code = unsafe { sys::hs_alloc_scratch(database.as_ptr(), &mut raw) };
            if code != 0 {
                // SAFETY: null or a scratch that nobody uses.
                unsafe { sys::hs_free_scratch(raw) };
                return Err(Error::Run(code));
            }
        }
        let raw = NonNull::new(raw).ok_or(Error::Run(sys::HS_INVALID))?;
        Ok(Self { raw })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: the pointer came from vectorscan, is freed once, and no scan is running: scans borrow self.
        unsafe { sys::hs_free_scratch(self.raw.as_ptr()) };
    }
}

impl Database {
    /// Scans the whole of `text`; `found` gets the pattern's number and the offset after the match. The scratch must have been
    /// made for this database.
    ///
    /// # Errors
    /// [`Error::Run`] for a stream database, a foreign scratch, or a text of 4 GiB or more.
    pub fn scan<F: FnMut(u32, u64)>(&self, scratch: &mut Scratch, text: &[u8], mut found: F) -> Result<(), Error> {
        if self.mode() != Mode::Block {
            return Err(Error::Run(sys::HS_DB_MODE_ERROR));
        }
        let length = u32::try_from(text.len()).map_err(|_| Error::Run(sys::HS_INVALID))?;
        // SAFETY: database and scratch are valid (vectorscan checks that they belong together), text and length are a
        // slice's, and `found` outlives the call and is what `report::<F>` expects as its context.
        check(unsafe {
            sys::hs_scan(
                self.as_ptr(),
                text.as_ptr().cast(),
                length,
                0,
                scratch.raw.as_ptr(),
                Some(report::<F>),
                (&raw mut found).cast(),
            )
        })
    }
}

/// A text that comes in pieces.
#[derive(Debug)]
pub struct Stream {
    raw: NonNull<sys::hs_stream_t>,
    // Read by vectorscan through `raw`.
    _database: Arc<Database>,
}

// SAFETY: a stream is plain memory without ties to a thread; every use needs `&mut`.
unsafe impl Send for Stream {}

impl Stream {
    /// A stream at its start.
    ///
    /// # Errors
    /// [`Error::Run`] for a block database, or when memory runs out.
    pub fn open(database: &Arc<Database>) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the database is valid and `raw` may be written.
        check(unsafe { sys::hs_open_stream(database.as_ptr(), 0, &mut raw) })?;
        let raw = NonNull::new(raw).ok_or(Error::Run(sys::HS_NOMEM))?;
        Ok(Self { raw, _database: Arc::clone(database) })
    }

    /// Scans the next piece; offsets count from the stream's start. Matches that need the end of the text (`$`, a `\b` at
    /// the last byte) come from [`finish`](Self::finish).
    ///
    /// # Errors
    /// [`Error::Run`] for a foreign scratch.
    pub fn scan<F: FnMut(u32, u64)>(&mut self, scratch: &mut Scratch, text: &[u8], mut found: F) -> Result<(), Error> {
        // Vectorscan counts the bytes of one call in 32 bits.
        for piece in text.chunks(1 << 30) {
            // SAFETY: stream and scratch are valid (vectorscan checks that they belong together), text and length are
            // a slice's, and `found` outlives the call and is what `report::<F>` expects as its context.
            check(unsafe {
                sys::hs_scan_stream(
                    self.raw.as_ptr(),
                    piece.as_ptr().cast(),
                    piece.len() as c_uint,
                    0,
                    scratch.raw.as_ptr(),
                    Some(report::<F>),
                    (&raw mut found).cast(),
                )
            })?;
        }
        Ok(())
    }

    /// Ends the text, reports what only its end makes a match, and puts the stream back at its start.
    ///
    /// # Errors
    /// [`Error::Run`] for a foreign scratch.
    pub fn finish<F: FnMut(u32, u64)>(&mut self, scratch: &mut Scratch, mut found: F) -> Result<(), Error> {
        // SAFETY: as in `scan`.
        check(unsafe {
            sys::hs_reset_stream(self.raw.as_ptr(), 0, scratch.raw.as_ptr(), Some(report::<F>), (&raw mut found).cast())
        })
    }

    /// Puts the stream back at its start and reports nothing.
    ///
    /// # Errors
    /// None in practice.
    pub fn reset(&mut self) -> Result<(), Error> {
        // SAFETY: the stream is valid; without a callback vectorscan needs no scratch.
        check(unsafe { sys::hs_reset_stream(self.raw.as_ptr(), 0, ptr::null_mut(), None, ptr::null_mut()) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the pointer came from vectorscan and is freed once; without a callback no scratch is needed.
        unsafe { sys::hs_close_stream(self.raw.as_ptr(), ptr::null_mut(), None, ptr::null_mut()) };
    }
}

/// What vectorscan calls for a match. A panic in the closure aborts: it cannot unwind through C.
unsafe extern "C" fn report<F: FnMut(u32, u64)>(
    pattern: c_uint,
    _from: c_ulonglong,
    to: c_ulonglong,
    _flags: c_uint,
    context: *mut c_void,
) -> c_int {
    // SAFETY: every caller above passes a pointer to an `F` that lives through the call and that nothing else uses.
    let found = unsafe { &mut *context.cast::<F>() };
    found(pattern, to);
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_and_in_pieces_say_the_same() {
        let patterns = ["ab{2,4}c", "[0-9]{3}"];
        let block = Database::compile(&patterns, Mode::Block).unwrap();
        let stream = Arc::new(Database::compile(&patterns, Mode::Stream).unwrap());
        let mut scratch = Scratch::new(&[&block, &stream]).unwrap();
        let text = b"xxabbc 1234 abbbbbc abbbbc";
        let mut whole = Vec::new();
        block.scan(&mut scratch, text, |id, end| whole.push((id, end))).unwrap();
        assert_eq!(whole, [(0, 6), (1, 10), (1, 11), (0, 26)]);
        let mut state = Stream::open(&stream).unwrap();
        for cut in 0..=text.len() {
            let mut pieces = Vec::new();
            state.scan(&mut scratch, &text[..cut], |id, end| pieces.push((id, end))).unwrap();
            state.scan(&mut scratch, &text[cut..], |id, end| pieces.push((id, end))).unwrap();
            state.finish(&mut scratch, |id, end| pieces.push((id, end))).unwrap();
            assert_eq!(pieces, whole, "cut at {cut}");
        }
    }

    #[test]
    fn the_wrong_mode_is_an_error() {
        let block = Arc::new(Database::compile(&["a"], Mode::Block).unwrap());
        assert!(Stream::open(&block).is_err());
        let stream = Database::compile(&["a"], Mode::Stream).unwrap();
        let mut scratch = Scratch::new(&[&stream]).unwrap();
        assert!(stream.scan(&mut scratch, b"a", |_, _| ()).is_err());
    }
}
