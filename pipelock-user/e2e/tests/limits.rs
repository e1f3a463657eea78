//! What pipelock does where a resource is short or a system call is refused: a clear error before anything is made, or the
//! work done another way; and never anything left.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pipelock_e2e::{HttpServer, Outside, OwnCgroup, Sandbox, echo, need, pipelock, remove_cgroup, verify_json};

const NOTHING: &str = "egress: []";

/// Sets a limit in the process that becomes pipelock.
fn limited(mut command: Command, resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> Command {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: setrlimit is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(resource, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    command
}

/// Has the kernel answer some system calls with an error, as the filter of a container does.
fn refusing(command: Command, calls: &[libc::c_long], errno: i32) -> Command {
    let line =
        |code: u32, jt: u8, k: u32| libc::sock_filter { code: u16::try_from(code).expect("16 bits"), jt, jf: 0, k };
    let mut filter = vec![line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        let jump = u8::try_from(calls.len() - index).expect("few");
        filter.push(line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jump, u32::try_from(*call).expect("a number")));
    }
    filter.push(line(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(line(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()));
    filtered(command, filter)
}

/// Puts a system call filter around the process that becomes pipelock.
fn filtered(mut command: Command, filter: Vec<libc::sock_filter>) -> Command {
    // SAFETY: prctl is async-signal-safe, and the filter lives in the closure.
    unsafe {
        command.pre_exec(move || {
            let program =
                libc::sock_fprog { len: u16::try_from(filter.len()).unwrap_or(0), filter: filter.as_ptr().cast_mut() };
            match libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    };
    command
}

/// Starts pipelock in a cgroup of the test's own, so that what it leaves in the tree is seen there.
fn within(around: &OwnCgroup, mut command: Command) -> Command {
    let procs = around.path.join("cgroup.procs").into_os_string().into_encoded_bytes();
    let procs = std::ffi::CString::new(procs).expect("no NUL");
    // SAFETY: open, write and close are async-signal-safe, and nothing is allocated.
    unsafe {
        command.pre_exec(move || {
            let fd = libc::open(procs.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            let written = libc::write(fd, c"0".as_ptr().cast(), 1);
            libc::close(fd);
            if written == 1 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    };
    command
}

/// Runs to the end, which has to come: code and all that was said.
fn end(mut command: Command) -> (Option<i32>, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("pipelock");
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("wait").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("pipelock hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let out = child.wait_with_output().expect("the end");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code(), text)
}

/// Starts it in a mount namespace of its own, which this script prepares.
fn mounted(command: &Command, script: &str) -> Command {
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "sh", "-c", &format!("set -e; {script}; exec \"$@\""), "sh"]);
    inside.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        inside.current_dir(folder);
    }
    inside.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    inside
}

/// What is pinned. The tests of this file take turns, so that it is nobody else's.
fn pins() -> BTreeSet<OsString> {
    fs::read_dir("/sys/fs/bpf/pipelock").into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

static TURN: Mutex<()> = Mutex::new(());

/// Runs `true` under pipelock, started by `start`, and looks at what is left.
fn run(sandbox: &Sandbox, start: impl FnOnce(Command) -> Command) -> (Option<i32>, String) {
    let around = OwnCgroup::new();
    let before = pins();
    let ended = end(start(within(&around, sandbox.command(&["true"]))));
    let below = fs::read_dir(&around.path).expect("the cgroup").flatten().filter(|entry| entry.path().is_dir());
    let below: Vec<_> = below.map(|entry| entry.path()).collect();
    below.iter().for_each(|left| remove_cgroup(left));
    assert!(below.is_empty(), "cgroups are left: {below:?}: {}", ended.1);
    assert_eq!(pins(), before, "pins are left: {}", ended.1);
    ended
}

#[test]
fn what_is_short_is_named_before_anything_is_made() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_refused = |what: &str, says: &str, start: &dyn Fn(Command) -> Command| {
        let sandbox = Sandbox::new(NOTHING);
        let (code, said) = run(&sandbox, start);
        assert!(code == Some(1) && said.contains(says) && !said.contains("panicked"), "{what}: {code:?} {said}");
        assert!(!sandbox.evidence().exists(), "{what}: {said}");
    };
    for limit in [20, 60, 255] {
        let says = format!("only {limit} descriptors open, and pipelock wants 256");
        is_refused("descriptors", &says, &|command| limited(command, libc::RLIMIT_NOFILE, limit, limit));
    }
    is_refused("threads", "threads that pipelock wants", &|command| {
        limited(command, libc::RLIMIT_DATA, 10_000_000, 10_000_000)
    });
    is_refused("memory", "MiB of memory", &|command| limited(command, libc::RLIMIT_DATA, 25_000_000, 25_000_000));
    for errno in [libc::EPERM, libc::EINVAL, libc::EAGAIN] {
        let says = "where clone3 is refused";
        is_refused("clone3", says, &|command| refusing(command, &[libc::SYS_clone3], errno));
    }
}

#[test]
fn a_limit_of_core_dumps_that_cannot_be_one_is_enough_where_no_program_is_started() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("core_pattern");
    let is_program = pattern.starts_with(['|', '@']);
    let sandbox = Sandbox::new(NOTHING);
    // CAP_SYS_RESOURCE, with which the limit can be raised, may or may not be there.
    let (code, said) = run(&sandbox, |command| limited(command, libc::RLIMIT_CORE, 0, 0));
    let is_refused = code == Some(1) && is_program && said.contains("core_pattern");
    assert!(code == Some(0) || is_refused, "{pattern}: {code:?} {said}");
}

#[test]
fn nothing_is_started_where_the_loopback_device_is_down() {
    need!("unshare");
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let sandbox = Sandbox::new(NOTHING);
    let (code, said) = run(&sandbox, |inner| {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command
    });
    assert!(code == Some(1) && said.contains("ip link set lo up"), "{code:?} {said}");
    assert!(!sandbox.evidence().exists(), "{said}");
}

#[test]
fn calls_that_are_not_there_are_done_without() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for calls in [&[libc::SYS_clone3][..], &[libc::SYS_close_range], &[libc::SYS_clone3, libc::SYS_close_range]] {
        let sandbox = Sandbox::new(NOTHING);
        let (code, said) = run(&sandbox, |command| refusing(command, calls, libc::ENOSYS));
        assert_eq!(code, Some(0), "{calls:?}: {said}");
        assert_eq!(said.contains("there is no clone3"), calls.contains(&libc::SYS_clone3), "{said}");
        assert_eq!(verify_json(&sandbox.evidence()).0, 0);
    }
    // It is where it should be, and has what it should have.
    let sandbox = Sandbox::new(NOTHING);
    let script = "cat /proc/self/cgroup; ls -l /proc/self/fd";
    let mut command = sandbox.command(&["sh", "-c", script]);
    let file = fs::File::open("/dev/zero").expect("open");
    let inherited = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: fcntl is async-signal-safe.
    unsafe {
        command.pre_exec(move || match libc::fcntl(inherited, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    let (code, said) = end(refusing(command, &[libc::SYS_clone3, libc::SYS_close_range], libc::ENOSYS));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("/pipelock-run-") && !said.contains("/dev/zero"), "{said}");
}

#[test]
fn evidence_that_may_not_grow_is_as_a_full_disk() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // From the first receipt, which does not fit, to the last.
    let mut codes = std::collections::BTreeSet::new();
    for limit in (0..14_000).step_by(1000) {
        let sandbox = Sandbox::new(NOTHING);
        let (code, said) = run(&sandbox, |command| limited(command, libc::RLIMIT_FSIZE, limit, limit));
        assert!(code == Some(0) || code == Some(1) && said.contains("File too large"), "{limit}: {code:?} {said}");
        codes.insert(code);
        if limit == 0 {
            assert_eq!(code, Some(1), "{said}");
            assert!(!sandbox.evidence().exists(), "no receipt fits, and no command was started: {said}");
        } else if code == Some(0) {
            assert_eq!(verify_json(&sandbox.evidence()).0, 0, "{limit}: {said}");
        }
    }
    assert_eq!(codes.len(), 2, "it never fitted, or always: {codes:?}");
    // What the agent does is its own affair.
    let sandbox = Sandbox::new(NOTHING);
    let command = sandbox.command(&["sh", "-c", "head -c 2000000 /dev/zero > big"]);
    let (_, said) = end(limited(command, libc::RLIMIT_FSIZE, 1_000_000, 1_000_000));
    assert_eq!(fs::metadata(sandbox.work().join("big")).expect("a file").len(), 1_000_000, "{said}");
    let (_, ignored) = end(Sandbox::new(NOTHING).command(&["grep", "SigIgn", "/proc/self/status"]));
    assert!(ignored.contains("0000000000000000"), "{ignored}");
}

#[test]
fn the_agent_has_the_limit_of_descriptors_that_was_given() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let sandbox = Sandbox::new(NOTHING);
    let command = sandbox.command(&["sh", "-c", "ulimit -Sn; ulimit -Hn"]);
    let (code, said) = end(limited(command, libc::RLIMIT_NOFILE, 300, 2000));
    let mut lines = said.lines().filter_map(|line| line.parse::<u64>().ok());
    assert_eq!((lines.next(), lines.next()), (Some(300), Some(2000)), "{code:?} {said}");
}

/// What fails once the command runs: it is ended before the programs go, so that it is never free.
#[test]
fn a_command_that_cannot_be_served_is_never_free() {
    need!("bash");
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let outside = Outside::new();
    let listener = outside.enter(|| TcpListener::bind((outside.there4, 80)).expect("bind"));
    let server = HttpServer::with(listener, echo);
    let script = format!("while :; do (exec 3<>/dev/tcp/{}/80) 2>/dev/null; done", outside.there4);
    // Giving up what is left of our privileges is the first step behind the start.
    let line =
        |code: u32, jf: u8, k: u32| libc::sock_filter { code: u16::try_from(code).expect("16 bits"), jt: 0, jf, k };
    let number = |number: libc::c_long| u32::try_from(number).expect("a number");
    let filter = [
        line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 3, number(libc::SYS_prctl)),
        // The low half of the first argument.
        line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, if cfg!(target_endian = "little") { 16 } else { 20 }),
        line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number(libc::PR_SET_DUMPABLE.into())),
        line(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        line(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let before = pins();
    for round in 0..20 {
        let sandbox = Sandbox::new(NOTHING).plain();
        let command = sandbox.command(&["/usr/bin/env", "bash", "-c", &script]);
        let (code, said) = end(filtered(command, filter.to_vec()));
        assert!(code == Some(1) && said.contains("cannot become undumpable"), "{round}: {code:?} {said}");
        assert_eq!(pins(), before, "{round}: {said}");
        assert_eq!(server.connections(), 0, "{round}: {said}");
    }
}

#[test]
fn what_cannot_be_written_is_named_and_nothing_is_left() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // A place for the folder itself, and none for what is written into a file there.
    let full = |folder: &str| {
        format!(
            "mkdir -p {folder}; mount -t tmpfs -o size=4k,mode=700 none {folder}; head -c 4096 /dev/zero > {folder}/full"
        )
    };
    let read_only = |folder: &str| format!("mount --bind {folder} {folder}; mount -o remount,bind,ro {folder}");
    for (script, says) in [
        (read_only("/run"), "/run/pipelock cannot be made or written: Read-only file system"),
        (full("/run"), "/run/pipelock cannot be made or written: No space left on device"),
        (read_only("/sys/fs/bpf"), "/sys/fs/bpf/pipelock"),
        (full("EVIDENCE"), "No space left on device"),
        (read_only("WORK"), "Read-only file system"),
    ] {
        for is_attach in [false, true] {
            let sandbox = Sandbox::new(NOTHING);
            let (cgroup, work) = (OwnCgroup::new(), sandbox.work());
            let evidence = if script.contains("WORK") { work.join("evidence") } else { sandbox.evidence() };
            let script = script
                .replace("WORK", work.to_str().expect("text"))
                .replace("EVIDENCE", evidence.to_str().expect("text"));
            let mut command = Command::new(pipelock());
            command.arg(if is_attach { "attach" } else { "run" });
            command.arg("--policy").arg(sandbox.policy()).arg("--evidence").arg(&evidence);
            if is_attach {
                command.arg("--cgroup").arg(&cgroup.path);
            } else {
                command.args(["--", "true"]);
            }
            let (around, before) = (OwnCgroup::new(), pins());
            let (code, said) = end(within(&around, mounted(&command, &script)));
            assert!(code == Some(1) && said.contains(says), "{script}: {code:?} {said}");
            assert!(!said.contains("panicked") && !said.contains("is not complete"), "{script}: {said}");
            let below = fs::read_dir(&around.path).expect("the cgroup").flatten().filter(|entry| entry.path().is_dir());
            assert_eq!(below.count(), 0, "a cgroup is left: {script}: {said}");
            assert_eq!(pins(), before, "pins are left: {script}: {said}");
            let is_empty = |folder: &std::path::Path| fs::read_dir(folder).map_or(true, |mut all| all.next().is_none());
            assert!(is_empty(&evidence) && is_empty(&work), "evidence of nothing: {script}: {said}");
        }
    }
}

/// What cannot be ended stays closed in: the command is ended before the programs are detached, and not the other way round.
#[test]
fn a_command_that_cannot_be_ended_stays_closed_in() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let line = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("16 bits"),
        jt,
        jf,
        k,
    };
    let number = |number: libc::c_long| u32::try_from(number).expect("a number");
    let low = if cfg!(target_endian = "little") { 0 } else { 4 };
    // As cgroup.kill is opened, and no other file here.
    let opened = (libc::O_WRONLY | libc::O_CLOEXEC | libc::O_NOFOLLOW).cast_unsigned();
    let filter = [
        line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 2, number(libc::SYS_openat)),
        line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 32 + low),
        line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 3, 4, opened),
        // Giving up what is left of our privileges, the first step behind the start.
        line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, number(libc::SYS_prctl)),
        line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 16 + low),
        line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, number(libc::PR_SET_DUMPABLE.into())),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned()),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let (around, before) = (OwnCgroup::new(), pins());
    let sandbox = Sandbox::new(NOTHING);
    // Without our pipes, which would be open as long as it lives.
    let command = sandbox.command(&["sh", "-c", "exec sleep 1000 </dev/null >/dev/null 2>&1"]);
    let (code, said) = end(within(&around, filtered(command, filter.to_vec())));
    let pinned: Vec<_> = pins().difference(&before).cloned().collect();
    let below = fs::read_dir(&around.path).expect("the cgroup").flatten().find(|entry| entry.path().is_dir());
    let below = below.expect("its cgroup is there").path();
    let lives = fs::read_to_string(below.join("cgroup.procs")).is_ok_and(|procs| !procs.is_empty());
    remove_cgroup(&below);
    let undone: Vec<_> = pinned
        .iter()
        .map(|id| Command::new(pipelock()).args(["detach", "--id"]).arg(id).output().expect("pipelock detach"))
        .collect();
    assert!(code == Some(1) && said.contains("cannot be ended, so the programs stay attached"), "{code:?} {said}");
    assert!(lives && pinned.len() == 1, "{pinned:?} {said}");
    assert!(undone.iter().all(|out| out.status.success()) && pins() == before, "{undone:?}");
}

#[test]
fn what_status_cannot_look_for_is_said() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let around = OwnCgroup::new();
    let mut nested = vec![around.path.clone()];
    for depth in 0..65 {
        nested.push(nested[depth].join("d"));
        fs::create_dir(&nested[depth + 1]).expect("a cgroup");
    }
    let text = end({
        let mut command = Command::new(pipelock());
        command.arg("status");
        command
    });
    let json = Command::new(pipelock()).args(["status", "--json"]).output().expect("pipelock status");
    nested.iter().skip(1).rev().for_each(|folder| fs::remove_dir(folder).expect("rmdir"));
    assert!(text.0 == Some(1) && text.1.contains("cannot be said") && text.1.contains("deeper"), "{text:?}");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert!(json["leftovers_unread"].as_str().is_some_and(|error| error.contains("deeper")), "{json:#}");
}
