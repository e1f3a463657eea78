//! When a connection was last heard of: one clock for both sides of it.
//!
//! Called by `pump` and `http`. It promises that a byte in either direction, on either side, counts, and that a connection to a
//! destination was opened, and nothing else.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::through::write_through;
use crate::flow::locked;

/// The moment of the last byte.
#[derive(Debug)]
pub(super) struct Activity {
    start: Instant,
    /// Milliseconds after the start.
    last: AtomicU64,
    /// Those of other streams that count as well: what is heard of one is written where only that one writes.
    joined: Mutex<Vec<Weak<Activity>>>,
}

impl Activity {
    /// Starts now.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), last: AtomicU64::new(0), joined: Mutex::default() })
    }

    /// What is heard of another counts here too, from now on and while it lasts.
    pub(super) fn join(&self, other: &Arc<Self>) {
        let mut joined = locked(&self.joined);
        joined.retain(|one| one.strong_count() > 0);
        joined.push(Arc::downgrade(other));
    }

    /// A byte has moved.
    pub(super) fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// When the last byte moved.
    fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Waits until no byte has moved for this long.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let joined = locked(&self.joined).iter().filter_map(Weak::upgrade).map(|one| one.last()).max();
            let due = joined.unwrap_or(self.start).max(self.last()) + limit;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// A stream whose bytes are noticed.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    /// The stream, noticed by `activity`.
    pub(super) fn new(stream: S, activity: &Arc<Activity>) -> Self {
        Self { stream, activity: activity.clone() }
    }

    fn noticed(&self) {
        self.activity.touch();
    }

    /// The stream alone.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.activity.touch();
        }
        Poll::Ready(read)
    }
}

write_through!(Watched, Self::noticed);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn every_byte_either_way_puts_the_end_off() {
        let (near, mut far) = tokio::io::duplex(64);
        let activity = Activity::new();
        let mut near = Watched::new(near, &activity);
        let start = Instant::now();
        let talk = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            far.write_all(b"a").await.expect("write");
            near.read_u8().await.expect("read");
            tokio::time::sleep(Duration::from_secs(3)).await;
            near.write_all(b"b").await.expect("write");
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = talk => {}
            () = activity.idle(Duration::from_secs(5)) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 11, "five seconds after the last byte");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_moves_nothing_is_no_sign_of_life() {
        let (near, far) = tokio::io::duplex(1);
        let activity = Activity::new();
        let mut near = Watched::new(near, &activity);
        let start = Instant::now();
        near.write_all(b"x").await.expect("the only place");
        let talk = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            // The pipe is full, then broken, and what is empty moves nothing.
            let full = near.write_all(b"y");
            assert!(tokio::time::timeout(Duration::from_secs(1), full).await.is_err());
            drop(far);
            assert!(near.write_all(b"y").await.is_err());
            assert!(near.write_vectored(&[io::IoSlice::new(b"y")]).await.is_err());
            assert!(matches!(near.write(b"").await, Ok(0) | Err(_)));
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = talk => {}
            () = activity.idle(Duration::from_secs(5)) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 5, "five seconds after the only byte");
    }
}
