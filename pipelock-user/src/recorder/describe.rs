//! Turns flows, requests and totals into receipt drafts: the only place that knows both our words and the format's.

use std::time::{Duration, SystemTime};

use pipelock_receipt::canon::Timestamp;
use pipelock_receipt::stats::{DENIALS_LAYER, DENIALS_TARGET, FLOW_LAYER, LEDGER_LAYER, LEDGER_TARGET, SOCKET_LAYER};
use pipelock_receipt::{ActionDraft, ActionType, Reversibility, SideEffect};
use serde_json::{Map, Value, json};

use crate::flow::{Flow, Found, Outcome, PolicyId, Reached, Reason, Verdict};

/// One HTTP request or DNS query, inside a flow or of a client of the explicit proxy.
#[derive(Clone, Debug)]
pub struct RequestRecord {
    /// The flow it belongs to.
    pub flow: std::sync::Arc<Flow>,
    /// The policy that decided; it may be a later one than the flow was opened under.
    pub policy: PolicyId,
    /// The door: `forward` for HTTP, `connect` for a tunnel, `fetch` for what was fetched on a client's behalf, `ws` for a WebSocket
    /// that was asked for by URL, `scan` for the Scan API, `reverse` for the reverse proxy, `door` for what none of these is, and `dns`
    /// for a query.
    pub transport: &'static str,
    /// HTTP method or DNS type.
    pub method: String,
    /// URL without query and fragment, or the name asked for.
    pub target: String,
    /// What was decided.
    pub verdict: Verdict,
    /// Status of the answer that is released, if there is one.
    pub status: Option<u16>,
    /// How the destination was reached, for what went out.
    pub dialled: Option<Reached>,
    /// Of a receipt after that of the request: the part of the message that it is about.
    pub part: Option<&'static str>,
}

/// What enforces: signed into the opening of the chain.
#[derive(Clone, Debug)]
pub struct Capsule(pub Value);

/// What the kernel counted over the run: signed before the end.
#[derive(Clone, Debug)]
pub struct KernelTotals(pub Value);

/// A socket that the system call filter refused before any hook of the kernel could see it, and how often in a row.
#[derive(Clone, Debug)]
pub struct SocketRecord {
    /// Family, as in the headers (`packet`, `vsock`).
    pub family: String,
    /// Type (`raw`, `dgram`).
    pub kind: String,
    /// Protocol number.
    pub protocol: i32,
    /// Thread id of the caller.
    pub pid: u32,
    /// Process id of the caller; 0 when it was gone already.
    pub tgid: u32,
    /// User id of the caller.
    pub uid: u32,
    /// Name of the calling thread.
    pub comm: String,
    /// How many such calls this receipt stands for, all of one process.
    pub count: u64,
    /// The policy in force.
    pub policy: PolicyId,
}

impl SocketRecord {
    pub(super) fn draft(&self) -> (ActionDraft, Value) {
        let target = format!("socket://{}/{}/{}", self.family, self.kind, self.protocol);
        let mut draft = ActionDraft::new("block", "seccomp", target);
        draft.layer = SOCKET_LAYER.into();
        draft.pattern = Reason::SocketDenied.code().into();
        draft.actor.clone_from(&self.comm);
        draft.policy_hash = Some(self.policy.to_string());
        let ext = json!({ "socket_v1": {
            "family": self.family,
            "type": self.kind,
            "protocol": self.protocol,
            "pid": self.pid,
            "tgid": self.tgid,
            "uid": self.uid,
            "comm": self.comm,
            "count": self.count.to_string(),
        } });
        (draft, ext)
    }
}

