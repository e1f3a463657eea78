//! The loads: what runs inside the cgroup or beside it, and prints one number.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;

/// Connects and closes `count` times; prints nanoseconds for one connect(2), the median.
///
/// Each connection is reset: those that are closed in good order keep their ports for a minute, and some thousands of them
/// make the kernel look longer for a free one, which would be measured instead.
pub(crate) fn connect(addr: SocketAddr, count: usize) -> Result<()> {
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        let stream = TcpStream::connect(addr).context("connect")?;
        took.push(start.elapsed());
        setsockopt(&stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).context("SO_LINGER")?;
        drop(stream);
    }
    println!("{}", median(&mut took).as_nanos());
    Ok(())
}

/// Sends `count` GET requests over `connections` kept connections; prints requests per second.
pub(crate) fn http(host: &str, port: u16, count: usize, connections: usize) -> Result<()> {
    let addr = (host, port).to_socket_addrs()?.next().context("no address")?;
    let share = count / connections;
    let start = Instant::now();
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let host = host.to_owned();
            std::thread::spawn(move || client(&host, addr, share))
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a client thread died"))??;
    }
    let rate = (share * connections) as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0}");
    Ok(())
}

fn client(host: &str, addr: SocketAddr, count: usize) -> Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let request = format!("GET /small HTTP/1.1\r\nHost: {host}:{}\r\nAccept: */*\r\n\r\n", addr.port());
    let mut line = String::new();
    for _ in 0..count {
        stream.write_all(request.as_bytes())?;
        let mut length = 0;
        let mut is_first = true;
        loop {
            line.clear();
            anyhow::ensure!(reader.read_line(&mut line)? > 0, "the connection ended early");
            if is_first {
                anyhow::ensure!(line.contains(" 200 "), "unexpected answer: {line}");
                is_first = false;
            }
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
    }
    Ok(())
}

/// An origin that answers every request with the same small body, on kept connections; a thread each.
pub(crate) fn origin() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || serve(stream));
        }
    });
    Ok(addr)
}

fn serve(mut stream: TcpStream) -> Option<()> {
    const BODY: &str = "The committee met on Tuesday to review the results of the spring survey.\n";
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len());
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if line == b"\r\n" {
            stream.write_all(answer.as_bytes()).ok()?;
        }
    }
}

/// The middle one.
pub(crate) fn median(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took.get(took.len() / 2).copied().unwrap_or_default()
}
