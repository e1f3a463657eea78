//! What a real Prometheus sees of real sessions: values that equal the receipts, families for every part, and nobody inside
//! the sandbox who can look.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use pipelock_e2e::{
    Attached, Evidence, Explicit, HttpServer, OwnCgroup, Prometheus, SECRET, Sandbox, Series, free_address, need, page,
    pipelock, promtool, until, web_policy,
};
use serde_json::Value;

fn policy(server: &HttpServer, metrics: &str, more: &str) -> String {
    web_policy(server.port(), ", methods: [GET, POST]", &format!("metrics: {metrics}\n{more}"))
}

/// How often each of these was written, as the evidence has it.
type Counts = BTreeMap<Vec<String>, u64>;

/// Receipts of requests by surface, verdict and reason; of flows by verdict and reason.
fn of_evidence(evidence: &Evidence) -> (Counts, Counts) {
    let (mut requests, mut flows) = (Counts::new(), Counts::new());
    for request in evidence.requests() {
        let surface = if request.transport == "forward" { "http".to_owned() } else { request.transport };
        *requests.entry(vec![surface, request.verdict, request.reason]).or_default() += 1;
    }
    for flow in evidence.flows() {
        *flows.entry(vec![flow.verdict, flow.reason]).or_default() += 1;
    }
    (requests, flows)
}

