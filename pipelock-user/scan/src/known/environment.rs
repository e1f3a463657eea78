//! Which variables of an environment and which lines of a file hold secrets.
//!
//! Called when a policy is loaded and when an agent starts. Names and values are both looked at: `PATH` is never a
//! secret, `…_TOKEN` nearly always, anything else when its value looks random.

use super::{Builder, Refused, Source};

/// Names, or beginnings of names that end in `*`, whose values are never secret.
const BENIGN: [&str; 64] = [
    "PATH",
    "HOME",
    "PWD",
    "OLDPWD",
    "SHELL",
    "TERM",
    "TERM_*",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "USER",
    "USERNAME",
    "LOGNAME",
    "HOSTNAME",
    "HOST",
    "LS_COLORS",
    "LSCOLORS",
    "XDG_*",
    "DISPLAY",
    "WAYLAND_*",
    "DBUS_*",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "EDITOR",
    "VISUAL",
    "PAGER",
    "LESS*",
    "PS1",
    "PS2",
    "MAIL",
    "MANPATH",
    "INFOPATH",
    "PYTHON*",
    "VIRTUAL_ENV*",
    "CONDA_*",
    "GOPATH",
    "GOROOT",
    "GOFLAGS",
    "CARGO*",
    "RUST*",
    "JAVA_HOME",
    "NODE_*",
    "NVM_*",
    "npm_package_*",
    "npm_config_*",
    "npm_lifecycle_*",
    "SYSTEMD_*",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "WINDOWID",
    "COLORTERM",
    "TZ",
    "TMPDIR",
    "TEMP",
    "TMP",
    "HOSTTYPE",
    "GITHUB_SHA",
    "GITHUB_REF*",
    "CI_COMMIT_*",
    "GIT_COMMIT*",
    "BUILD_*",
];

/// Parts of names that say the value is a secret.
const TELLING: [&str; 18] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "API_KEY",
    "APIKEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "AUTH_KEY",
    "ENCRYPTION_KEY",
    "SIGNING_KEY",
    "CREDENTIAL",
    "_PAT",
    "_PWD",
    "_DSN",
    "CONNECTION_STRING",
    "WEBHOOK",
];

/// Longest line, and most lines, of a file that are read.
const LONGEST_LINE: usize = 4096;
const MOST_LINES: usize = 1000;

fn benign(name: &str) -> bool {
    BENIGN.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *known,
    })
}

fn telling(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    TELLING.iter().any(|part| name.contains(part)) || name.ends_with("_KEY") || name.ends_with("_PASS")
}

/// Values of variables that look random but are not secret: paths, URLs without a password, lists of words, versions.
pub(super) fn ordinary(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let path = text.starts_with(['/', '~', '.']) || text.get(1..3) == Some(":\\");
    let url = text.contains("://") && password_of(text).is_none();
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    // A secret has a piece of some length with letters and digits in it; prose, options and versions have none.
    let random = words.into_iter().any(|word| {
        word.len() >= 12
            && word.bytes().any(|byte| byte.is_ascii_digit())
            && word.bytes().any(|byte| byte.is_ascii_alphabetic())
    });
    path || url || !random
}

/// The password in a URL, when there is one.
fn password_of(text: &str) -> Option<&str> {
    let rest = text.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let user = authority.rsplit_once('@')?.0;
    user.split_once(':').map(|(_, password)| password).filter(|password| !password.is_empty())
}

/// Adds the secrets of an environment. Returns the names whose value is a secret by name, but is not searched for.
pub fn from_environment<'a>(
    builder: &mut Builder,
    variables: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Vec<(String, Refused)> {
    let mut refused = Vec::new();
    for (name, value) in variables {
        if benign(name) {
            continue;
        }
        let source = if telling(name) { Source::Secret } else { Source::Variable };
        if let Some(password) = std::str::from_utf8(value).ok().and_then(password_of) {
            // The URL as a whole is found by its password, the password alone would not be by the URL.
            if let Err(reason) = builder.add(name, password.as_bytes(), Source::Secret) {
                refused.push((name.to_owned(), reason));
            }
        } else if let Err(reason) = builder.add(name, value, source)
            && (source == Source::Secret || reason == Refused::TooMany)
        {
            refused.push((name.to_owned(), reason));
        }
    }
    refused
}

/// Adds the secrets of a file: `name=value`, `name: value` or a value a line, `#` before comments. Findings tell the
/// file's name and the line. Returns the lines that are not searched for, counted from 1.
pub fn from_file(builder: &mut Builder, file: &str, text: &[u8]) -> Vec<(usize, Refused)> {
    let mut refused = Vec::new();
    for (at, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line[..line.len().min(LONGEST_LINE)].trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let line = line.strip_prefix(b"export ").unwrap_or(line);
        let named =
            line.iter().position(|byte| !byte.is_ascii_alphanumeric() && !b"_.-".contains(byte)).filter(|&end| {
                end > 0
                    && (line[end] == b'=' || (line[end] == b':' && line.get(end + 1) == Some(&b' ')))
                    && line.len() > end + 2
            });
        // `=` may also end a value in Base64: then nothing but more of them follows.
        let value =
            named.map(|end| &line[end + 1..]).filter(|value| value.iter().any(|&byte| byte != b'=')).unwrap_or(line);
        let value = value.trim_ascii();
        let quoted = |mark: u8| value.strip_prefix(&[mark]).and_then(|value| value.strip_suffix(&[mark]));
        let value = quoted(b'"').or_else(|| quoted(b'\'')).unwrap_or(value);
        let reason = if at >= MOST_LINES {
            Err(Refused::TooMany)
        } else {
            builder.add(&format!("{file}:{}", at + 1), value, Source::Secret)
        };
        if let Err(reason) = reason {
            refused.push((at + 1, reason));
            if at >= MOST_LINES {
                break;
            }
        }
    }
    refused
}
