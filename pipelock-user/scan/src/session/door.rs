//! What sessions send, request by request: [`Sessions`]. Called by whoever sends requests on.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::fragments::{Fragments, TAIL};
use super::table::Table;
use super::{Budget, BudgetLimits, FragmentLimits, Given, Ticket};
use crate::engine::{Begun, EngineError};
use crate::entropy;
use crate::finding::Finding;
use crate::rule::builtin;
use crate::scanner::Scanner;
use crate::stream;
use crate::url::{self, Parts};

/// Of the bits that a session may send in free values, the share that names may carry: whoever asks for one has a choice that no
/// request needs.
const OF_NAMES: f64 = 0.25;
/// Names of a session that are remembered.
const MOST_NAMES: usize = 4096;

/// A scanner with a memory of what each session sent. Sessions are numbered by the caller; time is in milliseconds from any
/// fixed point.
#[derive(Debug)]
pub struct Sessions {
    scanner: Scanner,
    /// What came in, of which values may be made that tell nothing.
    given: Option<Arc<Given>>,
    state: Mutex<State>,
    /// How long names are remembered, in milliseconds.
    window: u64,
    /// Keyed, so that nobody outside can choose which lanes meet.
    lanes: RandomState,
    /// One is held while a name is judged: whoever asks for the same at the same time waits for that, and now and then whoever
    /// asks for another.
    judging: [Mutex<()>; 16],
}

/// What is in values that a session is about to send.
#[derive(Debug, Default)]
#[must_use]
pub struct Sent {
    /// In them, and in them and what was sent before.
    pub findings: Vec<Finding>,
    /// By which they are [taken back](Sessions::take_back).
    pub tickets: Vec<Ticket>,
}

#[derive(Debug)]
struct State {
    budget: Budget,
    fragments: Fragments,
    /// Bits in names, and the names that were let through with the time of that.
    of_names: Budget,
    names: Table<HashMap<u64, u64>>,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(scanner: Scanner, budget: BudgetLimits, fragments: FragmentLimits) -> Self {
        let state = State {
            budget: Budget::new(budget),
            fragments: Fragments::new(fragments),
            of_names: Budget::new(BudgetLimits { bits: budget.bits * OF_NAMES, ..budget }),
            names: Table::new(budget.sessions),
        };
        Self {
            scanner,
            given: None,
            state: Mutex::new(state),
            window: fragments.window,
            lanes: RandomState::new(),
            judging: Default::default(),
        }
    }

    /// Values made of what `given` remembers are not taken for data of a session's own choice. It is that of all sessions.
    #[must_use]
    pub fn beside(self, given: Arc<Given>) -> Self {
        Self { given: Some(given), ..self }
    }

    /// What is in a URL, as [`Scanner::scan_url`] says, and what it makes together with what this session sent before: a secret
    /// in pieces, more data in free values than a session may send. What is refused for it is to be taken back.
    ///
    /// # Errors
    /// [`EngineError`]: the URL must then be taken for dirty.
    pub fn url(&self, session: u64, now: u64, url: &str) -> Result<Sent, EngineError> {
        let mut sent = Sent { findings: self.scanner.scan_url(url)?, tickets: Vec::new() };
        let parts = Parts::of(url);
        let host = url.get(parts.host.clone()).unwrap_or_default();
        let bytes = url.as_bytes();
        if let Some(given) = &self.given {
            sent.findings.retain(|finding| {
                let part = bytes.get(finding.span.start as usize..finding.span.end as usize);
                let was_given = |part| given.has_given(&url::decoded(part), self.scanner.core.urls.limits.length);
                *finding.rule != *builtin::PART.id || !part.is_some_and(was_given)
            });
        }
        for (at, part) in parts.segments.iter().enumerate() {
            let lane = self.lanes.hash_one((host, "", at));
            self.take(session, now, lane, &url::decoded(&bytes[part.clone()]), part, &mut sent)?;
        }
        for (key, value) in &parts.query {
            let lane = self.lanes.hash_one((host, &bytes[key.clone()], 0));
            self.take(session, now, lane, &url::decoded(&bytes[value.clone()]), value, &mut sent)?;
        }
        Ok(sent)
    }

    /// As [`url`](Self::url) for one value of a message: a header, a field of a form, an argument of a tool, a body of at most
    /// some kilobytes. `lane` says which: pieces of one lane are put together in order.
    ///
    /// # Errors
    /// [`EngineError`]: the value must then be taken for dirty.
    pub fn value(&self, session: u64, now: u64, lane: impl Hash, value: &[u8]) -> Result<Sent, EngineError> {
        let mut sent = Sent { findings: self.scanner.scan(value)?, tickets: Vec::new() };
        self.take(session, now, self.lanes.hash_one(lane), value, &(0..value.len()), &mut sent)?;
        Ok(sent)
    }

