//! Peers beside which pipelock is measured. The table says which one is not installed.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A peer that runs until it is dropped.
pub(crate) struct Peer {
    pub(crate) child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts one, and waits until it listens there.
    pub(crate) fn start(name: &str, command: &mut Command, addr: SocketAddr) -> Result<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut peer = Self { child: command.spawn().with_context(|| format!("{command:?}"))? };
        for _ in 0..400 {
            if TcpStream::connect(addr).is_ok() {
                return Ok(peer);
            }
            if let Some(status) = peer.child.try_wait()? {
                bail!("{name} ended: {status}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{name} does not listen")
    }
}

/// HAProxy in HTTP mode with one thread, kept connections on both sides: so many at most, and listeners with the server
/// behind each, with their options.
pub(crate) fn haproxy(folder: &Path, most: usize, ways: &[(SocketAddr, &str, String)]) -> Result<Option<Peer>> {
    let Some((first, ..)) = ways.first().filter(|_| is_installed("haproxy")) else { return Ok(None) };
    let mut config = format!(
        "global\n nbthread 1\n maxconn {most}\ndefaults\n mode http\n timeout connect 5s\n timeout client 600s\n timeout server 600s\n \
         http-reuse always\n"
    );
    for (at, (addr, options, server)) in ways.iter().enumerate() {
        config += &format!(
            "frontend f{at}\n bind {addr} {options}\n default_backend b{at}\nbackend b{at}\n server o {server}\n"
        );
    }
    let path = folder.join("haproxy.cfg");
    std::fs::write(&path, config)?;
    Peer::start("HAProxy", Command::new("haproxy").arg("-db").arg("-f").arg(&path).current_dir(folder), *first)
        .map(Some)
}

/// Whether there is such a program.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    program.contains('/') && Path::new(program).is_file()
        || std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// An address that is free.
pub(crate) fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
