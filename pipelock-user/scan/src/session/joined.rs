//! What is in pieces that were put together. Called by [`super::door`], which keeps the pieces.
//!
//! Promises: only what old and new pieces make together is told of, and bounded work for each value.

use std::ops::Range;

use super::chains::Beginning;
use super::fragments::Joined;
use crate::engine::{Begun, EngineError};
use crate::entropy;
use crate::finding::Finding;
use crate::rule::{self, builtin};
use crate::scanner::Scanner;
use crate::stream::Stream;
use crate::url::{in_pieces, telling};

/// Could it be a piece of a secret that is written in another way besides? Words and names made of words are none.
fn may_be_encoded(value: &[u8]) -> bool {
    value.len() < 6 || value.iter().any(u8::is_ascii_digit) || entropy::free(value)
}

/// Bytes of what tokens without check digits begin with: `ghp_`, `AKIA`.
const PREFIX: usize = 4;

/// Least letters of words that are told from noise.
const WORDS: usize = 6;

/// Is it hexadecimal throughout, as UUIDs and hashes are? Of so many characters of a token without check digits some are none.
fn is_digest(part: &[u8]) -> bool {
    part.len() >= 16 && part.iter().all(u8::is_ascii_hexdigit)
}

/// Has it capitals and digits, as the noise of a token has? Names of files, hashes and media types have not.
pub(super) fn is_mixed(part: &[u8]) -> bool {
    let has = |class: fn(&u8) -> bool| part.iter().any(class);
    has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit)
}

/// Least bytes of what goes on something with other values between: fewer (`v1`, `a`) stand in every path, and fill up anything.
const MIDDLE: usize = 3;

/// May it stand in the middle of a token, and is nothing that is said besides?
fn is_middle(value: &[u8]) -> bool {
    let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+=".contains(byte);
    value.len() >= MIDDLE && value.iter().all(in_token) && !is_said(value)
}

/// Is it a UUID or the like: hexadecimal in groups? What a token of many letters lacks for its length is in any.
fn is_id(piece: &[u8]) -> bool {
    let digits = piece.iter().filter(|byte| byte.is_ascii_hexdigit()).count();
    digits >= 16 && piece.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-')
}

/// Do values say it that have nothing to do with one another?
fn is_said(part: &[u8]) -> bool {
    is_digest(part) || is_words(part)
}

/// Does it read like words, behind a prefix if it has one? Values that are said one after another have the length of a token soon.
fn is_words(part: &[u8]) -> bool {
    let behind = part.iter().rposition(|byte| matches!(byte, b'_' | b'-')).map_or(0, |at| at + 1);
    // Numbers stand at one place of a name; noise, of which some reads, has them everywhere.
    let is_noise = |words: &[u8]| is_mixed(words) && numbers(words) > 1;
    part.get(behind..).is_some_and(|words| words.len() >= WORDS && entropy::readable(words) && !is_noise(words))
}

/// How many numbers are in it.
fn numbers(text: &[u8]) -> usize {
    text.chunk_by(|one, other| one.is_ascii_digit() == other.is_ascii_digit())
        .filter(|run| run.first().is_some_and(u8::is_ascii_digit))
        .count()
}

impl Scanner {
    /// What is in pieces that were put together, where old and new ones both are part of it; `span` is the new one's place.
    pub(super) fn scan_joined(&self, joined: &Joined, span: &Range<u64>) -> Result<Vec<Finding>, EngineError> {
        let mut findings: Vec<Finding> = Vec::new();
        if joined.is_empty() {
            return Ok(findings);
        }
        // A text of which nothing is known may begin anything.
        let begins = |text: &[u8]| self.begun(true, text).unwrap_or(Begun::all(text.len()));
        let candidates = joined.candidates(begins, |old, new| self.awaits(old, new));
        if !candidates.text.is_empty() {
            let crosses = |place: &Range<usize>| candidates.crosses(place);
            let found = Stream::plainly(&self.core)?.finish_with(&candidates.text)?;
            self.add_crossing(&candidates.text, found, crosses, span, &mut findings)?;
        }
        if may_be_encoded(joined.new_value()) {
            for (text, new) in joined.ends() {
                let crosses = |place: &Range<usize>| {
                    (place.start < new && new < place.end).then(|| vec![0..new, new..text.len()])
                };
                let found = Stream::telling_made(&self.core)?.finish_with(text)?;
                self.add_crossing(text, found, crosses, span, &mut findings)?;
            }
        }
        Ok(findings)
    }

