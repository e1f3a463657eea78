//! git's protocol inside smart HTTP, as far as it has to be read: what a push would change, and how git is told no.
//!
//! Used by `http::pushing` and `rescue`. It does no reading and writing of its own: bytes in, answers out.

pub(super) mod push;
pub(super) mod report;
