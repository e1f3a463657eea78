//! The evidence of a run, parsed after `pipelock verify` accepted it.
//!
//! Used by [`crate::Run`]. The parsing is its own, not the product's: a test should not share the code it tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The binary under test: `PIPELOCK_BIN`, else the debug build beside the test.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn pipelock() -> PathBuf {
    if let Some(path) = std::env::var_os("PIPELOCK_BIN") {
        return path.into();
    }
    // target/debug/deps/TEST-HASH → target/debug/pipelock
    let test = std::env::current_exe().expect("our own path");
    let path = test.parent().and_then(Path::parent).expect("a target folder").join("pipelock");
    assert!(path.exists(), "{} is missing: build it (cargo build) or set PIPELOCK_BIN", path.display());
    path
}

/// One flow receipt: what the kernel saw, and what became of it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The kernel's number.
    pub id: u64,
    /// `allow` or `block`.
    pub verdict: String,
    /// The stable reason.
    pub reason: String,
    /// The kernel's own reason.
    pub kernel_reason: String,
    /// Which hook decided.
    pub hook: String,
    /// Thread id.
    pub pid: u32,
    /// Process id.
    pub tgid: u32,
    /// User id.
    pub uid: u32,
    /// Name of the process.
    pub comm: String,
    /// `tcp`, `udp`, `icmp` …
    pub proto: String,
    /// Where the agent wanted to go.
    pub orig_dst: SocketAddr,
    /// The agent's own end, if it ever had one.
    pub src: Option<SocketAddr>,
    /// Hash of the policy that was in force when it was opened.
    pub policy: String,
    /// The name that decided.
    pub name: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// What the bytes were.
    pub carrier: Option<String>,
    /// What they went through.
    pub next_hop: Option<String>,
    /// Requests on it.
    pub requests: u64,
    /// Bytes from the agent.
    pub tx_bytes: u64,
    /// Bytes to the agent.
    pub rx_bytes: u64,
}

/// One receipt of a request or DNS query inside a flow.
#[derive(Clone, Debug)]
pub struct Request {
    /// The flow it belongs to.
    pub flow: u64,
    /// `forward` or `dns`.
    pub transport: String,
    /// `allow` or `block`.
    pub verdict: String,
    /// The stable reason.
    pub reason: String,
    /// HTTP method or DNS type.
    pub method: String,
    /// URL without query, or the name asked for.
    pub target: String,
    /// Status of the answer.
    pub status: Option<u64>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Hash of the policy that decided.
    pub policy: String,
    /// Where it was really sent.
    pub dialled: Option<SocketAddr>,
    /// What it went through.
    pub next_hop: Option<String>,
}

/// One receipt of sockets that were refused before any hook could see them.
#[derive(Clone, Debug)]
pub struct Socket {
    /// `socket://FAMILY/TYPE/PROTOCOL`.
    pub target: String,
    /// `block`.
    pub verdict: String,
    /// The stable reason.
    pub reason: String,
    /// Process id.
    pub tgid: u64,
    /// User id.
    pub uid: u64,
    /// Name of the thread.
    pub comm: String,
    /// How many calls it stands for.
    pub count: u64,
}

/// The evidence folder.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Where it is.
    pub folder: PathBuf,
    /// What `pipelock verify --json` said.
    pub report: Value,
    receipts: Vec<Value>,
}

impl Evidence {
    /// Verifies and reads a folder.
    ///
    /// # Panics
    /// When it does not verify, or holds another number of flow receipts than the kernel counted.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let (code, report) = verify_json(folder);
        assert_eq!(code, 0, "the evidence does not verify: {report:#}");
        let text = std::fs::read_to_string(folder.join("receipts.json")).expect("receipts.json");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let receipts = value["receipts"].as_array().expect("a list").clone();
        let evidence = Self { folder: folder.to_owned(), report, receipts };
        // The kernel counts on when a dead proxy's state is taken over; `first` is the first flow of this run then, and
        // what the dead proxy owed a receipt is named.
        let totals = evidence.totals();
        let before = totals.get("first").map_or(0, |first| number(first) - 1);
        let owed = totals.get("taken_over").and_then(Value::as_array).map_or(0, Vec::len) as u64;
        assert_eq!(
            evidence.kernel("flows") - before + owed,
            evidence.flows().len() as u64,
            "as many flow receipts as the kernel counted flows"
        );
        evidence
    }

    /// One of the kernel's counters: `flows`, `unrecorded`, `repeats`, `events_lost`, `probes`.
    #[must_use]
    pub fn kernel(&self, counter: &str) -> u64 {
        number(&self.totals()[counter])
    }

    /// The receipts of denials that were counted and not recorded singly: where to, and how many.
    ///
    /// # Panics
    /// When one says it otherwise, or has no destination.
    #[must_use]
    pub fn counted_denials(&self) -> Vec<(SocketAddr, u64)> {
        let denials = self.receipts.iter().filter_map(|receipt| receipt["ext"].get("denials_v1"));
        denials
            .map(|denials| {
                let dst = denials["orig_dst"].as_str().expect("a destination").parse().expect("an address");
                (dst, number(&denials["count"]))
            })
            .collect()
    }

    fn totals(&self) -> &Value {
        self.receipts.iter().find_map(|receipt| receipt["ext"].get("kernel_v1")).expect("a ledger receipt")
    }

    /// What enforced.
    #[must_use]
    pub fn capsule(&self) -> &Value {
        self.receipts.iter().find_map(|receipt| receipt["ext"].get("capsule_v1")).expect("a capsule")
    }

    /// All receipts, as they are.
    #[must_use]
    pub fn receipts(&self) -> &[Value] {
        &self.receipts
    }

    /// All flow receipts, by the kernel's number; in the chain they stand in the order in which they ended.
    #[must_use]
    pub fn flows(&self) -> Vec<Flow> {
        let is_flow = |receipt: &&Value| receipt["action_record"]["layer"] == "kernel_flow";
        let mut flows: Vec<_> = self.receipts.iter().filter(is_flow).map(flow).collect();
        flows.sort_by_key(|flow| flow.id);
        flows
    }

    /// All receipts of requests and queries.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.receipts.iter().filter(|receipt| is_request(receipt)).map(request).collect()
    }

    /// Receipts of sockets that were refused before any hook could see them.
    #[must_use]
    pub fn sockets(&self) -> Vec<Socket> {
        self.receipts
            .iter()
            .filter(|receipt| receipt["action_record"]["layer"] == "socket_filter")
            .map(socket)
            .collect()
    }

    /// Flows that are not DNS.
    #[must_use]
    pub fn connections(&self) -> Vec<Flow> {
        self.flows().into_iter().filter(|flow| flow.kernel_reason != "redirect_dns").collect()
    }

    /// The one flow that is not DNS.
    ///
    /// # Panics
    /// When there are none or several.
    #[must_use]
    pub fn connection(&self) -> Flow {
        let mut flows = self.connections();
        assert_eq!(flows.len(), 1, "one connection, not {flows:#?}");
        flows.remove(0)
    }

    /// Flows with this reason.
    #[must_use]
    pub fn with_reason(&self, reason: &str) -> Vec<Flow> {
        self.flows().into_iter().filter(|flow| flow.reason == reason).collect()
    }

    /// The requests over HTTP.
    #[must_use]
    pub fn http(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.transport == "forward").collect()
    }

    /// The DNS queries.
    #[must_use]
    pub fn queries(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.transport == "dns").collect()
    }
}