    /// Adds what was found in a text put together where `crosses` gives several parts of it.
    pub(super) fn add_crossing(
        &self,
        text: &[u8],
        found: Vec<Finding>,
        crosses: impl Fn(&Range<usize>) -> Option<Vec<Range<usize>>>,
        span: &Range<u64>,
        findings: &mut Vec<Finding>,
    ) -> Result<(), EngineError> {
        for found in found {
            let place = found.span.start as usize..found.span.end as usize;
            let known = |one: &Finding| one.rule == found.rule && one.fingerprint == found.fingerprint;
            if !telling(&found) || findings.iter().any(known) {
                continue;
            }
            let Some(places) = crosses(&place) else { continue };
            // One secret may be put together in several ways.
            if places.len() > 2 && findings.iter().any(|one| one.rule == found.rule) {
                continue;
            }
            let part = |part: &Range<usize>| text.get(place.start.max(part.start)..place.end.min(part.end));
            let mut parts = places.iter().filter_map(part);
            let first = parts.next().unwrap_or_default();
            let rest: Vec<&[u8]> = parts.collect();
            // Its prefix alone stands in settings and texts, and much else has the length of the rest. What is cut within the
            // prefix, or where no prefix is, stands nowhere by chance.
            let is_prefix = || first.len() <= PREFIX && self.is_prefix(&found, first, false);
            // Behind a whole prefix, whatever has characters of a token would be one.
            if !rest.iter().all(|part| is_mixed(part)) && self.is_prefix(&found, first, true) {
                continue;
            }
            let is_said = |part: &[u8]| is_said(part) && (is_digest(part) || &*found.class == "credential");
            let ends_in_id = || places.last().and_then(|last| text.get(last.clone())).is_some_and(is_id);
            let by_chance = || is_prefix() || is_said(first) || rest.iter().any(|part| is_said(part)) || ends_in_id();
            let is_chain = rest.len() > 1 && *found.rule != *builtin::KNOWN.id;
            if (is_chain || rule::is_shape(&found.rule)) && by_chance() {
                continue;
            }
            let mut is_whole = false;
            for part in places {
                is_whole = is_whole || self.has_secret(text, part, &found)?;
            }
            if !is_whole {
                findings.push(in_pieces(found, span.clone()));
            }
        }
        Ok(())
    }

    /// What the new value goes on of what earlier ones began, by lane: it may end in what comes next.
    pub(super) fn continued(&self, joined: &Joined) -> Result<Vec<(u64, Beginning)>, EngineError> {
        let mut chains = Vec::new();
        for (lanes, lately) in joined.lanes() {
            let new = lately.new_value();
            let is_middle = is_middle(new);
            let from = chains.len();
            let is_known = |chain: &Beginning| Stream::begun_known(&self.core, &chain.text) > new.len();
            let goes_on = lately.beginnings().filter_map(|beginning| beginning.with(new));
            let (known, others): (Vec<Beginning>, Vec<Beginning>) = goes_on.partition(is_known);
            let begun = if is_middle && !others.is_empty() {
                Stream::begun_rules(&self.core, others.iter().map(|chain| &*chain.text))?
            } else {
                Vec::new()
            };
            let others = others.into_iter().zip(begun).filter(|(_, begun)| begun.sure > new.len());
            // A known value is never there by chance, and is the last to be forgotten.
            for chain in known.into_iter().chain(others.map(|(chain, _)| chain)) {
                chains.extend(lanes.iter().map(|lane| (*lane, chain.clone())));
            }
            // Those that came last are kept longest.
            chains[from..].reverse();
        }
        Ok(chains)
    }

    /// Whether tokens of a finding's rule begin like this; with `bare`, with this and no more.
    fn is_prefix(&self, found: &Finding, part: &[u8], bare: bool) -> bool {
        let rule = self.rules().rules().iter().find(|rule| rule.id == found.rule);
        let begins = |word: &String| {
            part.get(..word.len()).is_some_and(|begun| begun.eq_ignore_ascii_case(word.as_bytes()))
                && (!bare || part.len() == word.len())
        };
        rule.is_some_and(|rule| rule.keywords.iter().any(begins))
    }

    /// Whether the rule of a finding finds something in a part alone, where the finding lies: a secret that is whole in one part,
    /// with the end or beginning of the other, was judged by itself.
    fn has_secret(&self, text: &[u8], part: Range<usize>, like: &Finding) -> Result<bool, EngineError> {
        let part_text = text.get(part.clone()).unwrap_or_default();
        let place = like.span.start.saturating_sub(part.start as u64)..like.span.end.saturating_sub(part.start as u64);
        let overlaps = |found: &Finding| found.span.start < place.end && place.start < found.span.end;
        let found = Stream::telling(&self.core)?.finish_with(part_text)?;
        Ok(found.iter().any(|found| found.rule == like.rule && overlaps(found)))
    }
}
