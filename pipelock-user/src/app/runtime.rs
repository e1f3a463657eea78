//! The async runtime of a session.
//!
//! Built by the verbs once capabilities are dropped. It promises an error where tokio panics, and an end that waits for
//! nobody: a name that is still being looked up is no reason to stay.

use std::io;
use std::panic::{catch_unwind, set_hook, take_hook};

use tokio::runtime::{Builder, Runtime};

/// Runs `work` on a runtime with a thread for each processor.
///
/// # Errors
/// When the threads cannot be started; `work` is dropped then.
pub fn run<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}

/// Runs `work` on this thread alone.
///
/// # Errors
/// What the kernel said.
pub fn run_here<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(done)
}

/// tokio panics when the kernel gives it no first thread; of the others it then has fewer.
fn build() -> io::Result<Runtime> {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let built = catch_unwind(|| Builder::new_multi_thread().enable_all().build());
    set_hook(hook);
    built.unwrap_or_else(|_| {
        Err(io::Error::other("the threads of the proxy cannot be started; look at the limits of processes and memory"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_still_looked_up_keeps_nobody() {
        let started = std::time::Instant::now();
        let done = run(async {
            #[allow(clippy::disallowed_methods, reason = "stands for getaddrinfo, which cannot be ended")]
            drop(tokio::task::spawn_blocking(|| std::thread::sleep(std::time::Duration::from_secs(20))));
            7
        });
        assert_eq!(done.expect("threads"), 7);
        assert!(started.elapsed() < std::time::Duration::from_secs(10));
        assert_eq!(run_here(async { 7 }).expect("this thread"), 7);
    }
}
