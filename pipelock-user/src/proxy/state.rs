//! What all connections of one attachment, or of the explicit proxy, share.
//!
//! Made by `app`, which also fills [`Origins`]; read by every listener, connection and request. It promises a bound on
//! connections, and an end that waits until each has reported its flow.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::flow::{Account, Flow, Host, PolicyId, Reason, Verdict};
use crate::inspect::Inspection;
use crate::net::{Hop, Resolver, Way};
use crate::policy::Policy;
use crate::proxy::ask::{Asking, Webhook};
use crate::proxy::http::pool::{MOST, Pool};
use crate::proxy::ration::Rations;
use crate::proxy::silent::{Silence, Silent};
use crate::proxy::tls::{Interception, Shown};
use crate::recorder::Recorder;
use crate::telemetry::Health;

/// Connections at a time, over all listeners, when the policy does not say.
const MAX_CONNECTIONS: u32 = 8192;
/// Descriptors for what is no connection of a client: listeners, pins, evidence, names that are looked up, and what is kept for the
/// next one.
const OWN_DESCRIPTORS: u64 = 96 + MOST as u64;
/// Connections beyond those that wait until one that has said nothing has gone.
const WAITING: u32 = 1024;
/// Connections beyond these that are told why at the same time; the rest is cut without a word.
const TURNED_AWAY: u32 = 64;
/// How long one that was told to go may take.
const SOON: Duration = Duration::from_secs(2);
/// How long what is under way at the end may take to be told so. `app` has more patience than that.
const FAREWELL: Duration = Duration::from_millis(250);
/// When it is worth coming again for a place.
const AGAIN: Duration = Duration::from_secs(1);
/// Requests under way at a time: more than there can be, since this is only to know when there are none.
const ANSWERS: u32 = u32::MAX;

/// What becomes of a new connection.
#[derive(Debug)]
pub(super) enum Place {
    /// It is served, and holds this until it ends.
    Free(OwnedSemaphorePermit),
    /// It is served as soon as one that has said nothing has gone, which was told to; until then it holds this.
    Soon(OwnedSemaphorePermit),
    /// There are too many: it is told so in what it speaks, which takes a moment.
    LastWords(OwnedSemaphorePermit),
    /// There are too many even of these: it is cut.
    None,
}

/// Finds and consumes the flow of an accepted connection; filled by `app` from the kernel's tables.
pub trait Origins: Send + Sync {
    /// The flow whose local end is `peer` in that network namespace; none for a connection the kernel did not redirect.
    fn take(&self, netns: u64, peer: SocketAddr) -> Option<Flow>;
    /// The names that the agent may have meant by an address it got from our resolver in `real` mode.
    fn names_of(&self, addr: IpAddr) -> Vec<Host>;
    /// True for an address that only our resolver gives out and that stands for no name: it is a former run's, or a guess.
    fn is_stale(&self, addr: IpAddr) -> bool;
}

/// What decides, replaced as a whole when the policy is loaded anew.
pub struct Rules {
    /// The policy.
    pub policy: Policy,
    /// Resolves names for dialling, with the policy's static hosts.
    pub resolver: Resolver,
    /// What destinations are reached through, if not from here.
    pub hop: Option<Arc<Hop>>,
    /// Who is asked where the policy wants somebody asked; none for the terminal.
    pub webhook: Option<Arc<Webhook>>,
    /// Opens TLS; none when no rule wants that.
    pub tls: Option<Arc<Interception>>,
    /// Reads what is said; none when no rule wants that.
    pub inspect: Option<Arc<Inspection>>,
}

impl Rules {
    /// What leads out.
    pub(super) fn way(&self) -> Way<'_> {
        Way {
            resolver: &self.resolver,
            ssrf_allow: self.policy.ssrf_allow(),
            deny: self.policy.denied(),
            hop: self.hop.as_ref(),
        }
    }

    /// How the scanner is, in the word that health pages say; an error when nothing that is to be read is let through.
    ///
    /// # Errors
    /// The word, when it could not be loaded.
    pub fn scanner(&self) -> Result<&'static str, &'static str> {
        match self.inspect.as_ref().map(|inspect| inspect.now()) {
            None => Ok("off"),
            Some(None) => Ok("loading"),
            Some(Some(Ok(_))) => Ok("ready"),
            Some(Some(Err(_))) => Err("failed"),
        }
    }
}

