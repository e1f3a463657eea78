//! Rules that want somebody asked: a person at the terminal of `run`, and a service that is asked over TLS. Without a yes nothing
//! leaves, and the evidence says who was asked.
#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

mod attached;

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use attached::{Cage, said};
use pipelock_e2e::{
    Evidence, HttpServer, SECRET, Sandbox, TlsServer, free_address, need, on_terminal, pipelock, until, web_policy,
};
use serde_json::Value;

/// What the receipts of requests say: verdict, reason, who was asked and what they said.
fn told(evidence: &Evidence) -> Vec<String> {
    told_by(evidence.receipts())
}

fn told_by(receipts: &[Value]) -> Vec<String> {
    let requests = receipts.iter().filter(|receipt| receipt["action_record"]["transport"] == "forward");
    let told = requests.map(|receipt| {
        let action = &receipt["action_record"];
        let asked = &receipt["ext"]["flow_v1"]["asked"];
        let words = [&action["verdict"], &action["pattern"], &asked["of"], &asked["answer"]];
        words.map(|word| word.as_str().unwrap_or("-").to_owned()).join(" ")
    });
    told.collect()
}

#[test]
fn whoever_sits_at_the_terminal_decides_while_the_agent_holds_still() {
    need!("curl", "python3");
    let server = HttpServer::start("127.0.0.1:0");
    let sandbox = Sandbox::new(&web_policy(server.port(), ", ask: true", "ask: {timeout_seconds: 60}\n"));
    // Beside what it asks for, the agent paints the answer it would like, and takes what is typed.
    let agent = "(while sleep 0.05; do echo tick; done) & (while :; do head -c 1; done </dev/tty >/dev/null) & sleep 0.5; \
                 curl -sS -o /dev/null -w 'first %{http_code}\n' http://web.test:$1/a; \
                 curl -sS -o /dev/null -w 'second %{http_code}\n' -X PUT http://web.test:$1/b; \
                 curl -sS -o /dev/null -w 'third %{http_code}\n' http://web.test:$1/c; \
                 curl -sS -o /dev/null -w 'fourth %{http_code}\n' http://web.test:$1/d; kill $(jobs -p)";
    let command = sandbox.command(&["bash", "-c", agent, "bash", &server.port().to_string()]);
    on_terminal(
        &command,
        r#"
m = launch()
expect(m, b"tick")
os.write(m, b"yes\nyes\nyes\n")
expect(m, b"wants: GET http://web.test:"); expect(m, b"/a"); expect(m, b"within 60 s: ")
end = time.time() + 1.5
while time.time() < end:
    if select.select([m], [], [], 0.1)[0]:
        more = os.read(m, 4096)
        assert b"tick" not in more, "the agent goes on: %r" % more
os.write(m, b"yes\n"); expect(m, b"first 200")
expect(m, b"wants: PUT"); expect(m, b"within 60 s: "); os.write(m, b"no\n"); expect(m, b"second 403")
expect(m, b"wants: GET"); expect(m, b"within 60 s: "); os.write(m, b"always\n"); expect(m, b"third 200")
expect(m, b"fourth 200"); expect(m, b"SHELL exit ")
"#,
    );
    assert_eq!(server.seen().iter().map(|seen| seen.path.clone()).collect::<Vec<_>>(), ["/a", "/c", "/d"]);
    let yes = |word: &str| format!("allow policy_allow terminal {word}");
    assert_eq!(
        told(&Evidence::read(&sandbox.evidence())),
        [yes("yes"), "block ask_denied terminal no".into(), yes("always"), yes("always")]
    );
}

#[test]
fn the_terminal_is_left_as_it_was_and_its_keys_mean_what_they_do() {
    need!("curl", "python3", "stty");
    let server = HttpServer::start("127.0.0.1:0");
    let policy = web_policy(server.port(), ", ask: true", "ask: {timeout_seconds: 600}\n");
    let url = format!("http://web.test:{}/", server.port());
    let agent = "trap 'echo interrupted; exit 3' INT; printf '\\033[8m\\033(0\\033[1;1r'; curl -sS -o /dev/null $1; echo went on; sleep 60";
    let sandbox = Sandbox::new(&policy);
    on_terminal(
        &sandbox.command(&["bash", "-c", agent, "bash", &url]),
        r#"
import termios
m = launch()
before = termios.tcgetattr(m)
expect(m, b"\x1b[1;1r"); expect(m, b"\x1b[!p\x1b[0m\x1b(B"); expect(m, b"wants: GET"); expect(m, b"within 600 s: ")
os.write(m, b"\x03"); expect(m, b"interrupted"); expect(m, b"SHELL exit 3")
assert termios.tcgetattr(m)[:4] == before[:4], "the settings of the terminal"
"#,
    );
    assert_eq!(told(&Evidence::read(&sandbox.evidence())), ["block ask_denied terminal no"]);
    let sandbox = Sandbox::new(&policy);
    on_terminal(
        &sandbox.command(&["curl", "-sS", "-o", "/dev/null", &url]),
        r#"
import termios
m = launch()
before = termios.tcgetattr(m)
expect(m, b"within 600 s: ")
assert termios.tcgetattr(m)[3] != before[3], "the test looks at nothing"
os.kill(os.tcgetpgrp(m), signal.SIGTERM)
expect(m, b"SHELL exit ")
assert termios.tcgetattr(m)[:4] == before[:4], "the settings of the terminal"
"#,
    );
    assert!(server.seen().is_empty());
}

