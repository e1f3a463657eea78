//! Services that stream both ways inside TLS that is opened: git over HTTP, and what gRPC is made of (trailers, messages one
//! by one in both directions).
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

use pipelock_e2e::{GIT_SITE, Sandbox, TlsServer, need, web_policy};

#[test]
fn git_clones_and_pushes() {
    need!("git", "openssl", "node");
    let root = tempfile::tempdir().expect("a folder");
    let repository = root.path().join("project.git");
    let git = |args: &[&str]| {
        let out = Command::new("git").args(args).current_dir(root.path()).output().expect("git");
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    git(&["init", "-q", "--bare", "-b", "main", "project.git"]);
    git(&["--git-dir", "project.git", "config", "http.receivepack", "true"]);
    let server = TlsServer::node(&["web.test"], GIT_SITE, &[root.path().to_str().expect("text")]);
    let url = format!("https://web.test:{}/project.git", server.port());
    // Larger than what git sends in one piece (http.postBuffer), so that the push is chunked; and the same every time.
    let script = format!(
        "set -e; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b.test GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b.test\n\
         git clone -q {url} one; cd one; git checkout -q -b main; head -c 3000000 /dev/zero | openssl enc -aes-128-ctr -nosalt -K 0123456789abcdef0123456789abcdef -iv 0 > big; git add big\n\
         git commit -qm first; git push -q origin main; cd ..; git clone -q {url} two; cmp one/big two/big; git -C two rev-parse HEAD"
    );
    let run = Sandbox::new(&web_policy(server.port(), "", &server.roots())).run_ok(&["sh", "-c", &script]);
    assert_eq!(git(&["--git-dir", "project.git", "rev-parse", "main"]), run.text().trim(), "{run}");
    let requests = run.evidence.http();
    assert!(requests.iter().all(|request| request.verdict == "allow"), "{requests:#?}");
    assert!(requests.iter().any(|request| request.target.ends_with("/git-receive-pack")), "{run}");

    // One that may fetch and not push.
    let sandbox = Sandbox::new(&web_policy(
        server.port(),
        ", paths: [\"/project.git/info/refs\", \"/project.git/git-upload-pack\"]",
        &server.roots(),
    ));
    let script = format!(
        "git clone -q {url} three && cd three && \
         git -c user.name=a -c user.email=a@b.test commit -q --allow-empty -m second && ! git push -q origin main"
    );
    let run = sandbox.run_ok(&["sh", "-c", &script]);
    assert!(run.evidence.http().iter().any(|request| request.reason == "path_denied"), "{run}");
    assert!(repository.is_dir());
}

/// Echoes each message as it comes; ends with trailers, as gRPC does (PROTOCOL-HTTP2: `te: trailers`, `grpc-status`).
const GRPC: &str = r#"
const handler = (request, response) => {
    response.statusCode = request.headers.te === "trailers" ? 200 : 400;
    response.setHeader("content-type", "application/grpc");
    response.addTrailers({ "grpc-status": "0", "grpc-message": "fine" });
    request.on("data", data => response.write(data));
    request.on("end", () => response.end());
};
"#;

#[test]
fn messages_go_both_ways_one_by_one_and_trailers_arrive() {
    need!("openssl", "node");
    let server = TlsServer::node(&["web.test"], GRPC, &[]);
    // The next message is sent when the former one has come back.
    let client = r#"
const session = require("http2").connect(process.argv[1]);
const call = session.request({ ":method": "POST", ":path": "/pkg.Service/Chat", te: "trailers", "content-type": "application/grpc" });
let sent = 0;
// In front of each message: that it is not compressed, and its length.
const framed = text => Buffer.concat([Buffer.from([0, 0, 0, 0, text.length]), Buffer.from(text)]);
const next = () => sent < 5 ? call.write(framed(`message ${sent++};`)) : call.end();
call.on("response", headers => console.log("status", headers[":status"], headers["content-type"]));
call.on("data", data => { console.log("got", String(data.subarray(5))); next(); });
call.on("trailers", trailers => console.log("trailers", trailers["grpc-status"], trailers["grpc-message"]));
call.on("close", () => session.close());
next();
"#;
    let url = format!("https://web.test:{}", server.port());
    let run = Sandbox::new(&web_policy(server.port(), "", &server.roots())).run_ok(&["node", "-e", client, &url]);
    let expected = "status 200 application/grpc\ngot message 0;\ngot message 1;\ngot message 2;\ngot message 3;\ngot message 4;\n\
                    trailers 0 fine\n";
    assert_eq!(run.text(), expected, "{run}");
    assert_eq!(run.evidence.http().len(), 1, "{run}");
}
