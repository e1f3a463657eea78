//! A share of something for each who asks, so that one does not hold all of it.
//!
//! Held by `ask` for questions that wait and by `fetch` for fetches under way. It promises that nobody has more than a share at a time,
//! and that a share is free again when its holder drops it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::flow::locked;

/// How much everybody holds, by who they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares(Arc<Mutex<HashMap<String, usize>>>);

impl Shares {
    /// One more for somebody who holds fewer than `most`.
    pub(super) fn take(&self, who: String, most: usize) -> Option<Share> {
        let mut counts = locked(&self.0);
        let count = counts.entry(who.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Share { all: self.clone(), who })
    }
}

/// One of somebody's.
#[derive(Debug)]
pub(super) struct Share {
    all: Shares,
    who: String,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = locked(&self.all.0);
        if let Some(count) = counts.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_a_share_and_what_is_given_back_is_free() {
        let shares = Shares::default();
        let take = |who: &str| shares.take(who.to_owned(), 2);
        let (first, second) = (take("a"), take("a"));
        assert!(first.is_some() && second.is_some() && take("a").is_none());
        assert!(take("b").is_some(), "another has a share of its own");
        drop(first);
        assert!(take("a").is_some());
        drop(second);
        assert!(locked(&shares.0).is_empty(), "nothing is kept of those who hold nothing");
    }
}
