//! [`Scanner`]: rules, detectors and engine, ready to scan, and the [`Builder`] that makes it. Made once per process and
//! shared; called by whoever has bytes to check.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use crate::decode::inflate::Coding;
use crate::detect::Shared;
use crate::engine::{Begun, Engine, EngineError, cache, oracle::Oracle, vector::Vector};
use crate::finding::{Finding, Key};
use crate::injection::OwnText;
use crate::known::{self, KnownValues};
use crate::rule::RuleSet;
use crate::session::{Given, Prefixes};
use crate::stream::Stream;
use crate::url::UrlOptions;
use crate::wallet;

/// Most findings that one text is reported with.
pub(crate) const FINDINGS: usize = 1000;
/// How many idle texts are kept for later use.
pub(crate) const IDLE: usize = 64;

/// How much is done for one text.
///
/// Of a text of `n` bytes that is [read in steps](Scanner::in_steps), `u` bytes come out of data that is compressed once:
/// at most 32 MiB + 64·n, and no more than 1 MiB + 1100·n. At most 1 MiB + 48·n + u more are made of it: what is decoded in other
/// ways, or compressed twice. So 64 KiB have at most 36 + 40 MiB scanned, and a megabyte at most 96 + 145 MiB. Of any other text
/// at most 1 MiB + 48·n is made, whatever it is packed in: 4 MiB of 64 KiB.
///
/// A text that comes in pieces is held to what its bytes so far allow. One that is near its budget may so be over it at a cut, and
/// within it when it is there at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Codecs inside each other.
    pub depth: usize,
    /// Bytes that any text may be decoded to, over all views and codecs, …
    pub made: u64,
    /// … and so many more for each of its bytes.
    pub factor: u64,
    /// Bytes that compressed data in a text which is read in steps may be unpacked to, which is none in other compressed data: that is
    /// what logs, tables and pictures are packed to without being bombs. What is compressed twice is taken from `made`.
    pub unpacked: u64,
    /// … and so many more for each byte of the text.
    pub unpacked_factor: u64,
}

impl Limits {
    /// Most bytes that one becomes when it is unpacked: deflate's ceiling (RFC 1951), and a little for what is read twice. Brotli and
    /// Zstandard have none; what is packed so is held to the same.
    const CEILING: u64 = 1100;
    /// Bytes that may be made of each unpacked one.
    const OF_UNPACKED: u64 = 1;

    /// Bytes that a text of `input` bytes may be unpacked to.
    pub(crate) fn most_unpacked(&self, input: u64) -> u64 {
        let ceiling = self.made.saturating_add(Self::CEILING.saturating_mul(input));
        ceiling.min(self.unpacked.saturating_add(self.unpacked_factor.saturating_mul(input)))
    }

    /// Bytes that may be made of a text of `input` bytes, of which `unpacked` came out of compressed data in it.
    pub(crate) fn most_made(&self, input: u64, unpacked: u64) -> u64 {
        let own = self.made.saturating_add(self.factor.saturating_mul(input));
        own.saturating_add(Self::OF_UNPACKED.saturating_mul(unpacked))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 5, made: 1 << 20, factor: 48, unpacked: 32 << 20, unpacked_factor: 64 }
    }
}

/// What streams share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) rules: RuleSet,
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) shared: Shared,
    pub(crate) key: Key,
    pub(crate) limits: Limits,
    pub(crate) urls: UrlOptions,
    pub(crate) idle: Mutex<Vec<crate::stream::Idle>>,
    /// Made when a value is first looked through for tokens in several words.
    pub(crate) prefixes: OnceLock<Prefixes>,
}

/// Rules and engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scanner {
    pub(crate) core: Arc<Core>,
    memory: Memory,
}

/// What is remembered of texts that go by, and how they are read.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// The agent's own words.
    pub(crate) own: Option<Arc<RwLock<OwnText>>>,
    /// What the agent was given.
    pub(crate) given: Option<Arc<Given>>,
    /// Whoever reads them does so in steps.
    pub(crate) in_steps: bool,
}

