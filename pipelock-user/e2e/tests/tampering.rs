//! The evidence of a real run, and everything that somebody could do to it: `pipelock verify` has to find each.
#![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pipelock_e2e::{HttpServer, Run, Sandbox, pipelock};

/// A run with allowed, denied and DNS flows.
fn run() -> Run {
    let server = HttpServer::start("127.0.0.1:0");
    let policy = format!(
        "egress: [{{destination: web.test, ports: [{}], scan: false}}]\n\
         dns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}",
        server.port()
    );
    let script = r#"
import http.client, socket, sys
port = int(sys.argv[1])
for path in ("/one", "/two", "/three"):
    client = http.client.HTTPConnection("web.test", port)
    client.request("GET", path)
    assert client.getresponse().status == 200
    client.close()
for target in (("198.51.100.7", 9), ("127.0.0.1", 9)):
    try:
        socket.create_connection(target, 5)
        sys.exit("connected to %s" % (target,))
    except OSError:
        pass
"#;
    let run = Sandbox::new(&policy).run_ok(&["python3", "-c", script, &server.port().to_string()]);
    assert_eq!(run.evidence.with_reason("policy_allow").len(), 3, "{run}");
    assert!(run.evidence.flows().len() >= 6, "three requests, two denials and DNS: {run}");
    run
}

/// `pipelock verify` with these arguments: exit code, and all it printed.
fn verify<S: AsRef<OsStr>>(args: &[S]) -> (i32, String) {
    let out = Command::new(pipelock()).arg("verify").args(args).output().expect("pipelock verify");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    (out.status.code().expect("an exit code"), text)
}

/// A folder against the key of the run that it claims to be of.
fn verify_folder(folder: &Path, key: &Path) -> (i32, String) {
    verify(&[folder.as_os_str(), OsStr::new("--public-key"), key.as_os_str()])
}

/// A copy of the evidence that a test may spoil.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(run: &Run) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for entry in fs::read_dir(&run.evidence.folder).expect("the evidence") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("copy");
        }
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).expect("text").split_inclusive('\n').map(str::to_owned).collect()
    }

    fn write(&self, name: &str, lines: &[String]) {
        fs::write(self.path(name), lines.concat()).expect("write");
    }

    /// The copy is refused with exit code 3; what is said.
    fn refused(&self, run: &Run) -> String {
        let (code, text) = verify_folder(self.0.path(), &run.evidence.folder.join("public-key.pem"));
        assert_eq!(code, 3, "{text}");
        assert!(text.contains("NOT VALID"), "{text}");
        text
    }
}

/// Index of the line with a flow's own receipt, and the receipt's number in the chain.
fn find(lines: &[String], flow: u64) -> (usize, u64) {
    let id = format!("\"flow_id\":\"{flow}\"");
    let at = lines
        .iter()
        .position(|line| line.contains("\"layer\":\"kernel_flow\"") && line.contains(&id))
        .expect("the flow's receipt");
    let (_, rest) = lines[at].split_once("\"chain_seq\":").expect("a number");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (at, digits.parse().expect("a number"))
}

/// The line of the report about this kind of problem, receipt and flow.
fn assert_names(text: &str, kind: &str, seq: u64, flow: u64) {
    let wanted = format!("{kind} receipt {seq} (flow {flow}):");
    assert!(text.lines().any(|line| line.trim_start().starts_with(&wanted)), "no \"{wanted}\" in {text}");
}

/// The denied flow to 198.51.100.7.
fn denied(run: &Run) -> u64 {
    let flows = run.evidence.flows();
    flows.iter().find(|flow| flow.orig_dst.ip().to_string() == "198.51.100.7").expect("the denied flow").id
}

#[test]
fn changed_line_ends_are_named_as_the_cause() {
    let run = run();
    let copy = Copy::of(&run);
    for name in ["evidence.jsonl", "receipts.json", "policy-hash.txt", "public-key.pem", "public-key.hex"] {
        let text = fs::read_to_string(copy.path(name)).expect("text");
        fs::write(copy.path(name), text.replace('\n', "\r\n")).expect("write");
    }
    let text = copy.refused(&run);
    assert!(text.contains("the line ends were changed from LF to CR LF"), "{text}");
    assert!(!text.contains("receipt 0") && !text.contains("policy that the run opened with"), "{text}");
    let copy = Copy::of(&run);
    let document = fs::read_to_string(copy.path("receipts.json")).expect("text").replace('\n', "\r\n");
    fs::write(copy.path("receipts.json"), document).expect("write");
    let text = copy.refused(&run);
    assert!(text.contains("the line ends of receipts.json were changed"), "{text}");
}

