//! One text of the graph: the input, a view of it, or what something in it decodes to. Called by [`super::Stream`] for the input,
//! and by [`super::view`], [`super::runs`], [`super::packed`] for the texts they make.
//!
//! A layer matches its text, lays views over it and decodes what it finds in it; each of these makes further layers, and
//! gives back their hits in this layer's offsets. How the text was cut makes no difference to any of it.

use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

use super::chance::is_chance;
use super::dumps::{self, Dumps};
use super::graphic::Graphic;
use super::orders::Orders;
use super::packed::Packed;
use super::pairs::Pairs;
use super::runs::Runs;
use super::view::View;
use super::wide::Wide;
use super::{Context, Decoded, Window};
use crate::decode::gate::{self, Gate};
use crate::decode::inflate::Format;
use crate::decode::{AHEAD, BACK, ViewKind};
use crate::detect::Detectors;
use crate::engine::{Begun, EngineError, Match, Matcher};
use crate::finding::{Fingerprint, Step, excerpt};
use crate::rule::{Kind, shows};

/// A match on its way to becoming a finding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hit {
    pub(crate) rule: usize,
    /// In the offsets of the layer that hands it on.
    pub(crate) span: Range<u64>,
    /// What told that it is one: the secret and what the rule asks for beside it.
    pub(crate) seen: Range<u64>,
    pub(crate) path: Vec<Step>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) excerpt: String,
}

/// Bytes of the piece before that the gate looks at again, and that a sleeping view reads again.
pub(crate) const AGAIN: usize = 16;
const _: () = assert!(AGAIN > gate::REACH);

/// Bytes of a known value, or letters of a prefix, that hardly stand at the end of anything else.
const LEAST_BEGUN: usize = 4;
/// Words of a list in a row, each another, that are the beginning of a seed phrase: what people and programs say to each other
/// has some, and says them again and again.
const LEAST_WORDS: usize = 5;

/// A text.
#[derive(Debug)]
pub(crate) struct Layer {
    matcher: Box<dyn Matcher>,
    orders: Orders,
    detectors: Detectors,
    /// The end of what was pushed, and the offset of its first byte.
    tail: Vec<u8>,
    first: u64,
    views: Vec<View>,
    runs: Option<Runs>,
    pairs: Option<Pairs>,
    numbers: Option<Pairs>,
    dumps: Option<Dumps>,
    graphic: Option<Graphic>,
    packed: Option<Packed>,
    wide: Option<Wide>,
    /// Codecs between the input and this text.
    depth: usize,
    injections_only: bool,
    /// Nothing counts that is in the text as it stands.
    made_only: bool,
    matches: Vec<Match>,
    gate: Gate,
}

impl Layer {
    /// An empty text below `depth` codecs, which is the work of the views up to and with `below`.
    pub(crate) fn open(context: &mut Context<'_>, depth: usize, below: Option<ViewKind>) -> Result<Self, EngineError> {
        let mut layer = Self::plain(context)?;
        let from = below.map_or(0, |below| below as usize + 1);
        layer.depth = depth;
        // Leetspeak is read for injections alone, of which none is telling.
        let kinds = ViewKind::ALL[from..].iter().filter(|kind| !(context.telling && **kind == ViewKind::Leet));
        layer.views.extend(kinds.map(|kind| View::new(*kind)));
        let decodes = !matches!(below, Some(ViewKind::Spaced | ViewKind::Leet));
        layer.runs = decodes.then(Runs::default);
        layer.pairs = decodes.then(|| Pairs::new(false));
        layer.numbers = decodes.then(|| Pairs::new(true));
        layer.dumps = decodes.then(Dumps::default);
        layer.graphic = decodes.then(Graphic::default);
        // Most views are for text: what is none is seen without them.
        let may_be_binary = below.is_none_or(ViewKind::gives_bytes);
        layer.packed = may_be_binary.then(|| if below.is_none() { Packed::default() } else { Packed::written() });
        layer.wide = may_be_binary.then(Wide::default);
        layer.injections_only = below == Some(ViewKind::Leet);
        Ok(layer)
    }

    /// An empty text of which only what is made of it counts: what views show, and what is decoded.
    pub(crate) fn made_only(context: &mut Context<'_>) -> Result<Self, EngineError> {
        Ok(Self { made_only: true, ..Self::open(context, 0, None)? })
    }

