//! What an operator sees of a session: the log, the metrics, and the listener that hands them out.
//!
//! `log` is started by `cli`; `metrics` holds what every room above counts, in families of its own; `admin` is started by
//! `app`. It promises that no word of a label comes from who is being watched, and of what an event of a decision shows only what
//! `log` says.

mod admin;
mod lines;
mod log;
pub mod metrics;

pub use admin::{Admin, Door, DoorError, Health, Subject, TokenHash};
pub(crate) use lines::COUNTS;
pub use lines::{flush, say, wait_for_nobody};
pub use log::{LogFormat, init, plain_host, plain_method};
