//! Waiting for what other processes do. Used by tests; it promises that nobody waits for ever.

use std::time::{Duration, Instant};

/// Tries until it is so, for a minute at most.
///
/// # Panics
/// When it never was.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
