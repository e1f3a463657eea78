//! Opens the connection: the only place that calls `connect` for traffic of the agent.
//!
//! Called by the proxy with a [`Permit`]. It promises that only checked addresses are dialled, on the port of the
//! permit, that the whole attempt ends in time, and that every failure has a stable reason. Families alternate and
//! attempts overlap as in RFC 8305, so that a broken IPv6 route costs a quarter of a second and no more.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::counts::{COUNTS, Connected};
use crate::flow::{Host, Reason};
use crate::inspect::Permit;
use crate::net::own::is_own;
use crate::net::ranges::Class;
use crate::net::resolve::{ResolveError, Resolver};
use crate::net::ssrf::{CheckedAddr, SsrfDenied, check_all};

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

/// Why [`connect`] failed, by stage.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address was found.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// An address was found that may not be reached.
    #[error(transparent)]
    Ssrf(#[from] SsrfDenied),
    /// The addresses could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
}

impl ConnectError {
    /// The stable reason for the receipt and the denial.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Resolve(_) => Reason::ResolveFailed,
            Self::Ssrf(_) => Reason::SsrfDenied,
            Self::Dial(DialError::NotPermitted(_)) => Reason::Internal,
            Self::Dial(_) => Reason::DialFailed,
        }
    }
}

/// Resolves the host of the permit, checks every answer, dials: the whole way out. `timeout` bounds all of it; the
/// resolver has a limit of its own besides.
///
/// # Errors
/// [`ConnectError`]; its [`reason`](ConnectError::reason) goes into the verdict.
pub async fn connect(
    permit: &Permit,
    resolver: &Resolver,
    ssrf_allow: &[IpNet],
    timeout: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let start = Instant::now();
    let connected = connect_at(start, permit, resolver, ssrf_allow, timeout).await;
    COUNTS.connects.add(Connected::of(&connected));
    COUNTS.seconds.since(start.into_std());
    connected
}

async fn connect_at(
    start: Instant,
    permit: &Permit,
    resolver: &Resolver,
    ssrf_allow: &[IpNet],
    timeout: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let found = find(permit, resolver, timeout).await?;
    let checked = check_dial(&found, ssrf_allow)?;
    Ok(dial(permit, &checked, timeout.saturating_sub(start.elapsed())).await?)
}

/// Resolves the host of the permit and checks every answer, as [`connect`] does, and dials nothing.
///
/// # Errors
/// [`ConnectError`]; its [`reason`](ConnectError::reason) goes into the verdict.
pub async fn check_reach(
    permit: &Permit,
    resolver: &Resolver,
    ssrf_allow: &[IpNet],
    timeout: Duration,
) -> Result<(), ConnectError> {
    check_dial(&find(permit, resolver, timeout).await?, ssrf_allow).map(drop)
}

async fn find(permit: &Permit, resolver: &Resolver, timeout: Duration) -> Result<Vec<SocketAddr>, ResolveError> {
    let found = tokio::time::timeout(timeout, resolver.resolve(permit.host(), permit.port())).await;
    found.unwrap_or_else(|_| Err(ResolveError::Timeout { host: permit.host().to_string(), after: timeout }))
}

/// Connects to this address of the permit's host, which was dialled before.
///
/// # Errors
/// [`ConnectError`]; its [`reason`](ConnectError::reason) goes into the verdict.
pub async fn connect_again(
    permit: &Permit,
    addr: SocketAddr,
    ssrf_allow: &[IpNet],
    timeout: Duration,
) -> Result<TcpStream, ConnectError> {
    let checked = check_dial(&[addr], ssrf_allow)?;
    Ok(dial(permit, &checked, timeout).await?.0)
}

/// Whether an address may be dialled under this list of exempted networks; no when nobody can say.
#[must_use]
pub fn may_be_dialled(addr: SocketAddr, ssrf_allow: &[IpNet]) -> bool {
    check_dial(&[addr], ssrf_allow).is_ok()
}

