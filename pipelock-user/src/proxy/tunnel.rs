//! A connection that is passed unread, from the moment it is let through to its end.
//!
//! Called by `listen` and `http::inside`. It promises that such a connection ends with its budget, with silence, with
//! the evidence, and with the first policy that would not let it through; and that what ended it has a verdict.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::meter::Meter;
use super::pump::{End, pump};
use super::ssh::Gate;
use super::state::{Proxy, Rules};
use crate::flow::{Host, PolicyId, Reached, Reason, Verdict};
use crate::inspect::Permit;
use crate::net::{Link, connect_again, may_be_reached};
use crate::policy::Protocol;

/// What was let through, in the words of the decision: a new policy is asked the same.
#[derive(Clone, Debug)]
pub(super) struct Tunnel {
    /// The name that decided.
    pub host: Host,
    /// The destination's port.
    pub port: u16,
    /// How it was reached.
    pub dialled: Reached,
    /// True when nobody looks what the bytes are: only a rule for `tcp` allows it, and one for `ssh`, whose handshake is read. Else they are TLS for this host.
    pub is_unseen: bool,
    /// The rule that allowed it, …
    pub rule: String,
    /// … and its policy.
    pub policy: PolicyId,
    /// What it may use, and has used.
    pub meter: Arc<Meter>,
    /// How long it may be silent.
    pub idle: Duration,
}

/// A connection to a destination that shows a certificate for the name which TLS is passed to it for, by `due`. When nobody has
/// asked lately, this one is used up for that, and another takes its place. An address that is no name has none to show.
///
/// # Errors
/// [`Reason::CertificateInvalid`], [`Reason::UpstreamFailed`], or why it cannot be reached once more.
pub(super) async fn shows_name(
    proxy: &Proxy,
    rules: &Rules,
    permit: &Permit,
    (upstream, reached): (Link, &Reached),
    due: Instant,
) -> Result<Link, Verdict> {
    match asked(proxy, (permit.host(), permit.port()), (upstream, reached), due).await? {
        Some(unused) => Ok(unused),
        None => once_more(rules, permit, reached, due).await,
    }
}

/// Makes sure that a destination has shown a certificate for the name; the connection again, unless it was used up for that.
async fn asked(
    proxy: &Proxy,
    (host, port): (&Host, u16),
    (upstream, reached): (Link, &Reached),
    due: Instant,
) -> Result<Option<Link>, Verdict> {
    if matches!(host, Host::Addr(_)) {
        return Ok(Some(upstream));
    }
    let slow = || Verdict::block(Reason::UpstreamFailed, format!("{host} shows no certificate in time"));
    tokio::time::timeout_at(due, proxy.shown.ask(upstream, (host, port), reached)).await.unwrap_or_else(|_| Err(slow()))
}

async fn once_more(rules: &Rules, permit: &Permit, reached: &Reached, due: Instant) -> Result<Link, Verdict> {
    let left = due.saturating_duration_since(Instant::now());
    connect_again(permit, reached, rules.way(), left)
        .await
        .map_err(|error| Verdict::block(error.reason(), error.to_string()))
}

impl Tunnel {
    /// Whether these rules would let it through too, with the gate that it came through.
    fn is_allowed_by(&self, rules: &Rules, gate: Option<&Gate>) -> bool {
        let is_fit = rules.policy.find(&self.host, self.port).is_ok_and(|rule| match rule.protocol() {
            Protocol::Ssh => gate.is_some_and(|gate| gate.would_pass(rule.host_keys())),
            Protocol::Tcp => true,
            _ if self.is_unseen => false,
            _ => rule.unfit(true).is_none() && !rule.wants_reading(),
        });
        is_fit && may_be_reached(&self.dialled, &self.host, self.port, &rules.policy)
    }

    /// Moves bytes until the connection ends; why it was cut, if it was.
    pub(super) async fn carry<A, B>(&self, proxy: &Proxy, mut agent: A, mut upstream: B) -> Option<Verdict>
    where
        A: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        // What decided may be over by now: then the rule of now holds, or the connection is cut for it.
        let gate = proxy.rules().policy.find(&self.host, self.port).ok().and_then(Gate::of);
        let moved = async {
            if let Some(gate) = &gate
                && !gate.pass(&mut agent, &mut upstream, &self.meter, self.idle).await?
            {
                return Ok(End::Done);
            }
            Ok(pump(agent, upstream, &self.meter, self.idle).await)
        };
        let cut = tokio::select! {
            end = moved => match end {
                Ok(End::Done) => return None,
                Ok(End::OverBudget) => self.meter.cut("the connection was cut"),
                Ok(End::Idle) => Verdict::let_out(Reason::IdleTimeout, "the connection was ended"),
                Err(cut) => cut,
            },
            cut = proxy.disallowed(Some(&self.policy), |rules| self.is_allowed_by(rules, gate.as_ref())) => cut,
            cut = proxy.evidence_lost() => cut,
        };
        Some(cut.by(Some(self.rule.clone())))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use super::*;
    use crate::net::Resolver;
    use crate::policy::Policy;
    use crate::proxy::http::world::{World, rules};
    use crate::proxy::meter::Budget;

