//! The resolver's sockets: takes queries from UDP and TCP, writes the evidence, then replies.
//!
//! The app binds the sockets and runs [`serve_udp`] and [`serve_tcp`] on each; dropping those futures ends all work
//! they started. It promises that the hook which writes the receipt is called before a reply goes out, that a name is
//! looked up only once its receipt is written, and that a reply whose evidence could not be written turns into
//! SERVFAIL; and bounds on everything a client can hold: connections, their life, messages, look-ups.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::flow::Reason;
use crate::proxy::dns::answer::{Answered, NameRules, Outcome, Pending, answer, servfail};
use crate::proxy::dns::lookup::{Lookup, SeenNames};
use crate::proxy::dns::message::MAX_QUERY;
use crate::proxy::dns::pool::Pool;

/// A whole message has to arrive, and a reply to be taken, within this (RFC 7766 §6.2.3 suggests seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Life of a TCP connection; a client that needs more opens another.
const LIFE: Duration = Duration::from_secs(120);
/// TCP connections at once for each listener; others wait in the queue of the kernel.
const MAX_CONNECTIONS: usize = 64;
/// Queries on one TCP connection.
const MAX_QUERIES: u64 = 1024;
/// Look-ups of real addresses at once, over all sockets; more are answered with SERVFAIL.
const MAX_LOOKUPS: usize = 64;
/// How long a look-up may take: stub resolvers give up after 5 s.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Rest after a failing accept or receive, so that a lack of descriptors does not turn into a busy loop.
const BACK_OFF: Duration = Duration::from_millis(50);

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A message on a connection.
    Tcp,
}

/// Who asks, and where: enough to find the flow that the kernel recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The client's socket.
    pub peer: SocketAddr,
    /// Our socket.
    pub local: SocketAddr,
    /// How the query came.
    pub transport: Transport,
}

/// Whether a receipt is written.
pub type Filed<'a> = Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

/// Receives every decision; the recorder's side of the resolver. Called on the runtime's threads: it must not block.
pub trait QueryLog: Send + Sync {
    /// A query was decided; called before the reply is sent. False: the evidence could not be written, so the client
    /// gets SERVFAIL instead.
    fn query(&self, asker: &Asker, outcome: &Answered) -> bool;

    /// An allowed name is about to be looked up. False: its receipt could not be written, so it must not be.
    fn lookup<'a>(&'a self, asker: &'a Asker, outcome: &'a Answered) -> Filed<'a>;

    /// A look-up whose receipt is written came to nothing. False: that could not be recorded.
    fn failed(&self, asker: &Asker, outcome: &Answered) -> bool;

    /// A TCP connection was accepted. False: it is closed at once.
    fn opened(&self, _asker: &Asker) -> bool {
        true
    }

    /// A TCP connection ended, for whatever reason, after this many queries.
    fn closed(&self, _asker: &Asker, _queries: u64) {}
}

/// What all sockets of the resolver share.
pub struct DnsState {
    rules: Arc<dyn NameRules>,
    pool: Arc<Pool>,
    seen: Arc<SeenNames>,
    lookup: Arc<dyn Lookup>,
    log: Arc<dyn QueryLog>,
    places: Arc<Semaphore>,
}

