//! `pipelock status`: what is attached, and how it is.

use serde_json::{Value, json};

use super::{Failure, detach, output, run};
use crate::app::kernel_code;
use crate::app::lock::Lock;
use crate::app::state::{self, State};
use crate::kernel::{Attachment, HOOKS, Pinned, attachment_id, probe};
use crate::sandbox::cgroup::{Cgroup, CgroupError};

/// Show what this kernel gives, what is attached, its counters and its health.
///
/// Health is `ok`, `closed` (the proxy is gone, or evidence can no longer be written: nothing leaves until it is attached
/// again or detached), `degraded` (a hook is missing, or the pins were removed or cannot be read), `stale` (leftovers
/// of a cgroup that is gone, which hold nothing), `changing` (somebody is just beginning or ending it) or `leftover` (the
/// cgroup of a `run` that was killed, with nothing attached to it). For what has lost its server, the command that ends it
/// is shown. Exit code 1 when any is closed or degraded, when processes live in a leftover: nothing encloses them, or when
/// leftovers cannot be looked for. Needs root.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn status(args: &Args) -> Result<u8, Failure> {
    if !nix::unistd::geteuid().is_root() {
        return Err("status reads what only root may read; use sudo".into());
    }
    let ids = state::all();
    let mut all: Vec<Value> = ids.iter().map(|id| describe(id)).collect();
    let (left, unread) = match run::left() {
        Ok(left) => (left, None),
        // Then there are none.
        Err(CgroupError::NotMounted) => (Vec::new(), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    all.extend(left.iter().filter(|cgroup| !ids.contains(&attachment_id(cgroup.id()))).map(describe_left));
    let (level, missing) = match probe() {
        Ok(probe) => {
            let missing: Vec<Value> = probe.missing().map(|(hook, why)| json!({ "hook": hook, "why": why })).collect();
            (probe.level.name(), missing)
        }
        Err(error) => ("none", vec![json!({ "hook": "all", "why": error.to_string() })]),
    };
    let is_ok = unread.is_none()
        && all.iter().all(|one| match one["health"].as_str() {
            Some("ok" | "stale" | "changing") => true,
            Some("leftover") => one["populated"] == false,
            _ => false,
        });
    if args.json {
        let kernel = json!({ "level": level, "missing_hooks": missing });
        let status = json!({ "kernel": kernel, "attachments": all, "leftovers_unread": unread });
        output::line(&serde_json::to_string_pretty(&status)?);
    } else {
        output::line(&format!("this kernel gives level {level}"));
        for one in &missing {
            output::line(&format!("  {}: {}", one["hook"].as_str().unwrap_or("-"), one["why"].as_str().unwrap_or("-")));
        }
        if all.is_empty() {
            output::line("nothing is attached");
        }
        for one in &all {
            print(one);
        }
        if let Some(error) = &unread {
            output::line(&format!("whether killed runs left cgroups cannot be said: {error}"));
        }
    }
    Ok(u8::from(!is_ok))
}

fn describe(id: &str) -> Value {
    let state = State::read(id);
    let is_alive = state.as_ref().is_some_and(|state| state.server().is_some());
    let hooks = Attachment::inspect(id).unwrap_or_default();
    let is_at_work = !is_alive && Lock::is_held(id);
    let is_lost = state.as_ref().is_some_and(|state| state.evidence_lost);
    let health = match Attachment::pinned(id) {
        _ if is_alive && is_lost => "closed",
        _ if is_at_work => "changing",
        // Nobody knows what they hold.
        Err(_) => "degraded",
        Ok(Pinned::Absent | Pinned::Dead) if is_alive => "degraded",
        Ok(Pinned::Absent | Pinned::Dead) => "stale",
        Ok(Pinned::Live(_)) if !is_alive => "closed",
        Ok(Pinned::Live(_)) if hooks.len() < HOOKS.len() => "degraded",
        Ok(Pinned::Live(_)) => "ok",
    };
    // Only somebody who says so ends what a run has left.
    let cgroup = match &state {
        _ if is_alive => None,
        Some(state) => Cgroup::open(&state.cgroup).ok(),
        None => detach::parse_id(id).ok().and_then(|number| Cgroup::by_id(number).ok().flatten()),
    };
    let left = cgroup.filter(|cgroup| run::is_of_run(state.as_ref(), Some(cgroup)));
    let force = if left.is_some_and(|left| left.is_populated().unwrap_or(true)) { " --force" } else { "" };
    let counters = Attachment::open_maps(id).ok().and_then(|maps| {
        let pending = maps.pending().len();
        maps.counters().ok().map(|counters| (counters, pending))
    });
    let counters = counters.map(|(counters, pending)| {
        let by_reason: serde_json::Map<String, Value> = counters
            .by_reason
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| (kernel_code(*reason).to_owned(), json!(count)))
            .collect();
        json!({
            "flows": counters.flows,
            "by_reason": by_reason,
            "counted_denials": counters.counted.values().sum::<u64>(),
            "waiting_for_receipt": pending,
            "unrecorded": counters.unrecorded,
            "repeats": counters.repeats,
            "events_lost": counters.events_lost,
        })
    });
    json!({
        "id": id,
        "health": health,
        "mode": state.as_ref().map(|state| &state.mode),
        "cgroup": state.as_ref().map(|state| &state.cgroup),
        "pid": state.as_ref().filter(|_| is_alive).map(|state| state.pid),
        "level": state.as_ref().map(|state| &state.level),
        "policy": state.as_ref().map(|state| &state.policy),
        "policy_hash": state.as_ref().map(|state| &state.policy_hash),
        "evidence": state.as_ref().map(|state| &state.evidence),
        "public_key": state.as_ref().map(|state| &state.public_key),
        "detach": (!is_alive && !is_at_work).then(|| format!("pipelock detach --id {id}{force}")),
        "hooks": hooks.iter().map(|hook| json!({
            "hook": hook.hook, "link_id": hook.link_id, "prog_id": hook.prog_id, "prog_tag": hook.prog_tag,
        })).collect::<Vec<_>>(),
        "counters": counters,
    })
}

