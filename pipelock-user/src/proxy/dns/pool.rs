//! Synthetic addresses: which name stands behind which address of the run.
//!
//! Filled by the resolver when the agent asks for an allowed name, read by the proxy when the agent connects to an
//! address. It promises that a name keeps its addresses while it is in use, that one index serves both families, that
//! memory is bounded, and that an address is given to another name only after all others were used up.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::flow::locked;

/// Names at once, unless told otherwise.
pub const DEFAULT_MAX_NAMES: usize = 4096;

/// 198.18.0.0/15, set aside for benchmarks (RFC 2544): routed nowhere, and used by no network worth reaching.
const V4_NET: u32 = 0xc612_0000;
/// Addresses in it, without the first (network) and the last (broadcast).
const CAPACITY: u32 = (1 << 17) - 2;
/// A name that was neither asked for nor connected to for this long may be forgotten. Ten times the TTL of an answer.
const IDLE: Duration = Duration::from_secs(600);

/// The pool could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("no random prefix for synthetic IPv6 addresses: {0}; the kernel's random source must be readable")]
pub struct PoolError(#[from] getrandom::Error);

/// The two addresses of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synthetic {
    /// In 198.18.0.0/15.
    pub v4: Ipv4Addr,
    /// In the /64 of the run.
    pub v6: Ipv6Addr,
}

struct Entry {
    name: Arc<str>,
    used: Instant,
}

struct Inner {
    by_name: HashMap<Arc<str>, u32>,
    by_index: HashMap<u32, Entry>,
    /// Where the search for a free index goes on: round the whole space before any index comes again.
    next: u32,
}

/// Names and their synthetic addresses. Shared between tasks; its lock is never held across an await.
pub struct Pool {
    inner: Mutex<Inner>,
    prefix: u64,
    max_names: usize,
}

impl Pool {
    /// An empty pool for at most `max_names` names (1 to 65535; outside of that the nearest), with a random unique
    /// local /64 (RFC 4193) and a random beginning among the IPv4 addresses: an address that was given out before, and that
    /// an agent still remembers, hardly ever means another name in a later run.
    ///
    /// # Errors
    /// [`PoolError`] when the kernel gives no random bytes.
    pub fn new(max_names: usize) -> Result<Self, PoolError> {
        let (mut prefix, mut start) = ([0u8; 8], [0u8; 4]);
        getrandom::fill(&mut prefix)?;
        getrandom::fill(&mut start)?;
        let pool = Self::with_prefix(u64::from_be_bytes(prefix), max_names);
        locked(&pool.inner).next = u32::from_be_bytes(start) % CAPACITY;
        Ok(pool)
    }

    /// As [`Pool::new`] with a prefix of the caller's: the upper 64 bits of the IPv6 addresses, put under fd00::/8.
    #[must_use]
    pub fn with_prefix(prefix: u64, max_names: usize) -> Self {
        let prefix = (prefix & 0x00ff_ffff_ffff_ffff) | 0xfd00_0000_0000_0000;
        let inner = Inner { by_name: HashMap::new(), by_index: HashMap::new(), next: 0 };
        // At most half the space, so that a free index is always near.
        Self { inner: Mutex::new(inner), prefix, max_names: max_names.clamp(1, (CAPACITY / 2) as usize) }
    }

    /// The addresses of `name` (canonical), new ones if it has none. None when the pool is full of names in use.
    #[must_use]
    pub fn assign(&self, name: &str) -> Option<Synthetic> {
        self.assign_at(name, Instant::now())
    }

    /// The name behind an address of the pool; counts as a use of the name. None for any other address, and for one
    /// whose name was forgotten.
    #[must_use]
    pub fn lookup(&self, addr: IpAddr) -> Option<Arc<str>> {
        self.lookup_at(addr, Instant::now())
    }

    /// True for every address the pool could give, in use or not: the agent got it from us and from nobody else, so
    /// one without a name is stale and not a place to connect to.
    #[must_use]
    pub fn owns(&self, addr: IpAddr) -> bool {
        match addr.to_canonical() {
            IpAddr::V4(v4) => v4.to_bits() & !0x1_ffff == V4_NET,
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 == self.prefix,
        }
    }

