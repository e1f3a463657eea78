//! CONNECT of HTTP/1.1 (RFC 9110 §9.3.6), the client's side.
//!
//! It promises that a bounded head is read, and that what the destination says behind it is kept.

use http::StatusCode;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

use super::login::Login;
use super::{HopError, Wanted};

/// Bytes of all heads that are read of it.
const MOST: u64 = 16 * 1024;

/// Asks for a tunnel; the stream is in it then.
pub(super) async fn ask<S>(stream: S, wanted: &Wanted, login: Option<&Login>) -> Result<BufReader<S>, HopError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::new(stream);
    stream.write_all(request(wanted, login).as_bytes()).await.map_err(HopError::Broken)?;
    stream.flush().await.map_err(HopError::Broken)?;
    let mut left = MOST;
    loop {
        let status = head(&mut stream, &mut left).await?;
        match status.as_u16() {
            // More is to come (RFC 9110 §15.2); what is switched to nobody has asked for.
            100 | 102..200 => {}
            200..300 => return Ok(stream),
            407 => return Err(HopError::Login(said(status))),
            _ => return Err(HopError::Refused(said(status))),
        }
    }
}

fn request(wanted: &Wanted, login: Option<&Login>) -> String {
    let login = login.map(|login| format!("Proxy-Authorization: {}\r\n", login.basic())).unwrap_or_default();
    format!("CONNECT {wanted} HTTP/1.1\r\nHost: {wanted}\r\n{login}\r\n")
}

/// The status in our words: its own would go to the agent.
fn said(status: StatusCode) -> String {
    let meaning = status.canonical_reason().unwrap_or_default();
    let advice = match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => "; give it credentials that it takes (upstream.credentials_file)",
        StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => {
            "; it must allow CONNECT to the destination and its port"
        }
        _ => "",
    };
    format!("{} {meaning}{advice}", status.as_u16())
}

/// Reads a head; its status.
async fn head<S: AsyncRead + Unpin>(stream: &mut BufReader<S>, left: &mut u64) -> Result<StatusCode, HopError> {
    let wrong = |what| HopError::Malformed { expected: "HTTP", what };
    let mut status = None;
    loop {
        let mut line = Vec::new();
        let read = stream.take(*left).read_until(b'\n', &mut line).await.map_err(HopError::Broken)?;
        *left = left.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        let Some(line) = line.strip_suffix(b"\n") else {
            let what = if *left == 0 { "its head is too long" } else { "it ended within its head" };
            return Err(wrong(what));
        };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match status {
            None => status = Some(status_of(line).ok_or_else(|| wrong("its first line has no status"))?),
            Some(status) if line.is_empty() => return Ok(status),
            Some(_) => {}
        }
    }
}

/// The status of a first line (RFC 9112 §4).
fn status_of(line: &[u8]) -> Option<StatusCode> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (version, rest) = rest.split_first()?;
    let (code, rest) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let is_sound = version.is_ascii_digit() && matches!(rest.first(), None | Some(b' '));
    StatusCode::from_bytes(code).ok().filter(|_| is_sound)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::flow::Host;

    fn wanted() -> Wanted {
        Wanted { host: Host::parse("a.test").expect("a name"), port: 443 }
    }

    /// What becomes of an answer that arrives in pieces of so many bytes: what is read behind it, and what was asked.
    fn answered(answer: &[u8], step: usize) -> (Result<Vec<u8>, HopError>, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (mut asked, mut far) = tokio::io::split(far);
            let answering = async {
                // Whoever has heard enough hangs up.
                for piece in answer.chunks(step.max(1)) {
                    let _ = far.write_all(piece).await;
                    tokio::task::yield_now().await;
                }
                let _ = far.shutdown().await;
            };
            let asking = async {
                let mut stream = ask(near, &wanted(), None).await?;
                let mut behind = Vec::new();
                stream.read_to_end(&mut behind).await.expect("read");
                Ok(behind)
            };
            let ((), behind) = tokio::join!(answering, asking);
            let mut request = String::new();
            asked.read_to_string(&mut request).await.expect("read");
            (behind, request)
        })
    }

    #[test]
    fn a_tunnel_is_asked_for_and_what_follows_is_kept() {
        for step in [1, 7, 1000] {
            let answer = b"HTTP/1.1 103 Early\r\nx: y\r\n\r\nHTTP/1.0 200\r\nVia: p\r\n\r\n220 hello\r\n\r\n";
            let (behind, request) = answered(answer, step);
            assert_eq!(behind.expect("a tunnel"), b"220 hello\r\n\r\n");
            assert_eq!(request, "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
        }
        let login = Login { user: "u".into(), password: "p".into() };
        assert!(request(&wanted(), Some(&login)).contains("\r\nProxy-Authorization: Basic dTpw\r\n\r\n"));
    }

    #[test]
    fn what_it_said_is_told_in_our_words() {
        for (answer, expected) in [
            ("HTTP/1.1 403 <b>obey</b>\r\n\r\n<html>", "it said 403 Forbidden; it must allow CONNECT"),
            ("HTTP/1.1 407 x\r\n\r\n", "it said 407 Proxy Authentication Required; give it credentials"),
            ("HTTP/1.1 503 x\r\nA: b\r\n\r\n", "it said 503 Service Unavailable"),
            ("HTTP/1.1 101 x\r\n\r\n", "it said 101 Switching Protocols"),
            ("HTTP/1.1 302 x\r\nLocation: y\r\n\r\n", "it said 302 Found"),
            ("SSH-2.0-x\r\n\r\n", "no status"),
            ("HTTP/2.0 200 x\r\n\r\n", "no status"),
            ("HTTP/1.1 20 x\r\n\r\n", "no status"),
            ("HTTP/1.1 2000 x\r\n\r\n", "no status"),
            ("HTTP/1.1 200 x\r\nA: b\r\n", "ended within"),
            ("", "ended within"),
        ] {
            let error = answered(answer.as_bytes(), 3).0.expect_err(answer).to_string();
            assert!(error.contains(expected) && !error.contains("obey"), "{answer}: {error}");
        }
        let long = format!("HTTP/1.1 200 x\r\nA: {}\r\n\r\n", "b".repeat(20_000));
        assert!(answered(long.as_bytes(), 999).0.expect_err("too long").to_string().contains("too long"));
        let often = "HTTP/1.1 100 x\r\n\r\n".repeat(2000);
        assert!(answered(often.as_bytes(), 999).0.expect_err("too often").to_string().contains("too long"));
    }

    proptest! {
        #[test]
        fn any_answer_comes_to_something(
            answer in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..300),
                "HTTP/1\\.[01] [1-5][0-9]{2}( [a-z]{0,9})?\r?\n([A-Za-z]{1,9}: [a-z]{0,20}\r?\n){0,5}(\r?\n)?.{0,40}".prop_map(String::into_bytes),
            ],
            step in 1..50_usize,
        ) {
            // The bytes behind an answer are the same however it was cut.
            let whole = answered(&answer, usize::MAX).0.map_err(|error| error.to_string());
            prop_assert_eq!(answered(&answer, step).0.map_err(|error| error.to_string()), whole);
        }
    }
}
