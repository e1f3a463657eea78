use std::net::IpAddr;
use std::sync::LazyLock;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::flow::Verdict;
use crate::inspect::permit_flow;
use crate::net::{LookupFuture, NameService};

const LIMIT: Duration = Duration::from_secs(5);

fn permit(host: &str, port: u16) -> Permit {
    let allow = Verdict::allow(Reason::PolicyAllow, None);
    permit_flow(&allow, Host::parse(host).expect(host), port).expect("allowed")
}

fn loopback() -> Vec<IpNet> {
    ["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a network")).to_vec()
}

/// The name service of the tests: it knows looked-up.example, and loop.example for the next hop.
struct Service;

impl NameService for Service {
    fn lookup(&self, name: String) -> LookupFuture {
        Box::pin(async move {
            match name.as_str() {
                "looked-up.example" | "loop.example" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
                _ => Err(std::io::Error::other("no such name")),
            }
        })
    }
}

/// With these addresses for svc.example.
fn answering(ips: &[&str]) -> Resolver {
    let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
    let pinned = Box::new(move |name: &str| (name == "svc.example").then(|| ips.clone()));
    Resolver::with_service(pinned, Arc::new(Service), Duration::from_secs(1))
}

fn direct<'a>(resolver: &'a Resolver, ssrf_allow: &'a [IpNet]) -> Way<'a> {
    static NONE: LazyLock<Denied> = LazyLock::new(Denied::default);
    Way { resolver, ssrf_allow, deny: &NONE, hop: None }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

async fn failed(permit: &Permit, way: Way<'_>) -> ConnectError {
    match connect(permit, way, LIMIT).await {
        Err(error) => error,
        Ok((_, reached)) => panic!("reached {reached:?}"),
    }
}

#[tokio::test]
async fn connects_to_what_was_checked() {
    let (listener, port) = listener().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accept");
        stream.write_all(b"hi").await.expect("write");
    });
    let (resolver, open) = (answering(&["127.0.0.1"]), loopback());
    let (mut link, reached) =
        connect(&permit("svc.example", port), direct(&resolver, &open), LIMIT).await.expect("dialled");
    assert_eq!(reached, SocketAddr::from(([127, 0, 0, 1], port)).into());
    assert!(matches!(&link, Link::Direct(stream) if stream.nodelay().expect("an option")));
    let mut said = String::new();
    link.read_to_string(&mut said).await.expect("read");
    assert_eq!(said, "hi");
    server.await.expect("served");
}

#[tokio::test]
async fn each_stage_has_its_reason() {
    let (listener, port) = listener().await;
    let open = loopback();
    let unknown = failed(&permit("unknown.example", port), direct(&answering(&[]), &[])).await;
    assert_eq!(unknown.reason(), Reason::ResolveFailed);
    // One private answer among public ones: nothing is dialled.
    let mixed = answering(&["1.1.1.1", "127.0.0.1"]);
    let rebinding = failed(&permit("svc.example", port), direct(&mixed, &[])).await;
    assert_eq!(rebinding.reason(), Reason::SsrfDenied);
    drop(listener);
    let closed = failed(&permit("svc.example", port), direct(&answering(&["127.0.0.1"]), &open)).await;
    assert_eq!(closed.reason(), Reason::DialFailed);
}

/// A next hop that says `answer` to each request and then `hello` as the destination; what it was asked.
async fn proxy(answer: &'static str) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (listener, port) = listener().await;
    let (told, asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            // Whatever it is, it comes in one piece.
            let _ = stream.read_buf(&mut request).await;
            let _ = told.send(String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(format!("{answer}hello").as_bytes()).await;
        }
    });
    (port, asked)
}

fn policy(more: &str) -> Policy {
    Policy::parse(&format!("version: 1\n{more}\n"), "test").expect(more)
}

fn hop_of(policy: &Policy) -> Arc<Hop> {
    Arc::new(Hop::new(policy.next_hop().expect("one").clone(), None, None, policy.loopback_ports()))
}

