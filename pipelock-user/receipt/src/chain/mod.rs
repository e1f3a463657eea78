//! Writes the chain of one run: session_open, receipts, heartbeats, session_close, wrapped in recorder entries.
//!
//! Owned by the one task that records. Promises: a receipt gets its number only together with its place in the buffer;
//! buffered lines are written whole, a batch with one call; after a failed write the writer is poisoned and every later
//! call fails, so that a gap can never be followed by more evidence. The clock of the chain never goes back.
//! How far the bytes are safe is the caller's choice: [`ChainWriter::flush`] hands them to the system, `sync` to the disk.

mod ids;
mod types;

use std::fs::File;
use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::Value;
use sha2::{Digest, Sha256};

use self::ids::{Ids, nonce};
pub use self::types::{Appended, ChainError, Closed, Opening};
use crate::body::{self, ActionRecord, Close, Heartbeat, Open, SessionControl};
use crate::canon::text::{clean, clean_value};
use crate::canon::{Timestamp, go_json_into, jcs};
use crate::codec::hex;
use crate::draft::{ActionDraft, MAX_TARGET, blank_record, text};
use crate::entry::{self, Checkpoint, TranscriptRoot, Unplaced};
use crate::sign::SigningKey;
use crate::{MAX_LINE, bind};

/// A checkpoint signs the entry chain after this many entries, and at close.
pub const CHECKPOINT_EVERY: u64 = 1000;
/// The buffer is written out by itself beyond this many bytes.
const MAX_BUFFER: usize = 1 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Closed,
    Poisoned,
}

/// The writer of one run's chain.
pub struct ChainWriter<W> {
    out: W,
    buffer: Vec<u8>,
    state: State,
    key: SigningKey,
    signer_key: String,
    ids: Ids,
    principal: String,
    policy_hash: String,
    session: String,
    run_nonce: String,
    open_nonce: String,
    beat: u64,
    /// Number of the next receipt, hash of the one before, times of the first and the last.
    seq: u64,
    prev_hash: String,
    first_time: Timestamp,
    last_time: Timestamp,
    /// Number of the next entry, hash of the one before, first entry that no checkpoint covers.
    entry_seq: u64,
    entry_prev: String,
    unsigned_from: u64,
    /// The receipt being built; kept for its capacity.
    scratch: Vec<u8>,
}

impl<W: Write> ChainWriter<W> {
    /// Opens a run: makes its nonces and puts session_open into the buffer.
    ///
    /// # Errors
    /// [`ChainError::Random`], and [`ChainError::Ext`] for an unusable `ext`.
    pub fn open(out: W, key: SigningKey, opening: &Opening) -> Result<Self, ChainError> {
        Self::open_with(out, key, opening, nonce()?, nonce()?, Ids::Random)
    }

    fn open_with(
        out: W,
        key: SigningKey,
        opening: &Opening,
        run_nonce: String,
        open_nonce: String,
        ids: Ids,
    ) -> Result<Self, ChainError> {
        let time = Timestamp::from(opening.time);
        let optional = |value: &Option<String>| value.as_deref().map(text).unwrap_or_default();
        let mut open = Open {
            run_nonce: run_nonce.clone(),
            open_nonce: open_nonce.clone(),
            recorder_session: format!("proxy.run.{run_nonce}"),
            policy_hash: text(&opening.policy_hash),
            signer_key_epoch: key.public().hex(),
            heartbeat_seconds: i64::from(opening.heartbeat_seconds),
            genesis_anchor_head: optional(&opening.genesis_anchor_head),
            genesis_anchor_log: optional(&opening.genesis_anchor_log),
            posture_capsule_sha256: optional(&opening.posture_capsule_sha256),
            containment_nonce: optional(&opening.containment_nonce),
            contained_uid: opening.contained_uid.map(|uid| uid.to_string()).unwrap_or_default(),
            ..Open::default()
        };
        open.genesis_hash = bind::genesis(&open);
        let mut writer = Self {
            out,
            buffer: Vec::with_capacity(64 * 1024),
            state: State::Running,
            signer_key: open.signer_key_epoch.clone(),
            key,
            ids,
            principal: text(&opening.principal),
            policy_hash: open.policy_hash.clone(),
            session: open.recorder_session.clone(),
            run_nonce,
            open_nonce,
            beat: 0,
            seq: 0,
            prev_hash: open.genesis_hash.clone(),
            first_time: time,
            last_time: time,
            entry_seq: 0,
            entry_prev: entry::GENESIS.to_owned(),
            unsigned_from: 0,
            scratch: Vec::with_capacity(4096),
        };
        let control = SessionControl { kind: body::OPEN.to_owned(), open: Some(open), ..SessionControl::default() };
        let _ = writer.place(control_record("open", control), opening.ext.as_ref(), time)?;
        Ok(writer)
    }

