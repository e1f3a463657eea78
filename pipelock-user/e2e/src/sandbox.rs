//! One `pipelock run`: policy, command, and what came out of it.
//!
//! Used by every test. The command's environment is made from nothing, so no proxy variable of the machine's reaches a
//! client; everything lies in a temporary folder that the agent's user can read.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clients::PATH;
use crate::evidence::{Evidence, pipelock};

/// Longest that a run may take before the test kills it.
const LIMIT: Duration = Duration::from_secs(100);

/// A policy and how to run a command under it.
pub struct Sandbox {
    dir: tempfile::TempDir,
    options: Vec<OsString>,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
    prefix: Vec<OsString>,
    plain: bool,
}

/// What a run left.
pub struct Run {
    /// How pipelock ended.
    pub status: ExitStatus,
    /// What the command printed.
    pub stdout: Vec<u8>,
    /// What the command and pipelock said.
    pub stderr: String,
    /// The evidence, verified.
    pub evidence: Evidence,
    // Kept so that the folder lives as long as the run is looked at.
    _dir: tempfile::TempDir,
}

impl Sandbox {
    /// A sandbox with this policy (without its `version:` line).
    ///
    /// # Panics
    /// When no temporary folder can be made.
    #[must_use]
    pub fn new(policy: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("pipelock-e2e-").tempdir().expect("a temporary folder");
        open_up(dir.path(), 0o755);
        let sandbox =
            Self { dir, options: Vec::new(), env: Vec::new(), stdin: Vec::new(), prefix: Vec::new(), plain: false };
        sandbox.set_policy(policy);
        fs::create_dir(sandbox.work()).expect("mkdir");
        open_up(&sandbox.work(), 0o777);
        sandbox
    }

    /// Replaces the policy file (for a reload).
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn set_policy(&self, policy: &str) {
        fs::write(self.policy(), format!("version: \"1.0\"\n{policy}\n")).expect("write the policy");
    }

    /// The policy file.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.dir.path().join("policy.yaml")
    }

    /// A folder that the agent may write to; also its working folder and HOME.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Where the evidence goes.
    #[must_use]
    pub fn evidence(&self) -> PathBuf {
        self.dir.path().join("evidence")
    }

    /// Puts a file into the working folder, open to all; its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(name);
        fs::write(&path, content).expect("write");
        open_up(&path, 0o777);
        path
    }

    /// Another option of `pipelock run`.
    #[must_use]
    pub fn option(mut self, option: impl Into<OsString>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Runs all of it, proxy included, in the network namespace outside.
    #[must_use]
    pub fn inside(mut self, outside: &crate::Outside) -> Self {
        self.prefix = vec!["nsenter".into(), format!("--net={}", outside.path().display()).into()];
        self
    }

    /// Starts the command itself, and not through `env`, which has exit codes of its own.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// The agent's user.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        self.option("--user").option(user)
    }

    /// A variable of the agent's environment.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// What the command reads.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// The whole command line, ready to be started; for tests that wire up more than pipes.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, command: &[S]) -> Command {
        let mut words: Vec<OsString> = self.prefix.clone();
        words.push(pipelock().into());
        let mut run = Command::new(&words[0]);
        run.args(&words[1..]).arg("run").arg("--policy").arg(self.policy()).arg("--evidence").arg(self.evidence());
        run.args(&self.options).arg("--");
        if !self.plain {
            // pipelock sets HOME to the user's own, which nobody does not have.
            run.arg("/usr/bin/env").arg(format!("HOME={}", self.work().display()));
        }
        run.args(command).env_clear().env("PATH", PATH).env("LANG", "C.UTF-8").current_dir(self.work());
        // The authority that a run makes is the test's own.
        run.env("STATE_DIRECTORY", self.dir.path().join("state"));
        run.envs(self.env.iter().map(|(key, value)| (key, value)));
        run
    }

    /// Runs a command to its end and reads the evidence.
    ///
    /// # Panics
    /// When it takes too long or the evidence does not verify.
    #[must_use]
    pub fn run<S: AsRef<OsStr>>(self, command: &[S]) -> Run {
        self.spawn(command).wait()
    }

    /// Runs a command that has to end with 0.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    pub fn run_ok<S: AsRef<OsStr>>(self, command: &[S]) -> Run {
        let run = self.run(command);
        assert_eq!(run.code(), 0, "{run}");
        run
    }

    /// Runs two scripts of sh, which have to succeed, with what they find in `$1` and on; and by how much the memory of the
    /// pipelock process rose at most while the second ran, in KiB. In the first it comes to hold what it needs once.
    ///
    /// # Panics
    /// As [`Self::run_ok`].
    #[must_use]
    pub fn run_measured(self, first: &str, script: &str, arguments: &[&str]) -> (Run, u64) {
        let script = format!(
            "set -e\n{first}\ntouch ready; while [ ! -e go ]; do sleep 0.01; done\n\
             {script}\ntouch done; while [ ! -e stop ]; do sleep 0.01; done"
        );
        let mut running = self.spawn(&[&["sh", "-c", &script, "sh"], arguments].concat());
        running.wait_for("ready");
        let before = running.forget_memory_peak();
        running.sandbox.file("go", "");
        running.wait_for("done");
        let peak = running.memory_peak();
        // Rules, their database and what one process of its kind needs before it does anything: most of it is not the test's.
        assert!(peak < 512 * 1024, "{peak} KiB in all");
        let rise = peak.saturating_sub(before);
        running.sandbox.file("stop", "");
        let run = running.wait();
        assert_eq!(run.code(), 0, "{run}");
        (run, rise)
    }

    /// Starts a command and leaves it running.
    ///
    /// # Panics
    /// When pipelock cannot be started.
    #[must_use]
    pub fn spawn<S: AsRef<OsStr>>(self, command: &[S]) -> Running {
        let mut child = self
            .command(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start pipelock");
        let mut stdin = child.stdin.take().expect("piped");
        let bytes = self.stdin.clone();
        std::thread::spawn(move || {
            // A command that does not read its input is no failure.
            let _ = stdin.write_all(&bytes);
        });
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        Running { child, stdout, stderr, sandbox: self }
    }
}

