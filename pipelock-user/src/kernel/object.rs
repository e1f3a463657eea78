//! The kernel programs as built by `cargo xtask build-ebpf`, embedded so that users need no BPF toolchain.
//!
//! The path is relative to this file: an absolute one would stay in a build cache that two checkouts share, and embed the
//! object of the other.

/// The ELF object with programs, maps and BTF.
#[cfg(not(feature = "debug-ebpf"))]
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../pipelock-ebpf/pipelock.bpf.o");

/// The same, logging every decision through aya-log.
#[cfg(feature = "debug-ebpf")]
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../pipelock-ebpf/pipelock-debug.bpf.o");

/// What the programs log, from the load until somebody follows it: threads must not start before capabilities are dropped.
#[cfg(feature = "debug-ebpf")]
static LOG: std::sync::Mutex<Option<Box<dyn FnMut() + Send>>> = std::sync::Mutex::new(None);

/// Takes the log of a program that was just loaded; all share one.
#[cfg(feature = "debug-ebpf")]
pub(super) fn keep_log(program: u32) {
    match aya_log::EbpfLogger::init_from_id(program) {
        Ok(mut logger) => {
            let flush = Box::new(move || logger.flush());
            *LOG.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(flush);
        }
        Err(error) => tracing::warn!(%error, "the programs' log cannot be read"),
    }
}

/// Prints what the programs log, from a thread of its own that lives as long as the process.
#[cfg(feature = "debug-ebpf")]
pub fn follow_log() {
    let flush = LOG.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(mut flush) = flush {
        let started = std::thread::Builder::new().name("log".into()).spawn(move || {
            loop {
                flush();
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
        if let Err(error) = started {
            tracing::warn!(%error, "the programs' log is not read");
        }
    }
}
