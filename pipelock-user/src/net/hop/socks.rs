//! SOCKS 5 (RFC 1928) with name and password (RFC 1929), the client's side.
//!
//! It promises that no more is read than the replies, and of these no more than they may be long.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::login::Login;
use super::{HopError, Wanted};
use crate::flow::Host;

const VERSION: u8 = 5;
/// Of the talk about name and password.
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const BY_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks for a connection; the stream is it then.
pub(super) async fn ask<S>(stream: &mut S, wanted: &Wanted, login: Option<&Login>) -> Result<(), HopError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let greeting: &[u8] = if login.is_some() { &[VERSION, 2, NO_LOGIN, BY_PASSWORD] } else { &[VERSION, 1, NO_LOGIN] };
    send(stream, greeting).await?;
    let [version, method] = receive(stream).await?;
    check(version == VERSION, "its version is not 5")?;
    match (method, login) {
        (NO_LOGIN, _) => {}
        (BY_PASSWORD, Some(login)) => log_in(stream, login).await?,
        (NO_METHOD, Some(_)) => return Err(HopError::Login("that it takes no name and password".into())),
        (NO_METHOD, None) => {
            let advice = "that it wants credentials; name them (upstream.credentials_file)";
            return Err(HopError::Login(advice.into()));
        }
        _ => return Err(malformed("it chose a way to log in that nobody offered")),
    }
    send(stream, &request(wanted)).await?;
    let [version, reply, _, kind] = receive(stream).await?;
    check(version == VERSION, "its version is not 5")?;
    if reply != 0 {
        return Err(HopError::Refused(format!("{reply}, {}", meaning(reply))));
    }
    // The address that it connects from, which says nothing to us.
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(receive::<_, 1>(stream).await?[0]),
        _ => return Err(malformed("it names an address of an unknown kind")),
    };
    let mut rest = [0; 255 + 2];
    let rest = rest.get_mut(..length + 2).unwrap_or_default();
    stream.read_exact(rest).await.map(drop).map_err(HopError::Broken)
}

async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, login: &Login) -> Result<(), HopError> {
    let mut words = vec![LOGIN_VERSION];
    for text in [&login.user, &login.password] {
        // Neither is longer: the login would not be fit for this.
        words.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        words.extend_from_slice(text.as_bytes());
    }
    send(stream, &words).await?;
    // The version is wrong in some of them (RFC 1929 has one of its own), and says nothing.
    let [_, status] = receive(stream).await?;
    if status == 0 { Ok(()) } else { Err(HopError::Login("that the credentials are wrong".into())) }
}

fn request(wanted: &Wanted) -> Vec<u8> {
    let mut words = vec![VERSION, CONNECT, 0];
    match &wanted.host {
        Host::Addr(IpAddr::V4(addr)) => {
            words.push(IPV4);
            words.extend_from_slice(&addr.octets());
        }
        Host::Addr(IpAddr::V6(addr)) => {
            words.push(IPV6);
            words.extend_from_slice(&addr.octets());
        }
        Host::Name(name) => {
            // A name has 253 bytes at most.
            words.extend_from_slice(&[NAME, u8::try_from(name.len()).unwrap_or(u8::MAX)]);
            words.extend_from_slice(name.as_bytes());
        }
    }
    words.extend_from_slice(&wanted.port.to_be_bytes());
    words
}

/// What a reply means (RFC 1928 §6).
fn meaning(reply: u8) -> &'static str {
    match reply {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "it took too long",
        7 => "CONNECT is not supported",
        8 => "the kind of address is not supported",
        _ => "which has no meaning",
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, words: &[u8]) -> Result<(), HopError> {
    let sent: io::Result<()> = async {
        stream.write_all(words).await?;
        stream.flush().await
    }
    .await;
    sent.map_err(HopError::Broken)
}

async fn receive<S: AsyncRead + Unpin, const N: usize>(stream: &mut S) -> Result<[u8; N], HopError> {
    let mut words = [0; N];
    stream.read_exact(&mut words).await.map_err(HopError::Broken)?;
    Ok(words)
}

fn malformed(what: &'static str) -> HopError {
    HopError::Malformed { expected: "SOCKS 5", what }
}

