//! What HTTP/2 lets through that HTTP/1.1 must not be made of.
//!
//! Called by `http::http2` for every request. hyper has checked the frames, pseudo-headers, and body length of it (RFC 9113
//! §8.1 to §8.3); this promises the same limits and refusals as `head` has, so that a destination which speaks HTTP/1.1 is
//! sent nothing over HTTP/2 that it would not be sent over HTTP/1.1.

use http::{HeaderName, Method, Request, header};

use super::Refusal;
use super::fields::is_decoy;
use super::head::MAX_FIELDS;
use crate::proxy::detect::MAX_METHOD;

/// Headers that belong to one connection, which HTTP/2 does not have (RFC 9113 §8.2.2).
const OF_HTTP1: [HeaderName; 3] = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];

/// Checks the head of a request.
///
/// # Errors
/// [`Refusal`].
pub(in crate::proxy::http) fn sound<B>(request: &Request<B>, max_head: usize) -> Result<(), Refusal> {
    let malformed = |detail| Err(Refusal::malformed(detail));
    if request.method().as_str().len() > MAX_METHOD {
        return malformed("the method is longer than any there is");
    }
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    // Anything else would be taken for a host or a whole URL where it stands in a request line.
    let is_path = path.starts_with('/') || path == "*" && *request.method() == Method::OPTIONS;
    if !is_path && *request.method() != Method::CONNECT {
        return malformed("the path does not begin with a slash");
    }
    let headers = request.headers();
    // HTTP/2 may cut Cookie into as many lines as it has cookies; they are one again on their way out.
    let cookies = headers.get_all(header::COOKIE).iter().count();
    if headers.len().saturating_sub(cookies) > MAX_FIELDS {
        return Err(Refusal::too_large("the request has more than 100 header lines"));
    }
    if path.len() > max_head {
        return Err(Refusal::path_too_long("the path is longer than limits.header_bytes allows"));
    }
    if length(request) > max_head {
        return Err(Refusal::too_large("the request head is longer than limits.header_bytes allows"));
    }
    if headers.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return malformed("more than one Content-Length");
    }
    if OF_HTTP1.iter().any(|name| headers.contains_key(name)) {
        return malformed("a header of HTTP/1.1 that frames or routes");
    }
    if headers.keys().any(is_decoy) {
        return malformed("a header name is written almost like one that decides framing");
    }
    Ok(())
}

/// Bytes of the head, were it written as HTTP/1.1 writes it.
fn length<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let authority = uri.authority().map_or(0, |authority| "host: \r\n".len() + authority.as_str().len());
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let line = request.method().as_str().len() + path + "  HTTP/1.1\r\n".len();
    let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + authority + lines.sum::<usize>() + "\r\n".len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Reason;
    use http::uri::{Parts, PathAndQuery};
    use http::{HeaderValue, Uri};

    const MAX: usize = 65_536;

    fn request(method: &str, path: &'static str, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut parts = Parts::default();
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        let mut request = Request::builder().method(method).body(()).expect("a request");
        *request.uri_mut() = Uri::from_parts(parts).expect("a path");
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn what_clients_send_is_sound() {
        for (method, path) in [("GET", "/"), ("POST", "/a?b"), ("OPTIONS", "*"), ("GET", "//x")] {
            assert_eq!(
                sound(&request(method, path, &[("content-length", "0"), ("te", "trailers")]), MAX),
                Ok(()),
                "{path}"
            );
        }
        let crumbs = [("cookie", "a=1"); 150];
        assert_eq!(sound(&request("GET", "/", &crumbs), MAX), Ok(()));
    }

    #[test]
    fn what_http1_would_read_otherwise_is_refused() {
        let reason = |request| sound(&request, MAX).expect_err("refused").reason;
        assert_eq!(reason(request("GET", "*", &[])), Reason::RequestMalformed);
        let no_path = Request::get(Uri::from_static("a.example")).body(()).expect("a request");
        assert_eq!(reason(no_path), Reason::RequestMalformed);
        assert_eq!(reason(request(&"A".repeat(MAX_METHOD + 1), "/", &[])), Reason::RequestMalformed);
        for headers in [
            &[("content-length", "1"), ("content-length", "1")][..],
            &[("content_length", "1")],
            &[("transfer_encoding", "chunked")],
            &[("transfer-encoding", "chunked")],
            &[("connection", "x")],
            &[("upgrade", "websocket")],
        ] {
            assert_eq!(reason(request("POST", "/", headers)), Reason::RequestMalformed, "{headers:?}");
        }
        assert_eq!(reason(request("GET", "/", &[("a", "b"); 101])), Reason::LimitExceeded);
    }

    #[test]
    fn a_head_is_as_long_as_over_http1() {
        let head = "GET /a?b HTTP/1.1\r\nx: yz\r\n\r\n".len();
        let request = || request("GET", "/a?b", &[("x", "yz")]);
        assert_eq!(sound(&request(), head), Ok(()));
        let status = |max: usize| {
            let refused = sound(&request(), max).expect_err("refused");
            (refused.reason, refused.status.as_u16())
        };
        assert_eq!(status(head - 1), (Reason::LimitExceeded, 431));
        assert_eq!(status("/a?b".len() - 1), (Reason::LimitExceeded, 414));
    }
}
