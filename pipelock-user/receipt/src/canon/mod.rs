//! One value, one text: the encodings that are signed and hashed.
//!
//! [`go_json`] is what a receipt is signed in, [`jcs`] what `ext` members are hashed in, [`Timestamp`] the only
//! spelling of a time, [`text`] what keeps hostile bytes out of all of them. Used by the writer and the verifier alike,
//! so that the verifier can demand that every byte on disk is the one that the writer would have written.

mod json;
pub mod strict;
pub mod text;
mod time;

pub use json::{JcsError, go_json, go_json_into, is_go_compact, jcs};
pub use time::{Timestamp, TimestampError};
