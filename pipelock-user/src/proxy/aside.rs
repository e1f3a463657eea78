//! Reading that takes long: beside the threads that move bytes, and no longer than somebody waits for it.
//!
//! Called by `fetch` and `api` for texts that are read as a whole. It promises that no more of it runs at a time than there are
//! cores, also of what nobody waits for any more.

use std::sync::LazyLock;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

static CORES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)));

/// Why it came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// It was not done in time.
    Late,
    /// It never will be: it panicked, or no thread could be had.
    Broken,
}

/// What `work` comes to by `due`.
///
/// # Errors
/// [`Undone`].
pub(super) async fn aside<T: Send + 'static>(
    due: Instant,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Undone> {
    let done = async {
        let place = CORES.acquire().await.ok()?;
        let (tell, told) = oneshot::channel();
        let runtime = Handle::current();
        let work = move || {
            let (_place, _runtime) = (place, runtime.enter());
            let _ = tell.send(work());
        };
        std::thread::Builder::new().name("aside".into()).spawn(work).ok()?;
        told.await.ok()
    };
    timeout_at(due, done).await.map_err(|_| Undone::Late)?.ok_or(Undone::Broken)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_is_waited_for_until_it_is_due() {
        let soon = || Instant::now() + Duration::from_secs(60);
        assert_eq!(aside(soon(), || 7).await, Ok(7));
        assert_eq!(aside(soon(), || -> u8 { panic!("a defect") }).await, Err(Undone::Broken));
        // Work that goes on for as long as it likes: the thread of this test is free meanwhile.
        let (end, ended) = mpsc::channel::<()>();
        assert_eq!(
            aside(Instant::now() + Duration::from_millis(10), move || ended.recv().is_ok()).await,
            Err(Undone::Late)
        );
        end.send(()).expect("it still runs");
    }
}
