//! The sandbox room against the real kernel: every test makes and removes its own cgroup and is skipped without root
//! or cgroup2. An agent is started by a second run of this test binary ([`helper`]), because it takes over the
//! standard descriptors, the signals and the terminal.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests, outside test functions")]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pipelock::sandbox::cgroup::{Cgroup, CgroupError};
use pipelock::sandbox::held::{HeldAction, HeldError, HeldOptions, HeldSocket, settle};
use pipelock::sandbox::spawn::{AgentCommand, AgentUser};

/// What stands in the output before the agent's own.
const MARK: &str = "<<<agent>>>";

macro_rules! needs_root {
    () => {
        if !nix::unistd::geteuid().is_root() || pipelock::sandbox::cgroup::mount_points().is_err() {
            println!("SKIP: needs root and cgroup2");
            return;
        }
    };
}

fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("pipelock-test-{}-{}-{what}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A cgroup that is emptied and removed when the test ends, however it ends.
struct Temp(Cgroup);

impl Temp {
    fn new(what: &str) -> Self {
        Self(Cgroup::create_child(&unique(what)).expect("create"))
    }

    /// A process in it, by a shell that moves itself first.
    fn run(&self, script: &str) -> std::process::Child {
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

fn until(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(20), "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

// ---- cgroup ---------------------------------------------------------------------------------------------------------

#[test]
fn a_cgroup_is_made_watched_killed_and_removed() {
    needs_root!();
    let group = Temp::new("life");
    assert_eq!(group.0.id(), std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(group.0.path()).expect("stat")));
    assert!(!group.0.is_populated().expect("events"));
    assert!(!group.0.contains_self().expect("own"));
    assert!(matches!(
        Cgroup::create_child(group.0.path().file_name().and_then(|name| name.to_str()).expect("name")),
        Err(CgroupError::Io { what: "create", .. })
    ));

    let below = group.0.path().join("below");
    std::fs::create_dir(&below).expect("mkdir");
    let mut child = group.run("exec sleep 1000");
    until("populated", || group.0.is_populated().expect("events"));
    let pid = i32::try_from(child.id()).expect("pid");
    std::fs::write(below.join("cgroup.procs"), pid.to_string()).expect("move");
    until("listed", || group.0.procs().expect("procs").contains(&pid));
    assert_eq!(group.0.ids().expect("ids").len(), 2);
    assert!(matches!(group.0.wait_empty(Duration::from_millis(30)), Err(CgroupError::NotEmpty { .. })));

    let frozen = group.0.freeze(Duration::from_secs(5)).expect("freeze");
    assert!(group.0.is_frozen().expect("events"));
    drop(frozen);
    until("thawed", || !group.0.is_frozen().expect("events"));

    // Frozen processes die too.
    let frozen = group.0.freeze(Duration::from_secs(5)).expect("freeze");
    group.0.kill_all().expect("kill");
    group.0.wait_empty(Duration::from_secs(5)).expect("empty");
    drop(frozen);
    child.wait().expect("reap");
    group.0.remove().expect("remove");
    assert!(!group.0.path().exists());
    group.0.remove().expect("removing what is gone is no error");
    assert!(!group.0.is_populated().expect("gone is empty"));
}

#[test]
fn roots_and_threaded_cgroups_are_refused_and_ancestors_contain_us() {
    needs_root!();
    let root = pipelock::sandbox::cgroup::mount_points().expect("mounted").remove(0);
    assert!(matches!(Cgroup::open(&root), Err(CgroupError::IsRoot(_))));
    let group = Temp::new("threaded");
    let below = group.0.path().join("threads");
    std::fs::create_dir(&below).expect("mkdir");
    std::fs::write(below.join("cgroup.type"), "threaded").expect("threaded");
    assert!(matches!(Cgroup::open(&below), Err(CgroupError::Threaded { .. })));
    // The domain above lists the processes of its threaded children.
    let mut child = group.run("exec sleep 1000");
    let pid = i32::try_from(child.id()).expect("pid");
    until("listed", || group.0.procs().expect("procs").contains(&pid));
    std::fs::write(below.join("cgroup.threads"), pid.to_string()).expect("move");
    assert!(group.0.procs().expect("procs").contains(&pid));
    std::fs::write(group.0.path().join("cgroup.threads"), pid.to_string()).expect("move back");
    group.0.kill_all().expect("kill");
    child.wait().expect("reap");
}

// ---- the agent ------------------------------------------------------------------------------------------------------

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

fn agent(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("exe"));
    command.args(["--exact", "helper", "--nocapture", "--test-threads=1"]);
    command.env("PIPELOCK_ARGS", args.join("\u{1f}")).current_dir("/").stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = text.split_once(&format!("{MARK}\n")).map_or(String::new(), |(_, after)| after.to_owned());
    assert!(!text.is_empty() || output.stdout.is_empty() || output.status.code().is_some(), "{output:?}");
    text
}

fn run(args: &[&str]) -> (String, i32) {
    let output = agent(args).output().expect("run");
    let errors = String::from_utf8_lossy(&output.stderr);
    (format!("{}{errors}", said(&output)), output.status.code().expect("exited"))
}

#[test]
fn an_agent_is_nobody_with_nothing_in_its_cgroup() {
    needs_root!();
    let script = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigIgn|SigBlk)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; \
                  grep 0:: /proc/self/cgroup; ulimit -c; env | grep -E '^(HOME|USER|LOGNAME|SHELL)='; umask";
    let (text, code) = run(&["sh", "-c", script]);
    assert_eq!(code, 0, "{text}");
    for line in [
        "Uid:\t65534\t65534\t65534\t65534",
        "Gid:\t65534\t65534\t65534\t65534",
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        // 3 is the folder that ls itself reads.
        "0 1 2 3 0::/",
        "-agent\n0\n",
        "HOME=/nonexistent",
        "USER=nobody",
        "LOGNAME=nobody",
        "SHELL=/usr/sbin/nologin",
        "0022",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn root_as_agent_has_no_capability_and_cannot_leave_its_cgroup() {
    needs_root!();
    let root = pipelock::sandbox::cgroup::mount_points().expect("mounted").remove(0);
    // Each write would change nothing even if it were let through.
    let script = format!(
        "id -u; grep Cap /proc/self/status; echo 0 > {root}/cgroup.procs; mkdir {root}/pipelock-escape; \
         true >> /proc/sys/kernel/core_pattern; mkdir /sys/fs/bpf/pipelock-escape; \
         mount -o remount,rw {root}; mount -t tmpfs none /mnt; grep 0:: /proc/self/cgroup",
        root = root.display()
    );
    let output = agent(&["sh", "-c", &script]).env("PIPELOCK_USER", "root").output().expect("run");
    let (text, errors) = (said(&output), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(text.starts_with("0\n"), "{text}");
    assert_eq!(text.matches("\t0000000000000000").count(), 5, "{text}");
    assert!(text.contains("-agent\n"), "{text}");
    assert_eq!(
        errors.matches("Read-only file system").count(),
        if Path::new("/sys/fs/bpf").exists() { 4 } else { 3 },
        "{errors}"
    );
    assert!(!root.join("pipelock-escape").exists() && !Path::new("/sys/fs/bpf/pipelock-escape").exists());
}

#[test]
fn failures_to_start_are_told_apart() {
    needs_root!();
    let folder = tempfile::tempdir().expect("tempdir");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    let script = folder.path().join("script");
    std::fs::write(&script, "echo \"no first line, $1\"").expect("write");
    let path = script.to_str().expect("UTF-8");
    let mode =
        |mode| std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("chmod");

    let (text, code) = run(&["no-such-program-anywhere"]);
    assert_eq!((code, text.contains("not found in PATH")), (127, true), "{text}");
    let (text, code) = run(&["/no/such/file"]);
    assert_eq!((code, text.contains("/no/such/file: not found")), (127, true), "{text}");
    mode(0o644);
    let (text, code) = run(&[path]);
    assert_eq!((code, text.contains("cannot be executed by user nobody")), (126, true), "{text}");
    mode(0o755);
    assert_eq!(run(&[path, "ran by sh"]), ("no first line, ran by sh\n".into(), 0));

    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).expect("mkdir");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let output = agent(&["true"]).current_dir(&closed).output().expect("run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.contains("user nobody may not enter")), (Some(125), true), "{errors}");

    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let output = agent(&["true"]).stdin(std::os::fd::OwnedFd::from(socket)).output().expect("run");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), errors.contains("(stdin) is a network socket")), (Some(125), true), "{errors}");
}

#[test]
fn exit_codes_and_signals_come_through() {
    needs_root!();
    assert_eq!(run(&["sh", "-c", "exit 42"]).1, 42);
    assert_eq!(run(&["sh", "-c", "kill -KILL $$"]).1, 137);
    // SIGPIPE is ignored in Rust programs and must not be in the agent.
    assert_eq!(run(&["sh", "-c", "kill -PIPE $$"]).1, 141);
    for (name, number) in [("TERM", 15), ("HUP", 1), ("INT", 2), ("USR1", 10), ("QUIT", 3)] {
        let script = format!("trap 'echo got; exit {number}' {name}; echo ready; while :; do sleep 0.05; done");
        let mut command = agent(&["sh", "-c", &script]);
        let evidence = tempfile::NamedTempFile::new().expect("file");
        command.env("PIPELOCK_EVIDENCE", evidence.path()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("run");
        let mut reader = std::io::BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.ends_with("ready\n") {
            assert!(std::io::BufRead::read_line(&mut reader, &mut line).expect("read") > 0, "{line}");
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::try_from(number).expect("signal")).expect("kill");
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut reader, &mut rest).expect("read");
        assert_eq!(rest.matches("got").count(), 1, "{name}: {rest}");
        assert_eq!(child.wait().expect("wait").code(), Some(number), "{name}");
        let evidence = std::fs::read_to_string(evidence.path()).expect("evidence");
        assert!(evidence.starts_with(&format!("Code({number})")), "{evidence}");
    }
}

/// Runs a Python program against a pseudo terminal: its own job control, since a shell's depends on which shell.
fn python(program: &str, args: &[&str]) -> String {
    let mut child = Command::new("/usr/bin/python3")
        .arg("-")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    child.stdin.take().expect("piped").write_all(program.as_bytes()).expect("write");
    let output = child.wait_with_output().expect("wait");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

/// `launch(args)` starts the helper in a session of its own on a pseudo terminal, as a job of a shell that is python.
const TERMINAL: &str = r#"
import os, pty, sys, time, select, signal, tty, fcntl, termios
exe, evidence = sys.argv[1:3]
def launch(*args):
    env = dict(os.environ, PIPELOCK_ARGS="\x1f".join(args), PIPELOCK_EVIDENCE=evidence)
    pid, master = pty.fork()
    if pid == 0:
        # The shell: puts its job into a process group of its own, in the foreground, and reports what becomes of it.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0); os.tcsetpgrp(0, os.getpid()); signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.chdir("/")
            os.execve(exe, [exe, "--exact", "helper", "--nocapture", "--test-threads=1"], env)
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                os.tcsetpgrp(0, os.getpid())
                os.write(1, b"SHELL stopped\n")
                if os.read(0, 100).startswith(b"fg"):
                    os.tcsetpgrp(0, job); os.killpg(job, signal.SIGCONT)
                continue
            os.write(1, b"SHELL exit %d\n" % os.waitstatus_to_exitcode(status)); os._exit(0)
    return master
seen = b""
def expect(master, text, limit=20):
    global seen
    end = time.time() + limit
    while text not in seen:
        if time.time() > end or not select.select([master], [], [], max(0, end - time.time()))[0]:
            print("waited for", text, "saw", seen); sys.exit(1)
        try: more = os.read(master, 4096)
        except OSError: more = b""
        if not more: print("ended before", text, "saw", seen); sys.exit(1)
        seen += more
    seen = seen.split(text, 1)[1]
"#;

fn terminal(program: &str) -> (String, String) {
    let evidence = tempfile::NamedTempFile::new().expect("file");
    let exe = std::env::current_exe().expect("exe");
    let text = python(
        &format!("{TERMINAL}{program}"),
        &[exe.to_str().expect("UTF-8"), evidence.path().to_str().expect("UTF-8")],
    );
    (text, std::fs::read_to_string(evidence.path()).expect("evidence"))
}

#[test]
fn ctrl_c_kills_the_agent_once_and_not_us() {
    needs_root!();
    let (_, evidence) = terminal(
        r#"
m = launch("sh", "-c", "echo ready; exec sleep 1000")
expect(m, b"ready"); time.sleep(0.3); os.write(m, b"\x03"); expect(m, b"SHELL exit 130")
"#,
    );
    assert!(evidence.starts_with("Signal(2)"), "{evidence}");
    // An agent that handles it gets it once: from the terminal, and not from us again.
    let (_, evidence) = terminal(
        r#"
m = launch("/usr/bin/python3", "-c", """
import signal, time
n = []
signal.signal(signal.SIGINT, lambda *a: n.append(1))
print('ready', flush=True)
end = time.time() + 20
while not n and time.time() < end: time.sleep(0.05)
end = time.time() + 1
while time.time() < end: time.sleep(0.05)
print('count', len(n), flush=True)
""")
expect(m, b"ready"); time.sleep(0.3); os.write(m, b"\x03"); expect(m, b"count 1"); expect(m, b"SHELL exit 0")
"#,
    );
    assert!(evidence.starts_with("Code(0)"), "{evidence}");
}

#[test]
fn stopping_and_going_on_works_as_without_a_wrapper() {
    needs_root!();
    // Ctrl-Z of the terminal; then a program that stops only itself, as less and vi do.
    let (_, evidence) = terminal(
        r#"
m = launch("sh", "-c", "echo ready; read a; echo got $a; kill -TSTP $$; echo resumed; read b; exit 7")
expect(m, b"ready"); time.sleep(0.3); os.write(m, b"\x1a"); expect(m, b"SHELL stopped")
os.write(m, b"fg\n"); time.sleep(0.5); os.write(m, b"one\n"); expect(m, b"got one")
expect(m, b"SHELL stopped"); time.sleep(0.3)
os.write(m, b"fg\n"); expect(m, b"resumed"); time.sleep(0.3); os.write(m, b"two\n"); expect(m, b"SHELL exit 7")
"#,
    );
    assert!(evidence.starts_with("Code(7)"), "{evidence}");
    // A shell inside that has job control and the terminal, and is suspended from inside.
    let (_, evidence) = terminal(
        r#"
m = launch("bash", "--norc", "--noprofile", "-i")
expect(m, b"$ "); os.write(m, b"sleep 1000\n"); time.sleep(0.7); os.write(m, b"\x03"); expect(m, b"$ ")
os.write(m, b"echo co''de $?\n"); expect(m, b"code 130")
os.write(m, b"kill -STOP $$\n"); expect(m, b"SHELL stopped"); time.sleep(0.3)
os.write(m, b"fg\n"); time.sleep(0.7); os.write(m, b"echo al''ive; stty size; exit 9\n")
expect(m, b"alive"); expect(m, b"SHELL exit 9")
"#,
    );
    assert!(evidence.starts_with("Code(9)"), "{evidence}");
}

// ---- system calls ---------------------------------------------------------------------------------------------------

/// Makes raw system calls and prints `name errno` for each; 0 is success.
const CALLS: &str = r#"
import ctypes, errno, os, platform, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(name, nr, *args):
    ctypes.set_errno(0)
    rc = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if rc == 0 and nr == CLONE: os._exit(0)  # a child that should not be
    print(name, errno.errorcode.get(ctypes.get_errno(), "?") if rc == -1 else "OK", flush=True)
    return rc
arm = platform.machine() == "aarch64"
nr = (lambda x86, a64: a64 if arm else x86)
SOCKET, SOCKETPAIR, UNSHARE, CLONE = nr(41, 198), nr(53, 199), nr(272, 97), nr(56, 220)
for family in range(0, 46):
    call("family%d" % family, SOCKET, family, 2, 0)
call("high_bits", SOCKET, (1 << 32) | 17, 2, 0)
call("pair_tipc", SOCKETPAIR, 30, 1, 0, 0)
for protocol in range(0, 22):
    call("netlink%d" % protocol, SOCKET, 16, 3, protocol)
for name, number in dict(setns=nr(308, 268), bpf=nr(321, 280), perf=nr(298, 241), userfaultfd=nr(323, 282),
        mount=nr(165, 40), umount2=nr(166, 39), pivot_root=nr(155, 41), open_tree=428, open_tree_attr=467, move_mount=429, fsopen=430,
        fsconfig=431, fsmount=432, fspick=433, mount_setattr=442, init_module=nr(175, 105), finit_module=nr(313, 273),
        kexec_load=nr(246, 104), kexec_file_load=nr(320, 294), add_key=nr(248, 217), request_key=nr(249, 218),
        keyctl=nr(250, 219), pidfd_getfd=438, io_uring_setup=425, io_uring_enter=426, io_uring_register=427,
        clone3=435).items():
    call(name, number, 0, 0, 0, 0, 0, 0)
NEWUSER, NEWNET, NEWNS, SIGCHLD = 0x10000000, 0x40000000, 0x20000, 17
for name, flags in dict(user=NEWUSER, net=NEWNET, both=NEWUSER | NEWNET, user_high=(1 << 32) | NEWUSER, user_ns=NEWUSER | NEWNS).items():
    call("unshare_" + name, UNSHARE, flags)
    call("clone_" + name, CLONE, flags | SIGCHLD, 0, 0, 0, 0)
call("tiocsti", nr(16, 29), 0, 0x5412, b"x")
call("tiocsti_high", nr(16, 29), 0, (1 << 32) | 0x5412, b"x")
if not arm:
    call("x32_socket", 0x40000000 | SOCKET, 17, 2, 0)
    call("x32_getpid", 0x40000000 | 39)
outside = int(sys.argv[1])
call("ptrace_outside", nr(101, 117), 16, outside, 0, 0)
call("kill_outside", nr(62, 129), outside, 0)
def cannot_read(path):
    try: open(path).read(); return False
    except OSError: return True
print("mem_outside", "EACCES" if cannot_read("/proc/%d/environ" % outside) else "OK")
child = os.fork()
if child == 0:
    time.sleep(60); os._exit(0)
call("ptrace_child", nr(101, 117), 16, child, 0, 0)
os.kill(child, 9)
a = socket.socket(socket.AF_UNIX)
try: a.connect("\0" + sys.argv[2]); print("abstract OK")
except OSError as e: print("abstract", errno.errorcode[e.errno])
"#;

/// A process outside, of the agent's user; ends with the test, also when that fails.
struct Outside(std::process::Child);

impl Outside {
    fn new() -> Self {
        let mut command = Command::new("sleep");
        std::os::unix::process::CommandExt::uid(command.arg("1000").stdout(Stdio::null()), 65534);
        Self(command.spawn().expect("sleep"))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_the_table_denies_is_denied_and_nothing_else() {
    needs_root!();
    // An outside process of the agent's user, to trace and to signal; and an outside abstract socket.
    let outside = Outside::new();
    let name = unique("abstract");
    let address = <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name)
        .expect("name");
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("bind");
    let evidence = tempfile::NamedTempFile::new().expect("file");
    let output = agent(&["/usr/bin/python3", "-c", CALLS, &outside.0.id().to_string(), &name])
        .env("PIPELOCK_EVIDENCE", evidence.path())
        .stdin(Stdio::null())
        .output()
        .expect("run");
    let text = said(&output);
    let answer = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}\n{}", String::from_utf8_lossy(&output.stderr))).to_owned()
    };
    for family in 0..46 {
        let expected = if [1, 2, 10, 16].contains(&family) { "OK" } else { "EAFNOSUPPORT" };
        assert_eq!(answer(&format!("family{family}")), expected, "family {family}");
    }
    for protocol in 0..22 {
        let expected = if protocol == 0 { "OK" } else { "EPROTONOSUPPORT" };
        assert_eq!(answer(&format!("netlink{protocol}")), expected, "netlink {protocol}");
    }
    for denied in [
        "setns",
        "bpf",
        "perf",
        "userfaultfd",
        "mount",
        "umount2",
        "pivot_root",
        "open_tree",
        "open_tree_attr",
        "move_mount",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "mount_setattr",
        "init_module",
        "finit_module",
        "kexec_load",
        "kexec_file_load",
        "add_key",
        "request_key",
        "keyctl",
        "pidfd_getfd",
        "unshare_user",
        "unshare_net",
        "unshare_both",
        "unshare_user_high",
        "unshare_user_ns",
        "clone_user",
        "clone_net",
        "clone_both",
        "clone_user_high",
        "clone_user_ns",
        "tiocsti",
        "tiocsti_high",
        "ptrace_outside",
    ] {
        assert_eq!(answer(denied), "EPERM", "{denied}");
    }
    for missing in ["io_uring_setup", "io_uring_enter", "io_uring_register", "clone3"] {
        assert_eq!(answer(missing), "ENOSYS", "{missing}");
    }
    assert_eq!((answer("high_bits"), answer("pair_tipc")), ("EAFNOSUPPORT".into(), "EAFNOSUPPORT".into()));
    if cfg!(target_arch = "x86_64") {
        assert_eq!((answer("x32_socket"), answer("x32_getpid")), ("ENOSYS".into(), "ENOSYS".into()));
    }
    let evidence = std::fs::read_to_string(evidence.path()).expect("evidence");
    if evidence.contains("landlock: true") {
        assert_eq!((answer("mem_outside"), answer("ptrace_child")), ("EACCES".into(), "OK".into()));
    } else {
        assert_eq!(answer("ptrace_child"), "EPERM");
    }
    if evidence.contains("landlock_scoped: true") {
        assert_eq!((answer("kill_outside"), answer("abstract")), ("EPERM".into(), "EPERM".into()));
    }
}

/// Without the filter the same program gets further: the test above can fail.
#[test]
fn the_filter_is_what_denies() {
    needs_root!();
    let output = agent(&["/usr/bin/python3", "-c", "import socket; socket.socket(40, 1); print('vsock')"])
        .env("PIPELOCK_NO_SECCOMP", "1")
        .output()
        .expect("run");
    assert!(said(&output).contains("vsock"), "{output:?}");
}

/// `int 0x80` reaches the 32-bit calls, which have other numbers.
#[test]
fn another_abi_is_killed() {
    needs_root!();
    if !cfg!(target_arch = "x86_64") {
        println!("SKIP: x86_64 only");
        return;
    }
    let program = "import ctypes, mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(b'\\x53\\xb8\\x14\\0\\0\\0\\xcd\\x80\\x5b\\xc3'); \
                   f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m))); print('pid', f())";
    let open = agent(&["/usr/bin/python3", "-c", program]).env("PIPELOCK_NO_SECCOMP", "1").output().expect("run");
    if !said(&open).contains("pid") {
        println!("SKIP: this kernel has no 32-bit calls");
        return;
    }
    let (text, code) = run(&["/usr/bin/python3", "-c", program]);
    assert_eq!((text.contains("pid"), code), (false, 128 + libc::SIGSYS), "{text}");
}

#[test]
fn real_programs_start_under_the_filter() {
    needs_root!();
    let folder = tempfile::tempdir().expect("tempdir");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    let java = folder.path().join("Hello.java");
    let source = "public class Hello { public static void main(String[] a) throws Exception { \
                  var t = new Thread(() -> System.out.println(\"java\")); t.start(); t.join(); \
                  System.out.println(java.util.Collections.list(java.net.NetworkInterface.getNetworkInterfaces()).size() > 0); \
                  new ProcessBuilder(\"true\").start().waitFor(); } }";
    std::fs::write(&java, source).expect("write");
    let home = folder.path().display();
    let cases = [
        ("/bin/bash", "bash -c 'echo $(echo bash | cat)'".to_owned(), "bash"),
        (
            "/usr/bin/python3",
            "python3 -c 'import subprocess, threading, asyncio; t = threading.Thread(target=print, args=(\"python\",)); t.start(); t.join(); subprocess.run([\"true\"], check=True); asyncio.run(asyncio.sleep(0))'".to_owned(),
            "python",
        ),
        (
            "/usr/bin/node",
            "node -e 'require(\"fs\").readFile(\"/etc/hostname\", () => require(\"child_process\").exec(\"echo node\", (e, o) => { console.log(o); require(\"os\").networkInterfaces() }))'".to_owned(),
            "node",
        ),
        ("/usr/local/go/bin/go", format!("cd {home} && GOCACHE={home}/go GOFLAGS=-mod=mod /usr/local/go/bin/go version && GOCACHE={home}/go /usr/local/go/bin/go env GOOS"), "linux"),
        ("/usr/bin/java", format!("java -XX:TieredStopAtLevel=1 {home}/Hello.java"), "java\ntrue"),
        ("/usr/bin/git", format!("git init -q {home}/repo && git -C {home}/repo status -s -b && echo git"), "git"),
        ("/usr/bin/curl", format!("curl -sS file://{home}/Hello.java | head -c 6; curl -sS --max-time 2 http://127.0.0.1:1/ 2>&1"), "Could not connect"),
    ];
    for (program, script, expected) in cases {
        if !Path::new(program).exists() {
            println!("SKIP: no {program}");
            continue;
        }
        let output = agent(&["sh", "-c", &format!("export HOME={home}; {script}")]).output().expect("run");
        let text = said(&output);
        let found = text.contains(expected) || text.contains("Failed to connect");
        assert!(found, "{program}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

// ---- held sockets and namespaces ------------------------------------------------------------------------------------

/// A process of the cgroup that runs this Python program and says when it is ready; `before` runs outside.
fn holder(group: &Temp, before: &str, inside: &str) -> std::process::Child {
    let procs = group.0.path().join("cgroup.procs");
    let program = format!(
        "import socket, os, sys, threading, time, ctypes, array\n{before}\nopen({procs:?}, 'w').write('0')\n{inside}\n\
         print('ready', flush=True)\nsys.stdin.read()\n"
    );
    let mut child = Command::new("/usr/bin/python3")
        .args(["-c", &program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("read");
    assert_eq!(line, "ready\n");
    child
}

fn find<'a>(report: &'a [HeldSocket], proto: &str, port: u16) -> &'a HeldSocket {
    let same = |one: &&HeldSocket| one.proto == proto && one.local.is_some_and(|local| local.port() == port);
    report.iter().find(same).unwrap_or_else(|| panic!("no {proto} {port} in {report:?}"))
}

#[test]
fn sockets_made_inside_are_destroyed_or_kept() {
    needs_root!();
    let group = Temp::new("inside");
    let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let inside = format!(
        "t = socket.create_connection(('127.0.0.1', {})); t.settimeout(5)\n\
         d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.connect(('127.0.0.53', 53))\n\
         u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(('::', 0))\n\
         l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen()\n\
         p = socket.socket(); p.bind(('0.0.0.0', 0)); p.listen()\n\
         x = socket.socketpair()\n\
         open(sys.argv[0] if False else '/dev/null')\n\
         ports = [s.getsockname()[1] for s in (t, d, u, l, p)]\n\
         fork = os.fork()\n\
         if fork == 0: time.sleep(1000)\n\
         print(*ports, flush=True) if False else open({:?}, 'w').write(' '.join(map(str, ports)))",
        outside.local_addr().expect("addr").port(),
        group.0.path().file_name().map(|name| std::env::temp_dir().join(name)).expect("name"),
    );
    let mut child = holder(&group, "", &inside);
    let file = std::env::temp_dir().join(group.0.path().file_name().expect("name"));
    let ports: Vec<u16> =
        std::fs::read_to_string(&file).expect("ports").split(' ').map(|port| port.parse().expect("port")).collect();
    std::fs::remove_file(file).expect("remove");
    let [tcp, dns, udp, listener, public] = ports.try_into().expect("five");
    let (mut peer, _) = outside.accept().expect("accept");

    let report = settle(&group.0, HeldOptions::default()).expect("nothing refused");
    assert!(!group.0.is_frozen().expect("events"));
    // Each once, though two processes hold it.
    assert_eq!(report.len(), 5, "{report:?}");
    for one in &report {
        assert_eq!((one.cgroup_id, one.comm.as_str()), (Some(group.0.id()), "python3"), "{one}");
    }
    assert_eq!(find(&report, "tcp", tcp).action, HeldAction::Destroyed);
    assert_eq!(find(&report, "tcp", tcp).remote, outside.local_addr().ok());
    assert_eq!(find(&report, "udp", dns).action, HeldAction::Destroyed);
    assert!(matches!(find(&report, "udp", udp).action, HeldAction::Kept(_)));
    assert!(matches!(find(&report, "tcp", listener).action, HeldAction::Kept(_)));
    assert_eq!(find(&report, "tcp", public).action, HeldAction::Destroyed);
    // Destroyed is not a word only: the peer was reset, nobody listens, and the kept one still does.
    assert!(std::io::Read::read(&mut peer, &mut [0]).is_err());
    let connect = |port| {
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .and_then(|socket| socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()))
    };
    assert!(connect(public).is_err());
    connect(listener).expect("still listening");
    drop(child.stdin.take());
    group.0.kill_all().expect("kill");
    child.wait().expect("reap");
}

#[test]
fn what_would_go_round_the_programs_refuses_the_attachment() {
    needs_root!();
    let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = outside.local_addr().expect("addr").port();
    let connect = format!("t = socket.create_connection(('127.0.0.1', {port}))");
    let thread = "def run():\n  ctypes.CDLL(None).unshare(0x400)\n  global s; s = socket.socket(17, 3, 0); time.sleep(1000)\n\
                  threading.Thread(target=run, daemon=True).start(); time.sleep(0.5)";
    let flight = "a, b = socket.socketpair(); s = socket.socket()\n\
                  a.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [s.fileno()]))]); s.close()";
    let ring = "p = ctypes.create_string_buffer(120); l = ctypes.CDLL(None); r = l.syscall(425, 4, p)\n\
                s = socket.socket(); f = array.array('i', [s.fileno()]); assert r > 0\n\
                assert l.syscall(427, r, 2, ctypes.c_void_p(f.buffer_info()[0]), 1) == 0; s.close()";
    for (what, before, inside, says) in [
        ("connected outside", connect.as_str(), "", "made in another cgroup"),
        (
            "listening outside",
            "t = socket.socket(); t.bind(('127.0.0.1', 0)); t.listen()",
            "",
            "made in another cgroup",
        ),
        ("unbound", "", "t = socket.socket()", "neither bound nor connected"),
        ("unbound UDP", "", "t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "neither bound nor connected"),
        ("packet", "", "t = socket.socket(17, 3, 0)", "never see"),
        ("raw", "", "t = socket.socket(2, 3, 1)", "never see"),
        ("mptcp", "", "t = socket.socket(2, 1, 262)", "never see"),
        ("vsock", "", "t = socket.socket(40, 1, 0)", "never see"),
        ("table of a thread", "", thread, "never see"),
        ("in flight", "", flight, "in flight"),
        ("io_uring", "", ring, "registered"),
    ] {
        let group = Temp::new("refused");
        // And one that could be destroyed, but must not be when the rest is refused.
        let inside = format!("{inside}\ni = socket.create_connection(('127.0.0.1', {port}))");
        let mut child = holder(&group, before, &inside);
        let error = settle(&group.0, HeldOptions::default()).expect_err(what);
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("python3"), "{what}: {text}");
        let HeldError::Refused(refused) = error else { panic!("{what}: {text}") };
        assert_eq!(refused.len(), 1, "{what}: {refused:?}");
        assert!(!group.0.is_frozen().expect("events"));
        let forced = settle(&group.0, HeldOptions { force: true, ..HeldOptions::default() }).expect(what);
        let count = |check: fn(&HeldAction) -> bool| forced.iter().filter(|one| check(&one.action)).count();
        assert_eq!(count(|action| matches!(action, HeldAction::Refused(_))), 1, "{what}: {forced:?}");
        assert_eq!(count(|action| *action == HeldAction::Destroyed), 1, "{what}: {forced:?}");
        drop(child.stdin.take());
        group.0.kill_all().expect("kill");
        child.wait().expect("reap");
    }
}

#[test]
fn sockets_in_another_network_namespace_are_found_and_work_can_be_done_there() {
    needs_root!();
    let group = Temp::new("netns");
    let inside = "l = ctypes.CDLL(None); assert l.unshare(0x40000000) == 0; os.system('ip link set lo up')\n\
                  s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); c = socket.create_connection(s.getsockname())\n\
                  assert l.unshare(0x40000000) == 0";
    let mut child = holder(&group, "", inside);
    // The process has moved on to a third namespace; its sockets have not.
    let pid = i32::try_from(child.id()).expect("pid");
    let (inode, ns) = pipelock::sandbox::netns::netns_of(pid).expect("namespace");
    let (own, _) = pipelock::sandbox::netns::netns_of(i32::try_from(std::process::id()).expect("pid")).expect("own");
    assert_ne!(inode, own);
    let here = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    let there =
        pipelock::sandbox::netns::in_netns(std::os::fd::AsFd::as_fd(&ns), || std::net::UdpSocket::bind("0.0.0.0:0"))
            .expect("enter")
            .expect("bind");
    let cookie = |socket: &std::net::UdpSocket| pipelock::sandbox::netns::netns_cookie(socket).expect("cookie");
    assert_ne!(cookie(&here), cookie(&there));
    let panicked = pipelock::sandbox::netns::in_netns(std::os::fd::AsFd::as_fd(&ns), || panic!("on purpose"));
    assert!(panicked.is_err());

    let report = settle(&group.0, HeldOptions::default()).expect("nothing refused");
    let destroyed = report.iter().filter(|one| one.action == HeldAction::Destroyed).count();
    let kept = report.iter().filter(|one| matches!(one.action, HeldAction::Kept(_))).count();
    assert_eq!((destroyed, kept), (1, 1), "{report:?}");
    drop(child.stdin.take());
    child.wait().expect("reap");
}

/// Why sockets made outside are refused and not only destroyed.
#[test]
fn a_destroyed_socket_can_be_connected_again() {
    needs_root!();
    let group = Temp::new("reuse");
    let outside = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = outside.local_addr().expect("addr").port();
    let before = format!("t = socket.create_connection(('127.0.0.1', {port}))");
    let after = format!(
        "import threading\n\
         def later():\n  sys.stdin.readline(); l = ctypes.CDLL(None)\n  r = l.connect(t.fileno(), bytes(16), 16)\n  \
         t.connect(('127.0.0.1', {port})); print('again', r, t.send(b'x'), flush=True); os._exit(0)\n\
         threading.Thread(target=later).start()"
    );
    let mut child = holder(&group, &before, &after);
    settle(&group.0, HeldOptions { force: true, ..HeldOptions::default() }).expect("forced");
    child.stdin.as_mut().expect("piped").write_all(b"\n").expect("write");
    let mut text = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().expect("piped"), &mut text).expect("read");
    assert_eq!(text, "again 0 1\n");
    child.wait().expect("reap");
}

/// Not a test: the second run of this binary, which drops its own capabilities and tells what is left.
#[test]
fn dropper() {
    use pipelock::sandbox::caps::{Cap, drop_after_load};
    if std::env::var_os("PIPELOCK_DROP").is_none() {
        return;
    }
    // The test harness has a second thread, so this thread goes on alone in a child.
    // SAFETY: nothing that the other thread could have locked is used before the child ends.
    match unsafe { libc::fork() } {
        0 => {
            let dropped = drop_after_load(&[Cap::Kill]);
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let dumpable = nix::sys::prctl::get_dumpable();
            let text = format!("{MARK}\n{dropped:?}\n{status}dumpable {dumpable:?}\n");
            let _ = std::io::stdout().write_all(text.as_bytes());
            // SAFETY: ends at once.
            unsafe { libc::_exit(0) }
        }
        child => {
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).expect("wait");
        }
    }
}

#[test]
fn we_keep_only_the_capabilities_we_name() {
    needs_root!();
    let mut command = Command::new(std::env::current_exe().expect("exe"));
    command.args(["--exact", "dropper", "--nocapture", "--test-threads=1"]).env("PIPELOCK_DROP", "1");
    let text = said(&command.output().expect("run"));
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000020",
        "CapEff:\t0000000000000020",
        "CapBnd:\t0000000000000020",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "dumpable Ok(false)",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}
