//! The sockets that the processes of a running cgroup already hold when we attach to it.
//!
//! Called by the app room after the kernel programs are attached (so that new sockets are seen) and before the
//! attachment is declared good. The programs run for the cgroup that a socket was *made* in, and for connections made
//! from then on, so what is there already is taken one by one:
//!
//! | socket | what happens |
//! |---|---|
//! | connected, made inside | destroyed: its holder connects again, and meets the programs |
//! | listening on loopback, or not connected, made inside | kept, and marked as the agent's own: what it does next meets the programs |
//! | listening on other addresses, made inside | destroyed, unless the policy lets the agent listen |
//! | made outside, of whatever state | refused: destroying ends the connection only, and its holder can connect it again (measured: `connect(AF_UNSPEC)`, then `connect`) unseen |
//! | neither bound nor connected | refused: the kernel does not tell where it was made |
//! | other families and protocols that carry data out | refused: the programs never see them |
//! | descriptors in flight in a UNIX socket or registered with an io_uring; TUN devices | refused: they cannot be looked at |
//!
//! One refusal refuses the attachment, before anything is destroyed, unless it is forced; then what can be destroyed
//! is, and the rest stands in the report, for the evidence.

mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use self::scan::Facts;
use super::cgroup::{Cgroup, CgroupError};
use super::diag::{self, Listed, state};
use super::netns::in_netns;

/// How long the processes may take to stop for the look at them.
const FREEZE: Duration = Duration::from_secs(2);
/// Looks at processes that do not all stop: each finds what moved during the one before.
const PASSES: usize = 3;

/// What was done with a held socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldAction {
    /// Its connection was ended; its holder's next one meets the programs.
    Destroyed,
    /// It stays, for this reason.
    Kept(&'static str),
    /// It is, or may be, a way round the programs, for this reason.
    Refused(String),
}

/// One socket (or other way out) that a process held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldSocket {
    /// A process that holds it; others may share it.
    pub pid: i32,
    /// Name of that process, at most 15 bytes, control characters replaced; the agent can choose it.
    pub comm: String,
    /// Its descriptor in that process.
    pub fd: i32,
    /// `tcp`, `udp`, or what else it is.
    pub proto: String,
    /// The address it is bound to, for INET and INET6.
    pub local: Option<SocketAddr>,
    /// The address it is connected to.
    pub remote: Option<SocketAddr>,
    /// `SO_COOKIE`; 0 for what is no socket.
    pub cookie: u64,
    /// Id of the cgroup it was made in, where the kernel tells.
    pub cgroup_id: Option<u64>,
    /// What was done.
    pub action: HeldAction,
}

impl fmt::Display for HeldSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}) fd {}: {}", self.comm, self.pid, self.fd, self.proto)?;
        if let Some(local) = self.local {
            write!(f, " {local}")?;
        }
        if let Some(remote) = self.remote {
            write!(f, " → {remote}")?;
        }
        match &self.action {
            HeldAction::Destroyed => f.write_str(": destroyed"),
            HeldAction::Kept(why) => write!(f, ": kept, {why}"),
            HeldAction::Refused(why) => write!(f, ": {why}"),
        }
    }
}

/// Why a running cgroup cannot be attached to.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// The cgroup cannot be read.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// We are in it ourselves, and would cut ourselves off.
    #[error("pipelock itself runs in the cgroup {0}; start it from another one")]
    Ourselves(String),
    /// These are, or may be, ways round the programs. Nothing was destroyed, unless a destruction itself failed.
    #[error("processes of the cgroup hold sockets that would go round the programs; restart those processes inside the cgroup, or use --force to attach all the same (the evidence will say so):{}", refused(.0))]
    Refused(Vec<HeldSocket>),
    /// A process or the kernel's list could not be read.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The refused ones, a line each, at most ten.
fn refused(sockets: &[HeldSocket]) -> String {
    let mut lines = sockets.iter().filter(|one| matches!(one.action, HeldAction::Refused(_)));
    let mut text: String = lines.by_ref().take(10).map(|one| format!("\n  {one}")).collect();
    match lines.count() {
        0 => {}
        more => text.push_str(&format!("\n  and {more} more")),
    }
    text
}

