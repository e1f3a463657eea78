//! Certificates for the hosts that the agent asks for, made when they are first needed, and what serves with them.
//!
//! Called by `inward`. It promises one host a certificate, a bounded number of them, and that none is used in the last
//! part of its time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};

use super::ca::{BACKDATED_SECONDS, CaError, CertificateAuthority, now, random};
use super::{der, x509};
use crate::flow::{Host, locked};
use crate::proxy::counts::COUNTS;

/// How long a certificate is valid, and after how long another is made.
const VALID_SECONDS: u64 = 7 * 86_400;
const FRESH: Duration = Duration::from_secs(86_400);
/// Hosts whose certificates are kept.
const MAX_KEPT: usize = 2048;
/// Longest common name (RFC 5280, appendix A: ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// Makes certificates. All have one key, which lives as long as the process.
pub(super) struct Minter {
    ca: Arc<CertificateAuthority>,
    key: Arc<dyn SigningKey>,
    spki: Vec<u8>,
}

impl Minter {
    pub(super) fn new(ca: Arc<CertificateAuthority>) -> Result<Self, CaError> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(super::ca::new_key()?));
        let key = any_supported_type(&key).map_err(|_| CaError::Crypto("the new key cannot be used"))?;
        let spki = key.public_key().ok_or(CaError::Crypto("the new key has no public half"))?.as_ref().to_vec();
        Ok(Self { ca, key, spki })
    }

    /// A certificate for this host alone, with what is sent above it.
    pub(super) fn mint(&self, host: &Host) -> Result<CertifiedKey, CaError> {
        let text = host.to_string();
        // What is too long for a common name stands in the alternative name only, which then has to be understood.
        let subject = match host {
            Host::Name(name) if name.len() <= MAX_COMMON_NAME => x509::name(&[(&[2, 5, 4, 3], &text)]),
            _ => x509::name(&[]),
        };
        let has_subject = subject.len() > 2;
        let extensions = [
            x509::basic_constraints_end(),
            x509::key_usage(&[x509::DIGITAL_SIGNATURE]),
            x509::server_auth(),
            x509::subject_key_id(&x509::key_id(&self.spki)),
            x509::authority_key_id(&self.ca.parts.key_id),
            x509::alt_name(host, !has_subject),
        ];
        let from = now();
        let signed = x509::to_be_signed(&x509::Draft {
            serial: &random::<16>()?,
            algorithm: &self.ca.algorithm,
            issuer: &self.ca.parts.subject,
            not_before: from.saturating_sub(BACKDATED_SECONDS),
            not_after: (from + VALID_SECONDS).min(self.ca.parts.not_after),
            subject: &subject,
            spki: &self.spki,
            extensions: &extensions,
        });
        let signature = der::bits(&self.ca.sign(&signed)?);
        let leaf = CertificateDer::from(der::sequence(&[&signed, &self.ca.algorithm, &signature]));
        Ok(CertifiedKey::new(std::iter::once(leaf).chain(self.ca.sent().cloned()).collect(), self.key.clone()))
    }
}

/// What serves a host, and since when and when last.
struct Kept {
    config: Arc<ServerConfig>,
    made: Instant,
    used: Instant,
}

/// Serving configurations by host.
pub(super) struct Leaves {
    minter: Minter,
    tickets: Arc<dyn ProducesTickets>,
    kept: Mutex<HashMap<Host, Kept>>,
    max: usize,
}

impl Leaves {
    pub(super) fn new(ca: Arc<CertificateAuthority>) -> Result<Self, CaError> {
        // The key of the tickets is made here and never leaves the process; rustls replaces it every six hours.
        let tickets = rustls::crypto::ring::Ticketer::new().map_err(|_| CaError::Crypto("no random numbers"))?;
        Ok(Self { minter: Minter::new(ca)?, tickets, kept: Mutex::default(), max: MAX_KEPT })
    }

    /// The authority that signs.
    pub(super) fn authority(&self) -> &CertificateAuthority {
        &self.minter.ca
    }

    /// True when this authority signs.
    pub(super) fn is_by(&self, ca: &CertificateAuthority) -> bool {
        self.minter.ca.certificate() == ca.certificate()
    }

