//! One authority out of the request target, the Host header, the name DNS was asked for and the original address.
//! Promises that two different answers are never reconciled: they are refused.

use http::{HeaderValue, Method, Request, Uri, Version, header};

use super::upstream::Carrier;
use crate::flow::{Flow, Host, Reason, Verdict};

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// The authority of a request; `given` are the names our resolver gave the address out for, in `real` mode.
pub(super) fn agree<B>(
    request: &Request<B>,
    flow: &Flow,
    given: &[Host],
    carrier: Carrier,
) -> Result<Authority, Verdict> {
    let (method, uri) = (request.method(), request.uri());
    let malformed = |detail: &str| Verdict::block(Reason::RequestMalformed, detail);
    let original = flow.target.original;
    // Of the explicit proxy this is inside a tunnel, to which nobody has asked DNS.
    let is_tunnel = flow.origin.peer.is_some();
    if *method == Method::CONNECT {
        return Err(malformed(match is_tunnel {
            true => "CONNECT inside a tunnel; ask the proxy itself for another",
            false => "CONNECT is for explicit proxies; this connection is transparent",
        }));
    }
    let header = host_line(request)?
        .map(|value| {
            value
                .to_str()
                .map_err(|_| malformed("the Host header is not text"))
                .and_then(|text| split(text, original.port()))
        })
        .transpose()?;
    let target = match uri.authority() {
        // The `:authority` of HTTP/2 is what Host is for HTTP/1.1, and clients leave the port out of it as readily.
        Some(authority) if uri.scheme_str() == Some(carrier.scheme()) => {
            let port = if carrier.is_http2 { original.port() } else { carrier.default_port() };
            Some(split(authority.as_str(), port)?)
        }
        Some(_) => return Err(malformed("the request target has another scheme than the connection")),
        None => None,
    };
    let mismatch = |left: &str, right: &str| Verdict::block(Reason::NameMismatch, format!("{left}, but {right}"));
    let named = match (target, header) {
        (Some(target), Some(header)) if target != header => {
            return Err(two_names(&target, &header));
        }
        (Some(found), _) | (None, Some(found)) => Some(found),
        (None, None) => None,
    };
    let Some(named) = named else {
        return flow
            .target
            .name
            .clone()
            .map(|host| Authority { host, port: original.port() })
            .ok_or_else(|| Verdict::block(Reason::NameMissing, "no Host header and no name from DNS"));
    };
    if named.port != original.port() {
        return Err(mismatch(
            &format!("the connection is to port {}", original.port()),
            &format!("the request names port {}", named.port),
        ));
    }
    match (&flow.target.name, &named.host) {
        // Over HTTP/2 that is how browsers use one connection for all names of a certificate (RFC 9113 §9.1.1). Ours has
        // one name; who asks again on another connection is answered.
        (Some(asked), host) if asked != host && carrier.is_tls && carrier.is_http2 => Err(Verdict::block(
            Reason::Misdirected,
            format!("TLS was opened for {asked}, but the request names {host}"),
        )),
        (Some(asked), host) if asked != host && carrier.is_tls => {
            Err(mismatch(&format!("TLS was opened for {asked}"), &format!("the request names {host}")))
        }
        (Some(asked), host) if asked != host => {
            let who = if is_tunnel { "the tunnel" } else { "DNS" };
            Err(mismatch(&format!("{who} was asked for {asked}"), &format!("the request names {host}")))
        }
        (None, Host::Addr(addr)) if *addr != original.ip().to_canonical() => {
            Err(mismatch(&format!("the connection is to {}", original.ip()), &format!("the request names {addr}")))
        }
        (None, host @ Host::Name(_)) if !given.is_empty() && !given.contains(host) => Err(mismatch(
            &format!("{} was given out for another name", original.ip()),
            &format!("the request names {host}"),
        )),
        _ => Ok(named),
    }
}

/// That the request line and Host name two places; with the ports, where only these differ.
fn two_names(target: &Authority, header: &Authority) -> Verdict {
    let detail = match target.host == header.host {
        true => {
            format!("the request line names port {} of {}, but Host port {}", target.port, target.host, header.port)
        }
        false => format!("the request line names {}, but Host says {}", target.host, header.host),
    };
    Verdict::block(Reason::NameMismatch, detail)
}

