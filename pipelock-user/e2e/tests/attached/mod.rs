//! A cgroup of the test's own with processes in it, and `pipelock attach` to it.
//!
//! Used by `attach.rs` and `proxy_killed.rs`. Whatever a test leaves attached is detached, and the cgroup's processes are
//! killed and the cgroup is removed, when a [`Cage`] is dropped.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pipelock_e2e::{HttpServer, Outside, Sandbox, echo, pipelock, until};
use serde_json::Value;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What a program said and how it ended.
pub fn said(out: &Output) -> String {
    format!("{}\n{}{}", out.status, String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Where cgroup2 is mounted.
fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let is_cgroup2 = |line: &&str| line.split_once(" - ").is_some_and(|(_, kind)| kind.starts_with("cgroup2 "));
    let line = mounts.lines().find(is_cgroup2).expect("a cgroup2 mount");
    line.split(' ').nth(4).expect("a mount point").into()
}

/// A cgroup, and a folder with policy and evidence.
pub struct Cage {
    pub cgroup: PathBuf,
    pub files: Sandbox,
}

impl Cage {
    pub fn new(policy: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = cgroup2().join(format!("pl-e2e-{}-{number}", std::process::id()));
        fs::create_dir(&cgroup).expect("a cgroup");
        Self { cgroup, files: Sandbox::new(policy) }
    }

    /// `pipelock VERB --cgroup …`
    pub fn pipelock(&self, verb: &str) -> Command {
        let mut command = Command::new(pipelock());
        command.arg(verb).arg("--cgroup").arg(&self.cgroup).stdin(Stdio::null());
        // The authority that an attach makes is the test's own.
        command.env("STATE_DIRECTORY", self.files.work().join("state"));
        command
    }

    pub fn attach(&self, evidence: &Path) -> Command {
        let mut command = self.pipelock("attach");
        command.arg("--policy").arg(self.files.policy()).arg("--evidence").arg(evidence).arg("--detach");
        command.arg("--pid-file").arg(self.pid_file());
        command
    }

    fn pid_file(&self) -> PathBuf {
        self.files.work().join("pid")
    }

    /// Attaches, and it has to work; what was said.
    pub fn attached(&self, evidence: &Path) -> String {
        let out = self.attach(evidence).output().expect("pipelock attach");
        assert!(out.status.success(), "{}", said(&out));
        said(&out)
    }

    pub fn detached(&self) -> String {
        let out = self.pipelock("detach").output().expect("pipelock detach");
        assert!(out.status.success(), "{}", said(&out));
        said(&out)
    }

    /// Process id of the server.
    pub fn server(&self) -> i32 {
        fs::read_to_string(self.pid_file()).expect("the pid file").trim().parse().expect("a pid")
    }

    /// Kills the server, and waits until it is really gone.
    pub fn kill_server(&self) {
        let pid = self.server();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).expect("kill");
        // The first thread is called a zombie while others still hold the listeners: all of them have to be gone.
        until("the server's end", || {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
            let is_zombie = fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')));
            threads <= 1 && is_zombie
        });
    }

    /// What `pipelock status` says of this cgroup, and its exit code, which speaks for every attachment of the machine.
    pub fn status(&self) -> (Option<Value>, i32) {
        let out = Command::new(pipelock()).args(["status", "--json"]).output().expect("pipelock status");
        let all: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let all = all["attachments"].as_array().expect("a list").clone();
        // What a run of another test leaves for a moment is a cgroup without processes.
        let is_ok = all.iter().all(|one| match one["health"].as_str() {
            Some("ok" | "stale" | "changing") => true,
            Some("leftover") => one["populated"] == false,
            _ => false,
        });
        assert_eq!(out.status.code(), Some(i32::from(!is_ok)), "{all:#?}");
        let path = self.cgroup.to_str().expect("text");
        (all.into_iter().find(|one| one["cgroup"] == path), i32::from(!is_ok))
    }

    /// A command that joins the cgroup and then becomes `program`.
    pub fn inside(&self, program: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.cgroup.display());
        command.args(["-c", &join, "sh"]).args(program).current_dir(self.files.work());
        command.env("LANG", "C.UTF-8");
        command
    }

    /// A shell that lives in the cgroup.
    pub fn shell(&self) -> Shell {
        Shell::start(self.inside(&["/bin/sh", "-c", LOOP]))
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let rest = self.files.work().join("evidence-of-the-rest");
        let _ = self.pipelock("detach").arg("--evidence").arg(rest).output();
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        for _ in 0..500 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("{} could not be removed", self.cgroup.display());
    }
}

/// Runs lines, and says how each ended.
pub const LOOP: &str = "while read -r line; do (eval \"$line\") 2>&1 </dev/null; echo \"ended $?\"; done";

