//! A body as it streams by: bytes go in, those that may go on come out, and a finding ends it.
//!
//! Made by `proxy` for each body of a rule that scans. It promises that no byte of what is to be stopped comes out, that
//! what is held back is bounded by the scanner, and that bytes are moved, not copied.
//!
//! A sender that pauses ([`Reader::settle`]) is treated as one that has ended: what is held back then goes on if the text could end
//! there. Nothing is lost by it, as a text that does end there would go out just so; what comes later is still read together with it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use pipelock_scan::{Finding, Scanner, Stream, Unread};

use super::counts::{COUNTS, Place, Timed};
use super::encoded::Encoded;
use super::events::{Events, Form};
use super::grpc::Grpc;
use super::head::{UNREAD, closed, unpacked_by_nobody, unread};
use super::lanes::Lanes;
use super::pieces::Short;
use super::scanners::Scanners;
use super::terms::{Side, Terms, told};
use crate::flow::{Found, Reason, Verdict};
use crate::policy::FindingAction;

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;
/// Bytes that are held back at most: what asks for more says nothing that anybody has to send.
const MOST_HELD: u64 = 16 << 20;
/// Bytes that went on which are kept, for when the sender pauses and what is held back is read with what stands before it.
const RECENT: usize = 2 * 1024;
/// Bytes before those of which nothing is certain that are read with them then.
const CONTEXT: usize = 64;
/// Pauses after which an event goes on though its texts may be the beginning of a secret.
const PAUSES: u32 = 5;
/// Pauses, ten seconds of them, after which only tokens and known values wait on: who says no more for so long may wait for an answer.
const LONG_PAUSE: u32 = 200;
/// Bytes of what an agent sends that are remembered as its own words.
const OWN: usize = 256 * 1024;

/// One body on its way.
pub struct Reader {
    pub(super) scanners: Arc<Scanners>,
    pub(super) terms: Arc<Terms>,
    pub(super) side: Side,
    pub(super) place: &'static str,
    pub(super) stream: Option<Stream>,
    /// What the sender said of its coding. What is compressed cannot be judged before it ends.
    pub(super) encoded: Encoded,
    /// Of gRPC: its messages.
    pub(super) grpc: Option<Grpc>,
    /// Bytes that [`Self::read_ahead`] has read.
    pub(super) ahead: usize,
    /// Read, and not yet taken.
    pub(super) held: VecDeque<Bytes>,
    /// Places in the text: where `held` begins, up to where it may go on, and its end so far.
    pub(super) at: u64,
    pub(super) free: u64,
    pub(super) end: u64,
    /// Up to where nothing more can be found by what comes.
    certain: u64,
    /// The last bytes that went on.
    recent: Vec<u8>,
    /// Findings of the scanner that were judged, as it counts them.
    judged: usize,
    /// What is to be replaced, in order.
    pub(super) cuts: VecDeque<(Range<u64>, String)>,
    /// What was replaced, by class and fingerprint.
    pub(super) seen: Vec<(Arc<str>, [u8; 32])>,
    /// Where something was replaced, in order; as many places at most as a text has findings.
    taken: Vec<Range<u64>>,
    pub(super) noted: Vec<Found>,
    /// Where what was taken out last ended together with all that was there, and what to say if it goes on.
    pub(super) open: Option<(u64, Found)>,
    /// Of an event stream: its events.
    pub(super) events: Option<Events>,
    /// Of what leaves: its beginning, which may be a piece of what several bodies say together.
    pub(super) short: Option<Short>,
    /// Pauses since the last byte.
    pauses: u32,
    /// The end when it paused last and what was held back was judged.
    settled: u64,
    /// What was noted of what nobody can unpack.
    unread: Unread,
}

impl Reader {
    /// For a body that begins now.
    ///
    /// # Errors
    /// [`Reason::ScannerUnavailable`].
    pub fn new(scanners: &Arc<Scanners>, terms: &Arc<Terms>, side: Side, encoded: Encoded) -> Result<Self, Verdict> {
        Self::with(scanners.of(side), scanners, terms, side, encoded)
    }

    /// The same for whoever gives no more at once than [`step`](Self::step) says, and lets others have their turn between: what is
    /// packed may be larger then.
    ///
    /// # Errors
    /// [`Reason::ScannerUnavailable`].
    pub fn in_steps(
        scanners: &Arc<Scanners>,
        terms: &Arc<Terms>,
        side: Side,
        encoded: Encoded,
    ) -> Result<Self, Verdict> {
        let scanner = scanners.of(side);
        match encoded {
            // Its messages are texts of their own, of which each may say a thousand times as much.
            Encoded::Grpc(_) => Self::with(scanner, scanners, terms, side, encoded),
            _ => Self::with(&scanner.in_steps(), scanners, terms, side, encoded),
        }
    }

