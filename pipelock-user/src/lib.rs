//! pipelock: egress control for AI agents, enforced by the kernel and proved by signatures.
//!
//! The rooms, lowest first; a room uses only rooms below it, and rooms on one line never see each other:
//!
//! ```text
//! 7 main, cli | 6 app | 5 proxy, sandbox | 4 net | 3 inspect, recorder, kernel
//! 2 policy | 1 flow, telemetry | 0 pipelock-scan, pipelock-receipt, pipelock-common
//! ```

pub mod app;
pub mod cli;
pub mod flow;
pub mod inspect;
pub mod kernel;
pub mod net;
pub mod policy;
pub mod proxy;
pub mod recorder;
pub mod sandbox;
pub mod telemetry;
