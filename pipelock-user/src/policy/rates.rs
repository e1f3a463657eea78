//! `rates`: how much may go out and come in over a time, by rule, by connection, by name and by who asks.
//!
//! Read by `parse` and `rule`; kept by `proxy::ration`. It promises that what limits nothing is no rate.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error::Report;
use super::keys::{Default, Key, Section, Shape, key, tried_as};
use super::read::Reader;
use super::types::{Policy, Rule};

const PIB: u64 = 1 << 50;

const KEYS: &[Key] = &[
    tried_as(
        key(
            "requests",
            Shape::Number(1, 1_000_000_000),
            Default::Absent,
            "Requests in that time, and connections that are passed unread; left out: no limit.",
        ),
        &["requests_per_minute", "max_requests", "rate", "rpm"],
    ),
    tried_as(
        key(
            "bytes_out",
            Shape::Size(1, PIB),
            Default::Absent,
            "Bytes that may leave in that time; left out: no limit.",
        ),
        &["max_bytes_out", "upload", "bytes"],
    ),
    tried_as(
        key("bytes_in", Shape::Size(1, PIB), Default::Absent, "Bytes that may come in that time; left out: no limit."),
        &["max_bytes_in", "download"],
    ),
    tried_as(
        key("per", Shape::Words(&["minute", "hour", "day"]), Default::Text("minute"), "The time."),
        &["period", "window", "interval", "every"],
    ),
];

/// `egress[].rates`.
pub(super) static OF_RULE: Section = Section { name: "egress[].rates", keys: KEYS };
/// `rates.connection`.
pub(super) static OF_CONNECTION: Section = Section { name: "rates.connection", keys: KEYS };
/// `rates.name`.
pub(super) static OF_NAME: Section = Section { name: "rates.name", keys: KEYS };
/// `rates.identity`.
pub(super) static OF_IDENTITY: Section = Section { name: "rates.identity", keys: KEYS };
/// `rates`.
pub(super) static RATES: Section = Section {
    name: "rates",
    keys: &[
        tried_as(
            key(
                "connection",
                Shape::Section(&OF_CONNECTION),
                Default::Absent,
                "What each connection of the agent, or of a client, may do over a time.",
            ),
            &["flow", "per_connection", "per_flow"],
        ),
        tried_as(
            key(
                "identity",
                Shape::Section(&OF_IDENTITY),
                Default::Absent,
                "What each who asks may do over a time: a name of --tokens, else the client's address; the agent of run and attach is one.",
            ),
            &["client", "agent", "per_identity", "per_client"],
        ),
        tried_as(
            key(
                "name",
                Shape::Section(&OF_NAME),
                Default::Absent,
                "What may be done over a time with each name of a destination, each below a wildcard too, whichever rule allows it and whoever asks.",
            ),
            &["domain", "host", "destination", "per_name", "per_host", "per_domain", "per_destination"],
        ),
    ],
};

/// The time that a rate is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Per {
    /// 60 seconds.
    #[default]
    Minute,
    /// 60 minutes.
    Hour,
    /// 24 hours.
    Day,
}

impl Per {
    /// How long it is.
    #[must_use]
    pub fn period(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        })
    }

    /// Its word in the policy.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// So much in a time: at once, and then as room comes back evenly. At least one of the three is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rates {
    /// Requests.
    pub requests: Option<u64>,
    /// Bytes that leave.
    pub bytes_out: Option<u64>,
    /// Bytes that come.
    pub bytes_in: Option<u64>,
    /// The time.
    pub per: Per,
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.requests, "requests"), (self.bytes_out, "bytes out"), (self.bytes_in, "bytes in")];
        let shown: Vec<String> =
            parts.iter().filter_map(|(most, what)| most.map(|most| format!("{most} {what}"))).collect();
        write!(f, "{} per {}", shown.join(", "), self.per.word())
    }
}