/// `pipelock verify FOLDER` with the folder's own key: exit code and report.
///
/// # Panics
/// When it cannot be started or prints no JSON.
#[must_use]
pub fn verify_json(folder: &Path) -> (i32, Value) {
    let out = Command::new(pipelock())
        .arg("verify")
        .arg(folder)
        .arg("--public-key")
        .arg(folder.join("public-key.pem"))
        .arg("--json")
        .output()
        .expect("pipelock verify");
    let code = out.status.code().expect("an exit code");
    let report = serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|_| panic!("verify {}: {}", folder.display(), String::from_utf8_lossy(&out.stderr)));
    (code, report)
}

fn flow(receipt: &Value) -> Flow {
    let action = &receipt["action_record"];
    let flow = &receipt["ext"]["flow_v1"];
    Flow {
        id: number(&flow["flow_id"]),
        verdict: text(&action["verdict"]),
        reason: text(&action["pattern"]),
        kernel_reason: text(&flow["kernel_reason"]),
        hook: text(&flow["hook"]),
        pid: small(&flow["pid"]),
        tgid: small(&flow["tgid"]),
        uid: small(&flow["uid"]),
        comm: text(&flow["comm"]),
        proto: text(&flow["proto"]),
        orig_dst: text(&flow["orig_dst"]).parse().expect("an address"),
        src: option(&flow["src"]).map(|addr| addr.parse().expect("an address")),
        policy: text(&action["policy_hash"]),
        name: option(&flow["name"]),
        rule: option(&flow["rule"]),
        carrier: option(&flow["carrier"]),
        next_hop: option(&flow["next_hop"]),
        requests: number(&flow["requests"]),
        tx_bytes: number(&flow["tx_bytes"]),
        rx_bytes: number(&flow["rx_bytes"]),
    }
}

fn socket(receipt: &Value) -> Socket {
    let action = &receipt["action_record"];
    let socket = &receipt["ext"]["socket_v1"];
    Socket {
        target: text(&action["target"]),
        verdict: text(&action["verdict"]),
        reason: text(&action["pattern"]),
        tgid: socket["tgid"].as_u64().expect("a number"),
        uid: socket["uid"].as_u64().expect("a number"),
        comm: text(&socket["comm"]),
        count: number(&socket["count"]),
    }
}

fn request(receipt: &Value) -> Request {
    let action = &receipt["action_record"];
    let flow = &receipt["ext"]["flow_v1"];
    Request {
        flow: number(&flow["flow_id"]),
        transport: text(&action["transport"]),
        verdict: text(&action["verdict"]),
        reason: text(&action["pattern"]),
        method: text(&action["method"]),
        target: text(&action["target"]),
        status: flow["status"].as_u64(),
        rule: option(&flow["rule"]),
        policy: text(&action["policy_hash"]),
        dialled: option(&flow["dialled"]).map(|addr| addr.parse().expect("an address")),
        next_hop: option(&flow["next_hop"]),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn option(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no number in text"))
}

fn small(value: &Value) -> u32 {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).expect("a number")
}

/// Whether a receipt is that of a request or query, or of what was found in one.
fn is_request(receipt: &Value) -> bool {
    let layer = receipt["action_record"]["layer"].as_str().unwrap_or_default();
    matches!(layer, "policy" | "dlp" | "request_scan" | "response_scan" | "scan")
}
