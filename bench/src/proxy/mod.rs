//! `cargo xtask bench proxy`: what a request, a connection and a byte cost when they are read both ways and signed for,
//! beside peers that do neither, and beside nothing.
//!
//! Processor time is that of the proxy alone and steadier than requests a second, which the load shares the machine with.

mod peers;

use std::fmt::Write as _;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::client::HOST;
use crate::cpu;
use crate::origin;
use crate::peers::{Peer, free};
use crate::setting::{Setting, machine, tell};
use crate::subject::{Figures, Scenario, Subject, rounds};

const ROUNDS: usize = 3;
const CONNECTIONS: usize = 16;
/// Idle connections whose memory is measured, if there are descriptors for them.
const IDLE: usize = 10_000;

const GIB: u64 = 1 << 30;

const fn scenario(name: &'static str, request: &'static str, count: usize, mode: &'static str) -> Scenario {
    Scenario { name, request, count, connections: CONNECTIONS, mode, body: 0, is_large: false }
}

const fn large(name: &'static str, request: &'static str, body: u64) -> Scenario {
    Scenario { name, request, count: 1, connections: 1, mode: "keep", body, is_large: true }
}

const SCENARIOS: &[Scenario] = &[
    scenario("HTTP, 200 B", "GET http /200", 375, "keep"),
    scenario("HTTP, 10 KB", "GET http /10240", 125, "keep"),
    scenario("HTTPS, 200 B", "GET https /200", 375, "keep"),
    scenario("HTTPS, 200 B, other paths", "GET https /items/ID/200", 375, "keep"),
    scenario("HTTPS, 10 KB", "GET https /10240", 125, "keep"),
    scenario("HTTPS, new connections", "GET https /200", 38, "new"),
    scenario("HTTPS, 1 MiB", "GET https /1048576", 4, "keep"),
    large("HTTPS, 1 GiB down, one round", "GET https /1073741824", 0),
    large("HTTPS, 1 GiB up, one round", "POST https /0", GIB),
    scenario("HTTPS, 800 events/s, delay of each", "GET https /events/20", 100, "events"),
    scenario("HTTPS, 800 tokens/s, delay of each", "GET https /tokens/20", 100, "events"),
    scenario("HTTPS, 8,000 tokens/s, delay of each", "GET https /tokens/2", 500, "events"),
    scenario("HTTPS, 8,000 events/s, delay of each", "GET https /events/2", 500, "events"),
];

/// What only pipelock has: a fetch, and a verdict on a text.
const DOORS: &[Scenario] = &[
    scenario("fetch, 200 B", "GET http /fetch?url=ORIGIN%2F200", 50, "keep"),
    scenario("fetch, 10 KB", "GET http /fetch?url=ORIGIN%2F10240", 50, "keep"),
    Scenario { body: 200, ..scenario("Scan API, 200 B", "POST http /api/v1/scan", 50, "keep") },
    Scenario { body: 10_240, ..scenario("Scan API, 10 KB", "POST http /api/v1/scan", 50, "keep") },
];

/// Runs the suite, prints the table and writes it to bench/results/proxy.md; or the scenarios whose name has `part`, which
/// are only printed.
pub(crate) fn run(part: Option<&str>) -> Result<()> {
    tell("proxy", &Bench::new()?.measure(part)?, part.is_none())
}

struct Bench {
    setting: Setting,
    /// Idle connections that there are descriptors for.
    idle: usize,
}

impl Bench {
    fn new() -> Result<Self> {
        // A proxy wants two for each connection, and the origin one for each of two proxies.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        let idle = IDLE.min(usize::try_from(hard / 2)?.saturating_sub(2000) / 2);
        Ok(Self { setting: Setting::new()?, idle })
    }

