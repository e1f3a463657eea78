//! A receipt on its way: from where it is queued until it is in the file and told.
//!
//! Made by the recorder's handle, worked on by its thread. It promises that each is counted and logged exactly once: when it
//! is written, or, dropped before that, as one that has no receipt.

use std::fs::File;
use std::time::Instant;

use pipelock_receipt::{ActionDraft, Appended, ChainError, ChainWriter};
use serde_json::Value;
use tokio::sync::oneshot;

use super::counts::{COUNTS, Counted, Found, Moved};
use super::describe::{FlowFacts, RequestRecord};
use super::told::tell;
use crate::flow::Outcome;

/// One receipt.
pub(super) struct Entry {
    draft: ActionDraft,
    ext: Value,
    counted: Counted,
    found: Vec<Found>,
    queued: Instant,
    /// Who waits for it; none once they were told.
    done: Option<oneshot::Sender<()>>,
    /// Its place, once it is signed.
    receipt: Option<Appended>,
    is_written: bool,
}

impl Entry {
    /// One for this draft, and who says when it is written.
    pub(super) fn new((draft, ext): (ActionDraft, Value), counted: Counted) -> (Box<Self>, oneshot::Receiver<()>) {
        let (done, written) = oneshot::channel();
        let entry = Self {
            draft,
            ext,
            counted,
            found: Vec::new(),
            queued: Instant::now(),
            done: Some(done),
            receipt: None,
            is_written: false,
        };
        (Box::new(entry), written)
    }

    /// One for a request, tunnel or query.
    pub(super) fn of_request(record: &RequestRecord) -> (Box<Self>, oneshot::Receiver<()>) {
        let counted = Counted::request(record.transport, &record.verdict);
        let (mut entry, written) = Self::new(record.draft(), counted);
        entry.found = record.verdict.findings.iter().map(Found::of).collect();
        (entry, written)
    }

    /// One for a flow.
    pub(super) fn of_flow(facts: &FlowFacts, outcome: &Outcome) -> (Box<Self>, oneshot::Receiver<()>) {
        let lasted = facts.closed_ns.checked_sub(facts.opened_ns);
        let moved = Moved { out: facts.tx_bytes, inn: facts.rx_bytes, nanoseconds: lasted };
        Self::new(facts.draft(outcome), Counted::flow(&outcome.verdict, moved))
    }

    /// Gives it its place in the chain, where it waits to be written.
    ///
    /// # Errors
    /// The chain's.
    pub(super) fn sign(&mut self, chain: &mut ChainWriter<File>) -> Result<(), ChainError> {
        let start = Instant::now();
        COUNTS.queue_wait.took(start.saturating_duration_since(self.queued));
        self.receipt = Some(chain.append(&self.draft, Some(&self.ext))?);
        COUNTS.sign.since(start);
        Ok(())
    }

    /// It is in the file.
    pub(super) fn acknowledge(&mut self) {
        self.is_written = true;
        COUNTS.written(self.counted, &self.found);
        if let Some(done) = self.done.take() {
            let _ = done.send(());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.is_written {
            COUNTS.lost.add();
        }
        tell(self.counted, &self.draft, &self.ext, self.receipt.as_ref().filter(|_| self.is_written));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Reason, Verdict};

    #[test]
    fn what_is_dropped_unwritten_is_counted_as_lost_once() {
        let verdict = Verdict::block(Reason::HostDenied, "");
        let entry = || {
            Entry::new((ActionDraft::new("block", "forward", "x"), Value::Null), Counted::request("forward", &verdict))
        };
        let (entry, written) = entry();
        let before = COUNTS.lost.get();
        drop(entry);
        assert!(COUNTS.lost.get() > before);
        assert!(written.blocking_recv().is_err(), "nobody may take it for written");
    }
}
