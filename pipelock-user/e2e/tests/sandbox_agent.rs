//! How an agent is started: as whom, with what, how it ends; and what pipelock itself keeps.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod sandboxed;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sandboxed::{MARK, agent, run, said};

#[test]
fn an_agent_is_nobody_with_nothing_in_its_cgroup() {
    let script = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|SigIgn|SigBlk)' /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; \
                  grep 0:: /proc/self/cgroup; grep 'core file size' /proc/self/limits | tr -s ' '; env | grep -E '^(HOME|USER|LOGNAME|SHELL)='; umask";
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
        // 0 would still start the program of a core_pattern that is a pipe.
        "-agent\nMax core file size 1 1 bytes",
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
