//! `pipelock detach --id`: attachments that can no longer be named by their cgroup, as `pipelock status` lists them.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod attached;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use attached::{Cage, said};
use pipelock_e2e::{Sandbox, pipelock, remove_cgroup, until, verify_json};
use serde_json::Value;

fn detach(id: &str) -> Output {
    Command::new(pipelock()).args(["detach", "--id", id]).output().expect("pipelock detach")
}

fn detach_into(id: &str, evidence: &Path) -> Output {
    Command::new(pipelock()).args(["detach", "--id", id, "--evidence"]).arg(evidence).output().expect("pipelock detach")
}

/// Runs what `status` says, with a folder for the evidence.
fn as_told(status: &Value, evidence: &Path) -> Output {
    let command = status["detach"].as_str().expect("a command");
    let mut words = command.split(' ');
    assert_eq!(words.next(), Some("pipelock"), "{command}");
    Command::new(pipelock()).args(words).arg("--evidence").arg(evidence).output().expect("pipelock detach")
}

fn id_of(status: &Value) -> String {
    status["id"].as_str().expect("a name").to_owned()
}

/// Everything that a server makes under the name of its attachment is gone.
fn assert_nothing_left(id: &str) {
    assert!(!Path::new("/sys/fs/bpf/pipelock").join(id).exists(), "pins are left");
    let files = fs::read_dir("/run/pipelock").expect("the folder").flatten();
    let left: Vec<_> = files.filter(|file| file.file_name().to_string_lossy().contains(id)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!trust_of(id).exists(), "what its programs trust is left");
}

/// Where a run puts what its agent's programs are to trust.
fn trust_of(id: &str) -> PathBuf {
    Path::new("/run/pipelock-trust").join(id)
}

#[test]
fn a_served_attachment_is_detached_by_its_id() {
    let cage = Cage::new("egress: []");
    cage.attached(&cage.files.evidence());
    let status = cage.status().0.expect("listed");
    assert_eq!(status["detach"], Value::Null, "it is well: {status:#}");
    let out = detach(&id_of(&status));
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(verify_json(&cage.files.evidence()).0, 0);
    assert_nothing_left(&id_of(&status));
    let again = detach(&id_of(&status));
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(said(&again).contains("nothing is attached"), "{}", said(&again));
    assert_eq!(detach("../cg-1").status.code(), Some(2));
}

/// As when somebody removed the rest by hand.
#[test]
fn what_is_left_of_a_number_that_nothing_else_is_left_of_is_removed() {
    let id = "cg-4000000000001";
    fs::create_dir_all(trust_of(id)).expect("a folder");
    fs::write(trust_of(id).join("bundle.pem"), "x").expect("a file");
    let out = detach(id);
    assert!(out.status.success() && said(&out).contains("removed"), "{}", said(&out));
    assert_nothing_left(id);
    let again = detach(id);
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(said(&again).contains("nothing is attached"), "{}", said(&again));
}

#[test]
fn a_killed_server_is_detached_as_status_says() {
    let cage = Cage::new("egress: []");
    cage.attached(&cage.files.evidence());
    cage.kill_server();
    let (status, code) = cage.status();
    let status = status.expect("listed");
    assert_eq!((&status["health"], code), (&"closed".into(), 1), "{status:#}");
    let evidence = cage.files.work().join("evidence-detach");
    let out = as_told(&status, &evidence);
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(verify_json(&evidence).0, 0);
    assert!(cage.status().0.is_none());
    assert_nothing_left(&id_of(&status));
}

