//! Wallet addresses in text, and whether they are the ones the user pays to.
//!
//! The engine looks for addresses in what goes out and comes in, and asks the [`AllowList`] of its [`Watch`] about each. Address poisoning
//! puts an address with the same beginning and end where a person, or an agent, copies from; it is told by likeness to an
//! allowed address. Promises: linear in the text, at most [`MOST`] addresses per text, no panic.
//! Formats: see [`crate::validate::address`].

mod allow;
mod stream;

pub use allow::{AllowList, BadAddress, Likeness, Standing};
pub(crate) use stream::Seeker;
pub use stream::Watch;

use crate::validate::address::{self, Eip55};
use std::ops::Range;

/// Most addresses reported of one text: a list of thousands says nothing more.
pub const MOST: usize = 256;

/// A chain whose addresses are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Chain {
    /// Bitcoin main net: Base58Check, Bech32, Bech32m.
    Bitcoin,
    /// Ethereum and all chains that write addresses as it does, BNB Smart Chain among them.
    Ethereum,
    /// BNB Beacon Chain: `bnb1…`.
    Bnb,
    /// Solana: 32 bytes in Base58, without a checksum.
    Solana,
}

/// Which chains to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chains {
    /// See [`Chain::Bitcoin`].
    pub bitcoin: bool,
    /// See [`Chain::Ethereum`].
    pub ethereum: bool,
    /// See [`Chain::Bnb`].
    pub bnb: bool,
    /// See [`Chain::Solana`]: off by default, because any 32 bytes in Base58 look like one.
    pub solana: bool,
}

impl Default for Chains {
    fn default() -> Self {
        Self { bitcoin: true, ethereum: true, bnb: true, solana: false }
    }
}

/// An address in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its chain.
    pub chain: Chain,
    /// Where it stands, in bytes.
    pub span: Range<usize>,
    /// The form addresses are compared in: Ethereum and Bech32 in lower case, Base58 as it stands.
    pub canonical: String,
    /// Mixed-case Ethereum letters that contradict EIP-55: somebody changed a digit.
    pub altered: bool,
}

/// The form of a text that is an address of the chain, and whether its checksum was contradicted.
fn recognise(text: &[u8], chain: Chain) -> Option<(String, bool)> {
    let lower = || String::from_utf8(text.to_ascii_lowercase()).ok();
    match chain {
        Chain::Ethereum => address::ethereum(text).and_then(|sum| Some((lower()?, sum == Eip55::Wrong))),
        Chain::Bitcoin if address::bitcoin(text) => {
            let bech32 = text.first().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'b'));
            let form = if bech32 { lower() } else { String::from_utf8(text.to_vec()).ok() };
            Some((form?, false))
        }
        Chain::Bnb if address::bnb(text) => Some((lower()?, false)),
        // Without a checksum, variety is what tells an address from a word: real ones mix all three.
        Chain::Solana if address::solana(text) && varied(text) => Some((String::from_utf8(text.to_vec()).ok()?, false)),
        _ => None,
    }
}

fn varied(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_digit)
        && text.iter().any(u8::is_ascii_lowercase)
        && text.iter().any(u8::is_ascii_uppercase)
}

/// Which chain a word may belong to, by its length and first characters; cheap, so that sums are computed seldom.
fn candidate(word: &[u8], chains: Chains) -> Option<Chain> {
    match (word.len(), word) {
        (42, [b'0', b'x' | b'X', ..]) if chains.ethereum => Some(Chain::Ethereum),
        (14..=90, [b'b' | b'B', b'c' | b'C', b'1', ..]) if chains.bitcoin => Some(Chain::Bitcoin),
        (42, [b'b' | b'B', b'n' | b'N', b'b' | b'B', b'1', ..]) if chains.bnb => Some(Chain::Bnb),
        (26..=35, [b'1' | b'3', ..]) if chains.bitcoin => Some(Chain::Bitcoin),
        (32..=44, _) if chains.solana => Some(Chain::Solana),
        _ => None,
    }
}

/// The addresses in a text: words of letters and digits with the form and checksum of their chain.
pub fn find(text: &[u8], chains: Chains) -> Vec<Address> {
    let mut found = Vec::new();
    let mut at = 0;
    for word in text.split(|byte| !byte.is_ascii_alphanumeric()) {
        let span = at..at + word.len();
        at = span.end + 1;
        if let Some(chain) = candidate(word, chains)
            && let Some((canonical, altered)) = recognise(word, chain)
        {
            found.push(Address { chain, span, canonical, altered });
            if found.len() == MOST {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ETHEREUM: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
    const BITCOIN: &str = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa";
    const SEGWIT: &str = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    const BNB: &str = "bnb1grpf0955h0ykzq3ar5nmum7y6gdfl6lxfn46h2";
    const SOLANA: &str = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA";

    #[test]
    fn addresses_of_all_chains_are_found_where_they_stand() {
        let text = format!("pay {ETHEREUM}, or ?to={BITCOIN}&alt={SEGWIT} \"{BNB}\" {SOLANA}");
        let found = find(text.as_bytes(), Chains { solana: true, ..Chains::default() });
        let spans: Vec<&str> = found.iter().map(|address| &text[address.span.clone()]).collect();
        assert_eq!(spans, [ETHEREUM, BITCOIN, SEGWIT, BNB, SOLANA]);
        assert!(found.iter().all(|address| !address.altered));
    }

    #[test]
    fn solana_is_off_and_wrong_sums_are_nothing() {
        let text = format!("{SOLANA} 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb {}x", &SEGWIT[..41]);
        assert_eq!(find(text.as_bytes(), Chains::default()), []);
    }

    #[test]
    fn an_altered_ethereum_address_is_told() {
        let found = find(b"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD", Chains::default());
        assert!(found[0].altered);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            for address in find(&text, Chains { solana: true, ..Chains::default() }) {
                prop_assert!(text.get(address.span).is_some());
            }
        }
    }
}
