//! `pipelock doctor`: has every client that is installed connect over TLS that is opened, and says which ones trust it.
//!
//! As root it runs each as `run` would, so that what it finds is what an agent finds: kernel, mounts, variables and all.
//! Otherwise only the variables are tried. It asks nobody but a server of its own on loopback.

mod clients;

use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use pipelock_receipt::folder::EVIDENCE;
use serde_json::{Value, json};

use self::clients::{CLIENTS, Client, Goal};
use super::{Failure, keys, output};
use crate::app::probe::Probe;
use crate::app::{TrustFiles, make_folder};
use crate::flow::{Host, Reason};
use crate::policy::Policy;
use crate::proxy::{CertificateAuthority, Trust};
use crate::sandbox::spawn::AgentUser;

/// Longest that one client may take; Java and npm take seconds on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// How long one that was told to end may take; `run` ends what it started meanwhile.
const GRACE: Duration = Duration::from_secs(10);
/// How often is looked whether a client has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// Most bytes of what a client said that are kept.
const MOST_SAID: usize = 1 << 20;
/// The code by which a script says that what it needs is not there.
const NOT_INSTALLED: i32 = 77;
/// The codes of shells and of `run` for a program that cannot be executed, or is not there.
const NOT_RUN: [i32; 2] = [126, 127];
/// The name that is asked for.
const NAME: &str = "doctor.pipelock.test";

/// Try which of the installed clients work over TLS that pipelock opens.
///
/// Runs curl, git, Python, Node.js, Java, Go and others, as far as they are installed, against a server of its own, and says
/// of each whether it trusts pipelock's authority and what to do if not. As root each is run as `pipelock run` would run it;
/// otherwise only the variables are tried.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 all that are installed and can be run work · 1 one does not")]
pub(super) struct Args {
    /// The policy, for the authority that it names (tls.ca_cert).
    #[arg(long, short, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// As root: run the clients as this user, as for `run`.
    #[arg(long, short, value_name = "NAME")]
    user: Option<String>,
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
    /// Only these clients.
    #[arg(value_name = "CLIENT")]
    only: Vec<String>,
}

/// What came of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Works,
    Distrusts,
    Failed,
    NotRun,
    NotInstalled,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Distrusts => "does not trust",
            Self::Failed => "did not connect",
            Self::NotRun => "cannot be run",
            Self::NotInstalled => "not installed",
        }
    }
}

pub(super) fn doctor(args: &Args) -> Result<u8, Failure> {
    if let Some(unknown) = args.only.iter().find(|name| !CLIENTS.iter().any(|client| client.key == **name)) {
        let known: Vec<_> = CLIENTS.iter().map(|client| client.key).collect();
        return Err(Failure::usage(format!("{unknown} is not a client that is known: {}", known.join(", "))));
    }
    let office = Office::open(args)?;
    let wanted =
        CLIENTS.iter().filter(|client| args.only.is_empty() || args.only.iter().any(|name| name == client.key));
    let mut all_work = true;
    let mut rows = Vec::new();
    if !args.json {
        output::note(office.mode());
        output::line(&format!("{:<10} {:<16} what to do", "client", "result"));
    }
    for client in wanted {
        let (outcome, detail) = office.examine(client)?;
        all_work &= matches!(outcome, Outcome::Works | Outcome::NotRun | Outcome::NotInstalled);
        let advice = match outcome {
            Outcome::Works | Outcome::NotInstalled => "",
            Outcome::NotRun => "not by this user; try another with --user",
            Outcome::Distrusts => client.advice,
            Outcome::Failed => "see what it said; this says nothing about trust",
        };
        if args.json {
            rows.push(json!({
                "client": client.key,
                "path": client.installed(),
                "result": outcome.word(),
                "detail": detail,
                "what_to_do": advice,
            }));
        } else {
            output::line(format!("{:<10} {:<16} {advice}", client.key, outcome.word()).trim_end());
            for line in detail.lines().take(3) {
                output::line(&format!("{:<10}   {line}", ""));
            }
        }
    }
    if args.json {
        let report = json!({ "mode": office.mode(), "all_work": all_work, "clients": Value::from(rows) });
        output::line(&serde_json::to_string_pretty(&report)?);
    }
    Ok(u8::from(!all_work))
}

