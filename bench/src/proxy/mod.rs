//! `cargo xtask bench proxy`: what a request, a connection and a byte cost when they are read both ways and signed for,
//! beside peers that do neither, and beside nothing.
//!
//! Processor time is that of the proxy alone and steadier than requests a second, which the load shares the machine with.

pub(crate) mod client;
mod cpu;
mod origin;
mod peers;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use self::client::HOST;

const ROUNDS: usize = 3;
const CONNECTIONS: usize = 16;
/// Idle connections whose memory is measured, if there are descriptors for them.
const IDLE: usize = 10_000;

/// One line of the table.
struct Scenario {
    name: &'static str,
    /// Method, scheme and path.
    request: &'static str,
    /// Requests of a connection, and connections.
    count: usize,
    connections: usize,
    mode: &'static str,
    body: u64,
    /// mitmproxy keeps bodies whole and is slow: left out.
    is_large: bool,
}

const fn scenario(name: &'static str, request: &'static str, count: usize, mode: &'static str) -> Scenario {
    Scenario { name, request, count, connections: CONNECTIONS, mode, body: 0, is_large: false }
}

const fn large(name: &'static str, request: &'static str, body: u64) -> Scenario {
    Scenario { name, request, count: 1, connections: 1, mode: "keep", body, is_large: true }
}

const GIB: u64 = 1 << 30;

const SCENARIOS: &[Scenario] = &[
    scenario("HTTP, 200 B", "GET http /200", 375, "keep"),
    scenario("HTTP, 10 KB", "GET http /10240", 125, "keep"),
    scenario("HTTPS, 200 B", "GET https /200", 375, "keep"),
    scenario("HTTPS, 200 B, other paths", "GET https /items/ID/200", 375, "keep"),
    scenario("HTTPS, 10 KB", "GET https /10240", 125, "keep"),
    scenario("HTTPS, new connections", "GET https /200", 38, "new"),
    scenario("HTTPS, 1 MiB", "GET https /1048576", 4, "keep"),
    large("HTTPS, 1 GiB down", "GET https /1073741824", 0),
    large("HTTPS, 1 GiB up", "POST https /0", GIB),
    scenario("HTTPS, events, delay of each", "GET https /events", 200, "events"),
];

/// The clock that events are timed by: the same for all processes of the machine.
fn now() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// What is measured: a load, and what it passes through.
struct Subject {
    name: String,
    /// The load, or pipelock with the load in it; none of the proxy is in `pids` for the direct way.
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    pids: Vec<u32>,
    is_slow: bool,
}

