//! What only shows across requests: data that leaks drop by drop, and secrets sent in pieces.
//!
//! The engine keeps one [`Budget`] and one [`Fragments`] for all sessions and names a session by a number of its own (an
//! agent, a cgroup). Promises: memory and time are bounded whatever a session does; no clock but the one handed in, in
//! milliseconds from any fixed point; time that runs backwards is taken to stand still.

mod budget;
mod fragments;
mod table;

pub use budget::{Budget, BudgetLimits, Spent};
pub use fragments::{FragmentLimits, Fragments, Joined};
