//! Locking a mutex that others may have poisoned. Called by every room that shares a value between threads.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic elsewhere while the lock was held: for values that each holder leaves whole, so that a
/// panic in between cannot have left them half changed.
pub fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