impl RequestRecord {
    pub(super) fn draft(&self) -> (ActionDraft, Value) {
        let mut draft = ActionDraft::new(self.verdict.word(), self.transport, self.target.clone());
        if self.transport == "dns" {
            draft.action_type = ActionType::Read;
            draft.side_effect = SideEffect::ExternalRead;
            draft.reversibility = Reversibility::Full;
        } else {
            (draft.action_type, draft.side_effect, draft.reversibility) = ActionType::of_http_method(&self.method);
        }
        draft.method.clone_from(&self.method);
        draft.layer = self.verdict.layer().into();
        draft.pattern = self.verdict.reason.code().into();
        draft.severity = severity(&self.verdict.findings).into();
        let origin = &self.flow.origin;
        draft.actor = origin.identity.as_ref().map_or_else(|| origin.comm.clone(), ToString::to_string);
        draft.intent.clone_from(&self.verdict.detail);
        draft.policy_hash = Some(self.policy.to_string());
        let mut flow = Map::new();
        insert_some(&mut flow, "identity", origin.identity.as_deref());
        if self.flow.id.0 == 0 {
            // An explicit client: the kernel was not asked, so only its address is known.
            insert_some(&mut flow, "src", origin.peer.map(|peer| peer.to_string()));
        } else {
            flow.insert("flow_id".into(), json!(self.flow.id.to_string()));
            flow.insert("sock_cookie".into(), json!(self.flow.origin.socket_cookie.to_string()));
            flow.insert("netns_cookie".into(), json!(self.flow.origin.netns_cookie.to_string()));
            flow.insert("pid".into(), json!(self.flow.origin.pid));
        }
        insert_some(&mut flow, "rule", self.verdict.rule.clone());
        insert_some(&mut flow, "status", self.status);
        if let Some(Reached { addr, via, .. }) = &self.dialled {
            insert_some(&mut flow, "dialled", addr.map(|addr| addr.to_string()));
            insert_some(&mut flow, "next_hop", via.as_deref());
        }
        insert_some(&mut flow, "asked", self.verdict.asked.as_ref().map(|asked| json!(**asked)));
        insert_some(&mut flow, "part", self.part);
        if !self.verdict.findings.is_empty() {
            flow.insert("findings".into(), json!(self.verdict.findings));
        }
        (draft, json!({ "flow_v1": flow }))
    }
}

/// The worst of them; empty without any.
fn severity(findings: &[Found]) -> &'static str {
    let rank = |word: &str| ["low", "medium", "high", "critical"].iter().position(|known| *known == word);
    findings.iter().map(|found| found.severity).max_by_key(|word| rank(word)).unwrap_or_default()
}

/// What the kernel recorded of a flow, in the recorder's terms; `app` fills it from the kernel's record.
#[derive(Clone, Debug)]
pub struct FlowFacts {
    /// Who and where.
    pub flow: Flow,
    /// `tcp`, `udp` or the number of the protocol.
    pub protocol: String,
    /// Name of the hook that decided.
    pub hook: &'static str,
    /// The kernel's reason, as a code.
    pub kernel_reason: &'static str,
    /// The agent's end, if it had one.
    pub local: Option<std::net::SocketAddr>,
    /// Group id.
    pub gid: u32,
    /// Nanoseconds since boot at which it was decided.
    pub opened_ns: u64,
    /// Nanoseconds since boot at which it was closed; 0 when it was open at the end of the run.
    pub closed_ns: u64,
    /// Bytes from the agent.
    pub tx_bytes: u64,
    /// Bytes to the agent.
    pub rx_bytes: u64,
    /// When it was decided, by the wall clock.
    pub opened_at: SystemTime,
}

impl FlowFacts {
    pub(super) fn draft(&self, outcome: &Outcome) -> (ActionDraft, Value) {
        let flow = &self.flow;
        let name = outcome.name.clone().or_else(|| flow.target.name.clone());
        let authority = name
            .as_ref()
            .map_or_else(|| flow.target.original.to_string(), |name| format!("{name}:{}", flow.target.original.port()));
        // The receipt's own time is when it is written; when the flow was opened stands beside it.
        let mut draft = ActionDraft::new(outcome.verdict.word(), "ebpf", format!("{}://{authority}", self.protocol));
        draft.layer = FLOW_LAYER.into();
        draft.pattern = outcome.verdict.reason.code().into();
        draft.actor.clone_from(&flow.origin.comm);
        draft.intent.clone_from(&outcome.verdict.detail);
        draft.policy_hash = Some(outcome.policy.as_ref().unwrap_or(&flow.policy).to_string());
        let mut ext = Map::new();
        for (key, value) in [
            ("flow_id", flow.id.0),
            ("sock_cookie", flow.origin.socket_cookie),
            ("netns_cookie", flow.origin.netns_cookie),
            ("cgroup_id", flow.origin.cgroup_id),
            ("start_boottime_ns", self.opened_ns),
            ("end_boottime_ns", self.closed_ns),
            ("tx_bytes", self.tx_bytes),
            ("rx_bytes", self.rx_bytes),
            ("requests", outcome.requests),
        ] {
            // 64-bit values as decimal strings: JSON numbers end at 2^53.
            ext.insert(key.into(), json!(value.to_string()));
        }
        for (key, value) in
            [("pid", flow.origin.pid), ("tgid", flow.origin.tgid), ("uid", flow.origin.uid), ("gid", self.gid)]
        {
            ext.insert(key.into(), json!(value));
        }
        ext.insert("comm".into(), json!(flow.origin.comm));
        ext.insert("proto".into(), json!(self.protocol));
        ext.insert("hook".into(), json!(self.hook));
        ext.insert("kernel_reason".into(), json!(self.kernel_reason));
        ext.insert("orig_dst".into(), json!(flow.target.original.to_string()));
        ext.insert("opened_at".into(), json!(Timestamp::from(self.opened_at).to_string()));
        insert_some(&mut ext, "src", self.local.map(|addr| addr.to_string()));
        insert_some(&mut ext, "name", name.map(|name| name.to_string()));
        insert_some(&mut ext, "rule", outcome.verdict.rule.clone());
        insert_some(&mut ext, "asked", outcome.verdict.asked.as_ref().map(|asked| json!(**asked)));
        insert_some(&mut ext, "next_hop", outcome.via.as_deref());
        if !outcome.carrier.is_empty() {
            ext.insert("carrier".into(), json!(outcome.carrier));
        }
        (draft, json!({ "flow_v1": ext }))
    }
}

