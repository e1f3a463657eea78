//! Bounds how many frames of HTTP/2 an agent may send that carry nothing: PING and SETTINGS, which want an answer each,
//! PRIORITY, WINDOW_UPDATE, RST_STREAM, what nobody knows, DATA that is empty or padding only.
//!
//! Told by `witness` of every frame, and asked whether to go on, since hyper takes them all. It promises that there is an end
//! to them ([`Pace::is_exceeded`]), and that they do not count against a client which also asks or is answered: two for each frame
//! of these.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::flow::locked;

/// Such frames that may come at once; as many as others let wait (nghttp2, Envoy: 1,000).
const BURST: u32 = 1000;
/// How many more may come for each frame that carries something: a window for the stream and one for the connection.
const EARNED: u32 = 2;
/// How long until one more may come.
const EACH: Duration = Duration::from_millis(50);
/// Types of frames (RFC 9113 §6), the flag that is ACK and END_STREAM.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const FLAG: u8 = 1;

/// What a connection has left.
#[derive(Debug)]
pub(super) struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    left: u32,
    /// Until when time was counted.
    counted: Instant,
    is_exceeded: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(State { left: BURST, counted: Instant::now(), is_exceeded: false }))
    }
}

impl Pace {
    /// True once there were too many.
    pub(super) fn is_exceeded(&self) -> bool {
        locked(&self.0).is_exceeded
    }

    /// No more of it: the connection ends.
    pub(super) fn exceed(&self) {
        locked(&self.0).is_exceeded = true;
    }

    /// The agent has sent a frame with so many bytes in it, padding left out.
    pub(super) fn received(&self, kind: u8, flags: u8, length: usize) {
        match kind {
            HEADERS => self.earn(),
            DATA if length > 0 => self.earn(),
            // The end of a body, at most one for each HEADERS.
            DATA if flags & FLAG != 0 => {}
            // Answers to ours, and what is bounded elsewhere: by the length of heads, or since it ends the connection.
            PING | SETTINGS if flags & FLAG != 0 => {}
            CONTINUATION | GOAWAY => {}
            _ => self.spend(),
        }
    }

    /// A frame was sent to the agent: clients measure the way with a PING for what they get.
    pub(super) fn sent(&self, kind: u8) {
        if matches!(kind, DATA | HEADERS) {
            self.earn();
        }
    }

    fn earn(&self) {
        let mut state = locked(&self.0);
        state.left = BURST.min(state.left + EARNED);
    }

    fn spend(&self) {
        let mut state = locked(&self.0);
        let earned = state.counted.elapsed().as_millis() / EACH.as_millis();
        if let Some(earned) = u32::try_from(earned).ok().filter(|earned| *earned > 0) {
            state.left = BURST.min(state.left.saturating_add(earned));
            state.counted = Instant::now();
        }
        match state.left.checked_sub(1) {
            Some(left) => state.left = left,
            None => state.is_exceeded = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_has_an_end_and_what_a_client_needs_has_none() {
        for (kind, length) in [(PING, 8), (SETTINGS, 6), (2, 5), (3, 4), (8, 4), (77, 3), (DATA, 0)] {
            let pace = Pace::default();
            (0..BURST).for_each(|_| pace.received(kind, 0, length));
            // Time makes room for a few.
            tokio::time::sleep(20 * EACH).await;
            (0..20).for_each(|_| pace.received(kind, 0, length));
            assert!(!pace.is_exceeded(), "{kind}");
            pace.received(kind, 0, length);
            assert!(pace.is_exceeded(), "{kind}");
        }
        // One for each thing that was asked, and for each that was answered, and what counts nothing.
        let pace = Pace::default();
        for _ in 0..3 * BURST {
            pace.received(HEADERS, 4, 3);
            pace.received(DATA, FLAG, 0);
            pace.received(PING, 0, 8);
            pace.received(PING, FLAG, 8);
            pace.sent(DATA);
            pace.received(PING, 0, 8);
            pace.received(8, 0, 4);
            pace.received(3, 0, 4);
        }
        assert!(!pace.is_exceeded());
    }
}
