//! The task that owns the signer. It takes what waits, signs it, writes it with one call, and only then acknowledges.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use pipelock_receipt::folder::{EVIDENCE, KEY_HEX, KEY_PEM, POLICY};
use pipelock_receipt::{ChainError, ChainWriter, Closed, Folder, FolderError, Opening, PublicKey, SigningKey};
use tokio::sync::{mpsc, oneshot};

use super::counts::{COUNTS, Counted};
use super::describe::{Capsule, DenialFacts, FlowFacts, KernelTotals, RequestRecord, SocketRecord};
use super::entry::Entry;
use crate::flow::Outcome;

/// What waits for the signer at most; callers beyond that wait themselves.
const QUEUE: usize = 4096;
/// How many are signed before one write.
const BATCH: usize = 256;
/// How long written bytes may wait for the disk. A killed process loses nothing in that time; a power cut may.
const SYNC_EVERY: Duration = Duration::from_millis(500);
/// How often the chain says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(60);

/// Why evidence could not be written.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The folder or a file in it could not be made.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder holds evidence already.
    #[error("{} already holds evidence.jsonl; give another folder with --evidence, evidence is never overwritten", .0.display())]
    Exists(PathBuf),
    /// The task could not be started.
    #[error("the recorder's thread cannot be started: {0}")]
    Thread(#[source] io::Error),
    /// The description of what enforces has no canonical form: a defect in pipelock.
    #[error("the description of what enforces cannot be signed: {0}")]
    Capsule(#[source] pipelock_receipt::canon::JcsError),
    /// The chain broke.
    #[error("the evidence chain cannot be written: {0}")]
    Chain(#[from] ChainError),
    /// The task has ended after such an error.
    #[error("evidence is no longer written; see the error before")]
    Gone,
}

/// What a recorder needs.
pub struct RecorderConfig {
    /// The folder.
    pub folder: Place,
    /// The key that signs.
    pub key: SigningKey,
    /// Hash of the policy at the start.
    pub policy_hash: String,
    /// What enforces.
    pub capsule: Option<Capsule>,
    /// The user that the agent runs as.
    pub contained_uid: Option<u32>,
}

/// Where evidence goes.
#[derive(Debug)]
pub enum Place {
    /// Into this folder, which is made if absent when the chain is opened.
    At(PathBuf),
    /// Into this one, which is held already.
    Held(Folder),
}

/// What the chain came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The folder.
    pub folder: PathBuf,
    /// The end of the chain.
    pub closed: Closed,
    /// The key that signed.
    pub public_key: PublicKey,
}

enum Item {
    /// Time goes by: sync what is written, beat when it is due.
    Tick,
    Entry(Box<Entry>),
    Close(String, oneshot::Sender<Result<Summary, RecorderError>>),
}

/// A chain that is open on disk and has no task yet: so that it can be opened before the agent starts and before
/// capabilities are dropped, which wants a process with one thread.
pub struct OpenChain {
    chain: ChainWriter<File>,
    folder: Arc<Folder>,
}

impl OpenChain {
    /// Makes the folder, opens the chain and makes the disk have its first receipt.
    ///
    /// # Errors
    /// [`RecorderError::Folder`], [`RecorderError::Exists`], [`RecorderError::Chain`].
    pub fn create(config: RecorderConfig) -> Result<Self, RecorderError> {
        let mut folder = match config.folder {
            Place::At(path) => Folder::make(&path)?,
            Place::Held(folder) => folder,
        };
        let file = folder.begin().map_err(|error| match error {
            FolderError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                RecorderError::Exists(folder.path().to_owned())
            }
            error => error.into(),
        })?;
        let mut made = vec![EVIDENCE];
        let opened = open(config.key, config.policy_hash, config.capsule, config.contained_uid, file)
            .and_then(|(chain, policy_hash)| write_first(&folder, &chain, &policy_hash, &mut made).map(|()| chain));
        match opened {
            Ok(chain) => Ok(Self { chain, folder: Arc::new(folder) }),
            Err(error) => {
                // No agent was started: half a receipt would only be taken for evidence.
                folder.discard(&made);
                Err(error)
            }
        }
    }

    /// The folder, held open.
    #[must_use]
    pub fn folder(&self) -> Arc<Folder> {
        self.folder.clone()
    }

    /// The public half of the key that signs.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.chain.public_key()
    }

    /// Starts the task; on a tokio runtime, which gives it the time.
    ///
    /// # Errors
    /// [`RecorderError::Thread`].
    pub fn start(self) -> Result<(Recorder, JoinHandle<()>), RecorderError> {
        crate::telemetry::wait_for_nobody();
        let (queue, items) = mpsc::channel(QUEUE);
        let last = Arc::new(AtomicU64::new(seconds_now()));
        let written = last.clone();
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || work(self.chain, items, self.folder.path(), &written))
            .map_err(RecorderError::Thread)?;
        let weak = queue.downgrade();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SYNC_EVERY).await;
                // A full queue keeps the task busy as it is.
                match weak.upgrade() {
                    Some(queue) if !queue.is_closed() => drop(queue.try_send(Item::Tick)),
                    _ => return,
                }
            }
        });
        Ok((Recorder { queue, lost_requests: Arc::default(), last }, thread))
    }
}

