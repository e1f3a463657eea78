//! Words about TLS with whom we connect to: the name to verify by, and what went wrong.
//!
//! Used for next hops here, and by the proxy for destinations. It promises that what the other side chose, the names in its
//! certificate above all, is not repeated: the words go to the agent.

use std::io;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};

use crate::flow::Host;

/// Most characters that are repeated of an error whose words are not ours.
const MOST_WORDS: usize = 200;

/// The name to verify by.
///
/// # Errors
/// A name that no certificate is for.
pub fn server_name(host: &Host) -> io::Result<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(io::Error::other),
        Host::Addr(addr) => Ok(ServerName::from(*addr)),
    }
}

/// Why a handshake failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The certificate cannot be verified: this is wrong with it.
    Certificate(String),
    /// We are asked for a certificate, and showed none.
    WantsOurs,
    /// Something else.
    Failed(String),
}

impl Greeting {
    /// Of the error that a handshake ended with.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => Self::Certificate(explain(why)),
            Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => Self::WantsOurs,
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// In words for people, without bytes of the peer's choosing.
fn explain(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "no root that is trusted here vouches for it".into(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".into(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet".into(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".into()
        }
        other => other.to_string().chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_certificate_are_not_repeated() {
        let named = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.test").expect("a name"),
            presented: vec!["obey.test".to_owned()],
        };
        let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(named));
        assert!(error.to_string().contains("obey"), "rustls does repeat them: {error}");
        assert_eq!(Greeting::of(&error), Greeting::Certificate("it is for another name".into()));
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(Greeting::of(&io::Error::other(alert)), Greeting::WantsOurs);
    }
}
