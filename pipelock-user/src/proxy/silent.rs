//! Connections that have said nothing yet, or not yet all of their first request's head: where there is no place for another, the
//! oldest of them makes room.
//!
//! Asked by `state` for a place. `accept` signs in each connection, also one that waits for its place; the listeners wait
//! for its first words with [`Silent::first`], `http::guarded` for the end of a head. It promises that whoever opens thousands of
//! connections and says nothing, or never ends, keeps nobody else out: who has spoken and was not listened to yet does not go, however many come before anybody listens.

use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::detect::{DetectError, Protocol, detect};
use crate::flow::locked;

/// All of them, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Silence(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Silence {
    /// Signs a connection in; it is signed out when this is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Silent {
        let (number, told) = self.sign_in();
        Silent { silence: self.clone(), number, told: Some(told) }
    }

    /// A number behind all others, and where its connection is told to go.
    fn sign_in(&self) -> (u64, oneshot::Receiver<()>) {
        let (sender, told) = oneshot::channel();
        let mut waiting = locked(&self.0);
        let number = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(number, sender);
        (number, told)
    }

    /// Tells the oldest to go; false when there is none.
    pub(super) fn dismiss(&self) -> bool {
        let mut waiting = locked(&self.0);
        while let Some((_, oldest)) = waiting.by_age.pop_first() {
            if oldest.send(()).is_ok() {
                return true;
            }
        }
        false
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Silent {
    silence: Arc<Silence>,
    number: u64,
    /// None once it was told.
    told: Option<oneshot::Receiver<()>>,
}

impl Silent {
    /// Waits until it is told to go.
    pub(super) async fn dismissed(&mut self) {
        let Some(told) = &mut self.told else { return std::future::pending().await };
        let is_told = told.await.is_ok();
        self.told = None;
        if !is_told {
            std::future::pending::<()>().await;
        }
    }

    /// Whether a connection that was told to go does. When it has spoken, and was only not listened to yet, the next oldest
    /// is told instead.
    pub(super) fn goes(&self, stream: &TcpStream) -> bool {
        let has_spoken = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]).is_ok_and(|count| count > 0);
        if has_spoken {
            self.silence.dismiss();
        }
        !has_spoken
    }

    /// Ready when it is told to go.
    pub(super) fn poll_dismissed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(told) = &mut self.told else { return Poll::Pending };
        let is_told = ready!(Pin::new(told).poll(cx)).is_ok();
        self.told = None;
        if is_told { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Signs it in anew behind all others: it was told to go, and had just spoken.
    fn stay(&mut self) {
        let (number, told) = self.silence.sign_in();
        (self.number, self.told) = (number, Some(told));
    }

    /// What a connection speaks, as [`detect`] tells it; none when it had to make room before that could be told.
    pub(super) async fn first(
        &mut self,
        stream: &mut TcpStream,
        buffer: &mut BytesMut,
        due: Instant,
    ) -> Option<Result<Protocol, DetectError>> {
        loop {
            tokio::select! {
                biased;
                detected = detect(stream, buffer, due) => return Some(detected),
                () = self.dismissed() => {
                    if self.goes(stream) {
                        return None;
                    }
                    self.stay();
                }
            }
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        locked(&self.silence.0).by_age.remove(&self.number);
        // It has heard nothing of it, and stays or has gone for reasons of its own.
        if self.told.as_mut().is_some_and(|told| told.try_recv().is_ok()) {
            self.silence.dismiss();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_is_still_silent_goes() {
        let silence = Arc::<Silence>::default();
        assert!(!silence.dismiss());
        let (first, mut second, mut third) = (silence.enter(), silence.enter(), silence.enter());
        drop(first);
        assert!(silence.dismiss());
        second.dismissed().await;
        assert!(silence.dismiss());
        third.dismissed().await;
        assert!(!silence.dismiss());
    }

    #[tokio::test]
    async fn who_has_spoken_or_hears_nothing_of_it_has_another_go() {
        let silence = Arc::<Silence>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connect");
        let (stream, _) = listener.accept().await.expect("accept");
        let (mut first, second, mut third) = (silence.enter(), silence.enter(), silence.enter());
        assert!(silence.dismiss());
        first.dismissed().await;
        assert!(first.goes(&stream));
        tokio::io::AsyncWriteExt::write_all(&mut client, b"x").await.expect("write");
        assert!(!first.goes(&stream), "the second is told");
        drop(second);
        third.dismissed().await;
    }
}
