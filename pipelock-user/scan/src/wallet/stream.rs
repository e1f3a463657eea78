//! Wallet addresses in a text that comes in pieces, held against the list. Called by [`crate::detect`].
//!
//! An address is a word of letters and digits between others, at most [`LONGEST`] bytes; only words of at least
//! [`SHORTEST`] are looked at, which a look at every so-manyth byte finds.

use super::{Address, AllowList, Chain, Chains, Standing, candidate, recognise};
use crate::stream::Window;

/// Fewest and most bytes of an address.
const SHORTEST: usize = 14;
const LONGEST: usize = 90;

/// What to look for, and what is allowed.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// The addresses of the user; without any nothing is looked for.
    pub allowed: AllowList,
    /// The chains; Solana is looked for as well when one of its addresses is allowed, so that imitations are found.
    pub chains: Chains,
    /// Whether addresses that are not on the list, and look like none on it, are findings.
    pub unlisted: bool,
}

impl Watch {
    /// How an address stands to the list; `None` when nothing is to be said of it. Nothing but its likeness tells an address of
    /// Solana from other words when these are not asked for.
    fn standing(&self, address: &Address) -> Option<Standing> {
        let standing = self.allowed.check(address);
        let likely =
            address.chain != Chain::Solana || self.chains.solana || matches!(standing, Standing::Poisoned { .. });
        (standing != Standing::Allowed && likely).then_some(standing)
    }

    fn looked_for(&self) -> Chains {
        Chains { solana: self.chains.solana || self.allowed.has(Chain::Solana), ..self.chains }
    }

    /// Is the text an allowed address?
    pub(crate) fn allows(&self, text: &[u8]) -> bool {
        address(text, 0, Chains { solana: true, ..self.chains })
            .is_some_and(|address| self.allowed.check(&address) == Standing::Allowed)
    }
}

fn address(word: &[u8], start: usize, chains: Chains) -> Option<Address> {
    let chain = candidate(word, chains)?;
    let (canonical, altered) = recognise(word, chain)?;
    Some(Address { chain, span: start..start + word.len(), canonical, altered })
}

/// The addresses of one text.
#[derive(Debug, Default)]
pub(crate) struct Seeker {
    /// Everything before is dealt with; a word starts here, or none.
    at: u64,
    /// The word at `at` is longer than any address.
    long: bool,
}

impl Seeker {
    /// Takes the new piece of `window`; calls `found` with each address that is not allowed and its place.
    pub(crate) fn push(
        &mut self,
        watch: &Watch,
        window: &Window<'_>,
        last: bool,
        mut found: impl FnMut(std::ops::Range<u64>, Standing, bool),
    ) {
        let chains = watch.looked_for();
        let from = self.at.max(window.start());
        window.with(from..window.end(), |bytes| {
            let mut at = 0;
            if self.long {
                at = bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
                self.long = at == bytes.len();
            }
            loop {
                let Some((start, end)) = word(bytes, at) else {
                    at = bytes.len();
                    break;
                };
                at = end;
                if end == bytes.len() && !last {
                    self.long = end - start > LONGEST;
                    at = if self.long { end } else { start };
                    break;
                }
                if let Some(address) = bytes.get(start..end).and_then(|word| address(word, start, chains))
                    && let Some(standing) = watch.standing(&address)
                {
                    found(from + start as u64..from + end as u64, standing, address.altered);
                }
            }
            self.at = from + at as u64;
        });
    }

    /// Where the first address may start that is not over yet.
    pub(crate) fn hold(&self) -> u64 {
        self.at
    }
}

/// The next word from `at` on, of at least [`SHORTEST`] bytes or, at the end, of any length; else where words may go on.
fn word(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    while at < bytes.len() {
        let probe = (at + SHORTEST - 1).min(bytes.len() - 1);
        let back = bytes[at..=probe].iter().rev().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if back == 0 {
            at = probe + 1;
            continue;
        }
        let start = probe + 1 - back;
        let end = bytes[probe..]
            .iter()
            .position(|byte| !byte.is_ascii_alphanumeric())
            .map_or(bytes.len(), |more| probe + more);
        if end - start >= SHORTEST || end == bytes.len() {
            return Some((start, end));
        }
        at = end;
    }
    None
}