#[tokio::test]
async fn a_name_that_leads_to_what_is_denied_is_refused() {
    let open = loopback();
    for (deny, leads_to, is_denied) in [
        ("127.0.0.0/30", "127.0.0.1", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.2", "127.0.0.1", false),
        // What translates it for a network without IPv4 leads there too.
        ("198.41.0.7", "64:ff9b::198.41.0.7", true),
        ("198.41.0.0/24", "64:ff9b::198.41.0.7", true),
        ("64:ff9b::/96", "64:ff9b::198.41.0.7", true),
        ("198.41.0.8", "64:ff9b::198.41.0.7", false),
    ] {
        let (policy, resolver) = (policy(&format!("deny: [\"{deny}\"]")), answering(&[leads_to]));
        let way = Way { deny: policy.denied(), ..direct(&resolver, &open) };
        for host in ["svc.example".to_owned(), Host::from(leads_to.parse::<IpAddr>().expect("one")).to_string()] {
            let checked = check_reach(&permit(&host, 443), way, LIMIT).await;
            let reason = checked.map_err(|error| error.reason());
            assert_eq!(reason, if is_denied { Err(Reason::AddressDenied) } else { Ok(()) }, "{deny}: {host}");
        }
    }
}

const YES: &str = "HTTP/1.1 200 OK\r\n\r\n";

#[tokio::test]
async fn a_next_hop_is_asked_for_the_address_that_was_checked() {
    let (port, mut asked) = proxy(YES).await;
    let policy = policy(&format!("upstream: {{proxy: \"http://127.0.0.1:{port}\"}}"));
    let hop = hop_of(&policy);
    let resolver = answering(&["192.88.98.7"]);
    let way = Way { hop: Some(&hop), ..direct(&resolver, &[]) };
    let (mut link, reached) = connect(&permit("svc.example", 443), way, LIMIT).await.expect("connected");
    let mut said = String::new();
    link.read_to_string(&mut said).await.expect("read");
    assert_eq!((said.as_str(), asked.recv().await.as_deref()), ("hello", Some("CONNECT 192.88.98.7:443 HTTP/1.1")));
    let addr = SocketAddr::from(([192, 88, 98, 7], 443));
    assert_eq!((reached.addr, reached.via.as_deref()), (Some(addr), Some(&*format!("http://127.0.0.1:{port}"))));
    connect_again(&permit("svc.example", 443), &reached, way, LIMIT).await.map(drop).expect("again");
    assert_eq!(asked.recv().await.as_deref(), Some("CONNECT 192.88.98.7:443 HTTP/1.1"));
    // What leads inside is not asked for, nor what has no address here.
    let inside = answering(&["10.0.0.1"]);
    let way = Way { hop: Some(&hop), ..direct(&inside, &[]) };
    assert_eq!(failed(&permit("svc.example", 443), way).await.reason(), Reason::SsrfDenied);
    assert_eq!(failed(&permit("unknown.example", 443), way).await.reason(), Reason::ResolveFailed);
    assert!(asked.try_recv().is_err(), "nobody was asked");
}

/// Tests of one process count together: this one is run in one of its own.
#[test]
fn connections_are_counted_the_second_time_too() {
    const TEST: &str = "net::way::tests::connections_are_counted_the_second_time_too";
    if std::env::var_os("PIPELOCK_TEST_ALONE").is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().expect("the tests"));
        let output = alone.args(["--exact", TEST]).env("PIPELOCK_TEST_ALONE", "1").output().expect("started");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (_listener, port) = listener().await;
        let (resolver, open, permit) = (answering(&["127.0.0.1"]), loopback(), permit("svc.example", port));
        let way = direct(&resolver, &open);
        let (_, reached) = connect(&permit, way, LIMIT).await.expect("dialled");
        connect_again(&permit, &reached, way, LIMIT).await.map(drop).expect("again");
        let nowhere = SocketAddr::from(([10, 0, 0, 1], port)).into();
        assert!(connect_again(&permit, &nowhere, way, LIMIT).await.is_err());
        let policy = policy("deny: [\"127.0.0.1\"]");
        assert!(connect(&permit, Way { deny: policy.denied(), ..way }, LIMIT).await.is_err());
    });
    let counted = [Connected::Open, Connected::Inside, Connected::Denied].map(|result| COUNTS.connects.get(result));
    assert_eq!((counted, COUNTS.seconds.count()), ([2, 1, 1], 4));
}

