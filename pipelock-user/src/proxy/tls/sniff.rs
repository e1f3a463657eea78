//! Reads the ClientHello without answering it. Called by `listen` and `http::explicit`; promises to reassemble hellos that are split over any
//! number of records and segments, up to 64 KiB, and that a hello it cannot read is an error and never "no name".

use std::io;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

use super::extensions::{HIDE_NAMES, has_any};
use crate::flow::{Host, Reason, Verdict};

/// The largest hello that is read: post-quantum key shares need about 2 KiB, four of them and long extensions fit.
const MAX_HELLO: usize = 64 * 1024;

/// What the ClientHello says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// The server name (RFC 6066 §3), if it carries one.
    pub name: Option<Host>,
    /// Whether another name may be hidden in it (Encrypted ClientHello, and the encrypted SNI before it).
    pub may_hide_name: bool,
}

impl Hello {
    /// Refuses one that does not say whom it is for, or may say so in secret, on connections to this host that nobody reads: behind
    /// one address there may be others. An address is nothing that a hello could name (RFC 6066 §3).
    ///
    /// # Errors
    /// [`Reason::EchDenied`], [`Reason::NameMissing`].
    pub(crate) fn shows_all(&self, host: &Host) -> Result<(), Verdict> {
        if self.may_hide_name {
            let detail = "the hello carries encrypted_client_hello or encrypted_server_name, which may be random (GREASE) or hide another name";
            return Err(Verdict::block(Reason::EchDenied, detail));
        }
        if self.name.is_none() && matches!(host, Host::Name(_)) {
            let detail = format!("the TLS hello names no server, and TLS to {host} is passed unread by the name in it");
            return Err(Verdict::block(Reason::NameMissing, detail));
        }
        Ok(())
    }
}

/// Why the hello is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SniffError {
    /// Not TLS, or not a ClientHello.
    #[error("the TLS hello cannot be read: {0}")]
    Malformed(String),
    /// The client closed first, or sent over 64 KiB.
    #[error("the TLS hello did not arrive whole: {0}")]
    Io(#[from] io::Error),
    /// The client was too slow.
    #[error("the TLS hello did not arrive in time")]
    Timeout,
}

impl SniffError {
    /// The refusal of a connection whose hello is not known.
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Timeout => Verdict::block(Reason::DetectTimeout, "the TLS hello did not arrive"),
            Self::Malformed(_) | Self::Io(_) => Verdict::block(Reason::RequestMalformed, self.to_string()),
        }
    }
}

/// Reads a hello as its bytes come.
#[derive(Default)]
pub(crate) struct Sniffer {
    acceptor: Acceptor,
    fed: usize,
}

impl Sniffer {
    /// The hello, once `buffer` holds all of it; each call gets what the one before got, and more.
    ///
    /// # Errors
    /// [`SniffError`]: it is none, or over 64 KiB.
    pub(crate) fn look(&mut self, buffer: &[u8]) -> Result<Option<Hello>, SniffError> {
        while let Some(mut rest) = buffer.get(self.fed..).filter(|rest| !rest.is_empty()) {
            let taken = self.acceptor.read_tls(&mut rest)?;
            if taken == 0 {
                break;
            }
            self.fed += taken;
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return hello(accepted.client_hello().server_name(), buffer).map(Some),
                Err((error, _)) => return Err(SniffError::Malformed(error.to_string())),
            }
        }
        if buffer.len() >= MAX_HELLO {
            return Err(io::Error::other("too many bytes before the protocol was settled").into());
        }
        Ok(None)
    }
}

