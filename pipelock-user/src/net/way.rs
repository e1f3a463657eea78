//! The whole way out: resolve, check, dial, from here or through the next hop.
//!
//! Called by the proxy with a [`Permit`]. It promises that the whole attempt ends in time, that every failure has a stable reason,
//! that what is resolved here is checked before anybody is asked to connect to it, and that the next hop is asked for a name only
//! where the policy says so and nobody knows it here, and never for itself: by the name that the policy gives it, or by an address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::counts::{COUNTS, Connected};
use super::dial::{DialError, alternate, any_of, dial, race, refuse_uncovered};
use super::hop::{Hop, HopError, Wanted};
use super::link::Link;
use super::own::is_own;
use super::ranges::Class;
use super::resolve::{ResolveError, Resolver, known_by};
use super::ssrf::{CheckedAddr, SsrfDenied, check_all, judged};
use crate::flow::{Host, Reached, Reason};
use crate::inspect::Permit;
use crate::policy::{Denied, Destination, NextHop, Policy};

/// How long one address is waited for before the next hop is asked for another one as well.
const STAGGER: Duration = Duration::from_secs(2);
/// Addresses that the next hop is asked for at most.
const MAX_ASKED: usize = 3;

/// What leads out under one policy.
#[derive(Clone, Copy)]
pub struct Way<'a> {
    /// Finds addresses.
    pub resolver: &'a Resolver,
    /// Private networks that names may lead to.
    pub ssrf_allow: &'a [IpNet],
    /// What nothing leads to.
    pub deny: &'a Denied,
    /// What destinations are reached through, if not from here.
    pub hop: Option<&'a Arc<Hop>>,
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
    /// An address was found that the policy denies.
    #[error("{addr} is denied: deny names it, as {entry}")]
    Denied {
        /// The address.
        addr: IpAddr,
        /// The entry.
        entry: Destination,
    },
    /// The addresses could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The next hop did not connect us.
    #[error("the next hop {hop}: {why}")]
    Hop {
        /// Which.
        hop: Arc<str>,
        /// Why.
        #[source]
        why: HopError,
    },
    /// It is the next hop itself that was asked for.
    #[error("this leads to the next hop {0}, which pipelock alone speaks to")]
    IsHop(Arc<str>),
    /// Another way leads there by now.
    #[error("the policy was changed meanwhile, and wants the destination reached another way; ask again")]
    OtherWay,
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
            Self::Hop { .. } => Reason::HopFailed,
            Self::IsHop(_) | Self::Denied { .. } => Reason::AddressDenied,
            Self::OtherWay => Reason::PolicyChanged,
        }
    }
}

fn hop_failed(hop: &Hop) -> impl Fn(HopError) -> ConnectError {
    let hop = hop.label().clone();
    move |why| ConnectError::Hop { hop: hop.clone(), why }
}

/// Reaches the host of the permit. `timeout` bounds all of it; the resolver has a limit of its own besides.
///
/// # Errors
/// [`ConnectError`]; its [`reason`](ConnectError::reason) goes into the verdict.
pub async fn connect(permit: &Permit, way: Way<'_>, timeout: Duration) -> Result<(Link, Reached), ConnectError> {
    let start = Instant::now();
    counted(async {
        let plan = plan(permit, way, timeout).await?;
        plan.go(permit, way, timeout.saturating_sub(start.elapsed())).await
    })
    .await
}

/// Counts and times what connects.
async fn counted<T>(connecting: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
    let start = Instant::now();
    let connected = connecting.await;
    COUNTS.connects.add(Connected::of(&connected));
    COUNTS.seconds.since(start.into_std());
    connected
}

/// Resolves the host of the permit and checks every answer, as [`connect`] does, and dials nothing.
///
/// # Errors
/// [`ConnectError`]; its [`reason`](ConnectError::reason) goes into the verdict.
pub async fn check_reach(permit: &Permit, way: Way<'_>, timeout: Duration) -> Result<(), ConnectError> {
    plan(permit, way, timeout).await.map(drop)
}

/// The addresses of a host that are known without asking anybody; none when they have to be looked up.
///
/// # Errors
/// What [`connect`] would refuse them with, whichever machine it is called on: whether one is this host's own is not asked.
pub fn check_known(host: &Host, port: u16, policy: &Policy) -> Result<Vec<IpAddr>, ConnectError> {
    let known = |host: &Host| match host {
        Host::Addr(addr) => vec![*addr],
        Host::Name(name) => known_by(policy, name).unwrap_or_default(),
    };
    let found = known(host);
    if let Some(hop) = policy.next_hop().filter(|hop| hop.port == port)
        && known(&hop.host).iter().any(|place| found.contains(place))
    {
        return Err(ConnectError::IsHop(hop.to_string().into()));
    }
    let addrs: Vec<SocketAddr> = found.iter().map(|addr| SocketAddr::new(*addr, port)).collect();
    check_policy(&addrs, policy.ssrf_allow(), policy.denied())?;
    Ok(found)
}

