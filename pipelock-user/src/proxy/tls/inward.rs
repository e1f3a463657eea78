//! TLS to the agent: it asked for a host, and meets us with a certificate for that host.
//!
//! Called by `intercept`. It promises an end to every handshake, and a verdict for one that failed which says whether the
//! client did not trust the certificate.

use std::io;

use rustls::AlertDescription;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Interception;
use crate::flow::{Host, Reason, Verdict};
use crate::proxy::counts::{Handshake, Peer};
use crate::telemetry::plain_host;

/// What the client and we have agreed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Agreed {
    Http1,
    Http2,
    /// It did not say; its first bytes will.
    Nothing,
}

/// Greets the client as this host, which it asked for on this port; the handshake has to be done when it is due.
///
/// # Errors
/// The verdict: [`Reason::ClientPinned`] when it refuses the certificate, [`Reason::TlsFailed`] for all else.
pub(in crate::proxy) async fn greet<S>(
    tls: &Interception,
    stream: S,
    (host, port): (&Host, u16),
    due: Instant,
) -> Result<(TlsStream<S>, Agreed), Verdict>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = tls.leaves.serve_as(host).map_err(|error| {
        tracing::error!(host = plain_host(&host.to_string()), %error, "no certificate could be made");
        Verdict::block(Reason::Internal, error.to_string())
    })?;
    let handshake = Handshake::begin(Peer::Agent);
    let stream = match tokio::time::timeout_at(due, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(refused(host, port, &error)),
        Err(_) => return Err(Verdict::block(Reason::DetectTimeout, "the TLS handshake did not end in time")),
    };
    handshake.done();
    let agreed = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Agreed::Http2,
        Some(_) => Agreed::Http1,
        None => Agreed::Nothing,
    };
    Ok((stream, agreed))
}

fn refused(host: &Host, port: u16, error: &io::Error) -> Verdict {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) if is_distrust(*alert) => {
            // Rules are for these two when they name none.
            let ports = if matches!(port, 80 | 443) { String::new() } else { format!("ports: [{port}], ") };
            let detail = format!(
                "the client refused pipelock's certificate for {host} ({}): it pins the server's, or does not read the trust \
                 that it was given. To pass it unread, add: - {{destination: \"{host}\", {ports}protocol: tls, scan: false}}",
                alert.as_str().unwrap_or("an alert")
            );
            Verdict::block(Reason::ClientPinned, detail)
        }
        Some(rustls::Error::NoApplicationProtocol) => {
            Verdict::block(Reason::ProtocolUnknown, "the client offers neither h2 nor http/1.1 inside TLS")
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            Verdict::block(Reason::ClientAborted, "the client hung up during the TLS handshake")
        }
        _ => Verdict::block(Reason::TlsFailed, format!("the TLS handshake with the client failed: {error}")),
    }
}

/// Alerts of clients that do not trust a certificate (RFC 8446 §6.2). `unknown_ca` comes from OpenSSL, Python, Node.js and
/// curl, `bad_certificate` from Go and NSS, `certificate_unknown` from Java and Chromium; OpenSSL's callers may turn a pin
/// that does not fit into `handshake_failure`, which says too little to be told apart.
fn is_distrust(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::BadCertificateStatusResponse
    )
}
