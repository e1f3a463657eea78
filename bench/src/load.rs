//! The load of connects: runs inside the cgroup or beside it, and prints one number.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;

/// Connects and closes `count` times; prints nanoseconds for one connect(2), the median.
///
/// Each connection is reset: those that are closed in good order keep their ports for a minute, and some thousands of them
/// make the kernel look longer for a free one, which would be measured instead.
pub(crate) fn connect(addr: SocketAddr, count: usize) -> Result<()> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let stream = TcpStream::connect(addr).context("connect")?;
        took.push(start.elapsed());
        setsockopt(&stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).context("SO_LINGER")?;
        drop(stream);
    }
    println!("{}", median(&mut took).as_nanos());
    Ok(())
}

/// The middle one.
pub(crate) fn median(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took.get(took.len() / 2).copied().unwrap_or_default()
}
