//! The process itself, under the names that all exporters give these families. Read from /proc at the scrape: the
//! collector of the prometheus crate does the same with one more library.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use super::scrape::Scrape;

/// The fields of /proc/self/stat behind the name of the program (proc(5)), which may hold anything.
struct Stat(Vec<u64>);

impl Stat {
    fn read() -> Option<Self> {
        let text = fs::read_to_string("/proc/self/stat").ok()?;
        let (_, fields) = text.rsplit_once(')')?;
        // Of the state, which is a letter, nothing is wanted.
        Some(Self(fields.split_ascii_whitespace().map(|field| field.parse().unwrap_or_default()).collect()))
    }

    /// By its number in proc(5); the name of the program is the second.
    fn field(&self, number: usize) -> u64 {
        self.0.get(number.saturating_sub(3)).copied().unwrap_or_default()
    }
}

#[allow(clippy::cast_precision_loss, reason = "clock ticks stay far below 2^52")]
fn seconds(ticks: u64) -> f64 {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    ticks as f64 / per_second as f64
}

/// When the host was booted, in seconds since 1970.
fn booted() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Adds the families.
pub(in crate::telemetry) fn add(out: &mut Scrape) {
    if let Some(stat) = Stat::read() {
        let time = seconds(stat.field(14) + stat.field(15));
        out.fraction_counter("process_cpu_seconds_total", "Processor time of the process, in seconds.", time);
        out.gauge("process_threads", "Threads of the process.", stat.field(20));
        if let Some(booted) = booted() {
            #[allow(clippy::cast_precision_loss, reason = "seconds since 1970")]
            let start = booted as f64 + seconds(stat.field(22));
            out.fraction("process_start_time_seconds", "When the process was started, in seconds since 1970.", start);
        }
        out.gauge("process_virtual_memory_bytes", "Address space of the process, in bytes.", stat.field(23));
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| u64::try_from(size).ok());
        let resident = stat.field(24).saturating_mul(page.unwrap_or(4096));
        out.gauge("process_resident_memory_bytes", "Memory of the process, in bytes.", resident);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The one that reads the folder is among them.
        let count = u64::try_from(open.count().saturating_sub(1)).unwrap_or(u64::MAX);
        out.gauge("process_open_fds", "Files and sockets that the process has open.", count);
    }
    if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        out.gauge("process_max_fds", "Files and sockets that the process may have open.", limit);
    }
}
