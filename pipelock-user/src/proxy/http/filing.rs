//! What a session writes down: the receipt of each request, and what its flow is to say.
//!
//! Called by `serve`, `converse` and the doors. It promises that the flow and the receipt say the same; the log
//! follows the receipt.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::serve::Session;
use crate::flow::{Flow, Origin, PolicyId, Reached, Reason, Verdict, locked};
use crate::recorder::RequestRecord;

impl Session {
    /// The flow, with who its client has shown to be.
    pub(super) fn identified(&self) -> Arc<Flow> {
        match self.identity.get() {
            None => self.flow.clone(),
            Some(identity) => {
                let origin = Origin { identity: Some(identity.clone()), ..self.flow.origin.clone() };
                Arc::new(Flow { origin, ..(*self.flow).clone() })
            }
        }
    }

    /// Takes note of who asks. A connection is one client's.
    pub(super) fn identify(&self, identity: Option<Arc<str>>) -> Result<(), Verdict> {
        let Some(identity) = identity else { return Ok(()) };
        if *self.identity.get_or_init(|| identity.clone()) == identity {
            return Ok(());
        }
        Err(Verdict::block(Reason::IdentityRequired, "the connection is another client's; open one of your own"))
    }

    /// Says in the flow's receipt that a body was cut, which the request's receipt may be too early for.
    pub(super) fn note_budgets(&self) {
        let meters = locked(&self.meters);
        let over = meters.iter().find(|(_, meter)| meter.was_refused());
        if let (Some(((_, rule), _)), Some(guard)) = (over, &self.guard) {
            let cut = Verdict::let_out(Reason::BudgetExceeded, "what was over the budget was cut or refused")
                .by(Some(rule.clone()));
            locked(guard).end(cut);
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
        self.proxy.recorder.request(record).await.map_err(unwritten)
    }

    pub(super) fn note(&self, policy: &PolicyId, verdict: &Verdict) {
        if let Some(guard) = &self.guard {
            let mut guard = locked(guard);
            guard.count_request();
            guard.decided_by(policy);
            guard.note(verdict);
        }
    }

    /// Writes down the verdict on something that goes nowhere; the verdict to tell.
    pub(in crate::proxy) async fn tell(
        &self,
        transport: &'static str,
        method: &str,
        target: &str,
        verdict: Verdict,
    ) -> Verdict {
        let policy = self.proxy.rules().policy.id().clone();
        let record = self.record(&policy, method.to_owned(), target.to_owned(), &verdict, Some(200), None);
        match self.file(&RequestRecord { transport, ..record }).await {
            Ok(()) => verdict,
            Err(unwritten) => unwritten,
        }
    }

    /// Whom to count questions for: the name, else the address.
    pub(in crate::proxy) fn client(&self) -> String {
        let address = || self.flow.target.original.ip().to_string();
        self.identity.get().map_or_else(address, |name| format!("={name}"))
    }

    /// Refuses something that a door could not read, with a receipt; the verdict to tell.
    pub(in crate::proxy) async fn refuse(
        &self,
        transport: &'static str,
        method: &Method,
        path: &str,
        verdict: Verdict,
        status: StatusCode,
    ) -> Verdict {
        let policy = self.proxy.rules().policy.id().clone();
        let record = self.record(&policy, method.to_string(), path.to_owned(), &verdict, Some(status.as_u16()), None);
        match self.file(&RequestRecord { transport, ..record }).await {
            Ok(()) => verdict,
            Err(unwritten) => unwritten,
        }
    }
}
