//! `cargo xtask bench kernel`: what the hooks cost a connect, what the transparent proxy gives, what a start takes.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::load::{median, origin};
use crate::peers::haproxy;

const ROUNDS: usize = 5;
const CONNECTS: &str = "4000";
const REQUESTS: &str = "40000";
const CONNECTIONS: &str = "16";
const STARTS: usize = 20;

struct Bench {
    pipelock: PathBuf,
    own: PathBuf,
    folder: tempfile::TempDir,
    evidence: std::cell::Cell<usize>,
}

/// Runs the suite, prints the table and writes it to bench/results/kernel.md; or one part of it, which is only printed.
pub(crate) fn run(part: Option<&str>) -> Result<()> {
    let bench = Bench {
        pipelock: std::env::var_os("PIPELOCK_BIN")
            .context("PIPELOCK_BIN is not set; use cargo xtask bench kernel")?
            .into(),
        own: std::env::current_exe()?,
        folder: tempfile::tempdir()?,
        evidence: std::cell::Cell::new(0),
    };
    // The agent is another user and has to reach this program.
    let shared = PathBuf::from("/tmp").join(format!("pipelock-bench-{}", std::process::id()));
    std::fs::copy(&bench.own, &shared)?;
    let bench = Bench { own: shared.clone(), ..bench };
    let result = bench.measure(part);
    let _ = std::fs::remove_file(shared);
    let table = result?;
    println!("{table}");
    if part.is_some() {
        return Ok(());
    }
    let results = Path::new("bench/results");
    std::fs::create_dir_all(results)?;
    std::fs::write(results.join("kernel.md"), table)?;
    Ok(())
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
        let origin = origin()?;
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
        let origin = origin()?;
        let policy = self.policy(origin, None)?;
        let peer = haproxy(origin, self.folder.path())?;
        let (mut direct, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            eprintln!("http: round {} of {ROUNDS}", round + 1);
            let load =
                |host: &str, port: u16| ["http", host, &port.to_string(), REQUESTS, CONNECTIONS].map(str::to_owned);
            direct.push(rate(&self.bare(&load("127.0.0.1", origin.port()))?)?);
            ours.push(rate(&self.inside(&policy, &load("web.bench", origin.port()))?)?);
            if let Some(peer) = &peer {
                theirs.push(rate(&self.bare(&load("127.0.0.1", peer.addr.port()))?)?);
            }
        }
        let direct = middle(&mut direct);
        writeln!(
            table,
            "| HTTP/1.1, {CONNECTIONS} kept connections, small answers | requests/s | of direct |\n|---|---|---|"
        )?;
        writeln!(table, "| direct | {direct:.0} | 1.00 |")?;
        if theirs.is_empty() {
            writeln!(table, "| HAProxy | not installed | |")?;
        } else {
            let theirs = middle(&mut theirs);
            writeln!(
                table,
                "| HAProxy, one thread, no policy and no evidence | {theirs:.0} | {:.2} |",
                theirs / direct
            )?;
        }
        let ours = middle(&mut ours);
        writeln!(table, "| pipelock, transparent, a signed receipt a request | {ours:.0} | {:.2} |\n", ours / direct)?;
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
        let path = self.folder.path().join(format!("policy-{}.yaml", self.number()));
        let loopback = open.map(|addr| format!("loopback:\n  allow: [{}]\n", addr.port())).unwrap_or_default();
        std::fs::write(
            &path,
            format!(
                "version: \"1.0\"\negress:\n  - destination: web.bench\n    ports: [{}]\n    methods: [GET]\n    scan: false\n\
                 dns:\n  hosts:\n    web.bench: 127.0.0.1\nssrf:\n  allow: [\"127.0.0.0/8\"]\n{loopback}",
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
        let mut command = Command::new(&self.pipelock);
        command.args(["run", "--quiet", "--policy"]).arg(policy);
        command.arg("--evidence").arg(self.folder.path().join(format!("evidence-{}", self.number())));
        command.arg("--").arg(program);
        command
    }

    fn bare<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Result<String> {
        output(Command::new(&self.own).args(args))
    }

    fn inside<S: AsRef<std::ffi::OsStr>>(&self, policy: &Path, args: &[S]) -> Result<String> {
        output(self.command(policy, &self.own).args(args))
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

fn rate(text: &str) -> Result<f64> {
    text.parse().with_context(|| format!("not a number: {text}"))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn middle(rates: &mut [f64]) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

pub(crate) fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    format!("{cores} cores, Linux {kernel}")
}
