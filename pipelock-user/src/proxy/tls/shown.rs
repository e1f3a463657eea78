//! The certificate that a destination shows, where TLS is passed unread: asked for by a handshake of our own, since what
//! the agent's own handshake shows is encrypted (RFC 8446 §4.4.2).
//!
//! Called by `tunnel`. It promises that nothing is passed to a destination which did not prove, a short while ago, that it
//! has the key of a certificate for the name. Who vouches for the certificate is the agent's to judge: it may know
//! authorities that we do not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::outward::refused;
use crate::flow::{Host, Reached, Reason, Verdict, locked};
use crate::net::server_name;

/// How long what was shown counts.
const FRESH: Duration = Duration::from_secs(600);
/// Destinations that are remembered.
const MOST: usize = 4096;

/// Who has shown what, lately.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Shown {
    since: Mutex<HashMap<Place, Instant>>,
    /// Held by who asks: others who would ask the same wait for the answer.
    asking: Mutex<HashMap<Place, Weak<Turn>>>,
}

/// A name and port, and how it was reached: a next hop that resolves names leaves no address in that.
type Place = (Host, u16, Reached);

type Turn = tokio::sync::Mutex<()>;

impl Shown {
    /// Whether what was reached so has shown a certificate for the name a short while ago.
    pub(in crate::proxy) fn is_known(&self, (host, port): (&Host, u16), reached: &Reached) -> bool {
        locked(&self.since).get(&(host.clone(), port, reached.clone())).is_some_and(|since| since.elapsed() < FRESH)
    }

    /// Asks on such a connection, which ends with it; it comes back when the answer is known, or another has asked
    /// meanwhile.
    ///
    /// # Errors
    /// [`Reason::CertificateInvalid`] for another name, [`Reason::UpstreamFailed`] when no certificate could be seen.
    pub(in crate::proxy) async fn ask<S>(
        &self,
        stream: S,
        (host, port): (&Host, u16),
        reached: &Reached,
    ) -> Result<Option<S>, Verdict>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.is_known((host, port), reached) {
            return Ok(Some(stream));
        }
        let turn = self.turn((host.clone(), port, reached.clone()));
        let _held = turn.lock().await;
        if self.is_known((host, port), reached) {
            return Ok(Some(stream));
        }
        self.shake(stream, (host, port), reached).await.map(|()| None)
    }

    /// The turn of those who ask for this.
    fn turn(&self, wanted: Place) -> Arc<Turn> {
        let mut asking = locked(&self.asking);
        if let Some(turn) = asking.get(&wanted).and_then(Weak::upgrade) {
            return turn;
        }
        asking.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::<Turn>::default();
        asking.insert(wanted, Arc::downgrade(&turn));
        turn
    }

    async fn shake<S>(&self, stream: S, (host, port): (&Host, u16), reached: &Reached) -> Result<(), Verdict>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let provider = super::provider();
        let verifier = Arc::new(ForName { provider: provider.clone(), is_proved: AtomicBool::new(false) });
        let failed = |error: &dyn std::fmt::Display| {
            Verdict::block(Reason::UpstreamFailed, format!("{host} shows no certificate: {error}"))
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        let name = server_name(host).map_err(|error| failed(&error))?;
        if let Err(error) = TlsConnector::from(Arc::new(config)).connect(name, stream).await
            // It may want a certificate of ours, or something else that only the agent has: it was seen who it is.
            && !verifier.is_proved.load(Ordering::Relaxed)
        {
            let verdict = refused(host, &error);
            return Err(if verdict.reason == Reason::CertificateInvalid { verdict } else { failed(&error) });
        }
        let mut known = locked(&self.since);
        if known.len() >= MOST {
            known.retain(|_, since| since.elapsed() < FRESH);
            if known.len() >= MOST
                && let Some(oldest) = known.iter().min_by_key(|(_, since)| **since).map(|(asked, _)| asked.clone())
            {
                known.remove(&oldest);
            }
        }
        known.insert((host.clone(), port, reached.clone()), Instant::now());
        Ok(())
    }
}

/// Wants a certificate for the name, and proof of its key.
#[derive(Debug)]
struct ForName {
    provider: Arc<CryptoProvider>,
    is_proved: AtomicBool,
}

impl ForName {
    fn proved(
        &self,
        proof: Result<HandshakeSignatureValid, rustls::Error>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.is_proved.store(proof.is_ok(), Ordering::Relaxed);
        proof
    }
}

impl ServerCertVerifier for ForName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.proved(verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.proved(verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::proxy::tls::{CertificateAuthority, server_of};

    async fn asked(certificate_for: &str) -> (Result<(), Verdict>, bool) {
        let ca = Arc::new(CertificateAuthority::for_now().expect("an authority"));
        let server = server_of(&ca, &Host::parse(certificate_for).expect("a name")).expect("a server");
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move { tokio_rustls::TlsAcceptor::from(server).accept(far).await.is_ok() });
        let (shown, host) = (Shown::default(), Host::parse("api.example").expect("a name"));
        let at = |last| Reached::from(SocketAddr::from(([192, 0, 2, last], 443)));
        assert!(!shown.is_known((&host, 443), &at(1)));
        let result = shown.ask(near, (&host, 443), &at(1)).await.map(|unused| assert!(unused.is_none()));
        let via = Reached { via: Some("http://p.test:1".into()), ..at(1) };
        assert!(!shown.is_known((&host, 443), &at(2)) && !shown.is_known((&host, 443), &via));
        assert!(!shown.is_known((&host, 8443), &at(1)), "another port is another server");
        (result, shown.is_known((&host, 443), &at(1)))
    }

    #[tokio::test]
    async fn a_certificate_for_the_name_is_enough_whoever_vouches_for_it() {
        assert_eq!(asked("api.example").await, (Ok(()), true));
        let (result, is_known) = asked("other.example").await;
        assert_eq!((result.expect_err("refused").reason, is_known), (Reason::CertificateInvalid, false));
    }

    #[tokio::test]
    async fn without_a_certificate_nothing_is_passed() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut far, b"220 no TLS here\r\n").await;
        });
        let reached = SocketAddr::from(([192, 0, 2, 1], 443)).into();
        let asked = Shown::default().ask(near, (&Host::parse("api.example").expect("a name"), 443), &reached).await;
        assert_eq!(asked.expect_err("refused").reason, Reason::UpstreamFailed);
    }

    #[tokio::test]
    async fn one_asks_and_those_who_come_meanwhile_have_its_answer() {
        let ca = Arc::new(CertificateAuthority::for_now().expect("an authority"));
        let host = Host::parse("api.example").expect("a name");
        let server = server_of(&ca, &host).expect("a server");
        let shown = Arc::<Shown>::default();
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..9 {
            let (near, far) = tokio::io::duplex(1 << 16);
            let (shown, host, server) = (shown.clone(), host.clone(), server.clone());
            let reached = SocketAddr::from(([192, 0, 2, 1], 443)).into();
            asked.spawn(async move {
                let shaken = tokio_rustls::TlsAcceptor::from(server).accept(far);
                let (unused, _) = tokio::join!(shown.ask(near, (&host, 443), &reached), async {
                    let _ = tokio::time::timeout(Duration::from_secs(5), shaken).await;
                });
                unused.expect("shown").is_some()
            });
        }
        assert_eq!(asked.join_all().await.into_iter().filter(|is_unused| *is_unused).count(), 8);
        assert!(locked(&shown.asking).len() <= 1);
    }
}
