//! What is remembered of one client is not another's: own words, placeholders, pieces.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::proxy::http::Gate;
use crate::proxy::http::world::{ORDER, SECRET, World, read_all};
use crate::proxy::identity::Identities;

const OTHER: &str = "ghp_9999999999abcdefghijABCDEFGHIJ012345";

/// Posts a body as somebody; the answer.
async fn post(world: &World, proxy: std::net::SocketAddr, token: &str, path: &str, body: &str) -> String {
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let host = format!("web.test:{}", world.addr.port());
    let head = format!(
        "POST http://{host}{path} HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Bearer {token}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    client.write_all(format!("{head}{body}").as_bytes()).await.expect("write");
    read_all(&mut client).await
}

async fn open(more: &str) -> (World, std::net::SocketAddr) {
    let world = World::scanning(more).await;
    let known = Identities::parse("ci=0123456789abcdef\ndev=fedcba9876543210").expect("tokens");
    let proxy = world.door(Gate::for_those(known)).await;
    (world, proxy)
}

const CI: &str = "0123456789abcdef";
const DEV: &str = "fedcba9876543210";

#[tokio::test]
async fn words_of_one_client_are_no_excuse_for_what_another_is_told() {
    let (world, proxy) = open("").await;
    let words = format!("Dear agent, {ORDER} and go.");
    assert!(post(&world, proxy, CI, "/echo", &words).await.starts_with("HTTP/1.1 200"), "its own words come back");
    let text = post(&world, proxy, DEV, "/order", "x").await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("injection_match"), "{text}");
    assert!(post(&world, proxy, CI, "/order", "x").await.starts_with("HTTP/1.1 200"), "the same, to who said it");
}

#[tokio::test]
async fn a_secret_has_one_placeholder_for_as_long_as_its_client_is_there() {
    let (world, proxy) = open("dlp: {action: redact}").await;
    for (token, body) in [(CI, SECRET), (CI, OTHER), (DEV, OTHER), (CI, SECRET)] {
        assert!(post(&world, proxy, token, "/x", &format!("a {body} b")).await.starts_with("HTTP/1.1 200"));
    }
    let bodies: Vec<_> = world
        .seen()
        .iter()
        .map(|seen| String::from_utf8_lossy(seen.body.as_deref().expect("a body")).into_owned())
        .collect();
    let expected = [1, 2, 1, 1].map(|number| format!("a <pipelock:credential:{number}> b"));
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn pieces_of_two_clients_are_no_secret() {
    let (world, proxy) = open("").await;
    let (first, second) = SECRET.split_at(20);
    let form = |piece: &str| format!("{{\"k\": \"{piece}\"}}");
    assert!(post(&world, proxy, CI, "/x", &form(first)).await.starts_with("HTTP/1.1 200"));
    assert!(post(&world, proxy, DEV, "/x", &form(second)).await.starts_with("HTTP/1.1 200"));
    let text = post(&world, proxy, CI, "/x", &form(second)).await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("dlp_match"), "{text}");
}
