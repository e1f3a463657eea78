//! What the fuzz targets call: each takes hostile bytes, and panics when something does not hold that is promised of them.
//!
//! Compiled for `cargo xtask fuzz` (`--cfg fuzzing`), and for a test that tries each with a few inputs, so that they go on
//! being right while nobody fuzzes.

#![allow(missing_docs, clippy::expect_used, clippy::panic, reason = "a fuzz target reports by panicking")]

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hickory_proto::op::Message;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::Runtime;

use super::dns::{Mode, NameRules, Outcome, Pool, answer};
use super::git::push::{Commands, MAX_BYTES, MAX_COMMANDS};
use super::http::through;
use super::ssh::handshake::{Handshake, MAX_BYTES as MAX_HANDSHAKE, Refused, Who, packet};
use super::tls::sniff;
use super::ws::frame;
use crate::inspect::{Encoded, Inspection, Reader, Scanners, Side, Terms};
use crate::policy::Policy;

/// A text in pieces of these sizes, then the rest.
fn cut<'a>(bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for size in cuts {
        let (piece, more) = rest.split_at(usize::from(*size).min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    pieces
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"))
}

/// Gives one piece a read.
struct Pieces<'a>(std::collections::VecDeque<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        while let Some(piece) = self.0.pop_front() {
            let (now, later) = piece.split_at(piece.len().min(room.remaining()));
            if !later.is_empty() {
                self.0.push_front(later);
            }
            if !now.is_empty() {
                room.put_slice(now);
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// A ClientHello: it says the same however it is cut.
pub fn hello(bytes: &[u8], cuts: &[u8]) {
    let read = |pieces: Vec<&[u8]>| {
        let due = tokio::time::Instant::now() + Duration::from_secs(60);
        runtime().block_on(async { sniff(&mut Pieces(pieces.into()), &mut BytesMut::new(), due).await.ok() })
    };
    let _inside = runtime().enter();
    assert_eq!(read(vec![bytes]), read(cut(bytes, cuts)));
}

struct Rules(Mode);

impl NameRules for Rules {
    fn allowed(&self, name: &str) -> bool {
        name.ends_with("allowed.test")
    }
    fn mode(&self) -> Mode {
        self.0
    }
}

/// A DNS message: whatever is answered is a response to it that can be read, and fits where every client has room.
pub fn dns(query: &[u8]) {
    let pool = Pool::with_prefix(7, 100);
    for mode in [Mode::Synthetic, Mode::Real] {
        let answered = match answer(query, &Rules(mode), &pool) {
            Outcome::Done(answered) | Outcome::NotYet(answered) => answered,
            Outcome::NeedsLookup(pending) => {
                assert!(pending.name().ends_with("allowed.test"));
                let found: Vec<IpAddr> = (0..20_u8).map(|last| IpAddr::from([192, 0, 2, last])).collect();
                pending.finish(Ok(&found))
            }
        };
        let Some(reply) = answered.reply else { continue };
        assert!(
            reply.len() <= 512 && reply.get(..2) == query.get(..2) && reply.get(2).is_some_and(|byte| byte & 0x80 != 0)
        );
        Message::from_vec(&reply).expect("a message");
    }
}

/// Requests of HTTP/1.1: what passes, and what is refused, does not depend on the cut.
pub fn http(bytes: &[u8], cuts: &[u8]) {
    let whole = through([bytes], 4096);
    let pieces = through(cut(bytes, cuts), 4096);
    assert_eq!((whole.1, whole.2), (pieces.1, pieces.2));
    if whole.1.is_none() {
        assert_eq!(whole.0, pieces.0);
    } else {
        // What came before the refusal may have gone on with the piece before, or not at all.
        assert!(whole.0.starts_with(&pieces.0) || pieces.0.starts_with(&whole.0));
    }
}

/// WebSocket frames: the cut changes nothing, and every frame is handed on in the bytes it came in, but for its mask.
pub fn websocket(bytes: &[u8], cuts: &[u8]) {
    for from_agent in [false, true] {
        let read = |pieces: &[&[u8]]| {
            let (mut input, mut frames) = (BytesMut::new(), Vec::new());
            for piece in pieces {
                input.extend_from_slice(piece);
                loop {
                    match frame::next(&mut input, from_agent, 1 << 16) {
                        Ok(Some(frame)) => frames.push(frame),
                        Ok(None) => break,
                        Err(refused) => return (frames, Some(refused)),
                    }
                }
            }
            (frames, None)
        };
        let (whole, refused) = read(&[bytes]);
        let said = |(frames, refused): &(Vec<frame::Frame>, Option<frame::Refused>)| {
            let parts = frames.iter().map(|frame| (frame.is_last, frame.opcode, frame.payload.clone()));
            (parts.collect::<Vec<_>>(), *refused)
        };
        let raw: Vec<u8> = whole.iter().flat_map(|frame| frame.raw.to_vec()).collect();
        let whole = (whole, refused);
        assert_eq!(said(&whole), said(&read(&cut(bytes, cuts))));
        if from_agent {
            // The masks are others, what they hide is the same.
            assert!(raw.len() <= bytes.len());
            assert_eq!(said(&read(&[&raw])).0, said(&whole).0);
        } else {
            assert!(bytes.starts_with(&raw));
        }
    }
}

/// The commands of a push: the cut changes nothing, names are sound, and the limits hold.
pub fn push(bytes: &[u8], cuts: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let (mut commands, mut all) = (Commands::default(), Vec::new());
        for piece in pieces {
            all.extend_from_slice(piece);
            match commands.read(&all) {
                Ok(None) => {}
                Ok(Some(push)) => return Ok(Some((push, commands.end()))),
                Err(refused) => return Err(refused),
            }
        }
        Ok(None)
    };
    let whole = read(&[bytes]);
    assert_eq!(whole, read(&cut(bytes, cuts)));
    if let Ok(Some((push, end))) = whole {
        assert!(end <= bytes.len().min(MAX_BYTES + 4) && bytes[..end].ends_with(b"0000"));
        assert!(push.commands.len() <= MAX_COMMANDS);
        assert!(push.commands.iter().all(|one| one.name.starts_with("refs/") && !one.name.contains(char::is_control)));
    }
}

