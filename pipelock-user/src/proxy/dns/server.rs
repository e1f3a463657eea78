//! The resolver's sockets: takes queries from UDP and TCP, writes the evidence, then replies.
//!
//! The app binds the sockets and runs [`serve_udp`] and [`serve_tcp`] on each; dropping those futures ends all work
//! they started. It promises that a reply goes out, and a name is looked up, only once its receipt is written, and
//! that a reply whose receipt was not written in time turns into SERVFAIL; and bounds on everything a client can hold:
//! connections, their life, messages, look-ups, replies that wait for their receipt.

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

use crate::flow::{Flow, Reason};
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
/// How long a name waits for the scanner that is to read it, which the first time on a machine is compiled.
const SCANNER_LIMIT: Duration = Duration::from_secs(4);
/// Datagrams at once whose reply waits for a receipt or a look-up, for each socket; with none free no more are received,
/// and the kernel's queue holds what comes. Above [`MAX_LOOKUPS`], so that slow names hold up nobody.
const MAX_WAITING: usize = 256;
/// How long a receipt may take to be written: less than stub resolvers wait, so that they are told of it.
const RECEIPT_LIMIT: Duration = Duration::from_secs(2);
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
#[derive(Clone, Debug)]
pub struct Asker {
    /// The client's socket.
    pub peer: SocketAddr,
    /// Our socket.
    pub local: SocketAddr,
    /// How the query came.
    pub transport: Transport,
    /// The flow of a TCP connection, once [`QueryLog::opened`] has found it. Kept here and not looked up by `peer`: a client
    /// that resets may use its port again before we have seen the end of the connection before.
    pub flow: Option<Arc<Flow>>,
}

/// Resolves once a receipt is written, to true, or cannot be.
pub type Filed = Pin<Box<dyn Future<Output = bool> + Send>>;

/// Receives every decision; the recorder's side of the resolver. Called on the runtime's threads: it must not block.
pub trait QueryLog: Send + Sync {
    /// A query was decided. Its receipt is on its way when this returns; before it is written neither a reply is sent nor
    /// a name looked up.
    fn query(&self, asker: &Asker, outcome: &Answered) -> Filed;

    /// A look-up whose receipt is written came to nothing: the same for the receipt that says so.
    fn failed(&self, asker: &Asker, outcome: &Answered) -> Filed;

    /// A TCP connection was accepted; notes its flow. False: it is closed at once.
    fn opened(&self, _asker: &mut Asker) -> bool {
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

    /// Whether it would be decided, or told of in the receipt, otherwise once names can be read.
    fn is_early(&self, outcome: &Outcome) -> bool {
        matches!(outcome, Outcome::NotYet(_)) || outcome.host().is_some_and(|host| self.rules.is_early(host))
    }

    /// The same once names can be read, or after a wait that stub resolvers bear. As many may wait as may be looked up.
    async fn decide_late(&self, query: &[u8], early: Outcome) -> Outcome {
        let Ok(_place) = self.places.try_acquire() else { return early };
        let _ = timeout(SCANNER_LIMIT, self.rules.ready()).await;
        self.decide(query)
    }

    /// Looks a name up, once its receipt is written; the reply that may go out.
    async fn complete(&self, asker: &Asker, query: &[u8], pending: Pending) -> Option<Vec<u8>> {
        let Ok(_place) = self.places.try_acquire() else {
            let refused = pending.refuse(Reason::LimitExceeded);
            return release(self.log.query(asker, &refused), query, refused.reply).await;
        };
        if !is_written(self.log.query(asker, &pending.announced())).await {
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
                release(self.log.failed(asker, &answered), query, answered.reply).await
            }
        }
    }

    async fn handle(&self, asker: &Asker, query: &[u8]) -> Option<Vec<u8>> {
        self.settle(asker, query, self.decide(query)).await
    }

    /// What a decision comes to: the reply that may go out.
    async fn settle(&self, asker: &Asker, query: &[u8], mut outcome: Outcome) -> Option<Vec<u8>> {
        if self.is_early(&outcome) {
            outcome = self.decide_late(query, outcome).await;
        }
        match outcome {
            Outcome::Done(answered) | Outcome::NotYet(answered) => {
                release(self.log.query(asker, &answered), query, answered.reply).await
            }
            Outcome::NeedsLookup(pending) => self.complete(asker, query, pending).await,
        }
    }
}

/// Whether the receipt is written in time. One that is written later says of a reply that did not go out that it did:
/// wrong on the safe side.
async fn is_written(filed: Filed) -> bool {
    timeout(RECEIPT_LIMIT, filed).await.unwrap_or(false)
}

/// The reply that may go out once the receipt is written or cannot be.
async fn release(filed: Filed, query: &[u8], reply: Option<Vec<u8>>) -> Option<Vec<u8>> {
    if is_written(filed).await { reply } else { reply.and_then(|_| servfail(query, Reason::RecorderUnavailable)) }
}

/// Answers datagrams on `socket`, from the same socket, until dropped.
pub async fn serve_udp(socket: Arc<UdpSocket>, state: Arc<DnsState>) {
    let Ok(local) = socket.local_addr() else { return };
    // One octet more than is accepted, so that a longer datagram is seen to be too long.
    let mut buffer = vec![0u8; MAX_QUERY + 1];
    let places = Arc::new(Semaphore::new(MAX_WAITING));
    let mut waiting = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        while waiting.try_join_next().is_some() {}
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, %local, "receiving a DNS query failed");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        let query = buffer.get(..length).unwrap_or_default();
        let asker = Asker { peer, local, transport: Transport::Udp, flow: None };
        // Beside the loop: neither a slow name nor a receipt on its way holds up the others.
        let (socket, query) = (Arc::clone(&socket), query.to_vec());
        match state.decide(&query) {
            Outcome::Done(answered) if !answered.name.as_ref().is_some_and(|host| state.rules.is_early(host)) => {
                let filed = state.log.query(&asker, &answered);
                waiting.spawn(async move {
                    send(&socket, &asker, release(filed, &query, answered.reply).await).await;
                    drop(place);
                });
            }
            outcome => {
                let state = Arc::clone(&state);
                waiting.spawn(async move {
                    send(&socket, &asker, state.settle(&asker, &query, outcome).await).await;
                    drop(place);
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
                let asker = Asker { peer, local, transport: Transport::Tcp, flow: None };
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
        if !self.state.log.opened(&mut self.asker) {
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
                        let _ = is_written(self.state.log.query(&self.asker, &answered)).await;
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
