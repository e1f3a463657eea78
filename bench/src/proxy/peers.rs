//! The peers of the proxy suite: each opens TLS with an authority of ours, verifies the origin by another, logs nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::client::HOST;
use crate::peers::{self, Peer, free, is_installed};

/// A peer, and the route to it that the load takes.
pub(super) struct Through {
    pub(super) peer: Peer,
    pub(super) route: String,
}

/// All of them, none where one is not installed; `folder` holds certificates and keys; so many connections at a time.
pub(super) fn start(
    origin: (SocketAddr, SocketAddr),
    folder: &Path,
    most: usize,
) -> Result<[(&'static str, Option<Through>); 3]> {
    std::fs::write(folder.join("hosts"), format!("127.0.0.1 localhost {HOST}\n"))?;
    Ok([("HAProxy", haproxy(origin, folder, most)?), ("squid", squid(folder)?), ("mitmproxy", mitmproxy(folder)?)])
}

fn haproxy((plain, tls): (SocketAddr, SocketAddr), folder: &Path, most: usize) -> Result<Option<Through>> {
    let (first, second) = (free()?, free()?);
    let at = folder.display();
    let options = format!("ssl crt {at}/own-both.pem generate-certificates ca-sign-file {at}/own-both.pem");
    let server = format!("{tls} ssl ca-file {at}/upstream.pem verify required sni str({HOST}) verifyhost {HOST}");
    let ways = [(first, "", plain.to_string()), (second, options.as_str(), server)];
    let Some(peer) = peers::haproxy(folder, most, &ways)? else { return Ok(None) };
    // It ends the connection for which it makes a certificate (2.6).
    let mut hello = Command::new("openssl");
    hello.args(["s_client", "-connect", &second.to_string(), "-servername", HOST]).stdin(Stdio::null());
    let _ = hello.stdout(Stdio::null()).stderr(Stdio::null()).status();
    Ok(Some(Through { peer, route: format!("at={first},{second}") }))
}

fn squid(folder: &Path) -> Result<Option<Through>> {
    const HELPER: &str = "/usr/lib/squid/security_file_certgen";
    if !is_installed("squid") || !is_installed(HELPER) {
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
    let words = ["squid", "-N", "-n", &name, "-f", &format!("{at}/squid.conf")];
    let peer = Peer::start("squid", &mut with_hosts(folder, &words), addr)?;
    Ok(Some(Through { peer, route: format!("proxy={addr}") }))
}

fn mitmproxy(folder: &Path) -> Result<Option<Through>> {
    let program = std::env::var("MITMDUMP").unwrap_or_else(|_| "mitmdump".to_owned());
    if !is_installed(&program) {
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
    let peer = Peer::start("mitmproxy", &mut with_hosts(folder, &words), addr)?;
    Ok(Some(Through { peer, route: format!("proxy={addr}") }))
}

/// A command that finds the origin by its name.
fn with_hosts(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("mount --bind {}/hosts /etc/hosts && exec \"$@\"", folder.display());
    command.args(["--mount", "sh", "-c", &script, "sh"]).args(words).current_dir(folder);
    command
}
