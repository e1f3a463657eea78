//! The one door to the network: resolve, check, dial, or have the next hop dial.
//!
//! Called by the proxy with a [`Permit`](crate::inspect::Permit) in hand. It promises that no query and no connection
//! leaves without one, that every address is checked before it is dialled, and that the address dialled is the one
//! that was checked.

mod counts;
mod dial;
mod greet;
mod hop;
mod link;
mod own;
mod ranges;
mod resolve;
mod ssrf;
mod way;

pub(crate) use counts::COUNTS;
pub use dial::{DialError, dial};
pub use greet::{Greeting, explain, server_name};
pub use hop::{Hop, HopError, IsAgents, Login, LoginError};
pub use link::{Duplex, Link};
pub use ranges::Class;
pub use resolve::{LookupFuture, NameService, ResolveError, Resolver, StaticHosts, pinned_by};
pub use ssrf::{CheckedAddr, SsrfDenied, check, check_all};
pub use way::{ConnectError, Way, check_known, check_reach, connect, connect_again, may_be_reached};
