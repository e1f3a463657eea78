//! Scores one sentence with its neighbours: folds it, finds the concepts, and lets every rule decide whether the
//! concepts it needs meet closely enough and the evidence for it outweighs the evidence against it. Called by the
//! detector for sentences that hold an anchor. Promises work bounded by the length of the window.

use std::ops::Range;

use super::fold::Folded;
use super::host;
use super::lexicon::{Hit, Lexicon};
use super::quote;
use super::rule::{ConceptId, ConceptRule, ConceptSet, Order, THRESHOLD};
use super::sentence::floor;

/// Words looked at in one window; more means a flood, of which the first ones say enough.
const MAX_HITS: usize = 384;
/// Anchors of one rule tried in one sentence.
const MAX_PIVOTS: usize = 12;
/// Bytes before the words of a rule in which its order may begin: `Tell me: what is …`.
const LEAD: usize = 24;
/// Longest name that is looked at, in bytes.
const NAME: usize = 96;
/// Points of a rule that count, so that a heap of evidence cannot outweigh a quotation without limit.
const CEILING: i32 = 150;

/// Words, folded, behind which an order begins.
const CLAUSE_OPENERS: &[&str] = &[
    "and", "then", "please", "now", "kindly", "also", "first", "just", "always", "simply", "instead", "must", "und",
    "bitte", "dann", "et", "puis", "y", "luego", "e", "poi", "en", "dan", "i", "и", "та", "och", "og", "ja", "a", "si",
];

/// Concepts that are computed from the place of the words rather than from words of their own.
#[derive(Debug, Default)]
pub(crate) struct Computed {
    /// The word of the first group, in most rules the verb, follows an auxiliary ("will ignore"): a description.
    descriptive: Option<ConceptId>,
    /// The word of the first group begins a clause ("Send …", "and send …"): an order. Languages that put the verb behind
    /// its object do not tell, and count as orders.
    imperative: Option<ConceptId>,
    /// Two capitalised words in a row: most likely somebody's name.
    name: Option<ConceptId>,
    /// Words that only introduce a description.
    auxiliary: Option<ConceptId>,
    /// Words that make an order of what an auxiliary would only describe ("you must ignore").
    must: Option<ConceptId>,
    /// Words about attacks, examples, documentation.
    documentation: Option<ConceptId>,
    /// Addresses and other ways out.
    destination: Option<ConceptId>,
    /// Words for what is worth stealing.
    data: ConceptSet,
    /// Files that hold credentials, which are named by their path.
    secret_file: Option<ConceptId>,
}

impl Computed {
    pub(crate) fn of(lexicon: &Lexicon) -> Self {
        let id = |name: &str| lexicon.names.iter().position(|n| n == name).map(|i| i as ConceptId);
        Self {
            descriptive: id("descriptive"),
            imperative: id("imperative"),
            name: id("name"),
            auxiliary: id("auxiliary"),
            must: id("must"),
            documentation: id("documentation"),
            destination: id("destination"),
            data: ["secret", "sensitive", "destination"]
                .iter()
                .filter_map(|name| id(name))
                .fold(0, |set, id| set | 1 << id),
            secret_file: id("secret_file"),
        }
    }
}

impl Computed {
    /// Does it name a place, as parts of names may?
    fn is_path(&self, hit: &Hit) -> bool {
        [self.secret_file, self.destination].contains(&Some(hit.sense.concept))
    }

    /// Whether a word is no word but part of a name that says something else: of a file (`src/su.c`), of an option
    /// (`--save-cookies`), of a mail address (`passwd@…`), of a link to a change (`[#12](https://…)`).
    fn is_part_of_name(&self, folded: &str, hit: &Hit) -> bool {
        let (Some(before), Some(behind)) = (folded.get(..hit.start as usize), folded.get(hit.end as usize..)) else {
            return false;
        };
        let mut next = behind.bytes();
        if before.ends_with('/')
            && !before.ends_with("//")
            && next.next() == Some(b'.')
            && next.next().is_some_and(|byte| byte.is_ascii_alphabetic())
        {
            return self.secret_file != Some(hit.sense.concept);
        }
        if self.data >> hit.sense.concept & 1 == 0 {
            return false;
        }
        let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_\\[]".contains(byte);
        let length = before.bytes().rev().take(NAME).take_while(name).count();
        let head = before.get(before.len() - length..).unwrap_or_default().trim_start_matches('[');
        if ["--", "\\-\\-", "\\fb\\-\\-", "\\fi\\-\\-"].iter().any(|dashes| head.starts_with(dashes)) {
            return true;
        }
        if self.destination == Some(hit.sense.concept) {
            return cites(before, behind);
        }
        let rest = behind.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        rest.strip_prefix('@').is_some_and(|host| host.starts_with(|c: char| c.is_ascii_alphanumeric()))
    }
}

