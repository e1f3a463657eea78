//! TLS servers with a self-signed certificate: `openssl s_server`, which answers any GET with 200, and Node.js, which
//! speaks HTTP/2 and HTTP/1.1 and answers with what it saw.
//!
//! Used as the destination of TLS clients. The certificate names what the test asks for, and its file is readable for
//! the agent, so that clients can be told to trust it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::sandbox::open_up;

/// The server; killed when it is dropped.
pub struct TlsServer {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The certificate, to be trusted by clients.
    pub certificate: PathBuf,
    dir: tempfile::TempDir,
}

impl TlsServer {
    /// A server on loopback for these names.
    ///
    /// # Panics
    /// When openssl fails.
    #[must_use]
    pub fn start(host: &str, names: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        open_up(dir.path(), 0o755);
        let certificate = dir.path().join("cert.pem");
        make_certificate(dir.path(), names);
        open_up(&certificate, 0o644);
        let addr = TcpListener::bind((host, 0)).and_then(|free| free.local_addr()).expect("a free port");
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-www", "-accept"]).arg(addr.to_string());
        let child = command
            .arg("-cert")
            .arg(&certificate)
            .arg("-key")
            .arg(dir.path().join("key.pem"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl s_server");
        let server = Self { child, addr, certificate, dir };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(addr).is_err() {
            assert!(Instant::now() < deadline, "openssl s_server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }
}

/// Answers with what it saw, as JSON.
const ECHO: &str = r#"
const handler = (request, response) => {
    let bytes = 0;
    request.on("data", data => { bytes += data.length; });
    request.on("end", () => {
        response.setHeader("alt-svc", 'h3=":443"');
        response.end(JSON.stringify({
            version: request.httpVersion, method: request.method, path: request.url, bytes,
            host: request.headers[":authority"] || request.headers.host,
        }) + "\n");
    });
};
"#;
/// What every such server begins with, how it is made, and what it ends with.
const HEAD: &str = r#"const http2 = require("http2"), fs = require("fs"), folder = process.argv[1];"#;
const SECURE: &str = r#"
const server = http2.createSecureServer({
    allowHTTP1: true, key: fs.readFileSync(folder + "/key.pem"), cert: fs.readFileSync(folder + "/cert.pem"),
}, handler);
"#;
const CLEAR: &str = "const server = http2.createServer(handler);";
const TAIL: &str = r#"
server.on("request", request => {
    if (globalThis.forgets) return;
    const keep = data => fs.appendFileSync(folder + "/seen", data);
    keep([request.method, request.url, JSON.stringify(request.headers), ""].join("\n"));
    request.on("data", keep);
});
server.listen(0, "127.0.0.1", () => {
    fs.writeFileSync(folder + "/port.new", String(server.address().port));
    fs.renameSync(folder + "/port.new", folder + "/port");
});
"#;

impl TlsServer {
    /// A server on loopback for these names that speaks HTTP/2 and HTTP/1.1: Node.js.
    ///
    /// # Panics
    /// When node or openssl fails.
    #[must_use]
    pub fn http2(names: &[&str]) -> Self {
        Self::node(names, ECHO, &[])
    }

    /// What arrived at a server of Node.js until now, also of requests that did not end: of each the method, the path, the
    /// headers as JSON and the body.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn seen(&self) -> Vec<u8> {
        match std::fs::read(self.dir.path().join("seen")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            seen => seen.expect("what arrived"),
        }
    }

    /// The same with a script that defines `handler(request, response)`; `process.argv[1]` is a folder, the rest follows. What
    /// arrives is not kept where the script sets `globalThis.forgets`.
    ///
    /// # Panics
    /// When node or openssl fails.
    #[must_use]
    pub fn node(names: &[&str], handler: &str, arguments: &[&str]) -> Self {
        Self::node_with(names, handler, SECURE, arguments)
    }

    /// One that speaks HTTP/2 in the clear, to clients that know so beforehand (RFC 9113 §3.3).
    ///
    /// # Panics
    /// When node or openssl fails.
    #[must_use]
    pub fn http2_in_the_clear() -> Self {
        Self::node_with(&["web.test"], ECHO, CLEAR, &[])
    }

    fn node_with(names: &[&str], handler: &str, server: &str, arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        open_up(dir.path(), 0o755);
        let certificate = dir.path().join("cert.pem");
        make_certificate(dir.path(), names);
        open_up(&certificate, 0o644);
        let child = Command::new("node")
            .args(["-e", &format!("{HEAD}{handler}{server}{TAIL}")])
            .arg(dir.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("node");
        let deadline = Instant::now() + Duration::from_secs(20);
        let port = loop {
            if let Ok(port) = std::fs::read_to_string(dir.path().join("port")) {
                break port.parse().expect("a port");
            }
            assert!(Instant::now() < deadline, "node does not listen");
            std::thread::sleep(Duration::from_millis(10));
        };
        Self { child, addr: SocketAddr::from(([127, 0, 0, 1], port)), certificate, dir }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_certificate(folder: &Path, names: &[&str]) {
    let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
    let out = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=pipelock e2e", "-addext"])
        .arg(format!("subjectAltName={}", names.join(",")))
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"))
        .output()
        .expect("openssl req");
    assert!(out.status.success(), "openssl req: {}", String::from_utf8_lossy(&out.stderr));
}
