//! Writing to the terminal: the only place that does. A closed pipe is no error: `pipelock … | head` ends quietly.

use std::io::{IsTerminal as _, Write as _};

use crate::app::Ended;

/// A line on stdout.
pub(super) fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// A note on stderr, for people.
pub(super) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "pipelock: {text}");
}

/// An error on stderr; red on a terminal that wants colour.
pub(super) fn error(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = if colour {
        writeln!(stderr, "\u{1b}[31mpipelock: error:\u{1b}[0m {text}")
    } else {
        writeln!(stderr, "pipelock: error: {text}")
    };
}

/// What a session came to, as a note.
pub(super) fn ended(ended: &Ended) {
    note(&format!(
        "{} flows: {} allowed, {} denied; {} receipts in {}",
        ended.flows,
        ended.allowed,
        ended.flows - ended.allowed,
        ended.summary.closed.receipt_count,
        ended.summary.folder.display()
    ));
}
