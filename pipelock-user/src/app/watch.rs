//! What an operator may see of a session: the listener for metrics and health, and what is read for it from the kernel, the
//! proxy, the recorder and the disk.
//!
//! Made by `session` and `explicit` where the policy names an address; changed by a reload. It promises that the address is
//! bound before anything is attached, that a reload which cannot have its address changes nothing, and that enforcement
//! never waits for whoever reads.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use pipelock_common::{KernelReason, MAX_FLOWS};
use pipelock_receipt::Folder;
use tokio::sync::watch;

use super::flows::kernel_code;
use crate::kernel::{Attachment, Maps};
use crate::policy::Policy;
use crate::proxy::{Proxy, Rules};
use crate::recorder::{Queue, Recorder};
use crate::telemetry::metrics::{Counters, Gauge, Label, Scrape, labels};
use crate::telemetry::{Admin, Door, DoorError, Health, Subject, TokenHash};

labels! {
    /// What became of a reload.
    Reloaded "result" {
        InForce = "in_force",
        Refused = "refused",
    }
}

/// A reason of the kernel, in its code.
#[derive(Clone, Copy, Debug)]
struct Why(KernelReason);

impl Label for Why {
    const NAME: &'static str = "reason";
    const WORDS: &'static [&'static str] = &{
        let mut words = [""; KernelReason::ALL.len()];
        let mut at = 0;
        while at < words.len() {
            words[at] = kernel_code(KernelReason::ALL[at]);
            at += 1;
        }
        words
    };

    fn index(self) -> usize {
        KernelReason::ALL.iter().position(|reason| *reason == self.0).unwrap_or(usize::MAX)
    }
}

/// What is counted of policies.
struct Counts {
    reloads: Counters<Reloaded>,
    generation: Gauge,
    rules: Gauge,
    loaded: Gauge,
}

static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    reloads: Counters::new("pipelock_policy_reloads_total", "Policies that were read again, by what became of them."),
    generation: Gauge::new(
        "pipelock_policy_generation",
        "Number of the policy in force; it grows with every policy that is put into the kernel.",
    ),
    rules: Gauge::new("pipelock_policy_rules", "Rules of the policy in force."),
    loaded: Gauge::new(
        "pipelock_policy_loaded_timestamp_seconds",
        "When the policy in force was put in force, in seconds since 1970.",
    ),
});

/// A policy is in force from now on.
pub(super) fn in_force(policy: &Policy, generation: u32) {
    COUNTS.generation.set(usize::try_from(generation).unwrap_or(usize::MAX));
    COUNTS.rules.set(policy.rules().len());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    COUNTS.loaded.set(usize::try_from(now).unwrap_or(usize::MAX));
}

/// Takes note of what became of a policy that was read again.
pub fn count_reload(is_in_force: bool) {
    COUNTS.reloads.add(if is_in_force { Reloaded::InForce } else { Reloaded::Refused });
}

/// The listener of a policy, if it names one.
///
/// # Errors
/// [`DoorError`].
pub(super) fn door(policy: &Policy) -> Result<Option<Door>, DoorError> {
    door_beside(policy, None)
}

fn door_beside(policy: &Policy, former: Option<&Admin>) -> Result<Option<Door>, DoorError> {
    let Some(address) = policy.metrics().listen else { return Ok(None) };
    let token = policy.metrics().token_file.as_ref().map(|file| policy.locate(file));
    Door::open(address, token.as_deref(), former).map(Some)
}

/// The kernel's side of a session.
pub(super) struct Kernel {
    maps: Arc<Maps>,
    pins: Vec<PathBuf>,
    level: &'static str,
    hooks: u64,
    missing: u64,
}

impl Kernel {
    pub(super) fn of(attachment: &Attachment, maps: &Arc<Maps>) -> Self {
        Self {
            maps: maps.clone(),
            pins: attachment.pins().map(ToOwned::to_owned).collect(),
            level: attachment.level.name(),
            hooks: attachment.hooks.len() as u64,
            missing: attachment.missing.len() as u64,
        }
    }

