//! `cargo xtask bench kernel`: what the hooks cost a connect, what the transparent proxy gives, what a start takes.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::client::HOST;
use crate::load::median;
use crate::origin;
use crate::peers::{free, haproxy};
use crate::setting::{Setting, machine, tell};
use crate::subject::{Scenario, Subject, rounds};

const ROUNDS: usize = 5;
const CONNECTS: &str = "4000";
const CONNECTIONS: usize = 16;
const SMALL: Scenario = Scenario {
    name: "http",
    request: "GET http /73",
    count: 2500,
    connections: CONNECTIONS,
    mode: "keep",
    body: 0,
    is_large: false,
};
const STARTS: usize = 20;

struct Bench {
    setting: Setting,
    evidence: std::cell::Cell<usize>,
}

/// Runs the suite, prints the table and writes it to bench/results/kernel.md; or one part of it, which is only printed.
pub(crate) fn run(part: Option<&str>) -> Result<()> {
    let bench = Bench { setting: Setting::new()?, evidence: std::cell::Cell::new(0) };
    tell("kernel", &bench.measure(part)?, part.is_none())
}

impl Bench {
    fn measure(&self, part: Option<&str>) -> Result<String> {
        let mut table = String::new();
        writeln!(table, "# Kernel and transparent path\n")?;
        writeln!(table, "`cargo xtask bench kernel`, {}; medians of {ROUNDS} rounds that take turns.\n", machine())?;
        match part {
            None => {
                self.connects(&mut table)?;
                self.requests(&mut table)?;
                self.starts(&mut table)?;
            }
            Some("connect") => self.connects(&mut table)?,
            Some("http") => self.requests(&mut table)?,
            Some("start") => self.starts(&mut table)?,
            Some(other) => bail!("no part {other}: connect, http or start"),
        }
        Ok(table)
    }

    fn connects(&self, table: &mut String) -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addr = listener.local_addr()?;
        std::thread::spawn(move || for _ in listener.incoming() {});
        let origin = origin::plain()?;
        let policy = self.policy(origin, Some(addr))?;
        let (mut bare, mut hooked, mut redirected) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            eprintln!("connect: round {} of {ROUNDS}", round + 1);
            bare.push(nanos(&self.bare(&["connect", &addr.to_string(), CONNECTS])?)?);
            hooked.push(nanos(&self.inside(&policy, &["connect", &addr.to_string(), CONNECTS])?)?);
            // An address of no host: the hooks send it to the proxy, whose listen queue answers at once.
            let far = format!("198.18.77.77:{}", origin.port());
            redirected.push(nanos(&self.inside(&policy, &["connect", &far, CONNECTS])?)?);
        }
        let (bare, hooked, redirected) = (median(&mut bare), median(&mut hooked), median(&mut redirected));
        writeln!(table, "| connect(2) to a loopback listener | µs | ratio | difference |\n|---|---|---|---|")?;
        for (name, time) in [("without hooks", bare), ("with hooks, let through", hooked)] {
            let difference = micros(time) - micros(bare);
            writeln!(
                table,
                "| {name} | {:.2} | {:.2} | {difference:+.2} µs |",
                micros(time),
                micros(time) / micros(bare)
            )?;
        }
        // To another listener, so it is not compared.
        writeln!(table, "| with hooks, redirected to the proxy | {:.2} | | |", micros(redirected))?;
        writeln!(table)?;
        Ok(())
    }

    fn requests(&self, table: &mut String) -> Result<()> {
        let origin = origin::plain()?;
        let policy = self.policy(origin, None)?;
        let port = origin.port().to_string();
        let load = |route: String| {
            let mut command = Command::new(&self.setting.own);
            command.args(["load", &route, &port, &port, "none"]);
            command
        };
        let mut subjects = vec![Subject::start("direct", &mut load(format!("at={origin},{origin}")), Vec::new())?];
        let addr = free()?;
        let peer = haproxy(self.setting.folder(), 4000, &[(addr, "", origin.to_string())])?;
        if peer.is_some() {
            let name = "HAProxy, one thread, no policy and no evidence";
            subjects.push(Subject::start(name, &mut load(format!("at={addr},{addr}")), Vec::new())?);
        }
        let mut inside = self.command(&policy, &self.setting.own);
        inside.args(["load", "name", &port, &port, "none"]);
        subjects.push(Subject::start("pipelock, transparent, a signed receipt a request", &mut inside, Vec::new())?);
        let rows = rounds(&mut subjects, &SMALL, ROUNDS)?;
        writeln!(
            table,
            "| HTTP/1.1, {CONNECTIONS} kept connections, small answers | requests/s | of direct |\n|---|---|---|"
        )?;
        let direct = rows.first().map_or(f64::NAN, |(_, figures)| figures.rate);
        for (name, figures) in &rows {
            writeln!(table, "| {name} | {:.0} | {:.2} |", figures.rate, figures.rate / direct)?;
        }
        if peer.is_none() {
            writeln!(table, "| HAProxy | not installed | |")?;
        }
        writeln!(table)?;
        Ok(())
    }

    fn starts(&self, table: &mut String) -> Result<()> {
        let policy = self.policy("127.0.0.1:80".parse()?, None)?;
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..STARTS {
            bare.push(timed(Command::new("true"))?);
            ours.push(timed(self.command(&policy, "true"))?);
        }
        let (bare, ours) = (median(&mut bare), median(&mut ours));
        writeln!(table, "| start and end | ms |\n|---|---|")?;
        writeln!(table, "| `true` | {:.1} |", bare.as_secs_f64() * 1e3)?;
        writeln!(
            table,
            "| `pipelock run -- true`, programs verified, evidence on disk | {:.1} |",
            ours.as_secs_f64() * 1e3
        )?;
        Ok(())
    }

    fn policy(&self, origin: SocketAddr, open: Option<SocketAddr>) -> Result<PathBuf> {
        let path = self.setting.folder().join(format!("policy-{}.yaml", self.number()));
        let loopback = open.map(|addr| format!("loopback:\n  allow: [{}]\n", addr.port())).unwrap_or_default();
        std::fs::write(
            &path,
            format!(
                "version: \"1.0\"\negress:\n  - destination: {HOST}\n    ports: [{}]\n    methods: [GET]\n    scan: false\n\
                 dns:\n  hosts:\n    {HOST}: 127.0.0.1\nssrf:\n  allow: [\"127.0.0.0/8\"]\n{loopback}",
                origin.port()
            ),
        )?;
        Ok(path)
    }

    fn number(&self) -> usize {
        self.evidence.set(self.evidence.get() + 1);
        self.evidence.get()
    }

    fn command(&self, policy: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(&self.setting.pipelock);
        command.args(["run", "--quiet", "--policy"]).arg(policy);
        command.arg("--evidence").arg(self.setting.folder().join(format!("evidence-{}", self.number())));
        command.arg("--").arg(program);
        command
    }

    fn bare<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<String> {
        output(Command::new(&self.setting.own).args(args))
    }

    fn inside<S: AsRef<std::ffi::OsStr>>(&self, policy: &Path, args: &[S]) -> Result<String> {
        output(self.command(policy, &self.setting.own).args(args))
    }
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn timed(mut command: Command) -> Result<Duration> {
    let start = Instant::now();
    ensure!(command.status()?.success(), "{command:?} failed");
    Ok(start.elapsed())
}

fn nanos(text: &str) -> Result<Duration> {
    Ok(Duration::from_nanos(text.parse().with_context(|| format!("not a number: {text}"))?))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
