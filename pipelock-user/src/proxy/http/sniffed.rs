//! The agent's side of a tunnel that nobody reads, until its first bytes have shown whom TLS names.
//!
//! Made by `explicit`. It promises that TLS which names another host than the tunnel was asked for, may hide one, cannot be
//! read, or would go to who shows no certificate for the name goes nowhere, as on the transparent path; and that all else passes as it was sent, whoever speaks first.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;

use crate::flow::{Host, Reason, Verdict};
use crate::proxy::detect::begins_tls;
use crate::proxy::through::write_through;
use crate::proxy::tls::{Hello, Sniffer};

/// Bytes read at a time.
const CHUNK: usize = 4096;

/// The stream.
pub(super) struct Sniffed<S> {
    stream: S,
    /// Read, and not given on.
    held: BytesMut,
    state: State,
}

/// Whether TLS may be passed to the destination, once it is known to be.
pub(super) type Check = Pin<Box<dyn Future<Output = Result<(), Verdict>> + Send>>;

enum State {
    /// Nothing is given on.
    Looking(Box<Looking>),
    /// It is sound TLS, and nothing is given on before the destination is checked.
    Checking(Box<Looking>),
    Passing,
    /// Nothing is read any more. Whoever was told ends the tunnel; an end of the stream would let the other side go on.
    Refused,
}

struct Looking {
    host: Host,
    sniffer: Sniffer,
    check: Check,
    refuse: oneshot::Sender<Verdict>,
}

impl<S> Sniffed<S> {
    /// The stream of a tunnel to this host, whose TLS must pass a check besides, and where it is said why it is refused, if it
    /// is.
    pub(super) fn new(stream: S, host: Host, check: Check) -> (Self, oneshot::Receiver<Verdict>) {
        let (refuse, refused) = oneshot::channel();
        let state = State::Looking(Box::new(Looking { host, sniffer: Sniffer::default(), check, refuse }));
        (Self { stream, held: BytesMut::new(), state }, refused)
    }

    fn refuse(&mut self, verdict: Verdict) {
        self.held.clear();
        if let State::Looking(looking) | State::Checking(looking) = std::mem::replace(&mut self.state, State::Refused) {
            let _ = looking.refuse.send(verdict);
        }
    }
}

impl Looking {
    /// Whether what is held may pass, and is TLS; none while that cannot be told.
    fn look(&mut self, held: &[u8]) -> Option<Result<bool, Verdict>> {
        if !begins_tls(held)? {
            return Some(Ok(false));
        }
        match self.sniffer.look(held) {
            Ok(hello) => hello.map(|hello| names(&hello, &self.host).and_then(|()| hello.shows_all()).map(|()| true)),
            Err(error) => Some(Err(error.verdict())),
        }
    }
}

/// Refuses the hello of another host in a tunnel that was asked for this one.
pub(super) fn names(hello: &Hello, host: &Host) -> Result<(), Verdict> {
    if hello.name.as_ref().is_none_or(|name| name == host) {
        return Ok(());
    }
    let detail = format!("the tunnel was asked for {host}, TLS names another host");
    Err(Verdict::block(Reason::NameMismatch, detail))
}

impl<S: AsyncRead + Unpin> AsyncRead for Sniffed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Passing if this.held.is_empty() => return Pin::new(&mut this.stream).poll_read(cx, buf),
                State::Passing => {
                    let take = this.held.len().min(buf.remaining());
                    buf.put_slice(this.held.get(..take).unwrap_or_default());
                    this.held.advance(take);
                    return Poll::Ready(Ok(()));
                }
                State::Refused => return Poll::Pending,
                State::Checking(looking) => match ready!(looking.check.as_mut().poll(cx)) {
                    Ok(()) => this.state = State::Passing,
                    Err(verdict) => this.refuse(verdict),
                },
                State::Looking(looking) => match looking.look(&this.held) {
                    Some(Ok(false)) => this.state = State::Passing,
                    Some(Ok(true)) => {
                        if let State::Looking(looking) = std::mem::replace(&mut this.state, State::Refused) {
                            this.state = State::Checking(looking);
                        }
                    }
                    Some(Err(verdict)) => this.refuse(verdict),
                    None => {
                        let mut chunk = [MaybeUninit::uninit(); CHUNK];
                        let mut read = ReadBuf::uninit(&mut chunk);
                        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
                        match (read.filled(), this.held.is_empty()) {
                            ([], true) => this.state = State::Passing,
                            ([], false) => {
                                let detail = "the TLS hello did not arrive whole";
                                this.refuse(Verdict::block(Reason::RequestMalformed, detail));
                            }
                            (more, _) => this.held.extend_from_slice(more),
                        }
                    }
                },
            }
        }
    }
}

write_through!(Sniffed);

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::proxy::tls::provider;

    fn host() -> Host {
        Host::parse("a.test").expect("a name")
    }

    /// The first bytes of a client of this host.
    pub(in crate::proxy::http) fn hello(name: &str) -> Vec<u8> {
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("written");
        bytes
    }

    /// What arrives in pieces of so many bytes.
    fn sent(bytes: &[u8], step: usize) -> (Sniffed<DuplexStream>, oneshot::Receiver<Verdict>) {
        let (near, mut far) = tokio::io::duplex(step);
        let bytes = bytes.to_vec();
        tokio::spawn(async move { far.write_all(&bytes).await });
        Sniffed::new(near, host(), Box::pin(async { Ok(()) }))
    }

    #[tokio::test]
    async fn what_may_pass_arrives_whole_and_what_cannot_be_tls_at_once() {
        let hello = hello("a.test");
        for bytes in [&hello[..], b"GET", b"\x16\x04", b"\0"] {
            for step in [1, 7, 1000] {
                let (mut sniffed, _refused) = sent(bytes, step);
                let mut got = vec![0; bytes.len()];
                sniffed.read_exact(&mut got).await.expect("passed");
                assert_eq!(got, bytes);
            }
        }
    }

    #[tokio::test]
    async fn nothing_passes_of_what_is_refused() {
        let (other, own) = (hello("b.test"), hello("a.test"));
        let cut = own.get(..own.len() - 1).expect("long");
        let bad = [&own[..5], &[7; 600]].concat();
        for (bytes, reason) in
            [(&other[..], Reason::NameMismatch), (cut, Reason::RequestMalformed), (&bad[..], Reason::RequestMalformed)]
        {
            let (mut sniffed, refused) = sent(bytes, 3);
            let mut got = [0; 1];
            tokio::select! {
                read = sniffed.read(&mut got) => panic!("{read:?}"),
                verdict = refused => assert_eq!(verdict.expect("told").reason, reason),
            }
        }
    }

    #[tokio::test]
    async fn tls_waits_for_its_check_and_nothing_else_does() {
        let denied = || Verdict::block(Reason::CertificateInvalid, "");
        for (bytes, is_checked) in [(hello("a.test"), true), (b"GET /".to_vec(), false)] {
            let (near, mut far) = tokio::io::duplex(1 << 16);
            far.write_all(&bytes).await.expect("write");
            let (mut sniffed, refused) = Sniffed::new(near, host(), Box::pin(async move { Err(denied()) }));
            let mut got = vec![0; bytes.len()];
            tokio::select! {
                read = sniffed.read_exact(&mut got) => assert!(!is_checked && read.is_ok() && got == bytes),
                Ok(verdict) = refused => assert!(is_checked && verdict == denied()),
            }
        }
    }
}
