//! Secrets sent in pieces: over several requests, messages, fields or parameters.
//!
//! The engine pushes every outbound value with the lane it belongs to (one per parameter name and host, say); what comes
//! back is a text to scan, made of the pieces sent lately put end to end in every way that is likely. A finding counts
//! when [`Joined::crosses`] says that old and new pieces both are in it; whatever lies in one piece was scanned already.
//!
//! Besides its own lane each value joins one lane of the whole session, there without a label before it (`part2: …`,
//! `k=…`). Promises: a push costs what the new value costs plus a constant (at most 20 KiB, copied and read as they stand,
//! and 2 KiB of them decoded), not what was sent before; at most [`FragmentLimits::lanes`] lanes of 1 KiB per session.

use super::table::Table;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;

/// Bytes of a lane that are kept.
const TAIL: usize = 1024;
/// Bytes of a lane that are decoded with what comes next.
const DECODED: usize = 512;
/// Bytes of a new value that may complete something older.
const HEAD: usize = 512;
/// Bytes of candidates per lane and push.
const CANDIDATES: usize = 4096;
/// So many bytes that come again at once, in one piece or in several that are the same, are the same thing said twice, and
/// no further piece.
const REPEATED: usize = 6;
/// Pieces before the last that are also tried alone before the new one, with what lies between left out.
const SKIPPED: usize = 8;

/// The settings of [`Fragments`].
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

/// Pieces put together, to be scanned.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Candidates, each followed by a line end.
    pub text: Vec<u8>,
    /// Where each candidate lies, and where in it the new value begins.
    candidates: Vec<(Range<usize>, usize)>,
    /// Of each lane the longest candidate, by its place among them.
    longest: Vec<usize>,
}

impl Joined {
    /// The older pieces and the new one, if a finding in [`Joined::text`] holds bytes of both.
    pub fn crosses(&self, finding: &Range<usize>) -> Option<[&[u8]; 2]> {
        let at = self.candidates.partition_point(|(candidate, _)| candidate.end < finding.end);
        let (candidate, new) = self.candidates.get(at)?;
        let crosses = candidate.start <= finding.start && finding.start < *new && *new < finding.end;
        if crosses { Some([self.text.get(candidate.start..*new)?, self.text.get(*new..candidate.end)?]) } else { None }
    }

    /// Of each lane the end of its longest candidate, with where it lies: what is cut up and written in some other way besides is
    /// looked for in these alone, since it is found in them wherever it begins.
    pub fn longest(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let candidates = self.longest.iter().filter_map(|at| self.candidates.get(*at));
        candidates.filter_map(|(range, new)| {
            let start = range.start.max(new.saturating_sub(DECODED));
            Some((start, self.text.get(start..range.end)?))
        })
    }

    /// The value that came last.
    pub fn new_value(&self) -> &[u8] {
        let last = self.candidates.last().and_then(|(range, new)| self.text.get(*new..range.end));
        last.unwrap_or_default()
    }

    /// Whether there is nothing to scan.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn add<'a>(&mut self, old: impl Iterator<Item = &'a [u8]>, new: &[u8]) {
        let start = self.text.len();
        old.for_each(|piece| self.text.extend_from_slice(piece));
        let boundary = self.text.len();
        self.text.extend_from_slice(new);
        self.candidates.push((start..self.text.len(), boundary));
        self.text.push(b'\n');
    }
}

#[derive(Debug, Default)]
struct Lane {
    /// Time and bytes of the latest pieces, [`TAIL`] bytes in all.
    pieces: VecDeque<(u64, Vec<u8>)>,
    bytes: usize,
    used: u64,
}

/// What is kept of a value.
fn tail(value: &[u8]) -> &[u8] {
    &value[value.len() - value.len().min(TAIL)..]
}

impl Lane {
    fn forget(&mut self, now: u64, window: u64) {
        self.used = self.used.max(now);
        while self.pieces.front().is_some_and(|(time, _)| time.saturating_add(window) <= now) {
            self.drop_front();
        }
    }

    /// How many bytes at its end are this value, once or again and again.
    fn repeats(&self, value: &[u8]) -> usize {
        let value = tail(value);
        let again = self.pieces.iter().rev().take(REPEATED).take_while(|(_, last)| last == value).count();
        again * value.len()
    }

    fn take_back(&mut self, value: &[u8]) {
        if let Some(at) = self.pieces.iter().rposition(|(_, piece)| piece == tail(value)) {
            self.pieces.remove(at);
            self.bytes -= tail(value).len();
        }
    }

    fn push(&mut self, now: u64, window: u64, value: &[u8], joined: &mut Joined) {
        self.forget(now, window);
        let head = &value[..value.len().min(HEAD)];
        let tail = tail(value);
        if !head.is_empty() && !self.pieces.is_empty() {
            self.candidates(head, joined);
        }
        if !tail.is_empty() {
            self.pieces.push_back((now, tail.to_vec()));
            self.bytes += tail.len();
        }
        while self.bytes > TAIL {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        if let Some((_, piece)) = self.pieces.pop_front() {
            self.bytes -= piece.len();
        }
    }

    /// The last piece and the new value, the last two, three and so on, and all; then earlier pieces alone before the new value.
    fn candidates(&self, new: &[u8], joined: &mut Joined) {
        let mut left = CANDIDATES;
        let (mut old, mut first) = (0, self.pieces.len());
        while first > 0 {
            old += self.pieces[first - 1].1.len();
            let Some(rest) = left.checked_sub(old + new.len()) else { break };
            left = rest;
            first -= 1;
            joined.add(self.pieces.range(first..).map(|(_, piece)| piece.as_slice()), new);
        }
        if first > 0 {
            joined.add(self.pieces.iter().map(|(_, piece)| piece.as_slice()), new);
        }
        joined.longest.push(joined.candidates.len() - 1);
        let last = self.pieces.len() - 1;
        for (_, piece) in self.pieces.range(last.saturating_sub(SKIPPED)..last) {
            joined.add([piece.as_slice()].into_iter(), new);
        }
    }
}

/// The lane of values without their labels, one per session.
const VALUES: u64 = u64::MAX;

/// The pieces of all sessions.
#[derive(Debug)]
pub struct Fragments {
    limits: FragmentLimits,
    table: Table<HashMap<u64, Lane>>,
}

impl Fragments {
    /// No pieces yet.
    pub fn new(limits: FragmentLimits) -> Self {
        Self { limits: FragmentLimits { lanes: limits.lanes.max(2), ..limits }, table: Table::new(limits.sessions) }
    }

