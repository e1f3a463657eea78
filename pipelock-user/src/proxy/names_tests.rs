//! Five names have to agree: the one that DNS was asked for, the one that the address was given out for, the one in the TLS
//! hello, the one in the request, the one in the destination's certificate.

use tokio_rustls::TlsConnector;

use super::*;
use crate::flow::Target;
use crate::proxy::http::world::{Given, World, read_all};
use crate::proxy::intercept::tests::{opened, over_http1, over_http2, request};

/// What was said.
struct Names {
    /// To our resolver, when the address is one that stands for one name.
    asked: Option<&'static str>,
    /// The names that the address was given out for in `real` mode.
    given: &'static [&'static str],
    /// The address is one of ours, and stands for nothing any more.
    is_stale: bool,
    /// In the hello.
    sni: Option<&'static str>,
    /// In the request.
    host: &'static str,
    /// In the certificate of the destination.
    certificate: &'static str,
}

const AGREE: Names = Names {
    asked: Some("web.test"),
    given: &[],
    is_stale: false,
    sni: Some("web.test"),
    host: "web.test",
    certificate: "web.test",
};
/// An address that our resolver did not give out: a literal one, or one from before an attach.
const UNASKED: Names = Names { asked: None, ..AGREE };

/// What comes of it: the status and reason of the answer, or the reason of the flow that got none.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Answer(u16, String),
    Flow(Reason),
}

fn answer(status: u16, reason: &str) -> End {
    End::Answer(status, reason.to_owned())
}

async fn end_of(names: &Names, is_http2: bool) -> (End, usize) {
    let opened = opened(names.certificate, true).await;
    let parse = |name: &str| Host::parse(name).expect("a name");
    let given = Given { names: names.given.iter().map(|name| parse(name)).collect(), is_stale: names.is_stale };
    let proxy = opened.world.given(given);
    let (agent, stream, flow, guard) = opened.world.flow().await;
    let target = Target { name: names.asked.map(parse), original: flow.target.original };
    let flow = Arc::new(Flow { target, ..(*flow).clone() });
    let served = tokio::spawn(async move { converse(&proxy, stream, &flow, guard, proxy.silence.enter()).await });
    let mut client = opened.client(if is_http2 { &["h2"] } else { &["http/1.1"] });
    client.enable_sni = names.sni.is_some();
    let name = names.sni.unwrap_or("web.test").to_owned().try_into().expect("a name");
    let Ok(stream) = TlsConnector::from(Arc::new(client)).connect(name, agent).await else {
        let verdict = served.await.expect("no panic").expect("a verdict");
        return (End::Flow(verdict.reason), opened.world.seen().len());
    };
    let answers = if is_http2 {
        let url = format!("https://{}:{}/ok/x", names.host, opened.world.addr.port());
        over_http2(stream, vec![request("GET", &url, "")]).await
    } else {
        let mut asked = request("GET", "/ok/x", "");
        asked.headers_mut().insert("host", names.host.parse().expect("a value"));
        over_http1(stream, vec![asked]).await
    };
    (End::Answer(answers[0].0.as_u16(), answers[0].1.clone()), opened.world.seen().len())
}

#[tokio::test]
async fn all_agree_or_nothing_is_sent() {
    let fine = || answer(200, "");
    let mismatch = || End::Flow(Reason::NameMismatch);
    let table: [(&str, Names, End, End); 13] = [
        ("all five", AGREE, fine(), fine()),
        ("none in the hello: that of DNS", Names { sni: None, ..AGREE }, fine(), fine()),
        ("another in the hello", Names { sni: Some("other.test"), ..AGREE }, mismatch(), mismatch()),
        (
            "another in the request",
            Names { host: "other.test", ..AGREE },
            answer(403, "name_mismatch"),
            answer(421, "misdirected"),
        ),
        (
            "an address in the request",
            Names { host: "127.0.0.1", ..AGREE },
            answer(403, "name_mismatch"),
            answer(421, "misdirected"),
        ),
        (
            "another in the certificate",
            Names { certificate: "other.test", ..AGREE },
            answer(502, "certificate_invalid"),
            answer(502, "certificate_invalid"),
        ),
        ("the address says nothing, the hello does", UNASKED, fine(), fine()),
        (
            "the address says nothing, the hello neither",
            Names { sni: None, ..UNASKED },
            End::Flow(Reason::NameMissing),
            End::Flow(Reason::NameMissing),
        ),
        (
            "the address says nothing, the request another than the hello",
            Names { host: "other.test", ..UNASKED },
            answer(403, "name_mismatch"),
            answer(421, "misdirected"),
        ),
        (
            "the address says nothing, the hello what no rule allows",
            Names { sni: Some("other.test"), host: "other.test", ..UNASKED },
            End::Flow(Reason::HostDenied),
            End::Flow(Reason::HostDenied),
        ),
        (
            "an address given out for it among others",
            Names { given: &["a.test", "web.test"], ..UNASKED },
            fine(),
            fine(),
        ),
        ("an address given out for others", Names { given: &["a.test"], ..UNASKED }, mismatch(), mismatch()),
        (
            "an address that stands for nothing any more",
            Names { is_stale: true, ..UNASKED },
            End::Flow(Reason::NameMissing),
            End::Flow(Reason::NameMissing),
        ),
    ];
    for (what, names, http1, http2) in table {
        for (is_http2, expected) in [(false, http1), (true, http2)] {
            let (end, seen) = end_of(&names, is_http2).await;
            assert_eq!(end, expected, "{what}, HTTP/2: {is_http2}");
            assert_eq!(seen, usize::from(expected == fine()), "{what}, HTTP/2: {is_http2}");
        }
    }
}

#[tokio::test]
async fn an_address_that_no_name_could_allow_is_refused_whatever_it_says_and_when() {
    let world = World::new("").await;
    for said in ["", "GET / HTTP/1.1\r\nHost: web.test\r\n\r\n"] {
        let (mut agent, stream, flow, guard) = world.flow().await;
        // Another port than that of the rule.
        let original = SocketAddr::new(flow.target.original.ip(), 9);
        let flow = Arc::new(Flow { target: Target { name: None, original }, ..(*flow).clone() });
        agent.write_all(said.as_bytes()).await.expect("write");
        let start = Instant::now();
        let verdict =
            converse(&world.proxy, stream, &flow, guard, world.proxy.silence.enter()).await.expect("a verdict");
        assert_eq!(verdict.reason, Reason::HostDenied);
        assert!(start.elapsed() < Duration::from_secs(5), "not until the client has had its time");
        let text = read_all(&mut agent).await;
        assert_eq!(text.starts_with("HTTP/1.1 403"), !said.is_empty(), "{text}");
    }
}