/// The proxy of one attachment, or the explicit one.
pub struct Proxy {
    /// The rules in force; read for every connection and request.
    pub rules: watch::Receiver<Arc<Rules>>,
    /// Who opened a connection.
    pub origins: Arc<dyn Origins>,
    /// Where flows are accounted for.
    pub account: Arc<dyn Account>,
    /// Where requests are recorded.
    pub recorder: Recorder,
    /// Who can be asked, and what they said.
    pub asking: Asking,
    /// Who has shown a certificate for which name, where TLS is passed unread.
    pub(super) shown: Shown,
    /// What is used of the policy's rates.
    pub(super) rations: Rations,
    /// Connections to destinations that nobody uses now.
    pub(super) pool: Arc<Pool>,
    /// Connections that have said nothing yet.
    pub(super) silence: Arc<Silence>,
    slots: Arc<Semaphore>,
    places: u32,
    waiting: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    /// When the last connections end, once the proxy closes.
    closing: watch::Sender<Option<Instant>>,
}

/// What descriptors are enough for: a connection takes two, one that waits or is turned away takes one.
#[derive(Debug, PartialEq, Eq)]
struct Room {
    places: u32,
    waiting: u32,
    turned_away: u32,
}

impl Room {
    fn of(descriptors: u64) -> Self {
        let ours = u32::try_from(descriptors.saturating_sub(OWN_DESCRIPTORS)).unwrap_or(u32::MAX);
        let (waiting, turned_away) = ((ours / 8).clamp(1, WAITING), (ours / 16).clamp(1, TURNED_AWAY));
        Self { places: (ours.saturating_sub(waiting + turned_away) / 2).max(1), waiting, turned_away }
    }
}

