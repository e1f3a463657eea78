//! What the proxy counts: connections, what they speak, requests, and TLS on both sides.

use std::sync::LazyLock;
use std::time::Instant;

use super::detect::{DetectError, Protocol};
use super::state::Place;
use crate::flow::{Action, Verdict};
use crate::telemetry::metrics::{Counter, Counters, Gauge, MIDDLE, TimesOf, labels};

labels! {
    /// What became of a connection that was accepted.
    Placed "result" {
        Served = "served",
        MadeRoom = "made_room",
        TurnedAway = "turned_away",
        Cut = "cut",
    }
    /// What a connection speaks.
    Spoken "protocol" {
        Http1 = "http1",
        Http2 = "http2",
        Tls = "tls",
        Unknown = "unknown",
        Silent = "silent",
        Gone = "gone",
    }
    /// What was done with a request.
    Decided "verdict" {
        Allowed = "allow",
        Blocked = "block",
    }
    /// Whose side of TLS.
    Peer "peer" {
        Agent = "agent",
        Destination = "destination",
    }
    /// How a handshake ended.
    Shaken "result" {
        Done = "done",
        Failed = "failed",
    }
    /// By which transport something came that no flow accounts for.
    Transport "transport" {
        Tcp = "tcp",
        Dns = "dns",
    }
    /// Whose rate there was no room in.
    Rationed "of" {
        Rule = "rule",
        Connection = "connection",
        Identity = "identity",
        Name = "name",
    }
    /// What there was no room for.
    Scarce "what" {
        Requests = "requests",
        BytesOut = "bytes_out",
        BytesIn = "bytes_in",
    }
    /// Where a request found its connection.
    Found "connection" {
        New = "new",
        Kept = "kept",
    }
}

impl Placed {
    pub(super) fn of(place: &Place) -> Self {
        match place {
            Place::Free(_) => Self::Served,
            Place::Soon(_) => Self::MadeRoom,
            Place::LastWords(_) => Self::TurnedAway,
            Place::None => Self::Cut,
        }
    }
}

impl Spoken {
    pub(super) fn of(detected: &Result<Protocol, DetectError>) -> Self {
        match detected {
            Ok(Protocol::Http1) => Self::Http1,
            Ok(Protocol::Http2) => Self::Http2,
            Ok(Protocol::Tls) => Self::Tls,
            Ok(Protocol::Unknown) => Self::Unknown,
            Err(DetectError::Timeout) => Self::Silent,
            Err(DetectError::Closed) => Self::Gone,
        }
    }
}

impl Decided {
    pub(super) fn of(verdict: &Verdict) -> Self {
        match verdict.action {
            Action::Allow => Self::Allowed,
            Action::Block => Self::Blocked,
        }
    }
}

/// A handshake, counted and timed when it is over: as done where it says so, else as failed, also when whoever waits for it gives up.
pub(super) struct Handshake {
    peer: Peer,
    start: Instant,
    shaken: Shaken,
}

impl Handshake {
    pub(super) fn begin(peer: Peer) -> Self {
        Self { peer, start: Instant::now(), shaken: Shaken::Failed }
    }

    pub(super) fn done(mut self) {
        self.shaken = Shaken::Done;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        COUNTS.handshakes.add((self.peer, self.shaken));
        COUNTS.handshake_seconds.since(self.peer, self.start);
    }
}

/// The families.
pub(crate) struct Counts {
    pub(super) connections: Counters<Placed>,
    pub(crate) without_origin: Counters<Transport>,
    pub(super) detected: Counters<Spoken>,
    pub(super) request_seconds: TimesOf<Decided>,
    pub(super) rationed: Counters<(Rationed, Scarce)>,
    pub(super) sent_on: Counters<Found>,
    handshakes: Counters<(Peer, Shaken)>,
    handshake_seconds: TimesOf<Peer>,
    pub(super) minted: Counter,
    pub(super) certificates: Gauge,
}

/// The families of this process.
pub(crate) static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    connections: Counters::new(
        "pipelock_connections_total",
        "Connections of agents that were accepted, by whether they found a place.",
    ),
    without_origin: Counters::new(
        "pipelock_refused_without_origin_total",
        "Connections and DNS questions that no flow of the kernel accounts for: somebody outside knocks at the proxy.",
    ),
    detected: Counters::new("pipelock_detected_protocols_total", "What was told from the first bytes of a connection."),
    request_seconds: TimesOf::new(
        "pipelock_request_duration_seconds",
        "From the head of a request until its answer was released, its receipt written.",
        MIDDLE,
    ),
    rationed: Counters::new(
        "pipelock_rates_exceeded_total",
        "Requests that were refused, and connections that were cut, because a rate of the policy had no room.",
    ),
    sent_on: Counters::new(
        "pipelock_upstream_requests_total",
        "Requests that were sent, on a new connection or one that was kept.",
    ),
    handshakes: Counters::new("pipelock_tls_handshakes_total", "TLS handshakes where TLS is opened."),
    handshake_seconds: TimesOf::new(
        "pipelock_tls_handshake_duration_seconds",
        "How long TLS handshakes took, also in vain.",
        MIDDLE,
    ),
    minted: Counter::new("pipelock_tls_certificates_minted_total", "Certificates that were made for hosts."),
    certificates: Gauge::new("pipelock_tls_certificates_cached", "Hosts whose certificates are kept."),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_counted_once_however_it_ends() {
        let counted = |shaken| COUNTS.handshakes.get((Peer::Destination, shaken));
        let before = counted(Shaken::Failed);
        drop(Handshake::begin(Peer::Destination));
        assert!(counted(Shaken::Failed) > before);
        let before = counted(Shaken::Done);
        Handshake::begin(Peer::Destination).done();
        assert!(counted(Shaken::Done) > before);
    }
}
