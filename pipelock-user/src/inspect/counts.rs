//! What the scanner costs and how much it reads.

use std::sync::LazyLock;
use std::time::Instant;

use super::terms::Side;
use crate::telemetry::metrics::{Counters, Gauge, SHORT, TimesOf, labels};

labels! {
    /// What is read.
    Place "place" {
        Url = "url",
        Name = "name",
        Headers = "headers",
        Body = "body",
        Message = "message",
    }
    /// Which way it goes.
    Direction "direction" {
        Out = "out",
        In = "in",
    }
}

/// The families.
pub(crate) struct Counts {
    seconds: TimesOf<Place>,
    bytes: Counters<Direction>,
    pub(super) is_ready: Gauge,
}

/// The families of this process.
pub(crate) static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    seconds: TimesOf::new(
        "pipelock_scan_duration_seconds",
        "How long reading took: of a URL, a name, the headers of a message, a piece of a body, a WebSocket message.",
        SHORT,
    ),
    bytes: Counters::new("pipelock_scan_bytes_total", "Bytes of bodies and messages that were read."),
    is_ready: Gauge::new(
        "pipelock_scanner_ready",
        "1 once the scanner is loaded; 0 before, when it cannot be, and when no rule wants it.",
    ),
});

impl Counts {
    /// Bytes that are read.
    pub(super) fn read(&self, side: Side, bytes: usize) {
        let direction = if side.is_outbound() { Direction::Out } else { Direction::In };
        self.bytes.add_by(direction, bytes as u64);
    }
}

/// Measures from its making to its end.
pub(super) struct Timed(Place, Instant);

impl Timed {
    pub(super) fn new(place: Place) -> Self {
        Self(place, Instant::now())
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        COUNTS.seconds.since(self.0, self.1);
    }
}