#[test]
fn what_is_left_of_a_cgroup_that_is_gone_is_removed_as_status_says() {
    let cage = Cage::new("egress: []");
    cage.attached(&cage.files.evidence());
    cage.kill_server();
    // What was refused while nobody served it.
    let refused = "import socket\nfor port in range(4000, 4005):\n  socket.socket().connect_ex(('192.0.2.1', port))";
    assert!(cage.inside(&["python3", "-c", refused]).status().expect("python3").success());
    until("the end of what was inside", || fs::remove_dir(&cage.cgroup).is_ok());
    // The kernel gives up the links of a removed cgroup a moment later.
    let mut status = Value::Null;
    until("the end of the links", || {
        status = cage.status().0.expect("listed");
        status["health"] == "stale"
    });
    let by_path = cage.pipelock("detach").output().expect("pipelock detach");
    assert_eq!(by_path.status.code(), Some(1), "{}", said(&by_path));
    assert!(said(&by_path).contains("pipelock status"), "{}", said(&by_path));
    let shown = Command::new(pipelock()).arg("status").output().expect("pipelock status");
    let command = status["detach"].as_str().expect("a command");
    assert!(said(&shown).contains(&format!("sudo {command}")), "{}", said(&shown));
    let evidence = cage.files.work().join("evidence-detach");
    let out = as_told(&status, &evidence);
    assert!(out.status.success(), "{}", said(&out));
    let (code, report) = verify_json(&evidence);
    assert_eq!(code, 0, "{report}");
    let receipts = fs::read_to_string(evidence.join("evidence.jsonl")).expect("the chain");
    for port in 4000..4005 {
        assert!(receipts.contains(&format!("192.0.2.1:{port}")), "{port}: {}", said(&out));
    }
    assert!(cage.status().0.is_none());
    assert_nothing_left(&id_of(&status));
    // The cage removes its cgroup when it is dropped.
    fs::create_dir(&cage.cgroup).expect("a cgroup");
}

/// Also when /run was emptied meanwhile: the kernel knows which cgroup it is.
#[test]
fn a_killed_server_without_a_state_is_detached_by_its_id() {
    let cage = Cage::new("egress: []");
    cage.attached(&cage.files.evidence());
    cage.kill_server();
    let id = id_of(&cage.status().0.expect("listed"));
    fs::remove_file(format!("/run/pipelock/{id}.json")).expect("the state");
    let evidence = cage.files.work().join("evidence-detach");
    let out = detach_into(&id, &evidence);
    assert!(out.status.success(), "{}", said(&out));
    assert_eq!(verify_json(&evidence).0, 0);
    assert_nothing_left(&id);
}

/// What a killed `run` left, if the test does not come to its end.
struct Rest(PathBuf);

impl Drop for Rest {
    fn drop(&mut self) {
        remove_cgroup(&self.0);
    }
}

/// Also when it was killed before it could say what it is.
#[test]
fn the_command_of_a_killed_run_is_ended_by_the_id() {
    for is_state_lost in [false, true] {
        let sandbox = Sandbox::new("egress: []");
        let mut child = sandbox.command(&["sleep", "1000"]).spawn().expect("pipelock run");
        let folder = sandbox.evidence();
        let mut status = Value::Null;
        until("the run", || {
            let out = Command::new(pipelock()).args(["status", "--json"]).output().expect("pipelock status");
            let all: Value = serde_json::from_slice(&out.stdout).expect("JSON");
            let all = all["attachments"].as_array().expect("a list").clone();
            let ours = all.into_iter().find(|one| one["evidence"] == folder.to_str().expect("text"));
            status = ours.unwrap_or_default();
            status["health"] == "ok"
        });
        let rest = Rest(status["cgroup"].as_str().expect("a path").into());
        child.kill().expect("kill");
        child.wait().expect("wait");
        let id = id_of(&status);
        if is_state_lost {
            fs::remove_file(format!("/run/pipelock/{id}.json")).expect("the state");
        }
        fs::write(rest.0.join("cgroup.freeze"), "1").expect("frozen");
        let evidence = sandbox.work().join("evidence-detach");
        // Nobody ends processes unasked.
        let out = detach_into(&id, &evidence);
        assert_eq!(out.status.code(), Some(1), "{}", said(&out));
        assert!(said(&out).contains("--force") && rest.0.exists() && !evidence.exists(), "{}", said(&out));
        let out = Command::new(pipelock()).args(["status", "--json"]).output().expect("pipelock status");
        let all: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let all = all["attachments"].as_array().expect("a list").clone();
        let out = as_told(&all.into_iter().find(|one| one["id"] == id.as_str()).expect("listed"), &evidence);
        assert!(out.status.success(), "{}", said(&out));
        assert!(!said(&out).contains("cgroup.freeze"), "it is removed: {}", said(&out));
        assert_eq!(verify_json(&evidence).0, 0);
        assert!(!rest.0.exists(), "its cgroup and what lived in it");
        assert_nothing_left(&id);
    }
}

