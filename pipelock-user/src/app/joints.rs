//! The joints between rooms that do not know each other: kernel records become the proxy's flows, DNS answers become
//! the recorder's receipts, policies become the resolver's rules.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use pipelock_common::{KernelReason, Listeners};
use tokio::sync::watch;

use super::named::Named;
use crate::flow::{Account as _, Flow, FlowId, Host, Outcome, PolicyId, Reason, Verdict, locked};
use crate::inspect::Terms;
use crate::kernel::{Ledger, Maps, to_flow};
use crate::policy::DnsMode;
use crate::proxy::dns::{
    Answered, Asker, Filed, Found, Lookup, Mode, NameRead, NameRules, Pool, QueryLog, SeenNames, Transport,
};
use crate::proxy::{COUNTS, KnockedBy, Origins, Rules};
use crate::recorder::{Recorder, RequestRecord};

/// Policies by generation: the kernel stores with each flow the number of the policy that was in force.
#[derive(Default)]
pub(super) struct Generations(Mutex<HashMap<u32, PolicyId>>);

impl Generations {
    /// Files a policy under its generation.
    pub(super) fn file(&self, generation: u32, policy: PolicyId) {
        locked(&self.0).insert(generation, policy);
    }

    /// The policy of a generation; `unknown` for one that nobody filed. Not the empty text: a receipt without a policy is
    /// given that of its chain.
    pub(super) fn find(&self, generation: u32) -> PolicyId {
        locked(&self.0).get(&generation).cloned().unwrap_or_else(|| PolicyId("unknown".to_owned()))
    }
}

/// Looks real addresses up with the resolver of the policy in force.
pub(super) struct RulesLookup(pub watch::Receiver<Arc<Rules>>);

impl Lookup for RulesLookup {
    fn lookup<'a>(&'a self, name: &'a str) -> Found<'a> {
        let rules = self.0.borrow().clone();
        Box::pin(async move { rules.resolver.lookup(name).await })
    }
}

/// Finds the flow of an accepted connection, and the name behind its address.
pub(super) struct KernelOrigins {
    /// The kernel's tables.
    pub maps: Arc<Maps>,
    /// Made-up addresses.
    pub pool: Arc<Pool>,
    /// Real addresses that were given out.
    pub seen: Arc<SeenNames>,
    /// Which policy was in force.
    pub generations: Arc<Generations>,
}

impl Origins for KernelOrigins {
    fn take(&self, netns: u64, peer: SocketAddr) -> Option<Flow> {
        let record = self.maps.take_origin(netns, peer, KernelReason::Redirect)?;
        let mut flow = to_flow(&record, None, self.generations.find(record.generation));
        flow.target.name = self.pool.lookup(flow.target.original.ip()).and_then(|name| Host::parse(&name).ok());
        Some(flow)
    }

    fn names_of(&self, addr: IpAddr) -> Vec<Host> {
        self.seen.names(addr).iter().filter_map(|name| Host::parse(name).ok()).collect()
    }

    fn is_stale(&self, addr: IpAddr) -> bool {
        self.pool.owns(addr) && self.pool.lookup(addr).is_none() && self.seen.names(addr).is_empty()
    }
}

/// The resolver's view of the policy in force.
pub(super) struct PolicyNames(pub watch::Receiver<Arc<Rules>>);

impl NameRules for PolicyNames {
    fn allowed(&self, name: &str) -> bool {
        self.0.borrow().policy.names_allowed(name)
    }

    fn read(&self, name: &str) -> NameRead {
        let rules = self.0.borrow().clone();
        let rule = rules.policy.chosen_below(&Host::Name(name.to_owned()));
        let Some(terms) = rule.and_then(|rule| Terms::of(&rules.policy, rule)) else {
            return NameRead::Clean(Vec::new());
        };
        match rules.inspect.as_ref().map(|inspect| inspect.now()) {
            Some(Some(Ok(scanners))) => match terms.check_name(&scanners, name) {
                Ok(found) => NameRead::Clean(found),
                Err(verdict) => NameRead::Stopped(verdict),
            },
            Some(Some(Err(verdict))) => NameRead::Stopped(verdict),
            Some(None) => NameRead::NotYet,
            None => NameRead::Stopped(Verdict::block(
                Reason::ScannerUnavailable,
                "this policy was loaded without a scanner",
            )),
        }
    }

    fn is_early(&self, host: &Host) -> bool {
        Named::is_early(&self.0.borrow().clone(), host)
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let inspect = self.0.borrow().inspect.clone();
        Box::pin(async move {
            if let Some(inspect) = inspect {
                let _ = inspect.ready(None).await;
            }
        })
    }

    fn mode(&self) -> Mode {
        match self.0.borrow().policy.dns_mode() {
            DnsMode::Synthetic => Mode::Synthetic,
            DnsMode::Real => Mode::Real,
        }
    }
}