    fn allows(is_unseen: bool, rule: &str) -> bool {
        let text = format!("version: \"1.0\"\negress: [{rule}]\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n");
        let policy = Policy::parse(&text, "test").expect(rule);
        let tunnel = Tunnel {
            host: Host::parse("a.test").expect("a name"),
            port: 443,
            dialled: SocketAddr::from(([127, 0, 0, 1], 443)).into(),
            is_unseen,
            rule: String::new(),
            policy: policy.id().clone(),
            meter: Meter::new(Budget::default()),
            idle: Duration::from_secs(1),
        };
        let rules = Rules {
            policy,
            resolver: Resolver::new(Box::new(|_| None)),
            hop: None,
            webhook: None,
            tls: None,
            inspect: None,
        };
        let closed = Tunnel { dialled: SocketAddr::from(([10, 0, 0, 1], 443)).into(), ..tunnel.clone() };
        assert!(!closed.is_allowed_by(&rules, None), "an address that ssrf.allow does not open");
        let gate = Gate::of(&rules.policy.rules()[0]);
        let before = Gate::of(&Policy::parse(&text.replace("KEY", "YEK"), "test").expect(rule).rules()[0]);
        assert!(gate.is_none() || !tunnel.is_allowed_by(&rules, before.as_ref()), "other keys were pinned");
        assert!(gate.is_none() || !tunnel.is_allowed_by(&rules, None), "nobody has seen a key");
        tunnel.is_allowed_by(&rules, gate.as_ref())
    }

    #[test]
    fn a_tunnel_is_allowed_by_the_rules_that_would_let_it_through() {
        for (rule, as_tls, as_tcp) in [
            ("{destination: a.test, scan: false}", true, false),
            ("{destination: \"*.test\", scan: false, protocol: tls}", true, false),
            ("{destination: a.test, scan: false, protocol: tcp}", true, true),
            ("{destination: a.test, scan: false, protocol: http}", false, false),
            ("{destination: a.test}", false, false),
            (
                "{destination: a.test, scan: false, protocol: ssh, ports: [443], host_keys: [\"SHA256:KEYaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaA\"]}",
                true,
                true,
            ),
            ("{destination: a.test, scan: false, ports: [8443]}", false, false),
            ("{destination: b.test, scan: false}", false, false),
        ] {
            assert_eq!((allows(false, rule), allows(true, rule)), (as_tls, as_tcp), "{rule}");
        }
    }

    #[tokio::test]
    async fn who_shows_no_certificate_is_waited_for_until_all_is_due() {
        let world = World::new("").await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("bound");
        #[allow(clippy::disallowed_methods, reason = "the test plays the destination")]
        let upstream = tokio::net::TcpStream::connect(addr).await.expect("connect");
        let host = Host::parse("a.test").expect("a name");
        let link = Link::Direct(upstream);
        let asked = asked(&world.proxy, (&host, 443), (link, &addr.into()), Instant::now()).await;
        assert!(asked.is_err_and(|verdict| verdict.reason == Reason::UpstreamFailed));
    }

    #[tokio::test]
    async fn a_policy_is_asked_only_about_what_another_has_decided() {
        let world = World::new("").await;
        let decided = world.rules.borrow().policy.id().clone();
        let asked = std::cell::Cell::new(0);
        let disallowed = world.proxy.disallowed(Some(&decided), |rules| {
            asked.set(asked.get() + 1);
            // Whoever loads one does not wait for this.
            let _ = world.rules.borrow();
            rules.policy.limits().max_connections == 7
        });
        tokio::pin!(disallowed);
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, &mut disallowed).await.is_err() && asked.get() == 0);
        world.rules.send_replace(Arc::new(rules(1, "limits: {max_connections: 7}")));
        assert!(tokio::time::timeout(soon, &mut disallowed).await.is_err() && asked.get() == 1);
        world.rules.send_replace(Arc::new(rules(1, "limits: {max_connections: 8}")));
        assert_eq!((disallowed.await.reason, asked.get()), (Reason::PolicyChanged, 2));
    }
}
