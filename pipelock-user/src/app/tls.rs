//! What a policy needs to open TLS: its authority and its roots, found before anything is attached.
//!
//! Called by `session`, `serving` and `explicit`. It promises that a policy which wants nothing read needs neither, and
//! that a reload which names the same authority keeps its certificates.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;

use super::folders::state as state_folder;
use super::inspection::{Environment, inspection};
use super::session::SessionError;
use crate::net::{Hop, Login, Resolver, pinned_by};
use crate::policy::{CredentialsIn, HopProtocol, KeyPair, Policy, Protocol};
use crate::proxy::{CaError, CertificateAuthority, Interception, Rules, Secret, Webhook, hop_tls};
use crate::sandbox::served::AgentSockets;

/// The authority of a policy: the one it names, else ours, made on first use.
///
/// # Errors
/// [`CaError`].
pub fn authority(policy: &Policy) -> Result<CertificateAuthority, CaError> {
    match &policy.tls().authority {
        Some(KeyPair { certificate, key }) => {
            CertificateAuthority::given(&policy.locate(certificate), &policy.locate(key))
        }
        None => CertificateAuthority::kept(&state_folder()),
    }
}

/// The file that the certificate of that authority is in.
#[must_use]
pub fn authority_file(policy: &Policy) -> PathBuf {
    match &policy.tls().authority {
        Some(given) => policy.locate(&given.certificate),
        None => CertificateAuthority::file(&state_folder()),
    }
}

/// What decides under a policy that the kernel holds an agent to; as [`rules_of`].
///
/// # Errors
/// [`SessionError::DefaultAllow`] besides.
pub(super) fn enforced(
    policy: Policy,
    former: Option<&Rules>,
    environment: &Environment,
    agent: &Arc<AgentSockets>,
) -> Result<Rules, SessionError> {
    if policy.unnamed().is_some() {
        return Err(SessionError::DefaultAllow);
    }
    rules_of(policy, former, environment, Some(agent))
}

/// What decides under a policy. `former` is what did before, `agent` who must not be taken for the next hop.
///
/// # Errors
/// [`SessionError::Tls`], [`SessionError::Inspection`], [`SessionError::NextHop`], [`SessionError::GivenAway`].
pub(super) fn rules_of(
    policy: Policy,
    former: Option<&Rules>,
    environment: &Environment,
    agent: Option<&Arc<AgentSockets>>,
) -> Result<Rules, SessionError> {
    if let Environment::OfTheAgent(withheld) = environment {
        withheld.refuse_late(&policy)?;
    }
    let outward = outward(&policy)?;
    let hop = next_hop(&policy, agent, outward.as_ref())?;
    let inspect = inspection(&policy, former, environment, hop.as_ref().and_then(|hop| hop.login()))?;
    let opens = |protocol| matches!(protocol, Protocol::Auto | Protocol::Tls);
    let former = former.and_then(|former| former.tls.as_deref());
    // Connections that are open stay readable under a policy which would not open them.
    let is_wanted = policy.all_rules().any(|rule| rule.wants_reading() && opens(rule.protocol()));
    let tls = if is_wanted || former.is_some() {
        let ca = Arc::new(authority(&policy)?);
        let tls = Interception::new(&policy, &ca, former)?;
        tls.prepare(&policy);
        Some(Arc::new(tls))
    } else {
        None
    };
    let webhook = webhook(&policy, hop.as_ref(), outward.as_ref())?;
    let resolver = resolver(&policy);
    Ok(Rules { policy, resolver, hop, webhook, tls, inspect })
}

/// What those who are neither destinations nor the agent are spoken to with over TLS: the next hop, the webhook. Made once for both.
fn outward(policy: &Policy) -> Result<Option<Arc<ClientConfig>>, CaError> {
    let is_wanted = policy.next_hop().is_some_and(|hop| hop.protocol == HopProtocol::Https)
        || policy.ask().webhook.as_ref().is_some_and(|webhook| webhook.is_tls);
    is_wanted.then(|| hop_tls(policy)).transpose()
}

/// The file that the policy keeps something secret in; said when others may read it.
fn kept_in(policy: &Policy, file: &Path, what: &str) -> PathBuf {
    let file = policy.locate(file);
    if file.metadata().is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0) {
        tracing::warn!(file = %file.display(), "others may read {what}: chmod 600");
    }
    file
}

fn resolver(policy: &Policy) -> Resolver {
    let hosts = policy.clone();
    Resolver::new(Box::new(move |name| pinned_by(&hosts, name)))
}

/// Who is asked over HTTP, where the policy wants somebody asked.
fn webhook(
    policy: &Policy,
    hop: Option<&Arc<Hop>>,
    outward: Option<&Arc<ClientConfig>>,
) -> Result<Option<Arc<Webhook>>, SessionError> {
    let Some(webhook) = &policy.ask().webhook else { return Ok(None) };
    let secret = match &webhook.secret {
        CredentialsIn::File(file) => Secret::of_file(&kept_in(policy, file, "the secret of the webhook"))?,
        CredentialsIn::Variable(name) => Secret::of_variable(name)?,
    };
    let tls = outward.filter(|_| webhook.is_tls).cloned();
    Ok(Some(Arc::new(Webhook::new(webhook.clone(), secret, tls, resolver(policy), hop.cloned()))))
}

/// What destinations are reached through, with what it is told of who asks.
fn next_hop(
    policy: &Policy,
    agent: Option<&Arc<AgentSockets>>,
    outward: Option<&Arc<ClientConfig>>,
) -> Result<Option<Arc<Hop>>, SessionError> {
    let Some(hop) = policy.next_hop() else { return Ok(None) };
    let login = match &hop.credentials {
        None => None,
        Some(CredentialsIn::File(file)) => {
            Some(Login::of_file(&kept_in(policy, file, "the credentials for the next hop"))?)
        }
        Some(CredentialsIn::Variable(name)) => Some(Login::of_variable(name)?),
    };
    let login = login.map(|login| login.fit_for(hop.protocol)).transpose()?;
    let tls = outward.filter(|_| hop.protocol == HopProtocol::Https).cloned();
    let mut hop = Hop::new(hop.clone(), login, tls, policy.loopback_ports());
    if let Some(agent) = agent.cloned() {
        hop = hop.never_the_agent(Box::new(move |near, far| agent.serve(near, far)));
    }
    Ok(Some(Arc::new(hop)))
}

/// The next hop of a policy alone.
#[cfg(test)]
pub(super) fn hop_of(policy: &Policy) -> Option<Arc<Hop>> {
    let outward = outward(policy).expect("roots");
    next_hop(policy, None, outward.as_ref()).expect("a next hop")
}
