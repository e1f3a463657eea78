//! A session in service: reload, and the end with its last receipts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipelock_receipt::Folder;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::flows::{Base, FlowTally, totals};
use super::inspection::Environment;
use super::joints::Generations;
use super::lock::Lock;
use super::refusals::{Refusals, Sockets};
use super::session::{SessionError, Undo, apply};
use super::state::State;
use super::tls::enforced;
use super::watch::{Watch, count_reload};
use crate::flow::Asker;
use crate::kernel::{Attachment, Counters, Maps};
use crate::policy::Policy;
use crate::proxy::{Proxy, Rules};
use crate::recorder::{Recorder, Summary};
use crate::sandbox::refusals::RefusalListener;
use crate::sandbox::served::AgentSockets;

/// How long connections may take to end once the agent is gone.
const DRAIN: Duration = Duration::from_millis(300);

/// A session in service.
pub struct Serving {
    /// Ends a command of ours, and detaches, if we are dropped before [`Serving::end`]: by a panic.
    pub(super) undo: Option<Undo>,
    pub(super) attachment: Attachment,
    pub(super) maps: Arc<Maps>,
    pub(super) rules: watch::Sender<Arc<Rules>>,
    /// Where metrics can be read.
    pub(super) watch: Watch,
    /// What the agent had in its environment when it was attached.
    pub(super) environment: Environment,
    pub(super) agent: Arc<AgentSockets>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) generations: Arc<Generations>,
    pub(super) generation: u32,
    /// Given back at the end.
    pub(super) lock: Lock,
    pub(super) recorder: Recorder,
    pub(super) recorder_thread: std::thread::JoinHandle<()>,
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) stop_counting: Option<oneshot::Sender<()>>,
    /// Writes the receipts of counted denials; how many it could not write.
    pub(super) counting: JoinHandle<u64>,
    pub(super) watching: JoinHandle<()>,
    pub(super) writing: JoinHandle<FlowTally>,
    pub(super) base: Base,
    /// Held since before the agent was started.
    pub(super) evidence: Arc<Folder>,
    pub(super) refusals: Option<Refusals>,
    /// Nobody could be found to answer for the refused sockets.
    pub(super) refusals_lost: bool,
    /// Somebody removed the pins under us.
    pub(super) pins_removed: bool,
    /// Files that were hidden from the command and are not any more.
    pub(super) shown: Vec<PathBuf>,
}

/// What a session came to.
#[derive(Debug)]
pub struct Ended {
    /// The chain.
    pub summary: Summary,
    /// The kernel's counters.
    pub counters: Counters,
    /// Flows with a receipt.
    pub flows: u64,
    /// Of these, allowed.
    pub allowed: u64,
    /// The path of the evidence folder, if that does not lead to it any more: then `summary` names where it is.
    pub moved_from: Option<PathBuf>,
}

/// What becomes of the cgroup when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The programs are detached: nobody is left in it, or who is left is meant to be free.
    Detached,
    /// The programs stay attached, with no proxy behind them: who is left in it reaches nothing.
    ClosedIn,
}

impl Serving {
    /// The attachment.
    #[must_use]
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Puts another policy in force: the kernel first, then the proxy. Links are not touched.
    ///
    /// # Errors
    /// [`SessionError::Tls`], [`SessionError::Inspection`], [`SessionError::Metrics`], [`SessionError::Maps`]: the old policy stays in force in the proxy,
    /// and is put back into the kernel.
    pub fn reload(&mut self, policy: Policy) -> Result<(), SessionError> {
        let former = self.rules.borrow().clone();
        let rules = enforced(policy, Some(&former), &self.environment, &self.agent)?;
        let listening = self.watch.prepare(&rules.policy)?;
        if let Err(error) = self.put(&rules.policy) {
            if let Err(error) = self.put(&former.policy) {
                tracing::error!(%error, "the kernel may still use ports of the policy that was not put in force");
            }
            return Err(error);
        }
        self.watch.put_in_force(rules, self.generation, listening, &self.rules);
        Ok(())
    }

    /// Puts a policy into the kernel under a number that no flow has had.
    fn put(&mut self, policy: &Policy) -> Result<(), SessionError> {
        self.generation = self.generation.saturating_add(1);
        // Filed before any flow can carry the number.
        self.generations.file(self.generation, policy.id().clone());
        apply(&self.maps, policy, self.generation)
    }

    /// From now on a policy that wants somebody asked, and names no webhook, has this one asked.
    pub fn ask_at(&self, terminal: Arc<dyn Asker>) {
        self.proxy.asking.at(terminal);
    }

    /// Answers for the sockets that the agent's system call filter refuses, and records each.
    ///
    /// # Errors
    /// When the thread cannot be started: then such calls are answered by the kernel, and the ledger says that receipts
    /// are missing.
    pub fn serve_refusals(&mut self, listener: RefusalListener) -> std::io::Result<()> {
        let started = Refusals::start(listener, self.recorder.clone(), self.rules.subscribe());
        self.refusals_lost = started.is_err();
        self.refusals = Some(started?);
        Ok(())
    }