impl Memory {
    /// Of nothing.
    pub(crate) const NONE: Self = Self { own: None, given: None, in_steps: false };
}

/// What a scanner is to look for, before it is made.
#[derive(Debug)]
pub struct Builder {
    rules: RuleSet,
    key: [u8; 32],
    known: known::Builder,
    wallet: wallet::Watch,
    limits: Limits,
    urls: UrlOptions,
    cache: Option<PathBuf>,
}

impl Builder {
    /// Values to look for in every encoding. They stay in memory and go into no file.
    #[must_use]
    pub fn known(self, known: known::Builder) -> Self {
        Self { known, ..self }
    }

    /// Wallet addresses that are allowed, so that others, and what imitates them, are found.
    #[must_use]
    pub fn wallet(self, wallet: wallet::Watch) -> Self {
        Self { wallet, ..self }
    }

    /// How much is done for one text.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// What of URLs is judged, and how strictly: see [`Scanner::scan_url`].
    #[must_use]
    pub fn urls(self, urls: UrlOptions) -> Self {
        Self { urls, ..self }
    }

    /// Takes the compiled rules from `folder` when an earlier call left them there, and leaves them there otherwise. The
    /// folder must be writable for this user alone; if it is not, it is not used.
    #[must_use]
    pub fn cache(self, folder: &Path) -> Self {
        Self { cache: Some(folder.to_owned()), ..self }
    }

    /// Compiles the rules, which takes seconds, or takes them from the cache.
    ///
    /// # Errors
    /// When vectorscan refuses a pattern, or cannot run on this processor. A cache that cannot be used is none.
    pub fn build(self) -> Result<Scanner, EngineError> {
        let engine = match &self.cache {
            Some(folder) => cache::load_or_compile(&self.rules, folder)?,
            None => Vector::compile(self.rules.rules())?,
        };
        self.with(Box::new(engine), true)
    }

    /// The plain engine, which searches rule by rule: slow, and the measure of the other.
    ///
    /// # Errors
    /// When there are too many known values.
    pub fn build_oracle(self) -> Result<Scanner, EngineError> {
        self.with(Box::new(Oracle), false)
    }

    fn with(self, engine: Box<dyn Engine>, fast: bool) -> Result<Scanner, EngineError> {
        let Self { mut rules, key, known, wallet, limits, urls, .. } = self;
        let key = Key::new(&key);
        let known = KnownValues::new(known, fast)?;
        let shared = Shared::new(&mut rules, &key, Some(known), wallet);
        let core = Core { rules, engine, shared, key, limits, urls, idle: Mutex::default(), prefixes: OnceLock::new() };
        Ok(Scanner { core: Arc::new(core), memory: Memory::NONE })
    }
}

impl Scanner {
    /// A scanner to be. `key` keys the fingerprints: random, unless findings of several processes are to be compared. What
    /// `rules` do not have, built-in detectors included, is not looked for.
    pub fn builder(rules: RuleSet, key: &[u8; 32]) -> Builder {
        Builder {
            rules,
            key: *key,
            known: known::Builder::new(),
            wallet: wallet::Watch::default(),
            limits: Limits::default(),
            urls: UrlOptions::default(),
            cache: None,
        }
    }

