//! What is remembered of each client: what it sent and was given, its own words, and the placeholders of its secrets.
//!
//! Made by `scanners` with the engines of a policy; asked for every request that is read. It promises that no client's memory is judged
//! by, shown to or used up by another's, and that there are never more than [`MOST`] of them: who comes when all are busy shares one
//! with the others who do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use pipelock_scan::injection::OwnText;
use pipelock_scan::session::{BudgetLimits, FragmentLimits, Given, Sessions};
use pipelock_scan::{Finding, Scanner};

use super::scanners::Scanners;
use crate::flow::locked;

/// Clients that have a memory of their own, of some megabytes each, 25 at the very most.
const MOST: usize = 64;
/// A memory is given up for a newcomer's when it was not asked for so long: longer than anything in it counts.
const IDLE: Duration = Duration::from_mins(10);
/// Values by name (a header, a field, a place in a path) whose latest pieces are remembered: at most 40 KiB each, mostly far less.
const MOST_LANES: usize = 512;
/// Words of a client's own that are remembered.
const OWN_WORDS: usize = 1 << 16;
/// Secrets whose placeholders are remembered.
const MOST_SECRETS: usize = 4096;

/// The engines of a policy, which every client shares.
#[derive(Clone, Debug)]
pub(super) struct Engines {
    /// Secrets, and nothing else: for what is put together of pieces, too.
    pub(super) secrets: Scanner,
    /// What leaves: secrets, and instructions where the policy wants those looked for.
    pub(super) outbound: Scanner,
    /// What comes in: instructions, and secrets as well.
    pub(super) inbound: Scanner,
}

impl Engines {
    /// For somebody of whom nothing is remembered yet; for several, with no memory of what would excuse one for what another said
    /// or was given.
    fn scanners(&self, is_shared: bool) -> Arc<Scanners> {
        let own = Arc::new(RwLock::new(OwnText::new(OWN_WORDS)));
        let foreign = self.inbound.foreign(own.clone());
        let given = Arc::new(Given::default());
        let inbound = if is_shared { foreign.clone() } else { foreign.giving(given.clone()) };
        let budget = BudgetLimits { sessions: 1, ..BudgetLimits::default() };
        let fragments = FragmentLimits { sessions: 1, lanes: MOST_LANES, ..FragmentLimits::default() };
        Arc::new(Scanners {
            secrets: self.secrets.clone(),
            outbound: self.outbound.clone(),
            inbound,
            foreign,
            sessions: Sessions::new(self.secrets.clone(), budget, fragments).beside(given),
            own: (!is_shared).then_some(own),
            placeholders: Placeholders::default(),
            started: Instant::now(),
        })
    }
}

/// Everybody's scanners.
pub(super) struct Clients {
    engines: Engines,
    /// The attachment's: all that the kernel brings is the agent's.
    agent: Arc<Scanners>,
    /// Of the others, by name.
    others: Mutex<HashMap<Box<str>, Client>>,
    /// Of those for whom there is no room.
    rest: Arc<Scanners>,
}

/// One of the others.
struct Client {
    scanners: Arc<Scanners>,
    /// When it was asked for.
    last: Instant,
}

impl Clients {
    pub(super) fn new(engines: Engines) -> Self {
        let (agent, rest) = (engines.scanners(false), engines.scanners(true));
        Self { engines, agent, others: Mutex::default(), rest }
    }

    /// The agent's.
    pub(super) fn agent(&self) -> &Arc<Scanners> {
        &self.agent
    }

    /// Somebody else's, if they are there, and otherwise those of all for whom there is no room.
    pub(super) fn known(&self, name: &str) -> Arc<Scanners> {
        locked(&self.others).get(name).map_or_else(|| self.rest.clone(), |client| client.scanners.clone())
    }

