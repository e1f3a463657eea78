//! Rates: how much of something there is room for, as time goes by.
//!
//! Asked by `meter` for what requests and bytes may use of the policy's rates, and by `api` for questions. It promises that no more
//! is given than a rate allows, however many connections ask at once, and bounded memory, whoever asks: those that come when
//! too many are told apart share one ration.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::counts::{COUNTS, Rationed, Scarce};
use crate::flow::{Flow, Host, Reason, Verdict, locked};
use crate::policy::{Policy, Rates, Rule};
use crate::telemetry::metrics::Labels;

/// Rations that are kept at a time.
const MOST: usize = 16_384;
/// How long after a look for rations that are not used the next may be taken.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);
/// Of a data rate that is used up, the part that has to be free before it is worth asking again.
const WORTH: u64 = 10;

/// Room for so much, which comes back evenly over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Size {
    pub(super) most: u64,
    pub(super) period: Duration,
}

/// What of it is used.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    size: Size,
    /// Times the nanoseconds of the period: whole numbers then, whatever the size.
    used: u128,
    at: Instant,
}

impl Bucket {
    fn nanoseconds(&self) -> u128 {
        self.size.period.as_nanos().max(1)
    }

    /// What there is room for.
    fn room(&mut self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.at).as_nanos();
        self.at = self.at.max(now);
        self.used = self.used.saturating_sub(passed.saturating_mul(u128::from(self.size.most)));
        let whole = u128::from(self.size.most) * self.nanoseconds();
        u64::try_from(whole.saturating_sub(self.used) / self.nanoseconds()).unwrap_or(u64::MAX)
    }

    fn spend(&mut self, used: u64) {
        self.used = self.used.saturating_add(u128::from(used).saturating_mul(self.nanoseconds()));
    }

    /// How long until there is room for so much, or for all there is.
    fn wait(&mut self, wanted: u64, now: Instant) -> Duration {
        self.room(now);
        let others = self.size.most - wanted.min(self.size.most);
        let surplus = self.used.saturating_sub(u128::from(others) * self.nanoseconds());
        let nanoseconds = surplus.div_ceil(u128::from(self.size.most.max(1)));
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// What somebody may use; none for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Limits {
    pub(super) requests: Option<Size>,
    pub(super) bytes_out: Option<Size>,
    pub(super) bytes_in: Option<Size>,
}

impl From<Rates> for Limits {
    fn from(rates: Rates) -> Self {
        let period = rates.per.period();
        let size = |most: Option<u64>| most.map(|most| Size { most, period });
        Self { requests: size(rates.requests), bytes_out: size(rates.bytes_out), bytes_in: size(rates.bytes_in) }
    }
}

/// Whose ration it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// All that a rule allows, by what it is for: where it stands in the policy may change.
    Rule(String),
    /// One connection's.
    Connection,
    /// That of one who asks.
    Identity(String),
    /// All that goes to a name.
    Name(String),
    /// Of the rules, of the names or of those who ask that came when there were too many to tell apart.
    Others(Rationed),
}

impl Whose {
    fn counted(&self) -> Rationed {
        match self {
            Self::Rule(_) => Rationed::Rule,
            Self::Connection => Rationed::Connection,
            Self::Identity(_) => Rationed::Identity,
            Self::Name(_) => Rationed::Name,
            Self::Others(of) => *of,
        }
    }

    fn named(&self) -> String {
        match self {
            Self::Rule(place) => format!("the rule for {place}"),
            Self::Connection => "this connection".into(),
            Self::Identity(_) => "this client".into(),
            Self::Name(_) => "this name".into(),
            Self::Others(_) => "those that are too many to be told apart".into(),
        }
    }
}

/// That there is no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Short {
    what: Scarce,
    whose: Whose,
    size: Size,
    /// How much was wanted, and how much of it there is room for.
    wanted: u64,
    room: u64,
    /// When it is worth asking again.
    pub(super) wait: Duration,
}

impl Short {
    /// Counts what came to nothing for it.
    pub(super) fn count(&self) {
        COUNTS.rationed.add((self.whose.counted(), self.what));
    }