/// Refuses one client with Ctrl-C and answers the next with yes, which nobody could if Ctrl-C had ended who asks.
fn refuse_and_allow(command: &Command, ready: &str, client: &str) {
    let script = r#"
import subprocess
m = launch()
expect(m, READY)
def answered(key):
    client = subprocess.Popen(["/bin/sh", "-c", CLIENT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    expect(m, b"wants: GET"); expect(m, b"within 600 s: "); os.write(m, key)
    return client.communicate(timeout=60)[0]
assert answered(b"\x03") == b"403"
assert answered(b"yes\n") == b"200"
os.kill(os.tcgetpgrp(m), signal.SIGTERM); expect(m, b"SHELL exit 0")
"#;
    let script = script.replace("READY", &format!("b{ready:?}")).replace("CLIENT", &format!("{client:?}"));
    on_terminal(command, &script);
}

#[test]
fn ctrl_c_is_no_and_nothing_else_where_there_is_no_command() {
    need!("curl", "python3");
    let server = HttpServer::start("127.0.0.1:0");
    let policy = web_policy(server.port(), ", ask: true", "ask: {timeout_seconds: 600}\n");
    let url = format!("http://web.test:{}/", server.port());
    let curl = "curl -sS -o /dev/null -w '%{http_code}'";
    let expected = ["block ask_denied terminal no", "allow policy_allow terminal yes"];

    let (files, address) = (Sandbox::new(&policy), free_address().to_string());
    let mut alone = Command::new(pipelock());
    alone.args(["run", "--listen", &address, "--policy"]).arg(files.policy()).arg("--evidence").arg(files.evidence());
    refuse_and_allow(&alone, "proxy on http://", &format!("{curl} -x http://{address} {url}"));
    let receipts = std::fs::read_to_string(files.evidence().join("receipts.json")).expect("receipts.json");
    let receipts: Value = serde_json::from_str(&receipts).expect("JSON");
    assert_eq!(told_by(receipts["receipts"].as_array().expect("a list")), expected);

    let cage = Cage::new(&policy);
    let mut attach = cage.pipelock("attach");
    attach.arg("--policy").arg(cage.files.policy()).arg("--evidence").arg(cage.files.evidence());
    let client = format!("echo $$ > {}/cgroup.procs && exec {curl} {url}", cage.cgroup.display());
    refuse_and_allow(&attach, " hooks", &client);
    assert_eq!(told(&Evidence::read(&cage.files.evidence())), expected);
}

#[test]
fn a_cgroup_that_was_frozen_goes_on_once_its_killed_server_is_detached() {
    need!("curl", "python3");
    let server = HttpServer::start("127.0.0.1:0");
    let cage = Cage::new(&web_policy(server.port(), ", ask: true", "ask: {timeout_seconds: 600}\n"));
    let mut attach = cage.pipelock("attach");
    attach.arg("--policy").arg(cage.files.policy()).arg("--evidence").arg(cage.files.evidence());
    let place = cage.cgroup.display();
    let client = format!("echo $$ > {place}/cgroup.procs && exec curl -sS http://web.test:{}/", server.port());
    let script = r#"
import subprocess
m = launch()
expect(m, b" hooks")
client = subprocess.Popen(["/bin/sh", "-c", CLIENT], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
expect(m, b"within 600 s: ")
os.kill(os.tcgetpgrp(m), signal.SIGKILL); expect(m, b"SHELL exit -9")
assert "frozen 1" in open(PLACE + "/cgroup.events").read()
"#;
    on_terminal(&attach, &script.replace("CLIENT", &format!("{client:?}")).replace("PLACE", &format!("\"{place}\"")));
    let evidence = cage.files.work().join("evidence-detach");
    let out = cage.pipelock("detach").arg("--evidence").arg(evidence).output().expect("pipelock detach");
    assert!(out.status.success() && !said(&out).contains("cgroup.freeze"), "{}", said(&out));
    let events = || std::fs::read_to_string(cage.cgroup.join("cgroup.events")).expect("events");
    until("the client's end", || events().contains("populated 0") && events().contains("frozen 0"));
}

#[test]
fn without_a_terminal_nobody_can_be_asked() {
    need!("curl", "setsid");
    let server = HttpServer::start("127.0.0.1:0");
    let sandbox = Sandbox::new(&web_policy(server.port(), ", ask: true", ""));
    let mut command = std::process::Command::new("setsid");
    let run = sandbox.command(&["curl", "-sS", &format!("http://web.test:{}/", server.port())]);
    command.arg("--wait").arg(run.get_program()).args(run.get_args()).env_clear();
    command.envs(run.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(sandbox.work());
    let out = command.stdin(std::process::Stdio::null()).output().expect("setsid");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.contains("\"ask_denied\"") && text.contains("nobody can be asked"), "{text}");
    assert!(server.seen().is_empty());
    assert_eq!(told(&Evidence::read(&sandbox.evidence())), ["block ask_denied nobody none"]);
}

/// Checks what it is asked by the words of Standard Webhooks, and answers by the path that is asked about.
const APPROVER: &str = r#"
const crypto = require("crypto");
const secret = Buffer.from(process.argv[2], "base64");
const sign = text => "v1," + crypto.createHmac("sha256", secret).update(text).digest("base64");
async function handler(request, response) {
    let body = "";
    for await (const piece of request) body += piece;
    const of = name => request.headers[name];
    const [id, time] = [of("webhook-id"), of("webhook-timestamp")];
    const isSound = of("webhook-signature") === sign(`${id}.${time}.${body}`) && Math.abs(Date.now() / 1000 - time) < 300;
    const question = JSON.parse(body);
    const way = new URL(question.target).pathname.slice(1);
    const isWhole = question.id === id && question.rule === "egress[0] web.test" && question.seconds === 3;
    const [status, words] = !isSound || !isWhole ? [400, "no"] : [200, way.startsWith("yes") ? "yes" : way.startsWith("no") ? "no" : "yes"];
    const answer = JSON.stringify({ answer: words });
    if (way === "late") await new Promise(resolve => setTimeout(resolve, 30000));
    const signed = way === "other" ? sign(`other.${time}.${answer}`) : sign(`${id}.${time}.${answer}`);
    const headers = { "content-type": "application/json" };
    if (way !== "unsigned") headers["webhook-signature"] = signed;
    response.writeHead(status, headers);
    response.end(way === "altered" ? answer + " " : way === "endless" ? "x".repeat(100000) : answer);
}
"#;

#[test]
fn a_service_is_asked_and_believed_when_it_signs() {
    need!("curl", "node", "openssl");
    let server = HttpServer::start("127.0.0.1:0");
    let secret = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let approver = TlsServer::node(&["approve.test"], APPROVER, &[secret]);
    let policy = web_policy(
        server.port(),
        ", ask: true",
        &format!(
            "ask: {{webhook: \"https://approve.test:{}/ask?of=pipelock\", secret_file: secret, timeout_seconds: 3}}\n\
             dlp: {{action: ask}}\n{}",
            approver.port(),
            approver.roots()
        ),
    )
    .replace("hosts: {", "hosts: {approve.test: \"127.0.0.1\", ");
    let sandbox = Sandbox::new(&policy);
    let file = sandbox.policy().with_file_name("secret");
    std::fs::write(&file, format!("whsec_{secret}\n")).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its own");
    let script = "for way in yes no late unsigned other altered endless; do \
                  curl -sS -o /dev/null -w \"$way %{http_code}\n\" http://web.test:$1/$way; done; \
                  curl -sS -o /dev/null -w 'secret %{http_code}\n' -H \"X-Key: $2\" http://web.test:$1/yes-secret; \
                  curl -sS -o /dev/null -w 'secret %{http_code}\n' -d \"$2\" http://web.test:$1/no-secret; \
                  curl -sSk -o /dev/null https://approve.test:$3/ || echo unreached; cat $4; true";
    let ports = [server.port(), approver.port()].map(|port| port.to_string());
    let run = sandbox.run_ok(&["sh", "-c", script, "sh", &ports[0], SECRET, &ports[1], file.to_str().expect("text")]);
    let expected = "yes 200\nno 403\nlate 403\nunsigned 403\nother 403\naltered 403\nendless 403\nsecret 200\nsecret 403\nunreached\n";
    assert_eq!(run.text(), expected, "{run}");
    assert_eq!(server.seen().iter().map(|seen| seen.path.clone()).collect::<Vec<_>>(), ["/yes", "/yes-secret"]);
    let asked =
        ["no", "none", "failed", "failed", "failed", "failed"].map(|word| format!("block ask_denied webhook {word}"));
    let mut expected = vec!["allow policy_allow webhook yes".to_owned()];
    expected.extend(asked);
    expected.extend(["allow policy_allow webhook yes".to_owned(), "block dlp_match webhook no".to_owned()]);
    assert_eq!(told(&run.evidence), expected, "{run}");
    // What it was asked about a secret holds none.
    let seen = approver.seen();
    assert!(!seen.is_empty() && !String::from_utf8_lossy(&seen).contains(SECRET));
}