    /// Puts one receipt into the buffer. The members of `ext` named in [`bind::BOUND_MEMBERS`] are bound to the
    /// signature; strings in it are cleaned first.
    ///
    /// # Errors
    /// [`ChainError`]. After [`ChainError::Draft`], [`ChainError::Ext`] and [`ChainError::TooLong`] the chain is as it
    /// was, and the caller must treat the action as unrecorded; after the others it is at its end.
    pub fn append(&mut self, draft: &ActionDraft, ext: Option<&Value>) -> Result<Appended, ChainError> {
        let mut record = draft.to_record();
        for (name, value) in
            [("target", &record.target), ("verdict", &record.verdict), ("transport", &record.transport)]
        {
            if value.is_empty() {
                return Err(ChainError::Draft(name));
            }
        }
        record.action_id = draft.action_id.as_deref().map(text).unwrap_or_default();
        record.policy_hash = draft.policy_hash.as_deref().map(text).unwrap_or_default();
        let appended = self.place(record, ext, Timestamp::from(draft.time))?;
        self.after_entry(appended)
    }

    /// Puts a sign of life into the buffer.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn heartbeat(&mut self, time: SystemTime) -> Result<Appended, ChainError> {
        let time = Timestamp::from(time).max(self.last_time);
        let heartbeat = Heartbeat {
            run_nonce: self.run_nonce.clone(),
            open_nonce: self.open_nonce.clone(),
            beat: self.beat + 1,
            chain_head: self.prev_hash.clone(),
            chain_seq_head: self.seq.saturating_sub(1),
            heartbeat_time: time.to_string(),
            ..Heartbeat::default()
        };
        let control = SessionControl {
            kind: body::HEARTBEAT.to_owned(),
            heartbeat: Some(heartbeat),
            ..SessionControl::default()
        };
        let appended = self.place(control_record("heartbeat", control), None, time)?;
        self.beat += 1;
        self.after_entry(appended)
    }

    /// Ends the run: session_close, transcript root, checkpoint, and everything handed to the system. Call `sync` next.
    ///
    /// # Errors
    /// As [`Self::append`]; when it fails the run has no provable end.
    pub fn close(&mut self, reason: &str, time: SystemTime) -> Result<Closed, ChainError> {
        let close = Close {
            run_nonce: self.run_nonce.clone(),
            open_nonce: self.open_nonce.clone(),
            final_seq: self.seq,
            root_hash: self.prev_hash.clone(),
            receipt_count: self.seq + 1,
            close_reason: text(reason),
            ..Close::default()
        };
        let control = SessionControl { kind: body::CLOSE.to_owned(), close: Some(close), ..SessionControl::default() };
        let last = self.place(control_record("close", control), None, Timestamp::from(time))?;
        let closed = Closed { final_seq: last.seq, root_hash: last.receipt_hash, receipt_count: self.seq };
        let root = TranscriptRoot {
            session_id: self.session.clone(),
            final_seq: closed.final_seq,
            root_hash: closed.root_hash.clone(),
            receipt_count: closed.receipt_count,
            start_time: self.first_time.to_string(),
            end_time: self.last_time.to_string(),
        };
        let summary = format!(
            "transcript_root: {} receipts, root={}",
            root.receipt_count,
            root.root_hash.get(..16).unwrap_or_default()
        );
        self.write_plain_entry(entry::TRANSCRIPT_ROOT, &summary, &root)?;
        self.checkpoint()?;
        self.flush()?;
        self.state = State::Closed;
        Ok(closed)
    }

    /// Writes everything in the buffer with one call.
    ///
    /// # Errors
    /// [`ChainError::Io`] once, [`ChainError::Poisoned`] from then on.
    pub fn flush(&mut self) -> Result<(), ChainError> {
        if self.state == State::Poisoned {
            return Err(ChainError::Poisoned);
        }
        if !self.buffer.is_empty() {
            let written = self.out.write_all(&self.buffer).and_then(|()| self.out.flush());
            self.guard(written)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Number of receipts so far.
    #[must_use]
    pub fn receipt_count(&self) -> u64 {
        self.seq
    }

    /// The run's nonce, 32 lower-case hex digits.
    #[must_use]
    pub fn run_nonce(&self) -> &str {
        &self.run_nonce
    }

    /// The public key that verifies this chain.
    #[must_use]
    pub fn public_key(&self) -> crate::PublicKey {
        self.key.public()
    }

    /// Where the lines go.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// A failed write ends this writer: what is on disk is unknown from here on.
    fn guard(&mut self, written: io::Result<()>) -> Result<(), ChainError> {
        written.map_err(|error| {
            self.state = State::Poisoned;
            ChainError::Io(error)
        })
    }

    /// Gives `record` its place: signs it, links it, wraps it. Either all of that happens or nothing.
    fn place(
        &mut self,
        mut record: ActionRecord,
        ext: Option<&Value>,
        time: Timestamp,
    ) -> Result<Appended, ChainError> {
        match self.state {
            State::Running => {}
            State::Closed => return Err(ChainError::Closed),
            State::Poisoned => return Err(ChainError::Poisoned),
        }
        let time = time.max(self.last_time);
        let timestamp = time.to_string();
        let ext = ext.map(|ext| clean_value(ext, MAX_TARGET));
        if let Some(ext) = &ext {
            record.precedent_refs = bind::references(ext).map_err(ChainError::Ext)?;
            // The members that are not bound must be readable by everybody too.
            jcs(ext).map_err(ChainError::Ext)?;
        }
        if record.action_id.is_empty() {
            record.action_id = self.ids.next(time)?;
        }
        if record.policy_hash.is_empty() {
            record.policy_hash.clone_from(&self.policy_hash);
        }
        record.principal.clone_from(&self.principal);
        record.timestamp.clone_from(&timestamp);
        record.chain_seq = self.seq;
        record.chain_prev_hash.clone_from(&self.prev_hash);
        record.run_nonce.clone_from(&self.run_nonce);

        let receipt = &mut self.scratch;
        receipt.clear();
        receipt.extend(b"{\"version\":1,\"action_record\":");
        let signed_from = receipt.len();
        go_json_into(receipt, &record)?;
        let digest = Sha256::digest(receipt.get(signed_from..).unwrap_or_default());
        let signature = self.key.sign_hex(&digest);
        for part in [",\"signature\":\"ed25519:", &signature, "\",\"signer_key\":\"", &self.signer_key, "\""] {
            receipt.extend(part.bytes());
        }
        if let Some(ext) = &ext {
            receipt.extend(b",\"ext\":");
            go_json_into(receipt, &**ext)?;
        }
        receipt.push(b'}');
        let receipt_hash = hex(&Sha256::digest(&*receipt));

        let summary = format!("receipt: {} {} {}", record.verdict, record.action_type.word(), record.transport);
        let detail = std::str::from_utf8(&self.scratch).map_err(|_| ChainError::Draft("readable text"))?;
        let unplaced = Unplaced {
            ts: &timestamp,
            session_id: &self.session,
            kind: entry::ACTION_RECEIPT,
            event_kind: record.action_type.word(),
            transport: &record.transport,
            summary: &summary,
            detail,
        };
        let start = self.buffer.len();
        let written = unplaced.write(&mut self.buffer, self.entry_seq, &self.entry_prev);
        let entry_hash = match written {
            Ok(hash) if self.buffer.len() - start <= MAX_LINE => hash,
            failed => {
                self.buffer.truncate(start);
                return Err(failed.map_or_else(ChainError::Encode, |_| ChainError::TooLong));
            }
        };

        let appended = Appended {
            seq: self.seq,
            receipt_hash: receipt_hash.clone(),
            action_id: record.action_id,
            checkpoint: false,
        };
        self.last_time = time;
        self.seq += 1;
        self.prev_hash = receipt_hash;
        self.entry_seq += 1;
        self.entry_prev = entry_hash;
        Ok(appended)
    }

    /// Writes the checkpoint when one is due, and the buffer when it is full.
    fn after_entry(&mut self, mut appended: Appended) -> Result<Appended, ChainError> {
        if self.entry_seq - self.unsigned_from >= CHECKPOINT_EVERY {
            self.checkpoint()?;
            appended.checkpoint = true;
        }
        if self.buffer.len() > MAX_BUFFER {
            self.flush()?;
        }
        Ok(appended)
    }

    fn checkpoint(&mut self) -> Result<(), ChainError> {
        let (first_seq, last_seq) = (self.unsigned_from, self.entry_seq.saturating_sub(1));
        let checkpoint = Checkpoint {
            entry_count: self.entry_seq - first_seq,
            first_seq,
            last_seq,
            signature: self.key.sign_hex(self.entry_prev.as_bytes()),
        };
        let summary = format!("checkpoint: {} entries [seq {first_seq}-{last_seq}]", checkpoint.entry_count);
        self.write_plain_entry(entry::CHECKPOINT, &summary, &checkpoint)?;
        self.unsigned_from = self.entry_seq;
        Ok(())
    }

    /// Puts an entry without a receipt into the buffer.
    fn write_plain_entry<T: serde::Serialize>(
        &mut self,
        kind: &str,
        summary: &str,
        detail: &T,
    ) -> Result<(), ChainError> {
        let detail = serde_json::to_string(detail)?;
        let unplaced = Unplaced {
            ts: &self.last_time.to_string(),
            session_id: &self.session,
            kind,
            event_kind: kind,
            transport: "",
            summary,
            detail: &detail,
        };
        self.entry_prev = unplaced.write(&mut self.buffer, self.entry_seq, &self.entry_prev)?;
        self.entry_seq += 1;
        Ok(())
    }
}

impl ChainWriter<File> {
    /// Flushes, and waits until the disk has the bytes (fdatasync).
    ///
    /// # Errors
    /// As [`Self::flush`]; a failed sync poisons too, since the system may have dropped the pages.
    pub fn sync(&mut self) -> Result<(), ChainError> {
        self.flush()?;
        let synced = self.out.sync_data();
        self.guard(synced)
    }
}

impl<W> std::fmt::Debug for ChainWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainWriter").field("session", &self.session).field("seq", &self.seq).finish_non_exhaustive()
    }
}

/// The record of a lifecycle receipt.
fn control_record(verb: &str, control: SessionControl) -> ActionRecord {
    let target = clean(&format!("pipelock://session/{verb}"), MAX_TARGET).into_owned();
    let mut record = blank_record(target, "allow".to_owned(), "receipt_session".to_owned());
    record.actor = "pipelock".to_owned();
    record.session_control = Some(control);
    record
}

#[cfg(test)]
mod tests;
