//! `ask`: who is asked where the policy wants somebody asked (`egress[].ask`, `dlp.action: ask`), and how long an answer may take.
//!
//! Read by `parse`; used by `app` and `proxy`. It promises that a webhook has a secret to sign with, and is reached over TLS
//! unless it is on this host. The file is not opened here: a policy is checked on machines that do not have it.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error::{Report, quote};
use super::keys::{Default, Section, Shape, key, tried_as};
use super::read::{Field, Reader};
use super::tls::path;
use super::types::{Policy, Rule};
use super::upstream::{CredentialsIn, variable};
use crate::flow::Host;

/// Seconds that an answer may take, when the policy does not say.
const USUAL_SECONDS: u64 = 30;

/// `ask`.
pub(super) static ASK: Section = Section {
    name: "ask",
    keys: &[
        tried_as(
            key(
                "webhook",
                Shape::Url,
                Default::Absent,
                "URL (https://, or http:// on loopback) that questions are sent to with POST, signed as Standard Webhooks are; its answer has to be signed too. Left out: the terminal of pipelock run is asked.",
            ),
            &["url", "endpoint"],
        ),
        tried_as(
            key(
                "secret_file",
                Shape::File,
                Default::Absent,
                "File with the secret of the webhook (whsec_ and 24 to 64 bytes in base64). Relative to the folder of the policy. The agent does not see it.",
            ),
            &["secret", "signing_key"],
        ),
        key(
            "secret_env",
            Shape::Variable,
            Default::Absent,
            "Name of the variable of pipelock's own environment with that secret. The agent does not get it.",
        ),
        tried_as(
            key(
                "timeout_seconds",
                Shape::Number(1, 600),
                Default::Number(USUAL_SECONDS),
                "Seconds that an answer may take. No answer is no.",
            ),
            &["timeout", "ask_timeout_seconds"],
        ),
    ],
};

/// A service that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Over TLS.
    pub is_tls: bool,
    /// Its name or address.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Where the secret is.
    pub secret: CredentialsIn,
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}{}", self.host, self.port, self.path)
    }
}

/// `ask`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who is asked; none for the terminal.
    pub webhook: Option<Webhook>,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl std::default::Default for Ask {
    fn default() -> Self {
        Self { webhook: None, timeout: Duration::from_secs(USUAL_SECONDS) }
    }
}

impl Ask {
    pub(super) fn read(report: &mut Report, ask: &Reader<'_>) -> Self {
        let timeout = Duration::from_secs(ask.number(report, "timeout_seconds").unwrap_or(USUAL_SECONDS));
        let fields = (ask.get("secret_file"), ask.get("secret_env"));
        if let (Some(_), Some(other)) = &fields {
            other.wrong(report, "secret_file names the secret already", "keep one of the two");
        }
        let (file, env) = fields;
        let alone = file.clone().or_else(|| env.clone());
        let file = file.and_then(|field| path(report, &field, "a file with a secret"));
        let secret = file
            .map(CredentialsIn::File)
            .or_else(|| env.and_then(|field| variable(report, &field)).map(CredentialsIn::Variable));
        let Some(field) = ask.get("webhook") else {
            if let Some(alone) = alone {
                alone.wrong(report, "a secret, and no webhook to sign for", "write ask.webhook, or remove it");
            }
            return Self { webhook: None, timeout };
        };
        if alone.is_none() {
            let message = "a webhook without a secret could be anybody";
            field.wrong(report, message, "name a secret_file or secret_env beside it");
        }
        let webhook = url(report, &field).zip(secret).map(|((is_tls, host, port, path), secret)| Webhook {
            is_tls,
            host,
            port,
            path,
            secret,
        });
        Self { webhook, timeout }
    }

    /// Its canonical form; none when it says nothing.
    pub(super) fn canonical(&self) -> Option<Value> {
        let mut value = Map::new();
        if let Some(webhook) = &self.webhook {
            value.insert("webhook".into(), json!(webhook.to_string()));
            match &webhook.secret {
                CredentialsIn::File(file) => value.insert("secret_file".into(), json!(file)),
                CredentialsIn::Variable(name) => value.insert("secret_env".into(), json!(name)),
            };
        }
        if *self != (Self { timeout: Self::default().timeout, ..self.clone() }) {
            value.insert("timeout_seconds".into(), json!(self.timeout.as_secs()));
        }
        (!value.is_empty()).then_some(value.into())
    }
}

impl Policy {
    /// Who is asked, and for how long.
    #[must_use]
    pub fn ask(&self) -> &Ask {
        &self.parts.ask
    }

    /// True when somebody may have to be asked.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.dlp().action == super::FindingAction::Ask || self.rules().iter().any(Rule::asks)
    }
}