/// Where clients are examined: a server, and files that go when this is dropped.
struct Office {
    folder: PathBuf,
    probe: Probe,
    /// Set for clients that are not run by `run`.
    variables: Vec<(&'static str, std::ffi::OsString)>,
    /// Who runs the clients: ours, without root.
    agent: AgentUser,
    is_root: bool,
    user: Option<String>,
}

impl Drop for Office {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Office {
    fn open(args: &Args) -> Result<Self, Failure> {
        let is_root = nix::unistd::geteuid().is_root();
        let agent = match &args.user {
            Some(name) => AgentUser::named(name).map_err(Failure::usage)?,
            None => AgentUser::by_default(|name| std::env::var_os(name))?,
        };
        let given = keys::policy(args.policy.as_deref(), true)?;
        let server = Arc::new(CertificateAuthority::for_now()?);
        let name = if is_root { NAME } else { "localhost" };
        let host = Host::parse(name).map_err(|error| format!("{name}: {error}"))?;
        let probe = Probe::start(&server, &host)?;
        let folder = std::env::temp_dir().join(format!("pipelock-doctor-{}", keys::run_id()?));
        let made = make_folder(&folder, 0o755)?;
        // From here on it goes with the office.
        let user = args.user.clone();
        let mut office = Self { folder: folder.clone(), probe, variables: Vec::new(), agent, is_root, user };
        // Only we make entries in it: a client that could would have us open whatever its link leads to.
        make_folder(&folder.join("home"), 0o755)?;
        if is_root {
            std::fs::write(folder.join("server.pem"), server.pem())?;
            std::fs::write(
                folder.join("policy.yaml"),
                policy(&given, &folder, office.probe.address.port()).to_string(),
            )?;
        } else {
            let files = TrustFiles::write(made, &folder, &Trust::gather(&Policy::deny_all(), &server)?)?;
            office.variables = files.variables();
        }
        Ok(office)
    }

    /// The folder of a client, which nobody else may put anything into: what it is told there is done as the agent.
    fn home(&self, client: &Client) -> std::io::Result<PathBuf> {
        let home = self.folder.join("home").join(client.key);
        make_folder(&home, 0o700)?;
        if self.is_root {
            std::os::unix::fs::chown(&home, Some(self.agent.uid), Some(self.agent.gid))?;
        }
        Ok(home)
    }

    fn mode(&self) -> &'static str {
        if self.is_root {
            "each client is run as `pipelock run` would run it"
        } else {
            "not root: only the variables are tried; `run` covers the system's bundle as well"
        }
    }

    fn examine(&self, client: &Client) -> Result<(Outcome, String), Failure> {
        if client.installed().is_none() {
            return Ok((Outcome::NotInstalled, String::new()));
        }
        let home = self.home(client)?;
        let name = if self.is_root { NAME } else { "localhost" };
        let authority = format!("{name}:{}", self.probe.address.port());
        let goal = Goal { url: format!("https://{authority}/{}", client.key), authority: &authority, folder: &home };
        let words = (client.command)(&goal);
        let mut command = if self.is_root { self.as_run(client) } else { Command::new("/usr/bin/env") };
        command
            .arg(format!("HOME={}", home.display()))
            .args(words)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        let (code, said) = finish(command.current_dir(&home), LIMIT, GRACE)?;
        if self.probe.has_seen(client.key) {
            return Ok((Outcome::Works, String::new()));
        }
        let outcome = match code {
            Some(NOT_INSTALLED) => Outcome::NotInstalled,
            Some(code) if NOT_RUN.contains(&code) => Outcome::NotRun,
            _ if said.contains(Reason::ClientPinned.code()) || self.was_distrusted(client) || is_distrust(&said) => {
                Outcome::Distrusts
            }
            _ => Outcome::Failed,
        };
        Ok((outcome, if outcome == Outcome::NotInstalled { String::new() } else { shown(&said) }))
    }

    /// A command that is run as an agent's, with `env` for its first word.
    fn as_run(&self, client: &Client) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "pipelock".into()));
        command.args(["run", "--quiet", "--policy"]).arg(self.folder.join("policy.yaml"));
        command.arg("--evidence").arg(self.evidence(client));
        command.args(self.user.iter().flat_map(|user| ["--user", user])).args(["--", "/usr/bin/env"]);
        command
    }

    fn evidence(&self, client: &Client) -> PathBuf {
        self.folder.join(format!("evidence-{}", client.key))
    }

    /// Whether the evidence says that the client refused the certificate.
    fn was_distrusted(&self, client: &Client) -> bool {
        let text = std::fs::read_to_string(self.evidence(client).join(EVIDENCE)).unwrap_or_default();
        text.contains(&format!("\"{}\"", Reason::ClientPinned.code()))
    }
}