/// Connects once more to where the permit's host was reached before, in the same way.
///
/// # Errors
/// [`ConnectError`]; its [`reason`](ConnectError::reason) goes into the verdict.
pub async fn connect_again(
    permit: &Permit,
    reached: &Reached,
    way: Way<'_>,
    timeout: Duration,
) -> Result<Link, ConnectError> {
    counted(async {
        let hop = way.hop.filter(|hop| !hop.policy().spares(permit.host(), permit.port(), &reached.found));
        if !is_same_way(reached, hop.map(|hop| hop.policy())) {
            return Err(ConnectError::OtherWay);
        }
        if let (Some(addr), Some(hop)) = (reached.addr, way.hop) {
            refuse_hop(&[addr], hop, way.resolver, timeout).await?;
        }
        let check = |addr| check_dial(&[addr], way.ssrf_allow, way.deny);
        let plan = match (hop, reached.addr) {
            (Some(hop), None) if !permit.host().name().is_some_and(|name| way.resolver.knows(name)) => Plan::Name(hop),
            (Some(hop), Some(addr)) => Plan::Through(hop, check(addr)?),
            (None, Some(addr)) => Plan::Direct(check(addr)?),
            (_, None) => return Err(ConnectError::OtherWay),
        };
        Ok(plan.go(permit, way, timeout).await?.0)
    })
    .await
}

/// Whether what was reached may be reached under a policy, and in the same way; no when nobody can say.
#[must_use]
pub fn may_be_reached(reached: &Reached, host: &Host, port: u16, policy: &Policy) -> bool {
    let is_known = |name: &str| known_by(policy, name).is_some();
    is_same_way(reached, policy.next_hop().filter(|hop| !hop.spares(host, port, &reached.found)))
        // What the next hop found is none of what is known here by now.
        && (reached.addr.is_some() || !host.name().is_some_and(is_known))
        && reached.addr.is_none_or(|addr| check_dial(&[addr], policy.ssrf_allow(), policy.denied()).is_ok())
}

/// Whether something was reached through this next hop, or from here where it is none; by its name, only while the next hop
/// resolves.
fn is_same_way(reached: &Reached, hop: Option<&NextHop>) -> bool {
    hop.map(ToString::to_string).as_deref() == reached.via.as_deref()
        && (reached.addr.is_some() || hop.is_some_and(|hop| hop.resolves))
}

/// Who is to connect to what.
enum Plan<'a> {
    /// We, to the first of these that answers.
    Direct(Vec<CheckedAddr>),
    /// The next hop, to the first of these that it reaches.
    Through(&'a Arc<Hop>, Vec<CheckedAddr>),
    /// The next hop, to the name as it resolves it.
    Name(&'a Arc<Hop>),
}

async fn plan<'a>(permit: &Permit, way: Way<'a>, timeout: Duration) -> Result<Plan<'a>, ConnectError> {
    let (host, port) = (permit.host(), permit.port());
    let start = Instant::now();
    if let Some(hop) = way.hop {
        if hop.policy().is(host, port) {
            return Err(ConnectError::IsHop(hop.label().clone()));
        }
        // What is known here is checked here, whoever resolves the rest.
        let is_unknown = host.name().is_some_and(|name| !way.resolver.knows(name));
        if hop.policy().resolves && is_unknown && !hop.policy().spares(host, port, &[]) {
            return Ok(Plan::Name(hop));
        }
    }
    let found = find(host, port, way.resolver, timeout).await?;
    let Some(hop) = way.hop else {
        return Ok(Plan::Direct(check_dial(&found, way.ssrf_allow, way.deny)?));
    };
    refuse_hop(&found, hop, way.resolver, timeout.saturating_sub(start.elapsed())).await?;
    let checked = check_dial(&found, way.ssrf_allow, way.deny)?;
    let ips: Vec<IpAddr> = checked.iter().map(|addr| addr.get().ip()).collect();
    if hop.policy().spares(host, port, &ips) { Ok(Plan::Direct(checked)) } else { Ok(Plan::Through(hop, checked)) }
}