    /// The configuration with which to be this host.
    pub(super) fn serve_as(&self, host: &Host) -> Result<Arc<ServerConfig>, CaError> {
        let now = Instant::now();
        if let Some(kept) = locked(&self.kept).get_mut(host).filter(|kept| now.duration_since(kept.made) < FRESH) {
            kept.used = now;
            return Ok(kept.config.clone());
        }
        let config = Arc::new(self.make(host)?);
        let mut kept = locked(&self.kept);
        if kept.len() >= self.max && !kept.contains_key(host) {
            // As rare as a new host among thousands; looking through all of them then costs less than an order kept always.
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(host, _)| host.clone());
            oldest.and_then(|oldest| kept.remove(&oldest));
        }
        kept.insert(host.clone(), Kept { config: config.clone(), made: now, used: now });
        COUNTS.minted.add();
        COUNTS.certificates.set(kept.len());
        Ok(config)
    }

    /// Makes what these hosts will need, as far as there is room for half of all.
    pub(super) fn prepare(&self, hosts: impl IntoIterator<Item = Host>) {
        for host in hosts.into_iter().take(self.max / 2) {
            if let Err(error) = self.serve_as(&host) {
                tracing::warn!(%host, %error, "no certificate could be made ahead of time");
            }
        }
    }

    fn make(&self, host: &Host) -> Result<ServerConfig, CaError> {
        let key = self.minter.mint(host)?;
        let mut config = ServerConfig::builder_with_provider(super::provider())
            .with_safe_default_protocol_versions()
            .map_err(|_| CaError::Crypto("no TLS version"))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        // A client that knows no more than HTTP/1.0 would be refused in the handshake otherwise; it is answered as HTTP/1.1 answers it.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        config.ticketer = self.tickets.clone();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::server::ParsedCertificate;

    fn leaves(max: usize) -> (Arc<CertificateAuthority>, Leaves) {
        let ca = Arc::new(CertificateAuthority::for_now().expect("an authority"));
        let mut leaves = Leaves::new(ca.clone()).expect("leaves");
        leaves.max = max;
        (ca, leaves)
    }

    #[test]
    fn a_certificate_is_for_one_host_and_verifies() {
        let (ca, leaves) = leaves(8);
        let root = CertificateDer::from(ca.certificate().to_vec());
        let anchor = webpki::anchor_from_trusted_cert(&root).expect("an anchor");
        let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
        for text in ["a.example", "xn--bcher-kva.example", "x_y.example", "192.0.2.7", "2001:db8::7", &long] {
            let host = Host::parse(text).expect(text);
            let key = leaves.minter.mint(&host).expect(text);
            let end = webpki::EndEntityCert::try_from(&key.cert[0]).expect(text);
            let algorithms = super::super::provider().signature_verification_algorithms.all;
            let usage = webpki::KeyUsage::server_auth();
            end.verify_for_usage(algorithms, std::slice::from_ref(&anchor), &[], UnixTime::now(), usage, None, None)
                .expect(text);
            let parsed = ParsedCertificate::try_from(&key.cert[0]).expect(text);
            let name = |text: &str| ServerName::try_from(text.to_owned()).expect("a name");
            rustls::client::verify_server_name(&parsed, &name(text)).expect(text);
            for other in ["b.example", "sub.a.example", "192.0.2.8"] {
                assert!(
                    rustls::client::verify_server_name(&parsed, &name(other)).is_err(),
                    "{text} passes for {other}"
                );
            }
        }
    }

    #[test]
    fn what_was_used_last_is_kept_and_no_more_than_there_is_room_for() {
        let (_, leaves) = leaves(3);
        let host = |number: usize| Host::parse(&format!("h{number}.example")).expect("a name");
        leaves.prepare((0..9).map(host));
        assert_eq!(locked(&leaves.kept).len(), 1, "half of three");
        let first = leaves.serve_as(&host(0)).expect("served");
        for number in 1..9 {
            leaves.serve_as(&host(number)).expect("served");
            assert!(Arc::ptr_eq(&first, &leaves.serve_as(&host(0)).expect("served")), "{number}");
            assert!(locked(&leaves.kept).len() <= 3);
        }
    }

    #[test]
    fn a_certificate_is_replaced_long_before_it_ends() {
        let (_, leaves) = leaves(3);
        let host = Host::parse("a.example").expect("a name");
        let first = leaves.serve_as(&host).expect("served");
        let Some(earlier) = Instant::now().checked_sub(FRESH) else { return };
        locked(&leaves.kept).get_mut(&host).expect("kept").made = earlier;
        assert!(!Arc::ptr_eq(&first, &leaves.serve_as(&host).expect("served")));
        assert!(FRESH.as_secs() * 2 < VALID_SECONDS);
    }
}
