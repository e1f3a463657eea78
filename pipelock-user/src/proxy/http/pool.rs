//! Connections to destinations whose own connection of the agent is over, for the next one of the same client: who calls a program for
//! every request pays for one greeting.
//!
//! Filled and asked by `upstream`. It promises that none goes to another client, name or policy, that one which has shown who it is,
//! or has a budget or a rate, is never here, that each has one user at a time, and that they are few and gone after [`LONGEST`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use http::{HeaderMap, header};
use tokio::time::Instant;

use super::authority::Authority;
use super::upstream::Upstream;
use crate::flow::{Flow, PolicyId, locked};
use crate::proxy::ration::who;

/// Connections that are kept at a time.
pub(in crate::proxy) const MOST: usize = 64;
/// How long one is kept: destinations end idle connections after five seconds and more, and a name may stand for another address
/// after a while.
const LONGEST: Duration = Duration::from_secs(10);

/// Schemes that show who somebody is once for a whole connection (RFC 4559; MS-NTHT).
const OF_CONNECTIONS: [&str; 2] = ["negotiate", "ntlm"];

/// Whose a connection is, and how it is spoken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whose {
    client: String,
    is_tls: bool,
}

impl Whose {
    /// The client of a flow. Processes of other users and in other cgroups below the agent's are others.
    pub(super) fn of(flow: &Flow, is_tls: bool) -> Self {
        let origin = &flow.origin;
        Self { client: format!("{} {} {}", who(flow), origin.cgroup_id, origin.uid), is_tls }
    }
}

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

    /// One for this client, name and policy: the one used last.
    pub(super) fn take(&self, whose: &Whose, authority: &Authority, policy: &PolicyId) -> Option<Upstream> {
        let mut parked = locked(&self.parked);
        if parked.is_empty() {
            return None;
        }
        sweep(&mut parked);
        let at = parked.iter().rposition(|one| one.upstream.is_for(whose, authority, policy))?;
        Some(parked.remove(at).upstream)
    }
}

fn sweep(parked: &mut Vec<Parked>) {
    parked.retain(|one| one.since.elapsed() < LONGEST && one.upstream.is_ready());
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

/// Whether a message is part of showing who somebody is for all of a connection.
pub(super) fn shows_who(headers: &HeaderMap) -> bool {
    let is_one = |value: &http::HeaderValue| {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        OF_CONNECTIONS.iter().any(|scheme| text.contains(scheme))
    };
    [header::AUTHORIZATION, header::WWW_AUTHENTICATE].iter().any(|name| headers.get_all(name).iter().any(is_one))
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