/// Words of a host name that are more than names have: `Ignore-all-previous-instructions.app` says what a sentence says.
const SAYING: usize = 3;

/// Where the words begin that are no words but labels of host names.
fn hosts(computed: &Computed, folded: &str, hits: &[Hit]) -> Vec<u32> {
    // The words of each name, which stand in order of their ends.
    let mut names: Vec<(usize, Vec<u32>)> = Vec::new();
    for hit in hits.iter().filter(|hit| !computed.is_path(hit)) {
        let Some(name) = host::around(folded, hit.start as usize, hit.end as usize) else { continue };
        match names.iter_mut().rev().find(|(known, _)| *known == name) {
            Some((_, words)) if words.contains(&hit.start) => {}
            Some((_, words)) => words.push(hit.start),
            None => names.push((name, vec![hit.start])),
        }
    }
    names.into_iter().filter(|(_, words)| words.len() < SAYING).flat_map(|(_, words)| words).collect()
}

/// Whether what stands between these is inside the target of a link to a change whose label is its number or hash, as changelogs
/// have them: `[#49424](https://…/pull/49424)`.
fn cites(before: &str, behind: &str) -> bool {
    let Some(open) = before.rfind("](") else { return false };
    let (Some(label), Some(target)) = (before.get(..open), before.get(open + 2..)) else { return false };
    let label = label.rsplit('[').next().unwrap_or_default().trim_matches(['`', '\\']);
    let number = label
        .strip_prefix('#')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let end = behind.find([')', ' ', '\n']).unwrap_or(behind.len());
    let to_change = |part: &&str| behind.get(..end).is_some_and(|target| target.contains(*part));
    if !["/pull/", "/issues/", "/commit/", "/merge_requests/"].iter().any(to_change) {
        return false;
    }
    let hash = label.len() >= 7 && label.bytes().all(|byte| byte.is_ascii_hexdigit());
    (number || hash) && target.len() <= NAME && !target.contains([' ', ')'])
}

/// Points taken when one string of a list or of an object ends in `text` and the next begins: much where keys stand among them
/// (`"user": "a", "email": "b"`) or most of the text is in strings, little for quotation marks in a sentence, which anybody may
/// write to escape.
fn strings_cost(text: &str) -> i32 {
    let parts: Vec<&str> = text.split('"').collect();
    let is_mark = |part: &str| part.trim_start().starts_with(',') && part.trim() == ",";
    let Some(first) = parts.iter().position(|part| is_mark(part)).filter(|at| (1..parts.len() - 1).contains(at)) else {
        return 0;
    };
    let letters = |part: &str| part.chars().filter(|c| c.is_alphabetic()).count();
    let (mut inside, mut outside, mut has_keys) = (0, 0, false);
    for (at, part) in parts.iter().enumerate() {
        if (at + first) % 2 == 1 {
            inside += letters(part);
        } else {
            outside += letters(part);
            has_keys |= at > first && part.trim_start().starts_with(':');
        }
    }
    if has_keys || inside > outside { 50 } else { 15 }
}

/// Memory that scoring uses again and again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) folded: Folded,
    /// Where the anchors are.
    pub(crate) places: Vec<usize>,
    hits: Vec<Hit>,
}

impl Scratch {
    /// Bytes it takes beside itself.
    pub(crate) fn memory(&self) -> usize {
        self.folded.memory() + self.places.capacity() * size_of::<usize>() + self.hits.capacity() * size_of::<Hit>()
    }