/// A run that goes on.
pub struct Running {
    /// The pipelock process.
    pub child: Child,
    /// Its files.
    pub sandbox: Sandbox,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Running {
    /// Waits until a file in the working folder is there: how an agent says that it has come somewhere.
    ///
    /// # Panics
    /// When it never is.
    pub fn wait_for(&mut self, name: &str) {
        let path = self.sandbox.work().join(name);
        let deadline = Instant::now() + LIMIT;
        while !path.exists() {
            if let Some(status) = self.child.try_wait().expect("wait") {
                let mut said = |from: fn(&mut Self) -> &mut JoinHandle<Vec<u8>>| {
                    let rest = std::mem::replace(from(self), std::thread::spawn(Vec::new)).join().expect("a reader");
                    String::from_utf8_lossy(&rest).into_owned()
                };
                let (out, err) = (said(|this| &mut this.stdout), said(|this| &mut this.stderr));
                panic!("pipelock ended before {name} was there: {status}\n{out}{err}");
            }
            assert!(Instant::now() < deadline, "{name} never came");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Lets the peak begin anew from what the pipelock process holds now, which is told in KiB: proc(5), `clear_refs`.
    fn forget_memory_peak(&self) -> u64 {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").expect("it runs");
        self.memory_peak()
    }

    /// The most memory that the pipelock process has held so far, in KiB.
    fn memory_peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends a signal to the pipelock process.
    ///
    /// One that is to stop has stopped, in all its threads, when this returns.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("kill");
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let status = task.and_then(|task| std::fs::read_to_string(task.path().join("status")));
            status.is_ok_and(|status| status.contains("\nState:\tT"))
        };
        while signal == nix::sys::signal::Signal::SIGSTOP
            && !std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").all(is_stopped)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Makes pipelock read its policy again, by the signal that `pipelock reload` sends.
    ///
    /// # Panics
    /// When it is gone.
    pub fn reload(&self) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        // SAFETY: plain numbers; the child is ours and not yet waited for.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGRTMIN() + 2) }, 0, "pipelock is gone");
    }

    /// Waits for the end without looking at the evidence: status, stdout, stderr, and the folders.
    ///
    /// # Panics
    /// When it takes too long.
    #[must_use]
    pub fn end(mut self) -> (ExitStatus, Vec<u8>, String, Sandbox) {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("pipelock run took longer than {LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        let stdout = self.stdout.join().expect("stdout");
        let stderr = String::from_utf8_lossy(&self.stderr.join().expect("stderr")).into_owned();
        (status, stdout, stderr, self.sandbox)
    }

    /// Waits for the end and reads the evidence.
    ///
    /// # Panics
    /// When it takes too long or the evidence does not verify.
    #[must_use]
    pub fn wait(self) -> Run {
        let (status, stdout, stderr, sandbox) = self.end();
        assert!(sandbox.evidence().exists(), "no evidence was written; pipelock said: {stderr}");
        let evidence = Evidence::read(&sandbox.evidence());
        Run { status, stdout, stderr, evidence, _dir: sandbox.dir }
    }
}

impl Run {
    /// What ran otherwise, as if it had been a run that ended well.
    #[must_use]
    pub fn of(stdout: &[u8], evidence: Evidence, sandbox: Sandbox) -> Self {
        Self {
            status: ExitStatus::default(),
            stdout: stdout.to_vec(),
            stderr: String::new(),
            evidence,
            _dir: sandbox.dir,
        }
    }

    /// The exit code.
    ///
    /// # Panics
    /// When pipelock itself died of a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().expect("pipelock passes signals on as a code")
    }

    /// What the command printed, as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What the command printed, one JSON value a line.
    ///
    /// # Panics
    /// When a line is not JSON.
    #[must_use]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self}"))).collect()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}\n--- stdout\n{}\n--- stderr\n{}", self.status, self.text(), self.stderr)?;
        for flow in self.evidence.flows() {
            writeln!(
                f,
                "flow {} {}/{} {}({}) {} {} name {:?} by {:?}",
                flow.id,
                flow.verdict,
                flow.reason,
                flow.comm,
                flow.tgid,
                flow.proto,
                flow.orig_dst,
                flow.name,
                flow.rule
            )?;
        }
        Ok(())
    }
}

fn collect(mut pipe: impl std::io::Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

pub(crate) fn open_up(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}
