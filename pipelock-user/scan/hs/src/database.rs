//! A compiled set of patterns: made from text, or loaded from what an earlier run stored. Called by the crate's users;
//! once made it is immutable.

use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};

use vectorscan_rs_sys as sys;

use crate::{Error, check};

/// A compiled set of patterns.
#[derive(Debug)]
pub struct Database {
    raw: NonNull<sys::hs_database_t>,
}

// SAFETY: a database is immutable after compilation; vectorscan documents that threads may share it.
unsafe impl Send for Database {}
// SAFETY: as above.
unsafe impl Sync for Database {}

impl Database {
    /// Compiles `patterns`; a match is reported with the pattern's position in the list. Patterns are byte patterns in
    /// vectorscan's dialect of PCRE, none of which may match empty.
    ///
    /// # Errors
    /// [`Error::Pattern`] names the first pattern that does not compile.
    pub fn compile<S: AsRef<str>>(patterns: &[S]) -> Result<Self, Error> {
        let mut owned = Vec::with_capacity(patterns.len());
        for (index, pattern) in patterns.iter().enumerate() {
            owned.push(CString::new(pattern.as_ref()).map_err(|_| Error::Argument(index))?);
        }
        let count = u32::try_from(owned.len()).map_err(|_| Error::Argument(owned.len()))?;
        let pointers: Vec<*const c_char> = owned.iter().map(|pattern| pattern.as_ptr()).collect();
        let flags = vec![0u32; owned.len()];
        let ids: Vec<u32> = (0..count).collect();
        let mut raw = ptr::null_mut();
        let mut problem = ptr::null_mut();
        // SAFETY: the three arrays have `count` elements and live through the call, the strings end in NUL, a null
        // platform means this host, and both results are places that the call may write.
        let code = unsafe {
            sys::hs_compile_multi(
                pointers.as_ptr(),
                flags.as_ptr(),
                ids.as_ptr(),
                count,
                sys::HS_MODE_BLOCK,
                ptr::null(),
                &mut raw,
                &mut problem,
            )
        };
        if code != 0 {
            let error = describe(problem, code);
            // SAFETY: `problem` came from hs_compile_multi (null is allowed) and is not used afterwards.
            unsafe { sys::hs_free_compile_error(problem) };
            return Err(error);
        }
        let raw = NonNull::new(raw).ok_or(Error::Run(code))?;
        Ok(Self { raw })
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn serialize(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = ptr::null_mut();
        let mut length = 0;
        // SAFETY: the database is valid and both results are places that the call may write.
        check(unsafe { sys::hs_serialize_database(self.raw.as_ptr(), &mut bytes, &mut length) })?;
        // SAFETY: on success `bytes` points to `length` bytes that nobody else writes.
        let copy = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) }.to_vec();
        // SAFETY: vectorscan took the block from malloc, as no allocator was set, and left it to us.
        unsafe { libc::free(bytes.cast()) };
        Ok(copy)
    }

    /// Loads what [`serialize`](Self::serialize) gave. Vectorscan checks version, processor and a CRC, so damage is found;
    /// it does not defend against bytes made on purpose, which are as good as code: **the caller must know that
    /// `bytes` were written by this program**, as one must of any library one loads.
    ///
    /// # Errors
    /// [`Error::Stored`] when version, processor or CRC differ.
    pub fn deserialize(bytes: &[u8]) -> Result<Self, Error> {
        let mut raw = ptr::null_mut();
        // SAFETY: pointer and length are those of a slice, and the result is a place that the call may write.
        let code = unsafe { sys::hs_deserialize_database(bytes.as_ptr().cast(), bytes.len(), &mut raw) };
        if code != 0 {
            return Err(Error::Stored(code));
        }
        let raw = NonNull::new(raw).ok_or(Error::Stored(code))?;
        Ok(Self { raw })
    }

    pub(crate) fn as_ptr(&self) -> *const sys::hs_database_t {
        self.raw.as_ptr()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: the pointer came from vectorscan and is freed once; whoever scans borrows self.
        unsafe { sys::hs_free_database(self.raw.as_ptr()) };
    }
}

fn describe(problem: *const sys::hs_compile_error_t, code: i32) -> Error {
    // SAFETY: the pointer is null or one that hs_compile_multi filled and that has not been freed.
    let Some(problem) = (unsafe { problem.as_ref() }) else { return Error::Run(code) };
    // SAFETY: vectorscan sets the message to a C string.
    let message = unsafe { CStr::from_ptr(problem.message) }.to_string_lossy().into_owned();
    Error::Pattern { index: i64::from(problem.expression), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_pattern_is_named() {
        let error = Database::compile(&["a", "b("]).unwrap_err();
        assert!(matches!(error, Error::Pattern { index: 1, .. }), "{error}");
    }

    #[test]
    fn what_was_stored_loads_only_whole() {
        let database = Database::compile(&["abc"]).unwrap();
        let bytes = database.serialize().unwrap();
        assert_eq!(Database::deserialize(&bytes).unwrap().serialize().unwrap(), bytes);
        assert!(Database::deserialize(&bytes[..bytes.len() - 1]).is_err());
        let mut damaged = bytes;
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        assert!(Database::deserialize(&damaged).is_err());
    }
}