    /// Gives back what takes more than so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if self.memory() > bytes {
            *self = Self::default();
        }
    }
}

/// What a rule found in a window.
#[derive(Debug)]
pub(crate) struct Match {
    /// Index of the rule.
    pub(crate) rule: usize,
    /// Place in the window.
    pub(crate) span: Range<usize>,
    /// Points.
    pub(crate) points: i32,
    /// The concepts that spoke for it.
    pub(crate) concepts: ConceptSet,
}

/// Scores `window`, in which the sentence in question is `sentence`, and hands every match to `found`.
pub(crate) fn score(
    lexicon: &Lexicon,
    computed: &Computed,
    window: &str,
    sentence: Range<usize>,
    scratch: &mut Scratch,
    mut found: impl FnMut(Match),
) {
    scratch.folded.fill(window);
    scratch.hits.clear();
    lexicon.find(&scratch.folded.text, MAX_HITS, &mut scratch.hits);
    let folded = scratch.folded.text.as_str();
    let hosts = hosts(computed, folded, &scratch.hits);
    scratch.hits.retain(|hit| {
        let is_label = hosts.contains(&hit.start) && !computed.is_path(hit);
        !is_label && !computed.is_part_of_name(folded, hit)
    });
    let hits = &scratch.hits;
    let present = hits.iter().fold(0u128, |set, hit| set | 1 << hit.sense.concept);
    let verb_final = lexicon.verb_final;
    let view = View { window, verb_final, folded: &scratch.folded, hits, computed, sentence: &sentence };
    for (index, rule) in lexicon.rules.iter().enumerate() {
        if rule.groups.iter().all(|group| group & present != 0)
            && let Some(best) = view.best(rule)
        {
            let start = floor(window, scratch.folded.original(best.span.start));
            let end = floor(window, scratch.folded.original(best.span.end)).max(start);
            found(Match { rule: index, span: start..end, points: best.points, concepts: best.concepts });
        }
    }
}

/// The best place for one rule, in folded positions.
struct Best {
    span: Range<usize>,
    points: i32,
    concepts: ConceptSet,
}

/// A window with everything known about it.
struct View<'w> {
    window: &'w str,
    verb_final: u64,
    folded: &'w Folded,
    hits: &'w [Hit],
    computed: &'w Computed,
    sentence: &'w Range<usize>,
}