/// Either side of an SSH handshake: the cut changes nothing, what passes is what was said, and no more than is bounded passes
/// before a pinned key was shown.
pub fn ssh(bytes: &[u8], cuts: &[u8]) {
    // SHA-256 of "key".
    let pins = ["SHA256:LHDhK3oGRvkiefQnx7OOczTY5Tic/xZ6HcMOc/gmtoM".to_owned()];
    let list = [&[20][..], &[0; 16], &17_u32.to_be_bytes(), b"curve25519-sha256"].concat();
    let hello = [b"SSH-2.0-x\r\n", &packet(&list)[..]].concat();
    for (first, then) in [(Who::Agent, Who::Server), (Who::Server, Who::Agent)] {
        let read = |pieces: &[&[u8]]| {
            let mut handshake = Handshake::new(&pins);
            handshake.take(first, &hello).1.expect("a handshake");
            let (mut passed, mut refused) = (Vec::new(), None::<Refused>);
            for piece in pieces {
                let (free, judged) = handshake.take(then, piece);
                passed.extend_from_slice(&free);
                refused = judged.err();
                if refused.is_some() {
                    break;
                }
            }
            (refused, handshake.shown().map(str::to_owned), passed)
        };
        let whole = read(&[bytes]);
        assert_eq!(whole, read(&cut(bytes, cuts)));
        let (refused, shown, passed) = whole;
        assert!(bytes.starts_with(&passed) && (refused.is_none() || shown.is_none()));
        assert!(shown.is_some() || passed.len() <= MAX_HANDSHAKE);
        assert!(shown.is_none_or(|shown| then == Who::Server && shown == pins[0] && passed == bytes));
    }
}

const SECRET: &[u8] = b"ghp_0123456789abcdefghijABCDEFGHIJ012345";

fn reading() -> (Arc<Scanners>, Arc<Terms>) {
    static READING: OnceLock<(Arc<Scanners>, Arc<Terms>)> = OnceLock::new();
    let made = || {
        let scanners = runtime().block_on(Inspection::for_tests().ready(None)).expect("scanners");
        let policy = Policy::parse("version: 1\negress: [{destination: a.example}]\n", "fuzz").expect("a policy");
        (scanners, Terms::of(&policy, &policy.rules()[0]).expect("it scans"))
    };
    READING.get_or_init(made).clone()
}

/// The parts of a form, with a secret in one of them or without: what comes out is the beginning of what went in, all of it
/// when nothing was found, and never the secret.
pub fn multipart(bytes: &[u8], at: u16, cuts: &[u8]) {
    let (before, after) = bytes.split_at(usize::from(at).min(bytes.len()));
    for secret in [&b""[..], SECRET] {
        let body = [
            &b"--b\r\nContent-Disposition: form-data; name=\"a\"; filename=\""[..],
            before,
            secret,
            after,
            b"\r\n--b--\r\n",
        ]
        .concat();
        let (scanners, terms) = reading();
        let mut reader = Reader::new(&scanners, &terms, Side::Request, Encoded::Plain).expect("a reader");
        let mut out = Vec::new();
        let mut all = || {
            for piece in cut(&body, cuts) {
                reader.push(Bytes::copy_from_slice(piece))?;
                while let Some(bytes) = reader.take() {
                    out.extend_from_slice(&bytes);
                }
            }
            reader.finish()?;
            while let Some(bytes) = reader.take() {
                out.extend_from_slice(&bytes);
            }
            Ok::<(), crate::flow::Verdict>(())
        };
        let result = all();
        assert!(body.starts_with(&out));
        assert!(result.is_err() || (secret.is_empty() && out == body));
        assert!(!out.windows(SECRET.len()).any(|window| window == SECRET));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A first command.
    const PUSH: &[u8] = b"0074aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa refs/heads/main\0 report-status";

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn what_the_targets_assert_holds(bytes in vec(any::<u8>(), 0..300), cuts in vec(any::<u8>(), 0..6), at: u16) {
            hello(&bytes, &cuts);
            hello(&[&[0x16, 3, 1][..], &bytes].concat(), &cuts);
            dns(&bytes);
            // A question for a name that is allowed, and whatever follows.
            let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x07allowed\x04test\0\0\x01\0\x01";
            dns(&[&question[..], &bytes].concat());
            dns(question);
            http(&bytes, &cuts);
            http(&[b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes[..]].concat(), &cuts);
            websocket(&bytes, &cuts);
            websocket(&[&[0x81, 3][..], &bytes].concat(), &cuts);
            multipart(&bytes, at % 300, &cuts);
            push(&bytes, &cuts);
            push(&[PUSH, &bytes[..]].concat(), &cuts);
            ssh(&bytes, &cuts);
            ssh(&[b"SSH-2.0-y\n", &packet(&bytes)[..], &bytes].concat(), &cuts);
        }
    }
}
