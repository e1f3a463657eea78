//! Peers beside which the transparent path is measured. One that is not installed is left out and said.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A peer that runs until it is dropped.
pub(crate) struct Peer {
    /// Where clients connect.
    pub(crate) addr: SocketAddr,
    child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// HAProxy in HTTP mode with one thread, kept connections on both sides.
pub(crate) fn haproxy(origin: SocketAddr, folder: &Path) -> Result<Option<Peer>> {
    let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = folder.join("haproxy.cfg");
    std::fs::write(
        &config,
        format!(
            "global\n nbthread 1\n maxconn 4000\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n \
             http-reuse always\nfrontend f\n bind {addr}\n default_backend b\nbackend b\n server o {origin}\n"
        ),
    )?;
    let started = Command::new("haproxy").arg("-f").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("haproxy"),
    };
    let peer = Peer { addr, child };
    std::thread::sleep(Duration::from_millis(500));
    Ok(Some(peer))
}
