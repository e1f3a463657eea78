//! Opens the connection: the only place that calls `connect` for traffic of the agent.
//!
//! Called by `net::way` with a [`Permit`]. It promises that only checked addresses are dialled, on the port of the permit, and
//! those of the next hop. Families alternate and attempts overlap as in RFC 8305, so that a broken IPv6 route costs a quarter of
//! a second and no more.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::flow::Host;
use crate::inspect::Permit;
use crate::net::ssrf::CheckedAddr;

/// Connection Attempt Delay of RFC 8305 §5.
const STAGGER: Duration = Duration::from_millis(250);
/// Addresses tried at most; a name with more is a farm, and eight dead ones of it are answer enough.
const MAX_ATTEMPTS: usize = 8;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The list of addresses was empty.
    #[error("there is no address to dial")]
    NoAddress,
    /// An address is not the one the permit is for: a defect in the caller, refused.
    #[error("the permit does not cover {0}")]
    NotPermitted(SocketAddr),
    /// Every attempt failed; this is the last failure.
    #[error("connecting to {addr} failed: {source}; check that the destination is up")]
    Failed {
        /// The address of the last attempt that failed.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No attempt succeeded in time.
    #[error("connecting took longer than {0:?}; check that the destination is up and reachable from here")]
    Timeout(Duration),
}

/// Refuses addresses that a permit does not cover: of another port, or another address than the one that it names.
pub(super) fn refuse_uncovered(permit: &Permit, checked: &[CheckedAddr]) -> Result<(), DialError> {
    let is_covered = |addr: &SocketAddr| {
        addr.port() == permit.port() && !matches!(permit.host(), Host::Addr(ip) if *ip != addr.ip())
    };
    match checked.iter().map(|addr| addr.get()).find(|addr| !is_covered(addr)) {
        Some(other) => Err(DialError::NotPermitted(other)),
        None => Ok(()),
    }
}

/// Connects to the first of `checked` that answers, and returns the stream (no delay set) with its address.
///
/// # Errors
/// [`DialError`] when an address does not fit the permit, all attempts fail, or `timeout` runs out.
pub async fn dial(
    permit: &Permit,
    checked: &[CheckedAddr],
    timeout: Duration,
) -> Result<(TcpStream, SocketAddr), DialError> {
    refuse_uncovered(permit, checked)?;
    let first = any_of(alternate(checked.iter().map(|addr| addr.get())));
    tokio::time::timeout(timeout, first).await.unwrap_or(Err(DialError::Timeout(timeout)))
}

/// Connects to the first of these that answers.
pub(super) async fn any_of(addrs: VecDeque<SocketAddr>) -> Result<(TcpStream, SocketAddr), DialError> {
    race(addrs, STAGGER, attempt, |_| false).await.unwrap_or(Err(DialError::NoAddress))
}

/// Attempts one after the other, each beside those before it once they have taken `stagger`; the first that succeeds, or the
/// last failure, or the first that `is_final`. None without any.
pub(super) async fn race<A, T, E, F>(
    mut waiting: VecDeque<A>,
    stagger: Duration,
    attempt: impl Fn(A) -> F,
    is_final: impl Fn(&E) -> bool,
) -> Option<Result<T, E>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    // Dropping the set, also when the caller goes away, ends the attempts that are still under way.
    let mut attempts: JoinSet<Result<T, E>> = JoinSet::new();
    let mut last = None;
    loop {
        if let Some(next) = waiting.pop_front() {
            attempts.spawn(attempt(next));
        }
        let ended = if waiting.is_empty() {
            attempts.join_next().await
        } else {
            match tokio::time::timeout(stagger, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue, // the next family or address gets its chance beside the slow one
            }
        };
        match ended {
            Some(Ok(Ok(connected))) => return Some(Ok(connected)),
            Some(Ok(Err(error))) if is_final(&error) => return Some(Err(error)),
            Some(Ok(Err(error))) => last = Some(error),
            Some(Err(_)) => {} // the attempt ended without a result; the others go on
            None => return last.map(Err),
        }
    }
}

async fn attempt(addr: SocketAddr) -> Result<(TcpStream, SocketAddr), DialError> {
    let failed = |source| DialError::Failed { addr, source };
    #[allow(clippy::disallowed_methods, reason = "this is net::dial, the one door out")]
    let stream = TcpStream::connect(addr).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    // On loopback a closed port of the ephemeral range can connect to itself (simultaneous open, RFC 9293 §3.5).
    if stream.local_addr().map_err(failed)? == addr {
        return Err(failed(io::ErrorKind::ConnectionRefused.into()));
    }
    Ok((stream, addr))
}

