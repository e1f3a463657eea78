//! Secrets in pieces: what a session sent over several messages, fields or parameters.
//!
//! The engine pushes every outbound value with the lane it belongs to (one per parameter name and host, say); what comes
//! back are the pieces sent lately with the new one behind them, put end to end in every way that is likely by
//! [`Joined::candidates`]. A finding counts when [`Candidates::crosses`] says that old and new pieces both are in it; whatever lies
//! in one piece was scanned already.
//!
//! Besides its own lane each value joins one lane of the whole session, there without a label before it (`part2: …`,
//! `k=…`). Promises: a push costs what the new value costs plus a constant (at most 22 KiB, copied and read as they stand,
//! and 2 KiB of them decoded; as many again, at most 60 KiB, where pieces before them began something), not what was sent
//! before; at most [`FragmentLimits::lanes`] lanes per session, each of 2 KiB in 256 pieces and of 8 KiB in 64 pieces that began
//! something, and of 8 KiB in [chains](super::chains): with what is noted of each piece, 50 KiB.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

use super::chains::{Beginning, Chains};
use super::table::Table;
use crate::decode::codec::in_run;
use crate::engine::Begun;

/// Bytes of a lane that are put before what comes next, and of a piece that are kept.
pub(super) const TAIL: usize = 1024;
/// Bytes of a lane that are kept: a piece that is taken back leaves what it stood before.
const KEPT: usize = 2 * TAIL;
/// Pieces of a lane that are kept, of however few bytes each.
const MOST_PIECES: usize = 256;
/// Bytes of a lane that are decoded with what comes next: a token of forty characters in the longest way to write it, and more; and
/// of one where all are letters and digits, as base64 and hexadecimal are, even one inside the other.
const DECODED: usize = 320;
const DECODED_PLAIN: usize = 176;
/// Bytes of a new value that may complete something older.
const HEAD: usize = 512;
/// Bytes of candidates per lane and push.
const CANDIDATES: usize = 4096;
/// So many bytes that come again at once, in one piece or in several that are the same, are the same thing said twice, and
/// no further piece.
const REPEATED: usize = 6;
/// Pieces before the last that are also tried alone before the new one, with what lies between left out: those that may begin
/// something.
const SKIPPED: usize = 8;
/// Pieces from before those that may begin something, as at least so many bytes at their end say, which are tried alone as long as
/// the window is; and bytes of each that are kept.
const OPEN: usize = 64;
const LEAST_OPEN: usize = 3;
const OPEN_BYTES: usize = 128;

/// How long pieces are kept, and of how many sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentLimits {
    /// How long a piece is kept, in milliseconds.
    pub window: u64,
    /// Sessions that are kept.
    pub sessions: usize,
    /// Lanes per session; the one used longest ago makes room.
    pub lanes: usize,
}

impl Default for FragmentLimits {
    fn default() -> Self {
        Self { window: 5 * 60 * 1000, sessions: 1_000, lanes: 32 }
    }
}

/// A value that was pushed, by which it can be taken back: what is not sent in the end completes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Ticket {
    /// The lanes it is in, with its number there.
    places: Vec<(u64, u64)>,
}

/// What was sent lately on one lane, and what comes after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lately {
    /// The older pieces end to end, then the new one.
    text: Vec<u8>,
    /// Where each older piece begins, with what may begin at its end, and where the new one does.
    starts: Vec<(usize, Begun)>,
    new: usize,
    /// Ends of earlier pieces that may begin something, and chains of such with others.
    open: Vec<Beginning>,
}

impl Lately {
    /// The value that came last, as far as it is looked at.
    pub(super) fn new_value(&self) -> &[u8] {
        &self.text[self.new..]
    }

