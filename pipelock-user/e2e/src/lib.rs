//! Placeholder of the crate until its first file.
