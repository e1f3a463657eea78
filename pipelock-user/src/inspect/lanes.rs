//! What messages say when they are put end to end: texts that come in pieces, one in each message.
//!
//! Called by `events` and `messages`, which read each message by itself too. A message that is JSON is taken apart, and the texts at one
//! place (`delta.text`) make one lane; what is no JSON makes a lane of its own. It promises bounded memory, and that what it
//! finds is found by the message that completes it, if it is asked what the texts say when they end there.

use pipelock_scan::{EngineError, Finding, Kind, Scanner, Stream};

use super::leaves::Leaves;

/// Lanes at a time; the one used longest ago makes room.
const MOST_LANES: usize = 16;
/// Longest message that is taken apart.
const LONGEST: usize = 64 * 1024;
/// Bytes of a text that are kept for its end.
const TAIL: usize = 1024;
/// Bytes before those of which nothing is certain that are read with them.
const CONTEXT: usize = 64;
/// Bytes of open digits that are read for what is found if they end.
const MOST_DIGITS: usize = 512;
/// Bytes after which groups of characters that stand for bytes begin alike in every encoding: of 2, 4, 5 and 8.
const PHASE: usize = 40;
/// Bytes that a text is held for what may come whatever they are; behind more of them a secret must have begun that shows.
const MOST_VAGUE: u64 = 96;
/// A text at least so long that comes again at once is a name, not a piece.
const NAME: usize = 8;

/// The texts of one direction.
#[derive(Debug)]
pub(super) struct Lanes {
    scanner: Scanner,
    /// The same for what is read once more.
    again: Scanner,
    /// Whether orders are looked for, which are made of words.
    has_words: bool,
    /// For those who hold a message back while its texts may be the beginning of a secret.
    holding: Option<Scanner>,
    lanes: Vec<Lane>,
    messages: u64,
}

#[derive(Debug)]
struct Lane {
    place: String,
    text: Text,
    /// The same with a blank between pieces that have none: words that come one by one. Only what is an order in it counts.
    words: Option<Text>,
    hold: Option<Stream>,
    /// What that has released.
    released: u64,
    is_held: bool,
    last: String,
    used: u64,
    /// The message that it grew with last.
    grown: u64,
}

/// Pieces put end to end.
#[derive(Debug)]
struct Text {
    stream: Stream,
    judged: usize,
    /// Its end.
    tail: String,
    /// How many bytes of that may belong to something that is still to be found.
    open: usize,
    end: u64,
}

impl Text {
    fn new(scanner: &Scanner) -> Result<Self, EngineError> {
        Ok(Self { stream: scanner.stream()?, judged: 0, tail: String::new(), open: 0, end: 0 })
    }

    /// What is found if it ends here, beside what was found by now.
    fn ends(&self, scanner: &Scanner) -> Result<Vec<Finding>, EngineError> {
        if self.open == 0 {
            return Ok(Vec::new());
        }
        let open = self.tail.len().saturating_sub(self.open);
        // Digits without end, as time stamps one after another are, would all be read again with each that is added.
        let digits = self.tail.as_bytes()[open..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let skipped = digits.saturating_sub(MOST_DIGITS) / PHASE * PHASE;
        let from = if skipped > 0 { open + skipped } else { open.saturating_sub(CONTEXT) };
        let text = &self.tail[floor(&self.tail, from)..];
        let before = (text.len() - self.open.min(text.len())) as u64;
        let mut found = scanner.scan(text.as_bytes())?;
        found.retain(|finding| finding.span.end > before);
        Ok(found)
    }

    /// Adds a piece; what is found by now, if there is more than before.
    fn push(&mut self, piece: &str) -> Result<Vec<Finding>, EngineError> {
        self.tail.push_str(piece);
        if self.tail.len() > 2 * TAIL {
            let keep = ceil(&self.tail, self.tail.len() - TAIL);
            self.tail.drain(..keep);
        }
        let progress = self.stream.push(piece.as_bytes())?;
        self.end += piece.len() as u64;
        self.open = usize::try_from(self.end.saturating_sub(progress.released)).unwrap_or(usize::MAX);
        if progress.findings == self.judged {
            return Ok(Vec::new());
        }
        self.judged = progress.findings;
        Ok(self.stream.findings())
    }
}

impl Lane {
    /// Adds a piece to the words, which there are from the first two pieces on that nothing separates.
    fn add_word(&mut self, scanner: &Scanner, piece: &str, is_glued: bool) -> Result<Vec<Finding>, EngineError> {
        if self.words.is_none() && is_glued {
            let mut words = Text::new(scanner)?;
            words.push(&self.text.tail)?;
            self.words = Some(words);
        }
        let Some(words) = &mut self.words else { return Ok(Vec::new()) };
        let found = if is_glued { words.push(&format!(" {piece}"))? } else { words.push(piece)? };
        Ok(orders(found))
    }
}

fn orders(mut found: Vec<Finding>) -> Vec<Finding> {
    found.retain(|finding| finding.kind == Kind::Injection);
    found
}

impl Lanes {
    /// Looks for what `scanner` finds, and `again` in what was read before; `holding` tells what may be the beginning of something.
    pub(super) fn new(scanner: &Scanner, again: &Scanner, holding: Option<&Scanner>, has_words: bool) -> Self {
        let (scanner, again) = (scanner.clone(), again.clone());
        Self { scanner, again, has_words, holding: holding.cloned(), lanes: Vec::new(), messages: 0 }
    }