    /// Of earlier pieces those that are sure to begin something, and chains of them.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = Cow<'_, Beginning>> {
        let ends = |at: usize| self.starts.get(at + 1).map_or(self.new, |(start, _)| *start);
        let recent = self.starts.iter().enumerate().rev().take(SKIPPED + 1);
        let recent = recent.filter(|(_, (_, begun))| begun.sure >= LEAST_OPEN);
        let recent = recent.map(move |(at, (start, begun))| Cow::Owned(open(&self.text[*start..ends(at)], *begun)));
        recent.chain(self.open.iter().filter(|beginning| beginning.is_sure).map(Cow::Borrowed))
    }
}

/// Pieces of all lanes of a value with the value behind them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Joined {
    /// What is the same of several lanes stands once.
    lanes: Vec<(Vec<u64>, Lately)>,
}

impl Ticket {
    /// Whether it stands for nothing, as that of a value that was not taken.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl Joined {
    fn add(&mut self, lane: u64, lately: Option<Lately>) {
        let Some(lately) = lately else { return };
        // Where only one value changes, the lane of all values is the same again.
        match self.lanes.iter_mut().find(|(_, known)| *known == lately) {
            Some((lanes, _)) => lanes.push(lane),
            None => self.lanes.push((vec![lane], lately)),
        }
    }

    /// What was sent lately, with the lanes of which it is that.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (&[u64], &Lately)> {
        self.lanes.iter().map(|(lanes, lately)| (&**lanes, lately))
    }

    /// Whether there is nothing to scan.
    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// All that is to be read as it stands. `begins` tells of a text how many bytes at its end may be the beginning of something:
    /// only with these can what comes next make a finding; `awaits` of a text and what comes next whether what is not sure to
    /// have begun in it may have.
    pub(super) fn candidates(
        &self,
        begins: impl Fn(&[u8]) -> Begun,
        awaits: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Candidates {
        let mut candidates = Candidates::default();
        for (_, lane) in &self.lanes {
            lane.add(&begins, &awaits, &mut candidates);
        }
        candidates
    }

    /// Of each lane its end with the new value, and where that begins: what is cut up and written in some other way besides is
    /// looked for in these alone, since it is found in them wherever it begins.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&[u8], usize)> {
        self.lanes.iter().filter_map(|(_, lane)| {
            let end = |count: usize| lane.text.get(lane.new.saturating_sub(count)..);
            let is_plain = |text: &&[u8]| text.iter().all(|byte| in_run(*byte));
            let text = end(DECODED_PLAIN).filter(is_plain).or_else(|| end(DECODED))?;
            Some((text, text.len() - (lane.text.len() - lane.new)))
        })
    }

    /// The value that came last.
    pub(super) fn new_value(&self) -> &[u8] {
        self.lanes.last().map(|(_, lane)| lane.new_value()).unwrap_or_default()
    }
}

impl Lately {
    /// The last piece and the new value, the last two, three and so on, as far as what they complete may begin in them; then
    /// earlier pieces alone before the new value.
    fn add(&self, begins: impl Fn(&[u8]) -> Begun, awaits: impl Fn(&[u8], &[u8]) -> bool, candidates: &mut Candidates) {
        let (old, new) = self.text.split_at(self.new);
        // The new value is looked through once.
        let in_new = OnceCell::new();
        let awaits = |old: &[u8]| awaits(old, &new[..1]) || *in_new.get_or_init(|| awaits(b"", new));
        let open = self.new - begins(old).when(|| awaits(old)).min(self.new);
        let mut left = CANDIDATES;
        let mut end = self.new;
        for (start, _) in self.starts.iter().rev() {
            // What begins at the end of the text before is no part of this piece.
            if end <= open {
                break;
            }
            let Some(rest) = left.checked_sub(self.text.len() - start) else {
                // In the longest, all begins somewhere.
                candidates.add(old, &[], new);
                break;
            };
            left = rest;
            candidates.add(&old[*start..], &[], new);
            end = *start;
        }
        for ends in self.starts.windows(2).rev().take(SKIPPED) {
            let &[(start, begun), (end, _)] = ends else { continue };
            let piece = &old[start..end];
            if begun.when(|| awaits(piece)) > 0 {
                candidates.add(piece, &[], new);
            }
        }
        for beginning in &self.open {
            if beginning.is_sure || awaits(&beginning.text) {
                candidates.add(&beginning.text, &beginning.cuts, new);
            }
        }
    }
}