    fn measure(&self, part: Option<&str>) -> Result<String> {
        let wanted = |scenario: &&Scenario| part.is_none_or(|part| scenario.name.contains(part));
        let is_idle = part.is_none_or(|part| "idle".contains(part));
        ensure!(is_idle || SCENARIOS.iter().chain(DOORS).any(|scenario| wanted(&scenario)), "no row has these words");
        let folder = self.setting.folder();
        origin::certificates(folder)?;
        let origin = origin::start(&folder.join("origin.pem"), &folder.join("origin.key"))?;
        let ports = (origin.0.port(), origin.1.port());
        let peers = peers::start(origin, folder, self.idle + 100)?;
        let load = |route: &str, roots: &Path| {
            let mut command = Command::new(&self.setting.own);
            command.args(["load", route, &ports.0.to_string(), &ports.1.to_string()]).arg(roots);
            command
        };
        let direct = format!("at={},{}", origin.0, origin.1);
        let mut subjects =
            vec![Subject::start("direct", &mut load(&direct, &folder.join("upstream.pem")), Vec::new())?];
        for (name, through) in &peers {
            let Some(through) = through else { continue };
            let mut command = load(&through.route, &folder.join("own.pem"));
            subjects.push(Subject::start(name, &mut command, cpu::tree(through.peer.child.id()))?);
        }
        for (name, scan) in [("pipelock, nothing read", false), ("pipelock, read both ways", true)] {
            let mut subject = Subject::start(name, &mut self.inside(ports, scan)?, Vec::new())?;
            subject.pids = vec![subject.child.id()];
            subjects.push(subject);
        }
        let (explicit, addr) = self.explicit(ports, &[])?;
        let mut command = load(&format!("proxy={addr}"), &folder.join("own.pem"));
        subjects.push(Subject::start("pipelock, as forward proxy", &mut command, cpu::tree(explicit.child.id()))?);
        std::fs::write(folder.join("tokens"), crate::client::tokens())?;
        std::fs::set_permissions(folder.join("tokens"), Permissions::from_mode(0o600))?;
        let (door, addr) = self.explicit(ports, &["--tokens", "tokens"])?;
        let mut command = load(&format!("doors={addr}"), &folder.join("own.pem"));
        let mut doors = [Subject::start("pipelock", &mut command, cpu::tree(door.child.id()))?];
        let mut table = String::new();
        writeln!(table, "# Proxy\n")?;
        writeln!(
            table,
            "`cargo xtask bench proxy`, {}; {CONNECTIONS} connections, medians of {ROUNDS} rounds that take turns, of each \
             column its own, but for rows of one round. Times in µs; \
             CPU is what the proxy uses for a request. The peers open TLS as well, read nothing and sign nothing; pipelock is \
             reached by its transparent path (where it reads nothing TLS is not opened) or as forward proxy, reading.\n",
            machine()
        )?;
        writeln!(table, "| | | requests/s | p50 | p99 | CPU | of squid's |\n|---|---|---|---|---|---|---|")?;
        for (name, _) in peers.iter().filter(|(_, through)| through.is_none()) {
            writeln!(table, "| | {name} | not installed | | | | |")?;
        }
        for scenario in SCENARIOS.iter().chain(DOORS).filter(wanted) {
            let is_door = DOORS.iter().any(|door| door.name == scenario.name);
            let rows = rounds(if is_door { &mut doors } else { &mut subjects }, scenario, ROUNDS)?;
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
        if is_idle && let Err(error) = self.idle(&mut subjects, &mut table) {
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
        for subject in subjects.iter_mut().filter(|subject| subject.name != "direct") {
            if subject.is_slow || subject.name == "squid" {
                writeln!(table, "| {} | not measured | | |", subject.name)?;
                continue;
            }
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

    /// pipelock as a proxy of its own, for clients that ask for it.
    fn explicit(&self, ports: (u16, u16), more: &[&str]) -> Result<(Peer, SocketAddr)> {
        let addr = free()?;
        let mut command = Command::new(&self.setting.pipelock);
        command.args(["run", "--quiet", "--listen", &addr.to_string(), "--policy"]);
        command.arg(self.policy("explicit", ports, true, ", ca_cert: own.pem, ca_key: own.key")?);
        command.arg("--evidence").arg(self.setting.folder().join(format!("evidence-{}", addr.port()))).args(more);
        command.env("STATE_DIRECTORY", self.setting.folder().join("state")).current_dir(self.setting.folder());
        Ok((Peer::start("pipelock", &mut command, addr)?, addr))
    }

    /// A policy for the origin, in a file of the folder.
    fn policy(&self, name: &str, ports: (u16, u16), scan: bool, tls: &str) -> Result<PathBuf> {
        let path = self.setting.folder().join(format!("policy-{name}.yaml"));
        let policy = format!(
            "version: \"1.0\"\negress: [{{destination: {HOST}, ports: [{}, {}], scan: {scan}}}]\n\
             dns: {{hosts: {{{HOST}: 127.0.0.1}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n\
             limits: {{max_connections: 65536}}\ntls: {{extra_roots: [upstream.pem]{tls}}}\n",
            ports.0, ports.1
        );
        std::fs::write(&path, policy)?;
        Ok(path)
    }

    fn inside(&self, ports: (u16, u16), scan: bool) -> Result<Command> {
        let path = self.policy(&scan.to_string(), ports, scan, "")?;
        let mut command = Command::new(&self.setting.pipelock);
        command.args(["run", "--quiet", "--policy"]).arg(path);
        command.arg("--evidence").arg(self.setting.folder().join(format!("evidence-{scan}"))).arg("--");
        let (plain, tls) = (ports.0.to_string(), ports.1.to_string());
        command.arg(&self.setting.own).args(["load", "name", &plain, &tls]);
        // Where TLS is not opened, the origin's own certificate is seen.
        command.arg(if scan { "-".into() } else { self.setting.folder().join("upstream.pem") });
        command.env("STATE_DIRECTORY", self.setting.folder().join("state"));
        Ok(command)
    }
}
