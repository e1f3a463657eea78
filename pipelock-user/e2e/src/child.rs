//! Servers that run as a process of their own.
//!
//! Used by [`crate::TlsServer`] and [`crate::web_sockets`], and by tests that bring a server of theirs. It promises that whoever
//! has one can connect to it, and that it ends with what holds it.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest that a server may take to listen: one that imports much does so on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// A server; killed when it is dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Served {
    /// Starts a server that listens on a port of 127.0.0.1 and writes which into the file `port` of its folder, in one go.
    ///
    /// # Panics
    /// When it cannot be started, ends or does not listen.
    #[must_use]
    pub fn start(command: &mut Command, folder: tempfile::TempDir) -> Self {
        Self::once(command, folder, |folder| {
            let port = std::fs::read_to_string(folder.join("port")).ok()?;
            Some(SocketAddr::from(([127, 0, 0, 1], port.trim().parse().expect("a port"))))
        })
    }

    /// Starts one that was told where to listen.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn at(addr: SocketAddr, command: &mut Command, folder: tempfile::TempDir) -> Self {
        Self::once(command, folder, |_| TcpStream::connect(addr).is_ok().then_some(addr))
    }

    fn once(command: &mut Command, folder: tempfile::TempDir, listens: impl Fn(&Path) -> Option<SocketAddr>) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self { child, addr: SocketAddr::from(([0; 4], 0)), folder };
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(addr) = listens(server.folder.path()) {
                server.addr = addr;
                return server;
            }
            let ended = server.child.try_wait().expect("wait");
            assert!(ended.is_none(), "{command:?} ended: {ended:?}");
            assert!(Instant::now() < deadline, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