/// The order of RFC 8305 §4: the resolver's first address leads, then the families take turns.
pub(super) fn alternate(addrs: impl Iterator<Item = SocketAddr>) -> VecDeque<SocketAddr> {
    let mut addrs = addrs.peekable();
    let leads_v6 = addrs.peek().is_some_and(SocketAddr::is_ipv6);
    let (mut lead, mut other): (VecDeque<_>, VecDeque<_>) = addrs.partition(|addr| addr.is_ipv6() == leads_v6);
    let mut order = VecDeque::new();
    while order.len() < MAX_ATTEMPTS && !(lead.is_empty() && other.is_empty()) {
        order.extend(lead.pop_front());
        order.extend(other.pop_front());
    }
    order.truncate(MAX_ATTEMPTS);
    order
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;
    use crate::flow::{Reason, Verdict};
    use crate::inspect::permit_flow;
    use crate::net::ssrf::check_all;

    fn permit(host: &str, port: u16) -> Permit {
        let allow = Verdict::allow(Reason::PolicyAllow, None);
        permit_flow(&allow, Host::parse(host).expect(host), port).expect("allowed")
    }

    fn loopback() -> Vec<IpNet> {
        ["127.0.0.0/8", "::1/128", "192.0.2.0/24"].map(|net| net.parse().expect("a network")).to_vec()
    }

    fn checked(addrs: &[SocketAddr]) -> Vec<CheckedAddr> {
        check_all(addrs, &loopback()).expect("opened for the test")
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("bound").port();
        (listener, port)
    }

    #[tokio::test]
    async fn addresses_outside_the_permit_are_refused() {
        let (_listener, port) = listener().await;
        let here = checked(&[SocketAddr::from(([127, 0, 0, 1], port))]);
        let limit = Duration::from_secs(1);
        for wrong in [permit("svc.example", port ^ 1), permit("127.0.0.2", port)] {
            assert!(matches!(dial(&wrong, &here, limit).await, Err(DialError::NotPermitted(_))));
        }
        assert!(matches!(dial(&permit("svc.example", port), &[], limit).await, Err(DialError::NoAddress)));
        assert!(dial(&permit("127.0.0.1", port), &here, limit).await.is_ok());
    }

    #[tokio::test]
    async fn a_refused_address_gives_way_at_once() {
        let (_listener, port) = listener().await;
        // Nobody listens on 127.0.0.2 with this port.
        let addrs = checked(&[([127, 0, 0, 2], port), ([127, 0, 0, 1], port)].map(SocketAddr::from));
        let started = Instant::now();
        let (_, addr) = dial(&permit("svc.example", port), &addrs, Duration::from_secs(5)).await.expect("dialled");
        assert_eq!(addr, SocketAddr::from(([127, 0, 0, 1], port)));
        assert!(started.elapsed() < STAGGER, "a refusal is not waited out");
    }

    #[tokio::test]
    async fn a_silent_address_is_overtaken() {
        // A listener whose queue is full drops SYNs: connecting to it hangs, without leaving this machine.
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        silent.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).expect("bind");
        silent.listen(0).expect("listen");
        let port = silent.local_addr().expect("bound").as_socket().expect("inet").port();
        let mut fillers = Vec::new();
        for _ in 0..4 {
            let filler = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
            filler.set_nonblocking(true).expect("non-blocking");
            let _ = filler.connect(&SocketAddr::from(([127, 0, 0, 2], port)).into());
            fillers.push(filler);
        }
        let quick = TcpListener::bind(("127.0.0.1", port)).await.expect("bind");
        let addrs = checked(&[([127, 0, 0, 2], port), ([127, 0, 0, 1], port)].map(SocketAddr::from));

        let started = Instant::now();
        let (_, addr) = dial(&permit("svc.example", port), &addrs, Duration::from_secs(5)).await.expect("dialled");
        assert_eq!(addr.ip(), IpAddr::from([127, 0, 0, 1]));
        assert!(started.elapsed() >= STAGGER, "the first address had its head start");
        drop(quick);

        let alone = &addrs[..1];
        let limit = Duration::from_millis(300);
        assert!(matches!(dial(&permit("svc.example", port), alone, limit).await, Err(DialError::Timeout(_))));
    }

    #[test]
    fn families_take_turns_and_the_list_is_bounded() {
        let order = |texts: &[&str]| -> Vec<String> {
            let addrs = texts.iter().map(|ip| SocketAddr::new(ip.parse().expect("an address"), 1));
            alternate(addrs).iter().map(|addr| addr.ip().to_string()).collect()
        };
        assert_eq!(
            order(&["2606::1", "2606::2", "2606::3", "1.1.1.1", "1.1.1.2"]),
            ["2606::1", "1.1.1.1", "2606::2", "1.1.1.2", "2606::3"]
        );
        assert_eq!(order(&["1.1.1.1", "2606::1"]), ["1.1.1.1", "2606::1"]);
        let many: Vec<String> = (1..=30).map(|last| format!("1.1.1.{last}")).collect();
        assert_eq!(order(&many.iter().map(String::as_str).collect::<Vec<_>>()).len(), MAX_ATTEMPTS);
    }
}
