//! The proxy alone, for clients that ask for it: policy, denials and receipts, and no kernel.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pipelock_receipt::SigningKey;
use serde_json::json;
use tokio::sync::watch as latest;

use super::inspection::Environment;
use super::serving::conclude;
use super::session::SessionError;
use super::tls::rules_of;
use super::watch::{self, Watch, Watched};
use crate::flow::{Account, Asker, Flow, FlowId, Host, Outcome};
use crate::policy::Policy;
use crate::proxy::{Gate, Origins, Proxy, Upstream, serve_explicit, serve_reverse};
use crate::recorder::{Capsule, OpenChain, Place, RecorderConfig, Summary};

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

/// Where clients find the proxy, and who may use it.
pub struct Doors {
    /// The forward proxy and what else is asked of it.
    pub listen: SocketAddr,
    /// Who may use that.
    pub gate: Gate,
    /// The reverse proxy: where it listens, and for whom.
    pub reverse: Option<(SocketAddr, Upstream)>,
    /// Who is asked where the policy wants somebody asked and names no webhook.
    pub terminal: Option<Arc<dyn Asker>>,
}

/// Serves explicit clients that `gate` lets in, and those of the reverse proxy, until `stop`; `ready` is called with the addresses once it listens. Gives back what
/// the chain came to, and the path of the evidence folder if that does not lead to it any more.
///
/// # Errors
/// [`SessionError`]: an address that is taken, evidence that cannot be written.
pub async fn serve_alone(
    policy: Policy,
    evidence: PathBuf,
    key: SigningKey,
    Doors { listen, gate, reverse, terminal }: Doors,
    ready: impl FnOnce(SocketAddr, Option<SocketAddr>),
    stop: impl Future<Output = ()>,
) -> Result<(Summary, Option<PathBuf>), SessionError> {
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(SessionError::Listen)?;
    let address = listener.local_addr().map_err(SessionError::Listen)?;
    let reverse = match reverse {
        None => None,
        Some((listen, upstream)) => {
            let listener = tokio::net::TcpListener::bind(listen).await.map_err(SessionError::Listen)?;
            let address = listener.local_addr().map_err(SessionError::Listen)?;
            Some((listener, address, Arc::new(upstream)))
        }
    };
    let reverse_at = reverse.as_ref().map(|(_, address, _)| *address);
    let rules = rules_of(policy, None, &Environment::Own, None)?;
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
    let (_rules, watched) = latest::channel(Arc::new(rules));
    let proxy = Proxy::new(watched, Arc::new(NoKernel), Arc::new(NoKernel), recorder.clone());
    terminal.into_iter().for_each(|terminal| proxy.asking.at(terminal));
    let watched = Watched { kernel: None, proxy: proxy.clone(), recorder: recorder.clone(), evidence: folder.clone() };
    let _watch = Watch::start(watched, door)?;
    watch::in_force(&policy, 1);
    let serving = tokio::spawn(serve_explicit(listener, proxy.clone(), Arc::new(gate)));
    let reversing =
        reverse.map(|(listener, _, upstream)| tokio::spawn(serve_reverse(listener, proxy.clone(), upstream)));
    ready(address, reverse_at);
    stop.await;
    serving.abort();
    let _ = serving.await;
    if let Some(reversing) = reversing {
        reversing.abort();
        let _ = reversing.await;
    }
    proxy.close(Duration::from_secs(1)).await;
    conclude(&recorder, thread, &folder, "stopped").await
}
