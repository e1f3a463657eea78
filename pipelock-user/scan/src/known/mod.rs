//! Values somebody named as secret: the agent's environment, files of secrets, canaries. Found raw and in every encoding.
//!
//! The engine builds a [`KnownValues`] when a policy is loaded and asks it about every text; each value becomes literal
//! needles (`encode`), all searched in one pass (`needle`). Promises: needles are bounded in number and length; a finding tells the
//! name, the encoding and the place, never the value; `Debug` does not show values either. Values that are too short or too
//! plain to be searched for are refused with the reason, so that a policy can say so.

mod encode;
mod environment;
mod needle;

pub use encode::Encoding;
pub use environment::{from_environment, from_file};

use std::ops::Range;

use needle::Needles;

use crate::engine::EngineError;
use crate::entropy::shannon;
use crate::stream::Window;

/// Most values that are searched for.
pub const MOST_VALUES: usize = 512;
/// Longest value, in bytes; of a longer one the beginning is searched for.
pub const LONGEST_VALUE: usize = 1024;
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
#[derive(Clone, Default)]
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

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The needles of all values, with the position of their value.
    fn needles(&self) -> Vec<(Vec<u8>, usize, Encoding)> {
        let mut needles = Vec::new();
        for (at, value) in self.values.iter().enumerate() {
            needles.extend(encode::needles(value).into_iter().map(|(needle, encoding)| (needle, at, encoding)));
        }
        needles
    }

    /// Ready to search.
    ///
    /// # Errors
    /// When the matcher refuses the needles, of which there are too many then.
    pub fn build(self) -> Result<KnownValues, EngineError> {
        KnownValues::new(self, true)
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
    values: Vec<Vec<u8>>,
    needles: Needles,
}

impl std::fmt::Debug for KnownValues {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KnownValues").field("values", &self.names.len()).finish_non_exhaustive()
    }
}

impl KnownValues {
    /// `fast` chooses vectorscan; its measure is Aho-Corasick.
    pub(crate) fn new(builder: Builder, fast: bool) -> Result<Self, EngineError> {
        let needles = Needles::new(builder.needles(), fast)?;
        Ok(Self { names: builder.names, values: builder.values, needles })
    }

    /// The name a value was added under; empty for a number no hit carries.
    pub fn name(&self, value: usize) -> &str {
        self.names.get(value).map_or("", String::as_str)
    }

    /// Names and values, in order.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.names.iter().map(String::as_str).zip(self.values.iter().map(Vec::as_slice))
    }

    /// Every needle in a text, in the order of their ends: one place may show several.
    ///
    /// # Errors
    /// When the matcher cannot run.
    pub fn find(&self, text: &[u8]) -> Result<Vec<Hit>, EngineError> {
        let mut hits = Vec::new();
        let window = Window { first: 0, old: &[], new: text };
        self.push(&window, |value, encoding, span| {
            hits.push(Hit { value, encoding, span: span.start as usize..span.end as usize });
        })?;
        Ok(hits)
    }

    /// Every needle that ends in the new piece of `window`, which reaches [`longest`](Self::longest) bytes back.
    pub(crate) fn push(
        &self,
        window: &Window<'_>,
        mut found: impl FnMut(usize, Encoding, Range<u64>),
    ) -> Result<(), EngineError> {
        let fresh = window.fresh();
        let around = self.longest() as u64 - u64::from(self.longest() > 0);
        if !window.old.is_empty() && !window.new.is_empty() {
            // What lies in both slices; the new one alone needs no copy then.
            let border = fresh.saturating_sub(around).max(window.start())..(fresh + around).min(window.end());
            let start = border.start;
            window.with(border, |text| {
                self.needles.each(text, |value, encoding, span| {
                    let span = start + span.start as u64..start + span.end as u64;
                    if span.start < fresh && span.end > fresh {
                        found(value, encoding, span);
                    }
                })
            })?;
        }
        self.needles.each(window.new, |value, encoding, span| {
            found(value, encoding, fresh + span.start as u64..fresh + span.end as u64);
        })
    }

    /// Where the first needle may start that is not over yet.
    pub(crate) fn hold(&self, window: &Window<'_>) -> u64 {
        let from = window.end().saturating_sub(self.longest() as u64).max(window.start());
        window.with(from..window.end(), |text| window.end() - self.needles.begun(text) as u64)
    }

    /// The longest needle, in bytes: what a stream has to look back.
    pub fn longest(&self) -> usize {
        self.needles.longest()
    }
}

#[cfg(test)]
mod tests;
