//! What identifies a flow: the kernel's number for it, who opened it, where it was going.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::flow::Host;

/// The kernel's number for a flow: 1, 2, 3 … without gaps within one attachment, so that a missing receipt shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// SHA-256 of a policy's canonical form, as 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyId(pub String);

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who opened the flow, as the kernel saw it at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Id of the cgroup of the process (the inode of its folder in cgroup2).
    pub cgroup_id: u64,
    /// Cookie of the network namespace of the socket.
    pub netns_cookie: u64,
    /// Cookie of the socket.
    pub socket_cookie: u64,
    /// Thread id, in the initial pid namespace.
    pub pid: u32,
    /// Process id, in the initial pid namespace.
    pub tgid: u32,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// Name of the process, at most 15 bytes; the agent can choose it.
    pub comm: String,
    /// Who a client of the explicit proxy has shown to be, by its token.
    pub identity: Option<Arc<str>>,
    /// Where such a client is; none for what the kernel saw.
    pub peer: Option<SocketAddr>,
}

impl Origin {
    /// Somebody outside every attachment, of whom the kernel told nothing.
    #[must_use]
    pub const fn unseen() -> Self {
        Self {
            cgroup_id: 0,
            netns_cookie: 0,
            socket_cookie: 0,
            pid: 0,
            tgid: 0,
            uid: 0,
            comm: String::new(),
            identity: None,
            peer: None,
        }
    }
}

/// Where the flow was going.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The name the agent asked our resolver for, if the address came from there.
    pub name: Option<Host>,
    /// The address the agent passed to the kernel, unmapped.
    pub original: SocketAddr,
}

impl Target {
    /// `name:port`, or `address:port` without a name.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.name {
            Some(host) => format!("{host}:{}", self.original.port()),
            None => self.original.to_string(),
        }
    }
}

/// One conversation between the agent and a destination.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The kernel's number.
    pub id: FlowId,
    /// Who opened it.
    pub origin: Origin,
    /// Where it was going.
    pub target: Target,
    /// The policy in force when it opened.
    pub policy: PolicyId,
}
