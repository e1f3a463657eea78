//! The addresses a user pays to, and what is made to look like them.
//!
//! Called by the engine with every [`Address`] found. Promises: one comparison per allowed address of the
//! same chain; the list is refused whole when an entry is no address, so that a typing error does not switch it off.

use super::{Address, Chain, recognise};

/// Characters at both ends that people compare, and so what an attacker imitates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Likeness {
    /// Characters after the part that all addresses of a kind share (`0x`, `bc1q`, `1`).
    pub prefix: usize,
    /// Characters at the end.
    pub suffix: usize,
    /// Characters that differ anywhere, up to which two addresses of one length are alike: a mistyped or altered one.
    pub differing: usize,
}

impl Default for Likeness {
    fn default() -> Self {
        Self { prefix: 4, suffix: 4, differing: 4 }
    }
}

/// An entry of the list that is no address of any chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadAddress {
    /// Which entry, from 0.
    pub position: usize,
}

impl std::fmt::Display for BadAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "allowed address number {} is not a valid Bitcoin, Ethereum, BNB or Solana address: check it for typing errors",
            self.position + 1
        )
    }
}

impl std::error::Error for BadAddress {}

/// How an address stands to the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is on the list.
    Allowed,
    /// It is not, but was made to look like the entry at this position: poisoning.
    Poisoned {
        /// Which entry, from 0.
        like: usize,
    },
    /// It is not, and looks like none of them.
    Unknown,
}

/// Allowed addresses.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    entries: Vec<(Chain, String)>,
    likeness: Likeness,
}

impl AllowList {
    /// Checks and takes the addresses of a policy.
    ///
    /// # Errors
    /// The first entry that is no address, or that contradicts its own checksum.
    pub fn new<'a>(addresses: impl IntoIterator<Item = &'a str>, likeness: Likeness) -> Result<Self, BadAddress> {
        let mut entries = Vec::new();
        for (position, text) in addresses.into_iter().enumerate() {
            let entry = [Chain::Ethereum, Chain::Bitcoin, Chain::Bnb, Chain::Solana]
                .into_iter()
                .find_map(|chain| match recognise(text.trim().as_bytes(), chain) {
                    Some((canonical, false)) => Some((chain, canonical)),
                    _ => None,
                })
                .ok_or(BadAddress { position })?;
            entries.push(entry);
        }
        Ok(Self { entries, likeness })
    }

    /// Whether nothing is allowed; then nothing can be poisoned either.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether an address of the chain is allowed.
    pub fn has(&self, chain: Chain) -> bool {
        self.entries.iter().any(|(known, _)| *known == chain)
    }

    /// How the address stands to the list.
    pub fn check(&self, address: &Address) -> Standing {
        let same_chain = || self.entries.iter().enumerate().filter(|(_, (chain, _))| *chain == address.chain);
        if same_chain().any(|(_, (_, allowed))| *allowed == address.canonical) {
            // Letters that contradict the checksum of an allowed address change nothing: the digits are the address.
            return Standing::Allowed;
        }
        same_chain()
            .find(|(_, (_, allowed))| self.alike(allowed.as_bytes(), address.canonical.as_bytes()))
            .map_or(Standing::Unknown, |(like, _)| Standing::Poisoned { like })
    }

    fn alike(&self, allowed: &[u8], other: &[u8]) -> bool {
        let shared = shared_prefix(allowed);
        if shared != shared_prefix(other) {
            return false;
        }
        let (a, b) = (&allowed[shared.len()..], &other[shared.len()..]);
        let prefix = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let suffix = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
        let ends = prefix >= self.likeness.prefix && suffix >= self.likeness.suffix;
        let differing = a.iter().zip(b).filter(|(a, b)| a != b).count();
        ends || (a.len() == b.len() && differing <= self.likeness.differing)
    }
}

/// What all addresses of the same kind begin with.
fn shared_prefix(address: &[u8]) -> &[u8] {
    let length = match address {
        [b'0', b'x', ..] => 2,
        [b'b', b'n', b'b', b'1', ..] | [b'b', b'c', b'1', _, ..] => 4,
        [b'1' | b'3', ..] => 1,
        _ => 0,
    };
    &address[..length]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::{Chains, find};

    fn standing(list: &AllowList, text: &str) -> Standing {
        list.check(&find(text.as_bytes(), Chains { solana: true, ..Chains::default() })[0])
    }

    fn list(addresses: &[&str]) -> AllowList {
        AllowList::new(addresses.iter().copied(), Likeness::default()).unwrap()
    }

    #[test]
    fn same_ends_are_poisoning() {
        let list = list(&["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"]);
        assert_eq!(standing(&list, "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"), Standing::Allowed);
        let made =
            |prefix: &str, suffix: &str| format!("{prefix}{}{suffix}", "7".repeat(42 - prefix.len() - suffix.len()));
        assert_eq!(standing(&list, &made("0x5aae", "eaed")), Standing::Poisoned { like: 0 });
        assert_eq!(standing(&list, &made("0xfb69", "d359")), Standing::Poisoned { like: 1 });
        assert_eq!(standing(&list, &made("0x5aae", "d359")), Standing::Unknown);
        assert_eq!(standing(&list, &made("0x5aa", "eaed")), Standing::Unknown);
    }

    #[test]
    fn a_digit_changed_in_the_end_is_poisoning_too() {
        let list = list(&["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"]);
        assert_eq!(standing(&list, "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beae1"), Standing::Poisoned { like: 0 });
    }

    #[test]
    fn chains_and_kinds_are_not_compared_with_each_other() {
        let list = list(&["1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"]);
        assert_eq!(standing(&list, "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"), Standing::Unknown);
        assert_eq!(standing(&list, "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4"), Standing::Allowed);
    }

    #[test]
    fn a_list_with_a_typing_error_is_refused() {
        let error = AllowList::new(["0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD"], Likeness::default()).unwrap_err();
        assert_eq!(error.position, 0);
        assert!(error.to_string().contains("number 1"));
    }
}
