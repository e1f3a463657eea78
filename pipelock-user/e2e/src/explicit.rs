//! `pipelock run` without a command: the proxy for clients that ask for it, and what it wrote down.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::clients::{PATH, node_path, python_path};
use crate::evidence::{pipelock, verify_json};
use crate::leaks::assert_untold;

/// A proxy of the test's own; killed when it is dropped.
pub struct Explicit {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub addr: String,
    /// The same of the reverse proxy, where there is one.
    pub reverse: Option<String>,
    /// A folder for files of the test; the policy and the evidence are in it, and `work`, where clients run.
    pub folder: TempDir,
    /// Collects what it says, until it ends.
    listening: Option<JoinHandle<String>>,
}

/// What a client of it was answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The status; 0 when there was none.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answered {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Explicit {
    /// Starts one on a port that is free.
    ///
    /// # Panics
    /// When it does not say where it listens.
    #[must_use]
    pub fn start(policy: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("policy.yaml"), policy).expect("write the policy");
        fs::create_dir(folder.path().join("work")).expect("mkdir");
        let mut child = Command::new(pipelock())
            .args(["run", "--policy", "policy.yaml", "--evidence", "evidence", "--listen", "127.0.0.1:0"])
            .args(more)
            .current_dir(folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start pipelock");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
        let (mut said, mut reverse) = (Vec::new(), None);
        let address = |rest: &str| rest.split(';').next().expect("an address").to_owned();
        let addr = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it did not start: {said:?}"));
            if let Some((_, rest)) = line.split_once("reverse proxy on http://") {
                reverse = Some(address(rest));
            } else if let Some((_, rest)) = line.split_once("proxy on http://") {
                break address(rest);
            }
            said.push(line);
        };
        let listening = std::thread::spawn(move || {
            said.extend(lines);
            said.join("\n")
        });
        Self { child, addr, reverse, folder, listening: Some(listening) }
    }

    /// Where a path of its own is.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Runs curl.
    ///
    /// # Panics
    /// When curl cannot be run.
    #[must_use]
    pub fn curl(&self, args: &[&str]) -> Answered {
        let out = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "", "--dump-header", "-"])
            .args(args)
            .output()
            .expect("curl");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        // Before the answer there may be that to CONNECT.
        let at = text.rfind("HTTP/1.1 ").unwrap_or(0);
        let (head, body) = text[at..].split_once("\r\n\r\n").unwrap_or((&text[at..], ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answered { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes another policy and has it read.
    ///
    /// # Panics
    /// When it cannot be written, or the process is gone.
    pub fn reload(&self, policy: &str) {
        fs::write(self.folder.path().join("policy.yaml"), policy).expect("write the policy");
        kill(Pid::from_raw(i32::try_from(self.pid()).expect("a pid")), Signal::SIGHUP).expect("kill");
    }

    /// Runs a client that is told of it, for two minutes at most: with nothing in its environment but HTTPS_PROXY, whom to trust
    /// (by `pipelock ca --export`), where modules are, and `more`; in [`Self::work`].
    ///
    /// # Panics
    /// When it cannot be run, or the files of whom to trust cannot be written.
    #[must_use]
    pub fn run(&self, words: &[&str], more: &[(&str, &str)]) -> Output {
        let (folder, url) = (self.folder.path(), self.url(""));
        let variables = folder.join("trust/trust.env");
        if !variables.exists() {
            let mut ca = Command::new(pipelock());
            let out = ca.args(["ca", "--policy", "policy.yaml", "--export", "trust"]).current_dir(folder).output();
            let out = out.expect("pipelock ca");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
        let trust = fs::read_to_string(variables).expect("the variables");
        Command::new("/usr/bin/timeout")
            .arg("120")
            .args(words)
            .env_clear()
            .envs([("PATH", PATH), ("PYTHONPATH", python_path()), ("NODE_PATH", node_path())])
            .env("HOME", self.work())
            .envs(trust.lines().filter_map(|line| line.split_once('=')))
            .envs([("HTTPS_PROXY", &url), ("https_proxy", &url)])
            .envs(more.iter().copied())
            .current_dir(self.work())
            .output()
            .expect("the client")
    }

    /// Where clients run.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// The folder of the evidence.
    #[must_use]
    pub fn evidence(&self) -> PathBuf {
        self.folder.path().join("evidence")
    }

    /// Ends it; its receipts, which verify. Neither the evidence nor what it said holds the secret of the tests.
    ///
    /// # Panics
    /// When it does not end well, its evidence does not verify, or the secret is there.
    #[must_use]
    pub fn end(mut self) -> Vec<Value> {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), Signal::SIGTERM).expect("kill");
        assert!(self.child.wait().expect("wait").success(), "it ends well");
        let (code, report) = verify_json(&self.evidence());
        assert_eq!(code, 0, "the evidence does not verify: {report:#}");
        let said = self.listening.take().expect("ended once").join().expect("what it said");
        assert_untold(&self.evidence(), said.as_bytes());
        let text = fs::read_to_string(self.evidence().join("receipts.json")).expect("receipts.json");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        value["receipts"].as_array().expect("a list").clone()
    }
}

impl Drop for Explicit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
