//! What all requests for one client have in common: those of its connection, and those that doors make for it.
//!
//! Held by the session of the connection and by those of its errands. It promises that one clock, one set of budgets and one
//! set of connections to destinations count for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::upstream::{Carrier, Upstreams};
use crate::flow::{PolicyId, Reason, Verdict, locked};
use crate::policy::Rule;
use crate::proxy::idle::Activity;
use crate::proxy::listen::budget_of;
use crate::proxy::meter::{Budget, Meter};
use crate::proxy::state::Rules;
use crate::recorder::RequestRecord;

/// It.
pub(super) struct Shared {
    /// When either side was last heard of.
    pub(super) activity: Arc<Activity>,
    /// Connections to destinations, in the clear and in TLS: with the same name and port they are others.
    upstreams: [Upstreams; 2],
    /// What has been used of the budgets of rules, by policy and rule.
    meters: Mutex<HashMap<(PolicyId, String), Arc<Meter>>>,
    /// For rules without a budget.
    unlimited: Arc<Meter>,
    /// The last receipt about a request, where no flow says what became of the connection.
    latest: Mutex<Option<RequestRecord>>,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            activity: Activity::new(),
            upstreams: Default::default(),
            meters: Mutex::default(),
            unlimited: Meter::new(Budget::default()),
            latest: Mutex::default(),
        })
    }

    /// What is open to destinations that are spoken to so.
    pub(super) fn upstreams(&self, carrier: Carrier) -> &Upstreams {
        let [plain, secure] = &self.upstreams;
        if carrier.is_tls { secure } else { plain }
    }

    /// What has been used of the budget of the rule that allowed a request.
    pub(super) fn meter(&self, rules: &Rules, rule: &Rule) -> Arc<Meter> {
        let budget = budget_of(rule);
        if budget == Budget::default() {
            return self.unlimited.clone();
        }
        let key = (rules.policy.id().clone(), rule.label());
        let mut meters = locked(&self.meters);
        meters.entry(key).or_insert_with(|| Meter::new(budget)).clone()
    }

    /// That something was over a budget, if it was.
    pub(super) fn over_budget(&self) -> Option<Verdict> {
        let meters = locked(&self.meters);
        let ((_, rule), _) = meters.iter().find(|(_, meter)| meter.was_refused())?;
        let cut = Verdict::let_out(Reason::BudgetExceeded, "what was over the budget was cut or refused");
        Some(cut.by(Some(rule.clone())))
    }

    /// That the answer to this request was, if it was.
    pub(super) fn cut_for_budget(&self, record: &RequestRecord) -> Option<Verdict> {
        let key = (record.policy.clone(), record.verdict.rule.clone()?);
        let is_over = locked(&self.meters).get(&key).is_some_and(|meter| meter.was_refused());
        is_over.then(|| Verdict::let_out(Reason::BudgetExceeded, "the answer was cut").by(Some(key.1)))
    }

    /// Keeps a receipt that is written.
    pub(super) fn told(&self, record: &RequestRecord) {
        *locked(&self.latest) = Some(record.clone());
    }

    /// The last that was.
    pub(super) fn latest(&self) -> Option<RequestRecord> {
        locked(&self.latest).clone()
    }
}
