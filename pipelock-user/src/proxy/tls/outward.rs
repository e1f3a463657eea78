//! TLS to the destination: verified, with the certificate of ours that the rule names, and sessions resumed.
//!
//! Called by `http::upstream`. It promises that no destination is believed that the roots do not vouch for by the very
//! name that the policy decided about.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ca::CaError;
use super::pem::{self, PemError};
use super::roots::Roots;
use super::x509;
use crate::flow::{Host, Reason, Verdict};
use crate::net::{Greeting, explain, server_name};
use crate::policy::{KeyPair, Policy};
use crate::proxy::counts::{Handshake, Peer};

/// Sessions that are kept to be resumed.
const SESSIONS: usize = 1024;

/// What the destination may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Offer {
    /// HTTP/1.1 alone: what the agent speaks.
    Http1,
    /// HTTP/2, else HTTP/1.1.
    Http2,
}

/// The same but for what is offered.
struct Configs {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// Connects to destinations.
pub(in crate::proxy) struct Outward {
    plain: Configs,
    /// For rules that name a certificate, by label.
    with_certificate: HashMap<String, Configs>,
}

impl Outward {
    /// By the policy: its roots, its certificates.
    pub(super) fn new(policy: &Policy) -> Result<Self, PemError> {
        let verifier = verifier(policy)?;
        let mut with_certificate = HashMap::new();
        for rule in policy.rules() {
            if let Some(pair) = rule.client_certificate() {
                with_certificate.insert(rule.label(), configs(&verifier, Some(&located(policy, pair)))?);
            }
        }
        Ok(Self { plain: configs(&verifier, None)?, with_certificate })
    }

    /// Greets the destination; true beside the stream when it speaks HTTP/2.
    ///
    /// # Errors
    /// [`tokio_rustls::rustls::Error`] inside, for which [`refused`] finds the verdict.
    pub(in crate::proxy) async fn connect<S>(
        &self,
        stream: S,
        host: &Host,
        rule: Option<&str>,
        offer: Offer,
    ) -> io::Result<(TlsStream<S>, bool)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let configs = rule.and_then(|rule| self.with_certificate.get(rule)).unwrap_or(&self.plain);
        let config = match offer {
            Offer::Http1 => &configs.http1,
            Offer::Http2 => &configs.http2,
        };
        let handshake = Handshake::begin(Peer::Destination);
        let stream = TlsConnector::from(config.clone()).connect(server_name(host)?, stream).await?;
        handshake.done();
        let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, speaks_http2))
    }
}

/// By the policy's roots.
fn verifier(policy: &Policy) -> Result<Arc<Verifier>, PemError> {
    let extra: Vec<_> = policy.tls().extra_roots.iter().map(|path| policy.locate(path)).collect();
    let Roots { store, extra } = Roots::load(&extra)?;
    let no_roots = |error| PemError::content("tls.extra_roots".as_ref(), format!("{error}"));
    let inner =
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), super::provider()).build().map_err(no_roots)?;
    Ok(Arc::new(Verifier { inner, extra }))
}

/// What TLS to a next hop is verified with: the policy's roots, as for destinations.
///
/// # Errors
/// [`CaError`]: files that the policy names, or the system's roots.
pub fn hop_tls(policy: &Policy) -> Result<Arc<ClientConfig>, CaError> {
    Ok(configs(&verifier(policy)?, None)?.http1)
}

/// What is wrong with the roots and the client certificates that a policy names: each by itself, with its key.
#[must_use]
pub fn wrong_files_for_tls(policy: &Policy) -> Vec<String> {
    let roots = policy.tls().extra_roots.iter().filter_map(|path| {
        let wrong = Roots::load(&[policy.locate(path)]).err()?;
        Some(format!("tls.extra_roots: {wrong}"))
    });
    let clients = policy.rules().iter().filter_map(|rule| {
        let pair = rule.client_certificate()?;
        let verified = || Ok(builder()?.with_root_certificates(RootCertStore::empty()));
        let wrong = verified().and_then(|verified| showing(&located(policy, pair), verified)).err()?;
        Some(format!("{}: client_cert, client_key: {wrong}", rule.label()))
    });
    roots.chain(clients).collect()
}

fn located(policy: &Policy, pair: &KeyPair) -> KeyPair {
    KeyPair { certificate: policy.locate(&pair.certificate), key: policy.locate(&pair.key) }
}

/// What a handshake that failed is called.
pub(in crate::proxy) fn refused(host: &Host, error: &io::Error) -> Verdict {
    match Greeting::of(error) {
        Greeting::Certificate(why) => {
            Verdict::block(Reason::CertificateInvalid, format!("the certificate of {host}: {why}"))
        }
        greeting => Verdict::block(Reason::UpstreamFailed, of_tls(host, greeting)),
    }
}

/// What is said of a connection to a destination that TLS has ended after the handshake; none where something else has.
pub(in crate::proxy) fn ended(host: &Host, error: &(dyn std::error::Error + 'static)) -> Option<String> {
    Greeting::of_end(error).map(|greeting| of_tls(host, greeting))
}

fn of_tls(host: &Host, greeting: Greeting) -> String {
    match greeting {
        Greeting::WantsOurs => format!(
            "{host} wants a client certificate (TLS alert certificate_required); name one in its rule (client_cert, client_key)"
        ),
        Greeting::Certificate(why) | Greeting::Failed(why) => format!("TLS to {host} failed: {why}"),
    }
}

/// A configuration to be completed with what verifies the destination.
fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, PemError> {
    ClientConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| PemError::content("TLS".as_ref(), format!("{error}")))
}

/// A configuration that shows the certificate of a pair of files.
fn showing(
    KeyPair { certificate, key }: &KeyPair,
    verified: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
) -> Result<ClientConfig, PemError> {
    let chain = pem::certificates(certificate, &pem::read(certificate)?)?;
    let private = pem::key(key, &pem::read(key)?)?;
    let unfit = |error| match error {
        rustls::Error::InvalidCertificate(why) => PemError::content(certificate, explain(&why)),
        error => PemError::content(key, format!("not the key of {}: {error}", certificate.display())),
    };
    verified.with_client_auth_cert(chain, private).map_err(unfit)
}

fn configs(verifier: &Arc<Verifier>, pair: Option<&KeyPair>) -> Result<Configs, PemError> {
    let verified = builder()?.dangerous().with_custom_certificate_verifier(verifier.clone());
    let mut config = match pair {
        None => verified.with_no_client_auth(),
        Some(pair) => showing(pair, verified)?,
    };
    let with = |config: &mut ClientConfig, protocols: &[&[u8]]| {
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    };
    let mut http1 = config.clone();
    with(&mut http1, &[b"http/1.1"]);
    with(&mut config, &[b"h2", b"http/1.1"]);
    Ok(Configs { http1: Arc::new(http1), http2: Arc::new(config) })
}

/// The usual verification; and a server that shows a certificate which the policy itself lists is believed by it, as far
/// as name and time go: that is what a self-signed certificate under `tls.extra_roots` means.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    extra: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(error) if self.extra.iter().any(|listed| listed == end_entity) => {
                let parts = x509::read(end_entity).ok_or(error)?;
                if now.as_secs() > parts.not_after {
                    return Err(CertificateError::Expired.into());
                }
                if now.as_secs() < parts.not_before {
                    return Err(CertificateError::NotValidYet.into());
                }
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
