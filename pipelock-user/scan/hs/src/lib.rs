//! The one door to vectorscan, a C++ library that matches all patterns in one pass. pipelock-scan calls it and has no
//! `unsafe` of its own; here every unsafe block says why it is sound.
//!
//! Promises: a [`Database`] never changes and may be shared by threads; a [`Scratch`] belongs to one scan at a time,
//! which the borrow checker sees to. A match is the number of the pattern and the offset after its last byte: vectorscan is not
//! asked where a match starts, which would cost half the speed. Beside it stands the function `bits`, which needs `unsafe` as well.
//!
//! Why not the `vectorscan-rs` crate over the same library: it cannot store a compiled database.

mod bits;
mod database;
mod scan;

use std::ffi::{CStr, c_int};

pub use bits::{BLOCK, bits};
pub use database::Database;
pub use scan::Scratch;
use vectorscan_rs_sys as sys;

/// What vectorscan refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pattern is not in the language, or too large.
    #[error("vectorscan cannot compile pattern {index}: {message}")]
    Pattern {
        /// Position in the list given, or -1 when the whole set is at fault.
        index: i64,
        /// Vectorscan's own words.
        message: String,
    },
    /// A pattern holds a NUL byte, or there are too many of them.
    #[error("pattern {0} cannot be handed to vectorscan")]
    Argument(usize),
    /// A stored database is of another version, another processor, or damaged.
    #[error("the stored database does not load here (vectorscan error {0}): compile it again")]
    Stored(c_int),
    /// A scan or an allocation failed.
    #[error("vectorscan failed with error {0}")]
    Run(c_int),
    /// This processor lacks SSE4.2 (x86-64) or NEON (aarch64).
    #[error("this processor is too old for vectorscan: it needs SSE4.2 or NEON")]
    Processor,
}

/// The library's version and the processor features that it would compile for: databases are exchangeable between
/// hosts for which this is equal.
pub fn platform() -> Result<String, Error> {
    // SAFETY: no arguments; it only asks the processor.
    if unsafe { sys::hs_valid_platform() } != 0 {
        return Err(Error::Processor);
    }
    // SAFETY: all fields are integers, for which zero is a value.
    let mut info: sys::hs_platform_info_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid place for what the call writes.
    check(unsafe { sys::hs_populate_platform(&mut info) })?;
    // SAFETY: the call returns a static C string.
    let version = unsafe { CStr::from_ptr(sys::hs_version()) };
    Ok(format!("{} tune {} cpu {:x}", version.to_string_lossy(), info.tune, info.cpu_features))
}

fn check(code: c_int) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(Error::Run(code)) }
}