#[tokio::test]
async fn once_more_means_the_same_way() {
    let ((port, mut asked), (other_port, mut other_asked)) = (proxy(YES).await, proxy(YES).await);
    let hop_at =
        |port: u16, more: &str| hop_of(&policy(&format!("upstream: {{proxy: \"http://127.0.0.1:{port}\"{more}}}")));
    let (hop, other) = (hop_at(port, ""), hop_at(other_port, ""));
    let (named, sparing) = (hop_at(port, ", resolve: proxy"), hop_at(port, ", no_proxy: [svc.example]"));
    let resolver = answering(&["192.88.98.7"]);
    let way = |hop| Way { hop, ..direct(&resolver, &[]) };
    let to = permit("svc.example", 443);
    let direct = Reached::from(SocketAddr::from(([192, 88, 98, 7], 443)));
    let via = Reached { via: Some(hop.label().clone()), ..direct.clone() };
    let by_name = Reached { addr: None, found: Arc::default(), ..via.clone() };
    for (reached, hop) in [
        (&direct, Some(&hop)),
        (&via, None),
        (&via, Some(&other)),
        (&via, Some(&sparing)),
        (&by_name, None),
        (&by_name, Some(&hop)),
        (&by_name, Some(&other)),
        // What the next hop resolved is known here by now.
        (&by_name, Some(&named)),
    ] {
        let error = connect_again(&to, reached, way(hop), LIMIT).await.map(drop).expect_err("another way");
        assert_eq!(error.reason(), Reason::PolicyChanged, "{reached:?}: {error}");
    }
    // Nor anywhere else than the permit says.
    let elsewhere = connect_again(&permit("svc.example", 444), &via, way(Some(&hop)), LIMIT).await;
    assert_eq!(elsewhere.map(drop).expect_err("another port").reason(), Reason::Internal);
    assert!(asked.try_recv().is_err() && other_asked.try_recv().is_err(), "nobody was asked");
    let unknown = permit("unknown.example", 443);
    for (to, reached, hop) in [(&to, &via, &hop), (&unknown, &by_name, &named)] {
        assert!(connect_again(to, reached, way(Some(hop)), LIMIT).await.is_ok(), "{reached:?}");
    }
}

#[tokio::test]
async fn a_next_hop_that_refuses_a_login_is_not_asked_again() {
    for (answer, times) in [("HTTP/1.1 407 x\r\n\r\n", 1), ("HTTP/1.1 502 x\r\n\r\n", 2)] {
        let (port, mut asked) = proxy(answer).await;
        let hop = hop_of(&policy(&format!("upstream: {{proxy: \"http://127.0.0.1:{port}\"}}")));
        let resolver = answering(&["192.88.98.7", "192.88.98.8"]);
        let error = failed(&permit("svc.example", 443), Way { hop: Some(&hop), ..direct(&resolver, &[]) }).await;
        assert_eq!(error.reason(), Reason::HopFailed, "{error}");
        let said = std::iter::from_fn(|| asked.try_recv().ok()).count();
        assert_eq!(said, times, "{answer}");
    }
}

#[tokio::test]
async fn a_next_hop_that_resolves_is_asked_for_the_name_and_what_is_known_here_is_checked_here() {
    let (port, mut asked) = proxy(YES).await;
    let policy = policy(&format!("upstream: {{proxy: \"http://loop.example:{port}\", resolve: proxy}}"));
    let hop = hop_of(&policy);
    let resolver = answering(&["10.0.0.1"]);
    let way = Way { hop: Some(&hop), ..direct(&resolver, &[]) };
    let (_, reached) = connect(&permit("unknown.example", 443), way, LIMIT).await.expect("connected");
    assert_eq!(asked.recv().await.as_deref(), Some("CONNECT unknown.example:443 HTTP/1.1"));
    assert_eq!((reached.addr, reached.via.is_some()), (None, true));
    connect_again(&permit("unknown.example", 443), &reached, way, LIMIT).await.map(drop).expect("again");
    assert_eq!(asked.recv().await.as_deref(), Some("CONNECT unknown.example:443 HTTP/1.1"));
    assert!(check_reach(&permit("unknown.example", 443), way, LIMIT).await.is_ok());
    for inside in ["svc.example", "10.1.2.3", "127.0.0.1", "localhost", "any.localhost"] {
        assert_eq!(failed(&permit(inside, 443), way).await.reason(), Reason::SsrfDenied, "{inside}");
    }
    assert!(asked.try_recv().is_err(), "nobody was asked");
}

#[tokio::test]
async fn what_is_spared_is_dialled_from_here() {
    let (_listener, port) = listener().await;
    for no_proxy in ["svc.example", "127.0.0.0/8", "\"*.example\""] {
        let policy = policy(&format!("upstream: {{proxy: \"http://proxy.test:1\", no_proxy: [{no_proxy}]}}"));
        let hop = hop_of(&policy);
        let (resolver, open) = (answering(&["127.0.0.1"]), loopback());
        let way = Way { hop: Some(&hop), ..direct(&resolver, &open) };
        let (_, reached) = connect(&permit("svc.example", port), way, LIMIT).await.expect("dialled");
        assert_eq!(reached, SocketAddr::from(([127, 0, 0, 1], port)).into());
    }
}

