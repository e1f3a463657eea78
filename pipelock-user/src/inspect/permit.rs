//! The proof that a destination was allowed.
//!
//! Minted by [`crate::inspect`] alone, demanded by `net::dial`. It is not `Clone` and has no public constructor: code
//! that was not handed one cannot make one up.

use crate::flow::Host;

/// Permission to open a connection to one host and port.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Permit {
    host: Host,
    port: u16,
    rule: Option<String>,
}

impl Permit {
    /// Only for the gate of this room, after it has seen an allowing verdict.
    pub(in crate::inspect) fn mint(host: Host, port: u16, rule: Option<String>) -> Self {
        Self { host, port, rule }
    }

    /// The host that may be reached.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The TCP port that may be reached.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The rule that allowed it, as the policy spells it.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }
}
