//! Connections that were upgraded, from the agent's side: what passes, what is stopped, and what both sides are told.

use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::*;
use crate::proxy::http::world::{ORDER, SECRET, World};
use crate::proxy::ws::frame::{BINARY, TEXT};

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

/// A world whose rule scans, with WebSockets.
async fn world(more: &str) -> World {
    World::scanning(&format!("websocket: {{enabled: true{more}}}")).await
}

/// Asks for an upgrade; the connection, and the head of the answer.
async fn open(world: &World) -> (TcpStream, String) {
    let mut agent = world.agent().await;
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: web.test:{}\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-extensions: permessage-deflate\r\n\r\n",
        world.addr.port()
    );
    agent.write_all(head.as_bytes()).await.expect("write");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(agent.read_u8().await.expect("an answer"));
    }
    (agent, String::from_utf8(answer).expect("text"))
}

/// The next frame from the destination; none at the end.
async fn next(agent: &mut TcpStream, input: &mut BytesMut) -> Option<(u8, Vec<u8>)> {
    loop {
        if let Some(frame) = frame::next(input, false, 1 << 20).expect("sound") {
            return Some((frame.opcode, frame.payload));
        }
        let read = tokio::time::timeout(Duration::from_secs(10), agent.read_buf(input)).await.expect("in time");
        if !read.is_ok_and(|count| count > 0) {
            return None;
        }
    }
}

fn piece(opcode: u8, is_last: bool, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame::write(opcode, payload, MASK);
    if !is_last {
        bytes[0] &= 0x7f;
    }
    bytes
}

