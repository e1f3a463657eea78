//! Scanning a text that comes in pieces. [`Stream`] is what callers push to; a whole text is a stream with one push.
//!
//! Promises: the findings are the same however the text is cut, unless it decodes to more than the budget, of which a stream knows
//! less than the whole text allows, or holds more of them than are kept, of which the first that come are; [`Stream::push`] releases only bytes that no finding to
//! come can hold; memory is bounded, and so is work: what is over budget is a finding itself.

mod chance;
mod changes;
mod dumps;
mod follower;
mod graphic;
mod lane;
mod layer;
mod long;
mod merge;
mod orders;
mod output;
mod packed;
mod pairs;
mod period;
mod places;
mod quiet;
mod runs;
mod search;
mod sink;
mod steps;
mod view;
mod wide;
mod window;

use std::ops::Range;
use std::sync::{Arc, RwLock};

pub(crate) use layer::Hit;
use layer::Layer;
pub(crate) use layer::Layer as Idle;
pub(crate) use merge::whole;
pub(crate) use window::Window;

use crate::decode::inflate::Coding;
use crate::decode::unread::Unread;
use crate::detect::Shared;
use crate::engine::{Begun, Engine, EngineError};
use crate::finding::{Finding, Key};
use crate::injection::OwnText;
use crate::rule::RuleSet;
use crate::scanner::{Core, Limits, Memory};
use crate::session::{Given, Readings};

/// What a scan works with: shared things, and what is left of the budget.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    core: &'a Core,
    pub(crate) rules: &'a RuleSet,
    pub(crate) engine: &'a dyn Engine,
    pub(crate) shared: &'a Shared,
    own: Option<&'a RwLock<OwnText>>,
    /// Where what is read is remembered.
    pub(crate) given: Option<&'a Given>,
    pub(crate) key: &'a Key,
    /// Only rules that are telling count.
    pub(crate) telling: bool,
    work: &'a mut Work,
}

/// Work done for one text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    /// Bytes of the text.
    input: u64,
    /// Bytes of all that was made from it, …
    made: u64,
    /// … but for those that came out of compressed data which is in no other.
    unpacked: u64,
    /// Compressed data that is being unpacked, each in the one before.
    packings: usize,
    /// Whoever reads the text does so in steps, so that unpacking has a budget of its own.
    in_steps: bool,
    /// Bytes of what was made only to see how far the text is known.
    aside: u64,
    over: Option<Budget>,
    /// Something was not decoded for the memory it wanted.
    too_big: bool,
    /// How things are packed that are not unpacked here.
    unread: Unread,
}

impl Work {
    /// Bytes of all that was made.
    fn all(&self) -> u64 {
        self.made + self.unpacked
    }

    fn missed(&self) -> Option<Budget> {
        if self.too_big { Some(Budget::Expansion) } else { self.over }
    }
}

const MOST_REACH: usize = 512;
/// Hits of a text that are kept: more than it may have findings, since several can be one. Beyond them each rule keeps a few
/// of its own ([`merge::limit`]).
const MOST_HITS: usize = 2 * crate::scanner::FINDINGS;

/// A budget that was not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    Depth,
    Expansion,
}