#[test]
fn a_reload_without_a_policy_file_takes_none_from_the_working_folder() {
    let cage = Cage::new("egress: []");
    // The server's working folder is often the agent's own.
    cage.files.file("deny-all", "version: \"1.0\"\negress: [{destination: evil.test, ports: [80], scan: false}]\n");
    let mut attach = cage.pipelock("attach");
    attach.arg("--evidence").arg(cage.files.evidence()).arg("--detach").current_dir(cage.files.work());
    let out = attach.output().expect("pipelock attach");
    assert!(out.status.success(), "{}", said(&out));
    let before = cage.status().0.expect("listed");
    let out = cage.pipelock("reload").current_dir(cage.files.work()).output().expect("pipelock reload");
    assert!(out.status.success(), "{}", said(&out));
    let after = cage.status().0.expect("listed");
    assert_eq!((&before["policy"], &after["policy"]), (&"deny-all".into(), &"deny-all".into()));
    assert_eq!(before["policy_hash"], after["policy_hash"]);
    cage.detached();
}

#[test]
fn a_removed_cgroup_is_detached_while_a_socket_made_in_it_lives() {
    let cage = Cage::new("egress: []\nlisten: any");
    cage.attached(&cage.files.evidence());
    // A socket is handed out of the cgroup and outlives it: the kernel keeps the programs attached.
    let script = "import os, socket, sys\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  socket.send_fds(socket.socket(fileno=0), [b'x'], [s.fileno()])\n";
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
    let mut inside = cage.inside(&["python3", "-c", script]);
    let status = inside.stdin(std::os::fd::OwnedFd::from(theirs)).status().expect("python3");
    assert!(status.success());
    cage.kill_server();
    let id = id_of(&cage.status().0.expect("listed"));
    until("the cgroup's removal", || fs::remove_dir(&cage.cgroup).is_ok());
    std::thread::sleep(std::time::Duration::from_millis(300));
    // The socket waits in the queue of ours.
    assert_eq!(cage.status().0.expect("listed")["health"], "closed", "the links live");
    let out = detach(&id);
    assert!(out.status.success(), "{}", said(&out));
    assert!(said(&out).contains("not to be found"), "{}", said(&out));
    assert_nothing_left(&id);
    drop(ours);
}

