//! What this process may use, looked at before anything is made: descriptors, threads, memory.
//!
//! Called by the verbs that serve. Half-way, with programs attached and an agent started, a resource that has run out can
//! only be an error that has much to undo; here it is one that names what is wanted. It promises that the agent gets the
//! limits that we were given, whatever we do to our own.

use std::collections::TryReserveError;
use std::io;
use std::sync::{OnceLock, RwLock};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors below which nothing is started: listeners, pins and evidence are about 80, each connection takes two.
const DESCRIPTORS: u64 = 256;
/// Threads beside those of the runtime: the recorder, the one that answers for refused sockets, the one that loads the
/// scanners, and two that look names up.
const OTHER_THREADS: usize = 5;
/// Memory, beside the stacks of the threads, that must be there when everything starts; in bytes.
const MEMORY: usize = 24 << 20;

/// The limit of core dumps that the agent should have, in bytes: with it the kernel starts no program for a dump (core(5)),
/// and a file takes more; 0 forbids files only.
const CORE: u64 = 1;
/// What becomes of core dumps (core(5)).
const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// What there is too little of.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// Descriptors.
    #[error(
        "this process may have only {limit} descriptors open, and pipelock wants {DESCRIPTORS} or more; raise the limit \
         (ulimit -Hn, LimitNOFILE= of a systemd unit, --ulimit nofile= of a container)"
    )]
    Descriptors {
        /// The hard limit.
        limit: u64,
    },
    /// The limits of the process cannot be read or changed.
    #[error("the limits of open descriptors and core dumps cannot be read or raised: {0}")]
    Unknown(#[source] io::Error),
    /// Threads.
    #[error(
        "only {started} of the {wanted} threads that pipelock wants can be started: {source}. Look at the limits of processes \
         and memory (ulimit -u, ulimit -d, ulimit -v, pids.max of the cgroup), and, where clone3 is refused, at the system \
         call filter of the container: an older runtime must answer it with ENOSYS"
    )]
    Threads {
        /// How many could.
        started: usize,
        /// How many are wanted.
        wanted: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pattern of core dumps cannot be read, so nobody knows whether a program is started for one.
    #[error("{PATTERN} cannot be read: {0}")]
    Pattern(#[source] io::Error),
    /// The kernel would start the program of `core_pattern` for the agent.
    #[error(
        "the hard limit of core dumps is 0 and cannot be raised without CAP_SYS_RESOURCE, and with it the kernel starts what \
         {pattern:?} in /proc/sys/kernel/core_pattern names, as root and outside the cgroup, when the command crashes; raise the \
         limit (ulimit -Hc 1, LimitCORE= of a systemd unit), or have core_pattern name a file"
    )]
    Core {
        /// The content of the file.
        pattern: String,
    },
    /// Memory.
    #[error(
        "pipelock wants {mib} MiB of memory beside its threads, and there is less; look at ulimit -d and ulimit -v: {source}",
        mib = wanted >> 20
    )]
    Memory {
        /// How many bytes are wanted.
        wanted: usize,
        /// What the allocator said.
        source: TryReserveError,
    },
}

/// The soft limit of descriptors that we were started with, once it was raised.
static GIVEN: OnceLock<u64> = OnceLock::new();

/// Raises the soft limit of descriptors to the hard one, and the hard one of core dumps to what the agent needs, and sees
/// whether threads and memory are there. Takes about a millisecond, and leaves no thread behind.
///
/// # Errors
/// [`LimitsError`]: what there is too little of; nothing was made.
pub fn prepare() -> Result<(), LimitsError> {
    raise_descriptors()?;
    raise_core()?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    try_out(workers + OTHER_THREADS, MEMORY)
}

fn raise_descriptors() -> Result<(), LimitsError> {
    let unknown = |errno: nix::Error| LimitsError::Unknown(errno.into());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(unknown)?;
    if hard < DESCRIPTORS {
        return Err(LimitsError::Descriptors { limit: hard });
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(unknown)?;
        GIVEN.get_or_init(|| soft);
    }
    Ok(())
}