impl Rule {
    /// Whether somebody is asked before what it allows goes on.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.asks
    }
}

fn url(report: &mut Report, field: &Field<'_>) -> Option<(bool, Host, u16, String)> {
    let text = field.text(report, "a URL like \"https://approve.example/pipelock\"")?;
    let help = "write it like \"https://approve.example/pipelock\"";
    let wrong = |report: &mut Report, why: &str| {
        // A URL may hold what nobody else should read.
        let shown = text.rsplit('@').next().unwrap_or_default();
        field.wrong(report, format!("{} {why}", quote(shown)), help);
        None
    };
    let Ok(uri) = text.parse::<http::Uri>() else { return wrong(report, "is not a URL") };
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return wrong(report, "is neither https:// nor http://"),
    };
    let Some(authority) = uri.authority() else { return wrong(report, "names no host") };
    if authority.as_str().contains('@') || text.contains('#') {
        return wrong(report, "holds more than host, port, path and query");
    }
    let Ok(host) = Host::parse(authority.host()) else { return wrong(report, "names no host") };
    let is_here = match &host {
        Host::Addr(addr) => addr.to_canonical().is_loopback(),
        Host::Name(name) => Host::is_localhost(name),
    };
    if !is_tls && !is_here {
        return wrong(report, "is neither https:// nor on loopback, and everybody on the way could read what is asked");
    }
    let port = match (authority.port_u16(), is_tls) {
        (Some(port), _) if port != 0 => port,
        (None, true) if authority.port().is_none() => 443,
        (None, false) if authority.port().is_none() => 80,
        _ => return wrong(report, "has a port that is none"),
    };
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Some((is_tls, host, port, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> Result<Policy, String> {
        Policy::parse(&format!("version: 1\n{more}\n"), "test").map_err(|errors| errors.to_string())
    }

    #[test]
    fn who_is_asked_is_read_and_written_again() {
        for (sound, shown) in [
            ("ask: {webhook: \"https://Approve.Example/x?y=1\", secret_file: s}", "https://approve.example:443/x?y=1"),
            ("ask: {webhook: \"http://127.0.0.1:8080\", secret_env: S, timeout_seconds: 5}", "http://127.0.0.1:8080/"),
            ("ask: {webhook: \"https://[2001:db8::1]:8443/a\", secret_env: S}", "https://[2001:db8::1]:8443/a"),
        ] {
            let policy = read(sound).expect(sound);
            let again = Policy::parse(&policy.canonical_json(), "again").expect("canonical");
            assert_eq!((again.id(), again.ask()), (policy.id(), policy.ask()), "{sound}");
            assert_eq!(policy.ask().webhook.as_ref().expect("one").to_string(), shown);
        }
        let plain = read("").expect("a policy");
        assert_eq!((plain.id(), plain.asks()), (read("ask: {timeout_seconds: 30}").expect("a policy").id(), false));
        let asking = read("ask: {timeout_seconds: 7}\negress: [{destination: a.test, ask: true}]").expect("a policy");
        assert!(asking.asks() && asking.rules()[0].asks() && asking.ask().timeout.as_secs() == 7);
        assert_eq!(Policy::parse(&asking.canonical_json(), "again").expect("canonical").id(), asking.id());
        assert!(read("dlp: {action: ask}").expect("a policy").asks());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (wrong, why) in [
            ("ask: {webhook: \"https://a.test/\"}", "without a secret"),
            ("ask: {secret_file: s}", "no webhook"),
            ("ask: {webhook: \"https://a.test/\", secret_file: s, secret_env: S}", "keep one"),
            ("ask: {webhook: \"http://a.test/\", secret_env: S}", "neither https:// nor on loopback"),
            ("ask: {webhook: \"ftp://a.test/\", secret_env: S}", "neither https:// nor http://"),
            ("ask: {webhook: \"/a\", secret_env: S}", "neither https:// nor http://"),
            ("ask: {webhook: \"https://a.test:0/\", secret_env: S}", "port that is none"),
            ("ask: {webhook: \"https://a.test/#x\", secret_env: S}", "more than host"),
            ("ask: {timeout_seconds: 0}", "1"),
            ("ask: {url: \"https://a.test/\"}", "did you mean \"webhook\""),
            ("response: {action: ask}", "ask"),
        ] {
            let error = read(wrong).expect_err(wrong);
            assert!(error.contains(why), "{wrong}: {error}");
        }
        let error = read("ask: {webhook: \"https://u:hunter2@a.test/\", secret_env: S}").expect_err("credentials");
        assert!(error.contains("more than host") && !error.contains("hunter2"), "{error}");
    }
}
