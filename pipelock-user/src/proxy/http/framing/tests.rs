//! The framing against the requests of a public corpus, against hyper's own reading, and against every way to cut a
//! stream into pieces.

use super::*;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::Value;

const CORPUS: &str = include_str!("../../../../vectors/http_desync/requests.jsonl");

/// Everything that comes out for these bytes, fed in pieces of `step`; and how it ended.
fn through(bytes: &[u8], step: usize, max: usize) -> (Vec<u8>, Option<Refusal>, bool) {
    super::through(bytes.chunks(step.max(1)), max)
}

fn framed(text: &str) -> Result<String, &'static str> {
    let (out, refusal, _) = through(text.as_bytes(), usize::MAX, 65536);
    match refusal {
        Some(refusal) => Err(refusal.detail),
        None => Ok(String::from_utf8(out).expect("text")),
    }
}

/// Each with its label, and whether the corpus says that its headers break the grammar.
pub(in crate::proxy::http) fn corpus() -> Vec<(String, (String, bool), Vec<u8>)> {
    let byte_or_text = |c: char| u8::try_from(u32::from(c)).map_or(c.to_string().into_bytes(), |byte| vec![byte]);
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        let text = |key: &str| value[key].as_str().expect(key).to_owned();
        let is_loose = value["meta"]["reason"] == "NonCompliantHeader";
        (text("id"), (text("label"), is_loose), text("raw").chars().flat_map(byte_or_text).collect())
    };
    CORPUS.lines().map(line).collect()
}

#[test]
fn severe_requests_are_refused_and_acceptable_ones_pass() {
    let (mut wrong, mut counts) = (Vec::new(), [0, 0]);
    for (id, (label, _), raw) in corpus() {
        for step in [1, 7, usize::MAX] {
            let (_, refusal, _) = through(&raw, step, 65536);
            match label.as_str() {
                "block" if refusal.is_none() => wrong.push(format!("{id} passes")),
                "allow" if refusal.is_some() => wrong.push(format!("{id}: {refusal:?}")),
                _ => {}
            }
        }
        counts[0] += usize::from(label == "block");
        counts[1] += usize::from(label == "allow");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(counts[0] >= 25 && counts[1] >= 20, "{counts:?}");
}

#[test]
fn heads_have_one_spelling() {
    for (raw, canonical) in [
        ("GET / HTTP/1.1\r\nHost:  a.example \r\n\r\n", "GET / HTTP/1.1\r\nhost:a.example\r\n\r\n"),
        ("\r\nGET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"),
        (
            "POST / HTTP/1.1\r\nCONTENT-LENGTH:\t007\r\n\r\nabcdefg",
            "POST / HTTP/1.1\r\ncontent-length:7\r\n\r\nabcdefg",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: GZip;\r\nTransfer-Encoding: identity, chunked;x\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:gzip, chunked\r\n\r\n0\r\n\r\n",
        ),
        ("GET  HTTP/0.9\r\nX : y\r\nZ\u{1}: y\r\nY: \u{1}\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"),
    ] {
        assert_eq!(framed(raw).as_deref(), Ok(canonical));
    }
}

#[test]
fn what_has_two_readings_is_refused() {
    let post = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 4",
        "Content-Length: 4, 4",
        "Content-Length: +4",
        "Content-Length: 0x4",
        "Content-Length:",
        "Content-Length: 18446744073709551615",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
        "Transfer_Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Content Length: 4",
        "Host : b",
        "Host: a\u{1}",
        "X: a\r\n b",
        "X: a\nContent-Length: 4",
        "X: a\rb",
        "X: a\0",
        ": x",
        "no colon",
        "Hos\u{17f}: b",
    ] {
        assert!(framed(&post(lines)).is_err(), "{lines:?} passes");
    }
    for line in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "GET / x HTTP/1.1\r\n\r\n",
        "GET\t/ HTTP/1.1\r\n\r\n",
        "G\u{e4}T / HTTP/1.1\r\n\r\n",
        "GET /a\u{7f} HTTP/1.1\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nContent-Length: 4\r\n\r\n",
    ] {
        assert!(framed(line).is_err(), "{line:?} passes");
    }
}

#[test]
fn chunks_are_followed_to_their_end() {
    let post =
        |body: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}GET /2 HTTP/1.1\r\n\r\n");
    for body in ["0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "a;x=\"y\"\r\n0\r\n\r\n0\r\n\r\n\r\n000\r\nT: x\r\n\r\n"] {
        let out = framed(&post(body)).expect(body);
        assert!(out.ends_with("GET /2 HTTP/1.1\r\n\r\n") && out.contains(body), "{out}");
    }
    for body in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\rX0\r\n\r\n",
        "3\rX\nabc\r\n0\r\n\r\n",
        "-1\r\n",
        "0x3\r\nabc\r\n",
        " 3\r\nabc\r\n",
        "3 \r\nabc\r\n",
        "\r\n",
        "10000000000000003\r\nabc\r\n",
        "3;\nabc\r\n",
        "0\r\nContent-Length: 4\r\n\r\n",
        "0\r\n folded: x\r\n\r\n",
        "0\r\nX: y\n\r\n",
    ] {
        let (_, refusal, in_head) = through(post(body).as_bytes(), 1, 65536);
        assert!(refusal.is_some() && !in_head, "{body:?} passes");
    }
}