    /// An empty text that is read as it stands, in no view and undecoded.
    pub(crate) fn plain(context: &mut Context<'_>) -> Result<Self, EngineError> {
        if let Some(layer) = context.pooled() {
            return Ok(Self { depth: 0, injections_only: false, made_only: false, ..layer });
        }
        Ok(Self {
            matcher: context.engine.open()?,
            orders: Orders::default(),
            detectors: Detectors::default(),
            tail: Vec::new(),
            first: 0,
            views: Vec::new(),
            runs: None,
            pairs: None,
            numbers: None,
            dumps: None,
            graphic: None,
            packed: None,
            wide: None,
            depth: 0,
            injections_only: false,
            made_only: false,
            matches: Vec::new(),
            gate: Gate::default(),
        })
    }

    /// An empty text that is compressed as a whole.
    pub(crate) fn named(context: &mut Context<'_>, depth: usize, format: Format) -> Result<Self, EngineError> {
        let mut layer = Self::open(context, depth, None)?;
        layer.packed = Some(Packed::named(format));
        Ok(layer)
    }

    /// Gives the layer back for later use.
    pub(crate) fn close(mut self, context: &mut Context<'_>) {
        self.matcher.reset();
        self.orders.clear();
        self.detectors.clear();
        self.tail.clear();
        self.first = 0;
        self.views.clear();
        self.runs = None;
        self.pairs = None;
        self.numbers = None;
        self.dumps = None;
        self.graphic = None;
        self.packed = None;
        self.wide = None;
        self.matches.clear();
        context.put_back(self);
    }

    /// Takes the next piece; `last` says that the text ends with it. What is certain is appended to `hits`.
    pub(crate) fn push(
        &mut self,
        context: &mut Context<'_>,
        new: &[u8],
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let tail = std::mem::take(&mut self.tail);
        let window = Window { first: self.first, old: &tail, new };
        let result = self.look(context, &window, last, hits);
        self.tail = tail;
        self.keep(context.keep(), new);
        result
    }

    fn look(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        if !self.made_only {
            self.read(context, window, last, hits)?;
        }
        if context.over() {
            return Ok(());
        }
        let fresh = window.fresh();
        let around = fresh.saturating_sub(AGAIN as u64)..fresh + AGAIN as u64;
        let border = if window.old.is_empty() { 0 } else { window.with(around, gate::flags) };
        self.gate.look(fresh, border, window.new);
        for view in &mut self.views {
            view.push(context, window, last, &self.gate, self.depth, hits)?;
        }
        if let Some(runs) = &mut self.runs {
            runs.push(context, window, last, self.depth, hits)?;
        }
        for pairs in [&mut self.pairs, &mut self.numbers].into_iter().flatten() {
            pairs.push(context, window, last, &self.gate, self.depth, hits)?;
        }
        if let Some(dumps) = &mut self.dumps {
            dumps.push(context, window, last, &self.gate, self.depth, hits)?;
        }
        if let Some(graphic) = &mut self.graphic {
            graphic.push(context, window, last, self.depth, hits)?;
        }
        if let Some(packed) = &mut self.packed {
            packed.push(context, window, last, &self.gate, self.depth, hits)?;
        }
        if let Some(wide) = &mut self.wide {
            wide.push(context, window, last, &self.gate, self.depth, hits)?;
        }
        Ok(())
    }

    /// Looks for what is in the text as it stands.
    fn read(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        self.matcher.push(context.rules, context.telling, window, last, &mut self.matches)?;
        for found in self.matches.drain(..) {
            let Some(rule) = context.rules.rules().get(found.rule) else { continue };
            if self.injections_only && rule.kind != Kind::Injection {
                continue;
            }
            if is_chance(rule, window, &found) {
                continue;
            }
            let dropped = match rule.kind {
                Kind::Injection => window.with(found.span.clone(), |text| context.own(text)),
                Kind::Dlp => window.with(found.secret.clone(), |secret| context.shared.allows(&rule.class, secret)),
            };
            if dropped {
                continue;
            }
            let (fingerprint, excerpt) = window
                .with(found.secret.clone(), |secret| (context.key.fingerprint(secret), excerpt(rule.kind, secret)));
            let seen = found.span.start.min(found.secret.start)..found.span.end.max(found.secret.end);
            let span = if rule.kind == Kind::Dlp { found.secret } else { found.span };
            hits.push(Hit { rule: found.rule, span, seen, path: Vec::new(), fingerprint, excerpt });
        }
        if !context.telling {
            self.orders.push(context, window.new, last, hits);
        }
        if !self.injections_only {
            self.detectors.push(context.shared, window, last, hits)?;
        }
        Ok(())
    }