/// The policy that a client is run under: with the authority of the one that was given.
fn policy(given: &Policy, folder: &Path, port: u16) -> Value {
    let absolute = |path: &Path| std::path::absolute(given.locate(path)).unwrap_or_else(|_| path.to_owned());
    let mut tls = json!({ "extra_roots": [folder.join("server.pem")] });
    if let (Some(pair), Value::Object(tls)) = (&given.tls().authority, &mut tls) {
        tls.insert("ca_cert".into(), json!(absolute(&pair.certificate)));
        tls.insert("ca_key".into(), json!(absolute(&pair.key)));
    }
    json!({
        "version": "1.0",
        "egress": [{ "destination": NAME, "ports": [port] }],
        "dns": { "hosts": { NAME: "127.0.0.1" } },
        "ssrf": { "allow": ["127.0.0.0/8"] },
        "tls": tls,
    })
}

/// Runs a command to its end, or until `limit` and at most `grace` after it; its code, and what it said.
///
/// It has a process group of its own, of which nothing is left; what left the group is not waited for.
fn finish(command: &mut Command, limit: Duration, grace: Duration) -> Result<(Option<i32>, String), Failure> {
    let (mut said, writer) = std::io::pipe()?;
    fcntl(said.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let mut child = command.process_group(0).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    let group = Pid::from_raw(i32::try_from(child.id())?);
    let mut text = Vec::new();
    let mut status = wait(&mut child, limit, || drain(&mut said, &mut text));
    if let Ok(None) = status {
        // `run` ends what it started when it is told to; it does not when it is killed.
        let _ = killpg(group, Signal::SIGTERM);
        status = wait(&mut child, grace, || drain(&mut said, &mut text));
    }
    // Also what a client that ended has left running.
    let _ = killpg(group, Signal::SIGKILL);
    let status = match status? {
        Some(status) => status,
        None => child.wait()?,
    };
    drain(&mut said, &mut text);
    Ok((status.code(), String::from_utf8_lossy(&text).into_owned()))
}

/// Waits for the end of a process, at most so long; calls `meanwhile` all along.
fn wait(child: &mut Child, limit: Duration, mut meanwhile: impl FnMut()) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        meanwhile();
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > deadline {
            return Ok(ended);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Reads what is there, so that whoever writes it can go on; a bounded piece, as more may come for ever.
fn drain(said: &mut impl std::io::Read, text: &mut Vec<u8>) {
    let mut piece = [0; 1 << 16];
    for _ in 0..16 {
        let Ok(length @ 1..) = said.read(&mut piece) else { return };
        let room = MOST_SAID.saturating_sub(text.len()).min(length);
        text.extend(piece.iter().take(room));
    }
}

/// What clients say when they do not trust a certificate, for those that hang up without an alert.
fn is_distrust(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    ["certificate", "self-signed", "self signed", "unable to get local issuer", "pkix"]
        .iter()
        .any(|word| said.contains(word))
}

/// The lines that tell most, without control characters.
fn shown(said: &str) -> String {
    let lines = said.lines().map(|line| line.chars().filter(|c| !c.is_control()).take(160).collect::<String>());
    let lines: Vec<_> = lines.filter(|line| !line.trim().is_empty()).collect();
    let first = lines.len().saturating_sub(3);
    lines.get(first..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn clients_can_put_nothing_beside_their_own_folders() {
        let args = Args { policy: None, user: None, json: false, only: Vec::new() };
        let office = Office::open(&args).expect("an office");
        for folder in [office.folder.clone(), office.folder.join("home")] {
            let mode = std::fs::metadata(&folder).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o7777, 0o755, "{}", folder.display());
        }
        let home = std::fs::metadata(office.home(&CLIENTS[0]).expect("a home")).expect("it is there");
        assert_eq!((home.permissions().mode() & 0o7777, home.uid()), (0o700, office.agent.uid));
    }

    #[test]
    fn no_client_takes_longer_than_it_may() {
        let short = Duration::from_millis(300);
        let run = |script: &str, limit| {
            let start = Instant::now();
            let said = finish(Command::new("sh").args(["-c", script]), limit, short).expect("it can be run");
            assert!(start.elapsed() < Duration::from_secs(10), "{script}");
            said
        };
        // Deaf to SIGTERM, as is what it starts, which says who it is and keeps the pipe open.
        let (code, said) = run("trap '' TERM; sleep 60 & echo $!; wait; sleep 60", short);
        assert_eq!(code, None);
        let left = Pid::from_raw(said.trim().parse().expect("a process"));
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{left}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        assert!(
            (0..100).any(|_| gone() || {
                std::thread::sleep(PAUSE);
                false
            }),
            "{left} lives"
        );
        // It ended, and left somebody in another group.
        assert_eq!(run("echo said; setsid sleep 15 & exit 3", LIMIT), (Some(3), "said\n".to_owned()));
        // More than the pipe holds.
        let (code, said) = run("head -c 3000000 /dev/zero; exit 4", LIMIT);
        assert_eq!((code, said.len()), (Some(4), MOST_SAID));
    }
}