    /// Takes a value a session sends at `now` (milliseconds) on a lane; returns what is to be scanned. What the lane ends in
    /// already, as headers do that are the same in every request, is not taken again.
    pub fn push(&mut self, session: u64, lane: u64, now: u64, value: &[u8]) -> Joined {
        let mut joined = Joined::default();
        let window = self.limits.window;
        let lanes = self.table.entry(session, now, HashMap::new);
        let lane = if lane == VALUES { 0 } else { lane };
        let repeated = lanes.get_mut(&lane).map_or(0, |own| {
            own.forget(now, window);
            own.repeats(value)
        });
        if repeated >= REPEATED {
            return joined;
        }
        // A short one may be the next letter of its lane, but says nothing to the others.
        let common = (repeated == 0).then(|| (VALUES, without_label(value)));
        for (lane, value) in [(lane, value)].into_iter().chain(common) {
            if lanes.len() >= self.limits.lanes && !lanes.contains_key(&lane) {
                let oldest = lanes.iter().filter(|(known, _)| **known != VALUES).min_by_key(|(_, lane)| lane.used);
                if let Some(oldest) = oldest.map(|(known, _)| *known) {
                    lanes.remove(&oldest);
                }
            }
            lanes.entry(lane).or_default().push(now, window, value, &mut joined);
        }
        joined
    }

    /// Takes a value back that was pushed last and then was not sent: what is tried once more is judged once more.
    pub fn take_back(&mut self, session: u64, lane: u64, now: u64, value: &[u8]) {
        let lanes = self.table.entry(session, now, HashMap::new);
        let lane = if lane == VALUES { 0 } else { lane };
        for (lane, value) in [(lane, value), (VALUES, without_label(value))] {
            if let Some(lane) = lanes.get_mut(&lane) {
                lane.take_back(value);
            }
        }
    }

    /// Forgets a session that ended.
    pub fn end(&mut self, session: u64) {
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

    /// Whether a whole line of the joined text is the secret, and crosses.
    fn completes(joined: &Joined) -> bool {
        joined.text.windows(SECRET.len()).enumerate().any(|(at, window)| {
            let span = at..at + SECRET.len();
            let alone = at == 0 || !joined.text[at - 1].is_ascii_alphanumeric();
            window == SECRET && alone && joined.crosses(&span).is_some()
        })
    }

    fn sent(pieces: &[&[u8]], lanes: &[u64]) -> bool {
        let mut fragments = Fragments::new(FragmentLimits::default());
        let mut found = false;
        for (at, piece) in pieces.iter().enumerate() {
            found |= completes(&fragments.push(1, lanes[at % lanes.len()], at as u64, piece));
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
        fragments.push(1, 1, 0, &SECRET[..20]);
        assert!(fragments.push(2, 1, 1, &SECRET[20..]).is_empty());
        assert!(fragments.push(1, 1, 100, &SECRET[20..]).is_empty());
    }

    #[test]
    fn a_push_costs_a_constant_and_the_new_bytes() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        for at in 0..10_000u64 {
            let value = vec![b'a' + (at % 26) as u8; (at % 300 * (at % 11)) as usize];
            let joined = fragments.push(1, at % 50, at, &value);
            assert!(joined.text.len() <= 20 << 10, "{}", joined.text.len());
        }
    }

    #[test]
    fn what_is_said_again_is_no_further_piece() {
        assert!(sent(&[b"ghp_ABCDEFGHIJKLMN", b"ghp_ABCDEFGHIJKLMN", b"OPQRSTUVWXYZabcdef12"], &[1]));
        let mut fragments = Fragments::new(FragmentLimits::default());
        fragments.push(1, 1, 0, b"text/html");
        assert!(fragments.push(1, 1, 1, b"text/html").is_empty());
        assert!(!fragments.push(1, 1, 2, b"l").is_empty() && !fragments.push(1, 1, 3, b"l").is_empty());
    }

    #[test]
    fn what_was_stopped_is_stopped_again() {
        let mut fragments = Fragments::new(FragmentLimits::default());
        let pieces = [&SECRET[..10], &SECRET[10..20], &SECRET[20..]];
        fragments.push(1, 1, 0, pieces[0]);
        fragments.push(1, 1, 1, pieces[1]);
        for now in 2..5 {
            assert!(completes(&fragments.push(1, 1, now, pieces[2])), "{now}");
            fragments.take_back(1, 1, now, pieces[2]);
        }
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
                let joined = fragments.push(at as u64 % 3, at as u64 % 5, at as u64 * 2, value);
                joined.crosses(&(0..joined.text.len()));
            }
        }
    }
}
