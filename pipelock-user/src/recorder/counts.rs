//! What the recorder counts: decisions as they get their receipts, and how the evidence fares.
//!
//! Counted on the recorder's own thread, but for what happens before a receipt is queued. A decision is counted when its
//! receipt is written, so that these series equal the evidence, but for the first and the last receipt of a chain, which decide
//! nothing.

use std::sync::LazyLock;

use crate::flow::{self, Action, Reason, Verdict};
use crate::telemetry::metrics::{Counter, Counters, LONG, Label, SHORT, Times, labels};

labels! {
    /// The door by which a request or question came.
    Surface "surface" {
        Http = "http",
        Connect = "connect",
        Fetch = "fetch",
        Reverse = "reverse",
        ScanApi = "scan_api",
        WebSocket = "ws",
        Dns = "dns",
        Other = "other",
    }
    /// The receipt's word for what was done.
    Word "verdict" {
        Allow = "allow",
        Block = "block",
        Strip = "strip",
        Warn = "warn",
    }
    /// What a receipt is about.
    Kind "kind" {
        Request = "request",
        Flow = "flow",
        Denials = "denials",
        Socket = "socket",
        Ledger = "ledger",
        Heartbeat = "heartbeat",
    }
    /// How bad a finding is.
    Severity "severity" {
        Low = "low",
        Medium = "medium",
        High = "high",
        Critical = "critical",
    }
    /// What was done about a finding.
    Done "action" {
        Blocked = "block",
        Redacted = "redact",
        Noted = "warn",
        Asked = "ask",
    }
    /// Which way.
    Direction "direction" {
        Out = "out",
        In = "in",
    }
}

impl Label for Reason {
    const NAME: &'static str = "reason";
    const WORDS: &'static [&'static str] = &{
        let mut words = [""; Self::ALL.len()];
        let mut at = 0;
        while at < words.len() {
            words[at] = Self::ALL[at].code();
            at += 1;
        }
        words
    };

    fn index(self) -> usize {
        self as usize
    }
}

impl Surface {
    /// Of a receipt's transport.
    fn of(transport: &str) -> Self {
        match transport {
            "forward" => Self::Http,
            "connect" => Self::Connect,
            "fetch" => Self::Fetch,
            "reverse" => Self::Reverse,
            "scan" => Self::ScanApi,
            "ws" => Self::WebSocket,
            "dns" => Self::Dns,
            _ => Self::Other,
        }
    }
}

impl Word {
    fn of(verdict: &Verdict) -> Self {
        match (verdict.action, verdict.word()) {
            (Action::Block, _) => Self::Block,
            (Action::Allow, "strip") => Self::Strip,
            (Action::Allow, "warn") => Self::Warn,
            (Action::Allow, _) => Self::Allow,
        }
    }
}

/// What a receipt counts as, known when it is queued.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counted {
    Request(Surface, Word, Reason),
    Flow(Word, Reason, Moved),
    Denials(u64),
    Socket(u64),
    Ledger,
}

/// What a flow moved, and how long it lasted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) out: u64,
    pub(super) inn: u64,
    pub(super) nanoseconds: Option<u64>,
}

impl Counted {
    pub(super) fn request(transport: &str, verdict: &Verdict) -> Self {
        Self::Request(Surface::of(transport), Word::of(verdict), verdict.reason)
    }

    pub(super) fn flow(verdict: &Verdict, moved: Moved) -> Self {
        Self::Flow(Word::of(verdict), verdict.reason, moved)
    }

    /// What was decided, in the word of the log; none for the kernel's totals, which decide nothing.
    pub(super) fn decided(self) -> Option<&'static str> {
        Some(match self {
            Self::Request(Surface::Dns, ..) => "query",
            Self::Request(Surface::Connect, ..) => "tunnel",
            Self::Request(..) => "request",
            Self::Flow(..) => "flow",
            Self::Denials(_) => "denials",
            Self::Socket(_) => "socket",
            Self::Ledger => return None,
        })
    }
}

/// A finding, in the words that are counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found(Severity, Done);

