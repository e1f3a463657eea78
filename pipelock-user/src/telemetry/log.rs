//! The log: structured events on stderr, one per decision, never a secret. Started by `cli` before anything else.
//!
//! What an agent chooses (names, methods, paths, headers) may hold a secret. Events of decisions show of it the name of its
//! process, and else only what [`plain_host`] and [`plain_method`] let through; the receipt that an event names has the rest.
//!
//! It promises that whoever logs waits for nobody who reads, once the recorder has [started](super::wait_for_nobody).

use std::io::IsTerminal as _;

use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use super::lines::Lines;

/// Longest label of a name that is shown, and the most digits in it: what is longer or has more may be data.
const LONGEST_LABEL: usize = 24;
const MOST_DIGITS: usize = 4;
/// The methods that are shown (RFC 9110 §9.3, RFC 5789, RFC 4918, and CONNECT of tunnels).
const METHODS: [&str; 14] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "PROPFIND", "MKCOL", "COPY",
    "MOVE", "LOCK",
];
/// Stands for what is not shown.
const HIDDEN: &str = "…";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `PIPELOCK_LOG` (the syntax of `RUST_LOG`) overrides `default_level`; only events of our own are shown, since
/// libraries tell of what they were sent.
///
/// A second call does nothing: the first one decides.
pub fn init(format: LogFormat, default_level: &str) {
    let filter = EnvFilter::try_from_env("PIPELOCK_LOG").unwrap_or_else(|_| EnvFilter::new(default_level));
    let ours = filter_fn(|metadata| metadata.target().starts_with("pipelock"));
    let lines = fmt::layer().with_writer(|| Lines).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    let lines = match format {
        LogFormat::Text => lines.compact().boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let _ = tracing_subscriber::registry().with(lines.with_filter(ours)).with(filter).try_init();
}

/// A host, with or without a port, as far as it is plainly a name: labels that may be data are left out (`….example.com`).
/// Addresses are shown as they are.
#[must_use]
pub fn plain_host(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_address = host.parse::<std::net::SocketAddr>().is_ok()
        || host.parse::<std::net::IpAddr>().is_ok()
        || bare.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
    if is_address {
        return host.to_owned();
    }
    let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let is_plain = |label: &str| {
        let sound =
            label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_*".contains(&byte));
        sound && label.len() <= LONGEST_LABEL && label.bytes().filter(u8::is_ascii_digit).count() <= MOST_DIGITS
    };
    let shown: Vec<&str> = name.split('.').map(|label| if is_plain(label) { label } else { HIDDEN }).collect();
    let mut shown = shown.join(".");
    if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
        shown.push(':');
        shown.push_str(&port.to_string());
    }
    shown
}

/// A method, if it is one that everybody knows.
#[must_use]
pub fn plain_method(method: &str) -> &'static str {
    METHODS.iter().find(|known| **known == method).copied().unwrap_or(if method.is_empty() { "" } else { "other" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_shown_and_data_is_not() {
        for (host, shown) in [
            ("api.github.com", "api.github.com"),
            ("api.github.com:8443", "api.github.com:8443"),
            ("192.0.2.7:80", "192.0.2.7:80"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "[2001:db8::1]"),
            ("[192.0.2.7]", "….0.2.…"),
            ("s3-eu-west-1.amazonaws.com", "s3-eu-west-1.amazonaws.com"),
            ("ghp_0123456789abcdefghijabcdefghij012345.evil.test", "….evil.test"),
            ("6768705f30313233.evil.test:80", "….evil.test:80"),
            ("user@evil.test", "….test"),
            ("a b\nc.test", "….test"),
        ] {
            assert_eq!(plain_host(host), shown);
        }
        assert_eq!((plain_method("GET"), plain_method("ghp_01"), plain_method("")), ("GET", "other", ""));
    }

    proptest! {
        #[test]
        fn no_host_can_forge_a_line_or_smuggle_a_long_word(host in any::<String>()) {
            let shown = plain_host(&host);
            let forges = shown.contains(|c: char| c.is_control() || c == ' ' || c == '"');
            prop_assert!(!forges, "{shown:?}");
            if shown != host {
                prop_assert!(shown.split(['.', ':']).all(|label| label.len() <= LONGEST_LABEL));
            }
        }
    }
}