/// Texts to be scanned, put together from pieces.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Candidates {
    /// Each followed by a line end.
    pub text: Vec<u8>,
    /// Where each lies, and where in it pieces begin that were not sent one behind the other; the last is the new value.
    places: Vec<(Range<usize>, Vec<usize>)>,
}

impl Candidates {
    /// The pieces with their places, of which the last is the new one, if a finding in [`Candidates::text`] holds bytes of the first and
    /// of the last.
    pub(super) fn crosses(&self, finding: &Range<usize>) -> Option<Vec<Range<usize>>> {
        let at = self.places.partition_point(|(candidate, _)| candidate.end < finding.end);
        let (candidate, cuts) = self.places.get(at)?;
        let crosses = candidate.start <= finding.start && finding.start < *cuts.first()? && *cuts.last()? < finding.end;
        let ends = cuts.iter().copied().chain([candidate.end]);
        crosses.then(|| {
            [candidate.start].into_iter().chain(cuts.iter().copied()).zip(ends).map(|(from, to)| from..to).collect()
        })
    }

    fn add(&mut self, old: &[u8], cuts: &[usize], new: &[u8]) {
        let start = self.text.len();
        self.text.extend_from_slice(old);
        let cuts = cuts.iter().map(|cut| start + cut).chain([self.text.len()]).collect();
        self.text.extend_from_slice(new);
        self.places.push((start..self.text.len(), cuts));
        self.text.push(b'\n');
    }
}

#[derive(Debug)]
struct Piece {
    number: u64,
    time: u64,
    /// Of the whole value, of which only the end is kept.
    hash: u64,
    end: Vec<u8>,
    /// It was judged, and completes nothing.
    is_clean: bool,
    /// How many bytes at its end may begin something: as many as are kept, until it was judged and found to complete nothing.
    begun: Begun,
}

#[derive(Debug, Default)]
struct Lane {
    /// The latest, [`KEPT`] bytes and [`MOST_PIECES`] in all.
    pieces: VecDeque<Piece>,
    bytes: usize,
    used: u64,
    /// Those before that may begin something, of which nothing is left but that.
    opened: VecDeque<Piece>,
    chains: Chains,
}

impl Lane {
    fn forget(&mut self, now: u64, window: u64) {
        self.used = self.used.max(now);
        let is_old = |piece: &Piece| piece.time.saturating_add(window) <= now;
        while self.pieces.front().is_some_and(is_old) {
            self.drop_front();
        }
        self.opened.retain(|piece| !is_old(piece));
        self.chains.forget(now, window);
    }

    /// How often this value is at its end, as far as that matters.
    fn repeats(&self, hash: u64) -> usize {
        self.pieces.iter().rev().take(REPEATED).take_while(|piece| piece.hash == hash).count()
    }

    /// Whether what it ends in was judged.
    fn is_clean(&self) -> bool {
        self.pieces.back().is_none_or(|piece| piece.is_clean)
    }

    fn take_back(&mut self, number: u64) {
        if let Some(at) = self.pieces.iter().rposition(|piece| piece.number == number)
            && let Some(piece) = self.pieces.remove(at)
        {
            self.bytes -= piece.end.len();
        }
        self.opened.retain(|piece| piece.number != number);
        self.chains.take_back(number);
    }