impl Rates {
    /// Those under this key; none when they are not there.
    pub(super) fn read(report: &mut Report, of: &Reader<'_>, name: &str) -> Option<Self> {
        let field = of.get(name)?;
        let Some(Key { shape: Shape::Section(section), .. }) = of.key(name) else { return None };
        // What is no mapping limits nothing either, which need not be said twice.
        let reader = Reader::open(report, &field, section)?;
        let per = match reader.word(report, "per") {
            "hour" => Per::Hour,
            "day" => Per::Day,
            _ => Per::Minute,
        };
        let rates = Self {
            requests: reader.number(report, "requests"),
            bytes_out: reader.number(report, "bytes_out"),
            bytes_in: reader.number(report, "bytes_in"),
            per,
        };
        if !["requests", "bytes_out", "bytes_in"].iter().any(|name| reader.get(name).is_some()) {
            field.wrong(report, "nothing is limited here", "write requests, bytes_out or bytes_in, or remove it");
        }
        let limits = [rates.requests, rates.bytes_out, rates.bytes_in];
        limits.iter().any(Option::is_some).then_some(rates)
    }

    /// Its canonical form.
    pub(super) fn canonical(&self) -> Value {
        let mut value = Map::new();
        value.insert("per".into(), json!(self.per.word()));
        for (name, most) in [("requests", self.requests), ("bytes_out", self.bytes_out), ("bytes_in", self.bytes_in)] {
            if let Some(most) = most {
                value.insert(name.into(), json!(most));
            }
        }
        value.into()
    }
}

/// `rates`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RatesOfAll {
    /// Of each connection.
    pub connection: Option<Rates>,
    /// Of each who asks.
    pub identity: Option<Rates>,
    /// Of each name of a destination.
    pub name: Option<Rates>,
}

impl RatesOfAll {
    pub(super) fn read(report: &mut Report, rates: &Reader<'_>) -> Self {
        let mut read = |name| Rates::read(report, rates, name);
        Self { connection: read("connection"), identity: read("identity"), name: read("name") }
    }

    /// Its canonical form; none when it says nothing.
    pub(super) fn canonical(&self) -> Option<Value> {
        let mut value = Map::new();
        for (of, rates) in [("connection", self.connection), ("identity", self.identity), ("name", self.name)] {
            if let Some(rates) = rates {
                value.insert(of.into(), rates.canonical());
            }
        }
        (!value.is_empty()).then_some(value.into())
    }
}

impl Policy {
    /// What connections, and those who ask, may do over a time, and what with each name.
    #[must_use]
    pub fn rates(&self) -> &RatesOfAll {
        &self.parts.rates
    }
}

impl Rule {
    /// What it is for, wherever in the policy it stands: `api.github.com on 80, 443`.
    #[must_use]
    pub fn place(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        format!("{} on {}", self.destination, ports.join(", "))
    }

    /// What may be done over a time by all that it allows.
    #[must_use]
    pub fn rates(&self) -> Option<Rates> {
        self.rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{again, assert_refused, read};

    #[test]
    fn rates_are_read_and_written_again() {
        for (sound, shown) in [
            ("rates: {identity: {requests: 60}}", "60 requests per minute"),
            ("rates: {identity: {requests: 5, bytes_out: 1KiB, per: day}}", "5 requests, 1024 bytes out per day"),
            ("rates: {name: {bytes_out: 3}, identity: {requests: 4}}", "4 requests per minute"),
            ("rates: {connection: {requests: 1}, identity: {bytes_in: 7, per: hour}}", "7 bytes in per hour"),
        ] {
            let policy = read(sound);
            assert_eq!(again(&policy).rates(), policy.rates(), "{sound}");
            assert_eq!(policy.rates().identity.expect("there").to_string(), shown);
        }
        let policy = read("egress: [{destination: a.test, rates: {requests: 9}}]");
        assert_eq!(again(&policy).rules(), policy.rules());
        assert_eq!(read("rates: {}").id(), read("").id());
    }

    #[test]
    fn what_limits_nothing_is_refused() {
        assert_refused(&[
            ("rates: {identity: {}}", "nothing is limited"),
            ("rates: {identity: {per: hour}}", "nothing is limited"),
            ("rates: {identity: {requests: 0}}", "from 1 to"),
            ("rates: {identity: {requests: 1, per: second}}", "minute, hour, day"),
            ("rates: {identity: {requests_per_minute: 1}}", "did you mean \"requests\""),
            ("rates: {flow: {requests: 1}}", "did you mean \"connection\""),
            ("rates: {requests: 1}", "\"requests\" belongs under rates.connection or rates.identity"),
            ("egress: [{destination: a.test, rates: {bytes_out: lots}}]", "a size from 1"),
        ]);
        let twice = Policy::parse("version: 1\nrates: {identity: 5}\n", "test").expect_err("no mapping");
        assert_eq!(twice.errors.len(), 1, "{twice}");
    }
}