    /// Where the first byte is that may belong to something not yet known.
    pub(crate) fn hold(&self, context: &Context<'_>) -> u64 {
        let window = Window { first: self.first, old: &self.tail, new: &[] };
        let mut hold = self.matcher.hold(context.rules, context.telling, &window);
        hold = hold.min(window.end().saturating_sub(self.orders.undecided()));
        if !self.injections_only {
            hold = hold.min(self.detectors.hold(context.shared, &window));
        }
        for view in &self.views {
            hold = hold.min(view.hold(context, &window));
        }
        if let Some(runs) = &self.runs {
            hold = hold.min(runs.hold(context, &window));
        }
        for pairs in [&self.pairs, &self.numbers].into_iter().flatten() {
            hold = hold.min(pairs.hold(context, &window));
        }
        if let Some(dumps) = &self.dumps {
            hold = hold.min(dumps.hold(context, &window));
        }
        if let Some(graphic) = &self.graphic {
            hold = hold.min(graphic.hold(context, &window));
        }
        if let Some(packed) = &self.packed {
            hold = hold.min(packed.hold(context, &window));
        }
        if let Some(wide) = &self.wide {
            hold = hold.min(wide.hold(context, &window));
        }
        hold
    }

    /// How much at the end of an open text may be the beginning of something, as it stands.
    pub(crate) fn begun(&mut self, context: &Context<'_>, pieces: bool, text: &[u8]) -> Begun {
        let detected = self.detectors.begun(context.shared, &Window { first: 0, old: &[], new: text });
        let detected = Begun::all(text.len() - usize::try_from(detected).unwrap_or(0).min(text.len()));
        self.matcher.begun(context.rules, pieces, text).or(detected)
    }

    /// The same of what rules find, in a text that is put together.
    pub(crate) fn begun_rule(&self, context: &Context<'_>, text: &[u8]) -> Begun {
        self.matcher.begun(context.rules, true, text)
    }

    /// How much at the end of an open text is the beginning of a token that shows by its prefix, or of a known value.
    pub(crate) fn begun_token(&mut self, context: &Context<'_>, text: &[u8]) -> usize {
        let window = Window { first: 0, old: &[], new: text };
        let known = (window.end() - context.shared.known_hold(&window)) as usize;
        let known = if known >= LEAST_BEGUN { known } else { 0 };
        let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+=:~".contains(byte);
        let run = text.iter().rev().take_while(|byte| in_token(byte)).count();
        let from = text.len() - run;
        let words: Vec<&str> = (context.rules.rules().iter())
            .filter(|rule| rule.is_telling())
            .flat_map(|rule| &rule.keywords)
            .filter(|word| word.len() >= LEAST_BEGUN)
            .map(|word| &**word)
            .collect();
        let begins = |at: &usize| {
            let rest = text.get(*at..).unwrap_or_default();
            let is_first = at.checked_sub(1).is_none_or(|before| !text[before].is_ascii_alphanumeric());
            is_first && words.iter().any(|word| shows(rest, word))
        };
        let mut places = (from..text.len()).filter(begins).peekable();
        if places.peek().is_none() {
            return known;
        }
        // The pattern may go on until here; with what stands before it, and has to.
        let open = self.matcher.begun(context.rules, true, text).open;
        known.max(places.find(|at| open >= text.len() - at).map_or(0, |at| text.len() - at))
    }

