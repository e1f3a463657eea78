//! `metrics`: where what pipelock counts can be read, and who may.
//!
//! Read by `parse`; used by `app`. It promises that an address that others can reach is given together with a token. The file
//! is not opened here: a policy is checked on machines that do not have it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::error::{Report, quote};
use super::keys::{Default, Section, Shape, key, tried_as};
use super::read::{Field, Reader};
use super::tls::path;
use super::types::Policy;

/// `metrics`.
pub(super) static METRICS: Section = Section {
    name: "metrics",
    keys: &[
        tried_as(
            key(
                "listen",
                Shape::Address,
                Default::Absent,
                "Address and port where /metrics (for Prometheus) and /health can be read (127.0.0.1:9464); left out: nowhere. One that is not loopback needs token_file.",
            ),
            &["addr", "address", "bind", "port"],
        ),
        tried_as(
            key(
                "token_file",
                Shape::File,
                Default::Absent,
                "File with the bearer token (16 characters or more) that whoever reads has to show. Relative to the folder of the policy.",
            ),
            &["token", "bearer_token_file", "credentials_file"],
        ),
    ],
};

/// `metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Where they can be read; none for nowhere.
    pub listen: Option<SocketAddr>,
    /// The file with the token to show; none for everybody who reaches the address.
    pub token_file: Option<PathBuf>,
}

impl Metrics {
    pub(super) fn read(report: &mut Report, metrics: &Reader<'_>) -> Self {
        let field = metrics.get("listen");
        let listen = field.as_ref().and_then(|field| address(report, field));
        let token = metrics.get("token_file");
        let token_file = token.as_ref().and_then(|token| path(report, token, "a file with a token"));
        match (&field, listen, &token) {
            (Some(field), Some(addr), None) if !addr.ip().to_canonical().is_loopback() => {
                let message = format!("{addr} is no loopback address, and whoever reaches it could read the metrics");
                field.wrong(report, message, "name a token_file beside it, or listen on 127.0.0.1");
            }
            (None, _, Some(token)) => {
                token.wrong(report, "a token, and no address to show it at", "write metrics.listen, or remove it");
            }
            _ => {}
        }
        Self { listen, token_file }
    }

    /// Its canonical form; none when it says nothing.
    pub(super) fn canonical(&self) -> Option<Value> {
        let mut value = Map::new();
        if let Some(listen) = &self.listen {
            value.insert("listen".into(), json!(listen.to_string()));
        }
        if let Some(file) = &self.token_file {
            value.insert("token_file".into(), json!(file));
        }
        (!value.is_empty()).then_some(value.into())
    }
}

impl Policy {
    /// Where what is counted can be read, and who may.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }
}

fn address(report: &mut Report, field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.text(report, "an address with a port, like \"127.0.0.1:9464\"")?;
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.port() != 0 => Some(addr),
        _ => {
            let message = format!("{} is not an address with a port", quote(text));
            field.wrong(report, message, "write it like \"127.0.0.1:9464\" or \"[::1]:9464\"");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{again, assert_refused, read};

    #[test]
    fn addresses_that_others_reach_need_a_token() {
        for sound in [
            "{listen: \"127.0.0.1:9464\"}",
            "{listen: \"[::1]:9464\"}",
            "{listen: \"127.9.9.9:1\", token_file: t}",
            "{listen: \"0.0.0.0:9464\", token_file: /etc/token}",
            "{}",
        ] {
            let policy = read(&format!("metrics: {sound}"));
            assert_eq!(again(&policy).metrics(), policy.metrics(), "{sound}");
        }
        assert_refused(&[
            ("metrics: {listen: \"0.0.0.0:9464\"}", "no loopback address"),
            ("metrics: {listen: \"[::]:9464\"}", "no loopback address"),
            ("metrics: {listen: \"192.0.2.1:9464\"}", "no loopback address"),
            ("metrics: {listen: \"[::ffff:10.0.0.1]:9464\"}", "no loopback address"),
            ("metrics: {listen: \"127.0.0.1\"}", "not an address with a port"),
            ("metrics: {listen: \"127.0.0.1:0\"}", "not an address with a port"),
            ("metrics: {listen: \"localhost:9464\"}", "not an address with a port"),
            ("metrics: {listen: 9464}", "expected an address with a port"),
            ("metrics: {token_file: t}", "no address to show it at"),
            ("metrics: {listen: \"127.0.0.1:9464\", token_file: \"\"}", "is not a path"),
            ("metrics: {address: \"127.0.0.1:9464\"}", "did you mean \"listen\""),
        ]);
        assert_eq!(Policy::deny_all().metrics(), &Metrics::default());
    }

    #[test]
    fn a_policy_that_says_nothing_of_it_keeps_its_id() {
        let plain = read("");
        assert_eq!(plain.id(), read("metrics: {}").id());
        assert_ne!(plain.id(), read("metrics: {listen: \"127.0.0.1:9464\"}").id());
    }
}