impl DnsState {
    /// The state of a resolver. `rules` is asked anew for each query, so it may follow a policy that is reloaded;
    /// `lookup` and `seen` come into play in real mode only.
    #[must_use]
    pub fn new(
        rules: Arc<dyn NameRules>,
        pool: Arc<Pool>,
        seen: Arc<SeenNames>,
        lookup: Arc<dyn Lookup>,
        log: Arc<dyn QueryLog>,
    ) -> Self {
        Self { rules, pool, seen, lookup, log, places: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }

    fn decide(&self, query: &[u8]) -> Outcome {
        answer(query, self.rules.as_ref(), &self.pool)
    }

    /// Looks a name up, once its receipt is written; the reply that may go out.
    async fn complete(&self, asker: &Asker, query: &[u8], pending: Pending) -> Option<Vec<u8>> {
        let Ok(_place) = self.places.try_acquire() else {
            return self.file(asker, query, pending.refuse(Reason::LimitExceeded));
        };
        if !self.log.lookup(asker, &pending.announced()).await {
            return servfail(query, Reason::RecorderUnavailable);
        }
        let found = timeout(LOOKUP_LIMIT, self.lookup.lookup(pending.name())).await;
        match found.unwrap_or(Err(Reason::ResolveFailed)) {
            Ok(found) => {
                // Before the reply: the agent may connect the moment it has it.
                self.seen.remember(pending.name(), &pending.pick(&found));
                pending.finish(Ok(&found)).reply
            }
            Err(reason) => {
                let answered = pending.finish(Err(reason));
                if self.log.failed(asker, &answered) {
                    answered.reply
                } else {
                    servfail(query, Reason::RecorderUnavailable)
                }
            }
        }
    }

    /// Files the decision; the reply that may go out.
    fn file(&self, asker: &Asker, query: &[u8], answered: Answered) -> Option<Vec<u8>> {
        if self.log.query(asker, &answered) {
            answered.reply
        } else {
            answered.reply.and_then(|_| servfail(query, Reason::RecorderUnavailable))
        }
    }

    async fn handle(&self, asker: &Asker, query: &[u8]) -> Option<Vec<u8>> {
        match self.decide(query) {
            Outcome::Done(answered) => self.file(asker, query, answered),
            Outcome::NeedsLookup(pending) => self.complete(asker, query, pending).await,
        }
    }
}

/// Answers datagrams on `socket`, from the same socket, until dropped.
pub async fn serve_udp(socket: Arc<UdpSocket>, state: Arc<DnsState>) {
    let Ok(local) = socket.local_addr() else { return };
    // One octet more than is accepted, so that a longer datagram is seen to be too long.
    let mut buffer = vec![0u8; MAX_QUERY + 1];
    let mut lookups = JoinSet::new();
    loop {
        while lookups.try_join_next().is_some() {}
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, %local, "receiving a DNS query failed");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        let query = buffer.get(..length).unwrap_or_default();
        let asker = Asker { peer, local, transport: Transport::Udp };
        match state.decide(query) {
            Outcome::Done(answered) => send(&socket, &asker, state.file(&asker, query, answered)).await,
            // Beside the loop: one slow name must not hold up the others. Bounded by the places for look-ups: with
            // none free the task ends without waiting, and the tasks are reaped above.
            Outcome::NeedsLookup(pending) => {
                let (socket, state, query) = (Arc::clone(&socket), Arc::clone(&state), query.to_vec());
                lookups.spawn(async move {
                    send(&socket, &asker, state.complete(&asker, &query, pending).await).await;
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, asker: &Asker, reply: Option<Vec<u8>>) {
    if let Some(reply) = reply
        && let Err(error) = socket.send_to(&reply, asker.peer).await
    {
        tracing::debug!(%error, peer = %asker.peer, "sending a DNS reply failed");
    }
}

/// Answers connections to `listener` until dropped.
pub async fn serve_tcp(listener: TcpListener, state: Arc<DnsState>) {
    let Ok(local) = listener.local_addr() else { return };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let asker = Asker { peer, local, transport: Transport::Tcp };
                let mut conversation = Conversation { asker, state: Arc::clone(&state), queries: 0 };
                connections.spawn(async move {
                    // The client sees an end of stream for whatever went wrong.
                    let _ = timeout(LIFE, conversation.run(stream)).await;
                    drop(conversation);
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, %local, "accepting a DNS connection failed");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}

/// One TCP connection; its end is told to the log even when the task is dropped.
struct Conversation {
    asker: Asker,
    state: Arc<DnsState>,
    queries: u64,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.state.log.closed(&self.asker, self.queries);
    }
}

impl Conversation {
    async fn run(&mut self, mut stream: TcpStream) -> io::Result<()> {
        if !self.state.log.opened(&self.asker) {
            return Ok(());
        }
        stream.set_nodelay(true)?;
        let mut query = Vec::new();
        while self.queries < MAX_QUERIES {
            match timeout(IDLE, read_message(&mut stream, &mut query)).await? {
                Ok(()) => {}
                Err(error) => {
                    // The stream cannot be read on after a length that was not believed.
                    if error.kind() == io::ErrorKind::InvalidData {
                        self.queries += 1;
                        let answered = Answered::malformed(None, "longer than any query");
                        self.state.file(&self.asker, &[], answered);
                    }
                    return Err(error);
                }
            }
            self.queries += 1;
            if let Some(reply) = self.state.handle(&self.asker, &query).await {
                timeout(IDLE, write_message(&mut stream, &reply)).await??;
            }
        }
        stream.shutdown().await
    }
}

/// Reads one message with its length before it (RFC 1035 §4.2.2).
async fn read_message(stream: &mut TcpStream, message: &mut Vec<u8>) -> io::Result<()> {
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_QUERY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    message.resize(length, 0);
    stream.read_exact(message).await.map(|_| ())
}

/// Writes length and message in one piece: some clients take two segments for two messages (RFC 7766 §8).
async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
