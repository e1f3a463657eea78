//! Several short pieces of work for the kernel at once. Used by `load` (maps) and `hooks` (programs), whose calls take the
//! kernel milliseconds each.
//!
//! It promises that its threads are gone when it returns, since capabilities are dropped after it, and that where none can
//! be started the calling one does it all.

use std::sync::{Mutex, PoisonError};

/// More threads than this gain nothing: the largest piece of work is what is waited for.
const MAX_THREADS: usize = 4;

/// Does `each` for all of `work`, and answers in its order. What is last is begun first.
pub(super) fn side_by_side<T: Send, R: Send>(work: Vec<T>, each: impl Fn(T) -> R + Sync) -> Vec<R> {
    let results = Mutex::new(work.iter().map(|_| None).collect::<Vec<Option<R>>>());
    let work = Mutex::new(work);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let run = || {
        loop {
            let mut waiting = work.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(next) = waiting.pop() else { break };
            let index = waiting.len();
            drop(waiting);
            let result = each(next);
            if let Some(slot) = results.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
                *slot = Some(result);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let started = std::thread::Builder::new().name("load".into()).spawn_scoped(scope, run);
            if started.is_err() {
                break;
            }
        }
        run();
    });
    // All are there: a thread that panicked has made the scope panic.
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_stand_in_the_order_of_the_work() {
        assert_eq!(side_by_side((0..100).collect(), |number| number * 2), (0..200).step_by(2).collect::<Vec<_>>());
        assert!(side_by_side(Vec::<u8>::new(), |number| number).is_empty());
    }
}
