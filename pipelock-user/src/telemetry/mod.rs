//! What an operator sees of a session: the log, the metrics, and the listener that hands them out.
//!
//! `log` is started by `cli`; `metrics` holds what every room above counts, in families of its own; `admin` is started by
//! `app`. It promises that no word of a label, and no field of a decision's event, comes from who is being watched.

mod admin;
mod log;
pub mod metrics;

pub use admin::{Admin, Door, DoorError, Health, Subject, TokenHash};
pub use log::{LogFormat, init, is_told, plain_host, plain_method};