#[test]
fn sizes_are_bounded() {
    let status = |text: &str| through(text.as_bytes(), 100, 2048).1.map(|refusal| refusal.status.as_u16());
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(2000))), None);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(2100))), Some(431));
    assert_eq!(status(&format!("GET /{}", "a".repeat(2100))), Some(431), "also without an end");
    let many = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert_eq!((status(&many(100)), status(&many(101))), (None, Some(431)));
    let long = through(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)).as_bytes(), 4096, 1 << 20);
    assert_eq!(long.1.map(|refusal| refusal.status.as_u16()), Some(414));
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(status(&format!("{chunked}1;{}\r\n", "a".repeat(10_000))), Some(431));
    assert_eq!(status(&format!("{chunked}0\r\n{}", "a: b\r\n".repeat(100))), Some(431));
}

#[test]
fn after_connect_nothing_is_looked_at_where_tunnels_are_made() {
    let bytes = b"CONNECT a.example:443 HTTP/1.1\r\n\r\n\x16\x03\x01\0\n\n";
    let mut framing = Framing::new(65536, true);
    let (mut input, mut output) = (BytesMut::from(&bytes[..]), BytesMut::new());
    framing.advance(&mut input, &mut output).expect("a head");
    output.clear();
    framing.advance(&mut input, &mut output).expect("a tunnel");
    assert_eq!(&output[..], b"\x16\x03\x01\0\n\n");
    assert!(through(bytes, usize::MAX, 65536).1.is_some(), "elsewhere it is no request");
}

/// What hyper makes of a stream: the bodies of its requests, or none when it stumbles over one.
fn read_by_hyper(bytes: &[u8]) -> Option<Vec<usize>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (mut far, near) = tokio::io::duplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut far, bytes).await.expect("room");
        tokio::io::AsyncWriteExt::shutdown(&mut far).await.expect("shutdown");
        let sizes = std::sync::Mutex::new(Vec::new());
        let service = hyper::service::service_fn(async |request: http::Request<hyper::body::Incoming>| {
            let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
            sizes.lock().expect("not poisoned").push(body.as_ref().map_or(usize::MAX, |size| *size));
            body.map(|_| http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        });
        let io = hyper_util::rt::TokioIo::new(near);
        let served = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .max_buf_size(1 << 18)
            .serve_connection(io, service)
            .await;
        drop(far);
        served.is_ok().then(|| sizes.into_inner().expect("not poisoned"))
    })
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("Host: a.example".to_owned()),
        Just("Connection: keep-alive".to_owned()),
        "Content-Length: ?[0-9]{1,2}",
        "Transfer-Encoding: ?(gzip, )?chunked;?",
        "[a-zA-Z:_ -]{1,20}: ?[ -~\u{1}\u{e9}]{0,20}",
        "\\PC{0,20}",
    ]
}

fn request() -> impl Strategy<Value = String> {
    let head = ("(GET|POST|HEAD|x!)", "/?[!-~\u{e9}]{0,10}", "HTTP/(1\\.1|1\\.1|1\\.0|0\\.9)");
    let body =
        prop_oneof![Just(String::new()), "[a-z]{1,9}", "[1-4]\r\nabcd\r\n0\r\n\r\n", Just("0\r\n\r\n".to_owned())];
    (head, proptest::collection::vec(line(), 0..5), body).prop_map(|((method, target, version), lines, body)| {
        let lines: String = lines.into_iter().map(|line| line + "\r\n").collect();
        format!("{method} {target} {version}\r\n{lines}\r\n{body}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_cut_of_a_stream_changes_nothing(requests in proptest::collection::vec(request(), 1..3), step in 1usize..40) {
        let bytes = requests.concat().into_bytes();
        let whole = through(&bytes, usize::MAX, 4096);
        let pieces = through(&bytes, step, 4096);
        prop_assert_eq!(&pieces.1, &whole.1);
        if whole.1.is_none() {
            prop_assert_eq!(pieces.0, whole.0);
        }
    }

    #[test]
    fn hyper_reads_whatever_passes(request in request()) {
        let (out, refusal, in_head) = through(request.as_bytes(), usize::MAX, 4096);
        // A whole request, and nothing behind it.
        if refusal.is_none() && in_head && !out.is_empty() {
            let text = String::from_utf8_lossy(&out).into_owned();
            let sizes = read_by_hyper(&out);
            prop_assert!(sizes.is_some_and(|sizes| sizes.iter().all(|size| *size < 100)), "{text:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let head = [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", bytes.as_slice()].concat();
        through(&bytes, 3, 100);
        through(&head, 3, 100);
    }
}
