//! What the tests of the sandbox room share: cgroups that are removed again, and agents started by a second run of the
//! test binary ([`helper`]), because an agent's parent takes over the standard descriptors, the signals and the terminal.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use pipelock::sandbox::cgroup::Cgroup;
use pipelock::sandbox::spawn::{AgentCommand, AgentUser};

/// What stands in the output before the agent's own.
pub const MARK: &str = "<<<agent>>>";

/// The arguments of a test binary that make it run [`helper`] alone.
pub const HELPER: [&str; 4] = ["--exact", "sandboxed::helper", "--nocapture", "--test-threads=1"];

pub fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("pipelock-test-{}-{}-{what}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A cgroup that is emptied and removed when the test ends, however it ends.
pub struct Temp(pub Cgroup);

impl Temp {
    pub fn new(what: &str) -> Self {
        Self(Cgroup::create_child(&unique(what)).expect("create"))
    }

    /// A process in it, by a shell that moves itself first.
    pub fn run(&self, script: &str) -> std::process::Child {
        let script = format!("echo 0 > '{}/cgroup.procs' && {script}", self.0.path().display());
        Command::new("sh").arg("-c").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh")
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = self.0.kill_all();
        let _ = self.0.wait_empty(Duration::from_secs(5));
        self.0.remove().expect("remove");
    }
}

/// Not a test: the second run of this binary, which starts `PIPELOCK_ARGS` (separated by U+001F) as the agent of user
/// `PIPELOCK_USER`, exits as it exited, and writes that into `PIPELOCK_EVIDENCE` before.
#[test]
fn helper() {
    let Ok(args) = std::env::var("PIPELOCK_ARGS") else { return };
    let user = match std::env::var("PIPELOCK_USER") {
        Ok(name) => AgentUser::named(&name).expect("user"),
        Err(_) => AgentUser::by_default(|_| None).expect("user"),
    };
    // Something that must not be inherited: a network socket without close-on-exec.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    nix::fcntl::fcntl(&socket, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty())).expect("fcntl");
    let mut args = args.split('\u{1f}').map(std::ffi::OsString::from);
    let command = AgentCommand::new(args.next().expect("program"), args, user)
        .seccomp(std::env::var_os("PIPELOCK_NO_SECCOMP").is_none())
        .env_remove("PIPELOCK_ARGS");
    let group = Cgroup::create_child(&unique("agent")).expect("create");
    println!("{MARK}");
    let code = match command.spawn(&group) {
        Ok(mut agent) => {
            // An agent that asks for a socket which the filter refuses waits for our answer.
            if let Some(refusals) = agent.take_refusals() {
                #[allow(clippy::disallowed_methods, reason = "a test")]
                std::thread::spawn(move || refusals.serve(&AtomicBool::new(false), |_| {}));
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            let exit = runtime.block_on(agent.wait()).expect("wait");
            if let Ok(path) = std::env::var("PIPELOCK_EVIDENCE") {
                std::fs::write(path, format!("{exit:?} {:?}", agent.confinement())).expect("evidence");
            }
            exit.code()
        }
        Err(error) => {
            eprintln!("{error}");
            error.exit_code()
        }
    };
    group.kill_all().expect("kill");
    group.wait_empty(Duration::from_secs(5)).expect("empty");
    group.remove().expect("remove");
    std::process::exit(code.into());
}

pub fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("exe"));
    command.args(HELPER);
    command.env("PIPELOCK_ARGS", args.join("\u{1f}")).current_dir("/").stdin(Stdio::null());
    command
}

pub fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = text.split_once(&format!("{MARK}\n")).map_or(String::new(), |(_, after)| after.to_owned());
    assert!(!text.is_empty() || output.stdout.is_empty() || output.status.code().is_some(), "{output:?}");
    text
}

pub fn run(args: &[&str]) -> (String, i32) {
    let output = agent(args).output().expect("run");
    let errors = String::from_utf8_lossy(&output.stderr);
    (format!("{}{errors}", said(&output)), output.status.code().expect("exited"))
}
