//! The explicit proxy and the terminal that it was started at: it ends with it when it is hung up, and lives on without it.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

use pipelock_e2e::{Sandbox, need, on_terminal, pipelock};

/// `started()` starts the command as a background job of a shell on a terminal of its own. The shell passes the hangup on to its job
/// when the terminal is closed, as shells do, and ends without a word to it, as with `disown`, when it is told to.
const JOB: &str = r#"
import atexit
def said(): return open("log").read()
def until(what, is_so, limit=30):
    end = time.time() + limit
    while not is_so():
        assert time.time() < end, "%s never was so: %s" % (what, said())
        time.sleep(0.02)
def lives(job):
    try: return open("/proc/%d/stat" % job).read().rsplit(") ", 1)[1][0] != "Z"
    except OSError: return False
def started():
    open("log", "w").close()
    pid, master = pty.fork()
    if pid == 0:
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            log = os.open("log", os.O_WRONLY | os.O_APPEND); os.dup2(log, 1); os.dup2(log, 2)
            os.execvpe(command[0], command + ["--evidence", "evidence-%d" % os.getpid()], dict(os.environ, PIPELOCK_LOG="info"))
        def hang_up(*_): os.kill(job, signal.SIGHUP); os._exit(0)
        signal.signal(signal.SIGHUP, hang_up)
        open("job.new", "w").write(str(job)); os.rename("job.new", "job")
        os.read(0, 100)
        os._exit(0)
    until("the job", lambda: os.path.exists("job"))
    job = int(open("job").read()); os.remove("job")
    # It has left its shell, and would outlive a test that fails.
    atexit.register(lambda: lives(job) and os.kill(job, signal.SIGKILL))
    until("the proxy", lambda: "proxy on http://" in said())
    return master, job
"#;

#[test]
fn only_a_hangup_together_with_the_end_of_the_terminal_ends_it() {
    need!("python3");
    let files = Sandbox::new("egress: []");
    let mut alone = Command::new(pipelock());
    alone.args(["run", "--listen", "127.0.0.1:0", "--policy"]).arg(files.policy()).current_dir(files.work());
    let script = r#"
master, job = started()
os.kill(job, signal.SIGHUP)
until("a reload", lambda: said().count("policy in force") == 1)
os.write(master, b"\n")
until("its notice", lambda: "the terminal is gone" in said())
os.kill(job, signal.SIGHUP)
until("another reload", lambda: said().count("policy in force") == 2)
os.kill(job, signal.SIGTERM)
until("its end", lambda: not lives(job))
assert "receipts in" in said(), said()

master, job = started()
os.close(master)
until("its end", lambda: not lives(job))
assert "receipts in" in said() and "policy in force" not in said(), said()
"#;
    on_terminal(&alone, &format!("{JOB}{script}"));
}