    /// Looks whether the pins are still there, and says so once, also in the ledger, when they are not: enforcement goes on,
    /// but would end with us.
    pub fn check_pins(&mut self) {
        if !self.pins_removed && !self.attachment.is_pinned() {
            self.pins_removed = true;
            tracing::error!(
                folder = %self.attachment.dir.display(),
                "somebody removed the pins of the kernel programs; they stay attached while this process lives, and no longer"
            );
        }
    }

    /// Looks whether the command may see a file that was hidden from it, and says so once of each, also in the ledger.
    pub fn check_withheld(&mut self) {
        let Environment::OfTheAgent(withheld) = &self.environment else { return };
        for file in withheld.shown() {
            if !self.shown.contains(&file) {
                tracing::error!(
                    file = %file.display(),
                    "another file has taken the place of this one, which was hidden from the command: it may read the new one. What is in it is \
                     to be changed, next time in place; until the command is started anew no reload goes through"
                );
                self.shown.push(file);
            }
        }
    }

    /// Waits until evidence can no longer be written, and says so in the state that `status` reads.
    pub async fn evidence_lost(&self) {
        self.recorder.lost().await;
        tracing::error!("evidence can no longer be written: nothing is let through");
        if let Some(mut state) = State::read(&self.attachment.id) {
            state.evidence_lost = true;
            let _ = state.write();
        }
    }

    /// Tells whoever asked for a reload, through the state file, what came of it.
    pub fn answer_reload(&self, error: Option<String>) {
        count_reload(error.is_none());
        if let Some(mut state) = State::read(&self.attachment.id) {
            state.policy_hash = self.rules.borrow().policy.id().to_string();
            state.generation = self.generation;
            state.reloads += 1;
            state.reload_error = error;
            if let Err(error) = state.write() {
                tracing::warn!(%error, "status will not know of the new policy");
            }
        }
    }

    /// A program that was running on another processor when its link went may still be filling a record in.
    async fn come_to_rest(&self) {
        for _ in 0..100 {
            match self.maps.counters() {
                Ok(counters) if counters.is_settled() => return,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Ends the session: detaches, writes the last receipts, closes the chain, completes the folder.
    ///
    /// The agent should be gone; what it still holds loses the way out when the listeners close, before the programs go.
    ///
    /// # Errors
    /// [`SessionError`]; the programs are detached all the same, and the chain ends where it broke.
    pub async fn end(self, reason: &str) -> Result<Ended, SessionError> {
        self.end_as(reason, Leave::Detached).await
    }

    /// The same, leaving the cgroup as `leave` says.
    ///
    /// # Errors
    /// [`SessionError`], as [`Self::end`].
    pub async fn end_as(mut self, reason: &str, leave: Leave) -> Result<Ended, SessionError> {
        // Connections of the dead end by themselves; what the kernel closes late is given a moment.
        let deadline = tokio::time::Instant::now() + DRAIN;
        while tokio::time::Instant::now() < deadline && !self.maps.pending().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for task in &self.tasks {
            task.abort();
        }
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
        // No listener holds a place any more; what is left are connections, which report their flows as they end.
        self.proxy.close(DRAIN).await;
        // Detaching stops the count: what the ledger finds now is all there will be.
        self.check_pins();
        self.check_withheld();
        self.attachment.let_go();
        let detached = match leave {
            Leave::Detached => {
                // First, or `status` would see a server whose programs are missing.
                State::remove(&self.attachment.id);
                Attachment::detach(&self.attachment.id)
            }
            Leave::ClosedIn => Ok(()),
        };
        if let Some(undo) = self.undo.take() {
            undo.keep();
        }
        self.come_to_rest().await;
        drop(self.stop.take());
        let _ = self.watching.await;
        let mut tally = self.writing.await.unwrap_or_default();
        drop(self.stop_counting.take());
        tally.lost += self.counting.await.unwrap_or_default();
        tally.lost += self.recorder.lost_requests();
        let sockets = match self.refusals.take() {
            Some(refusals) => refusals.end(),
            None if self.refusals_lost => Sockets::Lost,
            None => Sockets::NotAsked,
        };
        let counters = self.maps.counters()?;
        let totals = totals(&counters, &self.base, tally, sockets, (self.pins_removed, &self.shown));
        self.recorder.totals(&totals).await?;
        let (summary, moved_from) = conclude(&self.recorder, self.recorder_thread, &self.evidence, reason).await?;
        detached?;
        drop(self.lock);
        Ok(Ended { summary, counters, flows: tally.flows, allowed: tally.allowed, moved_from })
    }
}

/// Ends a chain and completes its folder; what the chain came to, and the path of the folder if that does not lead to it any
/// more: then the summary names where it is.
///
/// # Errors
/// [`SessionError::Recorder`], [`SessionError::Folder`].
pub(super) async fn conclude(
    recorder: &Recorder,
    thread: std::thread::JoinHandle<()>,
    folder: &Folder,
    reason: &str,
) -> Result<(Summary, Option<PathBuf>), SessionError> {
    let mut summary = recorder.close(reason).await?;
    // On this thread: nothing else is left to run, and another one need not be there to be had.
    let _ = thread.join();
    pipelock_receipt::write_folder(folder)?;
    let moved_from = folder.elsewhere().map(|now| std::mem::replace(&mut summary.folder, now));
    Ok((summary, moved_from))
}
