//! WebSocket (RFC 6455): frames both ways, exactly as they were sent, and read message by message where the rule wants it.
//!
//! Called by `http` once an upgrade was let through.

pub(in crate::proxy) mod frame;
mod relay;

pub(super) use relay::{Reading, Way, relay};