/// All that decides about addresses: their ranges, and whether those that look like any other are this host's own.
fn check_dial(found: &[SocketAddr], ssrf_allow: &[IpNet]) -> Result<Vec<CheckedAddr>, ConnectError> {
    let checked = check_all(found, ssrf_allow)?;
    let is_open = |addr: &CheckedAddr| ssrf_allow.iter().any(|net| net.contains(&addr.get().ip()));
    for addr in checked.iter().filter(|addr| !is_open(addr)).map(|addr| addr.get()) {
        if is_own(addr).map_err(|source| DialError::Failed { addr, source })? {
            return Err(SsrfDenied { addr, class: Class::Own }.into());
        }
    }
    Ok(checked)
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
    for addr in checked.iter().map(|addr| addr.get()) {
        let other_host = matches!(permit.host(), Host::Addr(ip) if *ip != addr.ip());
        if addr.port() != permit.port() || other_host {
            return Err(DialError::NotPermitted(addr));
        }
    }
    tokio::time::timeout(timeout, race(alternate(checked))).await.unwrap_or(Err(DialError::Timeout(timeout)))
}

async fn race(mut waiting: VecDeque<SocketAddr>) -> Result<(TcpStream, SocketAddr), DialError> {
    // Dropping the set, also when the caller goes away, ends the attempts that are still under way.
    let mut attempts: JoinSet<Result<(TcpStream, SocketAddr), DialError>> = JoinSet::new();
    let mut last = DialError::NoAddress;
    loop {
        if let Some(addr) = waiting.pop_front() {
            attempts.spawn(attempt(addr));
        }
        let ended = if waiting.is_empty() {
            attempts.join_next().await
        } else {
            match tokio::time::timeout(STAGGER, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue, // the next family or address gets its chance beside the slow one
            }
        };
        match ended {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(error))) => last = error,
            Some(Err(_)) => {} // the attempt ended without a result; the others go on
            None => return Err(last),
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
fn alternate(checked: &[CheckedAddr]) -> VecDeque<SocketAddr> {
    let leads_v6 = checked.first().is_some_and(|addr| addr.get().is_ipv6());
    let (mut lead, mut other): (VecDeque<_>, VecDeque<_>) =
        checked.iter().map(|addr| addr.get()).partition(|addr| addr.is_ipv6() == leads_v6);
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
    use super::*;
    use crate::flow::Verdict;
    use crate::inspect::permit_flow;
    use crate::net::ssrf::check;
    use std::net::IpAddr;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

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

    fn answering(ips: &[&str]) -> Resolver {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().expect("an address")).collect();
        let pinned = Box::new(move |name: &str| (name == "svc.example").then(|| ips.clone()));
        struct Nobody;
        impl crate::net::NameService for Nobody {
            fn lookup(&self, _: String) -> crate::net::LookupFuture {
                Box::pin(async { Err(io::Error::other("no such name")) })
            }
        }
        Resolver::with_service(pinned, Arc::new(Nobody), Duration::from_secs(1))
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("bound").port();
        (listener, port)
    }

    #[tokio::test]
    async fn connects_to_what_was_checked() {
        let (listener, port) = listener().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            stream.write_all(b"hi").await.expect("write");
        });
        let resolver = answering(&["127.0.0.1"]);
        let (mut stream, addr) = connect(&permit("svc.example", port), &resolver, &loopback(), Duration::from_secs(5))
            .await
            .expect("dialled");
        assert_eq!(addr, SocketAddr::from(([127, 0, 0, 1], port)));
        assert!(stream.nodelay().expect("an option"));
        let mut said = String::new();
        stream.read_to_string(&mut said).await.expect("read");
        assert_eq!(said, "hi");
        server.await.expect("served");
    }

    #[tokio::test]
    async fn each_stage_has_its_reason() {
        let (listener, port) = listener().await;
        let limit = Duration::from_secs(5);

        let error = connect(&permit("unknown.example", port), &answering(&[]), &[], limit).await.expect_err("unknown");
        assert_eq!(error.reason(), Reason::ResolveFailed);

        // One private answer among public ones: nothing is dialled.
        let mixed = answering(&["1.1.1.1", "127.0.0.1"]);
        let error = connect(&permit("svc.example", port), &mixed, &[], limit).await.expect_err("rebinding");
        assert_eq!(error.reason(), Reason::SsrfDenied);

        drop(listener);
        let closed = answering(&["127.0.0.1"]);
        let error = connect(&permit("svc.example", port), &closed, &loopback(), limit).await.expect_err("closed");
        assert_eq!(error.reason(), Reason::DialFailed);
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
            let checked: Vec<CheckedAddr> = texts
                .iter()
                .map(|ip| check(SocketAddr::new(ip.parse().expect("an address"), 1), &[]).expect("public"))
                .collect();
            alternate(&checked).iter().map(|addr| addr.ip().to_string()).collect()
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