/// Denials that are alike and that the kernel counted instead of recording each.
#[derive(Clone, Debug)]
pub struct DenialFacts {
    /// How many, since the last receipt of this kind.
    pub count: u64,
    /// Where to; none for the rest of a reason, whose destinations were too many. Of packets from outside: where the first
    /// came from, whichever ports of that address the others did.
    pub target: Option<std::net::SocketAddr>,
    /// Of packets from outside: the agent's end that the first was for. All were for this port.
    pub local: Option<std::net::SocketAddr>,
    /// `tcp`, `udp` or the number of the protocol.
    pub protocol: String,
    /// Name of the hook that decided.
    pub hook: &'static str,
    /// Why.
    pub reason: Reason,
    /// The kernel's reason, as a code.
    pub kernel_reason: &'static str,
    /// Name of the process that was denied last.
    pub comm: String,
    /// Its process id.
    pub tgid: u32,
    /// Its user id.
    pub uid: u32,
    /// Nanoseconds since boot of the first denial that the kernel counted so.
    pub first_ns: u64,
    /// Nanoseconds since boot of the last.
    pub last_ns: u64,
    /// The last, by the wall clock.
    pub last_at: SystemTime,
    /// The policy in force; none for the rest.
    pub policy: Option<PolicyId>,
}

impl DenialFacts {
    pub(super) fn draft(&self) -> (ActionDraft, Value) {
        let target = match self.target {
            Some(target) => format!("{}://{target}", self.protocol),
            None => DENIALS_TARGET.to_owned(),
        };
        let mut draft = ActionDraft::new("block", "ebpf", target);
        draft.layer = DENIALS_LAYER.into();
        draft.pattern = self.reason.code().into();
        draft.actor.clone_from(&self.comm);
        draft.policy_hash = self.policy.as_ref().map(ToString::to_string);
        let mut ext = Map::new();
        for (key, value) in
            [("count", self.count), ("first_boottime_ns", self.first_ns), ("last_boottime_ns", self.last_ns)]
        {
            ext.insert(key.into(), json!(value.to_string()));
        }
        ext.insert("kernel_reason".into(), json!(self.kernel_reason));
        ext.insert("last_at".into(), json!(Timestamp::from(self.last_at).to_string()));
        ext.insert("last_process".into(), json!({"comm": self.comm, "tgid": self.tgid, "uid": self.uid}));
        if let Some(target) = self.target {
            ext.insert("orig_dst".into(), json!(target.to_string()));
            ext.insert("proto".into(), json!(self.protocol));
            ext.insert("hook".into(), json!(self.hook));
        }
        insert_some(&mut ext, "src", self.local.map(|addr| addr.to_string()));
        (draft, json!({ "denials_v1": ext }))
    }
}

impl KernelTotals {
    pub(super) fn draft(&self) -> (ActionDraft, Value) {
        let mut draft = ActionDraft::new("allow", "ebpf", LEDGER_TARGET);
        draft.layer = LEDGER_LAYER.into();
        draft.actor = "pipelock".into();
        (draft, json!({ "kernel_v1": self.0 }))
    }
}

/// The wall clock at a moment of the boot clock.
#[must_use]
pub fn wall_clock(boot_ns: u64, now_boot_ns: u64, now: SystemTime) -> SystemTime {
    let ago = Duration::from_nanos(now_boot_ns.saturating_sub(boot_ns));
    now.checked_sub(ago).unwrap_or(now)
}

fn insert_some(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_follows_the_boot_clock() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(wall_clock(4_000_000_000, 9_000_000_000, now), now - Duration::from_secs(5));
        assert_eq!(wall_clock(9_000_000_001, 9_000_000_000, now), now);
    }
}
