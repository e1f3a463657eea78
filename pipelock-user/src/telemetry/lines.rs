//! Lines of the log, and of `cli`, on their way to stderr.
//!
//! Filled by `log` and [`say`]; [`wait_for_nobody`] is called by the recorder when it starts, since from then on there may be a
//! line for every decision, and [`flush`] by `cli` at the end. A terminal that is held, or a pipe that nobody reads, then costs
//! lines, which are counted, and not the time of those who decide; nor does it keep the process from ending.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use super::metrics::Counter;

/// Lines that may wait.
const MOST: usize = 8192;
/// How long the end waits for whoever reads, and a line of `cli` for room.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a line of `cli` waits before it looks for room again.
const PAUSE: Duration = Duration::from_millis(10);

/// What the log counts.
pub(crate) struct Counts {
    lost: Counter,
}

/// The families of this process.
pub(crate) static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    lost: Counter::new("pipelock_log_lines_lost_total", "Lines of the log that nobody read fast enough."),
});

/// What waits to be written.
enum Line {
    Text(Vec<u8>),
    /// Dropped when all before it is written.
    End(SyncSender<()>),
}

static QUEUE: OnceLock<SyncSender<Line>> = OnceLock::new();

/// From now on a line that cannot be written at once waits on a thread of its own, and is dropped where too many do.
pub fn wait_for_nobody() {
    if QUEUE.get().is_some() {
        return;
    }
    let (queue, lines) = sync_channel(MOST);
    let thread = std::thread::Builder::new().name("log".into()).spawn(move || write(&lines, &mut io::stderr()));
    // Without one it is as before.
    if thread.is_ok() {
        let _ = QUEUE.set(queue);
    }
}

/// Waits until what was logged is written, but not long.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        flush_of(queue);
    }
}

fn flush_of(queue: &SyncSender<Line>) {
    let due = Instant::now() + PATIENCE;
    let (end, written) = sync_channel(0);
    if offer(queue, Line::End(end), due) {
        let _ = written.recv_timeout(due.saturating_duration_since(Instant::now()));
    }
}

fn write(lines: &Receiver<Line>, out: &mut impl Write) {
    let mut told = COUNTS.lost.get();
    for line in lines {
        match line {
            Line::Text(text) => {
                if out.write_all(&text).is_err() {
                    COUNTS.lost.add();
                    // Nobody is told where nothing can be written.
                    told += 1;
                }
            }
            Line::End(end) => drop(end),
        }
        let lost = COUNTS.lost.get();
        if lost > told {
            tracing::warn!(lines = lost - told, "lines of the log are lost: nobody read them fast enough");
            told = lost;
        }
    }
}

fn send(queue: &SyncSender<Line>, text: &[u8]) {
    if queue.try_send(Line::Text(text.to_vec())).is_err() {
        COUNTS.lost.add();
    }
}

/// Says a line that is for the person who started us, behind what was logged before. It waits for room, but not long, and not
/// once more when there was none.
pub fn say(line: &str) {
    match QUEUE.get() {
        Some(queue) => say_in(queue, line.as_bytes(), &UNHEARD),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// A line of `cli` found no room in all its time.
static UNHEARD: AtomicBool = AtomicBool::new(false);

fn say_in(queue: &SyncSender<Line>, text: &[u8], unheard: &AtomicBool) {
    let patience = if unheard.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
    if !offer(queue, Line::Text(text.to_vec()), Instant::now() + patience) {
        unheard.store(true, Ordering::Relaxed);
        COUNTS.lost.add();
    }
}

/// Waits for room: a full queue may be on its way to somebody who reads. False when there was none until then.
fn offer(queue: &SyncSender<Line>, mut line: Line, due: Instant) -> bool {
    loop {
        match queue.try_send(line) {
            Ok(()) => return true,
            Err(TrySendError::Full(back)) if Instant::now() < due => line = back,
            Err(_) => return false,
        }
        std::thread::sleep(PAUSE);
    }
}

/// Takes lines, each in one piece.
pub(super) struct Lines;

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => send(queue, text),
            None => io::stderr().write_all(text)?,
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Somebody who reads nothing while this is held.
    #[derive(Clone, Default)]
    struct Held(Arc<Mutex<Vec<u8>>>);

    impl Write for Held {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("sound").write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_said_waits_for_room_and_not_for_ever() {
        let (queue, lines) = sync_channel(1);
        send(&queue, b"logged\n");
        let unheard = AtomicBool::new(false);
        say_in(&queue, b"unheard\n", &unheard);
        assert!(unheard.load(Ordering::Relaxed), "nobody reads");
        let unheard = AtomicBool::new(false);
        let mut out = Held::default();
        let written = out.0.clone();
        let reading = std::thread::Builder::new().spawn(move || write(&lines, &mut out)).expect("a thread");
        say_in(&queue, b"said\n", &unheard);
        drop(queue);
        reading.join().expect("it ends");
        assert_eq!(written.lock().expect("sound").as_slice(), b"logged\nsaid\n");
    }

    #[test]
    fn whoever_logs_waits_for_nobody_and_what_is_lost_is_counted() {
        let held = Held::default();
        let (queue, lines) = sync_channel(4);
        let mut out = held.clone();
        let thread = std::thread::Builder::new().spawn(move || write(&lines, &mut out)).expect("a thread");
        let before = COUNTS.lost.get();
        let nobody_reads = held.0.lock().expect("sound");
        for number in 0..20 {
            send(&queue, format!("{number}\n").as_bytes());
        }
        // One is being written, four wait.
        assert!(COUNTS.lost.get() - before >= 15);
        drop(nobody_reads);
        // There may be no room for the end yet, and all the same it is waited for.
        flush_of(&queue);
        assert!(held.0.lock().expect("sound").starts_with(b"0\n1\n2\n3\n"), "in order");
        drop(queue);
        thread.join().expect("it ends");
    }
}
