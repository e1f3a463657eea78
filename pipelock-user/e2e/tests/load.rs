//! Many flows at once, and in the worst moments: while the policy changes, and while the proxy is killed.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pipelock_e2e::{Evidence, HttpServer, Outside, Sandbox, need, pipelock, remove_cgroup};
use serde_json::Value;

const STORM: &str = include_str!("../agents/storm.py");
const AGAIN: &str = include_str!("../agents/again.py");

fn server(outside: &Outside) -> HttpServer {
    let listener = outside.enter(|| TcpListener::bind("[::]:80").expect("bind outside"));
    HttpServer::with(listener, pipelock_e2e::echo)
}

/// Opens the host outside by its address, so that no DNS flow is counted.
fn open_policy(outside: &Outside) -> String {
    format!(
        "egress: [{{destination: \"{0}\", ports: [80], scan: false}}]\nssrf: {{allow: [\"{0}/32\"]}}",
        outside.there4
    )
}

/// No rule uses the port.
const CLOSED: &str = "egress: [{destination: other.test, ports: [81], scan: false}]";

fn storm(sandbox: &Sandbox, mode: &str, outside: &Outside, processes: usize) -> Vec<String> {
    let script = sandbox.file("storm.py", STORM).display().to_string();
    ["python3", &script, mode, &outside.there4.to_string(), "80", &processes.to_string()].map(str::to_owned).into()
}

#[test]
fn two_thousand_flows_of_fifty_processes_are_all_attributed() {
    need!("python3");
    let outside = Outside::new();
    let server = server(&outside);
    let sandbox = Sandbox::new(&open_policy(&outside));
    let command = storm(&sandbox, "crowd", &outside, 50);
    let run = sandbox.run_ok(&command);
    let flows = run.evidence.flows();
    assert_eq!((run.evidence.kernel("flows"), flows.len()), (2000, 2000));
    assert_eq!(run.evidence.kernel("unrecorded"), 0);
    assert_eq!((run.evidence.http().len(), server.seen().len()), (2000, 2000));
    // The kernel numbers without gaps.
    let ids: Vec<u64> = flows.iter().map(|flow| flow.id).collect();
    assert_eq!(ids, (1..=2000).collect::<Vec<u64>>());
    // Each flow has the process that says it had that very local port.
    let mut by_pid: BTreeMap<u32, Vec<_>> = BTreeMap::new();
    for flow in &flows {
        by_pid.entry(flow.tgid).or_default().push(flow);
    }
    let lines = run.json_lines();
    assert_eq!((lines.len(), by_pid.len()), (50, 50));
    for line in lines {
        assert_eq!(line["got"], serde_json::json!(["200"]));
        let pid = u32::try_from(line["pid"].as_u64().expect("a pid")).expect("a pid");
        let own = &by_pid[&pid];
        let said: Vec<_> = line["ports"].as_array().expect("ports").iter().filter_map(Value::as_u64).collect();
        let seen: Vec<_> = own.iter().map(|flow| u64::from(flow.src.expect("an own end").port())).collect();
        assert_eq!(said, seen);
        for flow in own {
            assert_eq!(Some(flow.comm.as_str()), line["comm"].as_str());
            assert_eq!((flow.pid, flow.uid), (pid, 65534));
            assert_eq!((flow.verdict.as_str(), flow.requests), ("allow", 1));
        }
    }
    // And each request names the flow that carried it.
    let comm_of: BTreeMap<u64, &str> = flows.iter().map(|flow| (flow.id, flow.comm.as_str())).collect();
    for request in run.evidence.http() {
        let number = request.target.rsplit('/').next().expect("a number");
        assert_eq!(comm_of[&request.flow], format!("crowd-{number}"));
    }
}