    /// The verdict on what came to nothing for it before anything has left.
    pub(super) fn verdict(&self) -> Verdict {
        let (reason, what) = match self.what {
            Scarce::Requests => (Reason::LimitExceeded, "requests"),
            Scarce::BytesOut => (Reason::BudgetExceeded, "bytes out"),
            Scarce::BytesIn => (Reason::BudgetExceeded, "bytes in"),
        };
        let Size { most, period } = self.size;
        let (wanted, room) = (self.wanted, self.room);
        let left = match room {
            _ if self.never_fits() => format!("this request has {wanted}, which never fit"),
            0 => "they are used up".to_owned(),
            _ => format!("{room} of them are left; this request has {wanted}"),
        };
        let denied = Verdict::block(
            reason,
            format!("rates: {} may have {most} {what} in {period:?}, and {left}", self.whose.named()),
        );
        if self.never_fits() { denied } else { denied.retry(self.wait) }
    }

    /// True for more than there is room for when nothing of it is used.
    fn never_fits(&self) -> bool {
        self.wanted > self.size.most
    }
}

/// Of requests, of bytes out and of bytes in; none without a limit.
type Buckets = [Option<Bucket>; 3];

/// What one rule, connection or client may still use.
#[derive(Debug)]
pub(super) struct Ration {
    whose: Whose,
    buckets: Mutex<Buckets>,
}

impl Ration {
    pub(super) fn new(whose: Whose, limits: impl Into<Limits>) -> Arc<Self> {
        let (now, Limits { requests, bytes_out, bytes_in }) = (Instant::now(), limits.into());
        let bucket = |size: Option<Size>| size.map(|size| Bucket { size, used: 0, at: now });
        Arc::new(Self { whose, buckets: Mutex::new([requests, bytes_out, bytes_in].map(bucket)) })
    }

    /// True when nothing of it is used any more.
    fn is_whole(&self, now: Instant) -> bool {
        locked(&self.buckets).iter_mut().flatten().all(|bucket| bucket.room(now) == bucket.size.most)
    }
}

/// What there is room for in all of some rations, held until it is known how much of it was used: another connection that looked
/// meanwhile would see what is not used yet as used up. Whoever has several has at most one of a rule, one of who asks, one of
/// a connection and one of a name, in this order.
pub(super) struct Held<'r> {
    what: Scarce,
    now: Instant,
    held: Vec<(&'r Ration, MutexGuard<'r, Buckets>)>,
}

impl<'r> Held<'r> {
    pub(super) fn of(rations: &'r [Arc<Ration>], what: Scarce) -> Self {
        let held = rations.iter().map(|ration| (&**ration, locked(&ration.buckets))).collect();
        Self { what, now: Instant::now(), held }
    }

    fn buckets(&mut self) -> impl Iterator<Item = (&'r Ration, &mut Bucket)> {
        let at = Labels::index(self.what);
        self.held.iter_mut().filter_map(move |(ration, buckets)| Some((*ration, buckets.get_mut(at)?.as_mut()?)))
    }

    /// How much there is room for.
    pub(super) fn room(&mut self) -> u64 {
        let now = self.now;
        self.buckets().map(|(_, bucket)| bucket.room(now)).min().unwrap_or(u64::MAX)
    }

    /// Takes so much.
    pub(super) fn spend(&mut self, used: u64) {
        self.buckets().for_each(|(_, bucket)| bucket.spend(used));
    }

    /// That there is no room: of those that have none, the one that has none for longest.
    pub(super) fn short(&mut self) -> Option<Short> {
        self.short_of(1)
    }

    /// The same for so much at once.
    fn short_of(&mut self, wanted: u64) -> Option<Short> {
        let (what, now) = (self.what, self.now);
        let used_up = self.buckets().filter_map(|(ration, bucket)| {
            let worth = if what == Scarce::Requests { 1 } else { bucket.size.most.div_ceil(WORTH) };
            let (room, size) = (bucket.room(now), bucket.size);
            let wait = bucket.wait(worth.max(wanted), now);
            (room < wanted).then(|| Short { what, whose: ration.whose.clone(), size, wanted, room, wait })
        });
        used_up.max_by_key(|short| (short.never_fits(), short.wait))
    }
}