#[test]
fn a_signal_while_attaching_leaves_nothing_behind() {
    let cage = Cage::new("egress: []");
    let id = format!("cg-{}", std::os::unix::fs::MetadataExt::ino(&fs::metadata(&cage.cgroup).expect("the cgroup")));
    for round in 0..25_u64 {
        let mut attach = cage.pipelock("attach");
        attach.arg("--evidence").arg(cage.files.work().join(format!("evidence-{round}")));
        let mut server = attached::Guard(attach.spawn().expect("pipelock attach"));
        std::thread::sleep(std::time::Duration::from_millis(round * 4));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(server.0.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("kill");
        server.0.wait().expect("wait");
        assert!(!Path::new("/sys/fs/bpf/pipelock").join(&id).exists(), "round {round}: pins are left");
    }
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Starts all at once and waits for them.
fn at_once(commands: Vec<Command>) -> Vec<Output> {
    let start = |mut command: Command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pipelock");
    let started: Vec<_> = commands.into_iter().map(start).collect();
    started.into_iter().map(|child| child.wait_with_output().expect("the end")).collect()
}

#[test]
fn of_two_who_detach_at_once_one_does() {
    for _ in 0..5 {
        let cage = Cage::new("egress: []");
        cage.attached(&cage.files.evidence());
        cage.kill_server();
        let id = id_of(&cage.status().0.expect("listed"));
        let folders = [0, 1].map(|number| cage.files.work().join(format!("evidence-{number}")));
        let commands = folders.iter().map(|folder| {
            let mut command = Command::new(pipelock());
            command.args(["detach", "--id", &id, "--evidence"]).arg(folder);
            command
        });
        let outs = at_once(commands.collect());
        let all: String = outs.iter().map(said).collect();
        assert_eq!(outs.iter().filter(|out| out.status.success()).count(), 1, "{all}");
        for (out, folder) in outs.iter().zip(&folders) {
            assert_eq!(out.status.success(), folder.exists(), "{all}");
        }
        assert_nothing_left(&id);
    }
}

#[test]
fn of_two_who_attach_at_once_the_second_leaves_no_folder() {
    for _ in 0..5 {
        let cage = Cage::new("egress: []");
        let folders = [0, 1].map(|number| cage.files.work().join(format!("evidence-{number}")));
        let outs = at_once(folders.iter().map(|folder| cage.attach(folder)).collect());
        let all: String = outs.iter().map(said).collect();
        assert_eq!(outs.iter().filter(|out| out.status.success()).count(), 1, "{all}");
        for (out, folder) in outs.iter().zip(&folders) {
            assert_eq!(out.status.success(), folder.exists(), "{:?} {all}", names(folder));
        }
        cage.detached();
    }
}

/// From another cgroup namespace the cgroup is not to be seen; its processes must not be free for that.
#[test]
fn a_cgroup_that_is_only_not_seen_from_here_stays_closed() {
    let cage = Cage::new("egress: []");
    cage.attached(&cage.files.evidence());
    cage.kill_server();
    let id = id_of(&cage.status().0.expect("listed"));
    let elsewhere = Cage::new("egress: []");
    let point = cage.cgroup.parent().expect("a mount point").to_owned();
    let from_elsewhere = |options: &str| {
        let script = format!(
            "umount -l {0} && mount -t cgroup2 none {0} && exec {1} detach --id {id} {options}",
            point.display(),
            pipelock().display()
        );
        elsewhere.inside(&["unshare", "--mount", "--cgroup", "sh", "-c", &script]).output().expect("unshare")
    };
    let out = from_elsewhere("");
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("not to be seen from here") && said(&out).contains("--force"), "{}", said(&out));
    assert_eq!(cage.status().0.expect("listed")["health"], "closed", "still attached");
    let out = from_elsewhere("--force");
    assert!(out.status.success(), "{}", said(&out));
    assert_nothing_left(&id);
}

/// What a crash leaves when it has made the cgroup and attached nothing yet, or nothing any more.
#[test]
fn a_cgroup_that_a_run_left_is_listed_and_removed() {
    let cage = Cage::new("egress: []");
    let left = cage.cgroup.with_file_name(format!("pipelock-run-e2e-{}", std::process::id()));
    fs::create_dir(&left).expect("a cgroup");
    let rest = Rest(left.clone());
    let listed = || {
        let out = Command::new(pipelock()).args(["status", "--json"]).output().expect("pipelock status");
        let all: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let all = all["attachments"].as_array().expect("a list").clone();
        (all.into_iter().find(|one| one["cgroup"] == left.to_str().expect("text")), out.status.code())
    };
    let (status, _) = listed();
    let status = status.expect("listed");
    assert_eq!((&status["health"], &status["populated"]), (&"leftover".into(), &false.into()), "{status:#}");
    // Nobody ends processes unasked.
    let join = format!("echo $$ > {}/cgroup.procs && exec sleep 1000", left.display());
    let mut inside = attached::Guard(Command::new("sh").args(["-c", &join]).spawn().expect("sh"));
    until("a process in it", || listed().0.expect("listed")["populated"] == true);
    assert_eq!(listed().1, Some(1), "nothing encloses it");
    let id = id_of(&status);
    let out = detach(&id);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("--force") && left.exists(), "{}", said(&out));
    assert!(inside.0.try_wait().expect("wait").is_none(), "it lives");
    fs::create_dir_all(trust_of(&id)).expect("a folder");
    let out = as_told(&listed().0.expect("listed"), &cage.files.evidence());
    assert!(out.status.success() && !left.exists(), "{}", said(&out));
    assert!(!trust_of(&id).exists(), "what a killed run had its programs trust is left");
    // Empty, by its path.
    fs::create_dir(&left).expect("a cgroup");
    let out = Command::new(pipelock()).args(["detach", "--cgroup"]).arg(&left).output().expect("pipelock detach");
    assert!(out.status.success() && !left.exists(), "{}", said(&out));
    // That of another name is nobody's leftover.
    let out = cage.pipelock("detach").output().expect("pipelock detach");
    assert!(said(&out).contains("nothing is attached") && cage.cgroup.exists(), "{}", said(&out));
    drop(rest);
}
