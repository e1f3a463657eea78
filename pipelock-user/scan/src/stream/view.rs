//! A view of a text: the same text with one way of writing undone ([`crate::decode::ViewKind`]). Called by
//! [`super::layer`].
//!
//! Most of a text is not changed, and what is not changed was matched already. So a view is a row of islands: each starts one
//! longest match before a change and ends one after the last; within an island the view has a layer of its own, and of its
//! hits those count that hold a change. Where islands lie follows from the changes alone, not from how the text was cut.

use super::changes::Changes;
use std::ops::Range;

use super::layer::{AGAIN, Hit};
use super::quiet::Quiet;
use super::{Context, Window};
use crate::decode::gate::Gate;
use crate::decode::{AHEAD, BACK, Turn, ViewKind, fold, spaced, unread};
use crate::engine::EngineError;
use crate::finding::Step;

/// Bytes that are collected before they are looked at.
const BUFFER: usize = 16 * 1024;
/// Bytes at a text's end that tell whether a change may begin there that the gate does not see yet.
const TAIL: u64 = spaced::BEGINS as u64;

/// A view of a text.
#[derive(Debug)]
pub(crate) struct View {
    kind: ViewKind,
    /// Everything before is dealt with.
    at: u64,
    /// The byte at `at` may start a change, which later bytes decide.
    waiting: bool,
    /// The place of that change, and what is held back before it.
    held: Option<(u64, u64)>,
    island: Option<Box<Island>>,
}

#[derive(Debug)]
struct Island {
    layer: Quiet,
    changes: Changes,
    /// What is still to be pushed to the layer.
    buffer: Vec<u8>,
    /// Bytes of the view so far.
    length: u64,
    /// Where the last change ended.
    changed: u64,
    /// The last bytes that were pushed, in which what is not unpacked may begin; only of views that give bytes.
    end: Option<Vec<u8>>,
}

impl View {
    pub(crate) fn new(kind: ViewKind) -> Self {
        Self { kind, at: 0, waiting: false, held: None, island: None }
    }

    /// Looks at the new piece of `window`; `gate` has looked at it.
    pub(crate) fn push(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        gate: &Gate,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let asleep = self.island.is_none() && !self.waiting && !gate.any(self.kind.triggers());
        let end = window.end();
        if asleep && (last || !window.with(end.saturating_sub(TAIL)..end, |tail| self.kind.may_begin(tail))) {
            self.at = self.at.max(window.end().saturating_sub(AGAIN as u64));
            return Ok(());
        }
        self.waiting = false;
        while self.at < window.end() && !self.waiting && !context.over() {
            // Near the border both slices are needed; beyond it the new one alone, without a copy.
            let fresh = window.fresh();
            let (stop, end) = if self.at < fresh + BACK as u64 {
                (fresh + BACK as u64, (fresh + (BACK + AHEAD) as u64).min(window.end()))
            } else {
                (window.end(), window.end())
            };
            let from = self.at.saturating_sub(BACK as u64).max(window.start());
            let ends = last && end == window.end();
            window.with(from..end, |text| {
                self.region(context, window, gate, from, text, stop.min(end), ends, depth, hits)
            })?;
        }
        let Some(mut island) = self.island.take() else {
            if self.waiting && self.held.is_none_or(|(at, _)| at != self.at) {
                self.held = Some((self.at, self.begun(context, window, depth)?));
            }
            return Ok(());
        };
        if last || context.over() {
            island.flush(context, true, hits)?;
            island.layer.close(context);
        } else {
            island.flush(context, false, hits)?;
            self.island = Some(island);
        }
        Ok(())
    }

