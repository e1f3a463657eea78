//! The recorder entries around the receipts: the outer hash chain, its checkpoints, the transcript root.
//!
//! The entry hash covers every byte of a line that the receipt's own signature does not, and each checkpoint signs the
//! entry chain up to it. What is wrong with a receipt usually breaks its entry too; that is told once, by the receipt.

use std::borrow::Cow;

use super::chain::{ChainCheck, Outcome};
use super::order::{Order, Place};
use super::receipt::{Bad, Claim, check};
use super::report::{Problem, ProblemKind};
use crate::canon::{go_json, strict};
use crate::entry::{
    ACTION_RECEIPT, CHECKPOINT, Checkpoint, Entry, GENESIS, OTHER_TYPES, TRANSCRIPT_ROOT, TranscriptRoot,
};

/// Follows the entries of one file.
pub(super) struct RecorderCheck {
    order: Order<()>,
    /// Number and hash of the entry before, unless something was wrong with it.
    before: Option<(u64, String)>,
    session: Option<String>,
    /// The first entry that no checkpoint covers.
    unsigned_from: u64,
    /// The last receipt's number by the transcript root.
    pub(super) announced: Option<u64>,
    seen_root: bool,
    ends_signed: bool,
    /// A line after session_close could not be read; it may have been the transcript root or the last checkpoint.
    unreadable_end: bool,
}

impl RecorderCheck {
    pub(super) fn new() -> Self {
        Self {
            order: Order::new(),
            before: Some((u64::MAX, GENESIS.to_owned())),
            session: None,
            unsigned_from: 0,
            announced: None,
            seen_root: false,
            ends_signed: false,
            unreadable_end: false,
        }
    }

    /// A line that cannot be read at all.
    pub(super) fn unreadable(&mut self, chain: &mut ChainCheck<'_>, why: &str) {
        self.order.bad((), None);
        self.before = None;
        self.ends_signed = false;
        self.unreadable_end |= chain.is_closed();
        let text = format!("the line cannot be read: {why}");
        chain.bad(Bad { kind: ProblemKind::Altered, text, claim: Claim::unknown() });
    }

    /// Takes in one line.
    pub(super) fn line(&mut self, chain: &mut ChainCheck<'_>, text: &str) {
        let entry: Entry<'_> =
            match strict::check(text).and_then(|()| serde_json::from_str(text).map_err(|error| error.to_string())) {
                Ok(entry) => entry,
                Err(why) => return self.unreadable(chain, &why),
            };
        let sound = go_json(&entry).ok().as_deref() == Some(text.as_bytes())
            && entry.computed_hash().is_some_and(|hash| hash == entry.hash);
        self.ends_signed = false;
        if !sound {
            self.broken(chain, &entry);
            return;
        }
        let (place, _) = self.order.good(entry.seq);
        let outcome = match &*entry.kind {
            ACTION_RECEIPT => Some(chain.receipt(entry.detail.get())),
            CHECKPOINT => {
                self.ends_signed = true;
                if place != Place::Twice {
                    self.checkpoint(chain, &entry);
                }
                None
            }
            TRANSCRIPT_ROOT if place == Place::Twice => None,
            TRANSCRIPT_ROOT => {
                self.transcript_root(chain, &entry);
                None
            }
            kind if OTHER_TYPES.contains(&kind) => None,
            kind => {
                chain
                    .report
                    .problem(ProblemKind::Format, format!("entry {} is of the unknown type {kind:?}", entry.seq));
                None
            }
        };
        self.follow(chain, &entry, place, outcome.as_ref());
        self.session(chain, &entry, outcome.as_ref());
        let quiet = outcome.is_none_or(|outcome| outcome.seq.is_some());
        self.before = (quiet && place != Place::Twice).then(|| (entry.seq, entry.hash.into_owned()));
    }

    /// An entry whose bytes are not the ones that were hashed. If the receipt in it holds, only the wrapper was changed.
    fn broken(&mut self, chain: &mut ChainCheck<'_>, entry: &Entry<'_>) {
        self.order.bad((), Some(entry.seq));
        self.before = None;
        let what = format!("the recorder entry {} was changed after it was written", entry.seq);
        match check(entry.detail.get(), &mut chain.keys) {
            Ok(good) => {
                let (seq, flow, action_id) = (good.record.chain_seq, good.flow(), good.record.action_id.clone());
                if !chain.good(&good).disturbed {
                    let text = format!("the receipt holds, but {what}");
                    chain.report.push(Problem { kind: ProblemKind::Altered, seq: Some(seq), flow, action_id, text });
                }
            }
            Err(bad) if entry.kind == ACTION_RECEIPT || bad.claim.seq.is_some() => chain.bad(bad),
            Err(_) => {
                self.unreadable_end |= chain.is_closed();
                chain.report.problem(ProblemKind::Altered, what);
            }
        }
    }

