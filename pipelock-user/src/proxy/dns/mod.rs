//! The resolver the agent must use: the kernel redirects everything the agent sends to port 53 here, UDP and TCP.
//!
//! Wired by the app room, which binds the sockets; the proxy asks [`Pool`] and [`SeenNames`] for the name behind an
//! address. It promises that no query leaves for a name that policy does not allow (in synthetic mode: no query at
//! all), that a denied name is told apart from a missing one (REFUSED with an extended error), that records which
//! would lead round the proxy (HTTPS, SVCB) are never given, and that no answer goes out without its evidence.

mod answer;
mod lookup;
mod message;
mod pool;
mod server;

pub use answer::{Answered, Mode, NameRead, NameRules, Outcome, Pending, answer, servfail};
pub use lookup::{Found, Lookup, SeenNames};
pub use pool::{DEFAULT_MAX_NAMES, Pool, PoolError, Synthetic};
pub use server::{Asker, DnsState, Filed, QueryLog, Transport, serve_tcp, serve_udp};
