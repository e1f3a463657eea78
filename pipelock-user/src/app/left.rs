//! What the kernel recorded of an attachment that nobody serves and whose cgroup is gone: read from the pinned maps, and written into
//! evidence of its own.
//!
//! Called by the verb `detach`. It promises that nothing is taken away before it is written, but for what still enforces: that is
//! detached first, so that the count ends.

use std::path::PathBuf;
use std::sync::Arc;

use pipelock_common::KernelReason;
use pipelock_receipt::SigningKey;
use tokio::sync::watch;

use super::capsule::{Facts, capsule};
use super::denials::Denials;
use super::flows::{Base, settle_base, totals, write_flows};
use super::joints::Generations;
use super::refusals::Sockets;
use super::serving::{Ended, conclude};
use super::session::SessionError;
use super::state::State;
use crate::flow::PolicyId;
use crate::kernel::{Attachment, Ledger, Maps, finished_flows};
use crate::net::Resolver;
use crate::policy::Policy;
use crate::proxy::Rules;
use crate::recorder::{OpenChain, Place, RecorderConfig};

/// Records without receipts.
pub struct Left {
    attachment: Attachment,
    maps: Arc<Maps>,
    base: Base,
    state: Option<State>,
    cgroup_id: u64,
}

impl Left {
    /// Opens what is pinned under the name of this cgroup's attachment; `state` is what its server has said of it.
    ///
    /// # Errors
    /// [`SessionError::Kernel`] when it cannot be read; [`SessionError::Unrest`] when it keeps changing.
    pub fn open(id: &str, cgroup_id: u64, state: Option<State>) -> Result<Self, SessionError> {
        let (attachment, maps) = Attachment::left(id)?;
        let base = settle_base(&maps)?;
        Ok(Self { attachment, maps: Arc::new(maps), base, state, cgroup_id })
    }

    /// Flows, and kinds of denials that were only counted, that have no receipt.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let reported = |key| self.base.reported.get(key).copied().unwrap_or_default();
        let counted = self.maps.denials().iter().filter(|(key, count)| count.count > reported(key)).count();
        self.base.pending.len() + counted
    }

    /// Writes it all, and removes what is pinned. What still enforces (`is_live`) is detached once the chain is open.
    ///
    /// # Errors
    /// [`SessionError`]: when the chain cannot be opened, nothing was changed; later, what has no receipt is still pinned, unless it
    /// was live.
    pub async fn write(self, evidence: Place, key: SigningKey, is_live: bool) -> Result<Ended, SessionError> {
        let Self { attachment, maps, base, state, cgroup_id } = self;
        let policy = Policy::deny_all();
        let facts = Facts {
            mode: if state.as_ref().is_some_and(|state| state.mode == "run") { "run" } else { "attach" },
            cgroup: state
                .as_ref()
                .map_or_else(|| PathBuf::from("-"), |state| state.cgroup.clone())
                .display()
                .to_string(),
            cgroup_id,
            policy: &policy,
            limits: policy.warnings(),
            confinement: serde_json::json!({ "cgroup_gone": true }),
            authority: None,
            taken_over: Some(base.pending.iter().map(|(id, _)| *id).collect()),
        };
        let chain = OpenChain::create(RecorderConfig {
            folder: evidence,
            key,
            policy_hash: policy.id().to_string(),
            capsule: Some(capsule(&attachment, &facts)),
            contained_uid: None,
        })?;
        let folder = chain.folder();
        let (recorder, thread) = chain.start()?;
        if is_live {
            Attachment::detach(&attachment.id)?;
        }
        let generations = Arc::new(Generations::default());
        if let Some(state) = &state {
            generations.file(state.generation, PolicyId(state.policy_hash.clone()));
        }
        let redirected = [KernelReason::Redirect as u8, KernelReason::RedirectDns as u8];
        let orphans = base.pending.iter().filter(|(_, reason)| redirected.contains(reason)).map(|(flow, _)| *flow);
        let ledger = Ledger::new(maps.clone(), base.settled, base.counters.unrecorded, orphans);
        let rules = Rules {
            policy,
            resolver: Resolver::new(Box::new(|_| None)),
            hop: None,
            webhook: None,
            tls: None,
            inspect: None,
        };
        let (_rules, watched) = watch::channel(Arc::new(rules));
        let (finished, taken) = finished_flows();
        let denials = Denials::new(maps.clone(), recorder.clone(), generations.clone(), base.reported.clone());
        // Nothing is waited for: it is all there is.
        let (mut tally, (), lost) = tokio::join!(
            write_flows(taken, recorder.clone(), ledger.clone(), generations, watched),
            ledger.clone().run(finished, std::future::ready(())),
            denials.run(std::future::ready(())),
        );
        tally.lost += lost;
        let counters = maps.counters()?;
        recorder.totals(&totals(&counters, &base, tally, Sockets::NotAsked, (false, &[]))).await?;
        let (summary, moved_from) =
            conclude(&recorder, thread, &folder, "detached after the proxy and the cgroup were lost").await?;
        if !is_live {
            Attachment::detach(&attachment.id)?;
        }
        Ok(Ended { summary, counters, flows: tally.flows, allowed: tally.allowed, moved_from })
    }
}