/// The authority of a request to an explicit proxy: what the request line names, and Host must not say otherwise.
pub(super) fn of_target<B>(request: &Request<B>) -> Result<Authority, Verdict> {
    let (method, uri) = (request.method(), request.uri());
    let malformed = |detail: &str| Verdict::block(Reason::RequestMalformed, detail);
    let default_port = match (method == Method::CONNECT, uri.scheme_str()) {
        (true, None) => 443,
        (false, Some("http")) => 80,
        (false, Some(_)) => {
            return Err(malformed("the request target has a scheme other than http; use CONNECT for https"));
        }
        _ => return Err(malformed("this is a proxy: the request target must be a whole URL, or CONNECT host:port")),
    };
    let named = uri.authority().ok_or_else(|| malformed("the request target names no host"))?;
    let named = split(named.as_str(), default_port)?;
    if let Some(header) = host_line(request)? {
        // CONNECT has no scheme that a port could be left out for, and undici leaves it out of Host whichever it is.
        let default_port = if method == Method::CONNECT { named.port } else { default_port };
        let header = split(header.to_str().map_err(|_| malformed("the Host header is not text"))?, default_port)?;
        if header != named {
            return Err(two_names(&named, &header));
        }
    }
    Ok(named)
}

/// What a request target says, without what a receipt does not keep.
pub(super) fn without_query(target: &Uri) -> String {
    let Some(authority) = target.authority() else { return target.path().to_owned() };
    // Credentials before an `@` would be no host's.
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    match target.scheme_str() {
        Some(scheme) => {
            let port = if scheme == "https" { ":443" } else { ":80" };
            format!("{scheme}://{}{}", host.strip_suffix(port).unwrap_or(host), target.path())
        }
        None => host.to_owned(),
    }
}

/// The host that a request for a door of ours names in its Host header.
pub(super) fn door_host<B>(request: &Request<B>) -> Result<Option<Host>, Verdict> {
    let Some(header) = host_line(request)? else { return Ok(None) };
    let malformed = |_| Verdict::block(Reason::RequestMalformed, "the Host header is not text");
    Ok(Some(split(header.to_str().map_err(malformed)?, 80)?.host))
}

/// The one Host header. In HTTP/1.1 it must be there, also where the request line or DNS has said the name (RFC 9112 §3.2): a
/// client that leaves it out speaks something else.
fn host_line<B>(request: &Request<B>) -> Result<Option<&HeaderValue>, Verdict> {
    let malformed = |detail: &str| Verdict::block(Reason::RequestMalformed, detail);
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let found = hosts.next();
    if hosts.next().is_some() {
        return Err(malformed("more than one Host header"));
    }
    // HTTP/2 has `:authority` instead (RFC 9113 §8.3.1).
    if found.is_none() && request.version() == Version::HTTP_11 {
        return Err(malformed("an HTTP/1.1 request without a Host header"));
    }
    Ok(found)
}