/// The proxy ends a connection first, so its end of it is in TIME-WAIT when the next comes from the same port: rare with ports
/// that the kernel chooses, until there are thousands.
#[test]
fn a_source_port_can_be_used_again_at_once() {
    need!("python3");
    let outside = Outside::new();
    let server = server(&outside);
    let policy = format!(
        "egress:\n- {{destination: \"{0}\", ports: [80], scan: false}}\n- {{destination: \"{1}\", ports: [80], scan: false}}\nssrf: {{allow: [\"{0}/32\", \"{1}/128\"]}}",
        outside.there4, outside.there6
    );
    let sandbox = Sandbox::new(&policy);
    let script = sandbox.file("again.py", AGAIN).display().to_string();
    let there = [outside.there4.to_string(), outside.there6.to_string()];
    let run = sandbox.run_ok(&["python3", &script, &there[0], &there[1], "own"]);
    let lines = run.json_lines();
    assert_eq!(lines.len(), 3);
    for line in lines {
        assert_eq!(line["got"], serde_json::json!(["200", "200", "200", "200", "200"]), "{line}");
    }
    assert_eq!(server.seen().len(), 10);
    let flows = run.evidence.flows();
    assert_eq!(flows.iter().filter(|flow| flow.verdict == "allow" && flow.orig_dst.port() == 80).count(), 10);
    assert!(flows.iter().all(|flow| flow.verdict == "allow"), "{flows:?}");
}

/// As many refused connects as three processes can make: more than receipts can be signed for.
#[test]
fn a_flood_of_refused_connects_starves_nobody_and_is_counted_to_the_last() {
    need!("python3");
    let outside = Outside::new();
    let server = server(&outside);
    let sandbox = Sandbox::new(&open_policy(&outside));
    let command = storm(&sandbox, "flood", &outside, 4);
    let run = sandbox.run_ok(&command);
    let lines = run.json_lines();
    let worked: Vec<_> = lines.iter().filter_map(|line| line.get("got")).collect();
    assert_eq!(worked, [&serde_json::json!({"200": 150})], "allowed connections beside the flood");
    assert_eq!(server.seen().len(), 150);
    let mut refused: BTreeMap<u16, u64> = BTreeMap::new();
    for (key, count) in lines.iter().filter_map(|line| line["refused"].as_object()).flatten() {
        let (port, error) = key.split_once(' ').expect("port and error");
        assert_eq!(error, "111", "refused as a closed port is");
        *refused.entry(port.parse().expect("a port")).or_default() += count.as_u64().expect("a count");
    }
    // Run::evidence has verified it; now the numbers against what the agent counted, port by port.
    assert_eq!((run.evidence.kernel("unrecorded"), run.evidence.kernel("repeats")), (0, 0));
    let flows = run.evidence.flows();
    let counted = run.evidence.counted_denials();
    assert_eq!(flows.iter().filter(|flow| flow.verdict == "allow").count(), 150);
    for (port, count) in &refused {
        let singly =
            flows.iter().filter(|flow| flow.orig_dst.port() == *port && flow.verdict == "block").count() as u64;
        let together: u64 = counted.iter().filter(|(dst, _)| dst.port() == *port).map(|(_, count)| count).sum();
        assert_eq!(singly + together, *count, "port {port}: {singly} singly, {together} counted");
        assert!(together > 0, "no flood: {count} were refused, {singly} have receipts of their own");
    }
    assert_eq!(counted.iter().filter(|(dst, _)| !refused.contains_key(&dst.port())).count(), 0);
}

