//! What the proxy reports of a flow, and the guard that reports it even when the connection is dropped half way.

use std::sync::Arc;

use crate::flow::{FlowId, Host, PolicyId, Reason, Verdict};

/// What the proxy made of a flow.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict on the flow as a whole.
    pub verdict: Verdict,
    /// The name that decided, if one was found (DNS, Host or SNI).
    pub name: Option<Host>,
    /// What the bytes were: `http1`, `tls`, `dns`, `tcp`; empty when nobody looked.
    pub carrier: &'static str,
    /// How many requests or queries it carried.
    pub requests: u64,
    /// The policy that decided, when it is not the one that was in force when the flow opened.
    pub policy: Option<PolicyId>,
    /// The next hop that its bytes went through, if they did; those of requests are in their receipts.
    pub via: Option<Arc<str>>,
}

impl Outcome {
    /// The outcome of a flow that the proxy never saw or lost sight of.
    #[must_use]
    pub fn unseen(reason: Reason) -> Self {
        Self { verdict: Verdict::block(reason, ""), name: None, carrier: "", requests: 0, policy: None, via: None }
    }
}

/// Where flows are accounted for; filled by the kernel's ledger, or by a table in tests.
pub trait Account: Send + Sync {
    /// The proxy takes a connection. False when the flow was given up meanwhile: then it must be dropped.
    fn accept(&self, flow: FlowId) -> bool;
    /// The proxy is done with a flow.
    fn report(&self, flow: FlowId, outcome: Outcome);
}

/// Reports a flow when it is dropped: a hang-up, an error or a cancelled future leaves a report all the same.
pub struct FlowGuard {
    account: Arc<dyn Account>,
    flow: FlowId,
    outcome: Outcome,
    has_ended: bool,
}

impl FlowGuard {
    /// Takes the connection; none when the flow was given up meanwhile.
    #[must_use]
    pub fn open(account: Arc<dyn Account>, flow: FlowId) -> Option<Self> {
        account.accept(flow).then(|| Self {
            account,
            flow,
            outcome: Outcome::unseen(Reason::ClientAborted),
            has_ended: false,
        })
    }

    /// Notes what was decided. One request that was allowed makes the flow an allowed one.
    pub fn note(&mut self, verdict: &Verdict) {
        if self.outcome.verdict.is_block() || !verdict.is_block() {
            self.outcome.verdict = verdict.clone();
        }
    }

    /// Replaces what was decided, for what ends the whole flow.
    pub fn end(&mut self, verdict: Verdict) {
        self.outcome.verdict = verdict;
        self.has_ended = true;
    }

    /// True once something has.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Notes what the bytes are.
    pub fn carries(&mut self, carrier: &'static str) {
        self.outcome.carrier = carrier;
    }

    /// Notes the policy that decides from here on.
    pub fn decided_by(&mut self, policy: &PolicyId) {
        self.outcome.policy = Some(policy.clone());
    }

    /// Notes the name that decided.
    pub fn names(&mut self, name: Host) {
        self.outcome.name = Some(name);
    }

    /// Notes the next hop that its bytes go through.
    pub fn goes_via(&mut self, hop: Option<Arc<str>>) {
        self.outcome.via = hop;
    }

    /// Counts a request or query.
    pub fn count_request(&mut self) {
        self.outcome.requests += 1;
    }
}

impl Drop for FlowGuard {
    fn drop(&mut self) {
        self.account.report(self.flow, self.outcome.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Table(Mutex<Vec<Outcome>>);

    impl Account for Table {
        fn accept(&self, flow: FlowId) -> bool {
            flow.0 != 0
        }
        fn report(&self, _: FlowId, outcome: Outcome) {
            self.0.lock().expect("not poisoned").push(outcome);
        }
    }

    #[tokio::test]
    async fn a_cancelled_connection_is_reported() {
        let table = Arc::new(Table::default());
        let guard = FlowGuard::open(table.clone(), FlowId(1)).expect("accepted");
        let task = tokio::spawn(async move {
            let _held = guard;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        task.abort();
        let _ = task.await;
        let reports = table.0.lock().expect("not poisoned");
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].verdict.reason, Reason::ClientAborted);
    }

    #[test]
    fn a_flow_given_up_is_not_taken() {
        assert!(FlowGuard::open(Arc::new(Table::default()), FlowId(0)).is_none());
    }

    #[test]
    fn one_allowed_request_makes_an_allowed_flow() {
        let table = Arc::new(Table::default());
        let mut guard = FlowGuard::open(table.clone(), FlowId(1)).expect("accepted");
        guard.note(&Verdict::allow(Reason::PolicyAllow, None));
        guard.note(&Verdict::block(Reason::MethodDenied, ""));
        drop(guard);
        assert!(!table.0.lock().expect("not poisoned")[0].verdict.is_block());
    }
}