/// A shell that is told what to run; killed when dropped.
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Shell {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut shell = Self { child, stdin, stdout };
        assert_eq!(shell.run("true").0, 0, "the shell is there");
        shell
    }

    /// Runs a line: its exit code and what it printed.
    pub fn run(&mut self, line: &str) -> (i32, String) {
        writeln!(self.stdin, "{line}").expect("the shell lives");
        let mut text = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stdout.read_line(&mut line).expect("read") > 0, "the shell ended: {text}");
            if let Some(code) = line.strip_prefix("ended ") {
                return (code.trim().parse().expect("a code"), text);
            }
            text.push_str(&line);
        }
    }

    /// Whether an HTTP request is answered with 200.
    pub fn gets(&mut self, url: &str) -> bool {
        self.run(&format!("curl -sSf -o /dev/null -m 20 {url}")).0 == 0
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child that is killed when dropped.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A policy that allows these names on the server, and nothing else.
pub fn allow(names: &[&str], server: &HttpServer) -> String {
    let rules: Vec<_> =
        names.iter().map(|name| format!("{{destination: {name}, ports: [{}], scan: false}}", server.port())).collect();
    format!(
        "egress: [{}]\ndns: {{hosts: {{web.test: \"127.0.0.1\", new.test: \"127.0.0.1\"}}}}\n\
         ssrf: {{allow: [\"127.0.0.0/8\"]}}",
        rules.join(", ")
    )
}

/// The capsule of an evidence folder: what enforced.
pub fn capsule(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("receipts.json")).expect("receipts.json");
    let all: Value = serde_json::from_str(&text).expect("JSON");
    let receipts = all["receipts"].as_array().expect("a list");
    receipts.iter().find_map(|receipt| receipt["ext"].get("capsule_v1")).expect("a capsule").clone()
}

/// Connects from many threads, as fast as it can, to hosts outside and to web.test, until `stop` is there; then says how
/// many of the connects that began after `killed` and ended before `back` succeeded.
const STORM: &str = r#"
import collections, http.client, json, os, socket, sys, threading, time
outside, port, other, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
there = lambda name: os.path.exists(os.path.join(folder, name))
counts, lock = collections.Counter(), threading.Lock()
web = socket.getaddrinfo("web.test", port, socket.AF_INET, socket.SOCK_STREAM)[0][4]
def attempt(name, act):
    is_dead = there("killed") and not there("back")
    try:
        act()
        result = "ok"
    except Exception as error:
        result = "fail"
        with lock:
            counts[name + " " + repr(error)] += 1
    if is_dead:
        # An attempt that was still under way when the proxy came back says nothing.
        is_dead = not there("back")
        when = "dead" if is_dead else "between"
    else:
        when = "between" if there("killed") else "before"
        if there("back"):
            when = "back"
    with lock:
        counts[name + "_" + when + "_" + result] += 1
        if counts[name + "_" + when + "_" + result] == 20:
            open(os.path.join(folder, name + "_" + when + "_" + result), "w").close()
def connect(target):
    socket.create_connection(target, 20).close()
def udp(target):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        s.sendto(b"storm", target)
    finally:
        s.close()
def get():
    client = http.client.HTTPConnection("web.test", port, timeout=20)
    try:
        client.request("GET", "/")
        if client.getresponse().status != 200:
            raise OSError("no 200")
    finally:
        client.close()
def run(name, act):
    while not there("stop"):
        attempt(name, act)
        # Evidence is to be complete, so the table of flows is not to overflow before receipts are written.
        time.sleep(0.002)
acts = [("direct", lambda: connect((outside, port))), ("other", lambda: connect((outside, other))),
        ("udp", lambda: udp((outside, port))), ("web", lambda: connect(web)), ("get", get)]
threads = [threading.Thread(target=run, args=act) for act in acts]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(counts))
"#;

/// What a storm is aimed at: a server that the policy allows, and two listeners outside that nobody may reach, one of them
/// on the port that the policy allows.
pub struct Aims {
    pub outside: Outside,
    pub server: HttpServer,
    allowed_port: HttpServer,
    other_port: HttpServer,
}

impl Aims {
    pub fn new() -> Self {
        let outside = Outside::new();
        let server = HttpServer::start("127.0.0.1:0");
        let bind = |port| outside.enter(|| TcpListener::bind((outside.there4, port)).expect("bind"));
        let allowed_port = HttpServer::with(bind(server.port()), echo);
        let other_port = HttpServer::with(bind(if server.port() == 9999 { 9998 } else { 9999 }), echo);
        Self { outside, server, allowed_port, other_port }
    }

    pub fn storm(&self, cage: &Cage) -> Storm {
        Storm::start(cage, self.outside.there4.into(), self.server.port(), self.other_port.port())
    }

    /// Nobody has reached what nobody may reach.
    pub fn assert_missed(&self, counts: &Value) {
        assert_eq!((self.allowed_port.connections(), self.other_port.connections()), (0, 0), "{counts:#}");
    }
}

/// A storm of connects from inside the cgroup.
pub struct Storm {
    child: Guard,
    folder: PathBuf,
}

impl Storm {
    /// `outside` and `port`: a listener there, on the port that the policy allows; `other`: one that it does not.
    fn start(cage: &Cage, outside: std::net::IpAddr, port: u16, other: u16) -> Self {
        let folder = cage.files.work();
        let (outside, port, other) = (outside.to_string(), port.to_string(), other.to_string());
        let args = ["python3", "-c", STORM, &outside, &port, &other, folder.to_str().expect("text")];
        let child = cage.inside(&args).stdout(Stdio::piped()).spawn().expect("python3");
        Self { child: Guard(child), folder }
    }

    /// Waits until something happened twenty times.
    pub fn wait_for(&mut self, what: &str) {
        until(what, || {
            assert!(self.child.0.try_wait().expect("wait").is_none(), "the storm ended before {what}");
            self.folder.join(what).exists()
        });
    }

    /// Tells the storm where the test has come to.
    pub fn mark(&self, what: &str) {
        fs::write(self.folder.join(what), "").expect("write");
    }

    /// Ends it: what it counted.
    pub fn end(mut self) -> Value {
        self.mark("stop");
        let mut stdout = BufReader::new(self.child.0.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("read");
        serde_json::from_str(&line).expect("JSON")
    }
}
