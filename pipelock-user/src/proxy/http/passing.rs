//! A body on its way: unread where nobody wants it read, else through the scanner, piece by piece or whole.
//!
//! Made by `reading`; sent by `upstream` and released by `serve`. It promises that nothing of a piece goes on before the
//! scanner has let it, that no more is read than goes on and is held back, and that trailers come last and are read too.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::afterword::Afterword;
use super::arriving::Arriving;
use crate::flow::Verdict;
use crate::inspect::{Reader, Scanners, Side, Terms};

/// Why a body ended before its end.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long a sender may pause before what is held back of it is judged by itself.
const PAUSE: Duration = Duration::from_millis(50);
/// How much of an answer is read before its head goes on, so that one that is stopped there is a denial, and no answer that
/// breaks off; …
const AHEAD: u64 = 64 * 1024;
/// … how long its first bytes may take, which includes the judgement at a pause; …
const FIRST: Duration = Duration::from_millis(70);
/// … and how long what comes next, once there is something that may go on.
const NEXT: Duration = Duration::from_millis(10);

/// How much of what is there already is read at once: each time costs the scanner as much as two kilobytes more.
const TOGETHER: usize = 64 * 1024;

/// A body.
pub(super) enum Passing {
    /// As it comes.
    Unread(Arriving),
    /// Read to its end before any of it went on.
    Whole(Option<Bytes>, Option<HeaderMap>),
    /// Read as it goes.
    Read(Box<Read>),
}

/// Why reading did not go on.
pub(super) enum Broken {
    /// The scanner stopped it.
    Stopped(Verdict),
    /// The sender did not go on.
    Failed(Failure),
}

/// What comes next of a body; `None` is its end.
type Next = Option<Result<Frame<Bytes>, Failure>>;

/// A body that is read as it goes.
pub(super) struct Read {
    body: Arriving,
    /// What came behind what was read last, and is not read yet.
    next: Option<Next>,
    /// What of the bytes that were read last goes to the reader later: it may be packed, and others have their turn between.
    rest: Bytes,
    yields: bool,
    reader: Reader,
    scanners: Arc<Scanners>,
    terms: Arc<Terms>,
    side: Side,
    part: &'static str,
    afterword: Arc<Afterword>,
    /// Something may be taken out, so that nobody knows the length.
    is_redacted: bool,
    trailers: Option<HeaderMap>,
    is_over: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Read {
    pub(super) fn new(
        body: Arriving,
        reader: Reader,
        (scanners, terms): (&Arc<Scanners>, &Arc<Terms>),
        side: Side,
        afterword: &Arc<Afterword>,
        is_redacted: bool,
    ) -> Self {
        Self {
            body,
            next: None,
            rest: Bytes::new(),
            yields: false,
            reader,
            scanners: scanners.clone(),
            terms: terms.clone(),
            side,
            part: if side.is_outbound() { "request body" } else { "response body" },
            afterword: afterword.clone(),
            is_redacted,
            trailers: None,
            is_over: false,
            pause: None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        loop {
            if self.afterword.is_cut() {
                return Poll::Ready(Some(Err("pipelock has cut it".into())));
            }
            if let Some(bytes) = self.reader.take() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if self.is_over {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            match ready!(self.poll_step(cx)) {
                Ok(()) => {}
                Err(Broken::Stopped(verdict)) => self.cut(verdict),
                Err(Broken::Failed(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Reads the next frame, or judges what is held back when there is a pause.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if std::mem::take(&mut self.yields) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.rest.is_empty() {
            return Poll::Ready(self.read_step().map_err(Broken::Stopped));
        }
        let next = match self.next.take() {
            Some(next) => Poll::Ready(next),
            None => Pin::new(&mut self.body).poll_frame(cx),
        };
        let step = match next {
            Poll::Ready(Some(Ok(frame))) => {
                self.pause = None;
                match frame.into_data() {
                    Ok(bytes) => {
                        self.rest = self.together(bytes, cx);
                        self.read_step()
                    }
                    Err(frame) => frame.into_trailers().map_or(Ok(()), |trailers| self.end(Some(trailers))),
                }
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Broken::Failed(error))),
            Poll::Ready(None) => self.end(None),
            Poll::Pending if self.reader.holds() => {
                let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(PAUSE)));
                ready!(pause.as_mut().poll(cx));
                // If it cannot be judged by itself, it waits; without a busy loop.
                pause.as_mut().reset(Instant::now() + PAUSE);
                let settled = self.reader.settle();
                if settled.is_ok() && self.reader.holds() {
                    let _ = pause.as_mut().poll(cx);
                    return Poll::Pending;
                }
                settled
            }
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(step.map_err(Broken::Stopped))
    }

    /// Gives the reader as much as it reads at a time.
    fn read_step(&mut self) -> Result<(), Verdict> {
        let step = self.reader.step(&self.rest);
        let piece = self.rest.split_to(step);
        self.yields = !self.rest.is_empty();
        let read = self.reader.push(piece);
        self.afterword.note(self.reader.noted_unread(), self.part);
        read
    }

    /// These bytes with those behind them that are there already. Events are read one by one, so that none waits for another.
    fn together(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        let mut all = BytesMut::new();
        while !self.reader.is_of_events() && all.len().max(first.len()) < TOGETHER {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) if frame.is_data() => {
                    if all.is_empty() {
                        all.reserve(TOGETHER);
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&frame.into_data().unwrap_or_default());
                }
                Poll::Ready(next) => {
                    self.next = Some(next);
                    break;
                }
            }
        }
        if all.is_empty() { first } else { all.freeze() }
    }

    /// Reads on while nothing has gone on yet, as far as it comes without a pause.
    ///
    /// # Errors
    /// [`Broken`]: nothing of it has gone on.
    pub(super) async fn ahead(&mut self) -> Result<(), Broken> {
        let start = Instant::now();
        loop {
            let may_go = self.reader.is_ready();
            if self.is_over || self.reader.waiting() >= AHEAD || may_go && self.reader.is_of_events() {
                return Ok(());
            }
            let due = if may_go { (Instant::now() + NEXT).min(start + FIRST) } else { start + FIRST };
            match tokio::time::timeout_at(due, poll_fn(|cx| self.poll_step(cx))).await {
                Ok(read) => read?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// The trailers, once the end was read.
    pub(super) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Verdict> {
        self.reader.finish()?;
        let mut noted = self.reader.noted();
        if let Some(trailers) = &trailers {
            noted.extend(self.terms.check_headers(&self.scanners, self.side, trailers)?);
        }
        self.afterword.note(noted, self.part);
        self.trailers = trailers;
        self.is_over = true;
        Ok(())
    }

    fn cut(&mut self, mut verdict: Verdict) {
        let passed = self.reader.passed();
        verdict.detail =
            format!("{}; the {} was cut when {passed} bytes had been handed on", verdict.detail, self.part);
        self.afterword.cut(verdict, self.part);
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Unread(body) => Pin::new(body).poll_frame(cx),
            Self::Whole(bytes, trailers) => Poll::Ready(match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
            Self::Read(read) => read.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Unread(body) => body.is_end_stream(),
            Self::Whole(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Self::Read(read) => read.is_over && read.reader.waiting() == 0 && read.trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Unread(body) => body.size_hint(),
            Self::Whole(bytes, _) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Read(read) => match read.body.size_hint().exact() {
                Some(left) if !read.is_redacted => {
                    SizeHint::with_exact(left + read.rest.len() as u64 + read.reader.waiting())
                }
                _ => SizeHint::default(),
            },
        }
    }
}
