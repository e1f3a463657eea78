//! Next hops from the distribution: squid for CONNECT, in the clear and inside TLS, and microsocks for SOCKS 5.
//!
//! Used by the tests of upstream chaining. Each wants a name and a password, says what it was asked for, and ends with the test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::child::Served;
use crate::prometheus::free_address;
use crate::sandbox::open_up;
use crate::tls::certified;

/// Who may use them.
pub const LOGIN: &str = "gateway:open-sesame-0815";

/// A next hop.
pub struct Hop {
    /// `http://127.0.0.1:PORT`, or another scheme.
    pub url: String,
    /// The file with [`LOGIN`].
    pub credentials: PathBuf,
    /// The certificate of one inside TLS.
    pub certificate: PathBuf,
    served: Served,
}

impl Hop {
    /// squid, in the clear or inside TLS. It knows `hop.test`, `web.test` and `tls.test` as this host, and connects to nothing on
    /// `forbidden`.
    ///
    /// # Panics
    /// When squid or openssl fails.
    #[must_use]
    pub fn squid(is_tls: bool, forbidden: u16) -> Self {
        let (folder, certificate) = certified(&["hop.test"]);
        // squid leaves root for a user of its own.
        open_up(folder.path(), 0o777);
        open_up(&folder.path().join("key.pem"), 0o644);
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (user, password) = LOGIN.split_once(':').expect("both");
        let hash = Command::new("openssl").args(["passwd", "-apr1", password]).output().expect("openssl").stdout;
        let hash = String::from_utf8(hash).expect("text");
        let write = |name: &str, text: &str| {
            std::fs::write(file(name), text).expect("write");
            open_up(&folder.path().join(name), 0o644);
        };
        write("users", &format!("{user}:{hash}"));
        write("hosts", "127.0.0.1 hop.test web.test tls.test\n");
        let addr = free_address();
        let port = match is_tls {
            true => format!("https_port {addr} tls-cert={} tls-key={}", file("cert.pem"), file("key.pem")),
            false => format!("http_port {addr}"),
        };
        write(
            "squid.conf",
            &format!(
                "{port}\nauth_param basic program /usr/lib/squid/basic_ncsa_auth {}\nhosts_file {}\n\
                 acl known proxy_auth REQUIRED\nacl closed port {forbidden}\nhttp_access deny !known\n\
                 http_access deny closed\nhttp_access allow all\ncache deny all\npid_filename none\n\
                 access_log stdio:{}\ncache_log {}\ncoredump_dir {}\nshutdown_lifetime 0 seconds\nnetdb_filename none\n",
                file("users"),
                file("hosts"),
                file("access.log"),
                file("cache.log"),
                folder.path().display(),
            ),
        );
        let mut command = Command::new("squid");
        command.args(["-N", "-f", &file("squid.conf")]);
        let scheme = if is_tls { "https" } else { "http" };
        let url = if is_tls { format!("{scheme}://hop.test:{}", addr.port()) } else { format!("{scheme}://{addr}") };
        Self::at(url, addr, command, folder, certificate)
    }

    /// microsocks.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn microsocks() -> Self {
        let (folder, certificate) = certified(&["hop.test"]);
        let (user, password) = LOGIN.split_once(':').expect("both");
        let addr = free_address();
        let mut command = Command::new("microsocks");
        command.args(["-i", "127.0.0.1", "-p", &addr.port().to_string(), "-u", user, "-P", password]);
        command.stderr(std::fs::File::create(folder.path().join("access.log")).expect("a file"));
        Self::at(format!("socks5://{addr}"), addr, command, folder, certificate)
    }

    fn at(
        url: String,
        addr: SocketAddr,
        mut command: Command,
        folder: tempfile::TempDir,
        certificate: PathBuf,
    ) -> Self {
        let credentials = folder.path().join("login");
        std::fs::write(&credentials, format!("{LOGIN}\n")).expect("write");
        open_up(&credentials, 0o600);
        Self { url, credentials, certificate, served: Served::at(addr, &mut command, folder) }
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.served.port()
    }

    /// What a policy says to go through it.
    #[must_use]
    pub fn upstream(&self, more: &str) -> String {
        format!("upstream: {{proxy: \"{}\", credentials_file: {}{more}}}\n", self.url, self.credentials.display())
    }

    /// What it has written down of those who asked.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.served.folder().join("access.log")).unwrap_or_default()
    }
}
