//! A command on a pseudo terminal, as a job of a shell that is a Python program: its own job control, since a real shell's
//! depends on which shell it is.

use std::process::{Command, Stdio};

/// `launch(NAME=value …)` starts the command in a session of its own, with these variables besides; `expect` waits for a
/// text. The shell says `SHELL stopped`, when all of its job stand still, and `SHELL exit CODE`, and takes `fg`.
const HARNESS: &str = r#"
import os, pty, sys, time, select, signal
command = sys.argv[1:]
def stands(job):
    # A reader that has its signal and has not acted on it still takes what is typed: the first letter of "fg".
    for name in filter(str.isdigit, os.listdir("/proc")):
        try: state, _, group = open(f"/proc/{name}/stat").read().rsplit(")", 1)[1].split()[:3]
        except OSError: continue
        if int(group) == job and state not in "TtZX": return False
    return True
def launch(**env):
    pid, master = pty.fork()
    if pid == 0:
        # The shell: puts its job into a process group of its own, in the foreground, and reports what becomes of it.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0); os.tcsetpgrp(0, os.getpid()); signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.execvpe(command[0], command, dict(os.environ, **env))
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                os.tcsetpgrp(0, os.getpid())
                end = time.time() + 5
                while not stands(job) and time.time() < end: time.sleep(0.01)
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

/// Runs a Python script that launches the command and says what it expects of it.
///
/// # Panics
/// When something that is expected does not come; says what came instead.
pub fn on_terminal(command: &Command, script: &str) {
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", &format!("{HARNESS}{script}")]).arg(command.get_program()).args(command.get_args());
    python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        python.current_dir(folder);
    }
    let out = python.stdin(Stdio::null()).output().expect("python3");
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
}
