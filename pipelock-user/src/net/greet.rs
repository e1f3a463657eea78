//! Words about TLS with whom we connect to: the name to verify by, and what went wrong.
//!
//! Used for next hops here, and by the proxy for destinations. It promises that what the other side chose, the names in its
//! certificate above all, is not repeated: the words go to the agent.

use std::error::Error;
use std::io;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, PeerIncompatible};

use crate::flow::Host;

/// Most characters that are repeated of an error whose words are not ours.
const MOST_WORDS: usize = 80;

/// What to do about old versions.
const OLD: &str = "older ones are not spoken, as they protect nothing";

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
            Some(rustls::Error::AlertReceived(alert)) => Self::of_alert(&format!("{alert:?}")),
            Some(rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)) => {
                Self::Failed(format!("it answered with an older version than TLS 1.2; {OLD}"))
            }
            _ => Self::Failed(error.to_string()),
        }
    }

    /// Of the error that a connection ended with after its handshake, if TLS is what ended it: over TLS 1.3 a server says only then
    /// what it holds of the client's certificate.
    #[must_use]
    pub fn of_end(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) {
                return Some(Self::of_alert(&format!("{alert:?}")));
            }
            // Of an error on the connection below HTTP/2 only the words are left. What the peer says of its own has others before it.
            let text = error.to_string();
            let name = text.strip_prefix("received fatal alert: ").unwrap_or(" ");
            if name.len() < 40 && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '(' | ')')) {
                return Some(Self::of_alert(name));
            }
            next = error.source();
        }
        None
    }

    /// Of the alert of this name, as rustls spells it.
    fn of_alert(name: &str) -> Self {
        let why = match name {
            "CertificateRequired" => return Self::WantsOurs,
            "ProtocolVersion" => format!("it speaks neither TLS 1.2 nor 1.3; {OLD}"),
            "HandshakeFailure" => {
                "it agrees to nothing that was offered (TLS 1.2 or 1.3, their ciphers), or wants a client certificate \
                 (client_cert, client_key)"
                    .to_owned()
            }
            "BadCertificate"
            | "UnsupportedCertificate"
            | "CertificateRevoked"
            | "CertificateExpired"
            | "CertificateUnknown"
            | "UnknownCA"
            | "AccessDenied" => {
                "it does not take the client certificate that it was shown, or wants one (client_cert, client_key)"
                    .to_owned()
            }
            "UnrecognisedName" => "it knows no site of this name".to_owned(),
            _ => "it broke TLS off".to_owned(),
        };
        Self::Failed(format!("{why} (TLS alert {})", in_rfc(name)))
    }
}

/// The name of an alert as the standard spells it (RFC 8446 §6): `handshake_failure`.
fn in_rfc(name: &str) -> String {
    let (mut spelled, mut was_small) = (String::new(), false);
    // One without a name is a number.
    let name = name.trim_start_matches("AlertDescription");
    for letter in name.trim_matches(['(', ')']).chars() {
        if letter.is_ascii_uppercase() && was_small {
            spelled.push('_');
        }
        was_small = letter.is_ascii_lowercase();
        spelled.push(letter.to_ascii_lowercase());
    }
    spelled
}

/// What is wrong with a certificate and what helps, in words for people, without bytes of the peer's choosing.
#[must_use]
pub fn explain(error: &CertificateError) -> String {
    use CertificateError as Why;
    let words = match error {
        Why::UnknownIssuer => {
            "no root that is trusted here vouches for it; name its root under tls.extra_roots if it is meant to be trusted"
        }
        Why::Expired | Why::ExpiredContext { .. } => "it has expired",
        Why::NotValidYet | Why::NotValidYetContext { .. } => "it is not valid yet; is the clock of this machine right?",
        Why::NotValidForName | Why::NotValidForNameContext { .. } => "it is for another name",
        Why::Revoked => "its authority has revoked it",
        Why::BadEncoding => "it cannot be read as a certificate",
        Why::BadSignature => "the signature on it is wrong",
        Why::UnhandledCriticalExtension => "it has a critical extension that is not understood here",
        Why::InvalidPurpose | Why::InvalidPurposeContext { .. } => {
            "its extended key usage does not allow it here (serverAuth for servers, clientAuth for clients)"
        }
        Why::UnsupportedSignatureAlgorithmContext { .. }
        | Why::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "it is signed in a way that is not accepted here (SHA-1, or a key that is too short or of another kind)"
        }
        Why::Other(other) => match other.0.downcast_ref::<webpki::Error>() {
            Some(why) => return explain_form(why),
            None => "it cannot be verified",
        },
        other => return in_letters(&format!("{other:?}")),
    };
    words.to_owned()
}

