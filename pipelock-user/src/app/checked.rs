//! What becomes of a policy besides what is written in it: whether the files that it names can be used, and what is found in a URL.
//!
//! Called by the verb `check`. It promises that files are read as a session reads them, and all of them whatever is wrong with the first;
//! and that a URL is read as the proxy reads it before anything leaves, with what the agent of a `run` would have in its environment.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};

use super::inspection::{Environment, inspection};
use super::runtime::run_here;
use super::withheld::Withheld;
use crate::flow::{Found, Reason, Verdict};
use crate::inspect::{Inspection, InspectionError, Scanners, Side, Terms};
use crate::net::{Login, LoginError};
use crate::policy::{CredentialsIn, KeyPair, Policy, Rule};
use crate::proxy::{CertificateAuthority, Secret, wrong_files_for_tls};
use crate::telemetry::Door;

/// What is wrong with the files that a policy names, in words that name the key and the file.
#[must_use]
pub fn wrong_files(policy: &Policy) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(KeyPair { certificate, key }) = &policy.tls().authority
        && let Err(error) = CertificateAuthority::given(&policy.locate(certificate), &policy.locate(key))
    {
        wrong.push(format!("tls.ca_cert, tls.ca_key: {error}"));
    }
    wrong.extend(wrong_files_for_tls(policy));
    if let Err(error) = scanners_of(policy, None) {
        wrong.push(error.to_string());
    }
    if let Some(Err(error)) = login_of(policy) {
        wrong.push(error.to_string());
    }
    if let Some(webhook) = &policy.ask().webhook
        && let CredentialsIn::File(file) = &webhook.secret
        && let Err(error) = Secret::of_file(&policy.locate(file))
    {
        wrong.push(error.to_string());
    }
    if let Some(file) = &policy.metrics().token_file
        && let Err(error) = Door::token(&policy.locate(file))
    {
        wrong.push(error.to_string());
    }
    wrong
}

/// The login of the next hop, if it is in a file.
fn login_of(policy: &Policy) -> Option<Result<Login, LoginError>> {
    let hop = policy.next_hop()?;
    let Some(CredentialsIn::File(file)) = &hop.credentials else { return None };
    Some(Login::of_file(&policy.locate(file)).and_then(|login| login.fit_for(hop.protocol)))
}

fn scanners_of(policy: &Policy, login: Option<&Login>) -> Result<Option<Arc<Inspection>>, InspectionError> {
    inspection(policy, None, &Environment::OfTheAgent(Withheld::of(policy)), login)
}

/// What reads URLs for a policy: made once it is needed, since it takes a moment.
#[derive(Debug)]
pub struct UrlReader(Arc<Scanners>);

impl UrlReader {
    /// The scanners of a policy that scans; none for one that does not. Without `files` they know no secrets that are in these.
    ///
    /// # Errors
    /// [`Reason::ScannerUnavailable`].
    pub fn of(policy: &Policy, files: bool) -> Result<Option<Self>, Verdict> {
        let unavailable = |why: String| Verdict::block(Reason::ScannerUnavailable, why);
        let without = (!files).then(|| policy.without_secrets_files());
        let policy = without.as_ref().unwrap_or(policy);
        // One that cannot be read was told of.
        let login = login_of(policy).filter(|_| files).and_then(Result::ok);
        let Some(inspect) = scanners_of(policy, login.as_ref()).map_err(|error| unavailable(error.to_string()))? else {
            return Ok(None);
        };
        let ready = run_here(inspect.ready(None)).map_err(|error| unavailable(error.to_string()))?;
        ready.map(Self).map(Some)
    }

    /// Those of tests.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self(run_here(Inspection::for_tests().ready(None)).expect("a thread").expect("scanners"))
    }

    /// Reads what a rule wants read of a request before it is sent: the URL, and the login in it (`user:password`) as the header that
    /// clients make of it. What is to be noted.
    ///
    /// # Errors
    /// [`Reason::DlpMatch`], [`Reason::ScannerUnavailable`].
    pub fn read(
        &self,
        policy: &Policy,
        rule: &Rule,
        method: &Method,
        (url, login): (&str, Option<&str>),
    ) -> Result<Vec<Found>, Verdict> {
        let Some(terms) = Terms::of(policy, rule) else { return Ok(Vec::new()) };
        let mut noted = terms.check_method(&self.0, method)?;
        noted.extend(terms.check_url(&self.0, url)?);
        if let Some(login) = login {
            let value = format!("Basic {}", pipelock_receipt::codec::base64(&credentials(login)));
            let value = HeaderValue::from_str(&value)
                .map_err(|error| Verdict::block(Reason::ScannerUnavailable, error.to_string()))?;
            noted.extend(terms.check_headers(
                &self.0,
                Side::RequestHead,
                &HeaderMap::from_iter([(AUTHORIZATION, value)]),
            )?);
        }
        Ok(noted)
    }

    /// A text with placeholders for the secrets in it.
    #[must_use]
    pub fn spare(&self, text: String) -> String {
        self.0.without_secrets(text)
    }
}

/// What clients make of the login in a URL (RFC 7617 §2): undone is what is escaped in it (RFC 3986 §2.1), behind the colon apart from
/// before; without one it is a user with an empty password.
fn credentials(login: &str) -> Vec<u8> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    [&*unescaped(user), b":", &*unescaped(password)].concat()
}

/// Without its escapes; a plus is one, since it is no form.
fn unescaped(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        let code = digit(behind.first()).zip(digit(behind.get(1))).filter(|_| *byte == b'%');
        match code.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            Some(code) => {
                out.push(code);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_in_a_url_is_what_clients_make_of_it() {
        for (login, wanted) in [
            ("user:word", &b"user:word"[..]),
            ("user", b"user:"),
            ("us%65r:w%3Ard+%2", b"user:w:rd+%2"),
            ("a%3ab:c:d", b"a:b:c:d"),
            ("%ff%", b"\xff%:"),
        ] {
            assert_eq!(credentials(login), wanted, "{login}");
        }
    }
}
