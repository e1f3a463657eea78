//! Connections that outlive the agent's own, before a real destination.

use std::time::Duration;

use super::super::world::{World, rules};
use super::*;
use crate::flow::Origin;

/// Asks for a page on a connection of its own; the numbers of the destination's connections that were used by now.
async fn ask(world: &World, more: &str) -> Vec<usize> {
    let port = world.addr.port();
    let head = format!("GET / HTTP/1.1\r\nhost: web.test:{port}\r\nconnection: close\r\n{more}\r\n");
    let before = world.seen().len();
    let text = world.ask(head.as_bytes()).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(world.seen().len(), before + 1);
    // The agent has its answer before we are done with its connection.
    for _ in 0..40 {
        if !locked(&world.proxy.pool.parked).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.seen().iter().map(|seen| seen.connection).collect()
}

#[tokio::test]
async fn the_next_connection_of_a_client_goes_on_where_the_last_one_ended() {
    for scan in [", scan: false", ", scan: true"] {
        let world = World::new(scan).await;
        ask(&world, "").await;
        ask(&world, "").await;
        let used = ask(&world, "").await;
        assert!(used.iter().all(|connection| *connection == used[0]), "{used:?}");
        assert_eq!(locked(&world.proxy.pool.parked).len(), 1);
    }
}

/// Whoever asks cannot know that we had kept the connection.
#[tokio::test]
async fn what_ends_as_it_is_used_again_is_tried_once_more_where_that_changes_nothing() {
    let world = World::new("").await;
    let port = world.addr.port();
    let head = |method: &str, more: &str| {
        format!("{method} /once HTTP/1.1\r\nhost: web.test:{port}\r\nconnection: close\r\n{more}\r\n").into_bytes()
    };
    for _ in 0..3 {
        let text = world.ask(&head("GET", "")).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    let used: Vec<usize> = world.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(used.len(), 3);
    assert!(used[0] != used[1] && used[1] != used[2], "{used:?}");
    // A receipt each, whatever it took.
    assert_eq!(world.receipts().len(), 3);
    for _ in 0..40 {
        if !locked(&world.proxy.pool.parked).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = world.ask(&head("POST", "content-length: 0\r\n")).await;
    assert!(text.starts_with("HTTP/1.1 502"), "what may change something is not sent twice: {text}");
}

#[tokio::test]
async fn what_is_one_connections_own_stays_so() {
    let budget = ", budgets: {max_bytes_out: 1MiB}";
    for (members, more) in
        [("", "authorization: Negotiate YII=\r\n"), ("", "authorization: NTLM TlR=\r\n"), (budget, "")]
    {
        let world = World::new(members).await;
        ask(&world, more).await;
        let used = ask(&world, more).await;
        assert_ne!(used[0], used[1], "{members} {more}");
        assert!(locked(&world.proxy.pool.parked).is_empty());
    }
}

#[tokio::test]
async fn none_is_used_under_another_policy() {
    let world = World::new("").await;
    ask(&world, "").await;
    world.rules.send_replace(std::sync::Arc::new(rules(world.addr.port(), ", methods: [GET]")));
    let used = ask(&world, "").await;
    assert_ne!(used[0], used[1]);
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    let world = World::new("").await;
    ask(&world, "").await;
    tokio::time::pause();
    tokio::time::sleep(2 * LONGEST + Duration::from_millis(1)).await;
    tokio::time::resume();
    assert!(locked(&world.proxy.pool.parked).is_empty(), "somebody looks after them");
    assert!(!world.proxy.pool.is_watched.load(Ordering::Acquire));
    let used = ask(&world, "").await;
    assert_ne!(used[0], used[1]);
}

#[tokio::test]
async fn clients_are_told_apart() {
    let world = World::new("").await;
    let (_, _, flow, _) = world.flow().await;
    let carrier = Carrier { is_tls: false, is_http2: false };
    let whose = |change: &dyn Fn(&mut Origin)| {
        let mut flow = (*flow).clone();
        change(&mut flow.origin);
        Whose::of(&flow, carrier)
    };
    let own = whose(&|_| {});
    assert_eq!(own, whose(&|origin| origin.pid = 2));
    assert_ne!(own, whose(&|origin| origin.uid = 2));
    assert_ne!(own, whose(&|origin| origin.cgroup_id = 2));
    assert_ne!(own, whose(&|origin| origin.identity = Some("somebody".into())));
    assert_ne!(own, Whose::of(&flow, Carrier { is_tls: true, ..carrier }));
    assert_ne!(
        own,
        Whose::of(&flow, Carrier { is_http2: true, ..carrier }),
        "what one speaks is what the other is spoken to in"
    );
    let somebody = Some(std::net::SocketAddr::from(([192, 0, 2, 1], 1)));
    assert_eq!(whose(&|origin| origin.peer = somebody), None, "who else is there?");
    let shown = whose(&|origin| (origin.peer, origin.identity) = (somebody, Some("somebody".into())));
    assert!(shown.is_some());
}

#[test]
fn what_is_said_about_a_connection_is_heard() {
    let headers =
        |name: HeaderName, value: &str| HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("a value"))]);
    for (value, shows) in [
        ("Bearer abc", false),
        ("basic YTpi", false),
        ("Negotiate YII=", true),
        ("NTLM TlR=", true),
        ("Nego2 x", true),
        ("Basic realm=\"x\", Negotiate", true),
        ("", true),
    ] {
        assert_eq!(shows_who(&headers(header::AUTHORIZATION, value)), shows, "{value}");
        assert_eq!(shows_who(&headers(header::WWW_AUTHENTICATE, value)), shows, "{value}");
    }
    assert!(!shows_who(&HeaderMap::new()));
    let of = |value: &str| patience(&headers(KEEP_ALIVE, value)).map(|patience| patience.as_secs());
    assert_eq!(of("timeout=5, max=100"), Some(4));
    assert_eq!(of("max=100, timeout=0"), Some(0));
    assert_eq!((of("timeout=x"), of("max=1")), (None, None));
}
