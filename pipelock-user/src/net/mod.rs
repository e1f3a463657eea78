//! The one door to the network: resolve, check, dial.
//!
//! Called by the proxy with a [`Permit`](crate::inspect::Permit) in hand. It promises that no query and no connection
//! leaves without one, that every address is checked before it is dialled, and that the address dialled is the one
//! that was checked.

mod counts;
mod dial;
mod own;
mod ranges;
mod resolve;
mod ssrf;

pub(crate) use counts::COUNTS;
pub use dial::{ConnectError, DialError, check_reach, connect, connect_again, dial, may_be_dialled};
pub use ranges::Class;
pub use resolve::{LookupFuture, NameService, ResolveError, Resolver, StaticHosts};
pub use ssrf::{CheckedAddr, SsrfDenied, check, check_all};
