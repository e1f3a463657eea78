//! What only shows across requests: data that leaks drop by drop, and secrets sent in pieces.
//!
//! [`Sessions`] is the door: it keeps one [`Budget`] and the pieces of all sessions, which the caller names by
//! numbers of its own (an agent, a cgroup); values of requests, pieces of messages and host names go through it. What sessions were
//! given in answers ([`Given`]) is not counted as their own. Promises: memory and time are bounded whatever a session does; no clock
//! but the one handed in, in milliseconds from any fixed point; time that runs backwards is taken to stand still.

mod apart;
mod budget;
mod chains;
mod door;
mod fragments;
mod given;
mod joined;
mod table;

pub(crate) use apart::Prefixes;
pub use budget::{Budget, BudgetLimits, Spent};
pub use door::{Sent, Sessions};
pub use fragments::{FragmentLimits, Ticket};
pub use given::Given;
pub(crate) use given::Readings;