impl View<'_> {
    fn best(&self, rule: &ConceptRule) -> Option<Best> {
        let pivots = self.hits.iter().filter(|hit| {
            rule.anchors >> hit.sense.concept & 1 == 1
                && self.sentence.contains(&self.folded.original(hit.start as usize))
        });
        let mut best: Option<Best> = None;
        for pivot in pivots.take(MAX_PIVOTS) {
            // A word that means something in every language meets words of any one language.
            let mut languages = pivot.sense.languages;
            if languages & 1 == 1 {
                languages |= self.hits.iter().fold(0, |set, hit| set | hit.sense.languages);
            }
            for bit in (0..u64::BITS).map(|bit| 1u64 << bit).filter(|bit| languages & bit != 0) {
                if let Some(candidate) = self.around(rule, pivot, bit | 1)
                    && best.as_ref().is_none_or(|best| candidate.points > best.points)
                {
                    best = Some(candidate);
                }
            }
        }
        best.filter(|best| best.points >= THRESHOLD)
    }

    /// The rule's groups around `pivot` with words of the given languages.
    fn around(&self, rule: &ConceptRule, pivot: &Hit, languages: u64) -> Option<Best> {
        let own = rule.groups.iter().position(|group| group & rule.anchors & (1 << pivot.sense.concept) != 0)?;
        let mut span = pivot.start as usize..pivot.end as usize;
        let mut concepts: ConceptSet = 1 << pivot.sense.concept;
        let mut taken = [(0u32, 0u32); 5];
        *taken.get_mut(own)? = (pivot.start, pivot.end);
        let ordered = match rule.order {
            Order::Any => false,
            Order::VerbFirst => languages & self.verb_final == 0,
            Order::Fixed => true,
        };
        // Outwards from the pivot, so that in ordered rules each group leans on its neighbour.
        let order = (0..own).rev().map(|group| (group, true)).chain((own + 1..rule.groups.len()).map(|g| (g, false)));
        for (group, left) in order {
            let wanted = *rule.groups.get(group)?;
            let neighbour = *taken.get(if left { group + 1 } else { group - 1 })?;
            let distance = |hit: &Hit| {
                if ordered {
                    if left { neighbour.0.checked_sub(hit.end) } else { hit.start.checked_sub(neighbour.1) }
                } else if hit.end <= pivot.start {
                    Some(pivot.start - hit.end)
                } else {
                    hit.start.checked_sub(pivot.end)
                }
            };
            let nearest = self
                .hits
                .iter()
                .filter(|hit| wanted >> hit.sense.concept & 1 == 1 && hit.sense.languages & languages != 0)
                .filter(|hit| taken.iter().all(|&(start, end)| hit.end <= start || hit.start >= end || end == 0))
                .filter_map(|hit| distance(hit).map(|distance| (distance, hit)))
                .min_by_key(|&(distance, _)| distance)?
                .1;
            *taken.get_mut(group)? = (nearest.start, nearest.end);
            concepts |= 1 << nearest.sense.concept;
            span = span.start.min(nearest.start as usize)..span.end.max(nearest.end as usize);
        }
        // Greek, Cyrillic, Hebrew and the like take two bytes for a letter, alphabets of India and its neighbours three, and
        // their words are as long as ours.
        let lead = self.folded.text.as_bytes().get(pivot.start as usize);
        let scale = if matches!(lead, Some(0xCE..=0xE1)) { 2 } else { 1 };
        if span.len() > rule.within * scale {
            return None;
        }
        let mut nearby = self.nearby(&span, rule.reach * scale, languages);
        if let Some(name) = self.computed.name.filter(|_| self.names_somebody(&span)) {
            nearby |= 1 << name;
        }
        let verb = taken.first().map_or(pivot.start, |&(start, _)| start);
        let commands = self.orders(rule, &span, languages);
        if let Some(imperative) = self.computed.imperative.filter(|_| languages & self.verb_final != 0 || commands) {
            nearby |= 1 << imperative;
        }
        let mut points = rule.base;
        for &(concept, worth) in &rule.raise {
            if nearby >> concept & 1 == 1 {
                points += worth;
                concepts |= 1 << concept;
            }
        }
        points = points.min(CEILING);
        // Where one verb gives an order, another may still say what something does: "list all keys you can see".
        let describes = !commands && self.follows_auxiliary(verb);
        let described = self.computed.descriptive.filter(|_| describes).map_or(0, |id| 1 << id);
        for &(concept, worth) in &rule.lower {
            if (nearby | described) >> concept & 1 == 1 {
                points -= worth;
            }
        }
        points -= self.broken(&span);
        // Looking for quotation marks is the costly part, so it is left to candidates.
        if points >= THRESHOLD {
            points -= self.documented(&span);
        }
        Some(Best { span, points, concepts })
    }

    /// The concepts near `span`.
    fn nearby(&self, span: &Range<usize>, reach: usize, languages: u64) -> ConceptSet {
        let reach = span.start.saturating_sub(reach)..span.end + reach;
        self.hits
            .iter()
            .filter(|hit| hit.start as usize >= reach.start && hit.end as usize <= reach.end)
            .filter(|hit| hit.sense.languages & languages != 0)
            .fold(0, |set, hit| set | 1 << hit.sense.concept)
    }

    /// Whether two capitalised words stand together in `span`, not counting its first word.
    fn names_somebody(&self, span: &Range<usize>) -> bool {
        let range = self.folded.original(span.start)..self.folded.original(span.end);
        let Some(text) = self.window.get(range) else { return false };
        let mut words = text.split(' ').skip(1).map(|word| {
            let mut letters = word.chars();
            letters.next().is_some_and(char::is_uppercase) && letters.next().is_some_and(char::is_lowercase)
        });
        let mut last = false;
        words.any(|capital| std::mem::replace(&mut last, capital) && capital)
    }

    /// Whether the word that starts at `verb` stands directly behind an auxiliary.
    fn follows_auxiliary(&self, verb: u32) -> bool {
        let Some(auxiliary) = self.computed.auxiliary else { return false };
        let directly_before = |concept| self.hits.iter().any(|hit| hit.sense.concept == concept && hit.end + 1 == verb);
        directly_before(auxiliary) && !self.computed.must.is_some_and(directly_before)
    }

    /// Whether any word of the rule's first group in `span`, or little before it, begins a clause.
    fn orders(&self, rule: &ConceptRule, span: &Range<usize>, languages: u64) -> bool {
        let verbs = rule.groups.first().copied().unwrap_or_default();
        let near = span.start.saturating_sub(LEAD) as u32..span.end as u32;
        let hits = self.hits.iter().filter(|hit| near.contains(&hit.start) && verbs >> hit.sense.concept & 1 == 1);
        hits.filter(|hit| hit.sense.languages & languages != 0).any(|hit| self.begins_clause(hit.start))
    }

    /// Whether the word that starts at `verb` begins a sentence or a clause, as the verb of an order does.
    fn begins_clause(&self, verb: u32) -> bool {
        let before = self.folded.text.get(..verb as usize).unwrap_or_default().trim_end_matches([' ', '"', '\'', '`']);
        let mark = |c: char| {
            matches!(
                c,
                '.' | '!'
                    | '?'
                    | ':'
                    | ';'
                    | ','
                    | '-'
                    | '>'
                    | '('
                    | ')'
                    | ']'
                    | '*'
                    | '#'
                    | '/'
                    | '{'
                    | '。'
                    | '，'
                    | '、'
                    | '！'
                    | '？'
                    | '：'
                    | '；'
                    | '،'
                    | '۔'
                    | '।'
            )
        };
        before.is_empty()
            || before.ends_with(mark)
            || CLAUSE_OPENERS.contains(&before.rsplit([' ', '"']).next().unwrap_or_default())
    }

    /// Points taken when the layout separates the words in `span`: much for a blank line, a list item, a request of a
    /// manual page or an indented line with a label, little for another indented line or a clause that ends, which anybody
    /// may write to escape.
    fn broken(&self, span: &Range<usize>) -> i32 {
        let range = self.folded.original(span.start)..self.folded.original(span.end);
        let text = self.window.get(range).unwrap_or_default();
        let clause = if text.contains("; ") { 15 } else { 0 };
        let clause = strings_cost(text).max(clause);
        let lines = text.split('\n').skip(1);
        let cost = |line: &str| {
            let indented = line.starts_with([' ', '\t']);
            let rest = line.trim_start_matches([' ', '\t', '\r']);
            match rest.chars().next() {
                Some('#') if rest.strip_prefix("# ").is_some_and(|on| on.starts_with(char::is_lowercase)) => 0,
                None | Some('-' | '*' | '#' | '|') => 35,
                Some('.') if rest.chars().nth(1).is_some_and(|c| c.is_ascii_alphabetic()) => 35,
                _ if indented && rest.split(' ').next().is_some_and(|label| label.ends_with(':')) => 35,
                _ if indented => 20,
                _ => 0,
            }
        };
        lines.map(cost).max().unwrap_or(0).max(clause)
    }

    /// Points taken because the text talks about attacks rather than making one: little for one word about the subject,
    /// so that a word thrown in does not disarm the rule; much for a quotation that such words introduce.
    fn documented(&self, span: &Range<usize>) -> i32 {
        let Some(documentation) = self.computed.documentation else { return 0 };
        let about = self.hits.iter().filter(|hit| hit.sense.concept == documentation);
        let (mut all, mut leading, mut last) = (0, 0, u32::MAX);
        for hit in about.filter(|hit| hit.end as usize <= span.start || hit.start as usize >= span.end) {
            if hit.start != last {
                all += 1;
                leading += i32::from(hit.end as usize <= span.start && hit.end as usize + 120 > span.start);
            }
            last = hit.start;
        }
        let at = self.folded.original(span.start)..self.folded.original(span.end);
        let quoted = quote::is_quoted(self.window, &at);
        match (quoted, leading, all) {
            (true, 1.., _) => 70,
            (true, 0, 1..) => 45,
            (true, ..) => 15,
            (false, _, n) => 15 * n.min(4),
        }
    }
}
