//! A body on its way: unread where nobody wants it read, else through the scanner, piece by piece or whole.
//!
//! Made by `reading`; sent by `upstream` and released by `serve`. It promises that nothing of a piece goes on before the
//! scanner has let it, that no more is read than goes on and is held back, and that trailers come last and are read too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::afterword::Afterword;
use crate::flow::Verdict;
use crate::inspect::{Reader, Scanners, Side, Terms};

/// Why a body ended before its end.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long a sender may pause before what is held back of it is judged by itself.
const PAUSE: Duration = Duration::from_millis(50);

/// A body.
pub(super) enum Passing {
    /// As it comes.
    Unread(Incoming),
    /// Read to its end before any of it went on.
    Whole(Option<Bytes>, Option<HeaderMap>),
    /// Read as it goes.
    Read(Box<Read>),
}

/// A body that is read as it goes.
pub(super) struct Read {
    body: Incoming,
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
        body: Incoming,
        reader: Reader,
        (scanners, terms): (&Arc<Scanners>, &Arc<Terms>),
        side: Side,
        afterword: &Arc<Afterword>,
        is_redacted: bool,
    ) -> Self {
        Self {
            body,
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
            let step = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.pause = None;
                    match frame.into_data() {
                        Ok(bytes) => self.reader.push(bytes),
                        Err(frame) => frame.into_trailers().map_or(Ok(()), |trailers| self.end(Some(trailers))),
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Ready(None) => self.end(None),
                Poll::Pending if self.reader.holds() => {
                    let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(PAUSE)));
                    match pause.as_mut().poll(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(()) => {
                            // If it cannot be judged by itself, it waits; without a busy loop.
                            pause.as_mut().reset(Instant::now() + PAUSE);
                            let settled = self.reader.settle();
                            if settled.is_ok() && self.reader.holds() {
                                let _ = pause.as_mut().poll(cx);
                                return Poll::Pending;
                            }
                            settled
                        }
                    }
                }
                Poll::Pending => return Poll::Pending,
            };
            if let Err(verdict) = step {
                self.cut(verdict);
            }
        }
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
        verdict.detail = format!("{}; the {} was cut after {passed} bytes", verdict.detail, self.part);
        self.afterword.cut(verdict, self.part);
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Unread(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
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
                Some(left) if !read.is_redacted => SizeHint::with_exact(left + read.reader.waiting()),
                _ => SizeHint::default(),
            },
        }
    }
}