    /// Deals with the bytes from `self.at` to `stop`; `text` starts at `from`.
    #[allow(
        clippy::too_many_arguments,
        reason = "one loop over one slice: a struct of these would be made for it alone"
    )]
    fn region(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        gate: &Gate,
        from: u64,
        text: &[u8],
        stop: u64,
        last: bool,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let reach = context.reach();
        while self.at < stop {
            if self.kind == ViewKind::Fold
                && let Some(island) = &mut self.island
            {
                let used =
                    island.drop_controls(context, &text[(self.at - from) as usize..(stop - from) as usize], self.at);
                self.at += used as u64;
                if island.buffer.len() >= BUFFER {
                    island.flush(context, false, hits)?;
                }
                if used > 0 {
                    continue;
                }
            }
            let (before, ahead) = text.split_at((self.at - from) as usize);
            // Where the gate saw nothing, nothing changes; only the leet view changes more once it is open.
            let mut count = 0;
            if self.kind != ViewKind::Leet || self.island.is_none() {
                let next = if self.at < window.fresh() {
                    self.at
                } else {
                    gate.next(self.kind.triggers(), self.at, AGAIN as u64, window.end())
                };
                count = (next.min(stop) - self.at) as usize;
            }
            if count == 0 {
                count = self.kind.skip(&ahead[..(stop - self.at) as usize]);
            }
            if count == 0 {
                // No more than that, so that it makes no difference how much is there.
                let seen = &ahead[..ahead.len().min(AHEAD)];
                let ends = last && seen.len() == ahead.len();
                match self.kind.turn(before, seen, ends, self.island.is_some()) {
                    Turn::Keep(kept) => count = kept.min(ahead.len()),
                    Turn::More if ahead.len() > AHEAD => count = 1,
                    Turn::More => {
                        self.waiting = true;
                        return Ok(());
                    }
                    Turn::Change { take, out, put, step } => {
                        let island = match &mut self.island {
                            Some(island) => island,
                            empty => empty.insert(Island::open(context, window, self.at, depth, self.kind)),
                        };
                        // What was not looked at yet must still be found where it was.
                        let keep = (context.keep() + island.buffer.len()) as u64;
                        island.changes.note(island.length, put as u32, self.at, take as u32, step, keep);
                        island.add(&out[..put]);
                        self.at += take as u64;
                        island.changed = self.at;
                        count = 0;
                    }
                }
            }
            if let Some(mut island) = self.island.take() {
                let room = (island.changed + reach).saturating_sub(self.at);
                let copied = (count as u64).min(room) as usize;
                let start = (self.at - from) as usize;
                island.add(&text[start..start + copied]);
                self.at += copied as u64;
                if (copied as u64) < count as u64 {
                    island.flush(context, true, hits)?;
                    island.layer.close(context);
                    continue;
                }
                if island.buffer.len() >= BUFFER {
                    island.flush(context, false, hits)?;
                }
                self.island = Some(island);
            } else {
                self.at += count as u64;
            }
        }
        Ok(())
    }

    /// What may begin before the change that is waited for and go on behind it. To the text itself the first byte of the change
    /// has ended that, so the island is asked that the change would open.
    fn begun(&self, context: &mut Context<'_>, window: &Window<'_>, depth: usize) -> Result<u64, EngineError> {
        let held = context.aside(|context| {
            let mut island = Island::open(context, window, self.at, depth, self.kind);
            island.flush(context, false, &mut Vec::new())?;
            let hold = island.changes.source_start(island.layer.hold(context));
            island.layer.close(context);
            Ok(hold)
        })?;
        // Where that was too much work, all of the island is held.
        Ok(held.unwrap_or_else(|| self.at.saturating_sub(context.reach()).max(window.start())).min(self.at))
    }

    /// As `Layer::hold`.
    pub(crate) fn hold(&self, context: &Context<'_>, window: &Window<'_>) -> u64 {
        let own = if self.waiting { self.at } else { window.end() };
        let Some(island) = &self.island else {
            return self.held.filter(|(at, _)| self.waiting && *at == self.at).map_or(own, |(_, hold)| hold);
        };
        let hold = island.layer.hold(context);
        // A change that deletes has no byte of the view; its own place is before the byte that follows.
        if hold >= island.length { own } else { own.min(island.changes.source_start(hold)) }
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        self.island.as_ref().map_or(0, |island| {
            size_of::<Island>()
                + island.layer.memory(matcher)
                + island.buffer.capacity()
                + island.changes.memory()
                + island.end.as_ref().map_or(0, Vec::capacity)
        })
    }
}

impl Island {
    fn open(context: &mut Context<'_>, window: &Window<'_>, at: u64, depth: usize, kind: ViewKind) -> Box<Self> {
        let start = at.saturating_sub(context.reach()).max(window.start());
        let mut changes = Changes::default();
        changes.reset(start);
        let layer = Quiet::open(context, depth, Some(kind));
        let mut island =
            Self { layer, changes, buffer: Vec::new(), length: 0, changed: at, end: kind.gives_bytes().then(Vec::new) };
        for part in window.parts(start..at) {
            island.add(part);
        }
        Box::new(island)
    }

    /// Takes the bytes at the start of `text`, which lies at `at`, of which control characters go and all others stay: as the view
    /// of look-alikes would, of noise at a fraction of its cost. Says how many; with the last change, or before what else may
    /// change, it is over.
    fn drop_controls(&mut self, context: &Context<'_>, text: &[u8], at: u64) -> usize {
        let room = BUFFER.saturating_sub(self.buffer.len());
        let mut used = 0;
        for (place, &byte) in text.iter().enumerate().take(room) {
            if !fold::unusual(byte) {
                continue;
            }
            if byte >= 0x80 {
                if fold::stays(&text[place..]) {
                    continue;
                }
                break;
            }
            let source = at + place as u64;
            if byte == fold::ESCAPE || source - self.changed > context.reach() {
                break;
            }
            self.add(&text[used..place]);
            let keep = (context.keep() + self.buffer.len()) as u64;
            self.changes.note(self.length, 0, source, 1, Step::Invisible, keep);
            used = place + 1;
            self.changed = source + 1;
        }
        used
    }

    fn add(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
    }

    /// Notes what is not unpacked in the next piece. Source code names the beginnings of formats in backslashes, where it is none.
    fn note_unread(&mut self, context: &mut Context<'_>) {
        let Some(text) = &mut self.end else { return };
        text.extend_from_slice(&self.buffer);
        let base = self.length - text.len() as u64;
        let is_said = |place: Range<usize>| {
            // What changed right before it is not its.
            let place = base + place.start as u64 + 1..base + place.end as u64;
            self.changes.touching(&place).is_some_and(|steps| !steps.contains(&Step::Escape))
        };
        let all = unread::each(text).filter(|(_, place)| is_said(place.clone()));
        all.for_each(|(how, _)| context.leave(how));
        if base == 0 && self.changes.source_start(0) == 0 && is_said(0..3) {
            context.leave(unread::at_start(text));
        }
        text.drain(..text.len().saturating_sub(unread::LONGEST - 1));
    }

    fn flush(&mut self, context: &mut Context<'_>, last: bool, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        if !context.spend(self.buffer.len()) {
            self.buffer.clear();
            return Ok(());
        }
        self.note_unread(context);
        let mut found = Vec::new();
        let buffer = std::mem::take(&mut self.buffer);
        self.layer.push(context, &buffer, last, &mut found)?;
        self.buffer = buffer;
        self.buffer.clear();
        for mut hit in found {
            if let Some(mut path) = self.changes.touching(&hit.seen) {
                path.append(&mut hit.path);
                let (span, seen) = (self.changes.source_of(&hit.span), self.changes.source_of(&hit.seen));
                hits.push(Hit { span, seen, path, ..hit });
            }
        }
        Ok(())
    }
}
