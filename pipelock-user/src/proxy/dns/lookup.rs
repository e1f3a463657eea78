//! Real mode: the agent gets the real addresses of allowed names, and we remember which names stand behind them.
//!
//! The server calls [`Lookup`] once policy has allowed the name, and files the answer in [`SeenNames`], where the
//! proxy finds it when the agent connects. It promises bounded memory. An address may have many names (shared
//! hosting), so the proxy must ask for a name in the connection as well.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::flow::{Reason, locked};
use crate::net::{ResolveError, Resolver};

/// What a [`Lookup`] returns: addresses of both families, or why there are none.
pub type Found<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Reason>> + Send + 'a>>;

/// Finds real addresses of an allowed name.
pub trait Lookup: Send + Sync {
    /// The addresses of `name` (canonical); an empty list when it exists without one.
    fn lookup<'a>(&'a self, name: &'a str) -> Found<'a>;
}

impl Lookup for Resolver {
    fn lookup<'a>(&'a self, name: &'a str) -> Found<'a> {
        Box::pin(async move {
            match self.addresses(name).await {
                Ok(addrs) => Ok(addrs),
                Err(ResolveError::Empty { .. }) => Ok(Vec::new()),
                Err(ResolveError::Failed { .. } | ResolveError::Timeout { .. }) => Err(Reason::ResolveFailed),
            }
        })
    }
}

/// Addresses remembered.
const MAX_ADDRS: usize = 8192;
/// Names remembered for one address; the latest are kept.
const MAX_NAMES: usize = 32;

struct Entry {
    names: Vec<Arc<str>>,
    used: Instant,
}

/// The names that real addresses were given for.
#[derive(Default)]
pub struct SeenNames(Mutex<HashMap<IpAddr, Entry>>);

impl SeenNames {
    /// Remembers that the agent was given `addrs` for `name`. When full, the addresses unused the longest go first;
    /// a connection to such an address has no name and is judged as an address.
    pub fn remember(&self, name: &str, addrs: &[IpAddr]) {
        let now = Instant::now();
        let mut seen = locked(&self.0);
        for addr in addrs.iter().map(|addr| addr.to_canonical()) {
            if seen.len() >= MAX_ADDRS
                && !seen.contains_key(&addr)
                && let Some(oldest) = seen.iter().min_by_key(|(_, entry)| entry.used).map(|(addr, _)| *addr)
            {
                seen.remove(&oldest);
            }
            let entry = seen.entry(addr).or_insert_with(|| Entry { names: Vec::new(), used: now });
            entry.used = now;
            // The latest name stands last; asking again moves it there.
            let kept = entry.names.iter().position(|known| **known == *name).map(|at| entry.names.remove(at));
            if entry.names.len() >= MAX_NAMES {
                entry.names.remove(0);
            }
            entry.names.push(kept.unwrap_or_else(|| name.into()));
        }
    }

    /// The names the agent was given this address for, the latest first; counts as a use of the address.
    #[must_use]
    pub fn names(&self, addr: IpAddr) -> Vec<Arc<str>> {
        let mut seen = locked(&self.0);
        let Some(entry) = seen.get_mut(&addr.to_canonical()) else { return Vec::new() };
        entry.used = Instant::now();
        entry.names.iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0101_0000 + last))
    }

    fn names(seen: &SeenNames, addr: IpAddr) -> Vec<String> {
        seen.names(addr).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_address_remembers_its_names_the_latest_first() {
        let seen = SeenNames::default();
        seen.remember("a", &[ip(1), ip(2)]);
        seen.remember("b", &[ip(1)]);
        assert_eq!(names(&seen, ip(1)), ["b", "a"]);
        seen.remember("a", &[ip(1)]);
        assert_eq!(names(&seen, ip(1)), ["a", "b"]);
        assert_eq!(names(&seen, ip(2)), ["a"]);
        assert!(names(&seen, ip(3)).is_empty());
    }

    #[test]
    fn memory_is_bounded_both_ways() {
        let seen = SeenNames::default();
        for index in 0..MAX_NAMES + 5 {
            seen.remember(&format!("n{index}"), &[ip(1)]);
        }
        assert_eq!(names(&seen, ip(1)).len(), MAX_NAMES);
        assert_eq!(names(&seen, ip(1))[0], format!("n{}", MAX_NAMES + 4));

        for index in 0..MAX_ADDRS as u32 {
            seen.remember("m", &[ip(2 + index)]);
        }
        assert_eq!(seen.0.lock().expect("not poisoned").len(), MAX_ADDRS);
        assert!(names(&seen, ip(1)).is_empty(), "the oldest went first");
        assert_eq!(names(&seen, ip(MAX_ADDRS as u32 + 1)), ["m"]);
    }
}
