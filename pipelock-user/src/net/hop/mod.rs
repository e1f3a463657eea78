//! The next hop: a proxy of the network's that is asked to connect to destinations.
//!
//! Made by `app` from the policy; called by `net::way` with what was decided and checked. It promises that what the next hop
//! answers is read to a bound and in a time, that no byte behind its answer is lost, that what it said stands in the error in our
//! words alone, and that the credentials are sent to it and to nobody else, the agent in its place least of all.

mod connect;
mod login;
mod socks;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::flow::Host;
use crate::net::dial::DialError;
use crate::net::greet::{Greeting, server_name};
use crate::net::link::Link;
use crate::net::resolve::ResolveError;
use crate::policy::{HopProtocol, NextHop};

pub use login::{Login, LoginError};

/// Why the next hop did not connect us.
#[derive(Debug, thiserror::Error)]
pub enum HopError {
    /// Its own name has no address.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It is a service of this host that the policy lets the agent reach.
    #[error("{0} is this host, and loopback.allow opens the port, so the agent would reach it too; take it out there")]
    Open(SocketAddr),
    /// Who listens there is the agent.
    #[error("{0} is served by the agent itself, so nothing was said to it; see that the next hop is up")]
    Agent(SocketAddr),
    /// Nobody can say whether it is the agent.
    #[error("whether {addr} is served by the agent itself cannot be found out: {source}")]
    Unknown {
        /// Where it is.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// It did not agree on TLS.
    #[error("TLS with it failed: {0}")]
    Tls(String),
    /// The connection broke off before it had answered.
    #[error("it broke off: {0}")]
    Broken(#[source] io::Error),
    /// What it said is not what a proxy of its kind says.
    #[error("it answered with something else than {expected}: {what}")]
    Malformed {
        /// What was expected of it.
        expected: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// No connection came about in time.
    #[error("it did not connect us within {} s", .0.as_millis().div_ceil(1000))]
    Timeout(Duration),
    /// It said no.
    #[error("it said {0}")]
    Refused(String),
    /// It does not take who we say we are: asked again it would say the same, and may lock the account.
    #[error("it said {0}")]
    Login(String),
}

/// What the next hop is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::net) struct Wanted {
    pub host: Host,
    pub port: u16,
}

impl From<SocketAddr> for Wanted {
    fn from(addr: SocketAddr) -> Self {
        Self { host: Host::from(addr.ip()), port: addr.port() }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Tells by a connection's near and far address whether it is the agent that serves the far end.
pub type IsAgents = Box<dyn Fn(SocketAddr, SocketAddr) -> io::Result<bool> + Send + Sync>;

/// A next hop, ready to be asked.
pub struct Hop {
    policy: NextHop,
    label: Arc<str>,
    login: Option<Login>,
    tls: Option<Arc<ClientConfig>>,
    /// Loopback ports that the agent reaches directly.
    open_ports: Vec<u16>,
    is_agents: Option<IsAgents>,
}

fn greeting(error: &io::Error) -> HopError {
    HopError::Tls(match Greeting::of(error) {
        Greeting::Certificate(why) => format!("its certificate: {why}"),
        Greeting::WantsOurs => "it wants a certificate of ours, and none is shown to next hops".into(),
        Greeting::Failed(why) => why,
    })
}

impl Hop {
    /// The next hop of a policy, with what it is told of who asks; `tls` is what an `https://` one is verified with, `open_ports`
    /// the loopback ports that the agent reaches itself.
    #[must_use]
    pub fn new(policy: NextHop, login: Option<Login>, tls: Option<Arc<ClientConfig>>, open_ports: &[u16]) -> Self {
        let label = policy.to_string().into();
        Self { policy, label, login, tls, open_ports: open_ports.to_vec(), is_agents: None }
    }

    /// The same, which says nothing to the agent should that have taken its place.
    #[must_use]
    pub fn never_the_agent(mut self, is_agents: IsAgents) -> Self {
        self.is_agents = Some(is_agents);
        self
    }

    /// What the policy says of it.
    #[must_use]
    pub fn policy(&self) -> &NextHop {
        &self.policy
    }

    /// What it is told of who asks.
    #[must_use]
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// How receipts name it.
    #[must_use]
    pub fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// Refuses an address of it that the agent reaches without us.
    pub(in crate::net) fn refuse_open(&self, addr: SocketAddr, is_own: bool) -> Result<(), HopError> {
        let is_here = is_own || addr.ip().to_canonical().is_loopback();
        if is_here && self.open_ports.contains(&addr.port()) { Err(HopError::Open(addr)) } else { Ok(()) }
    }

    /// Refuses a connection to where it is that the agent took.
    fn refuse_agent(&self, stream: &TcpStream) -> Result<(), HopError> {
        let Some(is_agents) = &self.is_agents else { return Ok(()) };
        let (near, far) =
            (stream.local_addr().map_err(HopError::Broken)?, stream.peer_addr().map_err(HopError::Broken)?);
        match is_agents(near, far) {
            Ok(false) => Ok(()),
            Ok(true) => Err(HopError::Agent(far)),
            Err(source) => Err(HopError::Unknown { addr: far, source }),
        }
    }

    /// Asks on a connection to it for one to `wanted`.
    pub(in crate::net) async fn ask(&self, stream: TcpStream, wanted: &Wanted) -> Result<Link, HopError> {
        self.refuse_agent(&stream)?;
        match (self.policy.protocol, &self.tls) {
            (HopProtocol::Socks5, _) => self.socks(stream, wanted).await,
            (HopProtocol::Http, _) => self.connect(stream, wanted).await,
            (HopProtocol::Https, Some(config)) => {
                let name = server_name(&self.policy.host).map_err(|error| greeting(&error))?;
                let greeted = TlsConnector::from(config.clone()).connect(name, stream).await;
                self.connect(greeted.map_err(|error| greeting(&error))?, wanted).await
            }
            (HopProtocol::Https, None) => Err(HopError::Tls("nothing to verify it with was loaded".into())),
        }
    }

    async fn connect<S>(&self, stream: S, wanted: &Wanted) -> Result<Link, HopError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Ok(Link::via(connect::ask(stream, wanted, self.login.as_ref()).await?))
    }

    async fn socks(&self, mut stream: TcpStream, wanted: &Wanted) -> Result<Link, HopError> {
        socks::ask(&mut stream, wanted, self.login.as_ref()).await?;
        Ok(Link::Direct(stream))
    }
}
