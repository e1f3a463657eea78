//! Peers that ask for more: clients that use the proxy by name, destinations that want a certificate.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::UnixTime;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::proxy::Gate;
use crate::proxy::ws::frame;

/// Asks the explicit proxy for a tunnel to the destination, which it has to grant.
async fn tunnel(opened: &Opened) -> TcpStream {
    let proxy = opened.world.door(Gate::open()).await;
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let port = opened.world.addr.port();
    client
        .write_all(format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n").as_bytes())
        .await
        .expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(client.read_u8().await.expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    client
}

fn pair(verdict: &str, reason: &str) -> (String, String) {
    (verdict.into(), reason.into())
}

#[tokio::test]
async fn a_tunnel_that_was_asked_for_is_opened_where_the_rule_wants_it_read() {
    let opened = opened("web.test", true).await;
    let stream = greet_as(opened.client(&["http/1.1"]), tunnel(&opened).await).await.expect("a handshake");
    let answers = over_http1(stream, vec![request("POST", "/ok/1", "abc"), request("GET", "/no", "")]).await;
    assert_eq!((answers[0].0.as_u16(), answers[1].0.as_u16(), answers[1].1.as_str()), (200, 403, "path_denied"));
    let url = format!("https://web.test:{}/ok/2", opened.world.addr.port());
    let stream = greet_as(opened.client(&["h2"]), tunnel(&opened).await).await.expect("a handshake");
    let other = request("GET", &url.replace("web.test", "other.test"), "");
    let answers = over_http2(stream, vec![request("GET", &url, ""), other]).await;
    assert_eq!((answers[0].0.as_u16(), answers[1].0.as_u16()), (200, 421));
    assert_eq!(opened.world.seen().len(), 2);
    assert_eq!(opened.world.tunnels(), [pair("allow", "policy_allow"), pair("allow", "policy_allow")]);
    assert_eq!(opened.world.receipts().len(), 4);
}

/// Verdict and reason of everything about tunnels, once there is so much.
async fn tunnels(opened: &Opened, count: usize) -> Vec<(String, String)> {
    for _ in 0..500 {
        if opened.world.tunnels().len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    opened.world.tunnels()
}

#[tokio::test]
async fn tls_for_another_host_does_not_leave_a_tunnel_that_nobody_reads() {
    let unread = |text: String| text.replace("methods: [GET, POST], paths: [\"/ok/*\"]", "scan: false");
    let opened = opened_with("web.test", true, unread).await;
    // The destination's own certificate: nobody has opened it.
    let mut config = super::client(&opened.outside, &["http/1.1"]);
    let stream = greet_as(config.clone(), tunnel(&opened).await).await.expect("a handshake");
    assert_eq!(over_http1(stream, vec![request("GET", "/x", "")]).await[0].0, 200);
    // Who names nobody may get whoever else is behind the address.
    config.enable_sni = false;
    let refused = greet_as(config, tunnel(&opened).await).await.expect_err("refused").to_string();
    assert!(refused.contains("AccessDenied"), "{refused}");
    let all = tunnels(&opened, 3).await;
    assert!(all.contains(&pair("block", "name_missing")), "{all:?}");
    let client = tokio_rustls::TlsConnector::from(Arc::new(super::client(&opened.outside, &[])));
    let other = ServerName::try_from("other.test").expect("a name");
    let refused = client.connect(other, tunnel(&opened).await).await.expect_err("refused").to_string();
    assert!(refused.contains("AccessDenied"), "{refused}");
    let all = tunnels(&opened, 5).await;
    assert!(all.contains(&pair("block", "name_mismatch")), "{all:?}");
    assert_eq!(opened.world.seen().len(), 1);
}

#[tokio::test]
async fn a_tunnel_that_is_opened_carries_a_websocket_until_a_policy_does_not_let_it() {
    let websocket = |text: String| text.replace("/ok/*", "/ws") + "websocket: {enabled: true}\n";
    let opened = opened_with("web.test", true, websocket).await;
    let mut agent = greet_as(opened.client(&["http/1.1"]), tunnel(&opened).await).await.expect("a handshake");
    let head = "GET /ws HTTP/1.1\r\nhost: web.test\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    agent.write_all(head.as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(agent.read_u8().await.expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    let message = |mask| frame::write(frame::TEXT, b"hello", mask);
    agent.write_all(&message(Some([1, 2, 3, 4]))).await.expect("write");
    let mut echo = vec![0; message(None).len()];
    agent.read_exact(&mut echo).await.expect("the echo");
    assert_eq!(echo, message(None));
    let (port, folder) = (opened.world.addr.port(), opened.world.evidence.path());
    let without = |text: String| text.replace("/ok/*", "/ws");
    opened.world.rules.send_replace(Arc::new(rules(port, folder, &opened.outside, &opened.ca, without)));
    assert_eq!(tunnels(&opened, 2).await, [pair("allow", "policy_allow"), pair("allow", "policy_changed")]);
    assert_eq!(opened.world.receipts(), [pair("allow", "policy_allow")]);
}

#[tokio::test]
async fn nothing_leaves_a_tunnel_that_cannot_be_opened() {
    let opened = opened("web.test", true).await;
    // Another name inside.
    let client = tokio_rustls::TlsConnector::from(Arc::new(opened.client(&[])));
    let other = ServerName::try_from("other.test").expect("a name");
    assert!(client.connect(other, tunnel(&opened).await).await.is_err());
    // Neither TLS nor HTTP inside.
    let mut plain = tunnel(&opened).await;
    plain.write_all(b"SSH-2.0-x\r\n").await.expect("write");
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest).await;
    // A client that does not trust us.
    let stranger = CertificateAuthority::for_now().expect("an authority");
    assert!(greet_as(super::client(&stranger, &[]), tunnel(&opened).await).await.is_err());
    let all = tunnels(&opened, 6).await.into_iter();
    let mut denied: Vec<_> = all.filter(|(verdict, _)| verdict == "block").map(|(_, reason)| reason).collect();
    denied.sort();
    assert_eq!(denied, ["client_pinned", "name_mismatch", "protocol_unknown"]);
    assert!(opened.world.seen().is_empty() && opened.world.receipts().is_empty());
}

/// Wants a certificate, and takes any whose key the client has.
#[derive(Debug)]
struct AnyCertificate;

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_destination_that_wants_a_certificate_is_shown_the_one_of_its_rule_and_no_other() {
    for has_certificate in [true, false] {
        let ca = Arc::new(CertificateAuthority::for_now().expect("an authority"));
        let outside = Arc::new(CertificateAuthority::for_now().expect("an authority"));
        let mut tls = None;
        let world =
            World::with(|port, folder| {
                // Any certificate with its key in a file.
                CertificateAuthority::kept(&folder.join("client")).expect("made");
                let file = CertificateAuthority::file(&folder.join("client")).display().to_string();
                let named = format!(", client_cert: {file}, client_key: {file}}}]");
                let rules = rules(port, folder, &outside, &ca, |text| {
                    if has_certificate { text.replacen("}]", &named, 1) } else { text }
                });
                tls.clone_from(&rules.tls);
                let server = server_of(&outside, &host("web.test")).expect("a server");
                let mut wanting = rustls::ServerConfig::builder_with_provider(provider())
                    .with_safe_default_protocol_versions()
                    .expect("versions")
                    .with_client_cert_verifier(Arc::new(AnyCertificate))
                    .with_cert_resolver(server.cert_resolver.clone());
                wanting.alpn_protocols.clone_from(&server.alpn_protocols);
                (rules, Some(Arc::new(wanting)))
            })
            .await;
        let opened = Opened { world, ca, outside, tls: tls.expect("interception") };
        let url = format!("https://web.test:{}/ok/x", opened.world.addr.port());
        for protocols in [&["h2"][..], &["http/1.1"]] {
            let stream = opened.connect(protocols).await;
            let answers = if protocols == ["h2"] {
                over_http2(stream, vec![request("GET", &url, "")]).await
            } else {
                over_http1(stream, vec![request("GET", "/ok/x", "")]).await
            };
            let expected = if has_certificate { (200, "") } else { (502, "upstream_failed") };
            assert_eq!((answers[0].0.as_u16(), answers[0].1.as_str()), expected, "{protocols:?} {answers:?}");
            let is_told = answers[0].2.contains("wants a client certificate") && answers[0].2.contains("client_cert");
            assert_eq!(is_told, !has_certificate, "{answers:?}");
        }
        assert_eq!(opened.world.seen().len(), if has_certificate { 2 } else { 0 });
    }
}

#[tokio::test]
async fn the_head_of_an_answer_over_http2_has_its_limit() {
    let opened = opened("web.test", true).await;
    let stream = opened.connect(&["h2"]).await;
    let url = |path: &str| format!("https://web.test:{}/ok/{path}", opened.world.addr.port());
    let answers = over_http2(stream, vec![request("GET", &url("heavy"), ""), request("GET", &url("x"), "")]).await;
    let told: Vec<_> = answers.iter().map(|(status, reason, _)| (status.as_u16(), reason.as_str())).collect();
    assert_eq!(told[0], (502, "upstream_failed"));
    assert_eq!(told[1].0, 200, "and nobody else has to do without");
}