    /// As [`value`](Self::value) for what was read by itself already, and need not be of the session's choice: only what it
    /// completes, and what words of it make that nothing but separators stands between: a secret in two cookies, in two lines, in
    /// a list.
    ///
    /// # Errors
    /// As [`value`](Self::value).
    pub fn piece(&self, session: u64, now: u64, lane: impl Hash, value: &[u8]) -> Result<Sent, EngineError> {
        let mut sent = Sent { findings: self.scanner.scan_apart(value)?, tickets: Vec::new() };
        self.join(session, now, self.lanes.hash_one(lane), value, &(0..value.len()), &mut sent)?;
        Ok(sent)
    }

    /// Takes values back that are not sent in the end, or not as they were: tried once more, they are judged once more.
    pub fn take_back(&self, session: u64, now: u64, tickets: &[Ticket]) {
        let mut state = self.lock();
        tickets.iter().for_each(|ticket| state.fragments.take_back(session, now, ticket));
    }

    /// What is in a host name (canonical) below `zone`, before it is looked up: as [`Scanner::scan_url`] says of one, and what
    /// it makes together with the names this session asked for before. One that is refused is to be taken back; of one that is let
    /// through with findings that is to be [said](Self::asked).
    ///
    /// # Errors
    /// [`EngineError`]: the name must then be taken for dirty.
    pub fn host(&self, session: u64, now: u64, name: &str, zone: &str) -> Result<Sent, EngineError> {
        let chosen = entropy::before(name, zone);
        if chosen.is_empty() {
            return Ok(Sent::default());
        }
        let mut sent = Sent { findings: self.scanner.scan_url(name)?, tickets: Vec::new() };
        let hash = self.lanes.hash_one(name);
        let judging = &self.judging[hash as usize % self.judging.len()];
        let _judging = judging.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = {
            let mut state = self.lock();
            let names = state.names.entry(session, now, HashMap::new);
            if names.get(&hash).is_some_and(|seen| seen.saturating_add(self.window) > now) {
                names.insert(hash, now);
                return Ok(sent);
            }
            entropy::data_labels(name, zone)
                .fold(false, |over, label| over | state.of_names.record(session, now, label.as_bytes()).over)
        };
        let mut at = 0;
        for (position, label) in chosen.split('.').enumerate() {
            let lane = self.lanes.hash_one((zone, "host", position));
            self.join(session, now, lane, label.as_bytes(), &(at..at + label.len()), &mut sent)?;
            at += label.len() + 1;
        }
        if is_over && self.scanner.has(&builtin::HOST_BUDGET) {
            let place = 0..chosen.len() as u64;
            sent.findings.push(Finding {
                span: place.clone(),
                cover: place,
                ..stream::whole(&builtin::HOST_BUDGET, 0)
            });
        }
        if sent.findings.is_empty() {
            self.asked(session, now, name);
        }
        Ok(sent)
    }

    /// Notes that a name was let through: asked for again, it says nothing new.
    pub fn asked(&self, session: u64, now: u64, name: &str) {
        let mut state = self.lock();
        let names = state.names.entry(session, now, HashMap::new);
        if names.len() >= MOST_NAMES {
            names.retain(|_, seen| seen.saturating_add(self.window) > now);
            if names.len() >= MOST_NAMES {
                names.clear();
            }
        }
        names.insert(self.lanes.hash_one(name), now);
    }