/// Reads until the ClientHello is whole; all bytes read stay in `buffer`.
pub(crate) async fn sniff(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    due: Instant,
) -> Result<Hello, SniffError> {
    let read = async {
        let mut sniffer = Sniffer::default();
        loop {
            if let Some(hello) = sniffer.look(buffer)? {
                return Ok(hello);
            }
            if stream.read_buf(buffer).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    };
    tokio::time::timeout_at(due, read).await.unwrap_or(Err(SniffError::Timeout))
}

fn hello(name: Option<&str>, records: &[u8]) -> Result<Hello, SniffError> {
    let name = name.map(Host::parse).transpose().map_err(|error| SniffError::Malformed(error.to_string()))?;
    let may_hide_name =
        has_any(records, HIDE_NAMES).ok_or_else(|| SniffError::Malformed("its extensions cannot be read".into()))?;
    Ok(Hello { name, may_hide_name })
}

/// A fatal `access_denied` alert (RFC 8446 §6.2) as the server's first record, which clients report in words.
#[must_use]
pub(crate) const fn alert_access_denied() -> [u8; 7] {
    [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 49]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    /// A minimal TLS 1.2 ClientHello, split into records of `record` bytes.
    fn client_hello(name: Option<&str>, record: usize) -> Vec<u8> {
        hello_with(name, &[], record)
    }

    fn hello_with(name: Option<&str>, more: &[u8], record: usize) -> Vec<u8> {
        let mut extensions = Vec::new();
        if let Some(name) = name {
            let entry = [&[0][..], &u16::try_from(name.len()).expect("short").to_be_bytes(), name.as_bytes()].concat();
            let list = [&u16::try_from(entry.len()).expect("short").to_be_bytes()[..], &entry].concat();
            extensions.extend([0, 0]);
            extensions.extend(u16::try_from(list.len()).expect("short").to_be_bytes());
            extensions.extend(list);
        }
        // signature_algorithms, which rustls insists on
        extensions.extend([0, 13, 0, 4, 0, 2, 4, 3]);
        extensions.extend(more);
        let mut body = vec![3, 3];
        body.extend([9; 32]);
        body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
        body.extend(u16::try_from(extensions.len()).expect("short").to_be_bytes());
        body.extend(extensions);
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        let message = [&[1][..], &length[1..], &body].concat();
        message
            .chunks(record)
            .flat_map(|part| {
                let head = u16::try_from(part.len()).expect("short").to_be_bytes();
                [&[0x16, 3, 1][..], &head, part].concat()
            })
            .collect()
    }

    async fn sniffed(bytes: &[u8], step: usize) -> Result<Hello, SniffError> {
        let (mut near, mut far) = tokio::io::duplex(1 << 17);
        for part in bytes.chunks(step.max(1)) {
            far.write_all(part).await.expect("write");
        }
        drop(far);
        sniff(&mut near, &mut BytesMut::new(), Instant::now() + std::time::Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn the_name_is_found_however_the_hello_is_split() {
        for record in [1, 7, 40, 1000] {
            for step in [1, 3, 1000] {
                let hello = sniffed(&client_hello(Some("Api.Example.com"), record), step).await.expect("read");
                assert_eq!(hello.name, Some(Host::parse("api.example.com").expect("a name")), "{record}/{step}");
            }
        }
    }

    #[tokio::test]
    async fn no_name_is_not_an_error_and_a_cut_hello_is() {
        let hello = sniffed(&client_hello(None, 1000), 1000).await.expect("read");
        assert_eq!(hello, Hello { name: None, may_hide_name: false });
        let hello = client_hello(Some("a.example"), 1000);
        assert!(matches!(sniffed(&hello[..hello.len() - 1], 1000).await, Err(SniffError::Io(_))));
    }

    #[tokio::test]
    async fn an_encrypted_hello_is_noticed_however_the_hello_is_split() {
        // The outer form with next to nothing in it; GREASE and real ones differ in random bytes only.
        let ech = [0xfe, 0x0d, 0, 11, 0, 0, 1, 0, 1, 7, 0, 0, 0, 1, 9];
        for record in [1, 7, 1000] {
            let hello = sniffed(&hello_with(Some("a.example"), &ech, record), 3).await.expect("read");
            assert!(hello.may_hide_name && hello.name.is_some(), "{record}");
            let hello = sniffed(&hello_with(Some("a.example"), &[0xfe, 0x0e, 0, 0], record), 3).await.expect("read");
            assert!(!hello.may_hide_name, "{record}");
            // The encrypted SNI of before, and what was tried between the two.
            for early in [[0xff, 0xce], [0xff, 0x02], [0xfe, 0x08], [0xfe, 0x0a]] {
                let hello =
                    sniffed(&hello_with(None, &[&early[..], &[0, 1, 7]].concat(), record), 3).await.expect("read");
                assert!(hello.may_hide_name && hello.name.is_none(), "{record} {early:x?}");
            }
        }
    }

    #[test]
    fn who_does_not_say_whom_it_is_for_is_not_passed_to_a_name() {
        let name = || Host::parse("a.example").expect("a name");
        let address = Host::parse("192.0.2.1").expect("an address");
        let reason = |name: Option<Host>, may_hide_name: bool, host: &Host| {
            Hello { name, may_hide_name }.shows_all(host).map_err(|verdict| verdict.reason)
        };
        assert_eq!(reason(Some(name()), false, &name()), Ok(()));
        assert_eq!(reason(None, false, &address), Ok(()));
        assert_eq!(reason(None, false, &name()), Err(Reason::NameMissing));
        assert_eq!(reason(None, true, &address), Err(Reason::EchDenied));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let bytes = [&[0x16, 3, 1][..], &bytes].concat();
            let _ = runtime.block_on(sniffed(&bytes, 1 << 12));
        }
    }
}