/// What to do beyond the table above.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeldOptions {
    /// Go on in spite of refusals.
    pub force: bool,
    /// The policy lets the agent listen on any address.
    pub keep_listeners: bool,
}

/// A socket that stays, to be marked as one that was made inside: the programs know that only of those they saw made.
#[derive(Debug)]
pub struct KeptSocket<'a> {
    /// The socket itself.
    pub socket: BorrowedFd<'a>,
    /// A process that holds it.
    pub pid: i32,
    /// Name of that process.
    pub comm: &'a str,
    /// Id of the cgroup it was made in.
    pub cgroup_id: u64,
    /// A TCP socket that listens.
    pub is_listening: bool,
}

/// Settles every socket that the processes of `cgroup` and the ones below it hold, as the table of this module says.
/// Those that stay are given to `mark`; one that cannot be marked reaches nobody, and the report says so.
/// The processes are stopped meanwhile. Blocks; needs the rights of root, so call it before dropping them.
///
/// # Errors
/// [`HeldError::Refused`] with what is refused, when it is not forced.
pub fn settle(
    cgroup: &Cgroup,
    options: HeldOptions,
    mark: &mut dyn FnMut(&KeptSocket<'_>) -> io::Result<()>,
) -> Result<Vec<HeldSocket>, HeldError> {
    if cgroup.contains_self()? {
        return Err(HeldError::Ourselves(cgroup.path().display().to_string()));
    }
    let frozen = cgroup.freeze(FREEZE)?;
    let mut report = Vec::new();
    let mut known = BTreeSet::new();
    for _ in 0..PASSES {
        let before = report.len();
        settle_once(cgroup, options, mark, &mut known, &mut report)?;
        if report.len() == before || cgroup.is_frozen()? {
            break;
        }
    }
    drop(frozen);
    Ok(report)
}

fn settle_once(
    cgroup: &Cgroup,
    options: HeldOptions,
    mark: &mut dyn FnMut(&KeptSocket<'_>) -> io::Result<()>,
    known: &mut BTreeSet<u64>,
    report: &mut Vec<HeldSocket>,
) -> Result<(), HeldError> {
    let mut found = scan::Found::default();
    for pid in cgroup.procs()? {
        scan::process(pid, known, &mut found)?;
    }
    let listed = list(&found)?;
    let inside = cgroup.ids()?;
    let mut plans = Vec::with_capacity(found.sockets.len());
    for facts in &found.sockets {
        let entry = listed.get(&facts.cookie);
        plans.push((facts, entry, plan(facts, entry, &inside, options)));
    }
    found.others.retain(|other| !report.contains(other));
    // All is looked at before anything is touched.
    let must_refuse = !found.others.is_empty() || plans.iter().any(|(.., plan)| matches!(plan, Plan::Refuse(_)));
    if must_refuse && !options.force {
        let mut refused = found.others;
        for (facts, entry, plan) in plans {
            if let Plan::Refuse(why) = plan {
                refused.push(facts.held(entry.and_then(|entry| entry.cgroup_id), HeldAction::Refused(why)));
            }
        }
        return Err(HeldError::Refused(refused));
    }
    for (facts, entry, plan) in plans {
        let destroy = |entry: &Listed| match found.namespaces.get(&facts.netns) {
            Some(ns) => end(ns, entry, facts.protocol_number()),
            None => Err("its network namespace is not known".to_owned()),
        };
        let action = match (plan, entry) {
            (Plan::Keep(why), entry) => match entry.map(|entry| keep(facts, entry, mark)) {
                Some(Ok(())) => HeldAction::Kept(why),
                _ => HeldAction::Kept("but not known as the agent's own: what comes to it is dropped"),
            },
            (Plan::Destroy, Some(entry)) => match destroy(entry) {
                Ok(()) => HeldAction::Destroyed,
                Err(why) => HeldAction::Refused(format!("cannot be destroyed: {why}")),
            },
            (Plan::Destroy, None) => HeldAction::Refused(UNKNOWN.to_owned()),
            (Plan::Refuse(why), Some(entry)) => {
                let _ = destroy(entry);
                HeldAction::Refused(why)
            }
            (Plan::Refuse(why), None) => HeldAction::Refused(why),
        };
        report.push(facts.held(entry.and_then(|entry| entry.cgroup_id), action));
    }
    report.append(&mut found.others);
    // A kernel that cannot destroy leaves a connection that nobody inspects.
    let stays = |one: &&HeldSocket| matches!(one.action, HeldAction::Refused(_));
    if !options.force && report.iter().any(|one| stays(&one)) {
        return Err(HeldError::Refused(report.iter().filter(stays).cloned().collect()));
    }
    Ok(())
}

fn keep(facts: &Facts, entry: &Listed, mark: &mut dyn FnMut(&KeptSocket<'_>) -> io::Result<()>) -> io::Result<()> {
    let socket = scan::again(facts)?;
    mark(&KeptSocket {
        socket: socket.as_fd(),
        pid: facts.pid,
        comm: &facts.comm,
        cgroup_id: entry.cgroup_id.unwrap_or_default(),
        is_listening: facts.protocol_number() == Some(6) && entry.state == state::LISTEN,
    })
}

/// The kernel's entries for the sockets that were found, by cookie.
fn list(found: &scan::Found) -> Result<BTreeMap<u64, Listed>, HeldError> {
    let wanted: BTreeSet<u64> = found.sockets.iter().map(|facts| facts.cookie).collect();
    let mut all = BTreeMap::new();
    for (inode, ns) in &found.namespaces {
        let mut kinds: BTreeSet<(u8, u8)> = BTreeSet::new();
        for facts in found.sockets.iter().filter(|facts| facts.netns == *inode) {
            if let (Ok(family), Some(protocol)) = (u8::try_from(facts.family), facts.protocol_number()) {
                kinds.insert((family, protocol));
            }
        }
        let read = in_netns(ns.as_fd(), || {
            let mut entries = BTreeMap::new();
            for (family, protocol) in kinds {
                diag::list(family, protocol, |entry| {
                    if wanted.contains(&entry.cookie) {
                        entries.insert(entry.cookie, entry);
                    }
                })?;
            }
            Ok::<_, diag::DiagError>(entries)
        });
        let what = || format!("list the sockets of network namespace {inode}");
        match read {
            Ok(Ok(entries)) => all.extend(entries),
            Ok(Err(error)) => return Err(HeldError::Io { what: what(), source: io::Error::other(error) }),
            Err(source) => return Err(HeldError::Io { what: what(), source }),
        }
    }
    Ok(all)
}

fn end(ns: &OwnedFd, entry: &Listed, protocol: Option<u8>) -> Result<(), String> {
    let protocol = protocol.ok_or("neither TCP nor UDP")?;
    match in_netns(ns.as_fd(), || diag::destroy(entry, protocol)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

const UNKNOWN: &str = "is neither bound nor connected, so the kernel does not tell in which cgroup it was made";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Plan {
    Keep(&'static str),
    Destroy,
    Refuse(String),
}

/// What the table of this module says.
fn plan(facts: &Facts, entry: Option<&Listed>, inside: &BTreeSet<u64>, options: HeldOptions) -> Plan {
    let Some(protocol) = facts.protocol_number() else {
        return Plan::Refuse("is of a kind that the programs never see".to_owned());
    };
    let Some(entry) = entry else { return Plan::Refuse(UNKNOWN.to_owned()) };
    match entry.cgroup_id {
        Some(id) if inside.contains(&id) => {}
        Some(id) => {
            return Plan::Refuse(format!(
                "was made in another cgroup (id {id}), so the programs would never see it, even if it connects anew"
            ));
        }
        None => return Plan::Refuse("was made in a cgroup that this kernel does not tell".to_owned()),
    }
    if i32::from(protocol) == libc::IPPROTO_UDP {
        return if entry.remote.port() == 0 {
            Plan::Keep("not connected: each datagram it sends meets the programs")
        } else {
            Plan::Destroy
        };
    }
    match entry.state {
        state::LISTEN if entry.local.ip().is_loopback() => Plan::Keep("listening on loopback"),
        state::LISTEN if options.keep_listeners => Plan::Keep("listening, which the policy allows"),
        state::CLOSE | state::BOUND_INACTIVE => Plan::Keep("not connected: its next connection meets the programs"),
        _ => Plan::Destroy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(protocol: i32) -> Facts {
        Facts {
            pid: 1,
            tid: 1,
            comm: "x".into(),
            fd: 3,
            family: libc::AF_INET,
            kind: if protocol == libc::IPPROTO_UDP { libc::SOCK_DGRAM } else { libc::SOCK_STREAM },
            protocol,
            cookie: 1,
            netns: 1,
            local: None,
            remote: None,
        }
    }

    fn entry(state: u8, local: &str, remote: &str, cgroup: Option<u64>) -> Listed {
        Listed::for_test(state, local.parse().expect("addr"), remote.parse().expect("addr"), cgroup)
    }

    fn planned(protocol: i32, entry: Option<&Listed>) -> Plan {
        plan(&facts(protocol), entry, &BTreeSet::from([7, 8]), HeldOptions::default())
    }

    #[test]
    fn the_table_holds() {
        let (tcp, udp) = (libc::IPPROTO_TCP, libc::IPPROTO_UDP);
        let is_refused = |plan| matches!(plan, Plan::Refuse(_));
        let connected = entry(1, "10.0.0.1:5", "10.0.0.2:443", Some(8));
        assert_eq!(planned(tcp, Some(&connected)), Plan::Destroy);
        assert_eq!(planned(udp, Some(&connected)), Plan::Destroy);
        let resolver = entry(1, "127.0.0.1:5", "127.0.0.53:53", Some(7));
        assert_eq!(planned(udp, Some(&resolver)), Plan::Destroy);
        assert!(matches!(planned(tcp, Some(&entry(10, "127.0.0.1:5", "0.0.0.0:0", Some(7)))), Plan::Keep(_)));
        assert!(matches!(planned(tcp, Some(&entry(10, "[::1]:5", "[::]:0", Some(7)))), Plan::Keep(_)));
        let public = entry(10, "0.0.0.0:5", "0.0.0.0:0", Some(7));
        assert_eq!(planned(tcp, Some(&public)), Plan::Destroy);
        let keep = HeldOptions { keep_listeners: true, ..HeldOptions::default() };
        assert!(matches!(plan(&facts(tcp), Some(&public), &BTreeSet::from([7]), keep), Plan::Keep(_)));
        assert!(matches!(planned(udp, Some(&entry(7, "0.0.0.0:5", "0.0.0.0:0", Some(7)))), Plan::Keep(_)));
        assert!(matches!(planned(tcp, Some(&entry(13, "0.0.0.0:5", "0.0.0.0:0", Some(7)))), Plan::Keep(_)));
        // Outside, unknown, or never seen.
        assert!(is_refused(planned(tcp, Some(&entry(1, "10.0.0.1:5", "10.0.0.2:443", Some(1))))));
        assert!(is_refused(planned(tcp, Some(&entry(10, "127.0.0.1:5", "0.0.0.0:0", Some(1))))));
        assert!(is_refused(planned(tcp, Some(&entry(1, "10.0.0.1:5", "10.0.0.2:443", None)))));
        assert!(is_refused(planned(tcp, None)));
        assert!(is_refused(planned(262, Some(&connected))));
        assert!(is_refused(planned(libc::IPPROTO_ICMP, Some(&connected))));
    }

    #[test]
    fn a_refusal_names_at_most_ten() {
        let one = facts(0).held(None, HeldAction::Refused("why".into()));
        let text = HeldError::Refused(vec![one; 12]).to_string();
        assert_eq!(text.matches("x (pid 1) fd 3").count(), 10);
        assert!(text.ends_with("and 2 more"), "{text}");
    }
}