    /// The place of an entry among the others.
    fn follow(&self, chain: &mut ChainCheck<'_>, entry: &Entry<'_>, place: Place, outcome: Option<&Outcome>) {
        if outcome.is_some_and(|outcome| outcome.disturbed) {
            return;
        }
        let (kind, text) = match (place, &self.before) {
            (Place::Next, Some((seq, hash))) if seq.wrapping_add(1) == entry.seq && *hash != entry.prev_hash => (
                ProblemKind::Altered,
                format!("the recorder entry {} was written behind another entry than the one before it", entry.seq),
            ),
            (Place::Late, _) => {
                (ProblemKind::Reordered, format!("the recorder entry {} is not in its place", entry.seq))
            }
            (Place::Twice, _) => {
                (ProblemKind::Extra, format!("the recorder entry {} is there a second time", entry.seq))
            }
            _ => return,
        };
        let seq = outcome.and_then(|outcome| outcome.seq);
        chain.report.push(Problem { kind, seq, flow: None, action_id: String::new(), text });
    }

    fn session(&mut self, chain: &mut ChainCheck<'_>, entry: &Entry<'_>, outcome: Option<&Outcome>) {
        let session = self.session.get_or_insert_with(|| entry.session_id.clone().into_owned());
        let opened = outcome.and_then(|outcome| outcome.opens.as_ref());
        if *session != entry.session_id || opened.is_some_and(|opened| opened != session) {
            let text = format!("entry {} belongs to another recorder session than the file", entry.seq);
            chain.report.problem(ProblemKind::Format, text);
        }
    }

    fn checkpoint(&mut self, chain: &mut ChainCheck<'_>, entry: &Entry<'_>) {
        let Some(checkpoint) = parse_detail::<Checkpoint>(entry) else {
            chain.report.problem(ProblemKind::Format, format!("checkpoint entry {} cannot be read", entry.seq));
            return;
        };
        let signed =
            chain.keys.chain.is_none_or(|key| key.verify_hex(entry.prev_hash.as_bytes(), &checkpoint.signature));
        if !signed {
            let text =
                format!("checkpoint entry {} does not sign the entries before it: they were rewritten", entry.seq);
            chain.report.problem(ProblemKind::Altered, text);
        }
        let expected = Checkpoint {
            entry_count: entry.seq.wrapping_sub(checkpoint.first_seq),
            first_seq: if self.order.is_clean() { self.unsigned_from } else { checkpoint.first_seq },
            last_seq: entry.seq.wrapping_sub(1),
            signature: checkpoint.signature.clone(),
        };
        if checkpoint != expected {
            let text = format!("checkpoint entry {} counts other entries than it covers", entry.seq);
            chain.report.problem(ProblemKind::CounterMismatch, text);
        }
        self.unsigned_from = entry.seq.saturating_add(1);
    }

    fn transcript_root(&mut self, chain: &mut ChainCheck<'_>, entry: &Entry<'_>) {
        let Some(root) = parse_detail::<TranscriptRoot>(entry) else {
            chain.report.problem(ProblemKind::Format, format!("transcript root entry {} cannot be read", entry.seq));
            return;
        };
        if self.seen_root {
            chain.report.problem(ProblemKind::Extra, format!("entry {} is a second transcript root", entry.seq));
        }
        self.seen_root = true;
        self.announced = Some(root.final_seq);
        // With receipts missing or altered it cannot fit; that is reported already.
        if !chain.is_clean() {
            return;
        }
        let Some((final_seq, root_hash)) = chain.tail().map(|(seq, hash)| (seq, hash.to_owned())) else { return };
        let tally = chain.tally();
        let expected = TranscriptRoot {
            session_id: entry.session_id.clone().into_owned(),
            final_seq,
            root_hash,
            receipt_count: tally.count,
            start_time: tally.start.clone(),
            end_time: tally.end.clone(),
        };
        if root != expected && root.final_seq <= final_seq {
            let text =
                format!("the transcript root sums up other receipts than the chain has, which ends at {final_seq}");
            chain.report.problem(ProblemKind::Altered, text);
        }
    }

    /// The end of the file: is the end of the entry chain there?
    pub(super) fn finish(mut self, chain: &mut ChainCheck<'_>) {
        self.order.finish(true);
        if !chain.is_closed() || self.unreadable_end {
            return;
        }
        let (entries, receipts) = (self.order.missing_count(), chain.missing_count());
        if let Some(bare) = entries.checked_sub(receipts).filter(|bare| *bare > 0) {
            let text =
                format!("{bare} recorder entries that held no receipt (checkpoints, transcript root) are not there");
            chain.report.problem(ProblemKind::Missing, text);
        } else if !self.seen_root || !self.ends_signed {
            let text = "the recorder file ends without the transcript root and the checkpoint that sign its end";
            chain.report.problem(ProblemKind::Truncated, text);
        }
    }
}

/// The detail of an entry, if it is exactly what the writer writes for this type.
fn parse_detail<T: serde::de::DeserializeOwned + serde::Serialize>(entry: &Entry<'_>) -> Option<T> {
    let detail: T = serde_json::from_str(entry.detail.get()).ok()?;
    let again: Cow<'_, [u8]> = Cow::Owned(go_json(&detail).ok()?);
    (*again == *entry.detail.get().as_bytes()).then_some(detail)
}
