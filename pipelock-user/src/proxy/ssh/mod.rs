//! SSH to destinations whose host key is pinned: the handshake is read as it passes by, and cut before the client has seen a key
//! that is not.
//!
//! Called by `tunnel` for connections under a rule with `protocol: ssh`. It promises that the client gets no answer to its key
//! exchange from a server that has not shown a pinned key. That the server holds that key too is proved to the client, which
//! checks the signature under it: a client that does not (one that works with who sits in between) is not stopped by this.

pub(super) mod handshake;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use self::handshake::{Handshake, Refused, Who, goodbye};
use super::meter::{Meter, Metered};
use crate::flow::{Reason, Verdict};
use crate::policy::{Protocol, Rule};

/// How long a handshake may take: it is made by programs, and nobody is asked for anything before its end.
const LIMIT: Duration = Duration::from_secs(60);
/// How long a client may take to take in why it is cut off.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What lets a connection through to a destination whose key is pinned.
#[derive(Debug)]
pub(super) struct Gate {
    pins: Vec<String>,
    label: String,
    /// The fingerprint of the key that was shown.
    shown: OnceLock<String>,
}

impl Gate {
    /// The gate that a rule wants; none when it is none for SSH.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let is_ssh = rule.protocol() == Protocol::Ssh;
        is_ssh.then(|| Self { pins: rule.host_keys().to_vec(), label: rule.label(), shown: OnceLock::new() })
    }

    /// Whether a rule with these keys would let the connection through too: by the key that was shown, if one was.
    pub(super) fn would_pass(&self, pins: &[String]) -> bool {
        match self.shown.get() {
            Some(shown) => pins.contains(shown),
            None => pins == self.pins,
        }
    }

    /// Passes the handshake on until the key was shown; false when either side was done before.
    ///
    /// # Errors
    /// [`Reason::HostKeyDenied`], [`Reason::ProtocolUnknown`], and what the budget or the clock say.
    pub(super) async fn pass<A, B>(
        &self,
        agent: &mut A,
        upstream: &mut B,
        meter: &Arc<Meter>,
        idle: Duration,
    ) -> Result<bool, Verdict>
    where
        A: AsyncRead + AsyncWrite + Unpin,
        B: AsyncRead + AsyncWrite + Unpin,
    {
        let mut upstream = Metered::new(upstream, meter);
        let mut handshake = Handshake::new(&self.pins);
        let since = Instant::now();
        let due = since + LIMIT.min(idle);
        let refused = tokio::select! {
            passed = pass(&mut handshake, agent, &mut upstream) => match passed {
                Ok(is_whole) if !meter.was_cut(since) => {
                    handshake.shown().into_iter().for_each(|shown| drop(self.shown.set(shown.to_owned())));
                    return Ok(is_whole);
                }
                Ok(_) => return Err(meter.cut("the connection was cut")),
                Err(refused) => refused,
            },
            () = meter.time_up() => return Err(meter.cut("the connection was cut")),
            () = tokio::time::sleep_until(due) => {
                return Err(Verdict::let_out(Reason::IdleTimeout, "the SSH handshake did not come to its end"));
            }
        };
        let verdict = self.verdict(&refused);
        let is_servers = matches!(refused, Refused::HostKey(_) | Refused::NotSsh(Who::Server, _));
        if is_servers && handshake.has_greeted(Who::Server) {
            // It waits for a packet, and shows the text of this one; before the line it would take it for that.
            let words = goodbye(&format!("pipelock: {} ({})", verdict.detail, verdict.reason));
            let told = async { (agent.write_all(&words).await, agent.shutdown().await) };
            let _ = tokio::time::timeout(LAST_WORDS, told).await;
        }
        Err(verdict)
    }

    fn verdict(&self, refused: &Refused) -> Verdict {
        let label = &self.label;
        match refused {
            Refused::HostKey(shown) => Verdict::block(
                Reason::HostKeyDenied,
                format!(
                    "the server showed the host key {shown}; if that is the right one, add it to host_keys of {label}"
                ),
            ),
            Refused::NotSsh(Who::Server, what) => Verdict::block(
                Reason::ProtocolUnknown,
                format!("the destination does not shake hands as SSH does: {what}"),
            ),
            Refused::NotSsh(Who::Agent, what) => {
                Verdict::block(Reason::ProtocolUnknown, format!("the client does not shake hands as SSH does: {what}"))
            }
        }
    }
}

/// Moves what may go on until the key was shown: true; false when either side was done, or broke off, before.
async fn pass<A, B>(handshake: &mut Handshake, agent: &mut A, upstream: &mut B) -> Result<bool, Refused>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut said, mut answered) = (BytesMut::new(), BytesMut::new());
    while handshake.shown().is_none() {
        let moved = tokio::select! {
            read = agent.read_buf(&mut said) => match read {
                Ok(1..) => {
                    let (free, judged) = handshake.take(Who::Agent, &said.split());
                    let is_passed = upstream.write_all(&free).await.is_ok() && upstream.flush().await.is_ok();
                    judged.map(|()| is_passed)?
                }
                _ => false,
            },
            read = upstream.read_buf(&mut answered) => match read {
                Ok(1..) => {
                    let (free, judged) = handshake.take(Who::Server, &answered.split());
                    let is_passed = agent.write_all(&free).await.is_ok();
                    judged.map(|()| is_passed)?
                }
                _ => false,
            },
        };
        if !moved {
            return Ok(false);
        }
    }
    // What it had begun to say when the key was shown.
    let (rest, _) = handshake.take(Who::Agent, &[]);
    Ok(upstream.write_all(&rest).await.is_ok() && upstream.flush().await.is_ok())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
