//! The peers of the proxy suite: each opens TLS with an authority of ours, verifies the origin by another, logs nothing.
//! One that is not installed is left out and said.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::client::HOST;

/// A peer that runs until it is dropped.
pub(super) struct Peer {
    pub(super) name: &'static str,
    /// The route that the load takes.
    pub(super) route: String,
    pub(super) child: Child,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that are installed; `folder` holds certificates and keys; so many connections at a time.
pub(super) fn start(origin: (SocketAddr, SocketAddr), folder: &Path, most: usize) -> Result<Vec<Peer>> {
    std::fs::write(folder.join("hosts"), format!("127.0.0.1 localhost {HOST}\n"))?;
    let all = [haproxy(origin, folder, most)?, squid(folder)?, mitmproxy(folder)?];
    Ok(all.into_iter().flatten().collect())
}

fn haproxy((plain, tls): (SocketAddr, SocketAddr), folder: &Path, most: usize) -> Result<Option<Peer>> {
    let (first, second) = (free()?, free()?);
    let at = folder.display();
    let config = format!(
        "global\n nbthread 1\n maxconn {most}\ndefaults\n mode http\n timeout connect 5s\n timeout client 600s\n timeout server 600s\n \
         http-reuse always\nfrontend plain\n bind {first}\n default_backend plain\nfrontend tls\n \
         bind {second} ssl crt {at}/own-both.pem generate-certificates ca-sign-file {at}/own-both.pem\n default_backend tls\n\
         backend plain\n server o {plain}\nbackend tls\n \
         server o {tls} ssl ca-file {at}/upstream.pem verify required sni str({HOST}) verifyhost {HOST}\n"
    );
    let path = folder.join("haproxy.cfg");
    std::fs::write(&path, config)?;
    let child = started(Command::new("haproxy").arg("-db").arg("-f").arg(&path), folder)?;
    let peer = peer("HAProxy", format!("at={first},{second}"), child, first)?;
    // It ends the connection for which it makes a certificate (2.6).
    let mut first = Command::new("openssl");
    first.args(["s_client", "-connect", &second.to_string(), "-servername", HOST]).stdin(Stdio::null());
    let _ = first.stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(peer)
}

fn squid(folder: &Path) -> Result<Option<Peer>> {
    const HELPER: &str = "/usr/lib/squid/security_file_certgen";
    if !Path::new(HELPER).exists() {
        return Ok(None);
    }
    let addr = free()?;
    let own = folder.join("squid");
    std::fs::create_dir(&own)?;
    let (at, own) = (folder.display(), own.display());
    let config = format!(
        "http_port {addr} ssl-bump cert={at}/own.pem key={at}/own.key generate-host-certificates=on dynamic_cert_mem_cache_size=16MB\n\
         sslcrtd_program {HELPER} -s {own}/certificates -M 16MB\ntls_outgoing_options cafile={at}/upstream.pem\n\
         acl first at_step SslBump1\nssl_bump peek first\nssl_bump bump all\nhttp_access allow all\ncache deny all\naccess_log none\n\
         cache_log {own}/cache.log\npid_filename {own}/squid.pid\ncache_effective_user proxy\ncoredump_dir {own}\nworkers 1\n"
    );
    std::fs::write(folder.join("squid.conf"), config)?;
    let script = format!("{HELPER} -c -s {own}/certificates -M 16MB >/dev/null && chown -R proxy {own}");
    let made = Command::new("sh").args(["-c", &script]).status()?;
    anyhow::ensure!(made.success(), "squid's store of certificates");
    // Its own name for shared memory, and not that of a squid of the machine.
    let name = format!("bench{}", std::process::id());
    let child =
        started(&mut with_hosts(folder, &["squid", "-N", "-n", &name, "-f", &format!("{at}/squid.conf")]), folder)?;
    peer("squid", format!("proxy={addr}"), child, addr)
}

fn mitmproxy(folder: &Path) -> Result<Option<Peer>> {
    let program = std::env::var("MITMDUMP").unwrap_or_else(|_| "mitmdump".to_owned());
    if Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Ok(None);
    }
    let addr = free()?;
    let own = folder.join("mitm");
    std::fs::create_dir(&own)?;
    let both = std::fs::read_to_string(folder.join("own.key"))? + &std::fs::read_to_string(folder.join("own.pem"))?;
    std::fs::write(own.join("mitmproxy-ca.pem"), both)?;
    let port = addr.port().to_string();
    let (store, roots) = (
        format!("confdir={}", own.display()),
        format!("ssl_verify_upstream_trusted_ca={}", folder.join("upstream.pem").display()),
    );
    let words = [
        &program,
        "-q",
        "--listen-host",
        "127.0.0.1",
        "-p",
        &port,
        "--set",
        "flow_detail=0",
        "--set",
        &store,
        "--set",
        &roots,
    ];
    let child = started(&mut with_hosts(folder, &words), folder)?;
    peer("mitmproxy", format!("proxy={addr}"), child, addr)
}

/// A command that finds the origin by its name.
fn with_hosts(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("mount --bind {}/hosts /etc/hosts && exec \"$@\"", folder.display());
    command.args(["--mount", "sh", "-c", &script, "sh"]).args(words);
    command
}

fn started(command: &mut Command, folder: &Path) -> Result<Option<Child>> {
    match command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(child) => Ok(Some(child)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("{command:?}")),
    }
}

fn peer(name: &'static str, route: String, child: Option<Child>, addr: SocketAddr) -> Result<Option<Peer>> {
    let Some(child) = child else { return Ok(None) };
    let mut peer = Peer { name, route, child };
    for _ in 0..400 {
        if TcpStream::connect(addr).is_ok() {
            return Ok(Some(peer));
        }
        if let Some(status) = peer.child.try_wait()? {
            bail!("{name} ended: {status}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{name} does not listen")
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