    /// Takes what is no message, and goes on between messages: pings and the like have a lane of their own.
    pub(super) fn push_control(&mut self, payload: &[u8]) -> Result<Vec<Finding>, EngineError> {
        self.messages += 1;
        let mut found = Vec::new();
        self.add("control", &String::from_utf8_lossy(payload), &mut found)?;
        Ok(found)
    }

    /// Takes the next message: what its texts complete.
    pub(super) fn push(&mut self, message: &[u8]) -> Result<Vec<Finding>, EngineError> {
        self.messages += 1;
        let mut found = Vec::new();
        let text = String::from_utf8_lossy(message);
        let begin = text.trim_ascii_start().as_bytes().first();
        let is_json = message.len() <= LONGEST && matches!(begin, Some(b'{' | b'['));
        match is_json.then(|| serde_json::from_str::<Leaves>(&text)) {
            Some(Ok(leaves)) => {
                for (place, text) in &leaves.texts {
                    self.add(place, text, &mut found)?;
                }
            }
            _ => self.add("", &text, &mut found)?,
        }
        Ok(found)
    }

    /// What the texts of the last message say if they end here: it goes on whole, whatever comes.
    pub(super) fn ends_now(&self) -> Result<Vec<Finding>, EngineError> {
        let mut found = Vec::new();
        for lane in self.lanes.iter().filter(|lane| lane.grown == self.messages) {
            found.extend(lane.text.ends(&self.again)?);
            if let Some(words) = &lane.words {
                found.extend(orders(words.ends(&self.again)?));
            }
        }
        Ok(found)
    }

    /// Whether a text that grew in the `last` messages ends in the beginning of a token or of a known value.
    pub(super) fn has_begun(&self, last: u64) -> Result<bool, EngineError> {
        let before = self.messages.saturating_sub(last);
        for lane in self.lanes.iter().filter(|lane| lane.grown > before && lane.text.open > 0) {
            if self.again.begun_token(lane.text.tail.as_bytes())? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True while a text ends in what may be the beginning of a secret.
    pub(super) fn holds(&self) -> bool {
        self.lanes.iter().any(|lane| lane.is_held)
    }

    fn add(&mut self, place: &str, text: &str, found: &mut Vec<Finding>) -> Result<(), EngineError> {
        let used = self.messages;
        let at = match self.lanes.iter().position(|lane| lane.place == place) {
            Some(at) => at,
            None => {
                if self.lanes.len() >= MOST_LANES
                    && let Some(oldest) =
                        (0..self.lanes.len()).min_by_key(|at| self.lanes.get(*at).map(|lane| lane.used))
                {
                    self.lanes.swap_remove(oldest);
                }
                let hold = self.holding.as_ref().map(Scanner::stream).transpose()?;
                self.lanes.push(Lane {
                    place: place.to_owned(),
                    text: Text::new(&self.scanner)?,
                    words: None,
                    hold,
                    released: 0,
                    is_held: false,
                    last: String::new(),
                    used,
                    grown: 0,
                });
                self.lanes.len() - 1
            }
        };
        let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
        lane.used = used;
        if text.len() >= NAME && lane.last == text {
            return Ok(());
        }
        lane.grown = used;
        text[..floor(text, NAME * 8)].clone_into(&mut lane.last);
        if self.has_words {
            let is_apart = |end: Option<char>| end.is_none_or(char::is_whitespace);
            let is_glued = !is_apart(lane.text.tail.chars().next_back()) && !is_apart(text.chars().next());
            // Numbers that come one by one say no order.
            let is_glued = is_glued && (lane.words.is_some() || text.chars().any(char::is_alphabetic));
            found.extend(lane.add_word(&self.again, text, is_glued)?);
        }
        found.extend(lane.text.push(text)?);
        if let (Some(hold), Some(scanner)) = (&mut lane.hold, &self.holding) {
            // What it has not released is what may begin something.
            let before = std::mem::replace(&mut lane.released, hold.push(text.as_bytes())?.released);
            let more = lane.released.saturating_sub(before);
            lane.is_held = more < text.len() as u64 || (lane.is_held && more == 0);
            // A row of tokens without a blank may be base64 of anything, and would be held to its end.
            let vague = lane.text.end.saturating_sub(lane.released);
            lane.is_held &= vague <= MOST_VAGUE || scanner.begun_secret(lane.text.tail.as_bytes(), |_| true)? > 0;
        }
        Ok(())
    }
}

fn ceil(text: &str, at: usize) -> usize {
    (at..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
