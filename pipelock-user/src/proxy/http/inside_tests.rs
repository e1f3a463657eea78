//! What clients say in tunnels that they asked for.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::flow::Host;
use crate::proxy::http::Gate;
use crate::proxy::http::world::{SECRET, World, read_all, read_hello, rules};
use crate::proxy::tls::{CertificateAuthority, provider, server_of};

/// The first bytes of a client of this host.
pub(in crate::proxy::http) fn hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("written");
    bytes
}

/// A tunnel to the destination that is open, and what its client says first.
async fn tunnel(world: &World, proxy: SocketAddr, first: &[u8]) -> TcpStream {
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let connect = format!("CONNECT web.test:{0} HTTP/1.1\r\nHost: web.test:{0}\r\n\r\n", world.addr.port());
    client.write_all(connect.as_bytes()).await.expect("write");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    client.write_all(first).await.expect("write");
    client
}

/// What comes of such a tunnel: what its client reads, and verdict and reason of the last receipt.
async fn outcome(more: &str, first: &str) -> (String, String) {
    let world = World::new(more).await;
    let proxy = world.door(Gate::open()).await;
    let first = first.replace("PORT", &world.addr.port().to_string());
    let mut client = tunnel(&world, proxy, first.as_bytes()).await;
    let _ = client.shutdown().await;
    let text = read_all(&mut client).await;
    let is_http = first.starts_with("GET");
    for _ in 0..500 {
        if if is_http { !world.receipts().is_empty() } else { world.tunnels().len() > 1 } {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let told = if is_http { world.receipts() } else { world.tunnels() };
    let (verdict, reason) = told.last().expect("a receipt").clone();
    assert_eq!(world.seen().len(), usize::from(verdict == "allow"), "{first}: {text}");
    (text, format!("{verdict} {reason}"))
}

#[tokio::test]
async fn a_tunnel_that_nobody_reads_keeps_what_its_rule_says() {
    let socket = "GET /ws HTTP/1.1\r\nHost: web.test:PORT\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n";
    for (first, status, told) in [
        ("SSH-2.0-OpenSSH_9.9\r\n", "", "block protocol_unknown"),
        ("\0\x01\x02", "", "block protocol_unknown"),
        ("", "", "block client_aborted"),
        ("GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", "403", "block name_mismatch"),
        ("GET http://evil.test:PORT/ HTTP/1.1\r\nHost: web.test:PORT\r\n\r\n", "403", "block name_mismatch"),
        (socket, "403", "block upgrade_denied"),
        ("GET /x HTTP/1.1\r\nHost: web.test:PORT\r\n\r\n", "200", "allow policy_allow"),
    ] {
        let (text, became) = outcome("", first).await;
        assert_eq!(became, told, "{first}");
        assert_eq!(text.get(9..12).unwrap_or_default(), status, "{first}: {text}");
    }
}

#[tokio::test]
async fn plain_http_in_a_tunnel_is_read_as_everywhere() {
    for (more, first, status, told) in [
        (", scan: true", "GET /x HTTP/1.1\r\nHost: web.test:PORT\r\n\r\n".to_owned(), "200", "allow policy_allow"),
        (", protocol: http", "GET /x HTTP/1.1\r\nHost: web.test:PORT\r\n\r\n".into(), "200", "allow policy_allow"),
        (", scan: true", format!("GET /?k={SECRET} HTTP/1.1\r\nHost: web.test:PORT\r\n\r\n"), "403", "block dlp_match"),
        (", scan: true", "GET /order HTTP/1.1\r\nHost: web.test:PORT\r\n\r\n".into(), "403", "block injection_match"),
        (", methods: [PUT]", "GET /x HTTP/1.1\r\nHost: web.test:PORT\r\n\r\n".into(), "403", "block method_denied"),
    ] {
        let world = World::new(more).await;
        let proxy = world.door(Gate::open()).await;
        let first = first.replace("PORT", &world.addr.port().to_string());
        let mut client = tunnel(&world, proxy, first.as_bytes()).await;
        client.shutdown().await.expect("shutdown");
        let text = read_all(&mut client).await;
        assert_eq!(&text[9..12], status, "{more} {first}: {text}");
        let peer = client.local_addr().expect("bound").to_string();
        assert_eq!(world.ways("forward").pop().expect("a receipt").1, peer, "it is the client's own");
        let (verdict, reason) = world.last_receipt();
        assert_eq!(format!("{verdict} {reason}"), told);
        assert!(!world.evidence_by_now().contains(SECRET));
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_served_too() {
    let world = World::new("").await;
    let proxy = world.door(Gate::open()).await;
    // SETTINGS, and a GET of http://evil.test/x by the static table (RFC 7541 §A).
    let head = [&[0x82, 0x86, 0x44, 2][..], b"/x", &[0x41, 9], b"evil.test"].concat();
    let length = u8::try_from(head.len()).expect("short");
    let frames = [&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, length, 1, 5, 0, 0, 0, 1][..], &head].concat();
    let mut client = tunnel(&world, proxy, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frames[..]].concat()).await;
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await.expect("a frame");
    assert_eq!(answer[3], 4, "SETTINGS");
    assert_eq!(world.receipts_of_count(1).await, [("block".into(), "name_mismatch".into())]);
}

#[tokio::test]
async fn tls_of_another_host_and_what_is_no_whole_hello_go_nowhere() {
    let whole = hello("web.test");
    for (more, first, reason) in [
        ("", hello("other.test"), "name_mismatch"),
        ("", whole[..whole.len() - 1].to_vec(), "request_malformed"),
        ("", [&whole[..5], &[7; 600]].concat(), "request_malformed"),
        (", protocol: http", whole.clone(), "protocol_unknown"),
        (", scan: true", whole.clone(), "inspection_unavailable"),
    ] {
        let world = World::new(more).await;
        let proxy = world.door(Gate::open()).await;
        let mut client = tunnel(&world, proxy, &first).await;
        let _ = client.shutdown().await;
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        assert_eq!(answer.first(), Some(&21), "an alert: {more} {reason}");
        while world.tunnels().len() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(world.tunnels()[1], ("block".into(), reason.into()), "{more}");
        assert!(world.seen().is_empty());
    }
}

#[tokio::test]
async fn a_rule_for_any_bytes_carries_any_bytes_whoever_speaks_first() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let world = World::with(|_, _| (rules(port, ", protocol: tcp"), None)).await;
    let proxy = world.door(Gate::open()).await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accept");
        stream.write_all(b"220 hello").await.expect("write");
        let _ = tokio::io::copy(&mut stream.split().0, &mut tokio::io::sink()).await;
    });
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let connect = format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n");
    client.write_all(connect.as_bytes()).await.expect("write");
    assert!(read_hello(&mut client).await.ends_with("220 hello"));
}

#[tokio::test]
async fn a_rule_for_tls_alone_answers_http_in_a_tunnel_with_a_denial() {
    let ca = Arc::new(CertificateAuthority::for_now().expect("an authority"));
    let host = Host::parse("web.test").expect("a name");
    let server = server_of(&ca, &host).expect("a server");
    let world = World::with(|port, _| (rules(port, ", protocol: tls"), Some(server))).await;
    let proxy = world.door(Gate::open()).await;
    let get = format!("GET /x HTTP/1.1\r\nHost: web.test:{}\r\nConnection: close\r\n\r\n", world.addr.port());
    let text = read_all(&mut tunnel(&world, proxy, get.as_bytes()).await).await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("x-pipelock-reason: protocol_unknown"), "{text}");
    assert_eq!(world.receipts(), [("block".into(), "protocol_unknown".into())]);
}
