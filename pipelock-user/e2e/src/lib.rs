//! What the end-to-end tests share: the real binary in real cgroups, servers on both sides of a veth pair, and the
//! evidence as the verifier accepted it.
//!
//! Used by `tests/*.rs` only. Needs root, cgroup2 and `ip`; clients that are missing make a test fail when `CI=true` and
//! print SKIP otherwise. Every run's evidence is verified before a test may look at it, so no test can pass on receipts
//! that `pipelock verify` would refuse.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a harness: what cannot be set up ends the test, with the reason"
)]

mod attached;
mod child;
mod clients;
mod evidence;
mod explicit;
mod git;
mod hops;
mod http;
mod leaks;
mod outside;
mod policies;
mod prometheus;
mod sandbox;
mod sockets;
mod ssh;
mod terminal;
mod tls;
mod waits;

pub use attached::{Attached, OwnCgroup, remove_cgroup};
pub use child::Served;
pub use clients::{find, go_tool, has_node_module, has_python_module, missing, node_path, python_path, schemathesis};
pub use evidence::{Evidence, Flow, Request, pipelock, verify_json};
pub use explicit::{Answered, Explicit};
pub use git::GIT_SITE;
pub use hops::{Hop, LOGIN};
pub use http::{Answer, HttpServer, Seen, echo};
pub use leaks::{SECRET, assert_kept_in, assert_quiet, assert_stopped, holds};
pub use outside::{Outside, PacketCount};
pub use policies::web_policy;
pub use prometheus::{Prometheus, Series, free_address, page, promtool};
pub use sandbox::{Run, Running, Sandbox};
pub use sockets::web_sockets;
pub use ssh::SshServer;
pub use terminal::on_terminal;
pub use tls::TlsServer;
pub use waits::until;

/// Skips the test (or fails it in CI) when a program is not there.
#[macro_export]
macro_rules! need {
    ($($program:expr),+ $(,)?) => {
        $(if $crate::find($program).is_none() {
            $crate::missing($program);
            return;
        })+
    };
}