#[tokio::test]
async fn a_next_hop_that_fails_is_named_with_what_it_said() {
    let (port, _asked) = proxy("HTTP/1.1 403 Obey me\r\n\r\n").await;
    let (silent, silent_port) = listener().await;
    let resolver = answering(&["192.88.98.7"]);
    let (gone, gone_port) = listener().await;
    drop(gone);
    let soon = Duration::from_millis(300);
    for (proxy, expected) in [
        (format!("http://127.0.0.1:{port}"), "it said 403 Forbidden"),
        (format!("http://127.0.0.1:{gone_port}"), "connecting to 127.0.0.1"),
        ("http://proxy.unknown.example:1".to_owned(), "no such name"),
        (format!("socks5://127.0.0.1:{port}"), "version is not 5"),
        (format!("https://127.0.0.1:{port}"), "TLS with it failed"),
        (format!("http://127.0.0.1:{silent_port}"), "did not connect us within 1 s"),
    ] {
        let policy = policy(&format!("upstream: {{proxy: \"{proxy}\"}}"));
        let hop = hop_of(&policy);
        let way = Way { hop: Some(&hop), ..direct(&resolver, &[]) };
        // Only silence has to be waited out.
        let limit = if expected.contains("within") { soon } else { LIMIT };
        let result = connect(&permit("svc.example", 443), way, limit).await;
        let error = result.map(drop).expect_err(&proxy);
        let text = error.to_string();
        assert_eq!(error.reason(), Reason::HopFailed, "{text}");
        assert!(text.contains(&format!("the next hop {proxy}: ")) && text.contains(expected), "{text}");
        assert!(!text.contains("Obey"), "{text}");
    }
    drop(silent);
}

#[tokio::test]
async fn nobody_is_led_to_the_next_hop() {
    let (port, mut asked) = proxy(YES).await;
    let policy_of = |more: &str| policy(&format!("upstream: {{proxy: \"http://loop.example:{port}\", {more}}}"));
    for more in ["no_proxy: []", "no_proxy: [\"127.0.0.0/8\"]", "resolve: proxy"] {
        let policy = policy_of(more);
        let hop = hop_of(&policy);
        let (resolver, open) = (answering(&["127.0.0.1"]), loopback());
        let way = Way { hop: Some(&hop), ..direct(&resolver, &open) };
        for host in ["loop.example", "svc.example", "127.0.0.1"] {
            let error = failed(&permit(host, port), way).await;
            assert_eq!(error.reason(), Reason::AddressDenied, "{more}: {host}: {error}");
        }
    }
    // Nor where loopback.allow opens its port to the agent.
    let open = policy(&format!("upstream: {{proxy: \"http://loop.example:{port}\"}}\nloopback: {{allow: [{port}]}}"));
    let hop = hop_of(&open);
    let resolver = answering(&["192.88.98.7"]);
    let error = failed(&permit("svc.example", 443), Way { hop: Some(&hop), ..direct(&resolver, &[]) }).await;
    assert!(error.to_string().contains("loopback.allow opens the port"), "{error}");
    assert!(asked.try_recv().is_err(), "nobody was asked");
}

#[test]
fn what_was_reached_lives_on_under_a_policy_that_would_reach_it_so() {
    let hop = "upstream: {proxy: \"http://proxy.test:1\"";
    let (host, addr) = (Host::parse("a.test").expect("a name"), SocketAddr::from(([192, 88, 98, 7], 443)));
    let fits = |reached: &Reached, more: &str| may_be_reached(reached, &host, 443, &policy(more));
    let direct = Reached::from(addr);
    let via = Reached { via: Some("http://proxy.test:1".into()), ..direct.clone() };
    let named = Reached { addr: None, ..via.clone() };
    for (more, expected) in [
        (String::new(), [true, false, false]),
        (format!("{hop}}}"), [false, true, false]),
        (format!("{hop}, resolve: proxy}}"), [false, true, true]),
        (format!("{hop}, resolve: proxy}}\ndns: {{hosts: {{a.test: 192.88.98.7}}}}"), [false, true, false]),
        (format!("{hop}, resolve: proxy}}\ndns: {{hosts: {{b.test: 192.88.98.7}}}}"), [false, true, true]),
        (format!("{hop}, no_proxy: [a.test]}}"), [true, false, false]),
        (format!("{hop}, no_proxy: [\"192.88.98.0/24\"]}}"), [true, false, false]),
        ("upstream: {proxy: \"http://proxy.test:2\"}".to_owned(), [false, false, false]),
    ] {
        assert_eq!([&direct, &via, &named].map(|reached| fits(reached, &more)), expected, "{more}");
    }
    let inside = Reached { addr: Some(SocketAddr::from(([10, 0, 0, 1], 443))), ..via.clone() };
    assert!(!fits(&inside, &format!("{hop}}}")));
    // One of its addresses is spared, and not all of them: so it went through the next hop, and would again.
    let sparing = format!("{hop}, no_proxy: [\"192.88.98.0/24\"]}}");
    let both = Reached { found: [addr.ip(), IpAddr::from([192, 88, 97, 7])].into(), ..via };
    assert!(fits(&both, &sparing));
    assert!(!fits(&Reached { via: None, ..both }, &sparing));
}
