//! Rules that tell git from others, with git itself: what may be fetched and pushed goes through, and of what may not nothing
//! arrives; who runs git reads why.
#![allow(clippy::expect_used, reason = "a test: what cannot be set up ends it")]

use std::path::Path;
use std::process::Command;

use pipelock_e2e::{Explicit, GIT_SITE, Run, SECRET, Sandbox, TlsServer, holds, need, web_policy};

const BEGIN: &str =
    "set -e; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b.test";
/// Longer than what git sends in one piece (http.postBuffer), so that it asks first.
const LARGE: &str = "openssl enc -aes-128-ctr -nosalt -K 0123456789abcdef0123456789abcdef -iv 0 -in /dev/zero 2>/dev/null | head -c 3000000 >large";
const RULE: &str =
    ", git: {fetch: [\"team/*\"], push: [{repository: team/open, refs: [\"agent/*\", \"refs/tags/v*\"]}]}";

struct Host {
    server: TlsServer,
    root: tempfile::TempDir,
}

impl Host {
    /// With repositories of one commit.
    fn start() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let script = format!(
            "{BEGIN}; for name in team/open team/closed own; do git init -q --bare -b main $name.git; \
             git --git-dir $name.git config http.receivepack true; git clone -q $name.git w 2>/dev/null; \
             (cd w; git checkout -q -b main; echo 1 >file; git add file; git commit -q -m first; git push -q origin main); \
             rm -rf w; done"
        );
        run_in(root.path(), &script);
        let server = TlsServer::node(&["web.test"], GIT_SITE, &[root.path().to_str().expect("text")]);
        Self { server, root }
    }

    fn url(&self, name: &str) -> String {
        format!("https://web.test:{}/{name}.git", self.server.port())
    }

    fn policy(&self, members: &str) -> String {
        web_policy(self.server.port(), &format!("{RULE}{members}"), &self.server.roots())
    }

    /// The references of a repository, with what they name.
    fn refs(&self, name: &str) -> String {
        run_in(&self.root.path().join(format!("{name}.git")), "git for-each-ref --format='%(refname) %(subject)'")
    }

    /// Clones team/open as the agent, and goes on there; what git says is on stdout.
    fn run(&self, members: &str, script: &str) -> Run {
        let script = format!("{BEGIN}; git clone -q {} w; cd w; {script}", self.url("team/open"));
        Sandbox::new(&self.policy(members)).run_ok(&["sh", "-c", &format!("({script}) 2>&1")])
    }
}