#[test]
fn whole_evidence_is_accepted_and_reported() {
    let run = run();
    let folder = &run.evidence.folder;
    let key = folder.join("public-key.pem");
    let (code, text) = verify_folder(folder, &key);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("VALID"), "{text}");
    let work = tempfile::tempdir().expect("a temporary folder");
    let report = work.path().join("report.json");
    let (code, text) = verify(&[
        OsStr::new("--receipt-chain"),
        folder.join("receipts.json").as_os_str(),
        OsStr::new("--policy-hash"),
        folder.join("policy-hash.txt").as_os_str(),
        OsStr::new("--public-key"),
        key.as_os_str(),
        OsStr::new("--output"),
        report.as_os_str(),
    ]);
    assert_eq!(code, 0, "{text}");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report).expect("the report")).expect("JSON");
    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!(report["trusted"], true, "{report:#}");
    assert_eq!(report["flow_count"], run.evidence.flows().len(), "{report:#}");
    // Another policy than that of the run.
    let other = "0".repeat(64);
    let (code, text) = verify(&[
        OsStr::new("--receipt-chain"),
        folder.join("receipts.json").as_os_str(),
        OsStr::new("--policy-hash"),
        OsStr::new(&other),
        OsStr::new("--public-key"),
        key.as_os_str(),
    ]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("policy_mismatch"), "{text}");
}

#[test]
fn only_the_right_key_is_trusted() {
    let run = run();
    let folder = &run.evidence.folder;
    let other = self::run();
    let (code, text) = verify_folder(folder, &other.evidence.folder.join("public-key.pem"));
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("key_mismatch"), "{text}");
    let (code, text) = verify(&[folder]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("SELF-CONSISTENT ONLY"), "{text}");
    let (code, text) = verify(&[folder.as_os_str(), OsStr::new("--allow-unpinned")]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("SELF-CONSISTENT ONLY"), "{text}");
    // A key in the folder that did not sign it: refused even by those who trust no key at all.
    let copy = Copy::of(&run);
    fs::copy(other.evidence.folder.join("public-key.pem"), copy.path("public-key.pem")).expect("copy");
    let (code, text) = verify(&[copy.0.path().as_os_str(), OsStr::new("--allow-unpinned")]);
    assert_eq!(code, 3, "{text}");
}

/// Another character of the same kind.
fn flip(line: &str, behind: &str) -> String {
    let at = line.find(behind).unwrap_or_else(|| panic!("{behind} in {line}")) + behind.len();
    let old = line[at..].chars().next().expect("a character");
    let new = if old == '1' { '2' } else { '1' };
    format!("{}{new}{}", &line[..at], &line[at + old.len_utf8()..])
}

#[test]
fn a_flipped_byte_is_found_in_either_file() {
    let run = run();
    let flow = denied(&run);
    for file in ["evidence.jsonl", "receipts.json"] {
        // What the kernel saw, what was decided, who signed, and when.
        for behind in ["\"comm\":\"", "\"orig_dst\":\"", "\"pattern\":\"", "\"signature\":\"ed25519:", "\"uid\":"] {
            let copy = Copy::of(&run);
            let mut lines = copy.lines(file);
            let (at, seq) = find(&lines, flow);
            lines[at] = flip(&lines[at], behind);
            copy.write(file, &lines);
            let text = copy.refused(&run);
            assert_names(&text, "altered", seq, flow);
        }
    }
}

#[test]
fn every_byte_of_a_flow_receipt_counts() {
    let run = run();
    let original = Copy::of(&run).lines("evidence.jsonl");
    let (at, seq) = find(&original, denied(&run));
    let line = original[at].clone();
    // The verifier is started for each: every 29th byte keeps it within seconds, and 29 meets every part of the line.
    for position in (0..line.len() - 1).step_by(29) {
        let mut bytes = line.clone().into_bytes();
        bytes[position] ^= 1;
        let copy = Copy::of(&run);
        let mut lines = original.clone();
        lines[at] = String::from_utf8(bytes).expect("ASCII");
        copy.write("evidence.jsonl", &lines);
        let text = copy.refused(&run);
        let named = format!("receipt {seq}");
        assert!(text.contains(&named) || text.contains(&format!("line {}", at + 1)), "byte {position}: {text}");
    }
}