    /// Somebody else's.
    pub(super) fn of(&self, name: &str) -> Arc<Scanners> {
        let now = Instant::now();
        let mut others = locked(&self.others);
        if let Some(client) = others.get_mut(name) {
            client.last = now;
            return client.scanners.clone();
        }
        if others.len() >= MOST {
            others.retain(|_, client| now.duration_since(client.last) < IDLE);
        }
        if others.len() >= MOST {
            return self.rest.clone();
        }
        let scanners = self.engines.scanners(false);
        others.insert(name.into(), Client { scanners: scanners.clone(), last: now });
        scanners
    }
}

/// The placeholders that stand for secrets: the same one for the same secret for as long as it is remembered, and never one for two.
#[derive(Debug, Default)]
pub(super) struct Placeholders(Mutex<Numbers>);

#[derive(Debug, Default)]
struct Numbers {
    /// By class and fingerprint.
    of: HashMap<(Arc<str>, [u8; 32]), u64>,
    /// The last of each class. They are not used again.
    last: HashMap<Arc<str>, u64>,
}

impl Placeholders {
    /// The one for a finding.
    pub(super) fn of(&self, finding: &Finding) -> String {
        let mut numbers = locked(&self.0);
        let key = (finding.class.clone(), finding.fingerprint.0);
        let number = match numbers.of.get(&key) {
            Some(number) => *number,
            None => {
                if numbers.of.len() >= MOST_SECRETS {
                    numbers.of.clear();
                }
                let last = numbers.last.entry(finding.class.clone()).or_default();
                *last += 1;
                let number = *last;
                numbers.of.insert(key, number);
                number
            }
        };
        format!("<pipelock:{}:{number}>", finding.class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::Inspection;

    #[test]
    fn everybody_has_a_memory_until_all_are_busy() {
        let clients = Clients::new(Inspection::engines_for_tests());
        // Who is only told of takes no room.
        assert!((0..MOST).all(|number| Arc::ptr_eq(&clients.known(&number.to_string()), &clients.rest)));
        let first = clients.of("a");
        assert!(Arc::ptr_eq(&first, &clients.of("a")) && !Arc::ptr_eq(&first, clients.agent()));
        let all: Vec<_> = (1..MOST).map(|number| clients.of(&number.to_string())).collect();
        assert!(all.iter().all(|one| !Arc::ptr_eq(one, &first)));
        let (late, later) = (clients.of("late"), clients.of("later"));
        assert!(Arc::ptr_eq(&late, &later) && all.iter().all(|one| !Arc::ptr_eq(one, &late)));
        assert!(Arc::ptr_eq(&clients.known("stranger"), &late) && Arc::ptr_eq(&clients.known("a"), &first));
        assert!(late.own.is_none() && first.own.is_some(), "what one of them says excuses no other");
        // Whoever was not seen for long makes room.
        let long_ago = Instant::now().checked_sub(IDLE).expect("the machine runs for longer");
        locked(&clients.others).get_mut("a").expect("there").last = long_ago;
        assert!(!Arc::ptr_eq(&clients.of("late"), &late));
        assert!(Arc::ptr_eq(&clients.of("later"), &late), "there was room for one");
    }

    #[test]
    fn a_placeholder_never_stands_for_two() {
        let scanner = Inspection::engines_for_tests().secrets;
        let finding = |number: usize| {
            let text = format!("ghp_{number:036}");
            scanner.scan(text.as_bytes()).expect("read").remove(0)
        };
        let placeholders = Placeholders::default();
        let first = placeholders.of(&finding(0));
        assert_eq!((first.as_str(), placeholders.of(&finding(0))), ("<pipelock:credential:1>", first.clone()));
        let all: std::collections::HashSet<_> =
            (0..=MOST_SECRETS).map(|number| placeholders.of(&finding(number))).collect();
        assert_eq!(all.len(), MOST_SECRETS + 1);
        assert!(!all.contains(&placeholders.of(&finding(0))), "forgotten, and not given to another");
    }
}