    /// What was sent lately but the last `without` pieces, with the beginning of a value behind it.
    fn join(&self, value: &[u8], without: usize) -> Option<Lately> {
        let end = self.pieces.len().saturating_sub(without);
        let head = &value[..value.len().min(HEAD)];
        let mut length = 0;
        let counts = |piece: &&Piece| {
            length += piece.end.len();
            length <= TAIL
        };
        let count = self.pieces.range(..end).rev().take_while(counts).count();
        if head.is_empty() || count == 0 && self.opened.is_empty() && self.chains.is_empty() {
            return None;
        }
        let (mut text, mut starts) = (Vec::with_capacity(TAIL + HEAD), Vec::with_capacity(count));
        for piece in self.pieces.range(end - count..end) {
            starts.push((text.len(), piece.begun));
            text.extend_from_slice(&piece.end);
        }
        let new = text.len();
        text.extend_from_slice(head);
        // The last few are tried whatever they are, as far as they are in the text.
        let tried = without + count.min(SKIPPED + 1);
        let skipped = self.pieces.iter().rev().skip(tried).filter(|piece| piece.begun.open >= LEAST_OPEN);
        let open = skipped.chain(self.opened.iter().rev()).take(OPEN).map(|piece| open(&piece.end, piece.begun));
        let open = open.chain(self.chains.beginnings().cloned()).collect();
        Some(Lately { text, starts, new, open })
    }

    fn push(&mut self, piece: Piece) {
        // Before, so that the lists do not grow beyond what they may hold.
        while self.bytes + piece.end.len() > KEPT || self.pieces.len() >= MOST_PIECES {
            self.drop_front();
        }
        self.bytes += piece.end.len();
        self.pieces.push_back(piece);
    }

    fn drop_front(&mut self) {
        let Some(mut piece) = self.pieces.pop_front() else { return };
        self.bytes -= piece.end.len();
        if piece.begun.open >= LEAST_OPEN {
            piece.end = open(&piece.end, piece.begun).text;
            self.opened.drain(..(self.opened.len() + 1).saturating_sub(OPEN));
            self.opened.push_back(piece);
        }
    }
}

/// The end of a piece that may begin something, with what tells whether that stands alone.
fn open(piece: &[u8], begun: Begun) -> Beginning {
    let count = (begun.open + 1).min(OPEN_BYTES).min(piece.len());
    Beginning { text: piece[piece.len() - count..].to_vec(), cuts: Vec::new(), is_sure: begun.sure >= LEAST_OPEN }
}

/// The lane of values without their labels, one per session.
const VALUES: u64 = u64::MAX;

/// The pieces of all sessions.
#[derive(Debug)]
pub(super) struct Fragments {
    limits: FragmentLimits,
    table: Table<HashMap<u64, Lane>>,
    /// Keyed, so that nobody outside can choose which values are taken for the same.
    hasher: RandomState,
    pushed: u64,
}

impl Fragments {
    /// No pieces yet.
    pub(super) fn new(limits: FragmentLimits) -> Self {
        let limits = FragmentLimits { lanes: limits.lanes.max(2), ..limits };
        Self { limits, table: Table::new(limits.sessions), hasher: RandomState::new(), pushed: 0 }
    }