impl Subject {
    fn start(name: &str, command: &mut Command, pids: Vec<u32>) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("the load")?;
        let output = BufReader::new(child.stdout.take().context("stdout")?);
        let input = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, input, output, pids, is_slow: name == "mitmproxy" })
    }

    fn ask(&mut self, scenario: &Scenario) -> Result<Figures> {
        let Scenario { request, count, connections, mode, body, .. } = scenario;
        let before = cpu::used(&self.pids);
        let said = self.say(&format!("{request} {count} {connections} {mode} {body}"))?;
        let after = cpu::used(&self.pids);
        let number = |key: &str| said[key].as_f64().unwrap_or_default();
        let requests = number("count").max(1.0);
        Ok(Figures {
            rate: requests / number("seconds"),
            seconds: number("seconds"),
            p50: number("p50"),
            p99: number("p99"),
            cpu: (after.0.saturating_sub(before.0)).as_secs_f64() * 1e6 / requests,
        })
    }

    fn say(&mut self, line: &str) -> Result<Value> {
        writeln!(self.input.as_mut().context("input")?, "{line}").with_context(|| self.name.clone())?;
        let mut said = String::new();
        self.output.read_line(&mut said)?;
        serde_json::from_str(&said).with_context(|| format!("{}: {line}: {said:?}", self.name))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // The load ends with its input, and pipelock with the load.
        self.input = None;
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    rate: f64,
    seconds: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

/// Runs the suite, prints the table and writes it to bench/results/proxy.md; or the scenarios whose name has `part`, which
/// are only printed.
pub(crate) fn run(part: Option<&str>) -> Result<()> {
    let bench = Bench::new()?;
    let result = bench.measure(part);
    let _ = std::fs::remove_file(&bench.own);
    let table = result?;
    println!("{table}");
    if part.is_none() {
        std::fs::create_dir_all("bench/results")?;
        std::fs::write("bench/results/proxy.md", table)?;
    }
    Ok(())
}

struct Bench {
    pipelock: PathBuf,
    /// This program, where the agent, who is another user, can reach it.
    own: PathBuf,
    folder: tempfile::TempDir,
    /// Idle connections that there are descriptors for.
    idle: usize,
}

impl Bench {
    fn new() -> Result<Self> {
        let pipelock =
            std::env::var_os("PIPELOCK_BIN").context("PIPELOCK_BIN is not set; use cargo xtask bench proxy")?;
        // A proxy wants two for each connection, and the origin one for each of two proxies.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        let idle = IDLE.min(usize::try_from(hard / 2)?.saturating_sub(2000) / 2);
        let own = PathBuf::from("/tmp").join(format!("pipelock-bench-{}", std::process::id()));
        std::fs::copy(std::env::current_exe()?, &own)?;
        let folder = tempfile::tempdir()?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), mode)?;
        Ok(Self { pipelock: pipelock.into(), own, folder, idle })
    }

    fn measure(&self, part: Option<&str>) -> Result<String> {
        let folder = self.folder.path();
        origin::certificates(folder)?;
        let origin = origin::start(&folder.join("origin.pem"), &folder.join("origin.key"))?;
        let ports = (origin.0.port(), origin.1.port());
        let peers = peers::start(origin, folder, self.idle + 100)?;
        let load = |route: &str, roots: &Path| {
            let mut command = Command::new(&self.own);
            command.args(["load", route, &ports.0.to_string(), &ports.1.to_string()]).arg(roots);
            command
        };
        let direct = format!("at={},{}", origin.0, origin.1);
        let mut subjects =
            vec![Subject::start("direct", &mut load(&direct, &folder.join("upstream.pem")), Vec::new())?];
        for peer in &peers {
            let mut command = load(&peer.route, &folder.join("own.pem"));
            subjects.push(Subject::start(peer.name, &mut command, cpu::tree(peer.child.id()))?);
        }
        for (name, scan) in [("pipelock, nothing read", false), ("pipelock, read both ways", true)] {
            let mut subject = Subject::start(name, &mut self.inside(ports, scan)?, Vec::new())?;
            subject.pids = vec![subject.child.id()];
            subjects.push(subject);
        }
        let mut table = String::new();
        writeln!(table, "# Proxy\n")?;
        writeln!(
            table,
            "`cargo xtask bench proxy`, {}; {CONNECTIONS} connections, medians of {ROUNDS} rounds that take turns. Times in µs; \
             CPU is what the proxy uses for a request. The peers open TLS as well, read nothing and sign nothing; pipelock is \
             reached by its transparent path, and where it reads nothing TLS is not opened.\n",
            crate::kernel::machine()
        )?;
        writeln!(table, "| | | requests/s | p50 | p99 | CPU | of squid's |\n|---|---|---|---|---|---|---|")?;
        let wanted = |scenario: &&Scenario| part.is_none_or(|part| scenario.name.contains(part));
        for scenario in SCENARIOS.iter().filter(wanted) {
            let rows = rounds(&mut subjects, scenario)?;
            let squid = rows.iter().find(|(name, _)| name == "squid").map(|(_, figures)| figures.cpu);
            for (name, figures) in rows {
                let Figures { rate, seconds, p50, p99, cpu, .. } = figures;
                let rate = if scenario.is_large {
                    format!("{:.0} MB/s", GIB as f64 / 1e6 / seconds)
                } else {
                    format!("{rate:.0}")
                };
                let ratio = squid.filter(|_| cpu > 0.0).map(|squid| format!("{:.2}", cpu / squid)).unwrap_or_default();
                writeln!(table, "| {} | {name} | {rate} | {p50:.0} | {p99:.0} | {cpu:.0} | {ratio} |", scenario.name)?;
            }
        }
        if part.is_none_or(|part| "idle".contains(part))
            && let Err(error) = self.idle(&mut subjects, &mut table)
        {
            writeln!(table, "\nThe idle connections were not measured: {error:#}")?;
        }
        Ok(table)
    }

    /// Memory of connections that have had an answer and stay open.
    fn idle(&self, subjects: &mut [Subject], table: &mut String) -> Result<()> {
        writeln!(
            table,
            "\n| {} idle HTTPS connections | MiB before | MiB with them | KiB each |\n|---|---|---|---|",
            self.idle
        )?;
        for subject in subjects
            .iter_mut()
            .filter(|subject| !subject.is_slow && subject.name != "direct" && subject.name != "squid")
        {
            eprintln!("idle: {}", subject.name);
            let (_, before) = cpu::used(&subject.pids);
            let said = subject.say(&format!("GET https /200 1 {} idle 0", self.idle))?;
            ensure!(said["kept"] == self.idle, "{said}");
            let (_, with) = cpu::used(&subject.pids);
            let each = with.saturating_sub(before) as f64 / self.idle as f64;
            writeln!(table, "| {} | {} | {} | {each:.1} |", subject.name, before / 1024, with / 1024)?;
        }
        Ok(())
    }

    fn inside(&self, ports: (u16, u16), scan: bool) -> Result<Command> {
        let path = self.folder.path().join(format!("policy-{scan}.yaml"));
        let policy = format!(
            "version: \"1.0\"\negress: [{{destination: {HOST}, ports: [{}, {}], scan: {scan}}}]\n\
             dns: {{hosts: {{{HOST}: 127.0.0.1}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n\
             limits: {{max_connections: 65536}}\ntls: {{extra_roots: [upstream.pem]}}\n",
            ports.0, ports.1
        );
        std::fs::write(&path, policy)?;
        let mut command = Command::new(&self.pipelock);
        command.args(["run", "--quiet", "--policy"]).arg(path);
        command.arg("--evidence").arg(self.folder.path().join(format!("evidence-{scan}"))).arg("--");
        let (plain, tls) = (ports.0.to_string(), ports.1.to_string());
        command.arg(&self.own).args(["load", "name", &plain, &tls]);
        // Where TLS is not opened, the origin's own certificate is seen.
        command.arg(if scan { "-".into() } else { self.folder.path().join("upstream.pem") });
        command.env("STATE_DIRECTORY", self.folder.path().join("state"));
        Ok(command)
    }
}