/// `host` or `host:port`, strictly: no user info, no empty port.
fn split(text: &str, default_port: u16) -> Result<Authority, Verdict> {
    let malformed = || Verdict::block(Reason::RequestMalformed, "the authority cannot be read");
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|port| digits && *port != 0).ok_or_else(malformed)?;
            (host, port)
        }
        _ => (text, default_port),
    };
    let host = Host::parse(host).map_err(|error| Verdict::block(Reason::RequestMalformed, error.to_string()))?;
    Ok(Authority { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{FlowId, Origin, PolicyId, Target};
    use proptest::prelude::*;

    const CLEAR: Carrier = Carrier { is_tls: false, is_http2: false };

    fn flow(name: Option<&str>, original: &str) -> Flow {
        Flow {
            id: FlowId(1),
            origin: Origin {
                cgroup_id: 1,
                netns_cookie: 1,
                socket_cookie: 1,
                pid: 1,
                tgid: 1,
                uid: 1,
                comm: "t".into(),
                identity: None,
                peer: None,
            },
            target: Target {
                name: name.map(|name| Host::parse(name).expect(name)),
                original: original.parse().expect(original),
            },
            policy: PolicyId(String::new()),
        }
    }

    fn request(uri: &str, hosts: &[&str], version: Version) -> Request<()> {
        let mut request = Request::get(uri).version(version).body(()).expect("a URI");
        for host in hosts {
            request.headers_mut().append(header::HOST, HeaderValue::from_str(host).expect("a header value"));
        }
        request
    }

    fn ask(flow: &Flow, uri: &str, hosts: &[&str]) -> Result<String, Reason> {
        ask_in(Version::HTTP_11, flow, uri, hosts)
    }

    fn ask_in(version: Version, flow: &Flow, uri: &str, hosts: &[&str]) -> Result<String, Reason> {
        agree(&request(uri, hosts, version), flow, &[], CLEAR)
            .map(|found| format!("{}:{}", found.host, found.port))
            .map_err(|verdict| verdict.reason)
    }

    #[test]
    fn one_name_however_it_is_said() {
        let named = flow(Some("a.example"), "198.18.0.1:80");
        for (uri, hosts) in
            [("/x", vec!["a.example"]), ("/x", vec!["A.Example.:80"]), ("http://a.example/x", vec!["a.example"])]
        {
            assert_eq!(ask(&named, uri, &hosts), Ok("a.example:80".into()), "{uri} {hosts:?}");
        }
        assert_eq!(ask(&flow(None, "192.0.2.1:8080"), "/x", &["a.example:8080"]), Ok("a.example:8080".into()));
        assert_eq!(ask(&flow(None, "192.0.2.1:8080"), "/x", &["192.0.2.1:8080"]), Ok("192.0.2.1:8080".into()));
        assert_eq!(ask(&flow(None, "[2001:db8::1]:80"), "/x", &["[2001:db8::1]"]), Ok("[2001:db8::1]:80".into()));
    }

    #[test]
    fn only_http_1_0_may_leave_the_host_to_dns_and_the_request_line() {
        let named = flow(Some("a.example"), "198.18.0.1:80");
        for uri in ["/x", "http://a.example/x"] {
            assert_eq!(ask_in(Version::HTTP_10, &named, uri, &[]), Ok("a.example:80".into()), "{uri}");
            assert_eq!(ask(&named, uri, &[]), Err(Reason::RequestMalformed), "{uri}");
        }
        assert_eq!(ask_in(Version::HTTP_10, &flow(None, "192.0.2.1:80"), "/x", &[]), Err(Reason::NameMissing));
    }

    #[test]
    fn two_names_are_refused() {
        let named = flow(Some("a.example"), "198.18.0.1:80");
        for (uri, hosts, reason) in [
            ("/x", vec!["b.example"], Reason::NameMismatch),
            ("http://b.example/x", vec!["a.example"], Reason::NameMismatch),
            ("/x", vec!["a.example", "a.example"], Reason::RequestMalformed),
            ("/x", vec!["a.example:81"], Reason::NameMismatch),
            ("/x", vec!["198.18.0.1"], Reason::NameMismatch),
            ("/x", vec!["u@a.example"], Reason::RequestMalformed),
            ("/x", vec!["a.example:"], Reason::RequestMalformed),
            ("/x", vec!["a.example:+80"], Reason::RequestMalformed),
            ("/x", vec![""], Reason::RequestMalformed),
            ("https://a.example/x", vec!["a.example"], Reason::RequestMalformed),
        ] {
            assert_eq!(ask(&named, uri, &hosts), Err(reason), "{uri} {hosts:?}");
        }
        assert_eq!(ask(&flow(None, "192.0.2.1:80"), "/x", &["192.0.2.2"]), Err(Reason::NameMismatch));
    }

    #[test]
    fn inside_a_tunnel_nobody_speaks_of_dns() {
        let mut flow = flow(Some("a.example"), "0.0.0.0:80");
        let said = |flow: &Flow, method: Method| {
            let mut request = request("/x", &["b.example"], Version::HTTP_11);
            *request.method_mut() = method;
            agree(&request, flow, &[], CLEAR).expect_err("another name").detail
        };
        assert_eq!(said(&flow, Method::GET), "DNS was asked for a.example, but the request names b.example");
        assert!(said(&flow, Method::CONNECT).contains("transparent"));
        flow.origin.peer = Some(([127, 0, 0, 1], 9).into());
        assert_eq!(said(&flow, Method::GET), "the tunnel was asked for a.example, but the request names b.example");
        assert!(said(&flow, Method::CONNECT).contains("inside a tunnel"));
    }

    #[test]
    fn inside_tls_its_name_binds() {
        let flow = flow(Some("a.example"), "198.18.0.1:8443");
        let ask = |uri: &str, host: Option<&str>, is_http2| {
            let version = if is_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
            let hosts: Vec<&str> = host.into_iter().collect();
            agree(&request(uri, &hosts, version), &flow, &[], Carrier { is_tls: true, is_http2 })
                .map(|found| format!("{}:{}", found.host, found.port))
                .map_err(|verdict| verdict.reason)
        };
        let found = || Ok("a.example:8443".to_owned());
        assert_eq!(ask("https://a.example:8443/", None, true), found());
        assert_eq!(ask("https://a.example/", None, true), found());
        assert_eq!(ask("/", Some("a.example"), false), found());
        assert_eq!(ask("https://b.example:8443/", None, true), Err(Reason::Misdirected));
        assert_eq!(ask("https://a.example/", Some("b.example"), true), Err(Reason::NameMismatch));
        assert_eq!(ask("/", Some("b.example"), false), Err(Reason::NameMismatch));
        assert_eq!(ask("http://a.example:8443/", None, true), Err(Reason::RequestMalformed));
    }

    #[test]
    fn an_address_given_out_for_one_name_does_not_serve_another() {
        let flow = flow(None, "192.0.2.1:80");
        let given = [Host::parse("a.example").expect("a name")];
        let verdict =
            agree(&request("/", &["b.example"], Version::HTTP_11), &flow, &given, CLEAR).expect_err("mismatch");
        assert_eq!(verdict.reason, Reason::NameMismatch);
    }

    #[test]
    fn an_explicit_request_names_its_target_once() {
        let ask = |method: Method, uri: &str, host: Option<&str>| {
            let mut request = request(uri, host.as_slice(), Version::HTTP_11);
            *request.method_mut() = method;
            of_target(&request).map(|found| format!("{}:{}", found.host, found.port)).map_err(|verdict| verdict.reason)
        };
        assert_eq!(ask(Method::GET, "http://A.example/x", Some("a.example")), Ok("a.example:80".into()));
        assert_eq!(ask(Method::CONNECT, "a.example:443", Some("a.example:443")), Ok("a.example:443".into()));
        assert_eq!(ask(Method::GET, "http://a.example/", Some("b.example")), Err(Reason::NameMismatch));
        assert_eq!(ask(Method::GET, "/x", Some("a.example")), Err(Reason::RequestMalformed));
        assert_eq!(ask(Method::GET, "https://a.example/", Some("a.example")), Err(Reason::RequestMalformed));
        assert_eq!(ask(Method::CONNECT, "a.example:443", None), Err(Reason::RequestMalformed));
    }

    #[test]
    fn a_tunnel_is_asked_for_with_its_port_or_none_in_host() {
        let ask = |method: Method, uri: &str, host: &str| {
            let mut request = request(uri, &[host], Version::HTTP_11);
            *request.method_mut() = method;
            of_target(&request).map(|found| found.port).map_err(|verdict| (verdict.reason, verdict.detail))
        };
        for host in ["a.example", "A.example:80"] {
            assert_eq!(ask(Method::CONNECT, "a.example:80", host), Ok(80), "{host}");
        }
        assert_eq!(ask(Method::CONNECT, "[2001:db8::1]:8080", "[2001:db8::1]"), Ok(8080));
        let ports = |named, host| format!("the request line names port {named} of a.example, but Host port {host}");
        let mismatch = |detail: String| Err((Reason::NameMismatch, detail));
        assert_eq!(ask(Method::CONNECT, "a.example:80", "a.example:443"), mismatch(ports(80, 443)));
        assert_eq!(ask(Method::GET, "http://a.example:8080/", "a.example"), mismatch(ports(8080, 80)));
        let hosts = "the request line names a.example, but Host says b.example";
        assert_eq!(ask(Method::CONNECT, "a.example:80", "b.example"), mismatch(hosts.to_owned()));
    }

    proptest! {
        #[test]
        fn any_host_header_is_answered(text in "\\PC{0,40}") {
            if let Ok(found) = split(&text, 80) {
                prop_assert_ne!(found.port, 0);
            }
        }
    }
}
