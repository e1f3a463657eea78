//! The vocabulary every other room speaks: what a flow is, who opened it, what was decided and why.
//!
//! Used by all rooms above; uses only `pipelock_common`. It promises that a verdict always carries a [`Reason`] with a
//! stable code, and that nothing in here can be turned into "allow" by default.

mod ask;
mod found;
mod guard;
mod host;
mod ident;
mod locked;
mod reached;
mod reason;
mod verdict;

pub use ask::{Answer, Answering, Asked, Asker, Question, shown};
pub use found::Found;
pub use guard::{Account, FlowGuard, Outcome};
pub use host::{Host, HostError};
pub use ident::{Flow, FlowId, Origin, PolicyId, Target};
pub use locked::locked;
pub use reached::Reached;
pub use reason::Reason;
pub use verdict::{Action, Verdict};
