//! [`Scanner`]: rules and engine, ready to scan. Made once per process and shared; called by whoever has bytes to check.

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::decode::inflate::Coding;
use crate::engine::{Engine, EngineError, cache, oracle::Oracle, vector::Vector};
use crate::finding::{Finding, Key};
use crate::rule::RuleSet;
use crate::stream::Stream;

/// Most findings that one text is reported with.
pub(crate) const FINDINGS: usize = 1000;
/// How many idle texts are kept for later use.
pub(crate) const IDLE: usize = 64;

/// How much is done for one text.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Codecs inside each other.
    pub depth: usize,
    /// Bytes that any text may be decoded to, over all views and codecs, …
    pub made: u64,
    /// … and so many more for each of its bytes.
    pub factor: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 5, made: 1 << 20, factor: 48 }
    }
}

/// What streams share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) rules: RuleSet,
    pub(crate) engine: Box<dyn Engine>,
    pub(crate) key: Key,
    pub(crate) limits: Limits,
    pub(crate) idle: Mutex<Vec<crate::stream::Idle>>,
}

/// Rules and engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Scanner {
    core: Arc<Core>,
}

impl Scanner {
    /// Compiles `rules`, which takes seconds. `key` keys the fingerprints: random, unless findings of several processes are
    /// to be compared.
    ///
    /// # Errors
    /// When vectorscan refuses a pattern, or cannot run on this processor.
    pub fn new(rules: RuleSet, key: &[u8; 32]) -> Result<Self, EngineError> {
        let engine = Vector::compile(rules.rules())?;
        Ok(Self::with(rules, Box::new(engine), key))
    }

    /// As [`new`](Self::new), but takes the compiled rules from `folder` when an earlier call left them there, and leaves them
    /// there otherwise. The folder must be writable for this user alone; if it is not, it is not used.
    ///
    /// # Errors
    /// As [`new`](Self::new); a folder that cannot be used is none.
    pub fn cached(rules: RuleSet, key: &[u8; 32], folder: &Path) -> Result<Self, EngineError> {
        let engine = cache::load_or_compile(&rules, folder)?;
        Ok(Self::with(rules, Box::new(engine), key))
    }

    /// The plain engine, which searches rule by rule: slow, and the measure of the other.
    pub fn oracle(rules: RuleSet, key: &[u8; 32]) -> Self {
        Self::with(rules, Box::new(Oracle), key)
    }

    fn with(rules: RuleSet, engine: Box<dyn Engine>, key: &[u8; 32]) -> Self {
        let core = Core { rules, engine, key: Key::new(key), limits: Limits::default(), idle: Mutex::default() };
        Self { core: Arc::new(core) }
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// Gives the scanner back when it is shared already.
    pub fn limited(self, limits: Limits) -> Result<Self, Self> {
        match Arc::try_unwrap(self.core) {
            Ok(core) => Ok(Self { core: Arc::new(Core { limits, ..core }) }),
            Err(core) => Err(Self { core }),
        }
    }

    /// What is in `text`.
    ///
    /// # Errors
    /// [`EngineError`]: the text must then be taken for dirty.
    pub fn scan(&self, text: &[u8]) -> Result<Vec<Finding>, EngineError> {
        self.stream()?.finish_with(text)
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
        Stream::open(&self.core, None)
    }

    /// As [`stream`](Self::stream), of a text whose sender says that it is compressed. Brotli and raw deflate are seen only
    /// so; what the text is not is no error, as its bytes are scanned as they are as well.
    ///
    /// # Errors
    /// When memory runs out.
    pub fn stream_as(&self, coding: Coding) -> Result<Stream, EngineError> {
        Stream::open(&self.core, Some(coding))
    }

    /// The rules.
    pub fn rules(&self) -> &RuleSet {
        &self.core.rules
    }
}
