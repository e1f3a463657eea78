//! git over HTTPS that is opened and read: clone and push pass as they are, and a secret stays in wherever git puts it, packed or
//! as the difference to what was there.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write as _;
use std::process::{Command, Stdio};

use pipelock_e2e::{GIT_SITE, Run, SECRET, Sandbox, TlsServer, assert_kept_in, assert_quiet, holds, need, web_policy};

struct Host {
    server: TlsServer,
    root: tempfile::TempDir,
    url: String,
}

/// The same for all: names, and a line of the file for each number.
const BEGIN: &str =
    "set -e; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b.test";
/// Text that compresses badly, so that it is pushed as a difference.
const LINES: &str =
    "seq 1 4000 | while read n; do echo \"line $n of the file, $((n * n % 7919)) and $((n * 31 % 104729))\"; done";
/// Longer than what git sends in one piece (http.postBuffer).
const LARGE: &str =
    "openssl enc -aes-128-ctr -nosalt -K 0123456789abcdef0123456789abcdef -iv 0 -in /dev/zero | head -c 3000000 >large";

impl Host {
    /// With a repository of one commit.
    fn start() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let script = format!(
            "{BEGIN}; git init -q --bare -b main project.git; git --git-dir project.git config http.receivepack true; \
             git clone -q project.git w 2>/dev/null; cd w; git checkout -q -b main; {LINES} >file; git add file; \
             git commit -q -m first; git push -q origin main"
        );
        let made = Command::new("sh").args(["-c", &script]).current_dir(&root).env("HOME", root.path()).output();
        let made = made.expect("sh");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let server = TlsServer::node(&["web.test"], GIT_SITE, &[root.path().to_str().expect("text")]);
        let url = format!("https://web.test:{}/project.git", server.port());
        Self { server, root, url }
    }

    fn sandbox(&self) -> Sandbox {
        Sandbox::new(&web_policy(self.server.port(), "", &self.server.roots()))
    }

    /// What it has of a branch.
    fn has(&self, what: &str) -> String {
        let out = Command::new("git")
            .args(["--git-dir", "project.git", "rev-parse", what])
            .current_dir(&self.root)
            .output()
            .expect("git");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Clones, changes something and pushes it; what git says is kept from us.
    fn push(&self, change: &str) -> Run {
        let script = format!(
            "{BEGIN}; (git clone -q {} one; cd one; {change}; git add .; git commit -q -m \"${{MESSAGE:-second}}\"; \
             git push -q origin main) >git.log 2>&1 || echo failed",
            self.url
        );
        self.sandbox().run_ok(&["sh", "-c", &script])
    }
}

/// The end of what git makes of a file's content: zlib at its usual level, checksum and all.
fn packed_end(content: &str) -> Vec<u8> {
    let script = "import sys, zlib; sys.stdout.buffer.write(zlib.compress(sys.stdin.buffer.read())[-16:])";
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    python.stdin.take().expect("piped").write_all(content.as_bytes()).expect("its input");
    python.wait_with_output().expect("python3").stdout
}

#[test]
fn clone_and_push_are_quiet_and_arrive() {
    need!("git", "node", "openssl", "python3");
    let host = Host::start();
    let content = "just a note, and nothing secret in it\n";
    for change in ["echo 'one more' >>file".to_owned(), format!("{LARGE}; printf '{content}' >note")] {
        let before = host.has("main");
        let run = host.push(&change);
        assert_eq!(run.text(), "", "{run}");
        assert_quiet(&run);
        assert!(host.has("main") != before && host.has("main~1") == before, "{run}");
    }
    assert!(holds(&host.server.seen(), packed_end(content)), "what is packed looks otherwise than thought");
}

#[test]
fn a_secret_in_url_or_header_stays_in() {
    need!("git", "node", "openssl");
    let host = Host::start();
    let elsewhere = host.url.replace("project.git", &format!("{SECRET}/project.git"));
    let named = host.url.replace("https://", &format!("https://agent:{SECRET}@"));
    for (command, place) in [
        (format!("clone {elsewhere} one"), "url"),
        (format!("-c http.extraHeader='X-Token: {SECRET}' clone {} one", host.url), "header x-token"),
        (format!("-c http.extraHeader='Authorization: Bearer {SECRET}' clone {named} one"), "header authorization"),
    ] {
        let script = format!("git {command} >git.log 2>&1; echo $?");
        let run = host.sandbox().run_ok(&["sh", "-c", &script]);
        assert_eq!(run.text().trim(), "128", "{run}");
        assert_kept_in(&run, place, &host.server.seen());
    }
    assert!(host.server.seen().is_empty(), "a request arrived");
}

#[test]
fn a_secret_in_a_push_stays_in_wherever_git_packs_it() {
    need!("git", "node", "openssl", "python3");
    let host = Host::start();
    let before = host.has("main");
    let file = format!("# settings\ntoken = {SECRET}\n");
    for change in [
        format!("echo 'token = {SECRET}' >settings"),
        // As the difference to a file that is there: at its end, and in the middle of a line.
        format!("echo 'token = {SECRET}' >>file"),
        format!("sed -i 's/line 2000 of/line 2000 {SECRET} of/' file"),
        format!("echo fine >note; MESSAGE='use {SECRET}'"),
        format!("echo fine >{SECRET}"),
        // In a file that git packs anew with others before and behind it.
        format!("for n in $(seq 40); do echo \"note $n\" >note$n; done; echo 'token = {SECRET}' >note20x"),
        format!("{LARGE}; printf '{}' >settings", file.replace('\n', "\\n")),
    ] {
        let run = host.push(&change);
        assert_eq!(run.text(), "failed\n", "{change}: {run}");
        let seen = host.server.seen();
        assert_kept_in(&run, "body", &seen);
        if change.contains("large") {
            assert!(!holds(&seen, packed_end(&file)), "the packed secret arrived");
        } else {
            assert!(!holds(&seen, "POST\n/project.git/git-receive-pack"), "{change}: the push arrived");
        }
        assert_eq!(host.has("main"), before, "{change}");
    }
}
