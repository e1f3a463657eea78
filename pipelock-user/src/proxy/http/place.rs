//! Where a URL leads that a client or a destination wrote.
//!
//! Called by the doors (`fetch`, `api`, `socket`), for each redirect, and by `reverse`. It promises that a URL is read once, by
//! one parser, and that everything after works on what that read: nothing is decided on the text.

use http::Uri;
use url::{Position, Url};

use crate::flow::{Host, Reason, Verdict};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Place {
    /// `https`, not `http`.
    pub(in crate::proxy) is_tls: bool,
    /// The canonical host.
    pub(in crate::proxy) host: Host,
    /// The port.
    pub(in crate::proxy) port: u16,
    /// Path and query.
    pub(in crate::proxy) path: Uri,
}

/// Longest URL, in bytes.
const MOST_URL: usize = 8192;

/// The schemes of URLs that lead somewhere.
#[derive(Clone, Copy)]
pub(in crate::proxy) struct Schemes {
    plain: &'static str,
    secure: &'static str,
    /// What is said of others.
    others: &'static str,
}

/// Those of requests.
pub(in crate::proxy) const WEB: Schemes =
    Schemes { plain: "http", secure: "https", others: "only http and https are asked for" };
/// Those of WebSockets.
pub(in crate::proxy) const SOCKETS: Schemes =
    Schemes { plain: "ws", secure: "wss", others: "only ws and wss lead to WebSockets" };

/// The one URL of a query (`url=…` where `parameter` is `url=`; application/x-www-form-urlencoded).
///
/// # Errors
/// [`Reason::RequestMalformed`].
pub(in crate::proxy) fn url_of(parameter: &str, query: Option<&str>) -> Result<String, Verdict> {
    let mut found = None;
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        let Some(value) = part.strip_prefix(parameter) else {
            return Err(malformed("the query may hold the URL and nothing else; write & in it as %26"));
        };
        if found.replace(value).is_some() {
            return Err(malformed("the query names two URLs"));
        }
    }
    let url = found.ok_or_else(|| malformed("the query names no URL: write ?url= and the URL, percent-encoded"))?;
    decoded(url).ok_or_else(|| malformed("the URL in the query is not percent-encoded UTF-8"))
}

/// A URL that a client wrote, of these schemes.
///
/// # Errors
/// [`Reason::RequestMalformed`].
pub(in crate::proxy) fn read(url: &str, schemes: Schemes) -> Result<(Url, Place), Verdict> {
    if url.is_empty() {
        return Err(malformed("the URL is empty"));
    }
    if url.len() > MOST_URL {
        return Err(malformed(&format!("the URL is longer than {MOST_URL} bytes")));
    }
    // The parser would drop or turn these silently (WHATWG URL standard, §4.4).
    if url.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(malformed("the URL holds control characters, spaces or backslashes"));
    }
    let url = Url::parse(url).map_err(|error| malformed(&format!("the URL cannot be read: {error}")))?;
    let place = place(&url, schemes).map_err(malformed)?;
    Ok((url, place))
}

/// Where a redirect leads; [`Reason::UpstreamFailed`] when that cannot be read.
pub(in crate::proxy) fn redirected(from: &Url, location: &[u8]) -> Result<(Url, Place), Verdict> {
    let failed =
        |why: &str| Verdict::let_out(Reason::UpstreamFailed, format!("the redirect cannot be followed: {why}"));
    let location = std::str::from_utf8(location).map_err(|_| failed("it is no UTF-8"))?;
    let mut url = from.join(location).map_err(|_| failed("it is no URL"))?;
    url.set_fragment(None);
    if url.as_str().len() > MOST_URL {
        return Err(failed("it is too long"));
    }
    let place = place(&url, WEB).map_err(failed)?;
    Ok((url, place))
}

/// Where a URL leads.
fn place(url: &Url, schemes: Schemes) -> Result<Place, &'static str> {
    let is_tls = match url.scheme() {
        scheme if scheme == schemes.secure => true,
        scheme if scheme == schemes.plain => false,
        _ => return Err(schemes.others),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL holds credentials; send none in URLs");
    }
    let host = url.host_str().and_then(|host| Host::parse(host).ok()).ok_or("its host is none that DNS could have")?;
    let port = url.port_or_known_default().filter(|port| *port != 0).ok_or("its port is none")?;
    let path: Uri = url[Position::BeforePath..Position::AfterQuery].parse().map_err(|_| "its path cannot be sent")?;
    Ok(Place { is_tls, host, port, path })
}