/// The handle to the recorder; cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Item>,
    /// Requests whose receipt was given up before there was room for it in the queue.
    lost_requests: Arc<AtomicU64>,
    /// When the last receipt was written, in seconds since 1970.
    last: Arc<AtomicU64>,
}

/// How the queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// What waits.
    pub waiting: usize,
    /// What may wait.
    pub room: usize,
    /// When the last receipt was written, in seconds since 1970.
    pub last_receipt: u64,
}

/// Counts a receipt as lost when it is dropped before it was queued.
struct Unqueued(Option<Arc<AtomicU64>>);

impl Drop for Unqueued {
    fn drop(&mut self) {
        if let Some(lost) = &self.0 {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Recorder {
    /// False once evidence can no longer be written: then nothing may leave. Asked before anything is sent, since the
    /// receipt of a request is written when its answer is there.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        !self.queue.is_closed()
    }

    /// Waits until evidence can no longer be written.
    pub async fn lost(&self) {
        self.queue.closed().await;
    }

    /// How many requests and queries have no receipt because whoever filed them did not wait until there was room.
    #[must_use]
    pub fn lost_requests(&self) -> u64 {
        self.lost_requests.load(Ordering::Relaxed)
    }

    /// How the queue is at this moment.
    #[must_use]
    pub fn queue(&self) -> Queue {
        let room = self.queue.max_capacity();
        let waiting = room.saturating_sub(self.queue.capacity());
        Queue { waiting, room, last_receipt: self.last.load(Ordering::Relaxed) }
    }

    /// Records a request or query; returns when its receipt is written.
    ///
    /// # Errors
    /// [`RecorderError::Gone`]: then nothing may leave.
    pub async fn request(&self, record: &RequestRecord) -> Result<(), RecorderError> {
        self.append(Entry::of_request(record)).await
    }

    /// Queues a request or query, at once if there is room. The future waits for room if there was none, and then until
    /// the receipt is written; its error is [`RecorderError::Gone`]: then nothing may be answered. Dropped before there was
    /// room, it counts as lost (see [`Self::lost_requests`]).
    pub fn queue_request(
        &self,
        record: &RequestRecord,
    ) -> impl Future<Output = Result<(), RecorderError>> + Send + 'static + use<> {
        let (entry, written) = Entry::of_request(record);
        let left = match self.queue.try_send(Item::Entry(entry)) {
            Ok(()) => None,
            Err(no_room) => Some((unqueued(no_room), Unqueued(Some(self.lost_requests.clone())))),
        };
        let queue = self.queue.clone();
        async move {
            if let Some((item, mut unqueued)) = left {
                queue.send(item).await.map_err(|_| RecorderError::Gone)?;
                unqueued.0 = None;
            }
            written.await.map_err(|_| RecorderError::Gone)
        }
    }

    /// Queues a request as soon as there is room, and does not wait for its receipt.
    ///
    /// # Errors
    /// [`RecorderError::Gone`].
    pub async fn submit(&self, record: &RequestRecord) -> Result<(), RecorderError> {
        self.enqueue(Entry::of_request(record)).await.map(drop)
    }

    /// Queues a flow without waiting for its receipt; the receiver says when it is written.
    ///
    /// # Errors
    /// [`RecorderError::Gone`].
    pub async fn queue_flow(
        &self,
        facts: &FlowFacts,
        outcome: &Outcome,
    ) -> Result<oneshot::Receiver<()>, RecorderError> {
        self.enqueue(Entry::of_flow(facts, outcome)).await
    }

    /// Records refused sockets; blocks until the receipt is written. Not to be called on the runtime's threads.
    ///
    /// # Errors
    /// [`RecorderError::Gone`].
    pub fn socket_blocking(&self, record: &SocketRecord) -> Result<(), RecorderError> {
        let (entry, written) = Entry::new(record.draft(), Counted::Socket(record.count));
        self.queue.blocking_send(Item::Entry(entry)).map_err(|_| RecorderError::Gone)?;
        written.blocking_recv().map_err(|_| RecorderError::Gone)
    }

    /// Queues a count of denials without waiting for its receipt; the receiver says when it is written.
    ///
    /// # Errors
    /// [`RecorderError::Gone`].
    pub async fn queue_denials(&self, facts: &DenialFacts) -> Result<oneshot::Receiver<()>, RecorderError> {
        self.enqueue(Entry::new(facts.draft(), Counted::Denials(facts.count))).await
    }

    /// Records what the kernel counted.
    ///
    /// # Errors
    /// [`RecorderError::Gone`].
    pub async fn totals(&self, totals: &KernelTotals) -> Result<(), RecorderError> {
        self.append(Entry::new(totals.draft(), Counted::Ledger)).await
    }

    /// Ends the chain and makes the disk have it.
    ///
    /// # Errors
    /// Whatever kept the chain from its end.
    pub async fn close(&self, reason: &str) -> Result<Summary, RecorderError> {
        let (done, closed) = oneshot::channel();
        self.queue.send(Item::Close(reason.to_owned(), done)).await.map_err(|_| RecorderError::Gone)?;
        closed.await.map_err(|_| RecorderError::Gone)?
    }

    async fn append(&self, entry: Queued) -> Result<(), RecorderError> {
        self.enqueue(entry).await?.await.map_err(|_| RecorderError::Gone)
    }

    async fn enqueue(&self, (entry, written): Queued) -> Result<oneshot::Receiver<()>, RecorderError> {
        let item = match self.queue.try_send(Item::Entry(entry)) {
            Ok(()) => return Ok(written),
            Err(no_room) => unqueued(no_room),
        };
        self.queue.send(item).await.map_err(|_| RecorderError::Gone)?;
        Ok(written)
    }
}

/// A receipt on its way, and who says when it is written.
type Queued = (Box<Entry>, oneshot::Receiver<()>);

/// What found no room, or nobody any more.
fn unqueued(error: mpsc::error::TrySendError<Item>) -> Item {
    match error {
        mpsc::error::TrySendError::Full(item) => {
            COUNTS.waited.add();
            item
        }
        mpsc::error::TrySendError::Closed(item) => item,
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Writes the first receipt; gives the hash of the policy back that is in it.
fn open(
    key: SigningKey,
    policy_hash: String,
    capsule: Option<Capsule>,
    contained_uid: Option<u32>,
    file: File,
) -> Result<(ChainWriter<File>, String), RecorderError> {
    let mut opening = Opening::new(policy_hash, "local");
    opening.heartbeat_seconds = u32::try_from(HEARTBEAT.as_secs()).unwrap_or(u32::MAX);
    opening.contained_uid = contained_uid;
    if let Some(Capsule(capsule)) = capsule {
        let canonical = pipelock_receipt::canon::jcs(&capsule).map_err(RecorderError::Capsule)?;
        opening.posture_capsule_sha256 = Some(pipelock_receipt::bind::sha256_hex(&canonical));
        opening.ext = Some(serde_json::json!({ "capsule_v1": capsule }));
    }
    let mut chain = ChainWriter::open(file, key, &opening)?;
    chain.sync()?;
    Ok((chain, opening.policy_hash))
}

/// What a verifier needs is there from the start, also for a run that is killed. Adds what it made to `made`.
fn write_first(
    folder: &Folder,
    chain: &ChainWriter<File>,
    policy_hash: &str,
    made: &mut Vec<&'static str>,
) -> Result<(), RecorderError> {
    let key = chain.public_key();
    for (name, text) in
        [(KEY_PEM, key.pem()), (KEY_HEX, format!("{}\n", key.hex())), (POLICY, format!("{policy_hash}\n"))]
    {
        let mut file = folder.create(name)?;
        made.push(name);
        let failed = |source| FolderError::Io { path: folder.path().join(name), source };
        file.write_all(text.as_bytes()).map_err(failed)?;
    }
    Ok(())
}

/// The task: ends at `close`, when every handle is gone, or at the first write that fails. What was not acknowledged
/// then never is: the senders are dropped, and the callers see `Gone`.
fn work(mut chain: ChainWriter<File>, mut items: mpsc::Receiver<Item>, folder: &Path, last: &AtomicU64) {
    let mut waiting: Vec<Box<Entry>> = Vec::with_capacity(BATCH);
    let mut batch = Vec::with_capacity(BATCH);
    let mut last_beat = Instant::now();
    let mut disk = Disk { synced: Instant::now(), is_behind: false };
    loop {
        if items.blocking_recv_many(&mut batch, BATCH) == 0 {
            let _ = chain.sync();
            return;
        }
        for item in batch.drain(..) {
            match item {
                Item::Tick => {}
                Item::Entry(mut entry) => match entry.sign(&mut chain) {
                    Ok(()) => waiting.push(entry),
                    // Not recorded, so not acknowledged; the chain itself is as it was.
                    Err(ChainError::Draft(_) | ChainError::Ext(_) | ChainError::TooLong) => drop(entry),
                    Err(error) => return report(&error),
                },
                Item::Close(reason, done) => {
                    let result = chain.close(&reason, SystemTime::now()).and_then(|closed| {
                        chain.sync()?;
                        Ok(closed)
                    });
                    // After an error they are dropped unacknowledged: what they wait for may not be on disk.
                    if result.is_ok() {
                        acknowledge(&mut waiting);
                    }
                    let _ = done.send(result.map_err(RecorderError::from).map(|closed| Summary {
                        folder: folder.to_owned(),
                        closed,
                        public_key: chain.public_key(),
                    }));
                    return;
                }
            }
        }
        let beats = last_beat.elapsed() >= HEARTBEAT;
        if beats {
            last_beat = Instant::now();
            if let Err(error) = chain.heartbeat(SystemTime::now()) {
                return report(&error);
            }
        }
        let is_new = beats || !waiting.is_empty();
        if let Err(error) = disk.put(&mut chain, is_new) {
            return report(&error);
        }
        if beats {
            COUNTS.beat();
        }
        if is_new {
            last.store(seconds_now(), Ordering::Relaxed);
            acknowledge(&mut waiting);
        }
    }
}

/// Puts what was signed into the file, and now and then onto the disk.
struct Disk {
    /// When that was done last.
    synced: Instant,
    /// Something was written since.
    is_behind: bool,
}

impl Disk {
    fn put(&mut self, chain: &mut ChainWriter<File>, is_new: bool) -> Result<(), ChainError> {
        if is_new {
            let start = Instant::now();
            chain.flush()?;
            COUNTS.write.since(start);
            self.is_behind = true;
        }
        if self.is_behind && self.synced.elapsed() >= SYNC_EVERY {
            let start = Instant::now();
            chain.sync()?;
            COUNTS.sync.since(start);
            *self = Self { synced: start, is_behind: false };
        }
        Ok(())
    }
}

/// What is written is told to whoever waits for it, and then to the log.
#[allow(clippy::vec_box, reason = "they come in boxes, and stay in them")]
fn acknowledge(waiting: &mut Vec<Box<Entry>>) {
    waiting.iter_mut().for_each(|entry| entry.acknowledge());
    waiting.clear();
}

fn report(error: &ChainError) {
    tracing::error!(%error, "evidence can no longer be written: from here on nothing is let through");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_timed_also_when_the_disk_is_due_and_nothing_is_not() {
        let file = tempfile::tempfile().expect("a file");
        let mut chain =
            ChainWriter::open(file, SigningKey::from_seed(&[7; 32]), &Opening::new("p", "local")).expect("a chain");
        let mut disk = Disk { synced: Instant::now(), is_behind: false };
        disk.put(&mut chain, false).expect("nothing");
        assert!(!disk.is_behind);
        disk.put(&mut chain, true).expect("written");
        assert!(disk.is_behind, "the disk is not due yet");
        let before = [COUNTS.write.count(), COUNTS.sync.count()];
        disk.synced -= 2 * SYNC_EVERY;
        disk.put(&mut chain, true).expect("written and synced");
        assert!(!disk.is_behind);
        assert!(COUNTS.write.count() > before[0] && COUNTS.sync.count() > before[1]);
    }
    use crate::flow::{Flow, FlowId, Origin, PolicyId, Reason, Target, Verdict};

    #[tokio::test]
    async fn a_receipt_given_up_before_there_was_room_is_counted_as_lost() {
        let (queue, mut items) = mpsc::channel(1);
        let recorder = Recorder { queue, lost_requests: Arc::default(), last: Arc::default() };
        let origin = Origin {
            cgroup_id: 1,
            netns_cookie: 1,
            socket_cookie: 1,
            pid: 1,
            tgid: 1,
            uid: 1,
            comm: "t".into(),
            identity: None,
            peer: None,
        };
        let target = Target { name: None, original: "192.0.2.53:53".parse().expect("an address") };
        let record = RequestRecord {
            flow: Arc::new(Flow { id: FlowId(1), origin, target, policy: PolicyId("p".into()) }),
            policy: PolicyId("p".into()),
            transport: "dns",
            method: "A".into(),
            target: "dns://a.example".into(),
            verdict: Verdict::allow(Reason::PolicyAllow, None),
            status: None,
            dialled: None,
            part: None,
        };
        let queued = recorder.queue_request(&record);
        let given_up = tokio::time::timeout(Duration::from_millis(10), recorder.queue_request(&record)).await;
        assert!(given_up.is_err());
        assert_eq!(recorder.lost_requests(), 1);
        let waits = tokio::spawn(recorder.queue_request(&record));
        for _ in 0..2 {
            let Some(Item::Entry(mut entry)) = items.recv().await else { panic!("a receipt") };
            entry.acknowledge();
        }
        assert!(queued.await.is_ok() && waits.await.expect("not cancelled").is_ok());
        assert_eq!(recorder.lost_requests(), 1, "what was written in the end is not lost");
        recorder.submit(&record).await.expect("there is room, and nobody has written yet");
        let next = recorder.submit(&record);
        tokio::pin!(next);
        assert!(tokio::time::timeout(Duration::from_millis(10), next.as_mut()).await.is_err(), "there is none");
        items.recv().await.expect("a receipt");
        next.await.expect("now there is");
    }
}
