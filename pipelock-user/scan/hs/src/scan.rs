//! Scanning a text. Called by the crate's users with a [`Scratch`] that they keep.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::ptr::{self, NonNull};

use vectorscan_rs_sys as sys;

use crate::{Database, Error, check};

/// Working memory of one scan at a time, for the database it was made for.
#[derive(Debug)]
pub struct Scratch {
    raw: NonNull<sys::hs_scratch_t>,
}

// SAFETY: scratch is plain memory without ties to a thread; only one scan may use it, which `&mut` sees to.
unsafe impl Send for Scratch {}

impl Scratch {
    /// Memory for scans with `database`.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn new(database: &Database) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: the database is valid, and `raw` is null, for which the call makes new memory.
        check(unsafe { sys::hs_alloc_scratch(database.as_ptr(), &mut raw) })?;
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
    /// [`Error::Run`] for a foreign scratch, or a text of 4 GiB or more.
    pub fn scan<F: FnMut(u32, u64)>(&self, scratch: &mut Scratch, text: &[u8], mut found: F) -> Result<(), Error> {
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
    fn every_end_of_a_match_is_told() {
        let database = Database::compile(&["ab{2,4}c", "[0-9]{3}"]).unwrap();
        let mut scratch = Scratch::new(&database).unwrap();
        let mut found = Vec::new();
        database.scan(&mut scratch, b"xxabbc 1234 abbbbbc abbbbc", |id, end| found.push((id, end))).unwrap();
        assert_eq!(found, [(0, 6), (1, 10), (1, 11), (0, 26)]);
    }

    #[test]
    fn scratch_of_another_database_is_refused() {
        let other = Database::compile(&["a"]).unwrap();
        let database = Database::compile(&["[a-z]{3}.{2,9}[0-9]{3}", "b[0-9]{3,90}c"]).unwrap();
        let mut scratch = Scratch::new(&other).unwrap();
        assert!(database.scan(&mut scratch, b"a", |_, _| ()).is_err());
    }
}
