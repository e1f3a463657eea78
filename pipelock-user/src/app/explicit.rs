//! The proxy alone, for clients that ask for it: policy, denials and receipts, and no kernel.
//!
//! Started by `cli::alone`. It promises that a policy which cannot be put in force changes nothing.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipelock_receipt::{Folder, SigningKey};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch as latest;
use tokio::task::JoinHandle;

use super::inspection::Environment;
use super::serving::conclude;
use super::session::SessionError;
use super::tls::rules_of;
use super::watch::{self, Watch, Watched};
use crate::flow::{Account, Asker, Flow, FlowId, Host, Outcome};
use crate::policy::Policy;
use crate::proxy::{Gate, Origins, Proxy, Rules, Upstream, serve_explicit, serve_reverse};
use crate::recorder::{Capsule, OpenChain, Place, Recorder, RecorderConfig, Summary};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Nobody is behind an explicit connection: the kernel was not asked.
struct NoKernel;

impl Origins for NoKernel {
    fn take(&self, _: u64, _: SocketAddr) -> Option<Flow> {
        None
    }

    fn names_of(&self, _: IpAddr) -> Vec<Host> {
        Vec::new()
    }

    fn is_stale(&self, _: IpAddr) -> bool {
        false
    }
}

impl Account for NoKernel {
    fn accept(&self, _: FlowId) -> bool {
        false
    }

    fn report(&self, _: FlowId, _: Outcome) {}
}

/// Where clients find the proxy, and who may use it. The addresses are ours already.
pub struct Doors {
    /// The forward proxy and what else is asked of it.
    pub listen: Bound,
    /// Who may use that.
    pub gate: Arc<Gate>,
    /// Their tokens, each with what findings call it.
    pub tokens: Arc<[(String, Vec<u8>)]>,
    /// The reverse proxy: where it listens, and for whom.
    pub reverse: Option<(Bound, Upstream)>,
    /// Who is asked where the policy wants somebody asked and names no webhook.
    pub terminal: Option<Arc<dyn Asker>>,
}

/// An address that nobody else can have any more, since we listen there, and where nobody is heard yet: it may need a privilege that
/// is given up before.
pub struct Bound(std::net::TcpListener);

impl Bound {
    /// Takes an address.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn at(address: SocketAddr) -> std::io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        // Until then another one that reuses addresses could come before us.
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket.into()))
    }

    fn open(self) -> Result<(TcpListener, SocketAddr), SessionError> {
        let listener = TcpListener::from_std(self.0).map_err(SessionError::Listen)?;
        let address = listener.local_addr().map_err(SessionError::Listen)?;
        Ok((listener, address))
    }
}

/// The proxy in service.
pub struct Alone {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where the reverse proxy does.
    pub reverse: Option<SocketAddr>,
    rules: latest::Sender<Arc<Rules>>,
    /// Of the clients, for the scanners of a policy to come.
    tokens: Arc<[(String, Vec<u8>)]>,
    generation: u32,
    proxy: Arc<Proxy>,
    watch: Watch,
    recorder: Recorder,
    thread: std::thread::JoinHandle<()>,
    folder: Arc<Folder>,
    tasks: Vec<JoinHandle<()>>,
}