fn check(is_sound: bool, what: &'static str) -> Result<(), HopError> {
    if is_sound { Ok(()) } else { Err(malformed(what)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(host: &str) -> Wanted {
        Wanted { host: Host::parse(host).expect(host), port: 443 }
    }

    fn login() -> Login {
        Login { user: "me".into(), password: "secret".into() }
    }

    /// What becomes of what it says, all of it at once: what is left behind it, and what was asked.
    fn talked(host: &str, login: Option<&Login>, says: &[u8]) -> (Result<Vec<u8>, HopError>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (mut near, mut far) = tokio::io::duplex(4096);
            far.write_all(says).await.expect("room");
            far.shutdown().await.expect("shut down");
            let asked = ask(&mut near, &wanted(host), login).await;
            let mut left = Vec::new();
            near.read_to_end(&mut left).await.expect("read");
            drop(near);
            let mut request = Vec::new();
            far.read_to_end(&mut request).await.expect("read");
            (asked.map(|()| left), request)
        })
    }

    const YES: &[u8] = &[5, 0, 0, 1, 127, 0, 0, 1, 4, 56];

    #[test]
    fn names_and_addresses_are_asked_for() {
        let (left, asked) = talked("a.test", None, &[&[5, 0], YES, b"hello"].concat());
        assert_eq!(left.expect("connected"), b"hello");
        assert_eq!(asked, [&[5, 1, 0][..], &[5, 1, 0, 3, 6], b"a.test", &[1, 187]].concat());
        let (left, asked) = talked("192.0.2.7", None, &[&[5, 0], YES].concat());
        assert!(left.is_ok() && asked.ends_with(&[5, 1, 0, 1, 192, 0, 2, 7, 1, 187]), "{asked:?}");
        let v6 = &[&[5, 0][..], &[5, 0, 0, 4], &[0; 18], b"x"].concat();
        let (left, asked) = talked("[2001:db8::7]", None, v6);
        assert_eq!((left.expect("connected").as_slice(), asked.len()), (&b"x"[..], 3 + 4 + 18));
        let named = &[&[5, 0][..], &[5, 0, 0, 3, 2, b'h', b'i', 0, 80], b"y"].concat();
        assert_eq!(talked("a.test", None, named).0.expect("connected"), b"y");
    }

    #[test]
    fn credentials_go_to_those_that_ask_for_them() {
        let (left, asked) = talked("a.test", Some(&login()), &[&[5, 2, 1, 0], YES].concat());
        assert!(left.is_ok());
        assert!(asked.starts_with(&[&[5, 2, 0, 2, 1, 2][..], b"me", &[6], b"secret"].concat()), "{asked:?}");
        let (left, asked) = talked("a.test", Some(&login()), &[&[5, 0], YES].concat());
        assert!(left.is_ok() && !asked.windows(6).any(|window| window == b"secret"));
    }

    #[test]
    fn what_it_said_is_told() {
        for (login, says, expected) in [
            (None, &[5, 0xff][..], "it said that it wants credentials"),
            (Some(login()), &[5, 0xff], "it said that it takes no name and password"),
            (Some(login()), &[5, 2, 1, 1], "it said that the credentials are wrong"),
            (None, &[5, 2], "nobody offered"),
            (None, &[4, 0], "version is not 5"),
            (None, &[5, 0, 5, 2, 0, 1], "it said 2, not allowed by its rules"),
            (None, &[5, 0, 5, 5, 0, 1], "it said 5, connection refused"),
            (None, &[5, 0, 5, 99, 0, 1], "it said 99"),
            (None, &[5, 0, 5, 0, 0, 9], "unknown kind"),
            (None, b"HTTP/1.1 400 x", "version is not 5"),
            (None, &[5, 0, 5, 0, 0, 1, 1, 2], "it broke off"),
            (None, &[], "it broke off"),
        ] {
            let error = talked("a.test", login.as_ref(), says).0.expect_err(expected).to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{expected}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_replies_come_to_something_and_what_is_behind_them_is_left(
            noise in prop::collection::vec(any::<u8>(), 0..300),
            name in prop::collection::vec(any::<u8>(), 0..256),
            behind in prop::collection::vec(any::<u8>(), 0..50),
            has_login: bool,
        ) {
            let login = has_login.then(login);
            let _ = talked("a.test", login.as_ref(), &noise);
            let _ = talked("a.test", login.as_ref(), &[&[5, 0], &noise[..]].concat());
            let length = u8::try_from(name.len()).expect("short");
            let says = [&[5, 0, 5, 0, 0, 3, length][..], &name, &[0, 80], &behind].concat();
            prop_assert_eq!(talked("a.test", login.as_ref(), &says).0.expect("connected"), behind);
        }
    }
}
