//! What a session writes down: the receipt of each request, and what its flow is to say.
//!
//! Called by `serve`, `converse`, `http2`, `explicit`, `reverse`, `errand` and the doors. It promises that the flow and the receipt say the same, and that neither repeats a
//! secret of what the client has chosen; the log follows the receipt.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::reading::Reading;
use super::serve::Session;
use crate::flow::{Flow, Origin, PolicyId, Reached, Reason, Verdict, locked};
use crate::inspect::is_chosen;
use crate::proxy::ration::{AGENT, who};
use crate::proxy::state::Rules;
use crate::recorder::RequestRecord;

/// What is no request has this method.
const NO_METHOD: &str = "-";

/// Where the path of a URL begins, or its end if it has none.
fn end_of_host(url: &str) -> usize {
    let path = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..]));
    url.len() - path.map_or(0, str::len)
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
        let mut record = RequestRecord { verdict, part: Some(part), ..record.clone() };
        match self.file(&self.proxy.rules(), &mut record).await {
            Ok(()) => record.verdict,
            Err(unwritten) => unwritten,
        }
    }

    /// Writes down what cut a connection that has no flow to say it in, as a word about its last request.
    pub(super) async fn add_cut(&self, cut: Option<Verdict>, part: &'static str) {
        if let (Some(cut), Some(latest)) = (cut, self.shared.latest()) {
            let _ = self.add(&latest, cut, part).await;
        }
    }

    /// Takes the secrets out of what the client has chosen of a record, where the policy that decided, or the one in force, has
    /// anything read: there are placeholders for them. Where nobody can say where they are, less of it is kept.
    async fn spare(&self, rules: &Rules, record: &mut RequestRecord) {
        let latest = self.proxy.rules();
        let Some(inspect) = rules.inspect.as_ref().or(latest.inspect.as_ref()) else { return };
        let RequestRecord { method, target, verdict, .. } = record;
        let is_chosen = method != NO_METHOD && is_chosen(method);
        let is_place = target == "-" || self.is_opened() && *target == self.place();
        if is_place && !is_chosen && verdict.detail.is_empty() {
            return;
        }
        let client = self.remembered(self.transport);
        let scanners = tokio::select! {
            // First of all: what has ended meanwhile is told as whole as what has not.
            biased;
            scanners = inspect.known(client.as_deref()) => scanners.ok(),
            _ = self.ended() => None,
        };
        let Some(scanners) = scanners else {
            if is_chosen {
                *method = NO_METHOD.to_owned();
            }
            match verdict.is_block() {
                _ if is_place => {}
                true => *target = self.place(),
                // A rule names the host.
                false => target.truncate(end_of_host(target)),
            }
            // It may repeat words of the request, names of hosts among them.
            verdict.detail.clear();
            return;
        };
        for text in [target, &mut verdict.detail] {
            *text = scanners.without_secrets(std::mem::take(text));
        }
        if is_chosen {
            *method = scanners.without_secrets(std::mem::take(method));
        }
    }

    /// Method and target of a request as somebody may be told of them before it goes on.
    pub(super) async fn tellable(
        &self,
        rules: &Rules,
        reading: Option<&Reading>,
        (method, target): (&Method, String),
    ) -> (String, String) {
        let (method, is_chosen) = (method.to_string(), is_chosen(method.as_str()));
        let scanners = match (reading, &rules.inspect) {
            (Some(reading), _) => Some(reading.scanners().clone()),
            (None, Some(inspect)) => inspect.known(self.remembered(self.transport).as_deref()).await.ok(),
            (None, None) => return (method, target),
        };
        let Some(scanners) = scanners else {
            let end = end_of_host(&target);
            return (
                if is_chosen { NO_METHOD.to_owned() } else { method },
                target.get(..end).unwrap_or_default().to_owned(),
            );
        };
        (if is_chosen { scanners.without_secrets(method) } else { method }, scanners.without_secrets(target))
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

    /// Notes what these rules have decided, and writes its receipt, without the secrets in it; else the verdict to tell instead.
    pub(super) async fn file(&self, rules: &Rules, record: &mut RequestRecord) -> Result<(), Verdict> {
        self.spare(rules, record).await;
        self.file_read(record).await
    }

    /// The same for a record in which the scanner has found no secret.
    pub(super) async fn file_read(&self, record: &RequestRecord) -> Result<(), Verdict> {
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
        self.tell_by(&rules, (transport, method, target), verdict, status).await
    }

    /// The same for what these rules have decided.
    pub(in crate::proxy) async fn tell_by(
        &self,
        rules: &Rules,
        (transport, method, target): (&'static str, &str, &str),
        verdict: Verdict,
        status: StatusCode,
    ) -> Verdict {
        let policy = rules.policy.id();
        let record = self.record(policy, method.to_owned(), target.to_owned(), &verdict, Some(status.as_u16()), None);
        let mut record = RequestRecord { transport, ..record };
        match self.file(rules, &mut record).await {
            Ok(()) => record.verdict,
            Err(unwritten) => unwritten,
        }
    }
}

#[cfg(test)]
#[path = "filing_tests.rs"]
mod tests;