    /// Takes a value a session sends at `now` (milliseconds) on a lane; returns what is to be scanned. What the lane ends in
    /// already, as headers do that are the same in every request, is not taken again.
    pub(super) fn push(&mut self, session: u64, lane: u64, now: u64, value: &[u8]) -> (Joined, Ticket) {
        let (mut joined, mut ticket) = (Joined::default(), Ticket::default());
        let window = self.limits.window;
        let lanes = self.table.entry(session, now, HashMap::new);
        let lane = if lane == VALUES { 0 } else { lane };
        let hash = self.hasher.hash_one(value);
        let (repeats, is_clean) = lanes.get_mut(&lane).map_or((0, true), |own| {
            own.forget(now, window);
            (own.repeats(hash), own.is_clean())
        });
        let repeated = repeats * value.len();
        if (repeated >= REPEATED && is_clean) || value.is_empty() {
            return (joined, ticket);
        }
        if repeated >= REPEATED {
            // The same at once, which is still being judged or was let go on with a note: it is judged as that was.
            for (lane, own) in [lane, VALUES].iter().filter_map(|lane| lanes.get_key_value(lane)) {
                joined.add(*lane, own.join(value, own.repeats(hash)));
            }
            return (joined, ticket);
        }
        // A short one may be the next letter of its lane, but says nothing to the others.
        let common = (repeats == 0).then(|| (VALUES, without_label(value)));
        for (lane, value) in [(lane, value)].into_iter().chain(common) {
            // Blanks are no value without their label; nothing would push such a piece out again.
            if value.is_empty() {
                continue;
            }
            if lanes.len() >= self.limits.lanes && !lanes.contains_key(&lane) {
                let oldest = lanes.iter().filter(|(known, _)| **known != VALUES).min_by_key(|(_, lane)| lane.used);
                if let Some(oldest) = oldest.map(|(known, _)| *known) {
                    lanes.remove(&oldest);
                }
            }
            let own = lanes.entry(lane).or_default();
            own.forget(now, window);
            joined.add(lane, own.join(value, 0));
            self.pushed += 1;
            let end = value[value.len() - value.len().min(TAIL)..].to_vec();
            own.push(Piece {
                number: self.pushed,
                time: now,
                hash,
                end,
                is_clean: false,
                begun: Begun::all(OPEN_BYTES),
            });
            ticket.places.push((lane, self.pushed));
        }
        (joined, ticket)
    }

    /// Notes that a value was judged and completes nothing: said again, it says nothing new. So many of its last bytes
    /// may begin something; with what it goes on, by lane.
    pub(super) fn settle(
        &mut self,
        session: u64,
        now: u64,
        ticket: &Ticket,
        begun: Begun,
        chains: &[(u64, Beginning)],
    ) {
        if ticket.is_empty() {
            return;
        }
        let lanes = self.table.entry(session, now, HashMap::new);
        for (place, number) in &ticket.places {
            let Some(lane) = lanes.get_mut(place) else { continue };
            for piece in lane.pieces.iter_mut().rev().filter(|piece| piece.number == *number) {
                piece.is_clean = true;
                piece.begun = begun;
            }
            for (_, chain) in chains.iter().filter(|(lane, _)| lane == place) {
                lane.chains.push(*number, now, chain.clone());
            }
        }
    }

    /// Takes a value back that was pushed and then was not sent: what is tried once more is judged once more.
    pub(super) fn take_back(&mut self, session: u64, now: u64, ticket: &Ticket) {
        if ticket.is_empty() {
            return;
        }
        let lanes = self.table.entry(session, now, HashMap::new);
        for (lane, number) in &ticket.places {
            if let Some(lane) = lanes.get_mut(lane) {
                lane.take_back(*number);
            }
        }
    }

    /// Forgets a session that ended.
    pub(super) fn end(&mut self, session: u64) {
        self.table.remove(session);
    }
}

