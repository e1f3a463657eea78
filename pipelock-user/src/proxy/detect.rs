//! Tells a protocol by its first bytes. Called by `listen` and `http`; promises that what it cannot tell is `Unknown`, which
//! blocks.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

use super::counts::{COUNTS, Spoken};
use crate::flow::{Reason, Verdict};

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// A TLS handshake record (RFC 8446 §5.1).
    Tls,
    /// An HTTP/1 request line (RFC 9112 §3).
    Http1,
    /// The HTTP/2 connection preface (RFC 9113 §3.4).
    Http2,
    /// Something else.
    Unknown,
}

/// Why the protocol is not known.
#[derive(Debug)]
pub(super) enum DetectError {
    /// The client said too little in time.
    Timeout,
    /// The client closed or broke the connection first.
    Closed,
}

impl DetectError {
    /// The verdict on a connection whose protocol nobody knows.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Timeout => Verdict::block(Reason::DetectTimeout, "the client said nothing"),
            Self::Closed => Verdict::block(Reason::ClientAborted, "the client hung up"),
        }
    }
}

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method, also for `http::framing`; the longest registered with IANA, UPDATEREDIRECTREF, has 17 letters.
pub(super) const MAX_METHOD: usize = 32;

/// Reads until the protocol is known, or its time is over; the bytes read stay in `buffer` for whoever speaks it.
pub(super) async fn detect(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    due: Instant,
) -> Result<Protocol, DetectError> {
    let read = async {
        loop {
            if let Some(protocol) = classify(buffer) {
                return Ok(protocol);
            }
            match stream.read_buf(buffer).await {
                Ok(0) | Err(_) => return Err(DetectError::Closed),
                Ok(_) => {}
            }
        }
    };
    let detected = tokio::time::timeout_at(due, read).await.unwrap_or(Err(DetectError::Timeout));
    COUNTS.detected.add(Spoken::of(&detected));
    detected
}

/// Whether a stream that begins like this speaks TLS; none while it could.
fn begins_tls(start: &[u8]) -> Option<bool> {
    match start {
        [] | [0x16] => None,
        // handshake, major version 3
        [0x16, 0x03, ..] => Some(true),
        _ => Some(false),
    }
}

/// Whether a stream that begins like this speaks SSH (RFC 4253 §4.2), for which only rules that name it are.
fn begins_ssh(start: &[u8]) -> bool {
    start.starts_with(b"SSH-")
}

/// The verdict on a stream that begins like this and is [`Protocol::Unknown`].
pub(super) fn unknown(start: &[u8]) -> Verdict {
    let detail = match begins_ssh(start) {
        true => "the client speaks SSH, and no rule with protocol: ssh names the destination",
        false => "the first bytes are neither HTTP nor TLS",
    };
    Verdict::block(Reason::ProtocolUnknown, detail)
}

/// The protocol of a stream that begins like this; none while it could still be more than one.
fn classify(start: &[u8]) -> Option<Protocol> {
    // RFC 9112 §2.2: an empty line before a request is to be ignored, which `framing` does.
    if start == b"\r" {
        return None;
    }
    if let Some(request) = start.strip_prefix(b"\r\n") {
        return match request {
            [] => None,
            request if is_request(request)? => Some(Protocol::Http1),
            _ => Some(Protocol::Unknown),
        };
    }
    match begins_tls(start) {
        Some(true) => return Some(Protocol::Tls),
        None => return None,
        Some(false) => {}
    }
    match start {
        _ if H2_PREFACE.starts_with(start) => None,
        _ if start.starts_with(H2_PREFACE) => Some(Protocol::Http2),
        // Its version line reads like a method and the beginning of a target.
        _ if begins_ssh(start) => Some(Protocol::Unknown),
        _ if is_request(start)? => Some(Protocol::Http1),
        _ => Some(Protocol::Unknown),
    }
}

/// Whether a stream that begins like this begins with a method; none while it could.
fn is_request(start: &[u8]) -> Option<bool> {
    match start.iter().position(|byte| !is_token(*byte)) {
        Some(end) => Some(end > 0 && end <= MAX_METHOD && start.get(end) == Some(&b' ')),
        None if start.len() <= MAX_METHOD => None,
        None => Some(false),
    }
}

/// A byte of a method (tchar of RFC 9110 §5.6.2, which `framing` takes too).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn protocols_are_told_apart() {
        for (start, protocol) in [
            (b"\x16\x03\x01\x02".as_slice(), Some(Protocol::Tls)),
            (b"\x16", None),
            (b"\x16\x02", Some(Protocol::Unknown)),
            (b"GET / HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"G", None),
            (b"PRI", None),
            (b"\r", None),
            (b"\r\n", None),
            (b"\r\nG", None),
            (b"\r\nGET / HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b"\r\n\r\nGET / HTTP/1.1\r\n", Some(Protocol::Unknown)),
            (b"\r\n\x16\x03\x01", Some(Protocol::Unknown)),
            (b"\rG", Some(Protocol::Unknown)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0", Some(Protocol::Http2)),
            (b"PRIVATE / HTTP/1.1", Some(Protocol::Http1)),
            (b"VERSION-CONTROL / HTTP/1.1", Some(Protocol::Http1)),
            (b"M_2! / HTTP/1.1", Some(Protocol::Http1)),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Some(Protocol::Unknown)),
            (b"SSH-2.0-OpenSSH_9.2 Debian-2\r\n", Some(Protocol::Unknown)),
            (b"SSH / HTTP/1.1\r\n", Some(Protocol::Http1)),
            (b" GET / HTTP/1.1", Some(Protocol::Unknown)),
            (b"\0\0\0\0", Some(Protocol::Unknown)),
            (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456 /", Some(Protocol::Unknown)),
        ] {
            assert_eq!(classify(start), protocol, "{:?}", String::from_utf8_lossy(start));
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_an_answer(bytes: Vec<u8>, more: Vec<u8>) {
            if let Some(protocol) = classify(&bytes) {
                let longer = [bytes, more].concat();
                prop_assert_eq!(classify(&longer), Some(protocol));
            }
        }
    }

    #[tokio::test]
    async fn silence_is_not_a_protocol() {
        let (mut near, _far) = tokio::io::duplex(64);
        let result = detect(&mut near, &mut BytesMut::new(), Instant::now()).await;
        assert!(matches!(result, Err(DetectError::Timeout)));
    }
}
