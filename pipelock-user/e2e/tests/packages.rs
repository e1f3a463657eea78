//! Package managers and git against registries of the test's own: whole conversations, not single requests.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use pipelock_e2e::{Answer, HttpServer, Run, Sandbox, Seen, need};

fn policy(name: &str, port: u16) -> String {
    format!(
        "egress: [{{destination: {name}, ports: [{port}], protocol: http, scan: false}}]\n\
         dns: {{hosts: {{{name}: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}"
    )
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("bind")
}

/// Every connection went to the registry and was allowed; every request has its receipt.
fn assert_only(run: &Run, name: &str, server: &HttpServer) {
    for flow in run.evidence.connections() {
        assert_eq!((flow.name.as_deref(), flow.reason.as_str()), (Some(name), "policy_allow"), "{run}");
    }
    let http = run.evidence.http();
    assert!(!http.is_empty(), "{run}");
    assert_eq!(http.len(), server.seen().len(), "a receipt for each request that arrived: {run}");
    let prefix = format!("http://{name}:{}/", server.port());
    assert!(http.iter().all(|request| request.target.starts_with(&prefix)), "{http:#?}");
}

fn python(script: &str, folder: &Path) {
    let out = Command::new("/usr/bin/python3").args(["-c", script]).current_dir(folder).output().expect("python3");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn pip_installs_from_a_local_index() {
    need!("pip3", "python3");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let make_wheel = r#"
import zipfile
info = "plsample-1.0.dist-info/"
with zipfile.ZipFile("plsample-1.0-py3-none-any.whl", "w") as z:
    z.writestr("plsample.py", "ANSWER = 42\n")
    z.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: plsample\nVersion: 1.0\n")
    z.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: e2e\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr(info + "RECORD", "plsample.py,,\n" + "".join(info + f + ",,\n" for f in ("METADATA", "WHEEL", "RECORD")))
"#;
    python(make_wheel, folder.path());
    let wheel = std::fs::read(folder.path().join("plsample-1.0-py3-none-any.whl")).expect("the wheel");
    let server = HttpServer::with(listener(), move |seen: &Seen| match seen.path.as_str() {
        "/simple/plsample/" => Answer::ok(
            "text/html",
            "<!DOCTYPE html><a href=\"/files/plsample-1.0-py3-none-any.whl\">plsample-1.0-py3-none-any.whl</a>",
        ),
        "/files/plsample-1.0-py3-none-any.whl" => Answer::ok("application/octet-stream", wheel.clone()),
        _ => Answer::not_found(),
    });
    let index = format!("http://pypi.test:{}/simple/", server.port());
    let sandbox = Sandbox::new(&policy("pypi.test", server.port()));
    let install = format!(
        "pip3 install --quiet --isolated --no-cache-dir --disable-pip-version-check --trusted-host pypi.test \
         --index-url {index} --target ./site plsample && PYTHONPATH=./site python3 -c 'import plsample; print(plsample.ANSWER)'"
    );
    let run = sandbox.run_ok(&["sh", "-c", &install]);
    assert_eq!(run.text().trim(), "42", "{run}");
    assert_only(&run, "pypi.test", &server);
}

#[test]
fn npm_installs_from_a_local_registry() {
    need!("npm", "node");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let make_tarball = r#"
import io, json, tarfile
with tarfile.open("plsample-1.0.0.tgz", "w:gz") as t:
    for name, text in (("package.json", json.dumps({"name": "plsample", "version": "1.0.0", "main": "index.js"})),
                       ("index.js", "module.exports = 42;\n")):
        info = tarfile.TarInfo("package/" + name); info.size = len(text); info.mode = 0o644
        t.addfile(info, io.BytesIO(text.encode()))
"#;
    python(make_tarball, folder.path());
    let tarball = std::fs::read(folder.path().join("plsample-1.0.0.tgz")).expect("the tarball");
    let listener = listener();
    let base = format!("http://npm.test:{}", listener.local_addr().expect("bound").port());
    let link = format!("{base}/plsample/-/plsample-1.0.0.tgz");
    let server = HttpServer::with(listener, move |seen: &Seen| match seen.path.as_str() {
        "/plsample" => Answer::ok(
            "application/json",
            serde_json::json!({
                "name": "plsample", "dist-tags": {"latest": "1.0.0"},
                "versions": {"1.0.0": {"name": "plsample", "version": "1.0.0", "dist": {"tarball": link}}},
            })
            .to_string(),
        ),
        "/plsample/-/plsample-1.0.0.tgz" => Answer::ok("application/octet-stream", tarball.clone()),
        _ => Answer::not_found(),
    });
    let sandbox = Sandbox::new(&policy("npm.test", server.port()));
    sandbox.file("package.json", r#"{"name": "user", "version": "1.0.0"}"#);
    let install = format!(
        "npm install --no-audit --no-fund --no-update-notifier --registry {base} plsample >&2 && node -p 'require(\"plsample\")'"
    );
    let run = sandbox.run_ok(&["sh", "-c", &install]);
    assert_eq!(run.text().trim(), "42", "{run}");
    assert_only(&run, "npm.test", &server);
}

/// A bare repository with one commit, in `folder/repo.git`.
fn make_repository(folder: &Path) {
    let script = "git init -q -b main w && cd w && git config user.email e2e@example.test && git config user.name e2e && \
                  echo hello > file && git add file && git commit -q -m first && cd .. && \
                  git clone -q --bare w repo.git && cd repo.git && git config http.receivepack true && git update-server-info";
    let out = Command::new("sh").args(["-c", script]).current_dir(folder).env("HOME", folder).output().expect("sh");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn git_clones_over_the_dumb_protocol() {
    need!("git");
    let folder = tempfile::tempdir().expect("a temporary folder");
    make_repository(folder.path());
    let root = folder.path().to_owned();
    let server = HttpServer::with(listener(), move |seen: &Seen| {
        let path = seen.path.split('?').next().unwrap_or_default().trim_start_matches('/');
        match std::fs::read(root.join(path)) {
            Ok(bytes) => Answer::ok("application/octet-stream", bytes),
            Err(_) => Answer::not_found(),
        }
    });
    let url = format!("http://git.test:{}/repo.git", server.port());
    let clone = format!("git clone -q {url} clone && cat clone/file");
    let run = Sandbox::new(&policy("git.test", server.port())).run_ok(&["sh", "-c", &clone]);
    assert_eq!(run.text(), "hello\n", "{run}");
    assert_only(&run, "git.test", &server);
    assert!(run.evidence.connections().iter().all(|flow| flow.comm == "git-remote-http"), "{run}");
}

/// `git http-backend` as a CGI program.
fn backend(root: &Path, seen: &Seen) -> Answer {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "e2e")
        .env("REQUEST_METHOD", &seen.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", seen.headers.get("content-type").map_or("", String::as_str))
        .env("CONTENT_LENGTH", seen.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", seen.headers.get("content-encoding").map_or("", String::as_str))
        .env("GIT_PROTOCOL", seen.headers.get("git-protocol").map_or("", String::as_str))
        .env("HOME", root)
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("git http-backend");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), &seen.body).expect("its input");
    let out = child.wait_with_output().expect("git http-backend");
    let split = out.stdout.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&out.stdout[..split]).into_owned();
    let field = |name: &str| {
        head.lines().find_map(|line| line.split_once(": ").filter(|(key, _)| *key == name)).map(|(_, value)| value)
    };
    let status = field("Status").and_then(|status| status.get(..3)?.parse().ok()).unwrap_or(200);
    Answer {
        status,
        content_type: field("Content-Type").unwrap_or_default().into(),
        body: out.stdout[split + 4..].to_vec(),
    }
}

#[test]
fn git_clones_and_pushes_over_the_smart_protocol() {
    need!("git", "/usr/lib/git-core/git-http-backend");
    let folder = tempfile::tempdir().expect("a temporary folder");
    make_repository(folder.path());
    let root = folder.path().to_owned();
    let server = HttpServer::with(listener(), move |seen: &Seen| backend(&root, seen));
    let url = format!("http://git.test:{}/repo.git", server.port());
    // 3 MiB that do not compress: the push is a chunked POST.
    let work = format!(
        "git clone -q {url} clone && cd clone && cat file && head -c 3000000 /dev/urandom > big && git add big && \
         git -c user.email=e2e@example.test -c user.name=e2e commit -q -m second && git push -q origin main"
    );
    let run = Sandbox::new(&policy("git.test", server.port())).run_ok(&["sh", "-c", &work]);
    assert_eq!(run.text(), "hello\n", "{run}");
    assert_only(&run, "git.test", &server);
    assert!(server.seen().iter().any(|seen| seen.method == "POST" && seen.body.len() > 3_000_000));
    let log = Command::new("git")
        .args(["log", "--format=%s", "main"])
        .current_dir(folder.path().join("repo.git"))
        .output()
        .expect("git log");
    assert_eq!(String::from_utf8_lossy(&log.stdout), "second\nfirst\n");
}

/// TCP over ::1 batches more than 64 KiB into one packet with a hop-by-hop option; a backstop that takes this for an
/// unknown protocol makes uploads crawl on retransmissions.
#[test]
fn large_uploads_go_through_over_both_families() {
    need!("curl");
    let server = HttpServer::start("127.0.0.1:0");
    let url = format!("http://up.test:{}/", server.port());
    for family in ["-4", "-6"] {
        let sandbox = Sandbox::new(&policy("up.test", server.port()));
        sandbox.file("big", vec![b'x'; 20_000_000]);
        let run = sandbox.run_ok(&["curl", "-sSf", family, "--max-time", "10", "--data-binary", "@big", &url]);
        assert!(run.text().contains("\"body_bytes\":20000000"), "{run}");
        let flow = run.evidence.connection();
        assert!(flow.tx_bytes >= 20_000_000, "{flow:?}");
        assert!(run.evidence.with_reason("packet_denied").is_empty(), "{run}");
    }
}