impl Proxy {
    /// A proxy over these.
    #[must_use]
    pub fn new(
        rules: watch::Receiver<Arc<Rules>>,
        origins: Arc<dyn Origins>,
        account: Arc<dyn Account>,
        recorder: Recorder,
    ) -> Arc<Self> {
        let configured = rules.borrow().policy.limits().max_connections;
        let wanted = u32::try_from(configured).ok().filter(|places| *places > 0).unwrap_or(MAX_CONNECTIONS);
        let room = Room::of(getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft));
        let places = wanted.min(room.places);
        if places < wanted {
            tracing::warn!(
                "limits.max_connections is {wanted}, and there are descriptors for {places}: raise the limit (ulimit -Hn, \
                 LimitNOFILE= of a systemd unit), or connections beyond that are refused"
            );
        }
        let slots = Arc::new(Semaphore::new(usize::try_from(places).unwrap_or(usize::MAX)));
        let turned_away = Arc::new(Semaphore::new(usize::try_from(room.turned_away).unwrap_or(usize::MAX)));
        let answers = Arc::new(Semaphore::new(usize::try_from(ANSWERS).unwrap_or(Semaphore::MAX_PERMITS)));
        let closing = watch::Sender::new(None);
        Arc::new(Self {
            rules,
            origins,
            account,
            recorder,
            asking: Asking::default(),
            shown: Shown::default(),
            rations: Rations::default(),
            pool: Arc::default(),
            silence: Arc::default(),
            slots,
            places,
            waiting: Arc::new(Semaphore::new(usize::try_from(room.waiting).unwrap_or(usize::MAX))),
            turned_away,
            answers,
            closing,
        })
    }

    /// Ends every connection and waits until each has reported its flow and the receipts of its requests are written, or
    /// `patience` is over.
    pub async fn close(&self, patience: Duration) {
        let most = usize::try_from(ANSWERS).unwrap_or(Semaphore::MAX_PERMITS);
        // Requests that are under way end now, and their clients are told so.
        let farewell = if self.answers.available_permits() < most { FAREWELL } else { Duration::ZERO };
        self.closing.send_replace(Some(Instant::now() + farewell));
        let all = async {
            let _ = self.slots.acquire_many(self.places).await;
            let _ = self.turned_away.acquire_many(TURNED_AWAY).await;
            let _ = self.answers.acquire_many(ANSWERS).await;
        };
        let _ = tokio::time::timeout(patience, all).await;
    }

    /// Waits until the proxy closes.
    pub(super) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        let _ = closing.wait_for(Option::is_some).await;
    }

    /// Waits until a connection has to end because the proxy closes: a moment later, where requests were under way.
    pub(super) async fn over(&self) {
        let mut closing = self.closing.subscribe();
        let due = closing.wait_for(Option::is_some).await.ok().and_then(|due| *due);
        if let Some(due) = due {
            tokio::time::sleep_until(due).await;
        }
    }

    /// The verdict on what was under way when the proxy was closed: bytes may have left.
    pub(super) fn stopped() -> Verdict {
        Verdict::let_out(Reason::ProxyStopped, "pipelock was stopped before this was done")
    }

    /// A place for one more connection.
    pub(super) fn place(&self) -> Place {
        let free = |places: &Arc<Semaphore>| places.clone().try_acquire_owned().ok();
        if let Some(place) = free(&self.slots) {
            return Place::Free(place);
        }
        if let Some(wait) = free(&self.waiting)
            && self.silence.dismiss()
        {
            return Place::Soon(wait);
        }
        free(&self.turned_away).map_or(Place::None, Place::LastWords)
    }

    /// A place, once there is one; none if that takes long, or the connection that waits for it has said nothing and had to
    /// make room itself.
    pub(super) async fn next_place(&self, silent: &mut Silent, stream: &TcpStream) -> Option<OwnedSemaphorePermit> {
        let next = tokio::time::timeout(SOON, self.slots.clone().acquire_owned());
        tokio::pin!(next);
        loop {
            tokio::select! {
                biased;
                place = &mut next => return place.ok()?.ok(),
                () = silent.dismissed() => if silent.goes(stream) { return None },
            }
        }
    }

    /// Held by a request that outlives its connection until its receipt is written; none once the proxy has closed.
    pub(super) fn answering(&self) -> Option<OwnedSemaphorePermit> {
        self.answers.clone().try_acquire_owned().ok()
    }

    /// The verdict on a connection that found no place.
    pub(super) fn no_place(&self) -> Verdict {
        let detail = format!("limits.max_connections: {} connections are open", self.places);
        Verdict::block(Reason::LimitExceeded, detail).retry(AGAIN)
    }

    /// The verdict on a connection that said nothing, and made room for another.
    pub(super) fn makes_room() -> Verdict {
        let detail = "limits.max_connections: it said nothing, and made room for another";
        Verdict::block(Reason::LimitExceeded, detail).retry(AGAIN)
    }

    /// Waits for a policy under which `is_allowed` does not hold; the verdict on what it cuts. The one that has decided is not
    /// asked again.
    pub(super) async fn disallowed(&self, decided: Option<&PolicyId>, is_allowed: impl Fn(&Rules) -> bool) -> Verdict {
        let mut rules = self.rules.clone();
        loop {
            // What is asked of it may take a moment, and whoever loads another one waits for those who hold this.
            let current = rules.borrow_and_update().clone();
            let policy = current.policy.id();
            if Some(policy) != decided && !is_allowed(&current) {
                return Verdict::let_out(Reason::PolicyChanged, format!("cut: the policy {policy} does not allow it"));
            }
            if rules.changed().await.is_err() {
                // No other policy will come.
                return std::future::pending().await;
            }
        }
    }

    /// Waits until evidence can no longer be written; the verdict on what that cuts.
    pub(super) async fn evidence_lost(&self) -> Verdict {
        self.recorder.lost().await;
        Verdict::let_out(Reason::RecorderUnavailable, "cut: evidence is no longer written")
    }

    /// Connections that are served now, and as many as may be.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        let places = usize::try_from(self.places).unwrap_or(usize::MAX);
        (places.saturating_sub(self.slots.available_permits()), places)
    }

    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.slots.available_permits() == 0
    }

    /// How it is: what of the policy is enforced by the kernel, and whether that would last, where the kernel is asked; and what
    /// nothing is let through without.
    #[must_use]
    pub fn health(&self, kernel: Option<(&str, bool)>) -> Health {
        let (rules, is_writing) = (self.rules(), self.recorder.is_writing());
        let scanner = rules.scanner();
        Health {
            is_well: is_writing && scanner.is_ok() && kernel.is_none_or(|(_, is_pinned)| is_pinned),
            facts: json!({
                "version": env!("CARGO_PKG_VERSION"),
                "enforcement": kernel.map_or("none", |(level, _)| level),
                "pinned": kernel.map(|(_, is_pinned)| is_pinned),
                "policy_hash": rules.policy.id().to_string(),
                "scanner": scanner.unwrap_or_else(|word| word),
                "evidence": if is_writing { "written" } else { "lost" },
            }),
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_let_in_than_there_are_descriptors() {
        for descriptors in [0, 256, 1024, 20_000, 1 << 20, u64::MAX] {
            let Room { places, waiting, turned_away } = Room::of(descriptors);
            let taken = u64::from(places) * 2 + u64::from(waiting + turned_away) + OWN_DESCRIPTORS;
            assert!(taken <= descriptors.max(OWN_DESCRIPTORS + 4), "{descriptors}: {taken}");
        }
        assert_eq!(Room::of(1 << 20), Room { waiting: WAITING, turned_away: TURNED_AWAY, ..Room::of(1 << 20) });
        assert!(Room::of(1024).places > 300 && Room::of(20_000).places > 9000);
    }
}
