//! A service that is asked over HTTP, signed both ways.
//!
//! Made by `app` from the policy; asked by [`super::Asking`]. The question is a webhook as Standard Webhooks has it
//! (<https://www.standardwebhooks.com>, version 1.0.0): `webhook-id`, `webhook-timestamp`, and `webhook-signature` over
//! `id.timestamp.body` with HMAC-SHA256. The answer is a JSON object `{"answer": "yes" | "always" | "no"}` with status 200, and a
//! `webhook-signature` over `id.timestamp.body` with the id and timestamp of the question and its own body. It promises that an
//! answer without a sound signature is none, that no more than a few kilobytes of it are read, and that the secret is shown nowhere.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use pipelock_receipt::codec::{base64, unbase64};
use ring::hmac;
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::flow::{Answer, Answering, Asker, Question, Reason, Verdict};
use crate::inspect::permit_flow;
use crate::net::{Greeting, Hop, Resolver, Way, connect, server_name};
use crate::policy::{self, Denied};

/// Longest answer, in bytes.
const MOST_ANSWER: usize = 4096;
/// How long it may take to reach it.
const REACH: Duration = Duration::from_secs(10);
/// Bytes that a secret may have (Standard Webhooks).
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;
static NOTHING_DENIED: LazyLock<Denied> = LazyLock::new(Denied::default);

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("ask.secret_file: {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The variable is not set.
    #[error("ask.secret_env: {0} is not set; set it where pipelock is started")]
    Unset(String),
    /// There is something else in it.
    #[error(
        "{0} does not hold whsec_ and 24 to 64 bytes in base64; make one with: echo whsec_$(head -c 32 /dev/urandom | base64)"
    )]
    Malformed(String),
}

/// What questions and answers are signed with.
pub struct Secret(hmac::Key);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// From a file.
    ///
    /// # Errors
    /// [`SecretError::File`], [`SecretError::Malformed`].
    pub fn of_file(path: &Path) -> Result<Self, SecretError> {
        let shown = path.display().to_string();
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(1024).read_to_string(&mut text));
        read.map_err(|source| SecretError::File { path: shown.clone(), source })?;
        Self::parse(text.trim_ascii()).ok_or(SecretError::Malformed(shown))
    }

    /// From a variable of our environment.
    ///
    /// # Errors
    /// [`SecretError::Unset`], [`SecretError::Malformed`].
    pub fn of_variable(name: &str) -> Result<Self, SecretError> {
        let value = std::env::var_os(name).ok_or_else(|| SecretError::Unset(name.to_owned()))?;
        let value = value.into_string().ok();
        value.and_then(|value| Self::parse(value.trim_ascii())).ok_or_else(|| SecretError::Malformed(name.to_owned()))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = unbase64(text.strip_prefix("whsec_")?)?;
        LENGTHS.contains(&bytes.len()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn content(id: &str, timestamp: u64, body: &[u8]) -> Vec<u8> {
        [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body].concat()
    }

    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        format!("v1,{}", base64(hmac::sign(&self.0, &Self::content(id, timestamp, body)).as_ref()))
    }

    /// Whether one of the signatures, which a list in the header names with blanks between, is ours. In constant time.
    fn is_signed(&self, id: &str, timestamp: u64, body: &[u8], signatures: &str) -> bool {
        let content = Self::content(id, timestamp, body);
        let mut signatures = signatures.split(' ').filter_map(|signature| unbase64(signature.strip_prefix("v1,")?));
        signatures.any(|signature| hmac::verify(&self.0, &content, &signature).is_ok())
    }
}

/// What is answered. Members that come later mean nothing here.
#[derive(Deserialize)]
struct Answered {
    answer: Word,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Yes,
    Always,
    No,
}

/// The service.
pub struct Webhook {
    policy: policy::Webhook,
    secret: Secret,
    tls: Option<Arc<ClientConfig>>,
    resolver: Resolver,
    hop: Option<Arc<Hop>>,
}

impl Webhook {
    /// The one of a policy, found by its resolver and through its next hop; `tls` is what it is verified with.
    #[must_use]
    pub fn new(
        policy: policy::Webhook,
        secret: Secret,
        tls: Option<Arc<ClientConfig>>,
        resolver: Resolver,
        hop: Option<Arc<Hop>>,
    ) -> Self {
        Self { policy, secret, tls, resolver, hop }
    }

