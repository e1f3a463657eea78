//! The detectors that are no patterns, on one text of the graph: known values, seed phrases, wallet addresses, floods.
//! Called by [`crate::stream`] for every text, so that what is encoded or disguised is found too.
//!
//! Promises: what is found does not depend on how the text was cut; a detector that is switched off costs nothing.

mod shared;

pub(crate) use shared::Shared;

use crate::finding::{Step, excerpt};
use crate::injection::Floods;
use crate::known::Encoding;
use crate::rule::Kind;
use crate::stream::{Hit, Window};
use crate::wallet::Standing;
use crate::{engine::EngineError, seed, wallet};

/// The detectors' places in a text.
#[derive(Debug, Default)]
pub(crate) struct Detectors {
    seeds: seed::Seeker,
    wallets: wallet::Seeker,
    floods: Floods,
    phrases: Vec<seed::Phrase>,
}

impl Detectors {
    /// Takes the new piece of `window`; `last` says that the text ends with it.
    pub(crate) fn push(
        &mut self,
        shared: &Shared,
        window: &Window<'_>,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        if let Some(known) = &shared.known {
            known.values.push(window, |value, encoding, span| {
                let Some((rule, fingerprint, excerpt)) = known.said.get(value) else { return };
                let path = step(encoding).into_iter().collect();
                let (fingerprint, excerpt) = (*fingerprint, excerpt.clone());
                hits.push(Hit { rule: *rule, seen: span.clone(), span, path, fingerprint, excerpt });
            })?;
        }
        if let Some(rule) = shared.seed {
            self.seeds.push(window, last, &mut self.phrases);
            for phrase in self.phrases.drain(..) {
                let span = phrase.start..phrase.end;
                let fingerprint = window.with(span.clone(), |text| shared.key.fingerprint(text));
                let excerpt = phrase.excerpt();
                hits.push(Hit { rule, seen: span.clone(), span, path: Vec::new(), fingerprint, excerpt });
            }
        }
        if let Some(watch) = &shared.wallet {
            self.wallets.push(&watch.watch, window, last, |span, standing, altered| {
                let rule = match standing {
                    Standing::Poisoned { .. } => watch.poisoned,
                    _ if altered => watch.altered,
                    _ => watch.unlisted,
                };
                let Some(rule) = rule else { return };
                let (fingerprint, excerpt) =
                    window.with(span.clone(), |text| (shared.key.fingerprint(text), excerpt(Kind::Dlp, text)));
                hits.push(Hit { rule, seen: span.clone(), span, path: Vec::new(), fingerprint, excerpt });
            });
        }
        if let Some(rule) = shared.flood {
            self.floods.push(window, last, |span, unit| {
                let (fingerprint, excerpt) = window.with(span.start..span.start + unit, |text| {
                    (shared.key.fingerprint(text), excerpt(Kind::Injection, text))
                });
                hits.push(Hit { rule, seen: span.clone(), span, path: Vec::new(), fingerprint, excerpt });
            });
        }
        Ok(())
    }

    /// Where the first byte is that may belong to something not yet known.
    pub(crate) fn hold(&self, shared: &Shared, window: &Window<'_>) -> u64 {
        let flood = shared.flood.map_or(u64::MAX, |_| self.floods.hold(window.end()));
        flood.min(self.secret_hold(shared, window))
    }

    fn secret_hold(&self, shared: &Shared, window: &Window<'_>) -> u64 {
        let end = window.end();
        let known = shared.known_hold(window);
        let seed = shared.seed.map_or(end, |_| self.seeds.hold(end));
        let wallet = shared.wallet.as_ref().map_or(end, |_| self.wallets.hold());
        known.min(seed).min(wallet)
    }

    /// Where the first byte of a text is that may belong to a secret which is not over; nothing was pushed before.
    pub(crate) fn begun(&mut self, shared: &Shared, window: &Window<'_>) -> u64 {
        if shared.seed.is_some() {
            self.seeds.push(window, false, &mut self.phrases);
        }
        if let Some(watch) = &shared.wallet {
            self.wallets.push(&watch.watch, window, false, |_, _, _| {});
        }
        self.secret_hold(shared, window)
    }

    /// Where the first word of a text is that a seed phrase may begin with which is not over; nothing was pushed before.
    pub(crate) fn begun_phrase(&mut self, shared: &Shared, window: &Window<'_>) -> u64 {
        if shared.seed.is_none() {
            return window.end();
        }
        self.seeds.push(window, false, &mut self.phrases);
        self.seeds.hold(window.end())
    }

    /// Bytes it takes beside itself.
    pub(crate) fn memory(&self) -> usize {
        self.seeds.memory() + self.phrases.capacity() * size_of::<seed::Phrase>()
    }

    /// Starts over with a new text.
    pub(crate) fn clear(&mut self) {
        self.seeds.clear();
        self.wallets = wallet::Seeker::default();
        self.floods = Floods::default();
        self.phrases.clear();
    }
}

/// How a known value was written, as a step of decoding.
fn step(encoding: Encoding) -> Option<Step> {
    match encoding {
        Encoding::Raw => None,
        Encoding::Part => Some(Step::Part),
        Encoding::OtherCase => Some(Step::Case),
        Encoding::Base64 => Some(Step::Base64),
        Encoding::Base32 => Some(Step::Base32),
        Encoding::Base85 => Some(Step::Base85),
        Encoding::Hex => Some(Step::Hex),
        Encoding::Percent => Some(Step::Percent),
        Encoding::Rot13 => Some(Step::Rot13),
        Encoding::Reversed => Some(Step::Reversed),
        Encoding::Json => Some(Step::Escape),
        Encoding::Html => Some(Step::Html),
        Encoding::Utf16 => Some(Step::Utf16),
    }
}