impl Alone {
    /// Serves explicit clients that the gate lets in, and those of the reverse proxy, from now on.
    ///
    /// # Errors
    /// [`SessionError`]: a policy that cannot be put in force, evidence that cannot be written.
    pub fn start(policy: Policy, evidence: PathBuf, key: SigningKey, doors: Doors) -> Result<Self, SessionError> {
        let Doors { listen, gate, tokens, reverse, terminal } = doors;
        let (listener, address) = listen.open()?;
        let reverse = match reverse {
            None => None,
            Some((bound, upstream)) => {
                let (listener, address) = bound.open()?;
                Some((listener, address, Arc::new(upstream)))
            }
        };
        let reverse_at = reverse.as_ref().map(|(_, address, _)| *address);
        let clients = Environment::Clients { tokens: tokens.clone(), are_new: true };
        let rules = rules_of(policy, None, &clients, None)?;
        let door = watch::door(&rules.policy)?;
        let policy = rules.policy.clone();
        let mut limits = policy.warnings();
        limits.push("no kernel enforcement: only clients that use the proxy are seen".into());
        let chain = OpenChain::create(RecorderConfig {
            folder: Place::At(evidence),
            key,
            policy_hash: policy.id().to_string(),
            capsule: Some(Capsule(json!({
                "pipelock": env!("CARGO_PKG_VERSION"),
                "mode": "explicit",
                "level": "none",
                "listen": address.to_string(),
                "tokens": gate.is_closed(),
                "reverse": reverse.as_ref().map(|(_, address, upstream)| json!({
                    "listen": address.to_string(),
                    "upstream": format!("{}:{}", upstream.host(), upstream.port()),
                })),
                "policy_source": policy.source(),
                "next_hop": policy.next_hop().map(ToString::to_string),
                "not_enforced": limits,
            }))),
            contained_uid: None,
        })?;
        let folder = chain.folder();
        let (recorder, thread) = chain.start()?;
        if let Some(inspect) = &rules.inspect {
            inspect.start();
        }
        let (rules, watched) = latest::channel(Arc::new(rules));
        let proxy = Proxy::new(watched, Arc::new(NoKernel), Arc::new(NoKernel), recorder.clone());
        terminal.into_iter().for_each(|terminal| proxy.asking.at(terminal));
        let watched =
            Watched { kernel: None, proxy: proxy.clone(), recorder: recorder.clone(), evidence: folder.clone() };
        let watch = Watch::start(watched, door)?;
        watch::in_force(&policy, 1);
        let mut tasks = vec![tokio::spawn(serve_explicit(listener, proxy.clone(), gate))];
        if let Some((listener, _, upstream)) = reverse {
            tasks.push(tokio::spawn(serve_reverse(listener, proxy.clone(), upstream)));
        }
        let generation = 1;
        Ok(Self {
            address,
            reverse: reverse_at,
            rules,
            tokens,
            generation,
            proxy,
            watch,
            recorder,
            thread,
            folder,
            tasks,
        })
    }

    /// Puts another policy in force, for connections that are open as well, and has these tokens looked for.
    ///
    /// # Errors
    /// [`SessionError`]: the old one stays in force.
    pub fn reload(&mut self, policy: Policy, tokens: Arc<[(String, Vec<u8>)]>) -> Result<(), SessionError> {
        let former = self.rules.borrow().clone();
        let clients = Environment::Clients { tokens: tokens.clone(), are_new: tokens != self.tokens };
        let rules = rules_of(policy, Some(&former), &clients, None)?;
        let listening = self.watch.prepare(&rules.policy)?;
        self.tokens = tokens;
        self.generation = self.generation.saturating_add(1);
        self.watch.put_in_force(rules, self.generation, listening, &self.rules);
        Ok(())
    }

    /// Ends it. Gives back what the chain came to, and the path of the evidence folder if that does not lead to it any more.
    ///
    /// # Errors
    /// [`SessionError`]: evidence that cannot be completed.
    pub async fn end(self) -> Result<(Summary, Option<PathBuf>), SessionError> {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.proxy.close(Duration::from_secs(1)).await;
        conclude(&self.recorder, self.thread, &self.folder, "stopped").await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_taken_is_nobody_elses() {
        let bound = Bound::at(SocketAddr::from(([127, 0, 0, 1], 0))).expect("taken");
        let address = bound.0.local_addr().expect("bound");
        let other = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        other.set_reuse_address(true).expect("set");
        assert!(other.bind(&address.into()).and_then(|()| other.listen(BACKLOG)).is_err());
    }
}
