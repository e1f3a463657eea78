//! TLS: the name in a ClientHello that is not ours to read, refusals that a TLS client understands, and interception:
//! an authority, certificates for the hosts that the agent asks for, and verified connections to them.

mod ca;
mod der;
mod extensions;
mod inward;
mod keystore;
mod leaf;
mod outward;
mod pem;
mod roots;
mod shown;
mod sniff;
mod trust;
mod x509;

use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;

use self::leaf::Leaves;
use crate::flow::Host;
use crate::policy::{Destination, Policy};

pub use ca::{CaError, CertificateAuthority};
pub(super) use inward::{Agreed, greet};
pub(super) use outward::{Offer, Outward, ended, refused};
pub use outward::{hop_tls, wrong_files_for_tls};
pub use roots::SYSTEM_BUNDLES;
pub(super) use shown::Shown;
pub(super) use sniff::{Hello, alert_access_denied, sniff};
pub use trust::Trust;

/// What TLS is opened with under one policy.
pub struct Interception {
    leaves: Arc<Leaves>,
    pub(super) outward: Outward,
}

impl Interception {
    /// For this policy. Certificates and tickets of a former one go on being used when the authority is the same.
    ///
    /// # Errors
    /// [`CaError`]: files that the policy names, or the system's roots.
    pub fn new(policy: &Policy, ca: &Arc<CertificateAuthority>, former: Option<&Self>) -> Result<Self, CaError> {
        let leaves = match former.filter(|former| former.leaves.is_by(ca)) {
            Some(former) => former.leaves.clone(),
            None => Arc::new(Leaves::new(ca.clone())?),
        };
        Ok(Self { leaves, outward: Outward::new(policy)? })
    }

    /// The authority.
    #[must_use]
    pub fn authority(&self) -> &CertificateAuthority {
        self.leaves.authority()
    }

    /// Makes the certificates that the policy will need: those of hosts it names in full. Takes some ten microseconds for
    /// each; a name that is asked for meanwhile gets its own at once.
    pub fn prepare(&self, policy: &Policy) {
        let hosts = policy.rules().iter().filter(|rule| rule.wants_reading());
        self.leaves.prepare(hosts.filter_map(|rule| match rule.destination() {
            Destination::Name(name) => Some(Host::Name(name.clone())),
            Destination::Addr(addr) => Some(Host::Addr(*addr)),
            _ => None,
        }));
    }
}

/// A server of this host whose certificate this authority signs: a destination for `doctor` and for tests.
///
/// # Errors
/// [`CaError::Crypto`].
pub fn server_of(ca: &Arc<CertificateAuthority>, host: &Host) -> Result<Arc<rustls::ServerConfig>, CaError> {
    Leaves::new(ca.clone())?.serve_as(host)
}

/// The one provider of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}