    /// Rules and built-in detectors without any options; compiles the rules, which takes seconds.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new(rules: RuleSet, key: &[u8; 32]) -> Result<Self, EngineError> {
        Self::builder(rules, key).build()
    }

    /// As [`new`](Self::new), with a folder for the compiled rules: [`Builder::cache`].
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn cached(rules: RuleSet, key: &[u8; 32], folder: &Path) -> Result<Self, EngineError> {
        Self::builder(rules, key).cache(folder).build()
    }

    /// The plain engine without any options: [`Builder::build_oracle`].
    pub fn oracle(rules: RuleSet, key: &[u8; 32]) -> Self {
        let core = Core {
            shared: Shared::new(&mut rules.clone(), &Key::new(key), None, wallet::Watch::default()),
            rules,
            engine: Box::new(Oracle),
            key: Key::new(key),
            limits: Limits::default(),
            urls: UrlOptions::default(),
            idle: Mutex::default(),
            prefixes: OnceLock::new(),
        };
        Self { core: Arc::new(core), memory: Memory::NONE }
    }

    /// The same scanner for what comes in to an agent: its own words, which `own` remembers, are no injection when they
    /// come back. They are remembered with [`OwnText::remember`], by whoever sees them leave.
    #[must_use]
    pub fn foreign(&self, own: Arc<RwLock<OwnText>>) -> Self {
        Self { core: Arc::clone(&self.core), memory: Memory { own: Some(own), ..self.memory.clone() } }
    }

    /// The same scanner for texts that an agent is given: `given` remembers what links are made of, so that sending them is
    /// not taken for sending data.
    #[must_use]
    pub fn giving(&self, given: Arc<Given>) -> Self {
        Self { core: Arc::clone(&self.core), memory: Memory { given: Some(given), ..self.memory.clone() } }
    }

    /// The same scanner for whoever keeps nobody waiting, or gives texts in [steps](Stream::step) between which others have their
    /// turn. What is compressed in them may be larger then ([`Limits`]).
    #[must_use]
    pub fn in_steps(&self) -> Self {
        Self { core: Arc::clone(&self.core), memory: Memory { in_steps: true, ..self.memory.clone() } }
    }

    /// What is in `text`.
    ///
    /// # Errors
    /// [`EngineError`]: the text must then be taken for dirty.
    pub fn scan(&self, text: &[u8]) -> Result<Vec<Finding>, EngineError> {
        self.stream()?.finish_with(text)
    }

    /// How many bytes at the end of a text may be the beginning of something, as they stand: of one that is put together from `pieces`,
    /// each of which may be the first, or of one of these.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub(crate) fn begun(&self, pieces: bool, text: &[u8]) -> Result<Begun, EngineError> {
        Stream::begun(&self.core, pieces, text)
    }

    /// How many bytes at the end of a text are the beginning of a token that shows by its prefix (`ghp_`, `AKIA`), or of four bytes
    /// and more of a known value: what a sender that pauses there has not ended.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn begun_token(&self, text: &[u8]) -> Result<usize, EngineError> {
        Stream::begun_token(&self.core, text)
    }

    /// Whether what is not [sure](Begun::sure) to have begun at the end of `old` may have, before `new`.
    pub(crate) fn awaits(&self, old: &[u8], new: &[u8]) -> bool {
        self.core.engine.awaits(&self.core.rules, true, old, new)
    }

    /// How often vectorscan reports something in one bare pass over `text`: the ceiling that measurements compare with.
    ///
    /// # Errors
    /// As [`scan`](Self::scan).
    pub fn reports(&self, text: &[u8]) -> Result<u64, EngineError> {
        self.core.engine.reports(text)
    }

    /// The patterns as vectorscan gets them, in the order of the rules: for measurements that give them to another engine.
    pub fn patterns(&self) -> Vec<String> {
        crate::engine::vector::patterns(self.core.rules.rules())
    }

    /// A text that comes in pieces.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn stream(&self) -> Result<Stream, EngineError> {
        Stream::open(&self.core, &self.memory, None)
    }

    /// As [`stream`](Self::stream), of a text whose sender says that it is compressed. Brotli and raw deflate are seen only
    /// so; what the text is not is no error, as its bytes are scanned as they are as well.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn stream_as(&self, coding: Coding) -> Result<Stream, EngineError> {
        Stream::open(&self.core, &self.memory, Some(coding))
    }

    /// The rules.
    pub fn rules(&self) -> &RuleSet {
        &self.core.rules
    }
}
