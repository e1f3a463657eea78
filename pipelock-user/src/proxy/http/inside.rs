//! What is inside a tunnel that a client of the explicit proxy asked for.
//!
//! Called by `explicit` once CONNECT was answered. It promises the judgement of the transparent path, under the name that the tunnel
//! was asked for: HTTP is decided request by request, TLS for that name is opened or passed as its rule says, and all else goes
//! nowhere, unless the rule is for `tcp` or `ssh`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::authority::Authority;
use super::serve::{serve, serve_http2};
use crate::flow::{Flow, Host, Reason, Target, Verdict};
use crate::inspect::permit_flow;
use crate::net::Link;
use crate::proxy::detect::{Protocol, detect, unknown};
use crate::proxy::intercept::intercept;
use crate::proxy::listen::{dial_limit, refuse_in};
use crate::proxy::prefixed::Prefixed;
use crate::proxy::state::{Proxy, Rules};
use crate::proxy::tls::{self, Hello};
use crate::proxy::tunnel::{Tunnel, shows_name};

/// A tunnel that was granted.
pub(super) struct Inside {
    /// What it was asked for.
    pub(super) authority: Authority,
    /// The rule that allows it.
    pub(super) rule: String,
    /// Where what nobody reads goes; none when the rule wants all of it read.
    pub(super) unread: Option<(Tunnel, Link)>,
}

impl Inside {
    /// Serves what the client says in it, of which `buffer` came with the request; what ended it, unless its requests have said
    /// so.
    pub(super) async fn serve(
        self,
        proxy: &Arc<Proxy>,
        flow: &Flow,
        mut stream: TcpStream,
        mut buffer: BytesMut,
    ) -> Option<Verdict> {
        let unread = match self.unread {
            // The destination may be the first to speak.
            Some((tunnel, upstream)) if tunnel.is_unseen => {
                return tunnel.carry(proxy, Prefixed::new(buffer, stream), upstream).await;
            }
            unread => unread,
        };
        let Authority { host, port } = self.authority;
        // Nobody's word is taken for an address here: the name is resolved anew for every connection that is made.
        let target = Target { name: Some(host.clone()), original: (Ipv4Addr::UNSPECIFIED, port).into() };
        let flow = Arc::new(Flow { target, ..flow.clone() });
        let rules = proxy.rules();
        let due = Instant::now() + rules.policy.limits().detect();
        let spoken = detect(&mut stream, &mut buffer, due).await;
        let denied = match &spoken {
            Ok(Protocol::Http1) => return Box::pin(serve(proxy, stream, buffer, flow, None, false)).await,
            Ok(Protocol::Http2) => return Box::pin(serve_http2(proxy, stream, buffer, flow, None, false)).await,
            Ok(Protocol::Unknown) => unknown(&buffer),
            Err(error) => error.verdict(),
            Ok(Protocol::Tls) => match hello_for(&rules, (&host, port), &mut stream, &mut buffer, due).await {
                Err(denied) => denied,
                Ok(hello) => match (unread, &rules.tls) {
                    (Some((tunnel, upstream)), _) => match passed(proxy, &rules, &hello, &tunnel, upstream).await {
                        Ok(upstream) => return tunnel.carry(proxy, Prefixed::new(buffer, stream), upstream).await,
                        Err(denied) => denied,
                    },
                    (None, Some(tls)) => {
                        let stream = Prefixed::new(buffer, stream);
                        return Box::pin(intercept(proxy, tls, self.rule, host, stream, &flow, None)).await;
                    }
                    (None, None) => {
                        Verdict::block(Reason::InspectionUnavailable, "TLS is not opened under this policy")
                    }
                },
            },
        };
        let denied = denied.by(Some(self.rule));
        refuse_in(spoken.ok(), &mut stream, &flow, &denied).await;
        Some(denied)
    }
}

/// The hello of TLS for the host that the tunnel was asked for, where its rule lets TLS in.
async fn hello_for(
    rules: &Rules,
    (host, port): (&Host, u16),
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    due: Instant,
) -> Result<Hello, Verdict> {
    let hello = tls::sniff(stream, buffer, due).await.map_err(|error| error.verdict())?;
    if hello.name.as_ref().is_some_and(|name| name != host) {
        let detail = format!("the tunnel was asked for {host}, TLS names another host");
        return Err(Verdict::block(Reason::NameMismatch, detail));
    }
    match rules.policy.find(host, port).ok().and_then(|rule| rule.unfit(true)) {
        Some(unfit) => Err(Verdict::block(Reason::ProtocolUnknown, unfit)),
        None => Ok(hello),
    }
}

/// The way out for TLS that nobody reads: it names its host and hides no other, and whoever it goes to shows a certificate for its own.
async fn passed(
    proxy: &Arc<Proxy>,
    rules: &Rules,
    hello: &Hello,
    tunnel: &Tunnel,
    upstream: Link,
) -> Result<Link, Verdict> {
    hello.shows_all(&tunnel.host)?;
    let allowed = Verdict::allow(Reason::PolicyAllow, Some(tunnel.rule.clone()));
    let permit = permit_flow(&allowed, tunnel.host.clone(), tunnel.port)?;
    let due = Instant::now() + dial_limit(rules);
    shows_name(proxy, rules, &permit, (upstream, &tunnel.dialled), due).await
}

#[cfg(test)]
#[path = "inside_tests.rs"]
pub(super) mod tests;