    /// Forgets a session that ended.
    pub fn end(&self, session: u64) {
        let mut state = self.lock();
        state.budget.end(session);
        state.fragments.end(session);
        state.of_names.end(session);
        state.names.remove(session);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(
        &self,
        session: u64,
        now: u64,
        lane: u64,
        value: &[u8],
        place: &Range<usize>,
        sent: &mut Sent,
    ) -> Result<(), EngineError> {
        let given = self.given.as_deref();
        let over = entropy::free(value) && self.lock().budget.record_at(session, now, (lane, value), given).over;
        self.join(session, now, lane, value, place, sent)?;
        let told = sent.findings.iter().any(|finding| *finding.rule == *builtin::SESSION_BUDGET.id);
        if over && !told && self.scanner.has(&builtin::SESSION_BUDGET) {
            let place = place.start as u64..place.end as u64;
            let whole = stream::whole(&builtin::SESSION_BUDGET, 0);
            sent.findings.push(Finding { span: place.clone(), cover: place, ..whole });
        }
        Ok(())
    }

    /// Adds what a value completes. What could not be read is taken for one that is not sent.
    fn join(
        &self,
        session: u64,
        now: u64,
        lane: u64,
        value: &[u8],
        place: &Range<usize>,
        sent: &mut Sent,
    ) -> Result<(), EngineError> {
        let (joined, ticket) = self.lock().fragments.push(session, lane, now, value);
        let found = self.scanner.scan_joined(&joined, &(place.start as u64..place.end as u64));
        match &found {
            Ok(found) if found.is_empty() && ticket.is_empty() => {}
            Ok(found) if found.is_empty() => {
                let end = &value[value.len().saturating_sub(TAIL)..];
                let begun = self.scanner.begun(false, end).unwrap_or(Begun::all(TAIL));
                let chains = self.scanner.continued(&joined).unwrap_or_default();
                self.lock().fragments.settle(session, now, &ticket, begun, &chains);
            }
            Ok(_) => {}
            Err(_) => {
                self.take_back(session, now, &sent.tickets);
                self.take_back(session, now, std::slice::from_ref(&ticket));
            }
        }
        sent.tickets.push(ticket);
        sent.findings.extend(found?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleSet;

    fn sessions(bits: f64) -> Sessions {
        let rule = "rules: [{id: token, name: token, kind: dlp, class: credential, severity: high, confidence: high, \
                    pattern: 'ghp_[A-Za-z0-9]{36}'}]";
        let rules = RuleSet::read(&[("test", rule)]).unwrap().with_builtins();
        let scanner = Scanner::new(rules, &[1; 32]).unwrap();
        Sessions::new(scanner, BudgetLimits { bits, ..BudgetLimits::default() }, FragmentLimits::default())
    }

    fn rules(sent: &Sent) -> Vec<&str> {
        sent.findings.iter().map(|finding| &*finding.rule).collect()
    }

    /// Pushes a piece that is stopped when it completes something: how much it does.
    fn piece(sessions: &Sessions, session: u64, value: &str) -> usize {
        let sent = sessions.piece(session, 0, "x", value.as_bytes()).unwrap();
        if !sent.findings.is_empty() {
            sessions.take_back(session, 0, &sent.tickets);
        }
        sent.findings.len()
    }

    #[test]
    fn a_secret_in_pieces_is_found_by_the_request_that_completes_it() {
        let sessions = sessions(1e9);
        let url = |value: &str| format!("https://example.com/?q={value}");
        assert_eq!(rules(&sessions.url(1, 0, &url("ghp_0123456789")).unwrap()), [] as [&str; 0]);
        assert_eq!(rules(&sessions.url(1, 1, &url("abcdefghij")).unwrap()), [] as [&str; 0]);
        assert_eq!(rules(&sessions.url(2, 1, &url("ABCDEFGHIJ012345")).unwrap()), [] as [&str; 0]);
        let found = sessions.url(1, 2, &url("ABCDEFGHIJ012345")).unwrap();
        assert_eq!(rules(&found), ["token"]);
        assert_eq!(found.findings[0].span, 23..39);
        assert_eq!(found.findings[0].path, [crate::Step::Joined]);
        let begun = sessions.value(3, 0, "body", b"ghp_0123456789abcdefghij").unwrap();
        assert_eq!(rules(&begun), [] as [&str; 0]);
        assert_eq!(rules(&sessions.value(3, 1, "body", b"ABCDEFGHIJ012345").unwrap()), ["token"]);
    }

    #[test]
    fn noise_that_reads_like_words_is_no_word_and_a_uuid_ends_no_token() {
        let shipped = RuleSet::shipped().unwrap().only(crate::Kind::Dlp);
        let scanner = Scanner::new(shipped, &[1; 32]).unwrap();
        let sessions =
            Sessions::new(scanner, BudgetLimits { bits: 1e9, ..BudgetLimits::default() }, FragmentLimits::default());
        assert_eq!(piece(&sessions, 1, "ghp_wcN8nWkQsd2EG72O"), 0);
        assert_eq!(piece(&sessions, 1, "B7ht3Woz9op2IXesIaUR"), 1);
        for part in ["ghp_wcN8nW", "kQsd2EG72O", "B7ht3Woz9o"] {
            assert_eq!(piece(&sessions, 2, part), 0, "{part}");
        }
        for id in ["5f0c1a2b-9d8e-4c7b-a6f5-0123456789ab", "f47ac10b-58cc-4372-a567-0e02b2c3d479"] {
            assert_eq!(piece(&sessions, 2, id), 0, "{id}");
        }
    }

    #[test]
    fn pieces_with_other_values_between_each_of_them_are_put_together() {
        let shipped = RuleSet::shipped().unwrap().only(crate::Kind::Dlp);
        let mut known = crate::known::Builder::new();
        let secret = "k7Qmz8-Vt42xw.Lp9dRs81=Bn6Yc3eUa5";
        known.add("SECRET", secret.as_bytes(), crate::known::Source::Secret).unwrap();
        let scanner = Scanner::builder(shipped, &[1; 32]).known(known).build().unwrap();
        let sessions =
            Sessions::new(scanner, BudgetLimits { bits: 1e9, ..BudgetLimits::default() }, FragmentLimits::default());
        let token = "glpat-Zx8KqLmN2pRtVwYz4B7c";
        let between = ["hello", "a clean value", "status=ok", "Ab3", "2024-05-01"];
        for (session, (secret, size)) in (1..).zip([(token, 9), (token, 12), (secret, 7), (secret, 13)]) {
            for noise in 1..=between.len() {
                let session = session * 100 + noise as u64;
                let pieces: Vec<&[u8]> = secret.as_bytes().chunks(size).collect();
                // What comes between may have the form of a piece, and is stopped for it then.
                let is_stopped = pieces.iter().enumerate().any(|(at, part)| {
                    let part = std::str::from_utf8(part).unwrap();
                    let others = between.iter().copied().cycle().skip(at).take(if at == 0 { 0 } else { noise });
                    others.chain([part]).any(|value| piece(&sessions, session, value) > 0)
                });
                assert!(is_stopped, "{secret} {size} {noise}");
            }
        }
        for (at, value) in between.iter().enumerate() {
            assert_eq!(piece(&sessions, 999, value), 0, "{at}");
        }
        // As many as are kept that began something hide none that goes on.
        for at in 0..40 {
            assert_eq!(piece(&sessions, 1000, &format!("SG.a{at:02}")), 0);
        }
        let parts = [&token[..13], "a clean value", &token[13..19], "a clean value", &token[19..]];
        let found: Vec<usize> = parts.iter().map(|part| piece(&sessions, 1000, part)).collect();
        assert_eq!(found.iter().sum::<usize>(), 1, "{found:?}");
    }

    #[test]
    fn a_prefix_that_is_mentioned_makes_no_secret_of_what_comes_next() {
        let shipped = RuleSet::shipped().unwrap().only(crate::Kind::Dlp);
        let scanner = Scanner::new(shipped, &[1; 32]).unwrap();
        let sessions =
            Sessions::new(scanner, BudgetLimits { bits: 1e9, ..BudgetLimits::default() }, FragmentLimits::default());
        for (session, prefix) in (1..).zip(["sk-ant-", "xoxb-", "glpat-", "AKIA"]) {
            let told = format!("write a regex for keys that start with {prefix}");
            assert_eq!(piece(&sessions, session, &told), 0);
            for value in [
                "3f2a9c1e-77b0-4d51-9a3e-0c5d8e6f1a2b",
                "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
                "application/json; charset=utf-8",
                "requests-2.31.0-py3-none-any.whl",
            ] {
                assert_eq!(piece(&sessions, session, value), 0, "{prefix} {value}");
            }
        }
        // The rest of a token is still told.
        assert_eq!(piece(&sessions, 9, "glpat-"), 0);
        assert_eq!(piece(&sessions, 9, "Zx8KqLmN2pRtVwYz4B7c"), 1);
    }

    #[test]
    fn what_lies_between_two_pieces_hides_neither() {
        let sessions = sessions(1e9);
        assert_eq!(piece(&sessions, 1, "ghp_0123456789abcdef"), 0);
        for at in 0..40 {
            assert_eq!(piece(&sessions, 1, &format!("#! {at} ?! {at} and some more of it, as values are, {at}!")), 0);
        }
        assert_eq!(sessions.piece(1, 0, "other", b"ghijABCDEFGHIJ012345").unwrap().findings.len(), 1);
        for (session, lengths) in (2..).zip([&[1004][..], &[1005], &[1024], &[512; 3], &[300; 6], &[1023, 1023, 1, 1]])
        {
            assert_eq!(piece(&sessions, session, "ghp_0123456789abcdef"), 0);
            for (at, length) in lengths.iter().enumerate() {
                assert_eq!(piece(&sessions, session, &format!("{at} {}", "#! ".repeat(400))[..*length]), 0);
            }
            let found = sessions.piece(session, 0, "other", b"ghijABCDEFGHIJ012345").unwrap().findings;
            assert_eq!(found.len(), 1, "{lengths:?}");
        }
    }

    /// Of patterns that begin with nothing in particular what comes next says whether they have begun.
    #[test]
    fn secrets_that_begin_like_anything_are_found_wherever_they_are_cut() {
        let shipped = RuleSet::shipped().unwrap().only(crate::Kind::Dlp);
        let mut secrets = Vec::new();
        for id in [
            "mailchimp-key",
            "azure-devops-pat",
            "azure-client-secret",
            "terraform-cloud-token",
            "rapidapi-key",
            "maxmind-key",
            "telegram-bot-token",
            "google-oauth-client-id",
        ] {
            let rule = shipped.rules().iter().find(|rule| &*rule.id == id).unwrap();
            secrets.push((id, rule.examples.first().unwrap().clone()));
        }
        let scanner = Scanner::new(shipped, &[1; 32]).unwrap();
        for (id, secret) in secrets {
            for cut in 1..secret.len() {
                let sessions = Sessions::new(scanner.clone(), BudgetLimits::default(), FragmentLimits::default());
                let (old, new) = secret.as_bytes().split_at(cut);
                let is_found = |part: &[u8]| rules(&sessions.value(1, 0, "x", part).unwrap()).contains(&id);
                let pieces = [&b"settings"[..]].into_iter().chain(old.chunks(12));
                assert!(pieces.chain([new]).any(is_found), "{secret} {cut}");
            }
        }
    }

    /// The text before a piece is none of it, though it ends in a letter.
    #[test]
    fn a_piece_begins_a_secret_whatever_was_sent_before() {
        let scanner = Scanner::new(RuleSet::shipped().unwrap().only(crate::Kind::Dlp), &[1; 32]).unwrap();
        for pieces in [
            &["settings", "AKIA1F23", "H45K67M89P0Q"][..],
            &["settings", "AKIA1F23", "H45K67", "M89P0Q"],
            &["hello", "ef7a7c940cd695c38df70fd2622e1b47", "-us8"],
            &["part1: alice:$apr1$abcd", "hello", "part2: efgh$0123456789abcdefghijkl"],
        ] {
            let sessions = Sessions::new(scanner.clone(), BudgetLimits::default(), FragmentLimits::default());
            let found = |part: &&str| piece(&sessions, 1, part) > 0;
            assert_eq!(pieces.iter().position(found), Some(pieces.len() - 1), "{pieces:?}");
        }
    }

    #[test]
    fn what_is_known_by_itself_completes_no_form() {
        let rules = RuleSet::shipped().unwrap();
        let scanner = Scanner::new(rules, &[1; 32]).unwrap();
        let sessions = Sessions::new(scanner, BudgetLimits::default(), FragmentLimits::default());
        for (session, begin, digest) in [
            (1, "ghp_", "3f2504e04f8941d39a0c0305e82c3301abcd"),
            (2, "ghp_", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            (3, "AKIA", "3F2504E04F8941D3"),
            (6, "ghp_", "V1StGXR8Z5jdHi6BmyTV1StGXR8Z5jdHi6BmyT"),
            (7, "AKIA1F", "3F2504E04F8941D3"),
        ] {
            assert_eq!(piece(&sessions, session, begin), 0);
            assert_eq!(piece(&sessions, session, digest), 0, "{begin} {digest}");
        }
        assert_eq!(piece(&sessions, 4, "ghp_Pl7kQw2ZnR5tXc9V"), 0);
        assert_eq!(piece(&sessions, 4, "bM3sJh8DfG1yUa2ya2Qq"), 1);
        // Split behind the prefix, its check digits tell.
        assert_eq!(piece(&sessions, 8, "ghp_"), 0);
        assert_eq!(piece(&sessions, 8, "Pl7kQw2ZnR5tXc9VbM3sJh8DfG1yUa2ya2Qq"), 1);
        assert_eq!(piece(&sessions, 5, "AKIA1F23"), 0);
        assert_eq!(piece(&sessions, 5, "H45K67M89P0Q"), 1);
        // Words that are said one after another are no token, however long.
        for value in ["ghp_", "repository", "settings", "description", "visibility", "documentation"] {
            assert_eq!(piece(&sessions, 9, value), 0, "{value}");
        }
        // What is cut in its prefix stands nowhere by chance, nor does the header of a key.
        for (session, begin, rest) in [
            (10, "g", "hp_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef01"),
            (11, "ghp", "_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef01"),
            (12, "AK", "IA1F23H45K67M89P0Q"),
            (13, "pyp", "i-jGvKBNCfd59HAyuL4KgKsgqzrtY7cg5qQdFB85KQ"),
            (14, "-----BEGIN RSA PRIVATE KEY-----\nFAK", "EKEYDATAFORTESTINGONLY0123"),
        ] {
            assert_eq!(piece(&sessions, session, begin), 0);
            assert_eq!(piece(&sessions, session, rest), 1, "{begin} {rest}");
        }
    }

    #[test]
    fn a_budget_runs_out() {
        let sessions = sessions(300.0);
        let url = |value: u64| format!("https://example.com/?id=k{:x}", value.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let over = (0..20)
            .position(|at| rules(&sessions.url(1, at, &url(at + 1)).unwrap()).contains(&"session-entropy-budget"));
        assert!(matches!(over, Some(3..=8)), "{over:?}");
        let words = ["search", "settings", "documentation", "2026", "en", "12", "issues", "list-all-things"];
        for at in 0..200 {
            let url = format!("https://example.com/{}/{}", words[at % 8], words[at * 7 % 8]);
            assert_eq!(rules(&sessions.url(2, at as u64, &url).unwrap()), [] as [&str; 0], "{url}");
        }
        sessions.end(1);
        assert_eq!(rules(&sessions.url(1, 30, &url(9)).unwrap()), [] as [&str; 0]);
    }

    #[test]
    fn requests_that_count_and_poll_leave_the_budget_alone_and_data_does_not() {
        let sessions = sessions(BudgetLimits::default().bits);
        for at in 0..2000 {
            let uuid = format!("{}-{}-4{}-a{}-{}", hex(at, 8), hex(at, 4), hex(at, 3), hex(at, 3), hex(at, 12));
            for path in [
                format!("cc{at}"),
                format!("users/{at}/items/{}", at * 7 % 90),
                format!("orders/{uuid}/lines/line{}", at % 40),
                format!("posts/my-post-about-page{}", at * 31 % 1000),
                format!("repos/zq9xw3k7/builds/{}", 48_201_700 + at),
                format!("search?page={at}&tag=v{}.{}.1", at % 9, at % 30),
            ] {
                let url = format!("https://api.example/{path}");
                assert_eq!(rules(&sessions.url(1, at as u64, &url).unwrap()), [] as [&str; 0], "{url}");
            }
        }
        // A kilobyte of data in whichever form.
        let told = |session: u64, path: &dyn Fn(usize) -> String| {
            (0..500).position(|at| {
                let url = format!("https://api.example/{}", path(at));
                rules(&sessions.url(session, 0, &url).unwrap()).contains(&"session-entropy-budget")
            })
        };
        let number = |at: usize| (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 34;
        for (session, path) in (2..).zip([
            &(|at| hex(at, 12)) as &dyn Fn(usize) -> String,
            &|at| format!("users/{}", number(at)),
            &|at| format!("item{}", number(at)),
            &|at| format!("x?page={}", number(at)),
            &|at| format!("zq{}", hex(at, 6)),
        ]) {
            assert!(told(session, path).is_some_and(|at| at < 400), "{}", path(7));
        }
    }

    /// Random digits, the same every time.
    fn hex(seed: usize, length: usize) -> String {
        let mut state = seed as u64 + 1;
        let mut digit = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{:x}", state >> 60)
        };
        (0..length).map(|_| digit()).collect()
    }

    /// What an installer reads of a package, and what it asks for then.
    fn package(at: usize) -> (String, Vec<String>) {
        let (pypi, sum) = (hex(at, 60), hex(at + 1000, 64));
        let wheel = format!("pkg{at}x_core-2.{at}-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl");
        let link = format!("https://files.example/packages/{}/{}/{pypi}/{wheel}", &sum[..2], &sum[2..4]);
        let go = format!("v0.0.0-2024{:04}{:06}-{}", 101 + at, 7 * at, hex(at + 2000, 12));
        let layer = format!("sha256:{}", hex(at + 3000, 64));
        let signature = hex(at + 4000, 43);
        let text = format!(
            "<a href=\"{link}#sha256={sum}\">{wheel}</a>\n\"example.com/mod{at} {go}\"\n{{\"digest\": \"{layer}\"}}\n\
             location: https://store.example/blob?sig={signature}&se=2026\n{{\"name\":\"p{at}q7z-sys\",\"vers\":\"0.1.{at}\"}}"
        );
        let urls = vec![
            format!("{link}.metadata"),
            link,
            format!("https://go.example/example.com/mod{at}/@v/{go}.zip"),
            format!("https://registry.example/v2/library/x/blobs/{layer}"),
            format!("https://store.example/blob?sig={signature}&se=2026"),
            format!("https://crates.example/crates/p{at}q7z-sys/p{at}q7z-sys-0.1.{at}.crate"),
        ];
        (text, urls)
    }

    #[test]
    fn what_answers_link_to_raises_nothing_and_leaves_the_budget_to_what_they_do_not() {
        let limits = BudgetLimits::default();
        let first_told = |is_given: bool| {
            let scanner = sessions(1.0).scanner;
            let given = Arc::new(Given::default());
            let inbound = scanner.giving(given.clone());
            let sessions = Sessions::new(scanner, limits, FragmentLimits::default()).beside(given);
            let told = (0..100).position(|at| {
                let (text, urls) = package(at);
                if is_given {
                    inbound.scan(text.as_bytes()).unwrap();
                }
                urls.iter().any(|url| !sessions.url(1, 0, url).unwrap().findings.is_empty())
            });
            let own = |at: usize| format!("https://files.example/packages/{}.whl", hex(at, 40));
            let spent = (9000..9100).position(|at| !sessions.url(1, 0, &own(at)).unwrap().findings.is_empty());
            (told, spent)
        };
        // Without what was given the first packages raise something; and with it what is sent besides still runs into the limit.
        assert!(matches!(first_told(false).0, Some(0..20)), "{:?}", first_told(false));
        assert!(matches!(first_told(true), (None, Some(1..30))), "{:?}", first_told(true));
    }

    #[test]
    fn what_was_stopped_is_stopped_when_it_is_tried_again() {
        let sessions = sessions(1e9);
        let url = |value: &str| format!("https://example.com/?q={value}");
        for part in ["ghp_0123456789", "abcdefghij"] {
            assert_eq!(rules(&sessions.url(1, 0, &url(part)).unwrap()), [] as [&str; 0]);
        }
        for _ in 0..3 {
            // Twice at once, and then it is not sent.
            let [first, second] = [(), ()].map(|()| sessions.url(1, 2, &url("ABCDEFGHIJ012345")).unwrap());
            assert_eq!([rules(&first), rules(&second)], [["token"], ["token"]]);
            sessions.take_back(1, 2, &first.tickets);
            sessions.take_back(1, 2, &second.tickets);
        }
        let parts = ["ghp_012345", "6789abcdef", "ghijABCDEF", "GHIJ012345"];
        assert_eq!(parts.map(|part| piece(&sessions, 2, part)), [0, 0, 0, 1]);
        assert_eq!(piece(&sessions, 2, parts[3]), 1);
        // Not even with so much behind it that nothing older is looked at.
        let long = format!("{} {}", parts[3], "more words and ".repeat(200));
        assert_eq!([(), ()].map(|()| piece(&sessions, 2, &long)), [1, 1]);
    }

    #[test]
    fn what_follows_a_whole_secret_is_no_part_of_it() {
        let rule = "rules: [{id: key, name: key, kind: dlp, class: credential, severity: high, confidence: high, \
                    pattern: 'sk-[A-Za-z0-9]{20,100}'}]";
        let scanner = Scanner::new(RuleSet::read(&[("test", rule)]).unwrap().with_builtins(), &[1; 32]).unwrap();
        let sessions = Sessions::new(scanner, BudgetLimits::default(), FragmentLimits::default());
        let piece = |value: &str| piece(&sessions, 1, value);
        assert_eq!(["Bearer sk-0123456789abcdefghij", "application", "hello"].map(piece), [0; 3]);
        assert_eq!(["sk-0123456789", "abcdefghijk"].map(piece), [0, 1]);
    }

    #[test]
    fn what_is_written_in_another_way_and_then_cut_up_is_found() {
        let secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        let base64 = "Z2hwXzAxMjM0NTY3ODlhYmNkZWZnaGlqQUJDREVGR0hJSjAxMjM0NQ==";
        let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reference: String = secret.bytes().map(|byte| format!("&#{byte};")).collect();
        for (at, text) in [&hex[..], base64, &percent, &reference, secret].into_iter().enumerate() {
            for before in [&[][..], &["application"], &["8f3a9c2e11b"], &["v1", "QUJDREVG", "7"]] {
                for size in [1, 2, 3, 5, 8, 13, 21] {
                    let sessions = sessions(1e9);
                    let mut found = 0;
                    let pieces = text.as_bytes().chunks(size);
                    // Pieces that come again at once are taken for one.
                    for piece in before.iter().map(|text| text.as_bytes()).chain(pieces) {
                        found += sessions.piece(1, 0, "x", piece).unwrap().findings.len();
                    }
                    assert!(found > 0, "{at} {before:?} {size}");
                }
            }
        }
    }

    /// The names under `wild.test` that labels make, with the first that was told of.
    fn first_told(labels: &[String]) -> Option<usize> {
        let sessions = sessions(4096.0);
        // What is told of is refused.
        let is_told = |label: &String| {
            let sent = sessions.host(1, 0, &format!("{label}.wild.test"), "wild.test").unwrap();
            if !sent.findings.is_empty() {
                sessions.take_back(1, 0, &sent.tickets);
            }
            !sent.findings.is_empty()
        };
        let found = labels.iter().position(is_told);
        if let Some(at) = found {
            assert!(is_told(&labels[at]), "asked again: {}", labels[at]);
        }
        found
    }

    #[test]
    fn secrets_in_names_are_found() {
        let secret = "ghp_1032547698badcfehgjilknmporqtsvuxwzy";
        let chunks = |text: &str, size: usize| -> Vec<String> {
            text.as_bytes().chunks(size).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
        };
        let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        // Each piece says nothing by itself; the one that completes it, or makes it too much, is told of.
        for size in [4, 8, 10] {
            assert!(first_told(&chunks(secret, size)).is_some(), "{size}");
        }
        for size in [2, 4, 6, 8] {
            // A name that was asked for before is no further piece, so pieces that are equal have to be told apart.
            assert!(size == 2 || first_told(&chunks(&hex, size)).is_some(), "{size}");
            let numbered: Vec<String> =
                chunks(&hex, size).iter().enumerate().map(|(at, part)| format!("{at}.{part}")).collect();
            assert!(first_told(&numbered).is_some(), "{size}");
        }
        assert_eq!(first_told(&chunks(&hex, 40)), Some(0));
        assert_eq!(first_told(&[chunks(&hex, 20).join(".")]), Some(0));
        // Nothing that any rule knows, only more and more of it.
        let noise = |at: u64| format!("{:010x}", (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24);
        let told = first_told(&(0..100).map(noise).collect::<Vec<_>>());
        assert!(matches!(told, Some(10..=60)), "{told:?}");
    }

    #[test]
    fn ordinary_names_are_not_told_of() {
        let words =
            ["www", "api", "cdn-3", "static", "eu-west-1", "my-bucket", "registry", "login", "img2", "user-content"];
        let names: Vec<String> = (0..300).map(|at| format!("{}.{}", words[at % 10], words[at * 7 % 10])).collect();
        assert_eq!(first_told(&names), None);
        let sessions = sessions(4096.0);
        for at in 0..2000 {
            let sent = sessions.host(1, at, "d111111abcdef8.wild.test", "wild.test").unwrap();
            assert!(sent.findings.is_empty(), "the same name tells nothing new: {sent:?}");
        }
        assert_eq!(sessions.host(1, 0, "wild.test", "wild.test").unwrap().findings.len(), 0);
    }

    #[test]
    fn names_that_are_let_through_with_a_note_are_pieces_all_the_same() {
        let sessions = sessions(4096.0);
        let hex: String =
            "ghp_1032547698badcfehgjilknmporqtsvuxwzy".bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut told = Vec::new();
        for part in hex.as_bytes().chunks(40) {
            let name = format!("{}.wild.test", String::from_utf8_lossy(part));
            let sent = sessions.host(1, 0, &name, "wild.test").unwrap();
            told.push(rules(&sent).join(" "));
            sessions.asked(1, 0, &name);
            assert_eq!(rules(&sessions.host(1, 0, &name, "wild.test").unwrap()), ["url-host-data"], "nothing new");
        }
        assert_eq!(told, ["url-host-data", "url-host-data token"]);
    }

    #[test]
    fn what_was_given_hides_nothing_beside_it() {
        let given = Arc::new(Given::default());
        let scanner = sessions(1.0).scanner;
        scanner.giving(given.clone()).scan(b"href=/d3ab07ff9c1e22b4ff/zq9xw3-1.0.whl").unwrap();
        let sessions = Sessions::new(scanner, BudgetLimits::default(), FragmentLimits::default()).beside(given);
        let told = |path: &str| !sessions.url(1, 0, &format!("https://h.example/{path}")).unwrap().findings.is_empty();
        assert!(!told("d3ab07ff9c1e22b4ff-zq9xw3-1.0.whl"));
        for beside in ["a1b2c-d3e4f-g5h6i-j7k8l-m9n0o", "a1b2c-d3e4-g5h6i-j7k8-m9n0o"] {
            assert!(told(&format!("d3ab07ff9c1e22b4ff-{beside}")), "{beside}");
        }
    }
}