/// Also of use to nobody but the agent: see [`core_of_agent`], which says so when it has to be and cannot.
fn raise_core() -> Result<(), LimitsError> {
    if core_limit()? < CORE {
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, CORE);
    }
    Ok(())
}

/// The hard limit of core dumps, in bytes.
fn core_limit() -> Result<u64, LimitsError> {
    Ok(getrlimit(Resource::RLIMIT_CORE).map_err(|errno| LimitsError::Unknown(errno.into()))?.1)
}

/// The limit of descriptors that the agent gets, if it is not ours: programs that use select(2) break with a higher one.
pub(super) fn descriptors_of_agent() -> Option<libc::rlimit> {
    let soft = *GIVEN.get()?;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    Some(libc::rlimit { rlim_cur: soft, rlim_max: hard })
}

/// The limit of core dumps that the agent gets, in bytes: [`CORE`] or, where that cannot be, 0.
///
/// # Errors
/// [`LimitsError::Core`] where it could only be 0 and a program would be started.
pub(super) fn core_of_agent() -> Result<u64, LimitsError> {
    if core_limit()? >= CORE {
        return Ok(CORE);
    }
    let pattern = std::fs::read_to_string(PATTERN).map_err(LimitsError::Pattern)?;
    core_without_limit(pattern.trim_end())
}

/// The same where the limit cannot be more than 0: what `core_pattern` holds says whether that is enough.
fn core_without_limit(pattern: &str) -> Result<u64, LimitsError> {
    // A program, or (6.16 and later) the socket of one.
    if pattern.starts_with(['|', '@']) {
        return Err(LimitsError::Core { pattern: pattern.to_owned() });
    }
    Ok(0)
}

/// So many threads, and so much memory, all at one time; then they are gone.
fn try_out(wanted: usize, memory: usize) -> Result<(), LimitsError> {
    static GATE: RwLock<()> = RwLock::new(());
    let mut threads = Vec::with_capacity(wanted);
    let closed = GATE.write();
    let mut failed = None;
    for _ in 0..wanted {
        match std::thread::Builder::new().name("probe".into()).spawn(|| drop(GATE.read())) {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                failed = Some(LimitsError::Threads { started: threads.len(), wanted, source });
                break;
            }
        }
    }
    if failed.is_none() {
        let mut room = Vec::<u8>::new();
        failed = room.try_reserve_exact(memory).err().map(|source| LimitsError::Memory { wanted: memory, source });
        // Or the compiler sees that nobody uses it.
        std::hint::black_box(&mut room);
    }
    drop(closed);
    for thread in threads {
        let _ = thread.join();
    }
    failed.map_or(Ok(()), Err)
}

/// Makes a file that grows beyond RLIMIT_FSIZE an error of writing (EFBIG), as a full disk is: the default action of SIGXFSZ
/// would end us with the cgroup still there. The agent has the default action again (see `spawn`). SIGPIPE is treated in
/// this way by the standard library; SIGXCPU is not: after it the kernel kills in any case.
pub fn survive_file_limit() {
    // SAFETY: no handler is installed, and nobody else changes this signal.
    let _ =
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGXFSZ, nix::sys::signal::SigHandler::SigIgn) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_enough_and_what_cannot_be_there_is_named() {
        try_out(3, 1 << 20).expect("threads and a mebibyte");
        assert!(matches!(try_out(1, usize::MAX / 2), Err(LimitsError::Memory { .. })));
        assert_eq!(core_without_limit("core.%p").ok(), Some(0));
        assert_eq!(core_without_limit("").ok(), Some(0));
        for pattern in ["|/usr/lib/systemd/systemd-coredump %P", "@/run/coredump.socket"] {
            assert!(matches!(core_without_limit(pattern), Err(LimitsError::Core { .. })), "{pattern}");
        }
        let text = LimitsError::Descriptors { limit: 20 }.to_string();
        assert!(text.contains("only 20") && text.contains("256"), "{text}");
        let text = try_out(1, usize::MAX / 2).expect_err("too much").to_string();
        assert!(text.contains(&format!("wants {} MiB", (usize::MAX / 2) >> 20)), "{text}");
    }
}