/// The same of what its form does not allow (RFC 5280 §4).
fn explain_form(error: &webpki::Error) -> String {
    use webpki::Error as Why;
    let words = match error {
        Why::CaUsedAsEndEntity => {
            "it is an authority's (CA:TRUE), and no server's or client's own; have one made with CA:FALSE, or list a server's under \
             tls.extra_roots just as it is"
        }
        Why::UnsupportedCertVersion => {
            "it, or one above it, is of version 1, which does not say what it is for; have it made anew as version 3 (OpenSSL: \
             with extensions, -addext or -extfile)"
        }
        Why::EndEntityUsedAsCa => "it is signed with a certificate that is no authority's (CA:FALSE)",
        Why::NameConstraintViolation => "an authority above it may not vouch for such a name (name constraints)",
        Why::PathLenConstraintViolated
        | Why::MaximumPathDepthExceeded
        | Why::MaximumPathBuildCallsExceeded
        | Why::MaximumSignatureChecksExceeded => "there are more authorities above it than are allowed",
        other => return format!("its form is not that of a certificate ({})", in_letters(&format!("{other:?}"))),
    };
    words.to_owned()
}

/// The name of an error that we have no words for, and nothing that stands behind it.
fn in_letters(error: &str) -> String {
    error.chars().take_while(char::is_ascii_alphanumeric).take(MOST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

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
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_said_in_words() {
        let form = |why: webpki::Error| CertificateError::Other(rustls::OtherError(std::sync::Arc::new(why)));
        for (why, words) in [
            (form(webpki::Error::CaUsedAsEndEntity), "CA:FALSE"),
            (form(webpki::Error::UnsupportedCertVersion), "version 3"),
            (form(webpki::Error::EndEntityUsedAsCa), "no authority's"),
            (form(webpki::Error::NameConstraintViolation), "name constraints"),
            (form(webpki::Error::MalformedExtensions), "(MalformedExtensions)"),
            (CertificateError::UnknownIssuer, "tls.extra_roots"),
            (CertificateError::InvalidPurpose, "serverAuth"),
            (CertificateError::BadEncoding, "cannot be read"),
        ] {
            let said = explain(&why);
            assert!(said.contains(words) && !said.contains("Other"), "{why:?}: {said}");
        }
    }

    #[test]
    fn alerts_say_what_to_do() {
        let alert = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
        assert_eq!(Greeting::of(&alert(AlertDescription::CertificateRequired)), Greeting::WantsOurs);
        for (sent, words) in [
            (
                AlertDescription::ProtocolVersion,
                "TLS 1.2 nor 1.3; older ones are not spoken, as they protect nothing (TLS alert protocol_version)",
            ),
            (AlertDescription::HandshakeFailure, "client_cert, client_key) (TLS alert handshake_failure)"),
            (AlertDescription::UnknownCA, "client_cert, client_key) (TLS alert unknown_ca)"),
            (AlertDescription::InternalError, "it broke TLS off (TLS alert internal_error)"),
            (AlertDescription::Unknown(200), "(TLS alert 0xc8)"),
        ] {
            let Greeting::Failed(why) = Greeting::of(&alert(sent)) else { panic!("{sent:?}") };
            assert!(why.ends_with(words), "{why}");
            assert_eq!(Greeting::of_end(&alert(sent)), Some(Greeting::Failed(why)));
        }
        let old = rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13);
        assert_eq!(
            Greeting::of(&io::Error::other(old)),
            Greeting::Failed(format!("it answered with an older version than TLS 1.2; {OLD}"))
        );
        // As HTTP/2 hands it on, and what a peer could say there.
        assert_eq!(
            Greeting::of_end(&io::Error::other("received fatal alert: CertificateRequired")),
            Some(Greeting::WantsOurs)
        );
        for words in
            ["connection error received: x (b\"received fatal alert: UnknownCA\")", "received fatal alert: obey me"]
        {
            assert_eq!(Greeting::of_end(&io::Error::other(words)), None);
        }
    }
}
