//! The form in which a request goes to the destination: one name, no headers of the agent's connection, and what HTTP/1.1
//! and HTTP/2 spell differently.
//!
//! Called by `upstream` once it is known what the destination speaks; may be called again on a request that has not left.

use http::{HeaderValue, Request, Uri, Version, header, uri};

use super::authority::Authority;
use super::headers::{strip_hop, wants_trailers, without};
use super::upgrade::{WebSocket, say};
use super::upstream::Carrier;
use crate::flow::{Reason, Verdict};

/// What the destination speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Http1,
    Http2,
}

/// Puts a request into its form.
///
/// # Errors
/// [`Reason::RequestMalformed`] for what cannot be said in it.
pub(super) fn outgoing<B>(
    mut request: Request<B>,
    authority: &Authority,
    carrier: Carrier,
    form: Form,
) -> Result<Request<B>, Verdict> {
    let malformed = |what: &str| Verdict::block(Reason::RequestMalformed, format!("the {what} cannot be read"));
    let host = if authority.port == carrier.default_port() {
        authority.host.to_string()
    } else {
        format!("{}:{}", authority.host, authority.port)
    };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = if path.is_empty() { "/" } else { path }.to_owned();
    // Codings other than chunked are not undone here, so whoever reads the body has to be told of them. `framing` has
    // left one line at most.
    let codings = request.headers().get(header::TRANSFER_ENCODING).cloned();
    let wants_trailers = wants_trailers(request.headers());
    strip_hop(request.headers_mut());
    match form {
        Form::Http1 => {
            *request.uri_mut() = path.parse().map_err(|_| malformed("request target"))?;
            *request.version_mut() = Version::HTTP_11;
            if let Some(codings) = codings {
                request.headers_mut().insert(header::TRANSFER_ENCODING, codings);
            }
            let host = HeaderValue::try_from(host).map_err(|_| malformed("authority"))?;
            request.headers_mut().insert(header::HOST, host);
            join_cookies(&mut request);
            if request.extensions().get::<WebSocket>().is_some() {
                say(request.headers_mut());
            } else if wants_trailers {
                request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
            }
        }
        Form::Http2 => {
            let mut parts = uri::Parts::default();
            parts.scheme = Some(if carrier.is_tls { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
            parts.authority = Some(host.parse().map_err(|_| malformed("authority"))?);
            parts.path_and_query = Some(path.parse().map_err(|_| malformed("request target"))?);
            *request.uri_mut() = Uri::from_parts(parts).map_err(|_| malformed("request target"))?;
            *request.version_mut() = Version::HTTP_2;
            without(request.headers_mut(), |name| *name == header::HOST);
        }
    }
    if wants_trailers {
        // Of the hop, and true of ours too (RFC 9110 §10.1.4, RFC 9113 §8.2.2); gRPC insists on it.
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(request)
}

/// HTTP/2 may split Cookie over lines; HTTP/1.1 has one (RFC 9113 §8.2.3).
fn join_cookies<B>(request: &mut Request<B>) {
    let lines: Vec<&[u8]> = request.headers().get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        request.headers_mut().insert(header::COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Host;

    fn formed(request: http::request::Builder, port: u16, is_tls: bool, form: Form) -> Request<()> {
        let authority = Authority { host: Host::parse("a.example").expect("a name"), port };
        let request = request.body(()).expect("a request");
        outgoing(request, &authority, Carrier { is_tls, is_http2: false }, form).expect("formed")
    }

    #[test]
    fn http1_has_one_host_and_a_path() {
        let request = Request::get("https://a.example/x?y").header("host", "forged").header("te", "trailers");
        let request =
            request.header("cookie", "a=1").header("cookie", "b=2").header("transfer-encoding", "gzip, chunked");
        let request = formed(request, 443, true, Form::Http1);
        assert_eq!(request.uri(), "/x?y");
        let field = |name: &str| request.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(field("host").as_deref(), Some("a.example"));
        assert_eq!(field("cookie").as_deref(), Some("a=1; b=2"));
        assert_eq!(field("transfer-encoding").as_deref(), Some("gzip, chunked"));
        assert_eq!((field("te").as_deref(), field("connection").as_deref()), (Some("trailers"), Some("te")));
        let request = formed(Request::get("/"), 443, false, Form::Http1);
        assert_eq!(request.headers().get("te"), None);
        assert_eq!(request.headers()["host"], "a.example:443", "the port that http leaves out is 80");
    }

    #[test]
    fn http2_has_a_whole_url_and_no_host() {
        let request = Request::post("/x?y").header("host", "a.example").header("te", "trailers");
        let request =
            formed(request.header("connection", "x-private").header("x-private", "1"), 8443, true, Form::Http2);
        assert_eq!(request.uri(), "https://a.example:8443/x?y");
        assert_eq!(request.headers().len(), 1);
        assert_eq!(request.headers()["te"], "trailers");
    }

    #[test]
    fn what_was_formed_once_can_be_formed_again() {
        let first = formed(Request::get("/x"), 443, true, Form::Http2);
        let authority = Authority { host: Host::parse("a.example").expect("a name"), port: 443 };
        let again = outgoing(first, &authority, Carrier { is_tls: true, is_http2: true }, Form::Http1).expect("formed");
        assert_eq!(again.uri(), "/x");
        assert_eq!(again.headers()["host"], "a.example");
    }
}