impl Context<'_> {
    /// Did the agent itself send these words before?
    pub(crate) fn own(&self, text: &[u8]) -> bool {
        let Some(own) = self.own.and_then(|own| own.read().ok()) else { return false };
        std::str::from_utf8(text).is_ok_and(|text| own.covers(text, &(0..text.len())))
    }

    /// May something at this depth be decoded once more? If not, that is noted.
    pub(crate) fn deeper(&mut self, depth: usize) -> bool {
        let deeper = depth < self.limits().depth;
        if !deeper && self.work.over.is_none() {
            self.work.over = Some(Budget::Depth);
        }
        deeper
    }

    /// Takes `bytes` of derived text from the budget; false when it is used up.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        self.work.made += bytes as u64;
        if self.work.made > self.limits().most_made(self.work.input, self.work.unpacked) {
            self.work.over = Some(Budget::Expansion);
        }
        !self.over()
    }

    /// Takes `bytes` that came out of compressed data from the budget, and has `look` at them; without a result, the budget is used up.
    ///
    /// Data that is compressed once has a budget of its own, where the text is read in steps. A bomb is compressed more often than
    /// that, or to nothing.
    pub(crate) fn unpack<T>(
        &mut self,
        bytes: usize,
        look: impl FnOnce(&mut Self) -> Result<T, EngineError>,
    ) -> Result<Option<T>, EngineError> {
        if self.work.packings > 0 || !self.work.in_steps {
            self.spend(bytes);
        } else {
            self.work.unpacked += bytes as u64;
            if self.work.unpacked > self.limits().most_unpacked(self.work.input) {
                self.work.over = Some(Budget::Expansion);
            }
        }
        if self.over() {
            return Ok(None);
        }
        self.work.packings += 1;
        let result = look(self);
        self.work.packings -= 1;
        result.map(Some)
    }

    /// Something wants more memory than any text is given, and was left alone. The rest is still decoded.
    pub(crate) fn exceed(&mut self) {
        self.work.too_big = true;
    }

    /// Something is packed in this way, and was not read.
    pub(crate) fn leave(&mut self, how: Unread) {
        self.work.unread = self.work.unread.and(how);
    }

    /// Is the budget used up, so that nothing more is decoded?
    pub(crate) fn over(&self) -> bool {
        self.work.over == Some(Budget::Expansion)
    }

    /// Looks at something that is not for findings and takes nothing from the budget, so that these do not depend on how the text
    /// was cut. It has a budget of its own; without a result, that one is used up.
    pub(crate) fn aside<T>(
        &mut self,
        look: impl FnOnce(&mut Self) -> Result<T, EngineError>,
    ) -> Result<Option<T>, EngineError> {
        let before = *self.work;
        if self.over() || before.aside > self.limits().most_made(before.input, before.unpacked) {
            return Ok(None);
        }
        let result = look(self);
        let (over, made) = (self.over(), self.work.all() - before.all());
        *self.work = Work { aside: before.aside + made, ..before };
        Ok(Some(result?).filter(|_| !over))
    }

    fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// Bytes of a text that are kept for all who look back.
    pub(crate) fn keep(&self) -> usize {
        // More than any text is, and still far from what its multiples overflow at.
        const ALL: usize = usize::MAX >> 8;
        if self.engine.reports_last() { ALL } else { layer::keep(self.rules.longest(), self.shared.longest()) }
    }

    /// Bytes around a change that are looked at with it. Matches that are longer and hold a change only far inside are
    /// left to the text itself: few rules have such, and every view would cost several times as much.
    pub(crate) fn reach(&self) -> u64 {
        self.rules.longest().max(self.shared.reach()).min(MOST_REACH) as u64 + 2
    }

    pub(crate) fn pooled(&self) -> Option<Layer> {
        self.core.idle.lock().ok()?.pop()
    }

    pub(crate) fn put_back(&self, layer: Layer) {
        if let Ok(mut idle) = self.core.idle.lock()
            && idle.len() < crate::scanner::IDLE
        {
            idle.push(layer);
        }
    }
}

/// How far a text is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// Bytes from the start that hold no finding to come: with what [`Stream::findings`] says about them, they may go on.
    pub released: u64,
    /// How many findings there are so far.
    pub findings: usize,
}

/// Whether a text is what [`Scanner::stream_as`](crate::Scanner::stream_as) was told that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decoded {
    /// To its end, whatever follows there; or nobody said what it is, or a finding says why it was not decoded.
    #[default]
    Whole,
    /// By now; so many bytes came out.
    Going {
        /// Bytes.
        made: u64,
    },
    /// It is not, or only its beginning.
    Broken,
}

/// A text that is being scanned.
#[derive(Debug)]
pub struct Stream {
    core: Arc<Core>,
    memory: Memory,
    /// Of a text that is read as it is: what is remembered of it.
    readings: Option<Readings>,
    root: Option<Layer>,
    work: Work,
    hits: Vec<Hit>,
    end: u64,
    /// Only rules that are telling count.
    telling: bool,
    decoded: Decoded,
    /// Bytes that are given in small steps yet, since those before them became many.
    costly: usize,
}

