//! Finds the addresses of a host that is about to be dialled.
//!
//! Called by `net::way`, that is: after policy has allowed the name. It promises bounded time, a bounded
//! number of look-ups at once (a look-up that hangs in the C library keeps its place until it ends), a bounded cache,
//! and that hosts pinned by the policy, and those that are loopback everywhere, never reach the system's resolver. It checks no address: `net::ssrf` does.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::flow::{Host, locked};
use crate::policy::Policy;

/// Answers are kept no longer than this: getaddrinfo does not tell the TTL.
const CACHE_TTL: Duration = Duration::from_secs(30);
/// Names in the cache.
const CACHE_MAX: usize = 4096;
/// Addresses kept of one answer; the rest is never dialled.
const MAX_ADDRS: usize = 64;
/// Look-ups at once.
const MAX_CONCURRENT: usize = 64;
/// How long a caller waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a host has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The resolver said no, or failed.
    #[error("resolving {host} failed: {source}; check the name and the resolver of this machine")]
    Failed {
        /// The name that was looked up.
        host: String,
        /// What the system's resolver said.
        source: io::Error,
    },
    /// The resolver answered with no address at all.
    #[error("{host} has no address; check the name")]
    Empty {
        /// The name that was looked up.
        host: String,
    },
    /// No answer, or no free place for the look-up, in time.
    #[error("resolving {host} took longer than {after:?}; check the resolver of this machine")]
    Timeout {
        /// The name that was looked up.
        host: String,
        /// The limit that was reached.
        after: Duration,
    },
}

/// What a [`NameService`] returns.
pub type LookupFuture = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// A source of addresses; the system's resolver outside of tests.
pub trait NameService: Send + Sync {
    /// Looks `name` up. The future runs as a task of its own and may be left running after the caller gave up.
    fn lookup(&self, name: String) -> LookupFuture;
}

/// Where a machine lists addresses of its own choice (hosts(5)).
const HOSTS: &str = "/etc/hosts";

/// The hosts file, then getaddrinfo with the name servers that this machine is configured with. Never with its search list:
/// what policy has allowed is the name as it is, and not that name in a domain of this network's.
struct System;

impl NameService for System {
    fn lookup(&self, name: String) -> LookupFuture {
        Box::pin(async move {
            // Here and not by getaddrinfo, which does not find there what ends with a dot.
            let listed = tokio::fs::read(HOSTS).await.map(|file| listed(&String::from_utf8_lossy(&file), &name));
            if let Some(listed) = listed.ok().filter(|listed| !listed.is_empty()) {
                return Ok(listed);
            }
            #[allow(clippy::disallowed_methods, reason = "this is net::resolve, the one place that resolves")]
            let found = tokio::net::lookup_host((format!("{name}."), 0)).await?;
            Ok(found.map(|addr| addr.ip()).collect())
        })
    }
}

/// Addresses that the policy pins for a name (canonical, as in [`Host::Name`]); none when it pins nothing.
pub type StaticHosts = Box<dyn Fn(&str) -> Option<Vec<IpAddr>> + Send + Sync>;

struct Cached {
    addrs: Vec<IpAddr>,
    until: Instant,
}

/// Resolves hosts: addresses as they are, pinned names, cached names, then the system.
pub struct Resolver {
    pinned: StaticHosts,
    service: Arc<dyn NameService>,
    places: Arc<Semaphore>,
    cache: Mutex<HashMap<String, Cached>>,
    timeout: Duration,
}

impl Resolver {
    /// A resolver over the system's one, with a limit of 5 s a look-up.
    #[must_use]
    pub fn new(pinned: StaticHosts) -> Self {
        Self::with_service(pinned, Arc::new(System), TIMEOUT)
    }

    /// A resolver over another source of addresses, for tests and for fixed set-ups.
    #[must_use]
    pub fn with_service(pinned: StaticHosts, service: Arc<dyn NameService>, timeout: Duration) -> Self {
        Self {
            pinned,
            service,
            places: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            cache: Mutex::new(HashMap::new()),
            timeout,
        }
    }

