use std::io::Write as _;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

struct Well(bool);

impl Subject for Well {
    fn scrape(&self, out: &mut Scrape) {
        out.gauge("pipelock_test_open", "Open.", 3);
    }

    fn health(&self) -> Health {
        Health { is_well: self.0, facts: json!({ "enforcement": "full" }) }
    }
}

fn start(token: Option<&Path>, is_well: bool) -> Admin {
    let door = Door::open(SocketAddr::from(([127, 0, 0, 1], 0)), token, None).expect("a door");
    Admin::start(door, Arc::new(Well(is_well))).expect("a service")
}

async fn exchange(admin: &Admin, request: &str) -> String {
    #[allow(clippy::disallowed_methods, reason = "the test plays Prometheus")]
    let mut stream = TcpStream::connect(admin.address()).await.expect("connect");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an end");
    answer
}

#[tokio::test]
async fn two_pages_and_one_method() {
    let admin = start(None, true);
    let metrics = exchange(&admin, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    for line in
        ["pipelock_test_open 3", "pipelock_build_info{version=", "process_open_fds ", "process_cpu_seconds_total "]
    {
        assert!(metrics.contains(&format!("\n{line}")), "{line} is not in {metrics}");
    }
    let health = exchange(&admin, "GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 200") && health.contains(r#""status":"ok""#), "{health}");
    assert!(health.contains(r#""enforcement":"full""#), "{health}");
    for (request, status) in [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("GET /metrics/ HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi", "405"),
        ("DELETE /health HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = exchange(&admin, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
}

/// Whether somebody else can listen on a port, whatever their socket says.
fn may_share(port: u16) -> bool {
    [[0, 0, 0, 0], [127, 0, 0, 1]].into_iter().any(|ip| {
        let other = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        other.set_reuse_address(true).and_then(|()| other.set_reuse_port(true)).expect("set");
        other.bind(&SocketAddr::from((ip, port)).into()).and_then(|()| other.listen(1)).is_ok()
    })
}

#[tokio::test]
async fn another_address_of_the_same_port_takes_over() {
    // As in a policy: the kernel takes back a port that it has chosen itself.
    let port = Door::open(SocketAddr::from(([127, 0, 0, 1], 0)), None, None).expect("a door").address.port();
    let door = Door::open(SocketAddr::from(([127, 0, 0, 1], port)), None, None).expect("a door");
    let former = Admin::start(door, Arc::new(Well(false))).expect("a service");
    let everywhere = SocketAddr::from(([0, 0, 0, 0], port));
    assert!(Door::open(everywhere, None, None).is_err(), "it is in use");
    // One that cannot be had, and one that is not wanted in the end.
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    taken.bind(&SocketAddr::from(([127, 0, 0, 2], port)).into()).and_then(|()| taken.listen(1)).expect("beside it");
    assert!(Door::open(everywhere, None, Some(&former)).is_err(), "in part");
    drop(taken);
    drop(Door::open(everywhere, None, Some(&former)).expect("a door in the former's place"));
    assert!(exchange(&former, "GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 503"));
    let door = Door::open(everywhere, None, Some(&former)).expect("a door in the former's place");
    assert!(!may_share(port), "while both are there");
    drop(former);
    let admin = Admin::start(door, Arc::new(Well(true))).expect("a service");
    assert_eq!(admin.address(), everywhere);
    assert!(!may_share(port), "afterwards");
    // The former's task is told to end, and does.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    assert!(exchange(&admin, "GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    let back = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(Door::open(back, None, Some(&admin)).is_ok());
}

#[tokio::test]
async fn what_fails_says_so() {
    let answer = exchange(&start(None, false), "GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(r#""status":"failing""#), "{answer}");
}

#[tokio::test]
async fn with_a_token_nobody_else_comes_in() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"0123456789abcdef\n").expect("write");
    let admin = start(Some(file.path()), true);
    for (given, status) in [
        ("", "401"),
        ("authorization: Bearer 0123456789abcdeX\r\n", "401"),
        ("authorization: Bearer 0123456789abcde\r\n", "401"),
        ("authorization: Basic 0123456789abcdef\r\n", "401"),
        ("authorization: \r\n", "401"),
        ("authorization: Bearer 0123456789abcdef\r\n", "200"),
        ("authorization: bearer 0123456789abcdef\r\n", "200"),
    ] {
        for page in ["/metrics", "/health"] {
            let answer = exchange(&admin, &format!("GET {page} HTTP/1.1\r\nhost: x\r\n{given}\r\n")).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{given}: {answer}");
        }
    }
    for wrong in ["short", "two words of a token", ""] {
        std::fs::write(file.path(), wrong).expect("write");
        let error = Door::open(SocketAddr::from(([127, 0, 0, 1], 0)), Some(file.path()), None).expect_err(wrong);
        assert!(error.to_string().starts_with("metrics.token_file"), "{error}");
    }
}

#[tokio::test]
async fn those_who_say_nothing_take_places_and_no_more() {
    let admin = start(None, true);
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        #[allow(clippy::disallowed_methods, reason = "the test plays somebody who says nothing")]
        silent.push(TcpStream::connect(admin.address()).await.expect("connect"));
    }
    let turned_away = |admin: &Admin| {
        let address = admin.address();
        async move {
            #[allow(clippy::disallowed_methods, reason = "the test plays one too many")]
            let mut stream = TcpStream::connect(address).await.expect("connect");
            let _ = stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            answer.is_empty()
        }
    };
    assert!(turned_away(&admin).await, "one too many was served");
    drop(silent);
    for _ in 0..2000 {
        if !turned_away(&admin).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no place has become free");
}

#[tokio::test(start_paused = true)]
async fn those_who_say_nothing_are_cut_in_the_end() {
    let admin = start(None, true);
    let answer = exchange(&admin, "GET /health HTTP/1.1\r\n").await;
    assert!(!answer.contains("200"), "{answer}");
}

#[tokio::test]
async fn dropped_it_listens_no_more() {
    let admin = start(None, true);
    let address = admin.address();
    drop(admin);
    for _ in 0..500 {
        #[allow(clippy::disallowed_methods, reason = "the test looks whether somebody listens")]
        if TcpStream::connect(address).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("somebody still listens");
}
