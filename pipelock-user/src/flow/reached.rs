//! Where a connection went: which address, and by which next hop.

use std::net::SocketAddr;
use std::sync::Arc;

/// How a destination was reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reached {
    /// The destination's address, which was checked; none when the next hop has resolved its name.
    pub addr: Option<SocketAddr>,
    /// The next hop, as the policy names it; none for a connection of our own to the address.
    pub via: Option<Arc<str>>,
}

impl From<SocketAddr> for Reached {
    fn from(addr: SocketAddr) -> Self {
        Self { addr: Some(addr), via: None }
    }
}