impl Found {
    pub(super) fn of(found: &flow::Found) -> Self {
        let severity = match found.severity {
            "critical" => Severity::Critical,
            "high" => Severity::High,
            "medium" => Severity::Medium,
            _ => Severity::Low,
        };
        let done = match found.action {
            "block" => Done::Blocked,
            "redact" => Done::Redacted,
            "ask" => Done::Asked,
            _ => Done::Noted,
        };
        Self(severity, done)
    }
}

/// The families.
pub(crate) struct Counts {
    requests: Counters<(Surface, Word, Reason)>,
    flows: Counters<(Word, Reason)>,
    flow_bytes: Counters<Direction>,
    flow_seconds: Times,
    findings: Counters<(Severity, Done)>,
    denials: Counter,
    sockets: Counter,
    receipts: Counters<Kind>,
    pub(super) lost: Counter,
    pub(super) waited: Counter,
    pub(super) queue_wait: Times,
    pub(super) sign: Times,
    pub(super) write: Times,
    pub(super) sync: Times,
}

/// The families of this process.
pub(crate) static COUNTS: LazyLock<Counts> = LazyLock::new(|| Counts {
    requests: Counters::new(
        "pipelock_requests_total",
        "HTTP requests, tunnels and DNS questions that were decided, by their receipts.",
    ),
    flows: Counters::new("pipelock_flows_total", "Flows of the kernel that ended, by their receipts."),
    flow_bytes: Counters::new(
        "pipelock_flow_bytes_total",
        "Bytes that flows moved, from the agent (out) and to it (in), counted when they end.",
    ),
    flow_seconds: Times::new("pipelock_flow_duration_seconds", "How long flows lasted that were let through.", LONG),
    findings: Counters::new(
        "pipelock_scan_findings_total",
        "What the scanner found in requests and answers, by what was done about it.",
    ),
    denials: Counter::new(
        "pipelock_receipt_denials_total",
        "Denials without a receipt of their own that receipts stand for.",
    ),
    sockets: Counter::new(
        "pipelock_sockets_refused_total",
        "Sockets that the system call filter of run refused, by their receipts.",
    ),
    receipts: Counters::new(
        "pipelock_receipts_total",
        "Receipts that were signed and written, without the first and the last of a chain.",
    ),
    lost: Counter::new(
        "pipelock_receipts_lost_total",
        "Decisions that have no receipt, because evidence could not be written or nobody waited until there was room.",
    ),
    waited: Counter::new(
        "pipelock_receipt_queue_full_total",
        "How often a decision had to wait because the queue of receipts was full.",
    ),
    queue_wait: Times::new(
        "pipelock_receipt_queue_wait_seconds",
        "How long receipts waited in the queue before they were signed.",
        SHORT,
    ),
    sign: Times::new("pipelock_receipt_sign_duration_seconds", "How long signing one receipt took.", SHORT),
    write: Times::new("pipelock_evidence_write_duration_seconds", "How long writing a batch of receipts took.", SHORT),
    sync: Times::new(
        "pipelock_evidence_sync_duration_seconds",
        "How long it took until the disk had what was written.",
        SHORT,
    ),
});

impl Counts {
    /// A receipt was signed and is in the file.
    pub(super) fn written(&self, counted: Counted, found: &[Found]) {
        for Found(severity, done) in found {
            self.findings.add((*severity, *done));
        }
        let kind = match counted {
            Counted::Request(surface, word, reason) => {
                self.requests.add((surface, word, reason));
                Kind::Request
            }
            Counted::Flow(word, reason, moved) => {
                self.flows.add((word, reason));
                self.flow_bytes.add_by(Direction::Out, moved.out);
                self.flow_bytes.add_by(Direction::In, moved.inn);
                if let Some(time) = moved.nanoseconds.filter(|_| word != Word::Block) {
                    self.flow_seconds.took(std::time::Duration::from_nanos(time));
                }
                Kind::Flow
            }
            Counted::Denials(count) => {
                self.denials.add_by(count);
                Kind::Denials
            }
            Counted::Socket(count) => {
                self.sockets.add_by(count);
                Kind::Socket
            }
            Counted::Ledger => Kind::Ledger,
        };
        self.receipts.add(kind);
    }

    /// A sign of life was written.
    pub(super) fn beat(&self) {
        self.receipts.add(Kind::Heartbeat);
    }
}

#[cfg(test)]
#[path = "counts_tests.rs"]
mod tests;