    /// True for a name whose addresses are known without asking anybody: the policy gives them, or it is localhost.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        known(name, (self.pinned)(name)).is_some()
    }

    /// The addresses of `host` with `port`, in the order to try them, without duplicates, at least one, at most 64.
    ///
    /// # Errors
    /// [`ResolveError`] when there is none, or none in time.
    pub async fn resolve(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        let addrs = match host {
            Host::Addr(ip) => vec![*ip],
            Host::Name(name) => self.addresses(name).await?,
        };
        Ok(addrs.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    /// The addresses of a canonical name, as [`Resolver::resolve`] finds them.
    ///
    /// # Errors
    /// As [`Resolver::resolve`].
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let addrs = match known(name, (self.pinned)(name)) {
            Some(known) => known,
            None => match self.cached(name, Instant::now()) {
                Some(cached) => cached,
                None => {
                    let found = distinct(self.ask(name).await?);
                    if !found.is_empty() {
                        self.remember(name, &found, Instant::now());
                    }
                    found
                }
            },
        };
        if addrs.is_empty() { Err(ResolveError::Empty { host: name.to_owned() }) } else { Ok(addrs) }
    }

    async fn ask(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let timed_out = || ResolveError::Timeout { host: name.to_owned(), after: self.timeout };
        let failed = |source| ResolveError::Failed { host: name.to_owned(), source };
        let answer = async {
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| timed_out())?;
            let lookup = self.service.lookup(name.to_owned());
            // A task of its own: getaddrinfo cannot be cancelled, so the place must stay taken until it returns, even
            // when this caller gives up.
            let task = tokio::spawn(async move {
                let found = lookup.await;
                drop(place);
                found
            });
            task.await.map_err(|ended| failed(io::Error::other(ended)))?.map_err(failed)
        };
        tokio::time::timeout(self.timeout, answer).await.unwrap_or_else(|_| Err(timed_out()))
    }

    fn cached(&self, name: &str, now: Instant) -> Option<Vec<IpAddr>> {
        let cache = locked(&self.cache);
        cache.get(name).filter(|entry| entry.until > now).map(|entry| entry.addrs.clone())
    }

    fn remember(&self, name: &str, addrs: &[IpAddr], now: Instant) {
        let mut cache = locked(&self.cache);
        if cache.len() >= CACHE_MAX && !cache.contains_key(name) {
            cache.retain(|_, entry| entry.until > now);
            if cache.len() >= CACHE_MAX {
                // Only names that the policy allows come here, so thousands within 30 s is not a normal day: start over.
                cache.clear();
            }
        }
        cache.insert(name.to_owned(), Cached { addrs: addrs.to_vec(), until: now + CACHE_TTL });
    }
}

/// The addresses of a name that nobody has to be asked for: those that the policy pins, else those of localhost.
pub(super) fn known(name: &str, pinned: Option<Vec<IpAddr>>) -> Option<Vec<IpAddr>> {
    let here = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    pinned.map(distinct).or_else(|| Host::is_localhost(name).then(here))
}

/// The same under a policy.
pub(super) fn known_by(policy: &Policy, name: &str) -> Option<Vec<IpAddr>> {
    known(name, pinned_by(policy, name))
}

/// The addresses that a policy pins for a name.
#[must_use]
pub fn pinned_by(policy: &Policy, name: &str) -> Option<Vec<IpAddr>> {
    policy.dns_hosts(name).map(<[_]>::to_vec)
}

/// The addresses that a hosts file lists for a name.
fn listed(file: &str, name: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let addr: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(addr)
    };
    file.lines().filter_map(line).collect()
}