    /// How many names have addresses.
    #[must_use]
    pub fn len(&self) -> usize {
        locked(&self.inner).by_index.len()
    }

    /// True when no name has an address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn assign_at(&self, name: &str, now: Instant) -> Option<Synthetic> {
        let mut inner = locked(&self.inner);
        if let Some(index) = inner.by_name.get(name).copied() {
            if let Some(entry) = inner.by_index.get_mut(&index) {
                entry.used = now;
            }
            return Some(self.addresses(index));
        }
        if inner.by_index.len() >= self.max_names {
            let (index, idle) = inner.by_index.iter().min_by_key(|(_, entry)| entry.used).map(|(index, entry)| {
                let idle = now.saturating_duration_since(entry.used);
                (*index, idle)
            })?;
            if idle < IDLE {
                return None;
            }
            if let Some(old) = inner.by_index.remove(&index) {
                inner.by_name.remove(&old.name);
            }
        }
        let mut index = inner.next;
        while inner.by_index.contains_key(&index) {
            index = (index + 1) % CAPACITY;
        }
        inner.next = (index + 1) % CAPACITY;
        let name: Arc<str> = name.into();
        inner.by_name.insert(Arc::clone(&name), index);
        inner.by_index.insert(index, Entry { name, used: now });
        Some(self.addresses(index))
    }

    fn lookup_at(&self, addr: IpAddr, now: Instant) -> Option<Arc<str>> {
        let index = self.index(addr)?;
        let mut inner = locked(&self.inner);
        let entry = inner.by_index.get_mut(&index)?;
        entry.used = now;
        Some(Arc::clone(&entry.name))
    }

    /// `index` is below [`CAPACITY`]; the first address of each network stays unused.
    fn addresses(&self, index: u32) -> Synthetic {
        let host = index + 1;
        Synthetic {
            v4: Ipv4Addr::from_bits(V4_NET | host),
            v6: Ipv6Addr::from_bits((u128::from(self.prefix) << 64) | u128::from(host)),
        }
    }

    fn index(&self, addr: IpAddr) -> Option<u32> {
        if !self.owns(addr) {
            return None;
        }
        let host = match addr.to_canonical() {
            IpAddr::V4(v4) => v4.to_bits() & 0x1_ffff,
            IpAddr::V6(v6) => u32::try_from(v6.to_bits() & u128::from(u64::MAX)).ok()?,
        };
        host.checked_sub(1).filter(|index| *index < CAPACITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(max_names: usize) -> Pool {
        Pool::with_prefix(0x12_3456_789a_0001, max_names)
    }

    #[test]
    fn a_name_has_one_index_in_both_families() {
        let pool = pool(10);
        let first = pool.assign("a.example").expect("room");
        assert_eq!(first.v4.to_string(), "198.18.0.1");
        assert_eq!(first.v6.to_string(), "fd12:3456:789a:1::1");
        let second = pool.assign("b.example").expect("room");
        assert_eq!(
            (second.v4.to_string().as_str(), second.v6.to_string().as_str()),
            ("198.18.0.2", "fd12:3456:789a:1::2")
        );
        assert_eq!(pool.assign("a.example"), Some(first), "stable");
        for addr in [IpAddr::V4(first.v4), first.v6.into(), first.v4.to_ipv6_mapped().into()] {
            assert_eq!(pool.lookup(addr).as_deref(), Some("a.example"), "{addr}");
        }
        assert_eq!(pool.len(), 2);
    }

    #[test]
    fn other_addresses_have_no_name() {
        let pool = pool(10);
        pool.assign("a.example").expect("room");
        for text in [
            "198.18.0.0",
            "198.18.0.2",
            "198.19.255.255",
            "198.20.0.1",
            "198.17.0.1",
            "fd12:3456:789a:1::",
            "fd12:3456:789a:1::2",
            "fd12:3456:789a:1:0:1::1",
            "fd12:3456:789a:2::1",
            "::1",
        ] {
            assert_eq!(pool.lookup(text.parse().expect(text)), None, "{text}");
        }
        for (text, ours) in [
            ("198.18.0.0", true),
            ("198.19.255.255", true),
            ("198.20.0.0", false),
            ("198.17.255.255", false),
            ("fd12:3456:789a:1:ffff::", true),
            ("fd12:3456:789a:2::1", false),
        ] {
            assert_eq!(pool.owns(text.parse().expect(text)), ours, "{text}");
        }
    }

    #[test]
    fn the_first_and_last_index_stay_inside_the_net() {
        let pool = pool(1);
        assert_eq!(pool.addresses(0).v4.to_string(), "198.18.0.1");
        assert_eq!(pool.addresses(CAPACITY - 1).v4.to_string(), "198.19.255.254");
        assert_eq!(pool.index(pool.addresses(CAPACITY - 1).v6.into()), Some(CAPACITY - 1));
    }

    #[test]
    fn a_full_pool_forgets_only_idle_names_the_oldest_first() {
        let pool = pool(2);
        let start = Instant::now();
        let a = pool.assign_at("a", start).expect("room");
        let b = pool.assign_at("b", start + Duration::from_secs(1)).expect("room");
        assert_eq!(pool.assign_at("c", start + IDLE - Duration::from_secs(1)), None, "both are in use");

        // A connection counts as use: now b is the older one.
        assert!(pool.lookup_at(a.v6.into(), start + Duration::from_secs(2)).is_some());
        let c = pool.assign_at("c", start + IDLE + Duration::from_secs(1)).expect("b is idle");
        assert_eq!(pool.lookup_at(b.v4.into(), start + IDLE), None, "b is forgotten");
        assert_eq!(pool.lookup_at(a.v4.into(), start + IDLE).as_deref(), Some("a"));
        assert!(c.v4 != b.v4 && c.v4 != a.v4, "the address of b rests");
        assert_eq!(pool.len(), 2);
    }

    #[test]
    fn indexes_wrap_round_names_in_use() {
        let pool = pool(3);
        let now = Instant::now();
        let a = pool.assign_at("a", now).expect("room");
        pool.inner.lock().expect("not poisoned").next = CAPACITY - 1;
        assert_eq!(pool.assign_at("b", now).expect("room").v4.to_string(), "198.19.255.254");
        let c = pool.assign_at("c", now).expect("room");
        assert_eq!(c.v4.to_string(), "198.18.0.2", "the first index is still taken by a");
        assert_eq!(pool.lookup_at(a.v4.into(), now).as_deref(), Some("a"));
    }

    #[test]
    fn random_prefixes_are_unique_local_and_differ() {
        let (one, two) = (Pool::new(1).expect("random"), Pool::new(1).expect("random"));
        assert_eq!(one.prefix >> 56, 0xfd);
        assert_ne!(one.prefix, two.prefix);
        let starts: std::collections::HashSet<_> =
            (0..8).map(|_| Pool::new(1).expect("random").assign("a").expect("room").v4).collect();
        assert!(starts.len() > 1, "{starts:?}");
    }

    proptest! {
        #[test]
        fn both_ways_agree_under_any_use(steps in proptest::collection::vec((0u8..12, 0u64..900), 1..200)) {
            let pool = pool(5);
            let mut now = Instant::now();
            for (name, wait) in steps {
                now += Duration::from_secs(wait);
                let name = format!("n{name}");
                if let Some(got) = pool.assign_at(&name, now) {
                    for addr in [IpAddr::V4(got.v4), got.v6.into()] {
                        let found = pool.lookup_at(addr, now);
                        prop_assert_eq!(found.as_deref(), Some(name.as_str()));
                    }
                }
                let inner = pool.inner.lock().expect("not poisoned");
                prop_assert!(inner.by_index.len() <= 5);
                prop_assert_eq!(inner.by_index.len(), inner.by_name.len());
            }
        }
    }
}
