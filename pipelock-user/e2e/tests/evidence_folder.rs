//! The evidence folder where the agent owns the folder above it, as in the quick start: pipelock is root there, and whatever
//! the agent puts in its place, nothing is written through it and the evidence is whole.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pipelock_e2e::{Attached, OwnCgroup, Sandbox, pipelock};

/// A file of root's that is to stay as it is, out of the agent's reach.
struct Victim(tempfile::TempDir);

impl Victim {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("passwd"), "as it was").expect("write");
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("passwd")
    }

    fn assert_untouched(&self) {
        assert_eq!(fs::read_to_string(self.path()).expect("read"), "as it was");
        assert_eq!(fs::read_dir(self.0.path()).expect("read").count(), 1);
    }
}

fn run(sandbox: &Sandbox, evidence: &Path, command: &[&str]) -> Output {
    let mut run = Command::new(pipelock());
    run.args(["run", "--user", "nobody", "--evidence"]).arg(evidence).arg("--policy").arg(sandbox.policy());
    run.arg("--").args(command).current_dir(sandbox.work()).output().expect("pipelock")
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn verifies(folder: &Path) {
    let out = Command::new(pipelock()).arg("verify").arg(folder).arg("--allow-unpinned").output().expect("verify");
    assert!(out.status.success(), "{}", said(&out));
}

#[test]
fn an_agent_that_takes_the_place_of_the_folder_has_nothing_written_for_it() {
    let (sandbox, victim) = (Sandbox::new("egress: []"), Victim::new());
    // What it puts there is a chain that an earlier run wrote.
    let forged = sandbox.work().join("forged");
    let out = run(&sandbox, &forged, &["true"]);
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    fs::set_permissions(&forged, PermissionsExt::from_mode(0o755)).expect("chmod");
    fs::set_permissions(forged.join("evidence.jsonl"), PermissionsExt::from_mode(0o644)).expect("chmod");
    let script = format!(
        "mv first away && mkdir first && cp forged/evidence.jsonl first/ && for name in receipts.json summary.md policy-hash.txt \
         public-key.pem public-key.hex; do ln -s {0} first/.$name.part; ln -s {0} first/$name; done",
        victim.path().display()
    );
    let out = run(&sandbox, Path::new("first"), &["sh", "-c", &script]);
    let said = said(&out);
    assert_eq!(out.status.code(), Some(0), "{said}");
    victim.assert_untouched();
    assert_eq!(fs::read_dir(sandbox.work().join("first")).expect("the agent's folder").count(), 11, "{said}");
    let away = sandbox.work().join("away");
    assert!(
        said.contains("is not the evidence folder any more") && said.contains(&away.display().to_string()),
        "{said}"
    );
    verifies(&away);
}

#[test]
fn a_folder_or_file_that_the_agent_prepared_is_refused() {
    let (sandbox, victim) = (Sandbox::new("egress: []"), Victim::new());
    let folder = sandbox.work().join("first");
    fs::create_dir(&folder).expect("mkdir");
    for name in ["public-key.pem", "public-key.hex", "policy-hash.txt", "pipelock.log"] {
        symlink(victim.path(), folder.join(name)).expect("a link");
    }
    std::os::unix::fs::chown(&folder, Some(65534), Some(65534)).expect("chown");
    let link = sandbox.work().join("link");
    symlink(victim.0.path(), &link).expect("a link");
    let cgroup = OwnCgroup::new();
    for (evidence, why) in [(&folder, "belongs to user 65534"), (&link, "is a symbolic link")] {
        let out = run(&sandbox, evidence, &["touch", "started"]);
        assert!(out.status.code() != Some(0) && said(&out).contains(why), "{}", said(&out));
        let mut attach = Command::new(pipelock());
        attach.args(["attach", "--detach", "--cgroup"]).arg(&cgroup.path).arg("--evidence").arg(evidence);
        let out = attach.output().expect("pipelock");
        assert!(out.status.code() == Some(1) && said(&out).contains(why), "{}", said(&out));
    }
    victim.assert_untouched();
    assert!(!sandbox.work().join("started").exists());
}

#[test]
fn a_folder_that_was_moved_under_an_attachment_is_completed_where_it_is() {
    let (sandbox, cgroup) = (Sandbox::new("egress: []"), OwnCgroup::new());
    let (first, away) = (sandbox.work().join("first"), sandbox.work().join("away"));
    let attached = Attached::start(&cgroup.path, &sandbox.policy(), &first);
    fs::rename(&first, &away).expect("move");
    attached.end();
    assert!(!first.exists());
    verifies(&away);
}

#[test]
fn keys_and_reports_are_not_written_through_links_of_another() {
    let (sandbox, victim) = (Sandbox::new("egress: []"), Victim::new());
    let evidence = sandbox.work().join("first");
    let out = run(&sandbox, &evidence, &["true"]);
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    let keygen = |name: &str| {
        Command::new(pipelock()).args(["keygen", "-o"]).arg(sandbox.work().join(name)).output().expect("keygen")
    };
    let verify = |report: &str| {
        let mut verify = Command::new(pipelock());
        verify.arg("verify").arg(&evidence).args(["--allow-unpinned", "--output"]).arg(sandbox.work().join(report));
        verify.output().expect("verify")
    };
    for out in [keygen("first-key"), verify("first-report")] {
        assert!(out.status.success(), "{}", said(&out));
    }
    for name in ["key.pub", "report.json"] {
        let link = sandbox.work().join(name);
        symlink(victim.path(), &link).expect("a link");
        std::os::unix::fs::lchown(&link, Some(65534), None).expect("chown");
    }
    let (keygen, verify) = (keygen("key"), verify("report.json"));
    for (out, why) in
        [(&keygen, "key.pub: File exists"), (&verify, "report.json: it is a symbolic link that user 65534 made")]
    {
        assert!(!out.status.success() && said(out).contains(why), "{}", said(out));
    }
    assert!(!sandbox.work().join("key").exists());
    victim.assert_untouched();
}
