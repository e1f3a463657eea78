//! An agent on a terminal: job control and signals as without a wrapper.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod sandboxed;

use std::process::Command;

use pipelock_e2e::on_terminal;
use sandboxed::HELPER;

/// Runs a script in which `agent(args)` starts them as an agent, by a second run of this binary; what that reported.
fn terminal(script: &str) -> String {
    let evidence = tempfile::NamedTempFile::new().expect("file");
    let mut helper = Command::new(std::env::current_exe().expect("exe"));
    helper.args(HELPER).env("PIPELOCK_EVIDENCE", evidence.path()).current_dir("/");
    let agent = "def agent(*args): return launch(PIPELOCK_ARGS='\\x1f'.join(args))\n";
    on_terminal(&helper, &format!("{agent}{script}"));
    std::fs::read_to_string(evidence.path()).expect("evidence")
}

#[test]
fn ctrl_c_kills_the_agent_once_and_not_us() {
    let evidence = terminal(
        r#"
m = agent("sh", "-c", "echo ready; exec sleep 1000")
expect(m, b"ready"); time.sleep(0.3); os.write(m, b"\x03"); expect(m, b"SHELL exit 130")
"#,
    );
    assert!(evidence.starts_with("Signal(2)"), "{evidence}");
    // An agent that handles it gets it once: from the terminal, and not from us again.
    let evidence = terminal(
        r#"
m = agent("/usr/bin/python3", "-c", """
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
    let evidence = terminal(
        r#"
m = agent("sh", "-c", "echo ready; read a; echo got $a; kill -TSTP $$; echo resumed; read b; exit 7")
expect(m, b"ready"); time.sleep(0.3); os.write(m, b"\x1a"); expect(m, b"SHELL stopped")
os.write(m, b"fg\n"); time.sleep(0.5); os.write(m, b"one\n"); expect(m, b"got one")
expect(m, b"SHELL stopped"); time.sleep(0.3)
os.write(m, b"fg\n"); expect(m, b"resumed"); time.sleep(0.3); os.write(m, b"two\n"); expect(m, b"SHELL exit 7")
"#,
    );
    assert!(evidence.starts_with("Code(7)"), "{evidence}");
    // A shell inside that has job control and the terminal, and is suspended from inside.
    let evidence = terminal(
        r#"
m = agent("bash", "--norc", "--noprofile", "-i")
expect(m, b"$ "); os.write(m, b"sleep 1000\n"); time.sleep(0.7); os.write(m, b"\x03"); expect(m, b"$ ")
os.write(m, b"echo co''de $?\n"); expect(m, b"code 130")
os.write(m, b"kill -STOP $$\n"); expect(m, b"SHELL stopped"); time.sleep(0.3)
os.write(m, b"fg\n"); time.sleep(0.7); os.write(m, b"echo al''ive; stty size; exit 9\n")
expect(m, b"alive"); expect(m, b"SHELL exit 9")
"#,
    );
    assert!(evidence.starts_with("Code(9)"), "{evidence}");
}