    fn with(
        scanner: &Scanner,
        scanners: &Arc<Scanners>,
        terms: &Arc<Terms>,
        side: Side,
        encoded: Encoded,
    ) -> Result<Self, Verdict> {
        let stream = match encoded {
            Encoded::Plain | Encoded::Rigid | Encoded::Grpc(_) => scanner.stream(),
            Encoded::As(coding) => scanner.stream_as(coding),
        };
        let grpc = Grpc::of(scanner, encoded);
        Ok(Self {
            scanners: scanners.clone(),
            terms: terms.clone(),
            side,
            place: "body",
            stream: Some(stream.map_err(|error| unread(&error))?),
            encoded,
            grpc,
            ahead: 0,
            held: VecDeque::new(),
            at: 0,
            free: 0,
            end: 0,
            certain: 0,
            recent: Vec::new(),
            judged: 0,
            cuts: VecDeque::new(),
            seen: Vec::new(),
            taken: Vec::new(),
            noted: Vec::new(),
            open: None,
            events: None,
            short: (side.is_outbound() && encoded.is_plain()).then(Short::default),
            pauses: 0,
            settled: 0,
            unread: Unread::default(),
        })
    }

    /// The body is made of events: each goes on when it is whole.
    #[must_use]
    pub fn of_events(mut self, form: Form) -> Self {
        if self.encoded.is_plain() {
            let holding = self.stops_secrets().then_some(&self.scanners.secrets);
            let (scanner, again) = (self.scanners.of(self.side), self.scanners.again(self.side));
            let lanes = Lanes::new(scanner, again, holding, !self.side.is_outbound());
            self.events = Some(Events::new(lanes, form));
        }
        self
    }

    /// True when secrets on this side are stopped, so that their beginnings have to wait.
    fn stops_secrets(&self) -> bool {
        self.terms.stops_secrets(self.side)
    }

    /// Reads the next bytes.
    ///
    /// # Errors
    /// [`Reason::DlpMatch`], [`Reason::InjectionMatch`], [`Reason::ContentUnreadable`]: the body ends here; [`Reason::ScannerUnavailable`].
    pub fn push(&mut self, mut bytes: Bytes) -> Result<(), Verdict> {
        while !bytes.is_empty() {
            let _timed = Timed::new(Place::Body);
            let piece = bytes.split_to(bytes.len().min(PIECE));
            COUNTS.read(self.side, piece.len());
            self.end += piece.len() as u64;
            let Some(stream) = &mut self.stream else { return Err(closed()) };
            let progress = stream.push(&piece).map_err(|error| unread(&error))?;
            self.held.push_back(piece);
            // Now, as nobody knows whether it comes to an end.
            let nobody = stream.unread();
            self.note_unread(nobody);
            let Some(stream) = &self.stream else { return Err(closed()) };
            if progress.findings != self.judged {
                self.judged = progress.findings;
                let findings = stream.findings();
                self.judge(&findings)?;
            }
            self.judge_open()?;
            self.check_coding()?;
            let mut free = progress.released;
            self.certain = progress.released;
            if let (Some(grpc), Some(piece)) = (&mut self.grpc, self.held.back()) {
                let found = grpc.push(piece)?;
                free = free.min(grpc.free());
                let nobody = grpc.unread();
                self.note_unread(nobody);
                self.judge_apart(&found, "message")?;
            }
            if let (Some(short), Some(piece)) = (&mut self.short, self.held.back()) {
                let said = short.push(piece);
                free = free.min(self.end.saturating_sub(short.waiting()));
                self.judge_said(said, false)?;
            }
            let stops_secrets = self.stops_secrets();
            if let Some(events) = &mut self.events {
                let Some(piece) = self.held.back() else { return Err(closed()) };
                let found = events.feed(piece).map_err(|error| unread(&error))?;
                if stops_secrets {
                    free = free.min(events.free());
                }
                self.judge_apart(&found, "events")?;
            }
            self.free = self.free.max(free);
            if let Some(piece) = self.held.back() {
                self.remember(piece);
            }
            if self.end - self.free > MOST_HELD {
                self.stream = None;
                let detail = format!("more than {} MiB of the body would have to be held back", MOST_HELD >> 20);
                return Err(Verdict::block(Reason::ContentUnreadable, detail));
            }
        }
        self.pauses = 0;
        if self.events.as_ref().is_some_and(Events::is_between) {
            self.judge_short(false)?;
            self.let_go()?;
        }
        Ok(())
    }

