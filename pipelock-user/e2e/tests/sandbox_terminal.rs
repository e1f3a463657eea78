//! An agent on a terminal: job control and signals as without a wrapper.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod sandboxed;

use std::io::Write as _;
use std::process::{Command, Stdio};

use sandboxed::HELPER;

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
            os.execve(exe, [exe, *sys.argv[3:]], env)
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
        &[&[exe.to_str().expect("UTF-8"), evidence.path().to_str().expect("UTF-8")][..], &HELPER].concat(),
    );
    (text, std::fs::read_to_string(evidence.path()).expect("evidence"))
}

#[test]
fn ctrl_c_kills_the_agent_once_and_not_us() {
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