    async fn answer(&self, question: &Question) -> Result<Answer, String> {
        let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
        let request = Request::post(&self.policy.path)
            .header(header::HOST, format!("{}:{}", self.policy.host, self.policy.port))
            .header(header::USER_AGENT, concat!("pipelock/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .header("webhook-id", &question.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.secret.sign(&question.id, now, &body))
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let allowed = Verdict::allow(Reason::PolicyAllow, None);
        let permit =
            permit_flow(&allowed, self.policy.host.clone(), self.policy.port).map_err(|denied| denied.detail)?;
        // It is whoever wrote the policy who says where it is, not the agent: where it leads is where it may lead.
        let found = tokio::time::timeout(REACH, self.resolver.resolve(permit.host(), permit.port())).await;
        let found = found.ok().and_then(Result::ok).unwrap_or_default();
        let found: Vec<IpNet> = found.iter().map(|addr| IpNet::from(addr.ip())).collect();
        let way = Way { resolver: &self.resolver, ssrf_allow: &found, deny: &NOTHING_DENIED, hop: self.hop.as_ref() };
        let (stream, _) = connect(&permit, way, REACH).await.map_err(|error| error.to_string())?;
        let (status, headers, body) = match &self.tls {
            None => post(stream, request).await?,
            Some(config) => {
                let name = server_name(&self.policy.host).map_err(|error| error.to_string())?;
                let greeting = TlsConnector::from(config.clone()).connect(name, stream);
                let greeted = tokio::time::timeout(REACH, greeting).await.map_err(|_| "TLS takes too long")?;
                let greeted = greeted.map_err(|error| match Greeting::of(&error) {
                    Greeting::Certificate(why) => format!("its certificate: {why}"),
                    Greeting::WantsOurs => "it wants a client certificate".to_owned(),
                    Greeting::Failed(why) => format!("TLS with it failed: {why}"),
                });
                post(greeted?, request).await?
            }
        };
        if status != StatusCode::OK {
            return Err(format!("it answered with status {}", status.as_u16()));
        }
        let signatures = headers.get("webhook-signature").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !self.secret.is_signed(&question.id, now, &body, signatures) {
            return Err("its answer is not signed for this question".into());
        }
        match serde_json::from_slice::<Answered>(&body).map(|answered| answered.answer) {
            Ok(Word::Yes) => Ok(Answer::Yes),
            Ok(Word::Always) => Ok(Answer::Always),
            Ok(Word::No) => Ok(Answer::No),
            Err(_) => Err("its answer is none: {\"answer\": \"yes\"}, \"always\" or \"no\"".into()),
        }
    }
}

async fn post(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, HeaderMap, Bytes), String> {
    let broken = |error: hyper::Error| format!("it broke off: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // Ends with this question, also with one that is withdrawn.
    let asking = async move {
        let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, MOST_ANSWER).collect().await.map_err(|error| format!("its answer: {error}"))?;
        Ok((head.status, head.headers, body.to_bytes()))
    };
    tokio::pin!(connection, asking);
    tokio::select! {
        asked = &mut asking => asked,
        // What it said may be there whole all the same.
        _ = &mut connection => asking.await,
    }
}

impl Asker for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn ask<'a>(&'a self, question: &'a Question) -> Answering<'a> {
        Box::pin(self.answer(question))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of the specification's reference libraries.
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let body = br#"{"test": 2432232314}"#;
        let (id, time) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330);
        let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(secret.sign(id, time, body), signature);
        assert!(secret.is_signed(id, time, body, &format!("v1,AAAA {signature}")));
        for (id, time, body, signature) in [
            ("msg_x", time, &body[..], signature),
            (id, time + 1, body, signature),
            (id, time, b"{}", signature),
            (id, time, body, ""),
            (id, time, body, "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            (id, time, body, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ] {
            assert!(!secret.is_signed(id, time, body, signature), "{id} {time} {signature}");
        }
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }

    #[test]
    fn secrets_have_one_form() {
        for wrong in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_AAAA",
            "whsec_!!",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
        ] {
            assert!(Secret::parse(wrong).is_none(), "{wrong}");
        }
        let error = Secret::of_variable("PIPELOCK_NOT_SET").expect_err("not set").to_string();
        assert!(error.contains("PIPELOCK_NOT_SET is not set"), "{error}");
    }
}