    /// Whether the programs would stay if this process died.
    fn is_pinned(&self) -> bool {
        self.pins.iter().all(|pin| pin.exists())
    }

    fn scrape(&self, out: &mut Scrape) {
        out.gauge("pipelock_kernel_hooks", "Hooks of the kernel that programs are attached to.", self.hooks);
        out.gauge("pipelock_kernel_hooks_missing", "Hooks that this kernel refuses.", self.missing);
        out.gauge(
            "pipelock_kernel_pinned",
            "1 while the programs stay attached if this process dies.",
            u64::from(self.is_pinned()),
        );
        let Ok(counters) = self.maps.counters() else { return };
        out.counters(
            "pipelock_kernel_flows_total",
            "Flows that the kernel recorded, by its reason.",
            counters.by_reason.iter().map(|(reason, count)| (Why(*reason), *count)),
        );
        out.counters(
            "pipelock_kernel_denials_counted_total",
            "Denials that the kernel counted without a record of their own, by its reason.",
            counters
                .counted
                .iter()
                .filter(|(reason, _)| reason.is_denial())
                .map(|(reason, count)| (Why(*reason), *count)),
        );
        out.counter(
            "pipelock_kernel_flows_unrecorded_total",
            "Flows that were denied because the table was full.",
            counters.unrecorded,
        );
        out.counter(
            "pipelock_kernel_repeats_total",
            "Packets and calls that were denied like one before, and have no flow of their own.",
            counters.repeats,
        );
        out.counter(
            "pipelock_kernel_events_lost_total",
            "Events that found the ring full; their flows are found by looking through the table.",
            counters.events_lost,
        );
        out.counter(
            "pipelock_kernel_probes_total",
            "UDP sockets that were connected for their address only.",
            counters.probes,
        );
        if let Ok(settled) = self.maps.settled() {
            out.gauge(
                "pipelock_flows_open",
                "Flows in the kernel's table: open, or waiting for their receipts.",
                counters.flows.saturating_sub(settled.flows),
            );
        }
        out.gauge("pipelock_flows_limit", "Flows that the kernel's table holds.", MAX_FLOWS as u64);
    }
}

/// A session, as it is shown.
pub(super) struct Watched {
    /// None for explicit clients: the kernel is not asked.
    pub(super) kernel: Option<Kernel>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) recorder: Recorder,
    pub(super) evidence: Arc<Folder>,
}

impl Subject for Watched {
    fn scrape(&self, out: &mut Scrape) {
        out.gauge(
            "pipelock_enforcing",
            "1 while the kernel enforces the policy and evidence is written; 0 for a proxy that nobody is made to use.",
            u64::from(self.kernel.is_some() && self.recorder.is_writing()),
        );
        if let Some(kernel) = &self.kernel {
            kernel.scrape(out);
        }
        let (open, limit) = self.proxy.connections();
        out.gauge("pipelock_connections_open", "Connections of agents that are served.", open as u64);
        out.gauge("pipelock_connections_limit", "Connections that are served at a time.", limit as u64);
        let Queue { waiting, room, last_receipt } = self.recorder.queue();
        out.gauge("pipelock_receipt_queue_length", "Receipts that wait to be signed.", waiting as u64);
        out.gauge("pipelock_receipt_queue_limit", "Receipts that may wait before decisions do.", room as u64);
        out.gauge(
            "pipelock_last_receipt_timestamp_seconds",
            "When the last receipt or sign of life was written, in seconds since 1970.",
            last_receipt,
        );
        out.gauge(
            "pipelock_evidence_writable",
            "1 while evidence is written; 0 once it cannot be, and nothing is let through.",
            u64::from(self.recorder.is_writing()),
        );
        if let Ok(room) = self.evidence.room() {
            out.gauge("pipelock_evidence_bytes", "Bytes of the evidence chain.", room.taken);
            out.gauge("pipelock_evidence_disk_free_bytes", "Bytes that its disk has left.", room.left);
        }
    }

    fn health(&self) -> Health {
        let kernel = self.kernel.as_ref().map(|kernel| (kernel.level, kernel.is_pinned()));
        self.proxy.health(kernel)
    }
}

