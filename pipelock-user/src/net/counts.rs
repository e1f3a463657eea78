//! What the net room counts: connections that were asked of it.

use std::sync::LazyLock;

use super::way::ConnectError;
use crate::flow::Reason;
use crate::telemetry::metrics::{Counters, MIDDLE, Times, labels};

labels! {
    /// What became of a connection to a destination.
    Connected "result" {
        Open = "open",
        Unresolved = "resolve_failed",
        Inside = "ssrf_denied",
        Denied = "address_denied",
        Failed = "dial_failed",
        Hop = "hop_failed",
    }
}

impl Connected {
    pub(super) fn of<T>(result: &Result<T, ConnectError>) -> Self {
        match result.as_ref().map_err(ConnectError::reason) {
            Ok(_) => Self::Open,
            Err(Reason::ResolveFailed) => Self::Unresolved,
            Err(Reason::SsrfDenied) => Self::Inside,
            Err(Reason::AddressDenied) => Self::Denied,
            Err(Reason::HopFailed) => Self::Hop,
            Err(_) => Self::Failed,
        }
    }
}

/// The families.
pub(crate) struct Counts {
    pub(super) connects: Counters<Connected>,
    pub(super) seconds: Times,
}

/// The families of this process.
pub(crate) static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    connects: Counters::new("pipelock_upstream_connects_total", "Connections to destinations that were tried."),
    seconds: Times::new(
        "pipelock_upstream_connect_duration_seconds",
        "How long finding and connecting to a destination took, also in vain.",
        MIDDLE,
    ),
});
