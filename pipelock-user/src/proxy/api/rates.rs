//! How often a client may ask: buckets that fill as time goes by.
//!
//! Asked by `api` before a question is read. It promises bounded memory, whoever asks.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::flow::locked;

/// Questions at once.
pub(super) const BURST: u32 = 50;
/// Questions a minute, …
pub(super) const A_MINUTE: u32 = 600;
/// … so that one more becomes free in this time.
const EACH: Duration = Duration::from_secs(60).checked_div(A_MINUTE).expect("not zero");
/// Clients that are told apart.
const MOST: usize = 4096;

/// The buckets: until when each client has used its time up.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Rates(Mutex<HashMap<String, Instant>>);

impl Rates {
    /// Takes a question's worth of a client's time.
    ///
    /// # Errors
    /// How long to wait.
    pub(in crate::proxy) fn take(&self, client: &str, now: Instant) -> Result<(), Duration> {
        let mut used = locked(&self.0);
        if used.len() >= MOST && !used.contains_key(client) {
            used.retain(|_, until| *until > now);
            if used.len() >= MOST {
                return Err(EACH);
            }
        }
        let until = used.entry(client.to_owned()).or_insert(now);
        let next = (*until).max(now) + EACH;
        match next.saturating_duration_since(now).checked_sub(EACH * BURST) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *until = next;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert_eq!((0..100).filter(|_| rates.take("a", now).is_ok()).count(), 50);
        assert_eq!(rates.take("a", now), Err(EACH));
        assert!(rates.take("b", now).is_ok(), "another's is another's");
        assert_eq!((0..9).filter(|_| rates.take("a", now + 2 * EACH).is_ok()).count(), 2);
        assert_eq!((0..99).filter(|_| rates.take("a", now + Duration::from_secs(60)).is_ok()).count(), 50);
    }

    #[test]
    fn many_clients_take_bounded_room() {
        let (rates, now) = (Rates::default(), Instant::now());
        let taken = (0..2 * MOST).filter(|client| rates.take(&client.to_string(), now).is_ok()).count();
        assert_eq!((taken, locked(&rates.0).len()), (MOST, MOST));
        assert!(rates.take("new", now + EACH).is_ok(), "those that are idle make room");
    }
}