/// The value after a label of at most 32 letters, digits, dashes and underscores and a `:` or `=`, with spaces around.
fn without_label(value: &[u8]) -> &[u8] {
    let value = value.trim_ascii();
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_[]#. ".contains(byte);
    match value.iter().take(33).position(|byte| !named(byte)) {
        Some(end) if end > 0 && matches!(value[end], b':' | b'=') => {
            let rest = value[end + 1..].trim_ascii();
            if rest.is_empty() || rest.starts_with(b"//") { value } else { rest }
        }
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECRET: &[u8] = b"ghp_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef12";

    fn whole(text: &[u8]) -> Begun {
        Begun::all(text.len())
    }

    fn never(_: &[u8], _: &[u8]) -> bool {
        false
    }

    /// Whether a whole line of the joined text is the secret, and crosses.
    fn completes(joined: &Joined) -> bool {
        let joined = joined.candidates(whole, never);
        joined.text.windows(SECRET.len()).enumerate().any(|(at, window)| {
            let span = at..at + SECRET.len();
            let alone = at == 0 || !joined.text[at - 1].is_ascii_alphanumeric();
            window == SECRET && alone && joined.crosses(&span).is_some()
        })
    }

    /// Pushes a value that is then judged to complete nothing, and to begin something.
    fn push(fragments: &mut Fragments, session: u64, lane: u64, now: u64, value: &[u8]) -> Joined {
        let (joined, ticket) = fragments.push(session, lane, now, value);
        fragments.settle(session, now, &ticket, whole(value), &[]);
        joined
    }

    fn sent(pieces: &[&[u8]], lanes: &[u64]) -> bool {
        let mut fragments = Fragments::new(FragmentLimits::default());
        let mut found = false;
        for (at, piece) in pieces.iter().enumerate() {
            found |= completes(&push(&mut fragments, 1, lanes[at % lanes.len()], at as u64, piece));
        }
        found
    }

    #[test]
    fn pieces_are_put_together() {
        assert!(sent(&[b"ghp_ABCDEFGHIJKLMN", b"OPQRSTUVWXYZabcdef12"], &[1]));
        assert!(sent(&[b"part1: ghp_ABCDEFGHIJKLMN", b"part2: OPQRSTUVWXYZabcdef12"], &[1]));
        assert!(sent(&[b"aws", b"ghp_ABCDEFGHIJKLMN", b"OPQRSTUVWXYZabcdef12", b"us-east-1"], &[1, 2, 3, 4]));
        assert!(sent(&[b"ghp_ABCDEFGHIJKLMN", b"padding", b"OPQRSTUVWXYZabcdef12"], &[1, 2, 3]));
        let bytes: Vec<&[u8]> = SECRET.chunks(1).collect();
        assert!(sent(&bytes, &[1]));
        let noisy: Vec<&[u8]> = bytes.iter().flat_map(|byte| [*byte, b"search term"]).collect();
        assert!(sent(&noisy, &[1, 2]));
    }

    #[test]
    fn a_whole_secret_is_not_reported_again() {
        assert!(!sent(&[b"hello", SECRET, b"world"], &[1]));
        let spaced = [b" ", SECRET, b" "].concat();
        assert!(!sent(&[b"hello", &spaced, b"world"], &[1]));
    }

    #[test]
    fn old_pieces_and_other_sessions_do_not_count() {
        let mut fragments = Fragments::new(FragmentLimits { window: 100, ..FragmentLimits::default() });
        push(&mut fragments, 1, 1, 0, &SECRET[..20]);
        assert!(push(&mut fragments, 2, 1, 1, &SECRET[20..]).is_empty());
        assert!(push(&mut fragments, 1, 1, 100, &SECRET[20..]).is_empty());
    }

    #[test]
    fn a_push_costs_a_constant_and_the_new_bytes() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        for at in 0..10_000u64 {
            let value = vec![b'a' + (at % 26) as u8; (at % 300 * (at % 11)) as usize];
            let joined = push(&mut fragments, 1, at % 50, at, &value).candidates(whole, never);
            assert!(joined.text.len() <= (22 + 40) << 10, "{}", joined.text.len());
        }
    }

    #[test]
    fn what_is_said_again_is_no_further_piece() {
        assert!(sent(&[b"ghp_ABCDEFGHIJKLMN", b"ghp_ABCDEFGHIJKLMN", b"OPQRSTUVWXYZabcdef12"], &[1]));
        let mut fragments = Fragments::new(FragmentLimits::default());
        push(&mut fragments, 1, 1, 0, b"text/html");
        assert!(push(&mut fragments, 1, 1, 1, b"text/html").is_empty());
        assert!(!push(&mut fragments, 1, 1, 2, b"l").is_empty() && !push(&mut fragments, 1, 1, 3, b"l").is_empty());
    }

    #[test]
    fn what_was_stopped_is_stopped_again() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        let pieces = [&SECRET[..10], &SECRET[10..20], &SECRET[20..]];
        push(&mut fragments, 1, 1, 0, pieces[0]);
        push(&mut fragments, 1, 1, 1, pieces[1]);
        let long = [pieces[2], &[b'.'; 3000]].concat();
        let begins = |joined: &Joined| {
            let candidates = joined.candidates(whole, never);
            candidates.text.split(|byte| *byte == b'\n').any(|line| line.starts_with(SECRET))
        };
        for now in 2..5 {
            for value in [pieces[2], &long] {
                let (joined, ticket) = fragments.push(1, 1, now, value);
                assert!(begins(&joined), "{now}");
                // The same at the same time is judged as it is.
                let (again, none) = fragments.push(1, 1, now, value);
                assert!(begins(&again) && none == Ticket::default(), "{now}");
                fragments.take_back(1, now, &ticket);
            }
        }
    }

    #[test]
    fn what_is_taken_back_is_what_was_pushed() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        push(&mut fragments, 1, 1, 0, &SECRET[..20]);
        let (_, skipped) = fragments.push(1, 1, 1, &SECRET[..20]);
        fragments.take_back(1, 1, &skipped);
        assert!(completes(&push(&mut fragments, 1, 1, 2, &SECRET[20..])));
    }

    #[test]
    fn only_the_whole_is_the_same_again() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        push(&mut fragments, 1, 1, 0, &SECRET[..20]);
        let padding = [b'.'; TAIL];
        push(&mut fragments, 1, 1, 1, &padding);
        let joined = push(&mut fragments, 1, 1, 2, &[&SECRET[20..], &padding].concat());
        assert!(!joined.is_empty());
    }

    #[test]
    fn what_begins_nothing_is_not_put_before_anything() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        let values: [&[u8]; 4] = [b"alpha", b"beta", b"gh", b"p_0"];
        let (mut joined, mut lines) = (Joined::default(), Vec::new());
        let begins = |text: &[u8]| Begun::all(if text.ends_with(b"gh") { 2 } else { 0 });
        for value in values {
            let (latest, ticket) = fragments.push(1, 1, 0, value);
            fragments.settle(1, 0, &ticket, begins(value), &[]);
            joined = latest;
        }
        lines.extend(joined.candidates(begins, never).text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        // Its own lane and that of all values are the same.
        assert_eq!(lines, [&b"ghp_0"[..], b""]);
    }

    #[test]
    fn what_began_something_is_kept_as_long_as_the_window() {
        let run = |between: usize, decoys: usize| {
            [2, FragmentLimits::default().window].map(|now| {
                let mut fragments = Fragments::new(FragmentLimits::default());
                let (_, ticket) = fragments.push(1, 1, 0, &SECRET[..20]);
                fragments.settle(1, 0, &ticket, Begun::all(20), &[]);
                for at in 0..between + decoys {
                    let (_, ticket) = fragments.push(1, 2, 1, format!("a value of some length, {at}.").as_bytes());
                    fragments.settle(
                        1,
                        1,
                        &ticket,
                        Begun::all(if at < decoys { LEAST_OPEN } else { LEAST_OPEN - 1 }),
                        &[],
                    );
                }
                completes(&fragments.push(1, 3, now, &SECRET[20..]).0)
            })
        };
        for between in [9, 10, 32, 100, 1000] {
            assert_eq!(run(between, 0), [true, false], "{between}");
        }
        assert_eq!(run(100, OPEN - 1), [true, false]);
        assert_eq!(run(100, OPEN), [false, false], "bounded");
    }

    #[test]
    fn what_began_something_is_tried_though_nothing_is_left_before_the_new_one() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        let (_, ticket) = fragments.push(1, 1, 0, &SECRET[..20]);
        fragments.settle(1, 0, &ticket, Begun::all(20), &[]);
        let others = [b'.', b',', b';'].map(|byte| fragments.push(1, 2, 1, &[byte; TAIL]).1);
        others.iter().for_each(|ticket| fragments.take_back(1, 1, ticket));
        assert!(completes(&fragments.push(1, 3, 1, &SECRET[20..]).0));
    }

    #[test]
    fn what_is_not_judged_yet_may_begin_anything() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        let _ = fragments.push(1, 1, 0, &SECRET[..20]);
        for at in 0..100 {
            let (_, ticket) = fragments.push(1, 2, 1, format!("a value of some length, {at}.").as_bytes());
            fragments.settle(1, 1, &ticket, Begun::default(), &[]);
        }
        assert!(completes(&fragments.push(1, 3, 1, &SECRET[20..]).0));
    }

    #[test]
    fn what_may_begin_is_asked_once_for_each_lane() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        let mut joined = Joined::default();
        for at in 0..40 {
            joined = push(&mut fragments, 1, at % 3, 1, format!("a value, {at}").as_bytes());
        }
        let asked = std::cell::Cell::new(0);
        let begins = |text: &[u8]| {
            asked.set(asked.get() + 1);
            whole(text)
        };
        joined.candidates(begins, never);
        assert_eq!(asked.get(), 2, "its own, and that of all values");
    }

    #[test]
    fn short_pieces_do_not_pile_up() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        for at in 0..3000 {
            push(&mut fragments, 1, 1, 0, &[b'a' + (at % 2) as u8]);
        }
        let mut lanes = fragments.table.entry(1, 0, HashMap::new).values();
        assert!(lanes.all(|lane| lane.pieces.len() == MOST_PIECES && lane.bytes == lane.pieces.len()));
    }

    #[test]
    fn labels_are_taken_off() {
        for (value, expected) in [
            ("part2: abc", "abc"),
            ("k=v", "v"),
            ("chunk[3] = x", "x"),
            ("https://h/p", "https://h/p"),
            ("plain", "plain"),
            ("a:", "a:"),
            (":x", ":x"),
            ("", ""),
        ] {
            assert_eq!(without_label(value.as_bytes()), expected.as_bytes(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_secret_is_put_together(mut cuts in proptest::collection::vec(1usize..SECRET.len(), 1..6)) {
            cuts.sort_unstable();
            cuts.dedup();
            let mut pieces = Vec::new();
            let mut last = 0;
            for cut in cuts.into_iter().chain([SECRET.len()]) {
                pieces.push(&SECRET[last..cut]);
                last = cut;
            }
            prop_assert!(sent(&pieces, &[1]));
        }

        #[test]
        fn nothing_panics(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1500), 0..20)) {
            let mut fragments = Fragments::new(FragmentLimits { window: 5, sessions: 1, lanes: 0 });
            for (at, value) in values.iter().enumerate() {
                let (joined, _) = fragments.push(at as u64 % 3, at as u64 % 5, at as u64 * 2, value);
                let joined = joined.candidates(|text| Begun::all(text.len() / 2), never);
                joined.crosses(&(0..joined.text.len()));
            }
        }

        #[test]
        fn every_piece_that_is_kept_has_bytes(values in proptest::collection::vec("[ \t=:ab]{0,4}", 0..50)) {
            let mut fragments = Fragments::new(FragmentLimits::default());
            for (at, value) in values.iter().enumerate() {
                let (_, ticket) = fragments.push(1, 1, at as u64, value.as_bytes());
                fragments.settle(1, at as u64, &ticket, Begun::default(), &[]);
            }
            for lane in fragments.table.entry(1, 0, HashMap::new).values() {
                prop_assert!(lane.pieces.iter().all(|piece| !piece.end.is_empty()));
                prop_assert_eq!(lane.bytes, lane.pieces.iter().map(|piece| piece.end.len()).sum::<usize>());
            }
        }
    }
}
