//! What all requests for one client have in common: those of its connection, and those that doors make for it.
//!
//! Held by the session of the connection and by those of its errands. It promises that one clock, one set of budgets and rates and one
//! set of connections to destinations count for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::upstream::{Carrier, Upstreams};
use crate::flow::{Flow, Host, PolicyId, Reason, Verdict, locked};
use crate::policy::{Policy, Rates, RatesOfAll, Rule};
use crate::proxy::idle::Activity;
use crate::proxy::listen::budget_of;
use crate::proxy::meter::{Budget, Meter};
use crate::proxy::presence::Presence;
use crate::proxy::ration::{Ration, Whose, who};
use crate::proxy::state::Proxy;
use crate::recorder::RequestRecord;

/// It.
pub(super) struct Shared {
    /// When either side was last heard of.
    pub(super) activity: Arc<Activity>,
    /// Whether the client is still there.
    pub(super) presence: Presence,
    /// Connections to destinations, in the clear and in TLS: with the same name and port they are others.
    upstreams: [Upstreams; 2],
    /// What has been used of the budgets of rules, by policy and rule.
    meters: Mutex<HashMap<(PolicyId, String), Used>>,
    /// For rules without a budget.
    unlimited: Arc<Meter>,
    /// What is used of the rates of connections, and which these are.
    own: Mutex<Option<(Rates, Arc<Ration>)>>,
    /// The last receipt about a request, where no flow says what became of the connection.
    latest: Mutex<Option<RequestRecord>>,
}

/// What has been used of the budget of a rule.
struct Used {
    /// What the rule is for, and the budget.
    of: (String, Budget),
    meter: Arc<Meter>,
    /// The last receipt about a request that it counts for.
    latest: Option<RequestRecord>,
}

impl Shared {
    pub(super) fn new(proxy: &Proxy) -> Arc<Self> {
        Arc::new(Self {
            activity: Activity::new(),
            presence: Presence::default(),
            upstreams: [Upstreams::new(&proxy.pool), Upstreams::new(&proxy.pool)],
            meters: Mutex::default(),
            unlimited: Meter::new(Budget::default()),
            own: Mutex::default(),
            latest: Mutex::default(),
        })
    }

    /// What is open to destinations that are spoken to so.
    pub(super) fn upstreams(&self, carrier: Carrier) -> &Upstreams {
        let [plain, secure] = &self.upstreams;
        if carrier.is_tls { secure } else { plain }
    }

    /// What has been used of the budget of the rule that allowed a request to a name, and of the rates that it counts for.
    pub(super) fn meter(
        &self,
        proxy: &Proxy,
        policy: &Policy,
        (rule, host): (&Rule, &Host),
        flow: &Flow,
    ) -> Arc<Meter> {
        let budget = budget_of(rule);
        if budget == Budget::default() && rule.rates().is_none() && *policy.rates() == RatesOfAll::default() {
            return self.unlimited.clone();
        }
        let rations = || proxy.rations.of_all(policy, rule, who(flow), self.own(policy));
        let key = (policy.id().clone(), rule.label());
        let mut meters = locked(&self.meters);
        // A reload that leaves a budget as it is forgets nothing of what was used.
        let of = || (rule.place(), budget);
        let former = match meters.contains_key(&key) {
            true => None,
            false => {
                let of = of();
                let same = |((other, _), used): &(&(PolicyId, String), &Used)| other != policy.id() && used.of == of;
                meters.iter().find(same).map(|(_, used)| used.meter.clone())
            }
        };
        let used = meters.entry(key).or_insert_with(|| {
            let meter = match former {
                Some(former) => former.under(rations()),
                None => Meter::rationed(budget, rations()),
            };
            Used { of: of(), meter, latest: None }
        });
        used.meter.and(proxy.rations.of_name(policy, host))
    }

    /// The same for a request that is only asked about: it uses nothing, time neither.
    pub(super) fn known_meter(&self, policy: &Policy, rule: &Rule) -> Arc<Meter> {
        let meters = locked(&self.meters);
        let used = meters.get(&(policy.id().clone(), rule.label()));
        used.map_or(&self.unlimited, |used| &used.meter).clone()
    }

    /// The connection's own ration, which outlives a policy that says the same of it.
    pub(super) fn own(&self, policy: &Policy) -> Option<Arc<Ration>> {
        let rates = policy.rates().connection?;
        let mut own = locked(&self.own);
        match &*own {
            Some((former, ration)) if *former == rates => Some(ration.clone()),
            _ => Some(own.insert((rates, Ration::new(Whose::Connection, rates))).1.clone()),
        }
    }

    /// What was cut for budgets and rates and no receipt says, each with the last request that it may have been; it counts as told.
    pub(super) fn untold(&self) -> Vec<(RequestRecord, Verdict)> {
        let mut meters = locked(&self.meters);
        let untold = meters.iter_mut().filter(|(_, used)| used.meter.is_untold());
        untold
            .filter_map(|((_, rule), used)| {
                used.meter.tell();
                let cut = used.meter.cut("what was over the budget was cut").by(Some(rule.clone()));
                Some((used.latest.clone()?, cut))
            })
            .collect()
    }

    /// That the answer to this request was cut for its budget, if it was since then.
    pub(super) fn cut_for_budget(&self, record: &RequestRecord, since: Instant) -> Option<Verdict> {
        let key = (record.policy.clone(), record.verdict.rule.clone()?);
        let meters = locked(&self.meters);
        let used = meters.get(&key).filter(|used| used.meter.was_cut(since))?;
        Some(used.meter.cut("the answer was cut").by(Some(key.1)))
    }

    /// Keeps a receipt that is written, where something later may be about it: of a connection `without_flow` all that cuts it is.
    pub(super) fn told(&self, record: &RequestRecord, without_flow: bool) {
        let mut meters = locked(&self.meters);
        if let Some(rule) = record.verdict.rule.as_ref().filter(|_| !meters.is_empty())
            && let Some(used) = meters.get_mut(&(record.policy.clone(), rule.clone()))
        {
            // What was refused has been cut nowhere.
            if record.verdict.reason == Reason::BudgetExceeded && !record.verdict.is_block() {
                used.meter.tell();
            }
            used.latest = Some(record.clone());
        }
        drop(meters);
        if without_flow {
            *locked(&self.latest) = Some(record.clone());
        }
    }

    /// The last that was.
    pub(super) fn latest(&self) -> Option<RequestRecord> {
        locked(&self.latest).clone()
    }
}

#[cfg(test)]
#[path = "rates_tests.rs"]
mod tests;
