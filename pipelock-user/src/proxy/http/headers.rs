//! Headers that belong to one connection and are not passed on.

use http::{HeaderMap, HeaderName, HeaderValue, header};

const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes the headers of the hop (RFC 9110 §7.6.1), those that `Connection` names, and Alt-Svc, which would lead the
/// client to another port or protocol.
pub(super) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Host and the framing are not the client's to remove.
        .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
        .collect();
    without(headers, |name| {
        HOP_BY_HOP.contains(name)
            || named.contains(name)
            || *name == header::ALT_SVC
            || ["keep-alive", "proxy-connection"].contains(&name.as_str())
    });
}

/// Removes headers and leaves the others in their order, which `HeaderMap::remove` does not: it puts the last one in the place of the
/// one that goes, and what stands in two of them in one order is no secret in another.
pub(super) fn without(headers: &mut HeaderMap, is_gone: impl Fn(&HeaderName) -> bool) {
    if !headers.keys().any(&is_gone) {
        return;
    }
    let mut kept = HeaderMap::with_capacity(headers.len());
    let mut last = None;
    for (name, value) in headers.drain() {
        // Of several lines of one name only the first names it.
        last = name.or(last);
        if let Some(name) = last.as_ref().filter(|name| !is_gone(name)) {
            kept.append(name.clone(), value);
        }
    }
    *headers = kept;
}

/// True when the sender takes trailers (RFC 9110 §10.1.4).
pub(super) fn wants_trailers(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// Names the trailers in the head if nobody has (RFC 9110 §6.6.2): over HTTP/1.1 hyper sends no others.
pub(super) fn announce(headers: &mut HeaderMap, trailers: &HeaderMap) {
    if headers.contains_key(header::TRAILER) {
        return;
    }
    let names: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
    if let Ok(names) = HeaderValue::try_from(names.join(", ")) {
        headers.insert(header::TRAILER, names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_headers_go_and_the_rest_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-private, host"),
            ("x-private", "1"),
            ("host", "a.example"),
            ("keep-alive", "timeout=5"),
            ("alt-svc", "h3=\":443\""),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop(&mut headers);
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["host", "accept"]);
    }
}