/// Unmapped, first occurrence kept, at most [`MAX_ADDRS`].
fn distinct(addrs: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut kept: Vec<IpAddr> = Vec::new();
    for ip in addrs.into_iter().map(|ip| ip.to_canonical()) {
        if kept.len() < MAX_ADDRS && !kept.contains(&ip) {
            kept.push(ip);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Fake {
        calls: Arc<AtomicUsize>,
        answer: Vec<IpAddr>,
        delay: Duration,
    }

    impl NameService for Fake {
        fn lookup(&self, name: String) -> LookupFuture {
            self.calls.fetch_add(1, Ordering::SeqCst);
            let (answer, delay) = (self.answer.clone(), self.delay);
            Box::pin(async move {
                tokio::time::sleep(delay).await;
                if name.starts_with("missing") { Err(io::Error::other("no such name")) } else { Ok(answer) }
            })
        }
    }

    fn resolver(answer: &[&str], delay: Duration, timeout: Duration) -> (Resolver, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let answer = answer.iter().map(|text| text.parse().expect("an address")).collect();
        let pinned: StaticHosts =
            Box::new(|name| (name == "pinned.example").then(|| vec![IpAddr::from([192, 0, 2, 9])]));
        let fake = Fake { calls: Arc::clone(&calls), answer, delay };
        (Resolver::with_service(pinned, Arc::new(fake), timeout), calls)
    }

    fn host(text: &str) -> Host {
        Host::parse(text).expect(text)
    }

    #[tokio::test]
    async fn answers_are_distinct_ordered_and_cached() {
        let (resolver, calls) =
            resolver(&["1.1.1.1", "2606::1", "::ffff:1.1.1.1", "2606::1"], Duration::ZERO, Duration::from_secs(1));
        for _ in 0..3 {
            let found = resolver.resolve(&host("a.example"), 443).await.expect("resolved");
            assert_eq!(found, ["1.1.1.1:443".parse().expect("v4"), "[2606::1]:443".parse().expect("v6")]);
        }
        assert_eq!(calls.load(Ordering::SeqCst), 1, "two of three came from the cache");
        assert!(resolver.cached("a.example", Instant::now() + CACHE_TTL).is_none(), "nothing outlives its time");
    }

    #[tokio::test]
    async fn addresses_and_pinned_names_ask_nobody() {
        let (resolver, calls) = resolver(&["1.1.1.1"], Duration::ZERO, Duration::from_secs(1));
        let found = resolver.resolve(&host("[2606::1]"), 80).await.expect("an address");
        assert_eq!(found, ["[2606::1]:80".parse().expect("v6")]);
        let found = resolver.resolve(&host("Pinned.Example"), 80).await.expect("pinned");
        assert_eq!(found, ["192.0.2.9:80".parse().expect("v4")]);
        for name in ["localhost", "Any.LocalHost."] {
            let found = resolver.resolve(&host(name), 80).await.expect("loopback");
            assert_eq!(found, ["127.0.0.1:80".parse().expect("v4"), "[::1]:80".parse().expect("v6")], "{name}");
        }
        assert_eq!(calls.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_hosts_file_lists_names_and_aliases() {
        let file =
            "# 192.0.2.1 a.test\n192.0.2.2\tb.test A.test # c.test\n::1 a.test\nnot-an-address a.test\n192.0.2.3\n";
        let found = |name| listed(file, name).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(found("a.test"), ["192.0.2.2", "::1"]);
        assert_eq!(found("b.test"), ["192.0.2.2"]);
        assert!(found("c.test").is_empty() && found("test").is_empty());
    }

    #[tokio::test]
    async fn failures_are_not_cached() {
        let (resolver, calls) = resolver(&[], Duration::ZERO, Duration::from_secs(1));
        for _ in 0..2 {
            assert!(matches!(resolver.resolve(&host("missing.example"), 1).await, Err(ResolveError::Failed { .. })));
            assert!(matches!(resolver.resolve(&host("empty.example"), 1).await, Err(ResolveError::Empty { .. })));
        }
        assert_eq!(calls.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_lookup_times_out_but_keeps_its_place() {
        let (resolver, _) = resolver(&["1.1.1.1"], Duration::from_secs(60), Duration::from_secs(5));
        let started = tokio::time::Instant::now();
        assert!(matches!(resolver.resolve(&host("slow.example"), 1).await, Err(ResolveError::Timeout { .. })));
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        assert_eq!(resolver.places.available_permits(), MAX_CONCURRENT - 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(resolver.places.available_permits(), MAX_CONCURRENT);
    }

    #[test]
    fn the_cache_is_bounded() {
        let (resolver, _) = resolver(&[], Duration::ZERO, Duration::from_secs(1));
        let now = Instant::now();
        for index in 0..CACHE_MAX + 10 {
            resolver.remember(&format!("n{index}.example"), &[IpAddr::from([1, 1, 1, 1])], now);
        }
        assert!(resolver.cache.lock().expect("not poisoned").len() <= CACHE_MAX);
        assert!(resolver.cached(&format!("n{}.example", CACHE_MAX + 9), now).is_some());
    }
}
