//! State per session, for a bounded number of sessions.
//!
//! Used by the budget and the fragments. When the table is full the sessions idle for longest make room, a sixteenth of
//! the table at a time, so that a flood of new sessions costs little and cannot push out a busy one.

use std::collections::HashMap;

#[derive(Debug)]
pub(super) struct Table<S> {
    sessions: HashMap<u64, (u64, S)>,
    most: usize,
}

impl<S> Table<S> {
    /// A table of at most `most` sessions, one at least.
    pub(super) fn new(most: usize) -> Self {
        Self { sessions: HashMap::new(), most: most.max(1) }
    }

    /// The session's state, made when it is new.
    pub(super) fn entry(&mut self, session: u64, now: u64, make: impl FnOnce() -> S) -> &mut S {
        if self.sessions.len() >= self.most && !self.sessions.contains_key(&session) {
            self.make_room();
        }
        let (seen, state) = self.sessions.entry(session).or_insert_with(|| (now, make()));
        *seen = (*seen).max(now);
        state
    }

    fn make_room(&mut self) {
        let mut seen: Vec<u64> = self.sessions.values().map(|(seen, _)| *seen).collect();
        let leave = (self.most / 16).clamp(1, seen.len());
        let (_, &mut limit, _) = seen.select_nth_unstable(leave - 1);
        // Among sessions of the same age any may go, but no more than asked for.
        let mut left = leave;
        self.sessions.retain(|_, (seen, _)| {
            let goes = left > 0 && *seen <= limit;
            left -= usize::from(goes);
            !goes
        });
    }

    /// Forgets a session that ended.
    pub(super) fn remove(&mut self, session: u64) {
        self.sessions.remove(&session);
    }

    /// How many sessions are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stays_bounded_and_keeps_the_busy() {
        let mut table = Table::new(32);
        for now in 0..1000 {
            *table.entry(7, now, || 0) += 1;
            table.entry(1000 + now, now, || 0);
            assert!(table.len() <= 32);
        }
        assert_eq!(*table.entry(7, 1000, || 0), 1000);
        table.remove(7);
        assert_eq!(*table.entry(7, 1001, || 0), 0);
    }
}
