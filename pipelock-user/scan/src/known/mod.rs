//! Values somebody named as secret: the agent's environment, files of secrets, canaries. Found raw and in every encoding.
//!
//! The engine builds a [`KnownValues`] when a policy is loaded and asks it about every text; each value becomes literal
//! needles (`encode`), all searched in one pass. Promises: needles are bounded in number and length; a finding tells the
//! name, the encoding and the place, never the value; `Debug` does not show values either. Values that are too short or too
//! plain to be searched for are refused with the reason, so that a policy can say so.

mod encode;
mod environment;

pub use encode::Encoding;
pub use environment::{from_environment, from_file};

use crate::entropy::shannon;
use aho_corasick::{AhoCorasick, MatchKind};
use std::ops::Range;

/// Most values that are searched for.
pub const MOST_VALUES: usize = 512;
/// Longest value, in bytes; of a longer one the beginning is searched for.
pub const LONGEST_VALUE: usize = 4096;
/// Shortest value of a canary or of a variable whose name says that it is a secret, in bytes.
const SHORTEST_NAMED: usize = 8;
/// Shortest value of anything else.
const SHORTEST: usize = 16;
/// Entropy that a value of anything else needs at least, in bits per byte.
const LEAST_ENTROPY: f64 = 3.0;

/// Where a value comes from; it decides how plain a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Planted to be found: anything of eight bytes goes.
    Canary,
    /// A file of secrets, or a variable whose name says that it holds one.
    Secret,
    /// Some variable: only values that look random are taken.
    Variable,
}

/// Why a value is not searched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Fewer bytes than searching for makes sense.
    TooShort,
    /// It would be found by chance: a word, a number, a path, one character repeated.
    TooPlain,
    /// There are [`MOST_VALUES`] already.
    TooMany,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooShort => write!(formatter, "too short to search for: use at least {SHORTEST_NAMED} bytes"),
            Self::TooPlain => {
                formatter.write_str("too plain to search for: it would be found in text that has nothing to do with it")
            }
            Self::TooMany => write!(formatter, "more than {MOST_VALUES} values: name those that matter"),
        }
    }
}

/// Collects values before they are searched for.
#[derive(Default)]
pub struct Builder {
    names: Vec<String>,
    values: Vec<Vec<u8>>,
}

/// Counts only: values are secret, and names may be long.
impl std::fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Builder").field("values", &self.values.len()).finish()
    }
}

impl Builder {
    /// No values yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value under the name findings will tell. A value known already is passed over without an error.
    ///
    /// # Errors
    /// [`Refused`] says why the value is not searched for.
    pub fn add(&mut self, name: &str, value: &[u8], source: Source) -> Result<(), Refused> {
        let value = value.trim_ascii();
        let value = &value[..value.len().min(LONGEST_VALUE)];
        let shortest = if source == Source::Variable { SHORTEST } else { SHORTEST_NAMED };
        if value.len() < shortest {
            return Err(Refused::TooShort);
        }
        if !worth(value, source) {
            return Err(Refused::TooPlain);
        }
        if self.values.iter().any(|known| known == value) {
            return Ok(());
        }
        if self.values.len() >= MOST_VALUES {
            return Err(Refused::TooMany);
        }
        self.names.push(name.to_owned());
        self.values.push(value.to_vec());
        Ok(())
    }

    /// The needles of all values, with the position of their value: for an engine that has its own matcher.
    pub fn needles(&self) -> Vec<(Vec<u8>, usize, Encoding)> {
        let mut needles = Vec::new();
        for (at, value) in self.values.iter().enumerate() {
            needles.extend(encode::needles(value).into_iter().map(|(needle, encoding)| (needle, at, encoding)));
        }
        needles
    }

    /// Ready to search; `None` when the needles do not fit the matcher (more than 2^31 states).
    pub fn build(self) -> Option<KnownValues> {
        let (mut patterns, mut meanings) = (Vec::new(), Vec::new());
        for (needle, value, encoding) in self.needles() {
            patterns.push(needle);
            meanings.push((value, encoding));
        }
        let matcher = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns).ok()?;
        Some(KnownValues {
            longest: patterns.iter().map(Vec::len).max().unwrap_or(0),
            names: self.names,
            meanings,
            matcher,
        })
    }
}

/// Whether a value would hardly be met by chance.
fn worth(value: &[u8], source: Source) -> bool {
    let distinct = value.iter().collect::<std::collections::BTreeSet<_>>().len();
    match source {
        Source::Canary => distinct >= 3,
        Source::Secret => distinct >= 5 && !plain(value),
        Source::Variable => shannon(value) > LEAST_ENTROPY && !plain(value) && !environment::ordinary(value),
    }
}

/// Words that values hold without being secret, and plain numbers.
fn plain(value: &[u8]) -> bool {
    const WORDS: [&str; 12] = [
        "disabled",
        "undefined",
        "production",
        "development",
        "password",
        "changeme",
        "localhost",
        "default",
        "required",
        "optional",
        "anonymous",
        "placeholder",
    ];
    value.iter().all(|byte| byte.is_ascii_digit() || b".-:/ ".contains(byte))
        || WORDS.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

/// A known value in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Which value: the position of its name in [`KnownValues::name`].
    pub value: usize,
    /// How it was written.
    pub encoding: Encoding,
    /// Where, in bytes.
    pub span: Range<usize>,
}

/// Values ready to be searched for.
pub struct KnownValues {
    names: Vec<String>,
    meanings: Vec<(usize, Encoding)>,
    matcher: AhoCorasick,
    longest: usize,
}

impl std::fmt::Debug for KnownValues {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KnownValues")
            .field("values", &self.names.len())
            .field("needles", &self.meanings.len())
            .finish()
    }
}

impl KnownValues {
    /// The name a value was added under; empty for a number no hit carries.
    pub fn name(&self, value: usize) -> &str {
        self.names.get(value).map_or("", String::as_str)
    }

    /// Every known value in a text, in order, without overlaps.
    pub fn find(&self, text: &[u8]) -> Vec<Hit> {
        let hit = |found: aho_corasick::Match| {
            let (value, encoding) = *self.meanings.get(found.pattern().as_usize())?;
            Some(Hit { value, encoding, span: found.range() })
        };
        self.matcher.find_iter(text).filter_map(hit).collect()
    }

    /// The longest needle, in bytes: what a stream has to hold back.
    pub fn longest(&self) -> usize {
        self.longest
    }
}

#[cfg(test)]
mod tests;
