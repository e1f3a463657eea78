//! TLS as far as it is not ours to read: the name in the ClientHello, and refusals that a TLS client understands.

mod extensions;
mod sniff;

pub(super) use sniff::{SniffError, alert_access_denied, sniff};
