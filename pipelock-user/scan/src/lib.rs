//! pipelock-scan: bytes in, findings out. Secrets that must not leave and instructions that must not come in, in plain
//! text and in whatever they were encoded with. Called by pipelock's `inspect` room and by `pipelock scan`.
//!
//! [`Scanner`] holds rules and engine; [`Scanner::scan`] takes a whole text, [`Scanner::stream`] one that comes in
//! pieces, and both say the same. A [`Finding`] tells where, by which rule and through which encodings, never the
//! secret. [`redact()`] takes the findings out of a text.
//!
//! Inside: [`rule`] reads rules; `engine` matches them, vectorscan for speed and plain regexes as its measure; `decode`
//! undoes ways of writing; `stream` ties texts, views and codecs together. Beside the rules: [`injection`] for orders to
//! the agent in what it reads, [`seed`] and [`wallet`] for
//! what no pattern can tell, [`entropy`] for URLs, [`session`] across requests and [`known`] for values somebody named.

#![forbid(unsafe_code)]

mod bits;
mod decode;
mod detect;
mod engine;
pub mod entropy;
mod finding;
pub mod injection;
pub mod known;
mod pause;
mod redact;
pub mod rule;
mod scanner;
pub mod seed;
pub mod session;
mod stream;
mod url;
pub mod validate;
pub mod wallet;

pub use decode::inflate::Coding;
pub use decode::unread::Unread;
pub use engine::EngineError;
pub use finding::{Finding, Fingerprint, Step};
pub use redact::{redact, redact_as};
pub use rule::{Confidence, Kind, RuleError, RuleSet, Severity};
pub use scanner::{Builder, Limits, Scanner};
pub use stream::{Decoded, Progress, Stream};
pub use url::{UrlOptions, decoded as url_decoded};