impl Stream {
    pub(crate) fn open(core: &Arc<Core>, memory: &Memory, coding: Option<Coding>) -> Result<Self, EngineError> {
        let mut work = Work { in_steps: memory.in_steps, ..Work::default() };
        let mut context = context(core, &Memory::NONE, false, &mut work);
        let root = match coding {
            None => Layer::open(&mut context, 0, None)?,
            Some(coding) => Layer::named(&mut context, 0, coding.format())?,
        };
        // Of one that is compressed it is what it says that counts.
        let readings = (memory.given.is_some() && coding.is_none()).then(Readings::default);
        Ok(Self {
            core: Arc::clone(core),
            memory: memory.clone(),
            readings,
            root: Some(root),
            work,
            hits: Vec::new(),
            end: 0,
            telling: false,
            decoded: Decoded::default(),
            costly: 0,
        })
    }

    /// Of a text that is put together from others: only for [`Rule::is_telling`](crate::rule::Rule::is_telling) rules.
    pub(crate) fn telling(core: &Arc<Core>) -> Result<Self, EngineError> {
        Self::of_telling(core, |context| Layer::open(context, 0, None))
    }

    /// The same, of what is made of the text alone.
    pub(crate) fn telling_made(core: &Arc<Core>) -> Result<Self, EngineError> {
        Self::of_telling(core, Layer::made_only)
    }

    /// The same, of the text as it stands.
    pub(crate) fn plainly(core: &Arc<Core>) -> Result<Self, EngineError> {
        Self::of_telling(core, Layer::plain)
    }

    fn of_telling(
        core: &Arc<Core>,
        open: impl FnOnce(&mut Context<'_>) -> Result<Layer, EngineError>,
    ) -> Result<Self, EngineError> {
        let mut work = Work::default();
        let root = Some(open(&mut context(core, &Memory::NONE, true, &mut work))?);
        let (core, memory) = (Arc::clone(core), Memory::NONE);
        Ok(Self {
            core,
            memory,
            readings: None,
            root,
            work,
            hits: Vec::new(),
            end: 0,
            telling: true,
            decoded: Decoded::default(),
            costly: 0,
        })
    }

    /// How many bytes at the end of a text may be the beginning of what [`plainly`](Self::plainly) finds: of one that is put together
    /// from `pieces`, or of one of these.
    pub(crate) fn begun(core: &Arc<Core>, pieces: bool, text: &[u8]) -> Result<Begun, EngineError> {
        Self::ask(core, |root, context| root.begun(context, pieces, text))
    }

    /// The same of what rules find, in texts that are put together from pieces.
    pub(crate) fn begun_rules<'t>(
        core: &Arc<Core>,
        texts: impl Iterator<Item = &'t [u8]>,
    ) -> Result<Vec<Begun>, EngineError> {
        Self::ask(core, |root, context| texts.map(|text| root.begun_rule(context, text)).collect())
    }

    /// The same of known values.
    pub(crate) fn begun_known(core: &Arc<Core>, text: &[u8]) -> usize {
        let window = Window { first: 0, old: &[], new: text };
        (window.end() - core.shared.known_hold(&window)) as usize
    }

    /// How many bytes at the end of a text are the beginning of a token that shows by its prefix, or of a known value.
    pub(crate) fn begun_token(core: &Arc<Core>, text: &[u8]) -> Result<usize, EngineError> {
        Self::ask(core, |root, context| root.begun_token(context, text))
    }

    /// How many bytes at the end of a text are the beginning of a seed phrase, of four words and more.
    pub(crate) fn begun_phrase(core: &Arc<Core>, text: &[u8]) -> Result<usize, EngineError> {
        Self::ask(core, |root, context| root.begun_phrase(context, text))
    }