impl Plan<'_> {
    /// What was found, and checked.
    fn checked(&self) -> &[CheckedAddr] {
        match self {
            Self::Direct(checked) | Self::Through(_, checked) => checked,
            Self::Name(_) => &[],
        }
    }

    async fn go(&self, permit: &Permit, way: Way<'_>, timeout: Duration) -> Result<(Link, Reached), ConnectError> {
        let found = || self.checked().iter().map(|addr| addr.get().ip()).collect();
        let (hop, wanted) = match self {
            Self::Direct(checked) => {
                let (stream, addr) = dial(permit, checked, timeout).await?;
                return Ok((Link::Direct(stream), Reached { addr: Some(addr), via: None, found: found() }));
            }
            Self::Through(hop, checked) => {
                refuse_uncovered(permit, checked)?;
                let mut wanted = alternate(checked.iter().map(|addr| addr.get()));
                wanted.truncate(MAX_ASKED);
                (*hop, wanted.into_iter().map(|addr| (Some(addr), Wanted::from(addr))).collect())
            }
            Self::Name(hop) => {
                let wanted = Wanted { host: permit.host().clone(), port: permit.port() };
                (*hop, [(None, wanted)].into())
            }
        };
        let asked = async {
            let places = places(hop, way.resolver, timeout).await?;
            for place in &places {
                // Nothing else is asked of where it is: the operator has named it.
                let is_own = is_own(*place).map_err(|source| DialError::Failed { addr: *place, source })?;
                hop.refuse_open(*place, is_own)?;
            }
            let ask = |(addr, wanted): (Option<SocketAddr>, Wanted)| {
                let (hop, places) = (hop.clone(), alternate(places.iter().copied()));
                let found = found();
                async move {
                    let (stream, _) = any_of(places).await?;
                    let link = hop.ask(stream, &wanted).await?;
                    Ok::<_, HopError>((link, Reached { addr, via: Some(hop.label().clone()), found }))
                }
            };
            let is_final = |error: &HopError| matches!(error, HopError::Login(_));
            race(wanted, STAGGER, ask, is_final).await.unwrap_or(Err(HopError::Dial(DialError::NoAddress)))
        };
        let asked = tokio::time::timeout(timeout, asked).await;
        asked.unwrap_or(Err(HopError::Timeout(timeout))).map_err(hop_failed(hop))
    }
}

/// Refuses addresses at which the next hop itself is.
async fn refuse_hop(
    found: &[SocketAddr],
    hop: &Hop,
    resolver: &Resolver,
    timeout: Duration,
) -> Result<(), ConnectError> {
    if found.iter().all(|addr| addr.port() != hop.policy().port) {
        return Ok(());
    }
    match places(hop, resolver, timeout).await.map_err(hop_failed(hop))?.iter().any(|place| found.contains(place)) {
        true => Err(ConnectError::IsHop(hop.label().clone())),
        false => Ok(()),
    }
}

/// Where the next hop itself is.
async fn places(hop: &Hop, resolver: &Resolver, timeout: Duration) -> Result<Vec<SocketAddr>, HopError> {
    Ok(find(&hop.policy().host, hop.policy().port, resolver, timeout).await?)
}

async fn find(host: &Host, port: u16, resolver: &Resolver, timeout: Duration) -> Result<Vec<SocketAddr>, ResolveError> {
    let found = tokio::time::timeout(timeout, resolver.resolve(host, port)).await;
    found.unwrap_or_else(|_| Err(ResolveError::Timeout { host: host.to_string(), after: timeout }))
}

/// What the policy decides about addresses: by its list, and by their ranges.
fn check_policy(found: &[SocketAddr], ssrf_allow: &[IpNet], deny: &Denied) -> Result<Vec<CheckedAddr>, ConnectError> {
    for addr in found.iter().map(SocketAddr::ip) {
        if let Some(entry) = judged(addr).find_map(|addr| deny.names(&Host::Addr(addr))) {
            return Err(ConnectError::Denied { addr, entry: entry.clone() });
        }
    }
    Ok(check_all(found, ssrf_allow)?)
}

/// All that decides about addresses: the policy, and whether those that look like any other are this host's own.
fn check_dial(found: &[SocketAddr], ssrf_allow: &[IpNet], deny: &Denied) -> Result<Vec<CheckedAddr>, ConnectError> {
    let checked = check_policy(found, ssrf_allow, deny)?;
    let is_open = |addr: &CheckedAddr| ssrf_allow.iter().any(|net| net.contains(&addr.get().ip()));
    for addr in checked.iter().filter(|addr| !is_open(addr)).map(|addr| addr.get()) {
        if is_own(addr).map_err(|source| DialError::Failed { addr, source })? {
            return Err(SsrfDenied { addr, class: Class::Own }.into());
        }
    }
    Ok(checked)
}

#[cfg(test)]
#[path = "way_tests.rs"]
mod tests;
