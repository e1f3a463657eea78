//! The distribution's Prometheus, scraping a running pipelock; and its promtool.
//!
//! Used by the tests of metrics. It has a configuration, a folder and a port of its own, and ends with the test.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Served;

/// Longest that it may take to start, or until it has scraped what is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// A series: its labels, and its value.
pub type Series = (BTreeMap<String, String>, f64);

/// A running Prometheus.
pub struct Prometheus {
    server: Served,
}

/// A loopback address that nobody listens on at this moment.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// What a page answers: status and body; none when nobody listens. `header` is one more header.
///
/// # Panics
/// Without curl.
#[must_use]
pub fn page(address: SocketAddr, path: &str, header: &str) -> Option<(u16, String)> {
    let url = format!("http://{address}{path}");
    let curl = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "--max-time", "20", "-w", "\n%{http_code}", "-H", header, &url])
        .output()
        .expect("curl");
    let text = String::from_utf8_lossy(&curl.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n')?;
    status.parse().ok().filter(|status| *status != 0).map(|status| (status, body.to_owned()))
}

/// What `promtool check metrics` has to say against an exposition; empty when it is clean.
///
/// # Panics
/// Without promtool.
#[must_use]
pub fn promtool(exposition: &str) -> String {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    child.stdin.take().expect("piped").write_all(exposition.as_bytes()).expect("write");
    let done = child.wait_with_output().expect("promtool");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if done.status.success() { said } else { format!("{}: {said}", done.status) }
}

impl Prometheus {
    /// Starts one that scrapes `target` five times a second, with a bearer token if one is given.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(target: SocketAddr, token: Option<&str>) -> Self {
        let dir = tempfile::Builder::new().prefix("pipelock-e2e-prometheus-").tempdir().expect("a folder");
        let token = token.map_or(String::new(), |token| format!("    authorization: {{credentials: {token}}}\n"));
        let config = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n  - job_name: pipelock\n{token}    \
             static_configs: [{{targets: [\"{target}\"]}}]\n"
        );
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).expect("write");
        let address = free_address();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=error");
        let prometheus = Self { server: Served::at(address, &mut command, dir) };
        let deadline = Instant::now() + LIMIT;
        while page(address, "/-/ready", "").is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < deadline, "prometheus does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        prometheus
    }

    /// What an expression gives at this moment.
    ///
    /// # Panics
    /// When the expression is not sound.
    #[must_use]
    pub fn ask(&self, expression: &str) -> Vec<Series> {
        let url = format!("http://{}/api/v1/query", self.server.addr);
        let query = format!("query={expression}");
        let curl = Command::new("curl")
            .args(["-sS", "--noproxy", "*", "--max-time", "20", "--get", "--data-urlencode", &query, &url])
            .output()
            .expect("curl");
        let answer: Value = serde_json::from_slice(&curl.stdout).expect("JSON");
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        let result = answer["data"]["result"].as_array().expect("a vector");
        result
            .iter()
            .map(|series| {
                let labels = series["metric"].as_object().expect("labels").iter();
                let value = series["value"][1].as_str().expect("a value").parse().expect("a number");
                (
                    labels.map(|(name, word)| (name.clone(), word.as_str().unwrap_or_default().to_owned())).collect(),
                    value,
                )
            })
            .collect()
    }

    /// The value of an expression that gives one number; none while there is none.
    #[must_use]
    pub fn number(&self, expression: &str) -> Option<f64> {
        self.ask(expression).first().map(|(_, value)| *value)
    }

    /// Waits until an expression has this value: what happened has been scraped.
    ///
    /// # Panics
    /// When it never has.
    pub fn wait_for(&self, expression: &str, value: f64) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = self.number(expression);
            if found.is_some_and(|found| (found - value).abs() < 1e-9) {
                return;
            }
            assert!(Instant::now() < deadline, "{expression} is {found:?} and should be {value}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
