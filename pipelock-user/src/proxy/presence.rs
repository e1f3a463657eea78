//! Whether a client is still there while something is done for it that nobody wants any more once it is not: a question that
//! somebody is asked, a fetch.
//!
//! A connection is looked at by whoever owns it (`http::converse`, `listen`), and only while somebody waits to hear of its end; what
//! arrives meanwhile is kept, within bounds. A client that ends its sending side counts as gone: one that has closed its connection looks
//! the same until it is answered. One that has sent more than is kept is not seen leaving before that was read.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

use crate::flow::{Reason, Verdict};

/// Bytes that are kept of what a client sends meanwhile.
pub(super) const MOST_KEPT: usize = 16 * 1024;

/// Whether the client of a connection is still there.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// How many wait to hear that it is not.
    waiting: watch::Sender<usize>,
    is_gone: watch::Sender<bool>,
}

impl Presence {
    /// Waits until the client has gone.
    pub(super) async fn gone(&self) -> Verdict {
        let mut is_gone = self.is_gone.subscribe();
        self.waiting.send_modify(|count| *count += 1);
        let _waits = Waits(&self.waiting);
        // It ends only with whoever looks.
        if is_gone.wait_for(|is_gone| *is_gone).await.is_err() {
            std::future::pending::<()>().await;
        }
        hung_up()
    }

    /// Looks whether it has, whenever somebody waits for that; never ends. `look` is ready when the client has gone.
    pub(super) async fn look(&self, mut look: impl FnMut(&mut Context<'_>) -> Poll<()>) {
        let mut waiting = self.waiting.subscribe();
        let mut has_gone = false;
        while !has_gone && waiting.wait_for(|count| *count > 0).await.is_ok() {
            tokio::select! {
                () = poll_fn(&mut look) => has_gone = true,
                _ = waiting.wait_for(|count| *count == 0) => {}
            }
        }
        self.is_gone.send_replace(has_gone);
        std::future::pending().await
    }
}

/// One who waits.
struct Waits<'a>(&'a watch::Sender<usize>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Whether the client still wants the answer to one request among others on its connection.
#[derive(Clone, Debug)]
pub(super) struct Wanted(watch::Receiver<()>);

impl Wanted {
    /// As long as the first is kept, the second says that it does.
    pub(super) fn new() -> (watch::Sender<()>, Self) {
        let (kept, wanted) = watch::channel(());
        (kept, Self(wanted))
    }

    /// Waits until it does not.
    pub(super) async fn ended(mut self) -> Verdict {
        while self.0.changed().await.is_ok() {}
        Verdict::let_out(Reason::ClientAborted, "the client took the request back")
    }
}

/// Waits until the client of a connection that nobody reads has gone; what it sends meanwhile is in `early`.
pub(super) async fn gone(stream: &mut (impl AsyncRead + Unpin), early: &mut BytesMut) -> Verdict {
    poll_fn(|cx| poll_gone(stream, early, cx)).await;
    hung_up()
}

/// Takes in what comes until it ends; with [`MOST_KEPT`] bytes it is not looked at any more.
pub(super) fn poll_gone(stream: &mut (impl AsyncRead + Unpin), early: &mut BytesMut, cx: &mut Context<'_>) -> Poll<()> {
    let mut chunk = [MaybeUninit::uninit(); MOST_KEPT];
    loop {
        let room = MOST_KEPT.saturating_sub(early.len());
        let Some(chunk) = chunk.get_mut(..room).filter(|chunk| !chunk.is_empty()) else { return Poll::Pending };
        let mut read = ReadBuf::uninit(chunk);
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut read)) {
            Ok(()) if !read.filled().is_empty() => early.extend_from_slice(read.filled()),
            _ => return Poll::Ready(()),
        }
    }
}

fn hung_up() -> Verdict {
    Verdict::let_out(Reason::ClientAborted, "the client hung up first")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn a_client_is_looked_at_while_somebody_waits_and_loses_nothing() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        let (presence, mut early) = (Presence::default(), BytesMut::new());
        near.write_all(b"early").await.expect("written");
        let verdict = {
            let looking = presence.look(|cx| poll_gone(&mut far, &mut early, cx));
            let gone = presence.gone();
            tokio::pin!(looking, gone);
            // Nobody has asked yet.
            tokio::select! { biased; () = &mut looking => {}, () = tokio::task::yield_now() => {} }
            for _ in 0..3 {
                tokio::select! {
                    biased;
                    _ = &mut gone => panic!("it is still there"),
                    () = &mut looking => {}
                    () = tokio::task::yield_now() => {}
                }
            }
            drop(near);
            tokio::select! { verdict = gone => verdict, () = looking => panic!("never ends") }
        };
        assert_eq!(verdict.reason, Reason::ClientAborted);
        assert_eq!(&early[..], b"early");
    }

    #[tokio::test]
    async fn no_more_is_kept_than_there_is_room_for() {
        let (mut near, mut far) = tokio::io::duplex(64 * 1024);
        near.write_all(&[0; MOST_KEPT + 1]).await.expect("written");
        drop(near);
        let mut early = BytesMut::new();
        let looked = poll_fn(|cx| Poll::Ready(poll_gone(&mut far, &mut early, cx))).await;
        assert!(looked.is_pending() && early.len() == MOST_KEPT);
        early.clear();
        assert!(gone(&mut far, &mut early).await.detail.contains("hung up"));
        assert_eq!(early.len(), 1);
    }

    #[tokio::test]
    async fn a_request_is_wanted_as_long_as_that_is_kept() {
        let (kept, wanted) = Wanted::new();
        let ended = wanted.clone().ended();
        tokio::pin!(ended);
        tokio::select! { biased; _ = &mut ended => panic!("it is wanted"), () = tokio::task::yield_now() => {} }
        drop(kept);
        assert_eq!(ended.await.reason, Reason::ClientAborted);
    }
}
