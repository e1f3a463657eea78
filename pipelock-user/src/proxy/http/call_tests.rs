//! Calls that are refused: whoever makes one is told in words of JSON-RPC, and nobody else is.

use super::*;
use crate::proxy::http::world::{ORDER, SECRET, World, assert_problem};

/// What a call is answered: the head, and the body.
async fn call(world: &World, host: &str, path: &str, headers: &str, body: &str) -> (String, Value) {
    let port = world.addr.port();
    let length = body.len();
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\ncontent-type: application/json\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    );
    let answer = world.exchange(text.as_bytes()).await;
    let (head, body) = answer.rsplit_once("\r\n\r\n").expect("an answer");
    (head.to_owned(), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn saying(id: &Value, text: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "n", "arguments": {"a": text}}})
        .to_string()
}

#[tokio::test]
async fn a_call_that_is_refused_is_answered_as_one() {
    let world = World::new(", scan: true").await;
    for id in [json!(7), json!("a-7"), json!(-1.5)] {
        let (head, body) = call(&world, "web.test", "/echo", "", &saying(&id, SECRET)).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("x-pipelock-reason: dlp_match"), "{head}");
        assert_eq!(
            (&body["jsonrpc"], &body["id"], &body["error"]["code"]),
            (&json!("2.0"), &id, &json!(-32001)),
            "{body}"
        );
        let data = &body["error"]["data"];
        assert_eq!((&data["blocked"], &data["reason"]), (&json!(true), &json!("dlp_match")));
        assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains("dlp_match")), "{body}");
        assert!(!body.to_string().contains(SECRET));
        assert_eq!(
            world.receipts().last().map(|(verdict, reason)| (verdict.as_str(), reason.as_str())),
            Some(("block", "dlp_match"))
        );
    }
    assert!(world.seen().is_empty());
    // An answer that is refused, and what is refused before the body was read.
    let (_, body) = call(&world, "web.test", "/order", "", &saying(&json!(1), "x")).await;
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(1), &json!(-32000)), "{body}");
    let (_, body) = call(&world, "web.test", &format!("/a?k={SECRET}"), "", &saying(&json!(2), "x")).await;
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(2), &json!(-32001)), "{body}");
    let (_, body) = call(&world, "other.test", "/", "", &saying(&json!(3), "x")).await;
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(3), &json!(-32002)), "{body}");
}

#[tokio::test]
async fn its_code_says_which_way_it_was_stopped() {
    let world = World::scanning("dlp: {instructions: block}").await;
    for (path, headers, text, reason, code) in [
        ("/echo", "", ORDER, "injection_match", -32001),
        ("/order", "", "x", "injection_match", -32000),
        ("/packed", "", "x", "content_unreadable", -32000),
    ] {
        let (_, body) = call(&world, "web.test", path, headers, &saying(&json!(4), text)).await;
        let error = &body["error"];
        assert_eq!((&error["data"]["reason"], &error["code"]), (&json!(reason), &json!(code)), "{path}: {body}");
    }
}

#[tokio::test]
async fn what_is_no_call_is_answered_as_ever() {
    let world = World::new(", scan: true").await;
    for body in [
        format!("{{\"jsonrpc\": \"2.0\", \"method\": \"m\", \"params\": \"{SECRET}\"}}"),
        format!("[{}]", saying(&json!(1), SECRET)),
        saying(&Value::Null, SECRET),
        saying(&json!({"a": 1}), SECRET),
        saying(&json!(1), SECRET).replace("2.0", "1.0"),
        format!("{} ", saying(&json!("x".repeat(2000)), SECRET)),
        format!("{{\"id\": 1, {}", &saying(&json!(1), SECRET)[1..]),
    ] {
        let port = world.addr.port();
        let text = format!(
            "POST /a HTTP/1.1\r\nhost: web.test:{port}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_problem(&world.exchange(text.as_bytes()).await, "403", "dlp_match");
    }
    // Nobody is told to go on only to be refused.
    let (head, body) = call(&world, "other.test", "/", "expect: 100-continue\r\n", &saying(&json!(3), "x")).await;
    assert!(head.starts_with("HTTP/1.1 4") && body["reason"].is_string(), "{head} {body}");
}

#[tokio::test]
async fn a_call_that_is_let_through_goes_on_as_it_was() {
    let world = World::new(", scan: true").await;
    let said = saying(&json!(7), "fine words");
    let (head, body) = call(&world, "web.test", "/echo", "", &said).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body.to_string(), serde_json::from_str::<Value>(&said).expect("JSON").to_string());
    assert_eq!(world.seen()[0].body.as_deref(), Some(said.as_bytes()));
    assert!(!said.contains(ORDER));
}
