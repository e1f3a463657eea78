//! What pipelock counts: families of series, each made by the room that knows what they mean, and shown together.
//!
//! Filled by every room above; read by `admin`. It promises that labels are words of closed lists ([`Label`]), and that
//! counting neither waits nor allocates, but for the first of a series in a family of very many.
//!
//! What a request costs, in atomic operations: 5 where it is served (which connection it went out on, how long it took), 10
//! on the recorder's thread (how long it waited and was signed, what was decided, one receipt more), and where it is
//! scanned 4 for each thing that is read (URL, headers of the request, headers of the answer, each piece of a body) and 1
//! for the bytes of each piece.

mod family;
mod label;
mod process;
mod scrape;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::Registry;

pub use family::{Counter, Counters, Gauge, LONG, MIDDLE, SHORT, Times, TimesOf};
pub(crate) use label::labels;
pub use label::{Label, Labels};
pub(super) use process::add as add_process;
pub use scrape::{CONTENT_TYPE, Scrape};

/// Where the families are.
fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::new)
}

static IS_DEFECT: AtomicBool = AtomicBool::new(false);

/// A family that cannot be shown: its name is taken, or it is none.
fn defect(error: &prometheus::Error) {
    IS_DEFECT.store(true, Ordering::Relaxed);
    tracing::error!(%error, "a family of metrics cannot be shown");
}

/// True when every family that was made until now is shown.
#[cfg(test)]
pub(crate) fn are_sound() -> bool {
    !IS_DEFECT.load(Ordering::Relaxed)
}

/// Everything that was registered, as text.
#[cfg(test)]
pub(crate) fn text() -> String {
    Scrape::of_registered().finish()
}
