//! What a next hop is told of who asks. Read from where the policy says by `app`. It promises that neither `Debug` nor an error
//! shows any of it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use pipelock_receipt::codec::base64;

use crate::policy::HopProtocol;

/// Longest line, in bytes.
const MOST: usize = 4096;
/// Longest name and longest password that SOCKS has room for (RFC 1929 §2).
const MOST_IN_SOCKS: usize = 255;

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The file cannot be read.
    #[error("upstream.credentials_file: {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The variable is not set.
    #[error("upstream.credentials_env: {0} is not set; set it where pipelock is started")]
    Unset(String),
    /// There is something else in it.
    #[error("{0} does not hold USER:PASSWORD on one line of at most {MOST} bytes, without control characters")]
    Malformed(String),
    /// It cannot be said in the next hop's protocol.
    #[error("upstream: SOCKS 5 takes names and passwords of 1 to {MOST_IN_SOCKS} bytes each")]
    NotForSocks,
}

/// Name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

impl Login {
    /// From a file.
    ///
    /// # Errors
    /// [`LoginError::File`], [`LoginError::Malformed`].
    pub fn of_file(path: &Path) -> Result<Self, LoginError> {
        let shown = path.display().to_string();
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MOST as u64 + 3).read_to_string(&mut text));
        read.map_err(|source| LoginError::File { path: shown.clone(), source })?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        Self::parse(line.strip_suffix('\r').unwrap_or(line)).ok_or(LoginError::Malformed(shown))
    }

    /// From a variable of our environment.
    ///
    /// # Errors
    /// [`LoginError::Unset`], [`LoginError::Malformed`].
    pub fn of_variable(name: &str) -> Result<Self, LoginError> {
        let value = std::env::var_os(name).ok_or_else(|| LoginError::Unset(name.to_owned()))?;
        let value = value.into_string().ok();
        value.and_then(|value| Self::parse(&value)).ok_or_else(|| LoginError::Malformed(name.to_owned()))
    }

    fn parse(line: &str) -> Option<Self> {
        let (user, password) = line.split_once(':')?;
        let is_whole = (2..=MOST).contains(&line.len()) && !line.chars().any(char::is_control);
        is_whole.then(|| Self { user: user.to_owned(), password: password.to_owned() })
    }

    /// The same, if a next hop can be told of it in this protocol.
    ///
    /// # Errors
    /// [`LoginError::NotForSocks`].
    pub fn fit_for(self, protocol: HopProtocol) -> Result<Self, LoginError> {
        let fits = |text: &str| (1..=MOST_IN_SOCKS).contains(&text.len());
        match protocol {
            HopProtocol::Socks5 if !(fits(&self.user) && fits(&self.password)) => Err(LoginError::NotForSocks),
            HopProtocol::Http | HopProtocol::Https | HopProtocol::Socks5 => Ok(self),
        }
    }

    /// The part that is secret, for whoever keeps it from going elsewhere: keys of an API stand before an empty password.
    #[must_use]
    pub fn secret(&self) -> &str {
        if self.password.is_empty() { &self.user } else { &self.password }
    }

    /// As HTTP has it (RFC 7617 §2).
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", base64(format!("{}:{}", self.user, self.password).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_one_line_and_is_not_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("login");
        let of = |text: &[u8]| {
            std::fs::write(&file, text).expect("write");
            Login::of_file(&file)
        };
        let login = of(b"me:pass:word\r\n").expect("a login");
        assert_eq!((login.user.as_str(), login.password.as_str()), ("me", "pass:word"));
        assert_eq!(login.basic(), "Basic bWU6cGFzczp3b3Jk");
        assert_eq!(format!("{login:?}"), "Login(…)");
        // Whoever has the key of an API alone leaves one of the two empty.
        for (text, secret, basic) in [("key:", "key", "Basic a2V5Og=="), (":key", "key", "Basic OmtleQ==")] {
            let login = of(text.as_bytes()).expect(text);
            assert_eq!((login.secret(), login.basic().as_str()), (secret, basic));
            assert!(login.clone().fit_for(HopProtocol::Https).is_ok());
            assert!(matches!(login.fit_for(HopProtocol::Socks5), Err(LoginError::NotForSocks)));
        }
        let long = of(format!("me:{}\r\n", "x".repeat(MOST - 3)).as_bytes()).expect("a token");
        assert!(long.clone().fit_for(HopProtocol::Http).is_ok() && long.fit_for(HopProtocol::Socks5).is_err());
        assert!(login.clone().fit_for(HopProtocol::Socks5).is_ok());
        let longer = format!("me:{}", "x".repeat(MOST - 2));
        for wrong in [&b""[..], b"me", b":", b"me:x\ny:z\n", b"me:x\0", longer.as_bytes(), b"me:\xff"] {
            let error = of(wrong).expect_err("no login").to_string();
            assert!(!error.contains("me:"), "{error}");
        }
        assert!(matches!(Login::of_file(folder.path()), Err(LoginError::File { .. })));
        assert!(matches!(Login::of_variable("PIPELOCK_NOT_SET"), Err(LoginError::Unset(_))));
    }
}