#[test]
fn a_deleted_receipt_is_missing_with_its_flow() {
    let run = run();
    let flow = denied(&run);
    for both in [false, true] {
        let copy = Copy::of(&run);
        let mut lines = copy.lines("evidence.jsonl");
        let (at, seq) = find(&lines, flow);
        lines.remove(at);
        copy.write("evidence.jsonl", &lines);
        if both {
            // Whoever deletes it in one file deletes it in the other.
            fs::remove_file(copy.path("receipts.json")).expect("remove");
        }
        let text = copy.refused(&run);
        assert_names(&text, "missing", seq, flow);
    }
}

#[test]
fn swapped_cut_and_doubled_lines_are_named() {
    let run = run();
    let flow = denied(&run);
    let spoil = |change: &dyn Fn(&mut Vec<String>, usize)| {
        let copy = Copy::of(&run);
        let mut lines = copy.lines("evidence.jsonl");
        let (at, seq) = find(&lines, flow);
        change(&mut lines, at);
        copy.write("evidence.jsonl", &lines);
        (copy.refused(&run), seq)
    };
    let (text, _) = spoil(&|lines, at| lines.swap(at, at - 1));
    assert!(text.contains("reordered receipt"), "{text}");
    let (text, _) = spoil(&|lines, at| lines.truncate(at + 1));
    assert!(text.contains("truncated receipt"), "{text}");
    // In the middle of a line, as a crash would leave it.
    let (text, _) = spoil(&|lines, at| {
        lines.truncate(at + 1);
        let half = lines[at].len() / 2;
        lines[at].truncate(half);
    });
    assert!(text.contains("truncated"), "{text}");
    let (text, seq) = spoil(&|lines, at| lines.insert(at, lines[at].clone()));
    assert_names(&text, "extra", seq, flow);
}

#[test]
fn files_of_two_runs_do_not_mix() {
    let (one, other) = (run(), run());
    for file in ["receipts.json", "evidence.jsonl"] {
        let copy = Copy::of(&one);
        fs::copy(other.evidence.folder.join(file), copy.path(file)).expect("copy");
        let text = copy.refused(&one);
        assert!(text.contains("disagree"), "{text}");
        let (code, text) = verify_folder(copy.0.path(), &other.evidence.folder.join("public-key.pem"));
        assert_eq!(code, 3, "{text}");
    }
}

/// The public verifier, in a virtual environment of its own; made when it is not there.
fn public_verifier() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").map(PathBuf::from)?;
        Some(home.join(".cache"))
    })?;
    let folder = cache.join("pipelock/venv-verify");
    let verifier = folder.join("bin/pipelock-verify");
    if !verifier.exists() {
        fs::create_dir_all(&folder).expect("mkdir");
        let made = Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&folder).status();
        assert!(made.is_ok_and(|status| status.success()), "python3 -m venv {}", folder.display());
        let pip = Command::new(folder.join("bin/pip")).args(["install", "--quiet", "pipelock-verify==0.4.1"]).status();
        if !pip.is_ok_and(|status| status.success()) {
            return None;
        }
    }
    verifier.exists().then_some(verifier)
}

#[test]
fn the_public_verifier_accepts_it_unchanged() {
    let Some(verifier) = public_verifier() else { return pipelock_e2e::missing("pipelock-verify 0.4.1") };
    let run = run();
    let folder = &run.evidence.folder;
    let key = fs::read_to_string(folder.join("public-key.hex")).expect("the key");
    let check = |file: &Path, key: &str| {
        let out = Command::new(&verifier).arg(file).args(["--key", key]).output().expect("pipelock-verify");
        (
            out.status.success(),
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)),
        )
    };
    let (is_ok, text) = check(&folder.join("evidence.jsonl"), key.trim());
    assert!(is_ok, "{text}");
    let (is_ok, text) = check(&folder.join("evidence.jsonl"), &"1".repeat(64));
    assert!(!is_ok, "another key: {text}");
    let copy = Copy::of(&run);
    let mut lines = copy.lines("evidence.jsonl");
    let (at, _) = find(&lines, denied(&run));
    lines[at] = flip(&lines[at], "\"pattern\":\"");
    copy.write("evidence.jsonl", &lines);
    let (is_ok, text) = check(&copy.path("evidence.jsonl"), key.trim());
    assert!(!is_ok, "altered: {text}");
}
