//! What a session writes down: the receipt of each request, and what its flow is to say.
//!
//! Called by `serve`, `converse`, `http2`, `explicit`, `reverse`, `errand` and the doors. It promises that the flow and the receipt say the same; the log
//! follows the receipt.

use std::sync::Arc;

use http::StatusCode;

use super::serve::Session;
use crate::flow::{Flow, Origin, PolicyId, Reached, Reason, Verdict, locked};
use crate::proxy::ration::{AGENT, who};
use crate::proxy::state::Rules;
use crate::recorder::RequestRecord;

/// True for what is explained with the path of the request.
pub(super) fn repeats(reason: Reason) -> bool {
    matches!(reason, Reason::PathDenied | Reason::GitDenied | Reason::RequestMalformed)
}

impl Session {
    /// The flow, with who its client has shown to be.
    pub(in crate::proxy) fn identified(&self) -> Arc<Flow> {
        self.identified.get().unwrap_or(&self.flow).clone()
    }

    /// Whose memory the scanner reads with; none for the agent's. What a service's callers send, or is only asked about, is nobody's
    /// own words at another door.
    pub(in crate::proxy) fn remembered(&self, transport: &str) -> Option<String> {
        let who = who(&self.identified());
        match transport {
            _ if who == AGENT => None,
            "reverse" | "scan" => Some(format!("{transport} {who}")),
            _ => Some(who),
        }
    }

    /// Takes note of who asks. A connection is one client's.
    pub(super) fn identify(&self, identity: Option<Arc<str>>) -> Result<(), Verdict> {
        let Some(identity) = identity else { return Ok(()) };
        let flow = self.identified.get_or_init(|| {
            let origin = Origin { identity: Some(identity.clone()), ..self.flow.origin.clone() };
            Arc::new(Flow { origin, ..(*self.flow).clone() })
        });
        if flow.origin.identity.as_ref() == Some(&identity) {
            return Ok(());
        }
        Err(Verdict::block(Reason::IdentityRequired, "the connection is another client's; open one of your own"))
    }

    /// Says what was cut for budgets, which the receipts of the requests came too early for: in the flow's receipt, unless that
    /// says what ended all of it, else in one of their own.
    pub(super) fn note_budgets(&self) {
        for (latest, cut) in self.shared.untold() {
            if let Some(guard) = &self.guard
                && !locked(guard).has_ended()
            {
                locked(guard).end(cut);
                continue;
            }
            let record = RequestRecord { verdict: cut, part: Some("body"), ..latest };
            // In the queue from here on; if it cannot be written, that is counted, and nothing more is let through.
            drop(self.proxy.recorder.queue_request(&record));
        }
    }

    /// Adds a receipt about a part of a message to that of its request; the verdict to tell.
    pub(super) async fn add(&self, record: &RequestRecord, verdict: Verdict, part: &'static str) -> Verdict {
        let record = RequestRecord { verdict: verdict.clone(), part: Some(part), ..record.clone() };
        match self.file(&record).await {
            Ok(()) => verdict,
            Err(unwritten) => unwritten,
        }
    }

    /// Writes down what cut a connection that has no flow to say it in, as a word about its last request.
    pub(super) async fn add_cut(&self, cut: Option<Verdict>, part: &'static str) {
        if let (Some(cut), Some(latest)) = (cut, self.shared.latest()) {
            let _ = self.add(&latest, cut, part).await;
        }
    }

    /// What may be kept of a text of a request that was refused unread, where the policy has anything read: it has placeholders for
    /// secrets. `instead` when nobody can say where they are.
    pub(super) async fn kept(&self, rules: &Rules, text: String, instead: &str) -> String {
        let says_nothing = text.strip_suffix('/').unwrap_or(&text) == instead;
        let Some(inspect) = rules.inspect.as_ref().filter(|_| !says_nothing) else { return text };
        match self.in_time(rules, inspect.ready(self.remembered(self.transport).as_deref())).await {
            Ok(scanners) => scanners.without_secrets(text),
            Err(_) => instead.to_owned(),
        }
    }

    pub(super) fn record(
        &self,
        policy: &PolicyId,
        method: String,
        target: String,
        verdict: &Verdict,
        status: Option<u16>,
        dialled: Option<Reached>,
    ) -> RequestRecord {
        RequestRecord {
            flow: self.identified(),
            policy: policy.clone(),
            transport: self.transport,
            method,
            target,
            verdict: verdict.clone(),
            status,
            dialled,
            part: None,
        }
    }

    /// Notes what was decided, and writes its receipt; else the verdict to tell instead.
    pub(super) async fn file(&self, record: &RequestRecord) -> Result<(), Verdict> {
        self.note(&record.policy, &record.verdict);
        let unwritten = |_| Verdict::block(Reason::RecorderUnavailable, "the receipt could not be written");
        self.proxy.recorder.request(record).await.map_err(unwritten)?;
        self.shared.told(record, self.guard.is_none());
        Ok(())
    }

    pub(super) fn note(&self, policy: &PolicyId, verdict: &Verdict) {
        if let Some(guard) = &self.guard {
            let mut guard = locked(guard);
            guard.count_request();
            guard.decided_by(policy);
            guard.note(verdict);
        }
    }

    /// Writes down the verdict on what a door was asked, and the status of its answer; the verdict to tell.
    pub(in crate::proxy) async fn tell(
        &self,
        transport: &'static str,
        method: &str,
        target: &str,
        verdict: Verdict,
        status: StatusCode,
    ) -> Verdict {
        let rules = self.proxy.rules();
        self.tell_by(rules.policy.id(), (transport, method, target), verdict, status).await
    }

    /// The same for what this policy has decided.
    pub(in crate::proxy) async fn tell_by(
        &self,
        policy: &PolicyId,
        (transport, method, target): (&'static str, &str, &str),
        verdict: Verdict,
        status: StatusCode,
    ) -> Verdict {
        let record = self.record(policy, method.to_owned(), target.to_owned(), &verdict, Some(status.as_u16()), None);
        match self.file(&RequestRecord { transport, ..record }).await {
            Ok(()) => verdict,
            Err(unwritten) => unwritten,
        }
    }
}