/// The median by processor time of each subject's rounds; the first, which warms up, is not counted.
fn rounds(subjects: &mut [Subject], scenario: &Scenario) -> Result<Vec<(String, Figures)>> {
    let rounds = if scenario.is_large { 1 } else { ROUNDS + 1 };
    let mut all = vec![Vec::new(); subjects.len()];
    for round in 0..rounds {
        eprintln!("{}: round {} of {rounds}", scenario.name, round + 1);
        for (subject, figures) in subjects.iter_mut().zip(&mut all) {
            // It keeps bodies whole, and events never end.
            if (scenario.is_large || scenario.mode == "events") && subject.is_slow {
                continue;
            }
            let one = subject.ask(scenario)?;
            eprintln!("  {}: {:.0} requests/s, {:.0} µs", subject.name, one.rate, one.cpu);
            if round > 0 || rounds == 1 {
                figures.push(one);
            }
        }
    }
    let median = |mut figures: Vec<Figures>| {
        figures.sort_by(|left, right| left.cpu.total_cmp(&right.cpu).then(left.rate.total_cmp(&right.rate)));
        figures.get(figures.len() / 2).copied()
    };
    let named = subjects.iter().map(|subject| subject.name.clone());
    Ok(named.zip(all).filter_map(|(name, figures)| Some((name, median(figures)?))).collect())
}