/// The cgroup of a run that is gone, with nothing attached to it.
fn describe_left(cgroup: &Cgroup) -> Value {
    let id = attachment_id(cgroup.id());
    // When nobody can say, somebody should look.
    let populated = cgroup.is_populated().unwrap_or(true);
    let force = if populated { " --force" } else { "" };
    json!({
        "id": id,
        "health": "leftover",
        "mode": "run",
        "cgroup": cgroup.path(),
        "populated": populated,
        "detach": format!("pipelock detach --id {id}{force}"),
    })
}

fn print(one: &Value) {
    let text = |key: &str| one[key].as_str().unwrap_or("-").to_owned();
    output::line(&format!("{}  {}  {}", text("id"), text("health"), text("cgroup")));
    if one["health"] == "leftover" {
        let what = if one["populated"] == true { "processes that nothing encloses" } else { "no processes" };
        output::line(&format!("  left by a run that was killed, with {what}; to remove it: sudo {}", text("detach")));
        return;
    }
    if one["health"] == "changing" {
        output::line("  a pipelock is just beginning or ending it");
    }
    if let Some(pid) = one["pid"].as_i64() {
        output::line(&format!("  served by process {pid} ({}), level {}", text("mode"), text("level")));
    }
    if let Some(command) = one["detach"].as_str() {
        output::line(&format!("  its server is gone; to end it: sudo {command}"));
    }
    output::line(&format!("  policy {} ({})", text("policy"), text("policy_hash")));
    output::line(&format!("  evidence {}", text("evidence")));
    let hooks = one["hooks"].as_array().map_or(0, Vec::len);
    let counters = &one["counters"];
    output::line(&format!(
        "  {hooks} hooks, {} flows, {} denials only counted, {} waiting for their receipt, {} unrecorded",
        counters["flows"].as_u64().unwrap_or(0),
        counters["counted_denials"].as_u64().unwrap_or(0),
        counters["waiting_for_receipt"].as_u64().unwrap_or(0),
        counters["unrecorded"].as_u64().unwrap_or(0)
    ));
    if let Some(by_reason) = counters["by_reason"].as_object() {
        for (reason, count) in by_reason {
            output::line(&format!("    {reason}: {count}"));
        }
    }
}