/// Takes a request's worth of all of these.
///
/// # Errors
/// One that has no room, also for bytes, of which the request will have some; then nothing is taken.
pub(super) fn admit(rations: &[Arc<Ration>]) -> Result<(), Short> {
    admit_of(rations, 0)
}

/// The same for a request of which so many bytes at least are to leave. They are not taken yet.
///
/// # Errors
/// The same, or one that has no room for so many.
pub(super) fn admit_of(rations: &[Arc<Ration>], out: u64) -> Result<(), Short> {
    for what in [Scarce::BytesOut, Scarce::BytesIn, Scarce::Requests] {
        let mut held = Held::of(rations, what);
        let wanted = if what == Scarce::BytesOut { out.max(1) } else { 1 };
        if let Some(short) = held.short_of(wanted) {
            return Err(short);
        }
        if what == Scarce::Requests {
            held.spend(1);
        }
    }
    Ok(())
}

/// The agent of `run` or `attach`: whatever it starts is one who asks.
pub(super) const AGENT: &str = "agent";

/// Who asks, by a flow.
pub(super) fn who(flow: &Flow) -> String {
    match (&flow.origin.identity, flow.origin.peer.map(|peer| peer.ip().to_canonical())) {
        (Some(identity), _) => format!("={identity}"),
        (None, None) => AGENT.to_owned(),
        (None, Some(ip)) if ip.is_loopback() => "here".to_owned(),
        (None, Some(IpAddr::V4(ip))) => ip.to_string(),
        // Whoever has one address of IPv6 has all that share its first half.
        (None, Some(IpAddr::V6(ip))) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Rations that are told apart, so many at a time.
#[derive(Debug, Default)]
struct Known {
    rations: HashMap<(Whose, Limits), Arc<Ration>>,
    /// When those that are not used were last looked for.
    swept: Option<Instant>,
}

impl Known {
    fn of(&mut self, key: (Whose, Limits)) -> Arc<Ration> {
        if let Some(ration) = self.rations.get(&key) {
            return ration.clone();
        }
        let now = Instant::now();
        // It looks at all of them, while others wait: not for each stranger.
        if self.rations.len() >= MOST && self.swept.is_none_or(|swept| now.duration_since(swept) >= BETWEEN_SWEEPS) {
            self.swept = Some(now);
            self.rations.retain(|_, ration| Arc::strong_count(ration) > 1 || !ration.is_whole(now));
        }
        let key = if self.rations.len() >= MOST { (Whose::Others(key.0.counted()), key.1) } else { key };
        self.rations.entry(key.clone()).or_insert_with(|| Ration::new(key.0, key.1)).clone()
    }
}

/// The rations of rules, of names, and of those who ask: of these and of names there may be many, and they take none of the others away.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Rations {
    of_rules: Mutex<Known>,
    of_names: Mutex<Known>,
    of_others: Mutex<Known>,
}

impl Rations {
    /// All that something is taken from which a rule allows somebody, on a connection that may have a ration of its own; but that of
    /// the name, which the next request on the connection may have another of.
    pub(super) fn of_all(
        &self,
        policy: &Policy,
        rule: &Rule,
        who: String,
        own: Option<Arc<Ration>>,
    ) -> Vec<Arc<Ration>> {
        let of_rule = rule.rates().map(|rates| self.of(Whose::Rule(rule.place()), rates));
        let of_identity = policy.rates().identity.map(|rates| self.of(Whose::Identity(who), rates));
        of_rule.into_iter().chain(of_identity).chain(own).collect()
    }

    /// That of the name that something goes to; none without a limit.
    pub(super) fn of_name(&self, policy: &Policy, host: &Host) -> Option<Arc<Ration>> {
        policy.rates().name.map(|rates| self.of(Whose::Name(host.to_string()), rates))
    }

    /// The ration of somebody at these rates, under whatever policy they are the same.
    pub(super) fn of(&self, whose: Whose, limits: impl Into<Limits>) -> Arc<Ration> {
        let known = match whose {
            Whose::Rule(_) => &self.of_rules,
            Whose::Name(_) => &self.of_names,
            _ => &self.of_others,
        };
        locked(known).of((whose, limits.into()))
    }
}

#[cfg(test)]
#[path = "ration_tests.rs"]
mod tests;