    /// The body is over: all of it may go on.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(&mut self) -> Result<(), Verdict> {
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        stream.last(&[]).map_err(|error| unread(&error))?;
        self.judge(&stream.findings())?;
        self.note_unread(stream.unread());
        if self.end > 0 {
            self.encoded.holds_for(stream.decoded(), true, self.side.is_outbound())?;
        }
        if let Some(grpc) = &mut self.grpc {
            let found = grpc.finish()?;
            let nobody = grpc.unread();
            self.note_unread(nobody);
            self.judge_apart(&found, "message")?;
        }
        self.judge_short(false)?;
        self.free = self.end;
        Ok(())
    }

    /// Says so when something was packed in a way that nobody could read.
    pub(super) fn note_unread(&mut self, nobody: Unread) {
        if nobody != self.unread {
            self.noted.extend(nobody.without(self.unread).names().map(|how| unpacked_by_nobody(how, self.place)));
            self.unread = nobody.and(self.unread);
        }
    }

    /// Ends a body that is not what its sender says it is.
    fn check_coding(&mut self) -> Result<(), Verdict> {
        let decoded = self.stream.as_ref().map(Stream::decoded).unwrap_or_default();
        self.encoded.holds_for(decoded, false, self.side.is_outbound()).inspect_err(|_| self.stream = None)
    }

    /// The sender pauses: what is held back goes on, if it could be the end; the beginning of a secret waits for what comes.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn settle(&mut self) -> Result<(), Verdict> {
        self.pauses += 1;
        if self.pauses < PAUSES && self.events.as_ref().is_some_and(|events| !events.is_between()) {
            return Ok(());
        }
        if self.pauses == LONG_PAUSE {
            self.settled = u64::MAX;
        }
        self.judge_short(false)?;
        self.let_go()
    }

    /// Lets what is held back go on, if the text could end there.
    fn let_go(&mut self) -> Result<(), Verdict> {
        // Nothing came since the last pause.
        if self.settled == self.end
            || !self.encoded.is_plain()
            || !self.holds()
            || self.grpc.as_ref().is_some_and(Grpc::is_within)
        {
            return Ok(());
        }
        self.settled = self.end;
        // Only what is not certain yet is read once more, with what stands before it.
        let from = self.certain.max(self.at.saturating_sub(self.recent.len() as u64)).saturating_sub(CONTEXT as u64);
        let gone = usize::try_from(self.at.saturating_sub(from)).unwrap_or(usize::MAX).min(self.recent.len());
        let mut text = self.recent[self.recent.len() - gone..].to_vec();
        let mut skip = from.saturating_sub(self.at);
        for piece in &self.held {
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            text.extend_from_slice(&piece[usize::try_from(skipped).unwrap_or(usize::MAX)..]);
        }
        let start = self.end - text.len() as u64;
        let findings = self.scanners.again(self.side).scan(&text).map_err(|error| unread(&error))?;
        // What is packed may hold more than is unpacked at once: it waits for what comes, or for its end.
        if findings.iter().any(|finding| &*finding.rule == "budget-expansion") {
            return Ok(());
        }
        let actions = findings.iter().filter(|finding| start + finding.span.end > self.free).map(|finding| {
            match self.terms.action(self.side, finding) {
                // Its place among what comes is not settled, so it cannot be taken out.
                FindingAction::Redact => (finding, FindingAction::Block),
                action => (finding, action),
            }
        });
        let stops: Vec<Found> = actions
            .filter(|(_, action)| *action == FindingAction::Block)
            .map(|(finding, action)| told(finding, self.place, action))
            .collect();
        if !stops.is_empty() {
            self.stream = None;
            return Err(self.terms.stop(self.side, stops));
        }
        self.free = self.free.max(self.end - self.begun(&text)? as u64);
        Ok(())
    }

    /// How many bytes at the end of this text are the beginning of what is stopped: that does not end where its sender pauses.
    fn begun(&self, text: &[u8]) -> Result<usize, Verdict> {
        if !self.stops_secrets() {
            return Ok(0);
        }
        let again = self.scanners.again(self.side);
        // Of an event that is over only tokens are looked for.
        let is_over = self.events.as_ref().is_some_and(Events::is_between);
        let begun = if is_over || self.pauses >= LONG_PAUSE {
            again.begun_token(text)
        } else {
            let stops = |found: &Finding| {
                matches!(self.terms.action(self.side, found), FindingAction::Block | FindingAction::Redact)
            };
            again.begun_secret(text, stops)
        };
        begun.map_err(|error| unread(&error))
    }

    /// True when bytes are held back.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.free < self.end
    }

    /// True when bytes may go on.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.free > self.at
    }

    /// True when it reads an event stream.
    #[must_use]
    pub fn is_of_events(&self) -> bool {
        self.events.is_some()
    }

    /// A byte that was read and not yet taken.
    pub(super) fn byte(&self, place: u64) -> Option<u8> {
        let mut ahead = usize::try_from(place.checked_sub(self.at)?).ok()?;
        for piece in &self.held {
            match piece.get(ahead) {
                Some(byte) => return Some(*byte),
                None => ahead -= piece.len(),
            }
        }
        None
    }

    /// Bytes that were read and not yet taken.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.end - self.at
    }

    /// Bytes that have gone on.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.at
    }

    /// The next bytes that may go on.
    pub fn take(&mut self) -> Option<Bytes> {
        loop {
            if let Some((cut, _)) = self.cuts.front()
                && cut.start <= self.at
            {
                let cut = cut.clone();
                if cut.end > self.free {
                    return None;
                }
                while self.at < cut.end {
                    self.split(cut.end);
                }
                match self.taken.last_mut() {
                    Some(last) if cut.start <= last.end => last.end = cut.end,
                    _ => self.taken.push(cut),
                }
                let (_, placeholder) = self.cuts.pop_front()?;
                return Some(Bytes::from(placeholder));
            }
            let next = self.cuts.front().map_or(self.free, |(cut, _)| cut.start.min(self.free));
            if self.at >= next {
                return None;
            }
            let bytes = self.split(next);
            if bytes.is_empty() {
                continue;
            }
            if self.encoded.is_plain() {
                self.recall(&bytes);
            }
            return Some(bytes);
        }
    }

    /// What nobody can unpack, since it was asked for last: told at once, as the rest of the body may never come.
    pub fn noted_unread(&mut self) -> Vec<Found> {
        let (unread, noted) = std::mem::take(&mut self.noted).into_iter().partition(|found| found.class == UNREAD);
        self.noted = noted;
        unread
    }

    /// What was found and let go on, since it was asked for last.
    pub fn noted(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.noted)
    }

    /// Whether all of these bytes were replaced.
    pub(super) fn was_replaced(&self, place: &Range<u64>) -> bool {
        let behind = self.taken.partition_point(|taken| taken.start <= place.start);
        behind.checked_sub(1).and_then(|at| self.taken.get(at)).is_some_and(|taken| place.end <= taken.end)
    }

    /// Takes bytes from the front, up to a place.
    fn split(&mut self, to: u64) -> Bytes {
        let Some(front) = self.held.front_mut() else {
            // Never, as there are as many bytes as places; without this a defect would be an endless loop.
            self.at = to;
            return Bytes::new();
        };
        let count = usize::try_from(to.saturating_sub(self.at)).unwrap_or(usize::MAX).min(front.len());
        let bytes = front.split_to(count);
        if !front.has_remaining() {
            self.held.pop_front();
        }
        self.at += count as u64;
        bytes
    }

    /// Keeps the end of what went on.
    fn recall(&mut self, bytes: &[u8]) {
        let tail = &bytes[bytes.len() - bytes.len().min(RECENT)..];
        let over = (self.recent.len() + tail.len()).saturating_sub(RECENT);
        self.recent.drain(..over.min(self.recent.len()));
        self.recent.extend_from_slice(tail);
    }

    /// The agent's own words are no instruction to it when they come back; what was stopped it has not said.
    pub(super) fn remember(&self, last: &[u8]) {
        let before = usize::try_from(self.end).unwrap_or(usize::MAX).saturating_sub(last.len());
        let words = last.get(..OWN.saturating_sub(before).min(last.len())).unwrap_or_default();
        if self.side == Side::Request
            && self.encoded.is_plain()
            && !words.is_empty()
            && let Some(own) = &self.scanners.own
            && let Ok(mut own) = own.write()
        {
            own.remember(&String::from_utf8_lossy(words));
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