fn reload(cgroup: &str) {
    let out = Command::new(pipelock()).args(["reload", "--cgroup", cgroup]).output().expect("reload");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn policy_hash(file: &Path) -> String {
    let out = Command::new(pipelock()).args(["check", "--json", "--policy"]).arg(file).output().expect("check");
    let value: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    value["policy_hash"].as_str().expect("a hash").to_owned()
}

#[test]
fn a_storm_during_reloads_leaves_nothing_unseen() {
    need!("python3");
    let outside = Outside::new();
    let server = server(&outside);
    let sandbox = Sandbox::new(CLOSED);
    let closed = policy_hash(&sandbox.policy());
    sandbox.set_policy(&open_policy(&outside));
    let open = policy_hash(&sandbox.policy());
    let command = storm(&sandbox, "reload", &outside, 4);
    let mut running = sandbox.spawn(&command);
    for number in 0..4 {
        running.wait_for(&format!("started-{number}"));
    }
    let cgroup = opening(&running.sandbox.evidence())["cgroup"].as_str().expect("a path").to_owned();
    for round in 0..20 {
        let policy = if round % 2 == 0 { CLOSED.to_owned() } else { open_policy(&outside) };
        running.sandbox.set_policy(&policy);
        reload(&cgroup);
        std::thread::sleep(Duration::from_millis(if round == 10 { 0 } else { 40 }));
    }
    running.sandbox.file("stop", "");
    let run = running.wait();
    assert_eq!(run.code(), 0, "{}", run.stderr);
    // What arrived outside is what the receipts say was let out, request by request.
    let arrived: BTreeSet<String> = server.seen().iter().map(|seen| seen.path.clone()).collect();
    let http = run.evidence.http();
    let prefix = format!("http://{}", outside.there4);
    let path = |target: &str| {
        let rest = target.strip_prefix(&prefix).expect("the host outside");
        rest.strip_prefix(":80").unwrap_or(rest).to_owned()
    };
    let let_out: BTreeSet<String> =
        http.iter().filter(|request| request.verdict == "allow").map(|request| path(&request.target)).collect();
    assert_eq!(arrived, let_out);
    // What the agent was answered is a part of it (it may have stopped listening at the end).
    for line in run.json_lines() {
        for path in line["paths"].as_array().expect("paths") {
            assert!(let_out.contains(path.as_str().expect("text")), "{path} was answered and is not in the evidence");
        }
    }
    // Both policies were in force, and under the closed one nothing was let out.
    let flows = run.evidence.flows();
    let under = |hash: &str| flows.iter().filter(|flow| flow.policy == hash).count();
    assert!(under(&open) > 20 && under(&closed) > 20, "{} open, {} closed", under(&open), under(&closed));
    assert_eq!(under(&open) + under(&closed), flows.len());
    for request in http.iter().filter(|request| request.verdict == "allow") {
        assert_eq!(request.policy, open, "let out under the closed policy: {request:?}");
    }
}

/// Evidence that was broken off: what its opening says of the cgroup and the attachment.
fn opening(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("evidence.jsonl")).expect("evidence.jsonl");
    let mut found = Value::Null;
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        find(&line, "capsule_v1", &mut found);
    }
    assert!(found.is_object(), "no capsule in {text}");
    found
}

fn find(value: &Value, key: &str, found: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                if name == key {
                    *found = inner.clone();
                }
                find(inner, key, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| find(item, key, found)),
        _ => {}
    }
}

#[test]
fn killing_the_proxy_closes_the_way_at_once() {
    need!("python3");
    let outside = Outside::new();
    let server = server(&outside);
    let sandbox = Sandbox::new(&open_policy(&outside));
    let command = storm(&sandbox, "kill", &outside, 4);
    let mut running = sandbox.spawn(&command);
    for number in 0..4 {
        running.wait_for(&format!("started-{number}"));
    }
    let capsule = opening(&running.sandbox.evidence());
    running.child.kill().expect("kill -9");
    running.child.wait().expect("wait");
    // Whoever sees this file starts an attempt after the kill.
    std::thread::sleep(Duration::from_millis(100));
    let (connections, count) = (server.connections(), outside.count());
    running.sandbox.file("killed", "");
    let (_, stdout, stderr, sandbox) = running.end();
    let text = String::from_utf8(stdout).expect("text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 4, "{text}\n{stderr}");
    for line in &lines {
        assert!(line["before"]["200"].as_u64().is_some_and(|count| count >= 10), "{line}");
        // From the first attempt on.
        assert_eq!(line["after"], serde_json::json!({"Connection refused": 100}), "{line}");
    }
    count.assert_none();
    assert_eq!(server.connections(), connections, "somebody came out after the kill");

    // What the kernel saw without a proxy is not lost: detaching writes it into evidence of its own.
    let cgroup = capsule["cgroup"].as_str().expect("a path").to_owned();
    let rest = sandbox.work().join("rest");
    let out = Command::new(pipelock())
        .args(["detach", "--cgroup", &cgroup, "--evidence"])
        .arg(&rest)
        .output()
        .expect("pipelock detach");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    remove_cgroup(Path::new(&cgroup));
    let pins = Path::new("/sys/fs/bpf/pipelock").join(capsule["attachment"].as_str().expect("a name"));
    let left = pins.exists();
    let _ = std::fs::remove_dir_all(&pins);
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(!left, "pins are left: {said}");
    let evidence = Evidence::read(&rest);
    let flows = evidence.with_reason("proxy_down");
    assert!(flows.len() >= 400, "{} flows without a proxy", flows.len());
    let pids: BTreeSet<u64> = lines.iter().filter_map(|line| line["pid"].as_u64()).collect();
    assert!(flows.iter().all(|flow| pids.contains(&u64::from(flow.tgid)) && flow.comm.starts_with("kill-")));
}
