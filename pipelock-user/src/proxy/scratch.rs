//! One buffer for all that a thread reads. Used by `pump` and `ws::relay`: connections that say nothing, which are most, hold no
//! memory. It promises that nobody reads what another one has written there.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes read at a time.
pub(super) const CHUNK: usize = 32 * 1024;

thread_local! {
    /// Empty until it is first needed, and while it is in use: whoever else needs one meanwhile has one of its own.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Reads once, and gives what was read, nothing at the end, to `then`, while nobody else has its turn.
pub(super) fn poll<T>(
    from: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    then: impl FnOnce(&[u8], &mut Context<'_>) -> T,
) -> Poll<io::Result<T>> {
    let mut scratch = SCRATCH.take();
    scratch.resize(CHUNK, 0);
    let mut chunk = ReadBuf::new(&mut scratch);
    let read = Pin::new(from).poll_read(cx, &mut chunk).map_ok(|()| then(chunk.filled(), cx));
    SCRATCH.set(scratch);
    read
}

/// Reads once, to the end of `to`; false at the end.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin), to: &mut BytesMut) -> io::Result<bool> {
    let note = |bytes: &[u8], to: &mut BytesMut| {
        to.extend_from_slice(bytes);
        !bytes.is_empty()
    };
    poll_fn(|cx| poll(from, cx, |bytes, _| note(bytes, to))).await
}
