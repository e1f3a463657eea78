//! Connections that have said nothing yet: where there is no place for another, the oldest of them makes room.
//!
//! Asked by `state` for a place; `listen` signs connections in until their first bytes are there. It promises that whoever
//! opens thousands of connections and says nothing keeps nobody else out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::flow::locked;

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Silence {
    /// Signs a connection in; it is signed out when this is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Silent {
        let (sender, told) = oneshot::channel();
        let mut waiting = locked(&self.0);
        let number = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(number, sender);
        Silent { silence: self.clone(), number, told }
    }

    /// Tells the oldest to go; false when there is none.
    pub(super) fn dismiss(&self) -> bool {
        let mut waiting = locked(&self.0);
        while let Some((_, oldest)) = waiting.by_age.pop_first() {
            if oldest.send(()).is_ok() {
                return true;
            }
        }
        false
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Silent {
    silence: Arc<Silence>,
    number: u64,
    told: oneshot::Receiver<()>,
}

impl Silent {
    /// Waits until it is told to go.
    pub(super) async fn dismissed(&mut self) {
        if (&mut self.told).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        locked(&self.silence.0).by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_is_still_silent_goes() {
        let silence = Arc::<Silence>::default();
        assert!(!silence.dismiss());
        let (first, mut second, mut third) = (silence.enter(), silence.enter(), silence.enter());
        drop(first);
        assert!(silence.dismiss());
        second.dismissed().await;
        assert!(silence.dismiss());
        third.dismissed().await;
        assert!(!silence.dismiss());
    }
}
