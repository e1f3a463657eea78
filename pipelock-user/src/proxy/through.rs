//! Writing through a wrapper whose business is reading. Used by `prefixed`, `idle` and `http::guarded`.

/// Implements `AsyncWrite` for a wrapper around `self.stream`, one call for one call; after each write that moved a byte
/// calls `$then` with the wrapper, if given.
macro_rules! write_through {
    ($wrapper:ident $(, $then:expr)?) => {
        impl<S: tokio::io::AsyncWrite + Unpin> tokio::io::AsyncWrite for $wrapper<S> {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let written = std::task::ready!(std::pin::Pin::new(&mut self.stream).poll_write(cx, buf));
                $(if matches!(written, Ok(1..)) { $then(&*self); })?
                std::task::Poll::Ready(written)
            }

            fn poll_write_vectored(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                let written = std::task::ready!(std::pin::Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
                $(if matches!(written, Ok(1..)) { $then(&*self); })?
                std::task::Poll::Ready(written)
            }

            fn is_write_vectored(&self) -> bool {
                self.stream.is_write_vectored()
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.stream).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.stream).poll_shutdown(cx)
            }
        }
    };
}

pub(in crate::proxy) use write_through;
