//! The clients that `doctor` tries: how each is made to ask for a URL once, and what to do when it does not.

use std::path::{Path, PathBuf};

/// Where a client is to go.
pub(super) struct Goal<'a> {
    /// `https://host:port/KEY`.
    pub(super) url: String,
    /// `host:port`.
    pub(super) authority: &'a str,
    /// A folder of its own that it may write to.
    pub(super) folder: &'a Path,
}

/// A client.
pub(super) struct Client {
    /// Its name, and the first segment of the path it asks for.
    pub(super) key: &'static str,
    /// What has to be installed; the first is shown.
    pub(super) programs: &'static [&'static str],
    /// The words of its command line.
    pub(super) command: fn(&Goal<'_>) -> Vec<String>,
    /// When it does not trust us.
    pub(super) advice: &'static str,
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A script for a shell; `$1` is the URL, `$2` the authority, `$3` the folder.
fn shell(script: &str, goal: &Goal<'_>) -> Vec<String> {
    words(&["sh", "-c", script, "sh", &goal.url, goal.authority, &goal.folder.display().to_string()])
}

const PYTHON_PIP: &str = "exec python3 -m pip download --no-deps --no-cache-dir --disable-pip-version-check --retries 0 -d \"$3\" \
                          --index-url \"$1/simple\" pipelock-doctor";
const REQUESTS: &str = "import sys\ntry: import requests\nexcept ImportError: sys.exit(77)\nrequests.get(sys.argv[1])";
const OPENSSL: &str = "printf 'GET /openssl HTTP/1.1\\r\\nHost: %s\\r\\nConnection: close\\r\\n\\r\\n' \"$2\" | openssl s_client -quiet \
                       -verify_return_error -servername \"${2%:*}\" -connect \"$2\" -ign_eof";
const GO: &str = "cd \"$3\" && export GOPATH=\"$3/go\" GOCACHE=\"$3/cache\" GOPROXY=\"$1\" GOSUMDB=off GOFLAGS=-mod=mod GOTOOLCHAIN=local && \
                  exec go list -m pipelock.test/doctor@v1.0.0";
const CARGO: &str = "cd \"$3\" && export RUSTUP_HOME=\"${RUSTUP_HOME:-}\" CARGO_HOME=\"$3/cargo\" CARGO_NET_RETRY=0; \
                     [ -n \"$RUSTUP_HOME\" ] || unset RUSTUP_HOME; exec cargo search --index \"sparse+$1/\" pipelock-doctor";
const JAVA: &str = "cd \"$3\" && cat > Doctor.java <<'END'\n\
public class Doctor {\n  public static void main(String[] a) throws Exception {\n    \
new java.net.URL(a[0]).openStream().readAllBytes();\n  }\n}\nEND\nexec java -XX:TieredStopAtLevel=1 Doctor.java \"$1\"";
const CHROMIUM: &str = "for c in chromium chromium-browser google-chrome; do command -v \"$c\" >/dev/null && \
                        exec \"$c\" --headless --no-sandbox --disable-gpu --user-data-dir=\"$3/chromium\" --dump-dom \"$1\"; done";

/// All that are known.
pub(super) const CLIENTS: [Client; 15] = [
    Client {
        key: "curl",
        programs: &["curl"],
        command: |goal| words(&["curl", "-sS", "-o", "/dev/null", &goal.url]),
        advice: "look for cacert or capath in a .curlrc; a curl that brings its own roots heeds CURL_CA_BUNDLE only",
    },
    Client {
        key: "wget",
        programs: &["wget"],
        command: |goal| words(&["wget", "-q", "-t", "1", "-O", "/dev/null", &goal.url]),
        advice: "look for ca_certificate in a wgetrc; it reads the system's bundle, which pipelock covers in the agent's mounts",
    },
    Client {
        key: "openssl",
        programs: &["openssl"],
        command: |goal| shell(OPENSSL, goal),
        advice: "it heeds SSL_CERT_FILE: look whether something unsets it",
    },
    Client {
        key: "git",
        programs: &["git"],
        command: |goal| words(&["git", "ls-remote", &goal.url]),
        advice: "look for http.sslCAInfo in a gitconfig (git config --show-origin --get-all http.sslCAInfo)",
    },
    Client {
        key: "python",
        programs: &["python3"],
        command: |goal| {
            words(&["python3", "-c", "import sys, urllib.request as u; u.urlopen(sys.argv[1]).read()", &goal.url])
        },
        advice: "it heeds SSL_CERT_FILE: look whether something unsets it",
    },
    Client {
        key: "requests",
        programs: &["python3"],
        command: |goal| words(&["python3", "-c", REQUESTS, &goal.url]),
        advice: "it heeds REQUESTS_CA_BUNDLE unless the program sets Session.verify or trust_env = False",
    },
    Client {
        key: "pip",
        programs: &["python3", "pip"],
        command: |goal| shell(PYTHON_PIP, goal),
        advice: "look for cert in pip.conf (pip config list); PIP_CERT comes before it",
    },
    Client {
        key: "node",
        programs: &["node"],
        command: |goal| words(&["node", "-e", "fetch(process.argv[1]).then(r => r.text())", &goal.url]),
        advice: "it heeds NODE_EXTRA_CA_CERTS, but not in a process that has set it itself after the start",
    },
    Client {
        key: "npm",
        programs: &["npm"],
        command: |goal| {
            let cache = goal.folder.join("npm").display().to_string();
            let registry = format!("{}/", goal.url);
            words(&[
                "npm",
                "view",
                "pipelock-doctor",
                "--registry",
                &registry,
                "--fetch-retries",
                "0",
                "--cache",
                &cache,
            ])
        },
        advice: "look for ca in an npmrc (npm config get ca): it replaces all roots",
    },
    Client {
        key: "go",
        programs: &["go"],
        command: |goal| shell(GO, goal),
        advice: "it heeds SSL_CERT_FILE; a program with roots of its own has to be told by its own option",
    },
    Client {
        key: "java",
        programs: &["java"],
        command: |goal| shell(JAVA, goal),
        advice: "look whether something unsets JAVA_TOOL_OPTIONS, or names a trustStore of its own; \
                 keytool -importcert puts the output of `pipelock ca` into that one",
    },
    Client {
        key: "cargo",
        programs: &["cargo"],
        command: |goal| shell(CARGO, goal),
        advice: "look for http.cainfo in a .cargo/config.toml",
    },
    Client {
        key: "ruby",
        programs: &["ruby"],
        command: |goal| words(&["ruby", "-ropen-uri", "-e", "URI.open(ARGV[0]).read", &goal.url]),
        advice: "it heeds SSL_CERT_FILE: look whether something unsets it",
    },
    Client {
        key: "php",
        programs: &["php"],
        command: |goal| words(&["php", "-r", "exit(file_get_contents($argv[1]) === false ? 1 : 0);", &goal.url]),
        advice: "look for openssl.cafile or curl.cainfo in php.ini: they come before SSL_CERT_FILE",
    },
    Client {
        key: "chromium",
        programs: &["chromium", "chromium-browser", "google-chrome"],
        command: |goal| shell(CHROMIUM, goal),
        advice: "one that is installed elsewhere than by the system's packages reads no policy of /etc/chromium or /etc/opt/chrome; \
                 put the output of `pipelock ca` into FILE and say mkdir -p $HOME/.pki/nssdb; certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n pipelock -i FILE",
    },
];

impl Client {
    /// Where it is installed: its first program that is, of those with other names for it; for `pip`, both.
    pub(super) fn installed(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH")?;
        let find =
            |program: &str| std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
        if self.key == "pip" {
            return self.programs.iter().map(|program| find(program)).collect::<Option<Vec<_>>>()?.pop();
        }
        self.programs.iter().find_map(|program| find(program))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_asks_for_its_own_path() {
        for client in &CLIENTS {
            let url = format!("https://doctor.test:1/{}", client.key);
            let goal = Goal { url: url.clone(), authority: "doctor.test:1", folder: Path::new("/f") };
            let command = (client.command)(&goal);
            assert!(command.iter().any(|word| word.starts_with(&url)), "{command:?}");
            assert!(!client.advice.is_empty() && !client.advice.contains("  "), "{}", client.advice);
        }
        let mut keys: Vec<_> = CLIENTS.iter().map(|client| client.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), CLIENTS.len());
    }
}