/// Runs a script on the host, which has to succeed; what it prints.
fn run_in(folder: &Path, script: &str) -> String {
    let out = Command::new("sh").args(["-c", script]).current_dir(folder).env("HOME", folder).output().expect("sh");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Verdict, reason and status of the requests that pushed.
fn pushes(run: &Run) -> Vec<(String, String, Option<u64>)> {
    let pushes =
        run.evidence.http().into_iter().filter(|one| one.method == "POST" && one.target.ends_with("git-receive-pack"));
    pushes.map(|one| (one.verdict, one.reason, one.status)).collect()
}

#[test]
fn branches_and_tags_that_are_listed_are_pushed() {
    need!("git", "node", "openssl");
    let host = Host::start();
    for (members, branch) in [("", "agent/read"), (", scan: false", "agent/unread")] {
        let commit =
            format!("git checkout -q -b {branch}; {LARGE}; echo 2 >>file; git add .; git commit -q -m {branch}");
        let run = host.run(
            members,
            &format!("{commit}; git push -q origin {branch}; git tag v{branch}; git push -q origin v{branch}"),
        );
        assert_eq!(run.text(), "", "{run}");
        assert!(pushes(&run).iter().all(|(verdict, ..)| verdict == "allow"), "{run}");
        // A question first, since the push is large, and the two pushes.
        assert_eq!(pushes(&run).len(), 3, "{run}");
    }
    let refs = "refs/heads/agent/read agent/read\nrefs/heads/agent/unread agent/unread\nrefs/heads/main first\n\
                refs/tags/vagent/read agent/read\nrefs/tags/vagent/unread agent/unread";
    assert_eq!(host.refs("team/open"), refs);
    assert!(holds(&host.server.seen(), "PACK"), "what is pushed looks otherwise than thought");
}

#[test]
fn of_other_pushes_nothing_arrives_and_git_says_why() {
    need!("git", "node", "openssl");
    let host = Host::start();
    run_in(&host.root.path().join("team/open.git"), "git branch agent/old main");
    let before = host.refs("team/open");
    let commit = "git checkout -q -b agent/new; echo 2 >>file; git add .; git commit -q -m second";
    let large = format!("{LARGE}; git add .; git commit -q -m large");
    let why = "remote: pipelock: main of team/open may not be pushed (allowed: agent/*, refs/tags/v*); to allow it, add it to refs";
    for (change, said) in [
        ("git push origin HEAD:main".to_owned(), why),
        ("git push --force origin HEAD:main".to_owned(), why),
        (format!("{large}; git push origin HEAD:main"), why),
        // What is allowed goes with what is not.
        (
            "git push origin agent/new HEAD:main".to_owned(),
            "[remote rejected] agent/new -> agent/new (pipelock does not let this",
        ),
        ("git push --atomic origin agent/new HEAD:main".to_owned(), why),
        (
            "git push origin --delete agent/old".to_owned(),
            "agent/old of team/open may not be deleted; to allow it, write delete: true",
        ),
        ("git push origin HEAD:refs/heads/agent".to_owned(), "remote: pipelock: agent of team/open may not"),
        ("git tag 1.0; git push origin 1.0".to_owned(), "remote: pipelock: refs/tags/1.0 of team/open may not"),
        ("git push --mirror origin".to_owned(), "may not be deleted"),
    ] {
        let run = host.run("", &format!("{commit}; {change} && echo went through; echo ended with $?"));
        assert!(run.text().contains(said) && run.text().contains("ended with 1"), "{change}: {run}");
        let (verdict, reason, status) = pushes(&run).pop().expect("a push");
        assert_eq!((verdict.as_str(), reason.as_str(), status), ("block", "git_denied", Some(200)), "{run}");
        let last = run.evidence.http().pop().expect("a request");
        assert_eq!(last.dialled, None, "{run}");
    }
    assert_eq!(host.refs("team/open"), before);
    assert!(
        !holds(&host.server.seen(), "PACK") && !holds(&host.server.seen(), "refs/heads/main\0"),
        "something arrived"
    );
}

#[test]
fn other_repositories_are_neither_fetched_nor_pushed_to() {
    need!("git", "node", "openssl");
    let host = Host::start();
    let own = host.url("own");
    let closed = host.url("team/closed");
    let run = host.run("", &format!("git clone -q {own} own && exit 9; git clone -q {closed} closed; cd closed; git push origin HEAD:agent/x && exit 9; true"));
    let says = |text: &str| assert!(run.text().contains(text), "{run}");
    says(
        "remote: pipelock: own may not be fetched; to allow it, add it to git.fetch of egress[0] web.test (git_denied)",
    );
    says(
        "remote: pipelock: team/closed may not be pushed to; to allow it, add it to git.push of egress[0] web.test (git_denied)",
    );
    let denied: Vec<_> = run.evidence.http().into_iter().filter(|one| one.verdict == "block").collect();
    assert_eq!(
        denied.iter().map(|one| (one.reason.as_str(), one.status)).collect::<Vec<_>>(),
        [("git_denied", Some(403)); 2],
        "{run}"
    );
    assert!(
        !holds(&host.server.seen(), "/own.git") && !holds(&host.server.seen(), "receive-pack"),
        "something arrived"
    );
    // Nor is anything else of the host's reached.
    let run = host.run("", &format!("curl -s {own}/HEAD; curl -s {own}/info/refs"));
    assert_eq!(run.text().matches("\"path_denied\"").count(), 2, "{run}");
}

#[test]
fn a_push_that_is_allowed_is_read_all_the_same() {
    need!("git", "node", "openssl");
    let host = Host::start();
    let before = host.refs("team/open");
    let change =
        format!("git checkout -q -b agent/new; echo 'token = {SECRET}' >settings; git add .; git commit -q -m second");
    let run = host.run("", &format!("{change}; git push origin agent/new >log 2>&1 && exit 9; cat log"));
    let (verdict, reason, _) = pushes(&run).pop().expect("a push");
    assert_eq!((verdict.as_str(), reason.as_str()), ("block", "dlp_match"), "{run}");
    assert!(run.text().contains("remote: pipelock: ") && run.text().contains("[remote rejected]"), "{run}");
    assert_eq!(host.refs("team/open"), before);
}

#[test]
fn it_is_the_same_through_the_explicit_proxy() {
    need!("git", "node", "openssl");
    let host = Host::start();
    let proxy = Explicit::start(&format!("version: \"1.0\"\n{}", host.policy("")), &[]);
    let folder = tempfile::tempdir().expect("a folder");
    // Its authority is none that git knows.
    let script = format!(
        "{BEGIN}; export HTTPS_PROXY=http://{} GIT_SSL_NO_VERIFY=1; git clone -q {} w; cd w; git checkout -q -b agent/new; \
         echo 2 >>file; git add .; git commit -q -m second; git push -q origin agent/new; git push origin HEAD:main 2>&1 || true",
        proxy.addr,
        host.url("team/open")
    );
    let said = run_in(folder.path(), &script);
    assert!(said.contains("remote: pipelock: main of team/open may not be pushed"), "{said}");
    assert_eq!(host.refs("team/open"), "refs/heads/agent/new second\nrefs/heads/main first");
    let receipts = proxy.end();
    let denied = receipts.iter().filter(|receipt| receipt["action_record"]["pattern"] == "git_denied").count();
    assert_eq!(denied, 1, "{receipts:#?}");
}
