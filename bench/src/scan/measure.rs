//! Times for the `scan` suite: processor time, which a busy machine disturbs less than the clock does. Called by the suite's
//! other files.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

/// Bytes that one round works on, at least.
const ROUND: usize = 2 << 20;
/// Most rounds, …
pub(super) const ROUNDS: u32 = 15;
/// … and the time after which three are enough.
const ENOUGH: Duration = Duration::from_secs(2);

fn used(who: UsageWho) -> Duration {
    let micros = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec().unsigned_abs()) + Duration::from_micros(time.tv_usec().unsigned_abs())
    };
    getrusage(who).map(|usage| micros(usage.user_time()) + micros(usage.system_time())).unwrap_or_default()
}

/// Processor time of this thread, to the nanosecond.
fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// What one call takes.
pub(crate) fn once(mut work: impl FnMut()) -> Duration {
    let start = cpu();
    work();
    cpu().saturating_sub(start)
}

/// What one call takes at best, over some rounds that each are long enough to be measured; `bytes` is what one call works on.
/// Fewer rounds when they take long.
pub(crate) fn best(bytes: usize, mut work: impl FnMut()) -> Duration {
    work();
    let repeats = u32::try_from((ROUND / bytes.max(1)).clamp(1, 20_000)).unwrap_or(1);
    let (mut best, mut spent) = (Duration::MAX, Duration::ZERO);
    for round in 0..ROUNDS {
        let time = once(|| (0..repeats).for_each(|_| work()));
        best = best.min(time / repeats);
        spent += time;
        if round >= 2 && spent > ENOUGH {
            break;
        }
    }
    best
}

/// Bytes per second, in millions.
pub(crate) fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

/// Processor time of `program`, its children included, at best of three runs, and what it printed.
///
/// # Errors
/// When it cannot be started, or ends with a code that is not in `fine`.
pub(crate) fn child(program: &mut Command, fine: &[i32]) -> Result<(Duration, String)> {
    let mut best = (Duration::MAX, String::new());
    for _ in 0..3 {
        let start = used(UsageWho::RUSAGE_CHILDREN);
        let done = program.stdin(Stdio::null()).output().with_context(|| format!("{program:?}"))?;
        let time = used(UsageWho::RUSAGE_CHILDREN) - start;
        if !done.status.code().is_some_and(|code| fine.contains(&code)) {
            bail!("{program:?}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
        }
        if time < best.0 {
            best = (time, String::from_utf8_lossy(&done.stdout).into_owned());
        }
    }
    Ok(best)
}

/// A time for people.
pub(crate) fn shown(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..1e3 => format!("{micros:.1} µs"),
        1e3..1e6 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}
