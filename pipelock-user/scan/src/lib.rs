//! Bytes in, findings out: the parts of the scanner that need no rule engine.
//!
//! The engine calls [`validate`] for what a pattern matched, [`seed`] and [`wallet`] for what no pattern can tell,
//! [`entropy`] for URLs, [`session`] across requests and [`known`] for values somebody named. All of it is pure: no
//! sockets, no tasks, no policy, no clock but the one handed in.

#![forbid(unsafe_code)]

pub mod entropy;
pub mod known;
pub mod seed;
pub mod session;
pub mod validate;
pub mod wallet;