/// `+` and `%XX` undone; none of what is no UTF-8 or no encoding.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (digits, more) = rest.split_first_chunk::<2>()?;
                let digit = |digit: u8| char::from(digit).to_digit(16);
                let [high, low] = digits.map(digit);
                bytes.push(u8::try_from(high? * 16 + low?).ok()?);
                rest = more;
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn malformed(detail: &str) -> Verdict {
    Verdict::block(Reason::RequestMalformed, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(query: &str) -> Result<String, String> {
        let read = url_of("url=", Some(query)).and_then(|url| read(&url, WEB));
        read.map(|(url, place)| format!("{url} {} {} {} {}", place.is_tls, place.host, place.port, place.path))
            .map_err(|verdict| verdict.detail)
    }

    #[test]
    fn one_url_is_read() {
        for (query, expected) in [
            (
                "url=http%3A%2F%2Fa.example%2Fx%3Fa%3D1%26b%3D2",
                "http://a.example/x?a=1&b=2 false a.example 80 /x?a=1&b=2",
            ),
            ("url=https://A.Example./", "https://a.example./ true a.example 443 /"),
            ("url=https://a.example:8443?x#part", "https://a.example:8443/?x#part true a.example 8443 /?x"),
            ("url=http://0x7f.1/", "http://127.0.0.1/ false 127.0.0.1 80 /"),
            ("url=http://[::ffff:10.0.0.1]/", "http://[::ffff:a00:1]/ false 10.0.0.1 80 /"),
            (
                "url=http://b%C3%BCcher.example/%C3%A9",
                "http://xn--bcher-kva.example/%C3%A9 false xn--bcher-kva.example 80 /%C3%A9",
            ),
        ] {
            assert_eq!(asked(query), Ok(expected.to_owned()), "{query}");
        }
    }

    #[test]
    fn bad_questions_are_told_what_is_bad() {
        let long = format!("url=http://a.example/{}", "x".repeat(MOST_URL));
        for (query, expected) in [
            ("", "no URL"),
            ("url=", "empty"),
            ("url=http://a.example/&url=http://b.example/", "two URLs"),
            ("url=http://a.example/?a=1&b=2", "%26"),
            ("url=ftp://a.example/", "only http"),
            ("url=file:///etc/passwd", "only http"),
            ("url=a.example", "cannot be read"),
            ("url=http://u:p@a.example/", "credentials"),
            ("url=http://u@a.example/", "credentials"),
            ("url=http://a.example%5C@b.example/", "backslashes"),
            ("url=http://a.exa%09mple/", "control"),
            ("url=http://a.example/%zz", "percent-encoded"),
            ("url=http://%ff/", "percent-encoded"),
            ("url=http://a.example:0/", "port"),
            ("url=http://-a.example/", "host"),
            (&long, "longer"),
        ] {
            let why = asked(query).expect_err(query);
            assert!(why.contains(expected), "{query}: {why}");
        }
    }

    #[test]
    fn sockets_have_schemes_of_their_own() {
        let read_socket = |url| read(url, SOCKETS).map(|(_, place)| place);
        let place = read_socket("wss://a.example/x?y").expect("a URL");
        assert_eq!((place.is_tls, place.port, place.path.to_string()), (true, 443, "/x?y".to_owned()));
        let place = read_socket("ws://a.example:8080").expect("a URL");
        assert_eq!((place.is_tls, place.port, place.path.to_string()), (false, 8080, "/".to_owned()));
        for url in ["https://a.example/", "ws://", "ws://u@a.example/"] {
            assert!(read_socket(url).is_err_and(|verdict| verdict.reason == Reason::RequestMalformed), "{url}");
        }
        assert!(asked("url=ws://a.example/").is_err());
    }

    #[test]
    fn redirects_are_joined() {
        let (from, _) = read("https://a.example/x/y?z", WEB).expect("a URL");
        let to = |location: &str| {
            redirected(&from, location.as_bytes()).map(|(url, _)| url.to_string()).map_err(|verdict| verdict.reason)
        };
        assert_eq!(to("../up#part"), Ok("https://a.example/up".into()));
        assert_eq!(to("//b.example"), Ok("https://b.example/".into()));
        assert_eq!(to("http://127.0.0.1/"), Ok("http://127.0.0.1/".into()));
        for location in ["ftp://b.example/", "javascript:alert(1)", "http://u@b.example/", "http://"] {
            assert_eq!(to(location), Err(Reason::UpstreamFailed), "{location}");
        }
    }

    proptest! {
        #[test]
        fn any_query_and_any_redirect_is_answered(text in "\\PC{0,60}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            for query in [format!("url={text}"), format!("url=http://{text}"), text.clone()] {
                if let Ok((_, place)) = url_of("url=", Some(&query)).and_then(|url| read(&url, WEB)) {
                    prop_assert!(place.port != 0 && place.path.path().starts_with('/'));
                }
            }
            let (from, _) = read("https://a.example/x", WEB).expect("a URL");
            if let Ok((url, place)) = redirected(&from, &bytes) {
                prop_assert!(url.as_str().len() <= MOST_URL && place.path.path().starts_with('/'));
            }
        }
    }
}
