//! What is found in a message when its receipt may be written already: a body that is cut, or that was only noted.
//!
//! Made by `serve` for each request that is read, shared with its bodies. It promises that what ends a body is in a receipt:
//! in that of the request, when it comes before, else in one of its own.

use std::sync::{Arc, Mutex, Weak};

use tokio::task::JoinHandle;

use crate::flow::{FlowGuard, Found, Verdict, locked};
use crate::proxy::state::Proxy;
use crate::recorder::RequestRecord;

/// Findings that one receipt names at most.
const MOST: usize = 32;

/// The word after the receipt.
pub(super) struct Afterword {
    proxy: Arc<Proxy>,
    /// Weak: a body may outlive the connection, and must not keep the flow open.
    guard: Option<Weak<Mutex<FlowGuard>>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What cut a body.
    cut: Option<(Verdict, &'static str)>,
    /// What was found and let go on.
    noted: Vec<Found>,
    /// The receipt of the request, once it is written.
    written: Option<RequestRecord>,
    /// Write the receipts that come after it.
    adding: Vec<JoinHandle<()>>,
}

impl Afterword {
    pub(super) fn new(proxy: &Arc<Proxy>, guard: Option<&Arc<Mutex<FlowGuard>>>) -> Arc<Self> {
        Arc::new(Self { proxy: proxy.clone(), guard: guard.map(Arc::downgrade), state: Mutex::default() })
    }

    /// A body was cut: `part` says which.
    pub(super) fn cut(&self, verdict: Verdict, part: &'static str) {
        let record = {
            let mut state = locked(&self.state);
            if state.cut.is_some() {
                return;
            }
            state.cut = Some((verdict.clone(), part));
            state.written.clone()
        };
        if let Some(record) = record {
            self.begin(self.add(record, verdict, part));
        }
    }

    /// What cut a body, once its receipt is written: for who is told of it apart from the body.
    pub(super) async fn cut_told(&self) -> Option<Verdict> {
        self.added().await;
        self.verdict()
    }

    /// Waits until the receipts that came after that of the request are written.
    pub(super) async fn added(&self) {
        let adding = std::mem::take(&mut locked(&self.state).adding);
        for receipt in adding {
            let _ = receipt.await;
        }
    }

    /// Writes a receipt, whoever waits for it.
    fn begin(&self, adding: impl Future<Output = ()> + Send + 'static) {
        let mut state = locked(&self.state);
        state.adding.retain(|adding| !adding.is_finished());
        state.adding.push(tokio::spawn(adding));
    }

    /// The same for what the agent is told of only when the receipt is written.
    pub(super) async fn cut_written(&self, verdict: Verdict, part: &'static str) {
        let record = {
            let mut state = locked(&self.state);
            state.cut.get_or_insert((verdict.clone(), part));
            state.written.clone()
        };
        if let Some(record) = record {
            self.add(record, verdict, part).await;
        }
    }

    /// Something was found in a body and let go on.
    pub(super) fn note(&self, found: Vec<Found>, part: &'static str) {
        if found.is_empty() {
            return;
        }
        let record = {
            let mut state = locked(&self.state);
            match state.written.clone() {
                Some(record) => record,
                None => {
                    let room = MOST.saturating_sub(state.noted.len());
                    state.noted.extend(found.into_iter().take(room));
                    return;
                }
            }
        };
        let verdict = Verdict::allow(record.verdict.reason, record.verdict.rule.clone()).with(found);
        self.begin(self.add(record, verdict, part));
    }

    /// True once a body was cut.
    pub(super) fn is_cut(&self) -> bool {
        locked(&self.state).cut.is_some()
    }

    /// What cut the request before its receipt was written.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        locked(&self.state).cut.as_ref().map(|(verdict, _)| verdict.clone())
    }

    /// What was noted until now, for the receipt of the request.
    pub(super) fn take_noted(&self) -> Vec<Found> {
        std::mem::take(&mut locked(&self.state).noted)
    }

    /// The receipt of the request is written: what comes now has one of its own.
    pub(super) fn written(&self, record: &RequestRecord) {
        let (cut, noted) = {
            let mut state = locked(&self.state);
            state.written = Some(record.clone());
            // What the receipt itself says is not said again.
            let cut = if record.verdict.is_block() { None } else { state.cut.clone() };
            (cut, std::mem::take(&mut state.noted))
        };
        if let Some((verdict, part)) = cut {
            self.begin(self.add(record.clone(), verdict, part));
        }
        self.note(noted, "request body");
    }

    /// Queues a receipt; what it resolves to waits until it is written.
    fn add(
        &self,
        record: RequestRecord,
        verdict: Verdict,
        part: &'static str,
    ) -> impl Future<Output = ()> + Send + use<> {
        if verdict.is_block()
            && let Some(guard) = self.guard.as_ref().and_then(Weak::upgrade)
        {
            locked(&guard).end(Verdict { findings: Vec::new(), ..verdict.clone() });
        }
        let record = RequestRecord { verdict, part: Some(part), ..record };
        // In the queue when this returns; if it cannot be written, that is counted, and nothing more is let through.
        let queued = self.proxy.recorder.queue_request(&record);
        async move {
            let _ = queued.await;
        }
    }
}