/// The listener of a session, which a reload may move.
pub(super) struct Watch {
    subject: Arc<Watched>,
    admin: Option<Admin>,
}

/// What a reload does to the listener, once the policy is in force.
pub(super) enum Change {
    /// It listens elsewhere, or anew, or no more.
    To(Option<Door>),
    /// It stays where it is, and wants this token.
    Token(Option<TokenHash>),
}

impl Watch {
    /// Serves what the policy wants; on a tokio runtime.
    ///
    /// # Errors
    /// [`DoorError`].
    pub(super) fn start(subject: Watched, door: Option<Door>) -> Result<Self, DoorError> {
        show_all();
        let mut watch = Self { subject: Arc::new(subject), admin: None };
        watch.serve(door)?;
        Ok(watch)
    }

    /// What a policy changes. Nothing has changed yet.
    ///
    /// # Errors
    /// [`DoorError`].
    pub(super) fn prepare(&self, policy: &Policy) -> Result<Change, DoorError> {
        let now = self.admin.as_ref().map(Admin::address);
        if now != policy.metrics().listen {
            return door_beside(policy, self.admin.as_ref()).map(Change::To);
        }
        let token = policy.metrics().token_file.as_ref().map(|file| policy.locate(file));
        token.map(|file| Door::token(&file)).transpose().map(Change::Token)
    }

    /// Puts rules in force that are ready, in the place of what `current` holds: whoever decides from now on does so by them.
    pub(super) fn put_in_force(
        &mut self,
        rules: Rules,
        generation: u32,
        change: Change,
        current: &watch::Sender<Arc<Rules>>,
    ) {
        tracing::info!(policy = %rules.policy.id(), generation, "policy in force");
        in_force(&rules.policy, generation);
        if let Err(error) = self.make(change) {
            tracing::error!(%error, "metrics cannot be read any more");
        }
        if let Some(inspect) = &rules.inspect {
            inspect.start();
        }
        let authority = |rules: &Rules| rules.tls.as_ref().map(|tls| tls.authority().fingerprint());
        if rules.tls.is_some() && authority(&rules) != authority(&current.borrow()) {
            tracing::warn!(
                "TLS is opened by an authority that programs which run already were not told to trust: start a command anew, and tell others by pipelock ca --export"
            );
        }
        current.send_replace(Arc::new(rules));
    }

    /// Makes the change.
    ///
    /// # Errors
    /// [`DoorError`], when the runtime does not take the listener; then nothing is served.
    fn make(&mut self, change: Change) -> Result<(), DoorError> {
        match change {
            Change::To(door) => self.serve(door),
            Change::Token(token) => {
                if let Some(admin) = &self.admin {
                    admin.ask_for(token);
                }
                Ok(())
            }
        }
    }

    fn serve(&mut self, door: Option<Door>) -> Result<(), DoorError> {
        self.admin = None;
        if let Some(door) = door {
            let admin = Admin::start(door, self.subject.clone())?;
            tracing::info!(address = %admin.address(), "metrics and health can be read");
            self.admin = Some(admin);
        }
        Ok(())
    }
}

fn show_all() {
    let rooms: [&dyn Shown; 6] = [
        &crate::telemetry::COUNTS,
        &crate::net::COUNTS,
        &crate::inspect::COUNTS,
        &crate::recorder::COUNTS,
        &crate::proxy::COUNTS,
        &COUNTS,
    ];
    rooms.iter().for_each(|families| families.show());
}

/// Families that are there before anything is counted.
trait Shown {
    fn show(&self);
}

impl<T> Shown for LazyLock<T> {
    fn show(&self) {
        LazyLock::force(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_family_takes_the_name_of_another() {
        show_all();
        assert!(crate::telemetry::metrics::are_sound());
    }

    #[test]
    fn every_reason_of_the_kernel_is_a_word_at_its_own_place() {
        for reason in KernelReason::ALL {
            assert_eq!(Why::WORDS[Label::index(Why(*reason))], kernel_code(*reason));
        }
    }
}
