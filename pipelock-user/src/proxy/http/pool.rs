//! Connections to destinations whose own connection of the agent is over, for the next one of the same client: who calls a program for
//! every request pays for one greeting.
//!
//! Filled and asked by `upstream`. It promises that none goes to another client, name or policy, or to one who speaks otherwise, that one
//! on which somebody has shown who they are, or whose bytes are counted, is never here, that each has one user at a time, and that they
//! are few, used within [`LONGEST`], and gone after twice that.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Instant;

use super::authority::Authority;
use super::upstream::{Carrier, Upstream};
use crate::flow::{Flow, locked};
use crate::proxy::ration::who;
use crate::proxy::state::Rules;

/// Connections that are kept at a time.
pub(in crate::proxy) const MOST: usize = 64;
/// How long one is kept, at most: destinations end idle connections after five seconds and more (RFC 9112 §9.5), and what is sent while
/// one does so is lost.
const LONGEST: Duration = Duration::from_secs(4);

/// Schemes that show who somebody is with each request (IANA's registry of HTTP authentication schemes, and what is in use beside
/// it). Others may do so once for a whole connection, as Negotiate (RFC 4559) and NTLM do.
const OF_REQUESTS: [&str; 10] =
    ["basic", "bearer", "digest", "token", "apikey", "aws4-hmac-sha256", "sharedkey", "dpop", "hawk", "hmac"];

/// Those that do, where they are offered behind others.
const OF_CONNECTIONS: [&str; 3] = ["negotiate", "nego2", "ntlm"];

/// Whose a connection is, and how it is spoken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    client: String,
    carrier: Carrier,
}

impl Whose {
    /// The client of a flow: the agent, of which processes of other users and in other cgroups are others, or somebody who has shown a
    /// token. Who else there is cannot be told apart well enough.
    pub(super) fn of(flow: &Flow, carrier: Carrier) -> Option<Self> {
        let origin = &flow.origin;
        let is_known = origin.peer.is_none() || origin.identity.is_some();
        is_known.then(|| Self { client: format!("{} {} {}", who(flow), origin.cgroup_id, origin.uid), carrier })
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// One that nobody uses.
struct Parked {
    upstream: Upstream,
    since: Instant,
}

/// Them.
#[derive(Default)]
pub(in crate::proxy) struct Pool {
    /// The oldest first.
    parked: Mutex<Vec<Parked>>,
    /// Somebody looks for those that have been here for too long.
    is_watched: AtomicBool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("parked", &locked(&self.parked).len()).finish()
    }
}

impl Pool {
    /// Keeps a connection that can be used at once; the oldest makes room.
    pub(super) fn put(self: &Arc<Self>, upstream: Upstream) {
        // Who ends while everything does has nothing to keep.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let mut parked = locked(&self.parked);
        sweep(&mut parked);
        if parked.len() >= MOST {
            parked.remove(0);
        }
        parked.push(Parked { upstream, since: Instant::now() });
        drop(parked);
        if !self.is_watched.swap(true, Ordering::AcqRel) {
            runtime.spawn(watch(Arc::downgrade(self)));
        }
    }

    /// One for this client and name under these rules: the one used last.
    pub(super) fn take(&self, whose: &Whose, authority: &Authority, rules: &Rules) -> Option<Upstream> {
        let mut parked = locked(&self.parked);
        if parked.is_empty() {
            return None;
        }
        sweep(&mut parked);
        let at = parked.iter().rposition(|one| one.upstream.is_for(whose, authority, rules))?;
        Some(parked.remove(at).upstream)
    }
}

fn sweep(parked: &mut Vec<Parked>) {
    parked.retain(|one| one.since.elapsed() < LONGEST.min(one.upstream.patience()) && one.upstream.is_ready());
}

/// Ends those that were not asked for, until none is left.
async fn watch(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(LONGEST).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut parked = locked(&pool.parked);
        sweep(&mut parked);
        if parked.is_empty() {
            pool.is_watched.store(false, Ordering::Release);
            return;
        }
    }
}

/// Whether a message may be part of showing who somebody is for all of a connection.
pub(super) fn shows_who(headers: &HeaderMap) -> bool {
    let is_one = |value: &HeaderValue| {
        let mut words = value.as_bytes().split(|byte| byte.is_ascii_whitespace() || *byte == b',');
        let is = |word: &[u8], scheme: &str| word.eq_ignore_ascii_case(scheme.as_bytes());
        let scheme = words.next().unwrap_or_default();
        // A list may offer others behind the first.
        !OF_REQUESTS.iter().any(|known| is(scheme, known))
            || words.any(|word| OF_CONNECTIONS.iter().any(|other| is(word, other)))
    };
    [header::AUTHORIZATION, header::WWW_AUTHENTICATE].iter().any(|name| headers.get_all(name).iter().any(is_one))
}

/// How long a destination says that it keeps a connection which is idle (`Keep-Alive: timeout=5`), less a second.
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let timeout = text.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    Some(Duration::from_secs(timeout.trim().parse::<u64>().ok()?.saturating_sub(1)))
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
