//! What the detectors of all texts share: what to look for, and the rules by which hits name it. Made once by
//! [`crate::Scanner`].

use crate::decode;
use crate::finding::{Fingerprint, Key, excerpt};
use crate::known::KnownValues;
use crate::rule::{Kind, RuleSet, builtin};
use crate::stream::Window;
use crate::wallet::Watch;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) key: Key,
    pub(super) known: Option<Known>,
    pub(super) wallet: Option<Wallet>,
    pub(super) seed: Option<usize>,
    pub(super) flood: Option<usize>,
    shows: bool,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) values: KnownValues,
    /// Of each value the rule, the fingerprint and the excerpt.
    pub(super) said: Vec<(usize, Fingerprint, String)>,
}

#[derive(Debug)]
pub(super) struct Wallet {
    pub(super) watch: Watch,
    pub(super) poisoned: Option<usize>,
    pub(super) altered: Option<usize>,
    pub(super) unlisted: Option<usize>,
}

impl Shared {
    /// Where the first known value may start that is not over yet.
    pub(crate) fn known_hold(&self, window: &Window<'_>) -> u64 {
        self.known.as_ref().map_or(window.end(), |known| known.values.hold(window))
    }

    /// Adds a rule to `rules` for each known value. What `rules` do not have is off.
    pub(crate) fn new(rules: &mut RuleSet, key: &Key, known: Option<KnownValues>, watch: Watch) -> Self {
        let on = rules.builtin(builtin::KNOWN.id).is_some();
        let known = known.filter(|values| on && values.values().next().is_some()).map(|values| {
            let mut said = Vec::new();
            for (name, value) in values.values() {
                let rule = rules.add_builtin(&builtin::KNOWN, name);
                said.push((rule, key.fingerprint(value), excerpt(Kind::Dlp, value)));
            }
            Known { values, said }
        });
        let shows =
            known.as_ref().is_none_or(|known| known.values.values().all(|(_, value)| decode::shows::in_noise(value)));
        let wallet = (!watch.allowed.is_empty()).then(|| Wallet {
            poisoned: rules.builtin(builtin::POISONED.id),
            altered: rules.builtin(builtin::ALTERED.id),
            unlisted: rules.builtin(builtin::UNLISTED.id).filter(|_| watch.unlisted),
            watch,
        });
        let (seed, flood) = (rules.builtin(builtin::SEED.id), rules.builtin(builtin::FLOOD.id));
        Self { key: key.clone(), known, wallet, seed, flood, shows }
    }

    /// Do all that is looked for show themselves in noise ([`crate::decode::shows`])? Known values may be any bytes.
    pub(crate) fn shows(&self) -> bool {
        self.shows
    }

    /// The rule for seed phrases, when they are looked for.
    pub(crate) fn seed(&self) -> Option<usize> {
        self.seed
    }

    /// Bytes of a text that must be kept for those who look back.
    pub(crate) fn longest(&self) -> usize {
        self.known.as_ref().map_or(0, |known| known.values.longest())
    }

    /// Bytes around a change that are looked at with it: a seed phrase takes a few hundred.
    pub(crate) fn reach(&self) -> usize {
        self.longest().max(if self.seed.is_some() { 400 } else { 0 })
    }

    /// Is the secret of a rule of this class an address that the user allowed?
    pub(crate) fn allows(&self, class: &str, secret: &[u8]) -> bool {
        class == "crypto" && self.wallet.as_ref().is_some_and(|wallet| wallet.watch.allows(secret))
    }
}
