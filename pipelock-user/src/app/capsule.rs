//! The capsule: what enforces in this run, as signed into the opening of its chain.

use serde_json::{Value, json};

use crate::kernel::Attachment;
use crate::policy::Policy;
use crate::recorder::Capsule;

/// What the capsule names besides the attachment.
pub(super) struct Facts<'a> {
    /// `run` or `attach`.
    pub mode: &'static str,
    /// Path of the cgroup.
    pub cgroup: String,
    /// Id of the cgroup.
    pub cgroup_id: u64,
    /// The policy at the start.
    pub policy: &'a Policy,
    /// What is not enforced and why: each in words.
    pub limits: Vec<String>,
    /// How the agent's process is closed in; null for `attach`.
    pub confinement: Value,
    /// SHA-256 of the certificate of the authority that TLS is opened with; none when it is not.
    pub authority: Option<String>,
    /// Flows that a former proxy left without a receipt, when its pinned state was taken over.
    pub taken_over: Option<Vec<u64>>,
}

/// Builds the capsule.
pub(super) fn capsule(attachment: &Attachment, facts: &Facts<'_>) -> Capsule {
    let hooks: Vec<Value> = attachment
        .hooks
        .iter()
        .map(|hook| {
            json!({
                "hook": hook.hook,
                "link_id": hook.link_id,
                "prog_id": hook.prog_id,
                "prog_tag": hook.prog_tag,
            })
        })
        .collect();
    let missing: Vec<Value> =
        attachment.missing.iter().map(|(hook, why)| json!({ "hook": hook, "why": why })).collect();
    let kernel = nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |name| format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
    );
    Capsule(json!({
        "pipelock": env!("CARGO_PKG_VERSION"),
        "kernel": kernel,
        "mode": facts.mode,
        "attachment": attachment.id,
        "cgroup": facts.cgroup,
        "cgroup_id": facts.cgroup_id.to_string(),
        "level": attachment.level.name(),
        "hooks": hooks,
        "missing_hooks": missing,
        "policy_source": facts.policy.source(),
        "next_hop": facts.policy.next_hop().map(ToString::to_string),
        "not_enforced": facts.limits,
        "tls_authority_sha256": facts.authority,
        "confinement": facts.confinement,
        "taken_over": facts.taken_over.as_ref().map(|flows| {
            flows.iter().map(u64::to_string).collect::<Vec<_>>()
        }),
    }))
}