    fn ask<T>(core: &Arc<Core>, ask: impl FnOnce(&mut Layer, &Context<'_>) -> T) -> Result<T, EngineError> {
        let mut work = Work::default();
        let mut context = context(core, &Memory::NONE, true, &mut work);
        let mut root = Layer::plain(&mut context)?;
        let answer = ask(&mut root, &context);
        root.close(&mut context);
        Ok(answer)
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`EngineError`]: nothing of the text may pass then.
    pub fn push(&mut self, piece: &[u8]) -> Result<Progress, EngineError> {
        self.take(piece, false)?;
        let core = Arc::clone(&self.core);
        let context = context(&core, &Memory::NONE, self.telling, &mut self.work);
        let hold = self.root.as_ref().map_or(0, |root| root.hold(&context));
        Ok(Progress { released: hold.min(self.end), findings: self.hits.len() })
    }

    /// The text is over: what was found in it, in order.
    ///
    /// # Errors
    /// [`EngineError`]: nothing of the text may pass then.
    pub fn finish(mut self) -> Result<Vec<Finding>, EngineError> {
        self.take(&[], true)?;
        Ok(self.findings())
    }

    /// Takes the last piece, which may be the whole text: that is faster than the same in pieces. What comes after it is
    /// not looked at.
    ///
    /// # Errors
    /// [`EngineError`]: nothing of the text may pass then.
    pub fn last(&mut self, piece: &[u8]) -> Result<(), EngineError> {
        self.take(piece, true)
    }

    /// Where what was found lies, from the `from`th thing on, as far as [`Progress::findings`] counts: in the order in
    /// which it was found, and before what is the same became one finding. Every finding begins where one of these does, and
    /// ends where one does.
    pub fn spans(&self, from: usize) -> impl Iterator<Item = Range<u64>> {
        self.hits.iter().skip(from).map(|hit| hit.span.clone())
    }

    pub(crate) fn finish_with(mut self, piece: &[u8]) -> Result<Vec<Finding>, EngineError> {
        self.take(piece, true)?;
        Ok(if self.hits.is_empty() && self.work.missed().is_none() { Vec::new() } else { self.findings() })
    }

    /// What was found so far, in order. A later byte can still add findings behind the released bytes, never before.
    pub fn findings(&self) -> Vec<Finding> {
        merge::findings(&self.core, &self.hits, self.work.missed(), self.end)
    }

    /// Whether the text, as far as it was pushed, is compressed as it was said to be.
    pub fn decoded(&self) -> Decoded {
        self.decoded
    }

    /// How things in the text are packed, as far as it was pushed, that were not unpacked, so that nobody has read them.
    pub fn unread(&self) -> Unread {
        self.work.unread
    }

    /// Bytes of memory the stream takes.
    pub fn memory(&self) -> usize {
        let matcher = self.core.engine.matcher_size();
        size_of::<Self>()
            + self.root.as_ref().map_or(0, |root| root.memory(matcher))
            + self.hits.capacity() * size_of::<Hit>()
    }

    fn take(&mut self, piece: &[u8], last: bool) -> Result<(), EngineError> {
        self.end += piece.len() as u64;
        self.work.input = self.end;
        let core = Arc::clone(&self.core);
        if let (Some(readings), Some(given)) = (&mut self.readings, &self.memory.given) {
            readings.push(given, piece, last);
        }
        let mut context = context(&core, &self.memory, self.telling, &mut self.work);
        let Some(root) = &mut self.root else { return Ok(()) };
        let before = self.hits.len();
        let made = context.work.all();
        root.push(&mut context, piece, last, &mut self.hits)?;
        merge::limit(&mut self.hits, before);
        let made = context.work.all() - made;
        self.costly = steps::costly(self.costly, piece.len(), made);
        self.decoded = root.decoded();
        if last && let Some(root) = self.root.take() {
            root.close(&mut context);
        }
        Ok(())
    }
}

fn context<'a>(core: &'a Core, memory: &'a Memory, telling: bool, work: &'a mut Work) -> Context<'a> {
    let Core { rules, shared, key, .. } = core;
    let (own, given) = (memory.own.as_deref(), memory.given.as_deref());
    Context { core, rules, engine: &*core.engine, shared, own, given, key, telling, work }
}
