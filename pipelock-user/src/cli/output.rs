//! Writing to the terminal: the only place that does, for stderr behind the log. A closed pipe is no error: `pipelock … | head`
//! ends quietly. Output that is lost for another reason is one, which [`lost`] tells at the end.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::app::Ended;
use crate::telemetry::say;

/// What was to be written to stdout is not there.
static LOST: AtomicBool = AtomicBool::new(false);

/// A line on stdout.
pub(super) fn line(text: &str) {
    note_loss(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Whether something that was to be written to stdout could not be, to a reader who still waits for it.
pub(super) fn lost() -> bool {
    note_loss(std::io::stdout().flush());
    LOST.load(Ordering::Relaxed)
}

fn note_loss(written: std::io::Result<()>) {
    if written.is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// A note on stderr, for people.
pub(super) fn note(text: &str) {
    say(&format!("pipelock: {text}\n"));
}

/// An error on stderr; red on a terminal that wants colour.
pub(super) fn error(text: &str) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (red, plain) = if colour { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
    say(&format!("{red}pipelock: error:{plain} {text}\n"));
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

/// Says that the evidence is not where it was to be, if its folder was moved or another put in its place meanwhile.
pub(super) fn moved(now: &Path, from: Option<&Path>) {
    let Some(from) = from else { return };
    error(&format!(
        "{} is not the evidence folder any more: somebody moved that while the run went on. The evidence is complete, in {}; \
         what lies under the other name was not written by pipelock",
        from.display(),
        now.display()
    ));
}
