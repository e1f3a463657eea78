//! Where a connection went: which address, and by which next hop.

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// How a destination was reached. Two are the same that lead to one place in one way.
#[derive(Clone, Debug)]
pub struct Reached {
    /// The destination's address, which was checked; none when the next hop has resolved its name.
    pub addr: Option<SocketAddr>,
    /// The next hop, as the policy names it; none for a connection of our own to the address.
    pub via: Option<Arc<str>>,
    /// All the addresses that were found for the destination: a policy chooses the way by them.
    pub found: Arc<[IpAddr]>,
}

impl From<SocketAddr> for Reached {
    fn from(addr: SocketAddr) -> Self {
        Self { addr: Some(addr), via: None, found: [addr.ip()].into() }
    }
}

impl Reached {
    /// What tells one place and way from another; not what else was found, which changes from answer to answer.
    fn place(&self) -> (Option<SocketAddr>, Option<&str>) {
        (self.addr, self.via.as_deref())
    }
}

impl PartialEq for Reached {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Reached {}

impl Hash for Reached {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}
