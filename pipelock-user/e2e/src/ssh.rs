//! An SSH server: OpenSSH's own, as a process on loopback with keys of its own.
//!
//! Used by the tests of rules for SSH. It promises that only the key in its folder opens it, and that it ends with the test.

use std::path::PathBuf;
use std::process::Command;

use crate::child::Served;
use crate::clients::find;
use crate::prometheus::free_address;

/// The server; who comes with the key is root.
pub struct SshServer {
    served: Served,
    /// Fingerprints of its host keys: Ed25519, RSA, ECDSA.
    pub fingerprints: Vec<String>,
}

impl SshServer {
    /// Starts it with more lines of configuration.
    ///
    /// # Panics
    /// When `ssh-keygen` or `sshd` fails.
    #[must_use]
    pub fn start(more: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("pipelock-e2e-").tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        // Where it looks for a place without rights; the package makes it when its service starts.
        std::fs::create_dir_all("/run/sshd").expect("mkdir");
        let mut fingerprints = Vec::new();
        for name in ["ed25519", "rsa", "ecdsa", "client"] {
            let kind = if name == "client" { "ed25519" } else { name };
            keygen(&["-q", "-t", kind, "-N", "", "-f", &file(name)]);
            let shown = keygen(&["-lf", &file(name)]);
            fingerprints.push(shown.split(' ').nth(1).expect("a fingerprint").to_owned());
        }
        fingerprints.pop();
        let addr = free_address();
        let configuration = format!(
            "ListenAddress {addr}\nHostKey {}\nHostKey {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nLogLevel VERBOSE\n\
             SetEnv HOME={}\n{more}\n",
            file("ed25519"),
            file("rsa"),
            file("ecdsa"),
            file("client.pub"),
            // What the user's own shell says when it starts is none of the test's.
            folder.path().display(),
        );
        std::fs::write(file("sshd_config"), configuration).expect("write");
        let mut command = Command::new(find("sshd").expect("sshd"));
        command.args(["-D", "-f", &file("sshd_config"), "-E", &file("log")]);
        Self { served: Served::at(addr, &mut command, folder), fingerprints }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.served.port()
    }

    /// The private key that opens it.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        std::fs::read(self.folder().join("client")).expect("the key")
    }

    /// The public half of its host key.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn host_key(&self) -> String {
        std::fs::read_to_string(self.folder().join("ed25519.pub")).expect("the key")
    }

    /// What it has written down.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).expect("the log")
    }

    /// A folder for what it serves.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.served.folder().to_owned()
    }
}

fn keygen(arguments: &[&str]) -> String {
    let out = Command::new("ssh-keygen").args(arguments).output().expect("ssh-keygen");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