#[tokio::test]
async fn messages_pass_both_ways_and_no_extension_is_offered() {
    let world = world("").await;
    let (mut agent, head) = open(&world).await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    assert!(!world.seen()[0].headers.contains_key("sec-websocket-extensions"));
    assert_eq!(world.seen()[0].headers["upgrade"], "websocket");
    let mut input = BytesMut::new();
    for (opcode, payload) in [(TEXT, &b"hello"[..]), (BINARY, &[0, 255, 7]), (9, b"ping"), (TEXT, b"")] {
        agent.write_all(&frame::write(opcode, payload, MASK)).await.expect("write");
        assert_eq!(next(&mut agent, &mut input).await, Some((opcode, payload.to_vec())));
    }
    // A ping between the pieces of a message goes first; the message goes when it is whole.
    let all = [piece(TEXT, false, b"one "), piece(9, true, b"p"), piece(0, false, b"two "), piece(0, true, b"three")];
    agent.write_all(&all.concat()).await.expect("write");
    for expected in [(9, &b"p"[..]), (TEXT, b"one "), (0, b"two "), (0, b"three")] {
        assert_eq!(next(&mut agent, &mut input).await, Some((expected.0, expected.1.to_vec())));
    }
    agent.write_all(&frame::write(CLOSE, &1000_u16.to_be_bytes(), MASK)).await.expect("write");
    assert_eq!(next(&mut agent, &mut input).await, Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
    assert_eq!(next(&mut agent, &mut input).await, None);
    assert_eq!(world.receipts(), [("allow".to_owned(), "policy_allow".to_owned())]);
}

/// Sends frames; the reason in the close frame that comes back.
async fn stopped(world: &World, frames: &[Vec<u8>]) -> (u16, String) {
    let (mut agent, _) = open(world).await;
    let mut input = BytesMut::new();
    for frame in frames {
        agent.write_all(frame).await.expect("write");
    }
    loop {
        let (opcode, payload) = next(&mut agent, &mut input).await.expect("a close frame");
        assert!(!String::from_utf8_lossy(&payload).contains(SECRET));
        if opcode == CLOSE {
            let code = u16::from_be_bytes([payload[0], payload[1]]);
            return (code, String::from_utf8_lossy(&payload[2..]).into_owned());
        }
    }
}

#[tokio::test]
async fn a_secret_in_a_message_ends_the_connection() {
    let (first, second) = SECRET.split_at(17);
    let json = |part: &str| frame::write(TEXT, format!("{{\"d\":\"{part}\"}}").as_bytes(), MASK);
    for frames in [
        vec![frame::write(TEXT, SECRET.as_bytes(), MASK)],
        vec![frame::write(9, SECRET.as_bytes(), MASK)],
        vec![piece(BINARY, false, first.as_bytes()), piece(0, true, second.as_bytes())],
        vec![json(first), json(second), json("and more words, so that it is certain")],
        vec![json(first), json(second)],
        SECRET.chars().map(|letter| frame::write(TEXT, letter.to_string().as_bytes(), MASK)).collect(),
        SECRET.as_bytes().chunks(4).map(|part| frame::write(9, part, MASK)).collect(),
        // Pings between the pieces are no pieces.
        SECRET.chars().flat_map(|letter| [json(&letter.to_string()), frame::write(9, b"still here", MASK)]).collect(),
        vec![json(first), frame::write(9, b"ping", MASK), frame::write(10, b"", MASK), json(second)],
    ] {
        let world = world("").await;
        let (code, reason) = stopped(&world, &frames).await;
        assert_eq!((code, reason.as_str()), (POLICY, "{\"reason\":\"dlp_match\",\"flow\":\"7\"}"));
        let receipts = world.receipts();
        assert_eq!(receipts.last(), Some(&("block".to_owned(), "dlp_match".to_owned())), "{receipts:?}");
        assert_eq!(world.findings().last().expect("a receipt")[0]["place"], "message");
    }
}

#[tokio::test]
async fn a_message_that_ends_with_the_beginning_of_a_secret_waits_a_moment() {
    let world = world("").await;
    let text = |text: &str| frame::write(TEXT, text.as_bytes(), MASK);
    let (mut agent, _) = open(&world).await;
    for letter in SECRET.chars() {
        agent.write_all(&text(&letter.to_string())).await.expect("write");
        // Time for it to come back, if it has left.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut input, mut back) = (BytesMut::new(), String::new());
    while let Some((TEXT, payload)) = next(&mut agent, &mut input).await {
        back += &String::from_utf8_lossy(&payload);
    }
    assert_eq!(back, &SECRET[..3], "a prefix of three letters may be anything");
    // Nothing comes behind it; a ping does not wait.
    let world = self::world("").await;
    let (mut agent, _) = open(&world).await;
    let (start, begun) = (std::time::Instant::now(), format!("x {}", &SECRET[..9]));
    agent.write_all(&[text(&begun), frame::write(9, b"p", MASK)].concat()).await.expect("write");
    assert_eq!(next(&mut agent, &mut input).await, Some((9, b"p".to_vec())));
    assert_eq!(next(&mut agent, &mut input).await, Some((TEXT, begun.clone().into_bytes())));
    assert!(start.elapsed() >= Duration::from_millis(500));
    // Something else comes, or the end.
    let rest = " and so on";
    agent.write_all(&[text(&begun), text(rest)].concat()).await.expect("write");
    for expected in [&begun[..], rest] {
        assert_eq!(next(&mut agent, &mut input).await, Some((TEXT, expected.as_bytes().to_vec())));
    }
    let end = frame::write(CLOSE, &1000_u16.to_be_bytes(), MASK);
    agent.write_all(&[text(&begun), end].concat()).await.expect("write");
    assert_eq!(next(&mut agent, &mut input).await, Some((TEXT, begun.into_bytes())));
    assert_eq!(next(&mut agent, &mut input).await, Some((CLOSE, 1000_u16.to_be_bytes().to_vec())));
}

#[tokio::test]
async fn what_waits_is_not_let_go_by_a_message_of_something_else() {
    let world = world("").await;
    let (mut agent, _) = open(&world).await;
    let text = |place: &str, text: &str| frame::write(TEXT, format!("{{\"{place}\":\"{text}\"}}").as_bytes(), MASK);
    let (begun, rest) = SECRET.split_at(9);
    agent.write_all(&[text("a", begun), text("b", "x"), text("a", rest)].concat()).await.expect("write");
    let mut input = BytesMut::new();
    let closed = next(&mut agent, &mut input).await;
    assert!(closed.is_some_and(|(opcode, payload)| opcode == CLOSE && payload.starts_with(&POLICY.to_be_bytes())));
}

#[tokio::test]
async fn a_secret_over_connections_is_stopped_where_it_is_complete() {
    let world = world("").await;
    for (at, part) in SECRET.as_bytes().chunks(10).enumerate() {
        let text = format!("{{\"d\":\"{}\"}}", String::from_utf8_lossy(part));
        let (mut agent, head) = open(&world).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{at}: {head}");
        agent.write_all(&frame::write(TEXT, text.as_bytes(), MASK)).await.expect("write");
        let (opcode, payload) = next(&mut agent, &mut BytesMut::new()).await.expect("a frame");
        let expected = if at < 3 { (TEXT, text.into_bytes()) } else { (CLOSE, payload.clone()) };
        assert_eq!((opcode, payload), expected);
    }
}

#[tokio::test]
async fn a_text_that_is_no_utf8_ends_the_connection() {
    for frames in [
        vec![frame::write(TEXT, &[0x68, 0xff], MASK)],
        vec![piece(TEXT, false, &[0xc3]), frame::write(9, b"p", MASK), piece(0, true, b"x")],
    ] {
        let world = world("").await;
        let (code, reason) = stopped(&world, &frames).await;
        assert_eq!((code, reason.as_str()), (INVALID, "{\"reason\":\"request_malformed\",\"flow\":\"7\"}"));
    }
    // Cut within a letter is none of that, nor is what says that it is no text.
    let world = world("").await;
    let (mut agent, _) = open(&world).await;
    let all = [piece(TEXT, false, &[0xc3]), piece(0, true, &[0xa9]), frame::write(BINARY, &[0xff], MASK)];
    agent.write_all(&all.concat()).await.expect("write");
    let mut input = BytesMut::new();
    for expected in [(TEXT, vec![0xc3]), (0, vec![0xa9]), (BINARY, vec![0xff])] {
        assert_eq!(next(&mut agent, &mut input).await, Some(expected));
    }
}

#[tokio::test]
async fn instructions_in_a_message_do_not_reach_the_agent() {
    let world = world("").await;
    let (code, reason) = stopped(&world, &[frame::write(TEXT, b"order", MASK)]).await;
    assert_eq!((code, reason.as_str()), (POLICY, "{\"reason\":\"injection_match\",\"flow\":\"7\"}"));
    let world = self::world(", frame_scan: false").await;
    let (mut agent, _) = open(&world).await;
    agent.write_all(&frame::write(TEXT, b"order", MASK)).await.expect("write");
    let passed = next(&mut agent, &mut BytesMut::new()).await;
    assert_eq!(passed, Some((TEXT, ORDER.as_bytes().to_vec())), "nobody reads");
    assert!(world.seen()[0].headers.contains_key("sec-websocket-extensions"), "nor needs to");
}

#[tokio::test]
async fn what_is_no_sound_frame_ends_the_connection() {
    let mut compressed = frame::write(TEXT, b"x", MASK);
    compressed[0] |= 0x40;
    for (frames, code) in [
        (vec![compressed], PROTOCOL_ERROR),
        (vec![frame::write(TEXT, b"x", None)], PROTOCOL_ERROR),
        (vec![piece(0, true, b"x")], PROTOCOL_ERROR),
        (vec![vec![0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0]], TOO_BIG),
    ] {
        let world = world("").await;
        assert_eq!(stopped(&world, &frames).await.0, code);
        assert_eq!(world.receipts().last().map(|receipt| receipt.0.clone()), Some("block".to_owned()));
    }
}

#[tokio::test]
async fn without_the_policy_there_is_no_upgrade() {
    let world = World::new("").await;
    let (_, head) = open(&world).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert!(world.seen().is_empty());
}

#[tokio::test]
async fn a_connection_ends_with_the_first_policy_that_would_not_let_it_through() {
    for (from, to) in [
        ("\"enabled\":true", "\"enabled\":false"),
        ("\"destination\":\"web.test\"", "\"destination\":\"other.test\""),
        ("\"scan\":true", "\"scan\":true,\"methods\":[\"POST\"]"),
        ("\"scan\":true", "\"scan\":true,\"paths\":[\"/other\"]"),
        ("\"protocol\":\"auto\"", "\"protocol\":\"tls\""),
        ("127.0.0.0/8", "10.0.0.0/8"),
    ] {
        let world = world("").await;
        let (mut agent, _) = open(&world).await;
        let mut input = BytesMut::new();
        let change = |text: &str| {
            let mut rules = crate::proxy::http::world::rules(world.addr.port(), "");
            rules.policy = crate::policy::Policy::parse(text, "test").expect("a policy");
            world.rules.send_replace(Arc::new(rules));
        };
        let text = world.rules.borrow().policy.canonical_json();
        assert!(text.contains(from), "{from}: {text}");
        // Another policy that would let it through as well.
        change(&text.replace("\"max_connections\":1024", "\"max_connections\":9"));
        agent.write_all(&frame::write(TEXT, b"hello", MASK)).await.expect("write");
        assert_eq!(next(&mut agent, &mut input).await, Some((TEXT, b"hello".to_vec())), "{from}");
        change(&text.replace(from, to));
        assert_eq!(next(&mut agent, &mut input).await, Some((CLOSE, closed("policy_changed"))), "{to}");
        assert_eq!(next(&mut agent, &mut input).await, None, "{to}");
        let reported = || world.table.0.lock().expect("not poisoned").pop();
        let outcome = loop {
            match reported() {
                Some(outcome) => break outcome,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert_eq!(outcome.verdict.reason.code(), "policy_changed", "{to}");
    }
}

/// What a close frame says of this reason.
fn closed(reason: &str) -> Vec<u8> {
    [&POLICY.to_be_bytes(), format!("{{\"reason\":\"{reason}\",\"flow\":\"7\"}}").as_bytes()].concat()
}

#[tokio::test]
async fn both_sides_are_told_what_cuts_a_connection_whether_it_is_read_or_not() {
    for scan in [true, false] {
        for (members, limits, says, reason) in [
            ("budgets: {max_bytes_out: 5000}", "", 4000, "budget_exceeded"),
            ("budgets: {max_bytes_in: 5000}", "", 4000, "budget_exceeded"),
            ("budgets: {max_seconds: 1}", "", 1, "budget_exceeded"),
            ("scan: SCAN", "limits: {idle_timeout_seconds: 1}", 1, "idle_timeout"),
        ] {
            let world = World::with(|port, _| {
                let mut rules = crate::proxy::http::world::rules(port, "");
                let members = if members.contains("scan") { "" } else { members };
                let text = format!(
                    "version: \"1.0\"\negress: [{{destination: web.test, ports: [{port}], scan: {scan}, {members}}}]\n\
                     dns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n\
                     websocket: {{enabled: true}}\n{limits}\n"
                );
                rules.policy = crate::policy::Policy::parse(&text, "test").expect("a policy");
                (rules, None)
            })
            .await;
            let (mut agent, head) = open(&world).await;
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            let mut input = BytesMut::new();
            let message = piece(BINARY, true, &[b'x'; 100]);
            for _ in 0..says / 100 {
                agent.write_all(&message).await.expect("write");
                assert_eq!(next(&mut agent, &mut input).await.map(|(opcode, _)| opcode), Some(BINARY));
            }
            // More than is left; what of it comes back is whole.
            let _ = agent.write_all(&message.repeat(if says > 1 { 30 } else { 0 })).await;
            let last = loop {
                match next(&mut agent, &mut input).await {
                    Some((BINARY, payload)) => assert_eq!(payload.len(), 100),
                    last => break last,
                }
            };
            assert_eq!(last, Some((CLOSE, closed(reason))), "{members} {limits} {scan}");
            assert_eq!(next(&mut agent, &mut input).await, None);
        }
    }
}

#[tokio::test]
async fn no_close_frame_comes_in_the_middle_of_another() {
    let (agent, mut near) = tokio::io::duplex(1 << 16);
    let (upstream, mut far) = tokio::io::duplex(1 << 16);
    let whole = frame::write(TEXT, b"hello", None);
    far.write_all(&whole[..3]).await.expect("write");
    let cut = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Verdict::let_out(Reason::PolicyChanged, "")
    };
    let relayed = relay((agent, upstream), None, FlowId(7), |_, _| {}, async |_| {}, cut);
    let heard = async {
        let mut bytes = Vec::new();
        near.read_to_end(&mut bytes).await.expect("read");
        drop(near);
        bytes
    };
    let (cut, heard) = tokio::join!(relayed, heard);
    assert_eq!((cut.map(|cut| cut.reason), &heard[..]), (Some(Reason::PolicyChanged), &whole[..3]));
    let mut input = BytesMut::new();
    far.read_buf(&mut input).await.expect("read");
    let told = frame::next(&mut input, true, 1 << 20).expect("sound").expect("a frame");
    assert_eq!((told.opcode, told.payload), (CLOSE, closed("policy_changed")));
}

#[tokio::test]
async fn both_sides_hear_what_has_cut_one() {
    let (agent, mut near) = tokio::io::duplex(1 << 16);
    let (upstream, mut far) = tokio::io::duplex(1 << 16);
    let cut = async { Verdict::let_out(Reason::PolicyChanged, "") };
    let relayed = relay((agent, upstream), None, FlowId(7), |_, _| {}, async |_| {}, cut);
    let heard = async {
        let (mut agents, mut destinations) = (BytesMut::new(), BytesMut::new());
        near.read_buf(&mut agents).await.expect("read");
        far.read_buf(&mut destinations).await.expect("read");
        drop((near, far));
        [(agents, false), (destinations, true)]
    };
    let (cut, heard) = tokio::join!(relayed, heard);
    assert_eq!(cut.map(|cut| cut.reason), Some(Reason::PolicyChanged));
    for (mut heard, is_masked) in heard {
        let told = frame::next(&mut heard, is_masked, 1 << 20).expect("sound").expect("a frame");
        assert_eq!((told.opcode, told.payload), (CLOSE, closed("policy_changed")), "of a client: {is_masked}");
    }
}
