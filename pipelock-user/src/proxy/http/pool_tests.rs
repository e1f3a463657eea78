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
    tokio::time::sleep(2 * LONGEST + Duration::from_secs(1)).await;
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
    let whose = |change: &dyn Fn(&mut Origin)| {
        let mut flow = (*flow).clone();
        change(&mut flow.origin);
        Whose::of(&flow, false)
    };
    let own = whose(&|_| {});
    assert_eq!(own, whose(&|origin| origin.pid = 2));
    assert_ne!(own, whose(&|origin| origin.uid = 2));
    assert_ne!(own, whose(&|origin| origin.cgroup_id = 2));
    assert_ne!(own, whose(&|origin| origin.identity = Some("somebody".into())));
    assert_ne!(own, whose(&|origin| origin.peer = Some(std::net::SocketAddr::from(([192, 0, 2, 1], 1)))));
    assert_ne!(own, Whose::of(&flow, true));
}