/// The same as Prometheus has it, without what was never counted.
fn of_series(series: &[Series], labels: &[&str]) -> Counts {
    let counted = series.iter().filter(|(_, value)| *value > 0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small counts")]
    counted.map(|(words, value)| (labels.iter().map(|label| words[*label].clone()).collect(), *value as u64)).collect()
}

/// Receipts of a kind that are in the file by now: lines whose receipt has this in it.
fn written(evidence: &Path, has: &str) -> usize {
    let text = std::fs::read_to_string(evidence.join("evidence.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.contains(has)).count()
}

/// Ends when the file is there, or the test has failed: until then the agent lives, and with it the session.
const STAY: &str = "touch done; for i in $(seq 1200); do test -e go && break; sleep 0.05; done";

#[test]
fn a_prometheus_sees_what_the_receipts_say() {
    need!("prometheus", "promtool", "curl");
    let server = HttpServer::start("127.0.0.1:0");
    let metrics = free_address();
    let url = format!("http://web.test:{}", server.port());
    let script = format!(
        "for i in 1 2 3; do curl -s -o /dev/null {url}/ok; done
         curl -s -o /dev/null --data-binary 'clean words' {url}/read
         curl -s -o /dev/null --data-binary 'k={SECRET}' {url}/secret
         curl -s -o /dev/null '{url}/ok?key={SECRET}'
         curl -s -o /dev/null -X DELETE {url}/method
         curl -s -o /dev/null http://denied.test/
         curl -s -o /dev/null --max-time 5 http://192.0.2.1:81/
         {STAY}"
    );
    let sandbox = Sandbox::new(&policy(&server, &format!("{{listen: \"{metrics}\"}}"), ""));
    let mut running = sandbox.spawn(&["sh", "-c", &script]);
    let prometheus = Prometheus::start(metrics, None);
    running.wait_for("done");
    let evidence = running.sandbox.evidence();
    // The flows of the clients are closed, and their receipts on their way.
    prometheus.wait_for("pipelock_flows_open", 0.0);
    let (requests, flows) = (written(&evidence, "\"transport\":\"forward\""), written(&evidence, "kernel_flow"));
    assert!(requests >= 7 && flows >= 9, "{requests} requests, {flows} flows");
    prometheus.wait_for("sum(pipelock_requests_total{surface=\"http\"})", requests as f64);
    prometheus.wait_for("sum(pipelock_flows_total)", flows as f64);
    let asked = prometheus.ask("pipelock_requests_total");
    let ended = prometheus.ask("pipelock_flows_total");
    let at = |expression: &str| prometheus.number(expression).unwrap_or_else(|| panic!("no {expression}"));

    assert_eq!(at("pipelock_enforcing"), 1.0);
    assert_eq!(at("pipelock_evidence_writable"), 1.0);
    assert_eq!(at("pipelock_scanner_ready"), 1.0);
    assert_eq!(at("sum(pipelock_receipts_lost_total)"), 0.0);
    assert_eq!(at("pipelock_policy_rules"), 1.0);
    assert_eq!(at("sum(pipelock_scan_findings_total{action=\"block\"})"), 2.0);
    assert_eq!(at("sum(pipelock_request_duration_seconds_count)"), requests as f64);
    assert_eq!(at("sum(pipelock_upstream_requests_total)"), 4.0, "what was let through");
    assert!(at("pipelock_scan_bytes_total{direction=\"out\"}") >= 11.0);
    assert!(at("sum(pipelock_flow_bytes_total{direction=\"in\"})") > 0.0);
    assert!(at("pipelock_evidence_bytes") > 0.0 && at("pipelock_evidence_disk_free_bytes") > 0.0);
    assert!(at("time() - pipelock_last_receipt_timestamp_seconds") < 100.0);
    assert!(at("process_resident_memory_bytes") > 1e6);
    assert!(at("sum(pipelock_receipts_total{kind=\"request\"})") >= requests as f64);
    assert_eq!(prometheus.ask("up")[0].1, 1.0);
    let version = &prometheus.ask("pipelock_build_info")[0].0["version"];
    let printed = Command::new(pipelock()).arg("version").output().expect("pipelock").stdout;
    assert_eq!(String::from_utf8_lossy(&printed).trim(), format!("pipelock {version}"));
    let of_the_kernel = at("sum(pipelock_kernel_flows_total)");

    let (status, exposition) = page(metrics, "/metrics", "").expect("a page");
    assert_eq!(status, 200);
    assert_eq!(promtool(&exposition), "", "promtool finds something in {exposition}");
    assert!(!exposition.contains("ghp_") && !exposition.contains("web.test") && !exposition.contains("denied.test"));
    assert_families(&exposition);
    let (status, health) = page(metrics, "/health", "").expect("a page");
    let health: Value = serde_json::from_str(&health).expect("JSON");
    assert_eq!((status, &health["status"], &health["enforcement"]), (200, &"ok".into(), &"full".into()));

    running.sandbox.file("go", "");
    let run = running.wait();
    let (requests, flows) = of_evidence(&run.evidence);
    assert_eq!(of_series(&asked, &["surface", "verdict", "reason"]), requests);
    assert_eq!(of_series(&ended, &["verdict", "reason"]), flows);
    assert_eq!(of_the_kernel, run.evidence.kernel("flows") as f64);
    assert_eq!(page(metrics, "/metrics", ""), None, "nobody listens after the end");
}

/// Families for every part of pipelock, each with its help.
fn assert_families(exposition: &str) {
    let families: BTreeSet<&str> =
        exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let own = families.iter().filter(|family| family.starts_with("pipelock_")).count();
    assert!(own > 50, "{own}: {families:?}");
    for part in [
        "pipelock_kernel_",
        "pipelock_flow",
        "pipelock_connections_",
        "pipelock_tls_",
        "pipelock_scan",
        "pipelock_evidence_",
        "pipelock_receipt",
        "pipelock_policy_",
        "process_",
    ] {
        assert!(families.iter().filter(|family| family.starts_with(part)).count() >= 2, "{part}: {families:?}");
    }
    let readme = readme();
    let named: BTreeSet<&str> = readme.split('`').map(|word| word.split('{').next().unwrap_or(word)).collect();
    for family in families {
        assert!(exposition.contains(&format!("# HELP {family} ")), "{family} has no help");
        let name = family.strip_prefix("pipelock_").unwrap_or("process_…");
        assert!(named.contains(name), "{family} is not in the README");
    }
}

fn readme() -> String {
    // Read when the test runs: what was read at build time may be another checkout's, from a build cache that both use.
    let folder = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    std::fs::read_to_string(folder.join("../../README.md")).expect("README.md")
}

#[test]
fn the_configuration_and_the_alerts_of_the_readme_are_sound() {
    need!("promtool");
    let readme = readme();
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let dir = tempfile::tempdir().expect("a folder");
    let mut checked = Vec::new();
    for block in blocks {
        let check = match block.split(':').next() {
            Some("scrape_configs") => "config",
            Some("groups") => "rules",
            _ => continue,
        };
        let file = dir.path().join(check);
        std::fs::write(&file, block).expect("write");
        let done = Command::new("promtool").args(["check", check]).arg(&file).output().expect("promtool");
        assert!(done.status.success(), "{block}\n{}", String::from_utf8_lossy(&done.stderr));
        checked.push(check);
    }
    assert_eq!(checked, ["config", "rules"]);
}

#[test]
fn the_agent_cannot_look_unless_the_policy_opens_the_port() {
    need!("curl");
    let server = HttpServer::start("127.0.0.1:0");
    let metrics = free_address();
    let addresses =
        [format!("http://{metrics}/metrics"), format!("http://[::ffff:127.0.0.1]:{}/health", metrics.port())];
    let by_name = format!("http://web.test:{}/metrics", metrics.port());
    let script = format!(
        "for url in {} {by_name}; do curl -s -o /dev/null --max-time 5 $url; echo $?; done; curl -s {}/ok -o /dev/null; echo $?",
        addresses.join(" "),
        format_args!("http://web.test:{}", server.port())
    );
    let metrics_key = format!("{{listen: \"{metrics}\"}}");
    let run = Sandbox::new(&policy(&server, &metrics_key, "")).run_ok(&["sh", "-c", &script]);
    assert_eq!(run.text(), "7\n7\n7\n0\n", "{run}");
    let opened = format!("loopback: {{allow: [{}]}}", metrics.port());
    let run = Sandbox::new(&policy(&server, &metrics_key, &opened)).run_ok(&["curl", "-s", &addresses[0]]);
    assert!(run.text().contains("pipelock_build_info"), "{run}");
}

fn health(address: SocketAddr) -> Option<Value> {
    serde_json::from_str(&page(address, "/health", "")?.1).ok()
}

#[test]
fn a_reload_moves_the_listener_and_keeps_what_was_counted() {
    need!("prometheus", "curl");
    let server = HttpServer::start("127.0.0.1:0");
    let (first, second) = (free_address(), free_address());
    let at = |address: SocketAddr| policy(&server, &format!("{{listen: \"{address}\"}}"), "");
    let sandbox = Sandbox::new(&at(first));
    let cgroup = OwnCgroup::new();
    let attached = Attached::start(&cgroup.path, &sandbox.policy(), &sandbox.evidence());
    let ask = || {
        let url = format!("http://web.test:{}/ok", server.port());
        let curl = cgroup.command("curl").args(["-s", "-o", "/dev/null", &url]).status().expect("curl");
        assert!(curl.success());
    };
    let reload = || {
        let done = Command::new(pipelock()).args(["reload", "--cgroup"]).arg(&cgroup.path).output().expect("reload");
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    ask();
    assert_eq!(health(first).expect("a page")["status"], "ok");
    assert_eq!(page(second, "/health", ""), None);

    sandbox.set_policy(&at(second));
    assert!(reload().0);
    until("it listens where the new policy says", || health(second).is_some());
    until("it listens no more where the old one said", || page(first, "/health", "").is_none());
    ask();
    let prometheus = Prometheus::start(second, None);
    prometheus.wait_for("sum(pipelock_requests_total{surface=\"http\",verdict=\"allow\"})", 2.0);
    prometheus.wait_for("pipelock_policy_generation", 2.0);
    prometheus.wait_for("pipelock_policy_reloads_total{result=\"in_force\"}", 1.0);

    // An address that somebody has: nothing changes, and it says why.
    sandbox.set_policy(&at(server.addr));
    let (is_done, said) = reload();
    assert!(!is_done && said.contains("metrics.listen") && said.contains("cannot be bound"), "{said}");
    // `reload` asks more than once.
    prometheus.wait_for("pipelock_policy_reloads_total{result=\"refused\"} > bool 0", 1.0);
    assert_eq!(prometheus.number("pipelock_policy_generation"), Some(2.0));

    // A token is asked for from the moment it is in the policy.
    std::fs::write(sandbox.work().join("token"), "a-token-of-twenty-letters\n").expect("write");
    sandbox.set_policy(&policy(&server, &format!("{{listen: \"{second}\", token_file: work/token}}"), ""));
    assert!(reload().0);
    assert_eq!(page(second, "/metrics", "").expect("a page").0, 401);
    let shown = page(second, "/metrics", "Authorization: Bearer a-token-of-twenty-letters").expect("a page");
    assert!(shown.0 == 200 && shown.1.contains("pipelock_policy_generation 3\n"), "{}", shown.1);
    drop(prometheus);
    let prometheus = Prometheus::start(second, Some("a-token-of-twenty-letters"));
    prometheus.wait_for("up", 1.0);

    // Without the key nobody listens.
    sandbox.set_policy(&policy(&server, "{}", ""));
    assert!(reload().0);
    until("nobody listens", || page(second, "/metrics", "").is_none());
    attached.end();
    assert_eq!(Evidence::read(&sandbox.evidence()).http().len(), 2);
}

#[test]
fn somebody_who_removes_the_pins_is_seen() {
    need!("curl");
    let server = HttpServer::start("127.0.0.1:0");
    let metrics = free_address();
    let sandbox = Sandbox::new(&policy(&server, &format!("{{listen: \"{metrics}\"}}"), ""));
    let cgroup = OwnCgroup::new();
    let attached = Attached::start(&cgroup.path, &sandbox.policy(), &sandbox.evidence());
    assert_eq!(page(metrics, "/health", "").expect("a page").0, 200);
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&cgroup.path).expect("a cgroup"));
    let pins = Path::new("/sys/fs/bpf/pipelock").join(format!("cg-{inode}"));
    let links = std::fs::read_dir(&pins).expect("pins").map(|pin| pin.expect("a pin").path());
    for link in links.filter(|link| link.file_name().is_some_and(|name| name.to_string_lossy().starts_with("link"))) {
        std::fs::remove_file(link).expect("remove");
    }
    let (status, body) = page(metrics, "/health", "").expect("a page");
    assert!(status == 503 && body.contains("\"pinned\":false"), "{status} {body} {}", pins.display());
    attached.end();
}

#[test]
fn the_explicit_proxy_is_watched_too() {
    need!("curl");
    let server = HttpServer::start("127.0.0.1:0");
    let metrics = free_address();
    let policy = policy(&server, &format!("{{listen: \"{metrics}\"}}"), "version: \"1.0\"\n");
    let upstream = format!("http://web.test:{}", server.port());
    let reverse = ["--reverse-proxy", "--reverse-upstream", &upstream, "--reverse-listen", "127.0.0.1:0"];
    let proxy = Explicit::start(&policy, &reverse);
    let health = health(metrics).expect("a page");
    assert_eq!((&health["status"], &health["enforcement"]), (&"ok".into(), &"none".into()));
    for url in [format!("{upstream}/ok"), "http://denied.test/".to_owned()] {
        assert_ne!(proxy.curl(&["--proxy", &proxy.url(""), &url]).status, 0);
    }
    assert_eq!(proxy.curl(&[&format!("http://{}/ok", proxy.reverse.as_deref().expect("a reverse proxy"))]).status, 200);
    let exposition = page(metrics, "/metrics", "").expect("a page").1;
    for line in [
        "pipelock_requests_total{reason=\"policy_allow\",surface=\"http\",verdict=\"allow\"} 1",
        "pipelock_requests_total{reason=\"host_denied\",surface=\"http\",verdict=\"block\"} 1",
        "pipelock_requests_total{reason=\"policy_allow\",surface=\"reverse\",verdict=\"allow\"} 1",
        "pipelock_enforcing 0",
    ] {
        assert!(exposition.lines().any(|found| found == line), "{line} is not in {exposition}");
    }
    assert!(!proxy.end().is_empty());
}
