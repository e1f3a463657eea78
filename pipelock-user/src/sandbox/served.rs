//! Whether it is the agent that serves the other end of a connection of ours: it may listen on any loopback port that is free, and
//! so on that of a service of this host which is down.
//!
//! Asked by `app` for the next hop, before anything is said to it. It promises that nothing is sent in finding out, and that what
//! the kernel does not tell is an error.

use std::io;
use std::net::SocketAddr;

use super::cgroup::Cgroup;
use super::diag::{self, DiagError, Listed, state};

const TCP: u8 = libc::IPPROTO_TCP as u8;

/// The sockets of those who live in a cgroup.
#[derive(Debug)]
pub struct AgentSockets(Cgroup);

impl AgentSockets {
    /// Those of this cgroup and of all below it.
    #[must_use]
    pub fn of(cgroup: Cgroup) -> Self {
        Self(cgroup)
    }

    /// Whether the other end of a TCP connection of this network namespace is one of them; no for one that is not on this host.
    ///
    /// # Errors
    /// The kernel does not tell, or the cgroup is gone.
    pub fn serve(&self, near: SocketAddr, far: SocketAddr) -> io::Result<bool> {
        let Some(end) = diag::find(TCP, far, near).map_err(other)? else { return Ok(false) };
        let agents = self.0.ids().map_err(io::Error::other)?;
        match end {
            // A connection that was not taken yet has no cgroup of its own: it is for whoever listens.
            Listed { state: state::SYN_RECEIVED, .. } | Listed { cgroup_id: None, .. } => {
                let mut is_agents = false;
                for family in [libc::AF_INET, libc::AF_INET6] {
                    let family = u8::try_from(family).unwrap_or_default();
                    diag::list_in(family, TCP, state::LISTEN, |listener| {
                        let is_theirs = listener.cgroup_id.is_none_or(|id| agents.contains(&id));
                        is_agents |= is_theirs && listener.local.port() == far.port();
                    })
                    .map_err(other)?;
                }
                Ok(is_agents)
            }
            Listed { cgroup_id: Some(id), .. } => Ok(agents.contains(&id)),
        }
    }
}

fn other(error: DiagError) -> io::Error {
    match error {
        DiagError::Io(error) => error,
        short @ DiagError::Short => io::Error::other(short),
    }
}
