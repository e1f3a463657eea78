//! Writes the evidence: one task owns the signer and the chain, everybody else hands it what happened and waits.
//!
//! Used by the proxy (requests, queries) and by `app` (flows, opening, closing). It promises that what it acknowledged is
//! in the file, in order, signed; that a full queue makes the caller wait and loses nothing; and that after a failed
//! write nothing is acknowledged any more, so that nothing leaves unrecorded.

mod counts;
mod describe;
mod entry;
mod task;
mod told;

pub(crate) use counts::COUNTS;
pub use describe::{Capsule, DenialFacts, FlowFacts, KernelTotals, RequestRecord, SocketRecord, wall_clock};
pub use task::{OpenChain, Place, Queue, Recorder, RecorderConfig, RecorderError, Summary};