    /// How much at the end of an open text is the beginning of a seed phrase.
    pub(crate) fn begun_phrase(&mut self, context: &Context<'_>, text: &[u8]) -> usize {
        let from = self.detectors.begun_phrase(context.shared, &Window { first: 0, old: &[], new: text });
        let words = text.get(usize::try_from(from).unwrap_or(text.len())..).unwrap_or_default();
        // Between words of Japanese and Chinese stands a blank of their own.
        let text = String::from_utf8_lossy(words);
        let in_word = |letter: char| letter.is_alphabetic() || is_combining_mark(letter);
        let all = text.split(|letter| !in_word(letter)).filter(|word| !word.is_empty());
        let mut others: Vec<&str> = Vec::with_capacity(LEAST_WORDS);
        for word in all {
            if others.len() < LEAST_WORDS && !others.contains(&word) {
                others.push(word);
            }
        }
        if others.len() >= LEAST_WORDS { words.len() } else { 0 }
    }

    /// The last bytes that were pushed: so many, or those that are kept.
    pub(crate) fn end_of(&self, count: usize) -> &[u8] {
        &self.tail[self.tail.len().saturating_sub(count)..]
    }

    /// Whether a text that was named is what it was said to be.
    pub(crate) fn decoded(&self) -> Decoded {
        self.packed.as_ref().map_or(Decoded::Whole, Packed::decoded)
    }

    /// Is compressed data being unpacked, or to be?
    pub(crate) fn is_unpacking(&self) -> bool {
        self.packed.as_ref().is_some_and(Packed::is_open)
    }

    /// Has something begun that shows no sign of itself while it goes on: compressed data, or UTF-16?
    pub(crate) fn is_inside(&self) -> bool {
        self.is_unpacking() || self.wide.as_ref().is_some_and(Wide::is_open)
    }

    /// Bytes this text and the texts below it keep in memory.
    pub(crate) fn memory(&self, matcher: usize) -> usize {
        let views: usize = self.views.iter().map(|view| view.memory(matcher)).sum();
        let runs = self.runs.as_ref().map_or(0, |runs| runs.memory(matcher));
        let pairs: usize = [&self.pairs, &self.numbers].into_iter().flatten().map(|pairs| pairs.memory(matcher)).sum();
        let dumps = self.dumps.as_ref().map_or(0, |dumps| dumps.memory(matcher));
        let graphic = self.graphic.as_ref().map_or(0, |graphic| graphic.memory(matcher));
        let packed = self.packed.as_ref().map_or(0, |packed| packed.memory(matcher));
        let wide = self.wide.as_ref().map_or(0, |wide| wide.memory(matcher));
        size_of::<Self>()
            + self.tail.capacity()
            + self.gate.memory()
            + self.orders.memory()
            + self.detectors.memory()
            + matcher
            + views
            + runs
            + pairs
            + dumps
            + graphic
            + packed
            + wide
    }

    fn keep(&mut self, keep: usize, new: &[u8]) {
        let whole = self.tail.len() + new.len();
        let drop = whole.saturating_sub(keep);
        self.first += drop as u64;
        if drop >= self.tail.len() {
            let skip = drop - self.tail.len();
            self.tail.clear();
            self.tail.extend_from_slice(&new[skip..]);
        } else {
            self.tail.drain(..drop);
            self.tail.extend_from_slice(new);
        }
    }
}

/// Bytes of a text that must be kept for all who look back: for rules and for known values.
pub(crate) fn keep(longest: usize, known: usize) -> usize {
    let decoders = super::runs::LOOK_BACK + crate::decode::pairs::DECIDES + dumps::DECIDES;
    known.max(2 * longest) + AHEAD + BACK + 2 * AGAIN + decoders
}

#[cfg(test)]
mod tests {
    use crate::{RuleSet, Scanner};

    #[test]
    fn the_beginning_of_a_token_is_told_from_a_word() {
        let scanner = Scanner::new(RuleSet::shipped().unwrap(), &[1; 32]).unwrap();
        let begun = |text: &str| scanner.begun_token(text.as_bytes()).unwrap();
        for (text, wanted) in [
            ("ghp_0123456789abcdef", 20),
            ("{\"key\": \"ghp_0123456789abcdef", 20),
            ("key=AKIAQ3EG", 8),
            ("xoxb-1234", 9),
            ("the token", 0),
            ("ghp", 0),
            ("AKIA and", 0),
            ("the key: AKIA", 4),
            ("the key: AKI", 0),
            ("the key: akia", 0),
            ("ghp_0123456789abcdef\"}", 0),
            ("words", 0),
        ] {
            assert_eq!(begun(text), wanted, "{text}");
        }
    }
}
