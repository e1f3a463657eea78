//! TLS servers with a self-signed certificate: `openssl s_server`, which answers any GET with 200, Node.js, which
//! speaks HTTP/2 and HTTP/1.1 and answers with what it saw, and scripts of Python's.
//!
//! Used as the destination of TLS clients. The certificate names what the test asks for, and its file is readable for
//! the agent, so that clients can be told to trust it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::child::Served;
use crate::sandbox::open_up;

/// The server; killed when it is dropped.
pub struct TlsServer {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The certificate, to be trusted by clients.
    pub certificate: PathBuf,
    served: Served,
}

impl TlsServer {
    /// A server on loopback for these names.
    ///
    /// # Panics
    /// When openssl fails.
    #[must_use]
    pub fn start(host: &str, names: &[&str]) -> Self {
        let (folder, certificate) = certified(names);
        let addr = TcpListener::bind((host, 0)).and_then(|free| free.local_addr()).expect("a free port");
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-www", "-accept"]).arg(addr.to_string()).stderr(Stdio::null());
        command.arg("-cert").arg(&certificate).arg("-key").arg(folder.path().join("key.pem"));
        Self { addr, certificate, served: Served::at(addr, &mut command, folder) }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// What a policy says to trust it.
    #[must_use]
    pub fn roots(&self) -> String {
        format!("tls: {{extra_roots: [{}]}}", self.certificate.display())
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
        match std::fs::read(self.served.folder().join("seen")) {
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

    /// One that a script of Python's is, which is told its folder and these arguments, and writes its port into `port` there; with the
    /// modules of [`crate::python_path`].
    ///
    /// # Panics
    /// When python or openssl fails.
    #[must_use]
    pub fn python(names: &[&str], script: &str, arguments: &[&str]) -> Self {
        let (folder, certificate) = certified(names);
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", script]).arg(folder.path()).args(arguments).env("PYTHONPATH", crate::python_path());
        let served = Served::start(&mut command, folder);
        Self { addr: served.addr, certificate, served }
    }

    fn node_with(names: &[&str], handler: &str, server: &str, arguments: &[&str]) -> Self {
        let (folder, certificate) = certified(names);
        let mut command = Command::new("node");
        command.args(["-e", &format!("{HEAD}{handler}{server}{TAIL}")]).arg(folder.path()).args(arguments);
        let served = Served::start(&mut command, folder);
        Self { addr: served.addr, certificate, served }
    }
}

/// A folder with a key, and a certificate that every user can read.
pub(crate) fn certified(names: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    open_up(folder.path(), 0o755);
    let certificate = folder.path().join("cert.pem");
    make_certificate(folder.path(), names);
    open_up(&certificate, 0o644);
    (folder, certificate)
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