/// Writes a receipt for each query, with the flow that asked.
pub(super) struct DnsReceipts {
    /// Cookie of the namespace the resolver is in.
    pub netns: u64,
    /// Its sockets there.
    pub ports: Listeners,
    /// The kernel's tables.
    pub maps: Arc<Maps>,
    /// Where flows are accounted for.
    pub ledger: Arc<Ledger>,
    /// Where receipts are written.
    pub recorder: Recorder,
    /// Which policy was in force.
    pub generations: Arc<Generations>,
    /// Which policy is in force.
    rules: watch::Receiver<Arc<Rules>>,
}

impl DnsReceipts {
    /// For the resolver in one namespace.
    #[must_use]
    pub(super) fn new(
        netns: u64,
        ports: Listeners,
        maps: Arc<Maps>,
        ledger: Arc<Ledger>,
        recorder: Recorder,
        generations: Arc<Generations>,
        rules: watch::Receiver<Arc<Rules>>,
    ) -> Self {
        Self { netns, ports, maps, ledger, recorder, generations, rules }
    }

    /// Which of the resolver's UDP sockets this is.
    fn slot_of(&self, local: SocketAddr) -> Option<usize> {
        let ports = if local.is_ipv4() { &self.ports.dns4 } else { &self.ports.dns6 };
        ports.iter().position(|port| *port == local.port())
    }

    fn flow_of(&self, asker: &Asker) -> Option<Arc<Flow>> {
        if asker.transport == Transport::Tcp {
            return asker.flow.clone();
        }
        let record = self.maps.udp_origin(self.netns, asker.peer, self.slot_of(asker.local)?)?;
        let flow = to_flow(&record, None, self.generations.find(record.generation));
        self.ledger.accept(flow.id).then(|| Arc::new(flow))
    }

    /// Accounts for a decision, `requests` of which are new; its receipt, unless no flow asked.
    fn receipt(&self, asker: &Asker, outcome: &Answered, requests: u64) -> Option<RequestRecord> {
        let Some(flow) = self.flow_of(asker) else {
            knocked(asker.peer);
            return None;
        };
        let rules = self.rules.borrow().clone();
        // Also of a name that no rule has had read: it may be what was to leave.
        let named = Named::under(&rules);
        let name = outcome.name.as_ref().and_then(|name| named.host(name)).unwrap_or_else(|| "-".to_owned());
        let mut verdict = outcome.verdict.clone();
        verdict.detail = named.detail(verdict.detail);
        let policy = rules.policy.id().clone();
        let report = Outcome {
            verdict: verdict.clone(),
            name: None,
            carrier: "dns",
            requests,
            policy: Some(policy.clone()),
            via: None,
        };
        self.ledger.report(flow.id, report);
        Some(RequestRecord {
            flow,
            policy,
            transport: "dns",
            method: outcome.qtype.clone(),
            target: format!("dns://{name}"),
            verdict,
            status: None,
            dialled: None,
            part: None,
        })
    }

    /// Queued when this returns, so that receipts stand in the order of the questions.
    fn file(&self, receipt: Option<&RequestRecord>) -> Filed {
        let written = receipt.map(|receipt| self.recorder.queue_request(receipt));
        Box::pin(async move {
            match written {
                Some(written) => written.await.is_ok(),
                None => false,
            }
        })
    }
}

/// Somebody asked whom no flow accounts for.
fn knocked(peer: SocketAddr) {
    COUNTS.without_origin.add(KnockedBy::Dns);
    tracing::warn!(%peer, reason = %Reason::NoOrigin, "a query that no flow accounts for was refused");
}

impl QueryLog for DnsReceipts {
    fn query(&self, asker: &Asker, outcome: &Answered) -> Filed {
        self.file(self.receipt(asker, outcome, 1).as_ref())
    }

    fn failed(&self, asker: &Asker, outcome: &Answered) -> Filed {
        self.file(self.receipt(asker, outcome, 0).as_ref())
    }

    fn opened(&self, asker: &mut Asker) -> bool {
        let record = self.maps.take_origin(self.netns, asker.peer, KernelReason::RedirectDns);
        let flow = record.map(|record| to_flow(&record, None, self.generations.find(record.generation)));
        asker.flow = flow.filter(|flow| self.ledger.accept(flow.id)).map(Arc::new);
        if asker.flow.is_none() {
            knocked(asker.peer);
        }
        asker.flow.is_some()
    }

    fn closed(&self, asker: &Asker, queries: u64) {
        if let Some(flow) = &asker.flow
            && queries == 0
        {
            // With queries, each has reported already.
            let outcome = Outcome { carrier: "dns", ..Outcome::unseen(Reason::ClientAborted) };
            self.ledger.report(FlowId(flow.id.0), outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_that_nobody_filed_has_no_policy_of_another() {
        let generations = Generations::default();
        generations.file(2, PolicyId("two".into()));
        assert_eq!((generations.find(2).0.as_str(), generations.find(1).0.as_str()), ("two", "unknown"));
    }
}
