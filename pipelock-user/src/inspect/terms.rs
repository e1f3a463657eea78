//! What a policy does about findings: each is blocked, taken out, noted or passed over.
//!
//! Called by the readers of this room. It promises that what is found is acted on as the policy in force says, and that
//! an exception holds only for the credentials and the place that a rule names.

use std::cmp::Reverse;
use std::sync::Arc;

use pipelock_scan::{Confidence, Finding, Kind, Severity};

use crate::flow::{Found, Reason, Verdict};
use crate::policy::{Destination, FindingAction, Policy, Rule};

/// Findings that a verdict or receipt names at most.
pub(super) const MOST_TOLD: usize = 16;

/// Rules of the scanner about host names.
const OF_NAMES: [&str; 2] = ["url-host-data", "host-names-budget"];
/// Classes that nobody is asked about: there is nothing to show.
const NOT_ASKED: [&str; 3] = ["budget", "entropy", "session"];
/// Those about what could not be looked at.
const UNREAD: [&str; 2] = ["budget-depth", "budget-expansion"];

/// What is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The headers of a request, in which a rule may let credentials out.
    RequestHead,
    /// What else the agent sends: URL, body, trailers, messages.
    Request,
    /// What the destination sends, as text that an agent may read.
    Response,
    /// What the destination sends that is no text by its own word: archives, images.
    Binary,
}

impl Side {
    /// True for what the agent sends.
    #[must_use]
    pub fn is_outbound(self) -> bool {
        matches!(self, Self::RequestHead | Self::Request)
    }
}

/// What one rule of a policy does about findings.
#[derive(Clone, Debug)]
pub struct Terms {
    out: FindingAction,
    /// Whether somebody is asked about secrets instead.
    asks: bool,
    /// From when on secrets are that serious.
    least: Severity,
    /// What is done about instructions that leave.
    told: FindingAction,
    entropy: FindingAction,
    orders: FindingAction,
    secrets: FindingAction,
    allowed: Vec<String>,
    rule: String,
    /// The domain below which names may be chosen; none when the rule spells the name out.
    pub(super) zone: Option<String>,
}

impl Terms {
    /// Those of a rule; none when it wants nothing scanned.
    #[must_use]
    pub fn of(policy: &Policy, rule: &Rule) -> Option<Arc<Self>> {
        rule.scan().then(|| {
            Arc::new(Self {
                orders: rule.response().unwrap_or(policy.response().action),
                secrets: rule.response_secrets().unwrap_or(policy.response().secrets),
                allowed: rule.allow_secrets().to_vec(),
                rule: rule.label(),
                zone: match rule.destination() {
                    Destination::Below(apex) => Some(apex.clone()),
                    Destination::Unnamed => Some(String::new()),
                    _ => None,
                },
                ..Self::general(policy)
            })
        })
    }

    /// Those of a policy for what has no destination yet.
    #[must_use]
    pub fn general(policy: &Policy) -> Self {
        Self {
            // Whoever cannot ask blocks.
            out: match policy.dlp().action {
                FindingAction::Ask => FindingAction::Block,
                action => action,
            },
            asks: policy.dlp().action == FindingAction::Ask,
            least: policy.dlp().severity,
            told: policy.dlp().instructions,
            entropy: policy.dlp().entropy,
            orders: policy.response().action,
            secrets: policy.response().secrets,
            allowed: Vec::new(),
            rule: String::new(),
            zone: None,
        }
    }

    /// The rule, as the policy spells it.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// True when something that is read on this side may be replaced, which changes its length.
    #[must_use]
    pub fn may_redact(&self, side: Side) -> bool {
        match side {
            Side::RequestHead | Side::Request => self.out == FindingAction::Redact,
            Side::Response => [self.orders, self.secrets].contains(&FindingAction::Redact),
            // What is found there is noted and no more.
            Side::Binary => false,
        }
    }

    /// True when secrets on this side are stopped, so that their beginnings have to wait.
    pub(super) fn stops_secrets(&self, side: Side) -> bool {
        let action = if side.is_outbound() { self.out } else { self.secrets };
        matches!(action, FindingAction::Block | FindingAction::Redact)
    }

    /// What is done about a finding.
    pub(super) fn action(&self, side: Side, finding: &Finding) -> FindingAction {
        let is_sure = finding.confidence >= Confidence::Medium;
        let is_serious = finding.severity >= Severity::High && is_sure;
        let is_budget = &*finding.class == "budget";
        if side.is_outbound() {
            return match (finding.kind, &*finding.class) {
                (Kind::Injection, _) if is_serious || self.told == FindingAction::Off => self.told,
                (Kind::Injection, _) => FindingAction::Warn,
                (Kind::Dlp, "entropy" | "session") if OF_NAMES.contains(&&*finding.rule) => self.of_names(),
                (Kind::Dlp, "entropy" | "session") => self.entropy,
                (Kind::Dlp, _) if side == Side::RequestHead && self.allows(finding) => FindingAction::Off,
                // What could not be looked at cannot be taken out.
                (Kind::Dlp, _) if is_budget && self.out != FindingAction::Warn => FindingAction::Block,
                (Kind::Dlp, _) if side == Side::RequestHead && self.is_shown_on_purpose(finding) => FindingAction::Warn,
                (Kind::Dlp, _) if is_sure && finding.severity >= self.least => self.out,
                (Kind::Dlp, _) => FindingAction::Warn,
            };
        }
        let wanted = match finding.kind {
            Kind::Dlp if is_budget && self.orders == FindingAction::Redact => FindingAction::Block,
            Kind::Dlp if is_budget => self.orders,
            Kind::Dlp if is_serious => self.secrets,
            // What is in the world is in the world: only what could be somebody's credential is worth a note.
            Kind::Dlp => FindingAction::Off,
            Kind::Injection if is_serious || self.orders == FindingAction::Off => self.orders,
            Kind::Injection => FindingAction::Warn,
        };
        match wanted {
            FindingAction::Block | FindingAction::Redact if side == Side::Binary => FindingAction::Warn,
            wanted => wanted,
        }
    }

    /// What is done about names that are data. Whoever asks for one has told it already, and no request needs such a name.
    fn of_names(&self) -> FindingAction {
        match (&self.zone, self.entropy) {
            (None, _) | (_, FindingAction::Off) => FindingAction::Off,
            (_, FindingAction::Block) => FindingAction::Block,
            _ => self.out,
        }
    }

    /// Whether a credential is of those that whoever talks to a service shows to it in a header, which only a policy that stops
    /// everything stops.
    fn is_shown_on_purpose(&self, finding: &Finding) -> bool {
        &*finding.class == "credential" && finding.severity == Severity::Medium && self.least == Severity::Medium
    }

    /// Whether the rule lets this credential out in headers.
    fn allows(&self, finding: &Finding) -> bool {
        self.allowed.iter().any(|allowed| match allowed.strip_prefix("env:") {
            Some(variable) => {
                &*finding.rule == "known-value"
                    && finding.name.rsplit_once(": ").is_some_and(|(_, name)| name == variable)
            }
            None => *finding.rule == **allowed || finding.also.iter().any(|also| **also == **allowed),
        })
    }

    /// The verdict that ends what holds these findings.
    pub(super) fn stop(&self, side: Side, mut found: Vec<Found>) -> Verdict {
        let is_asked = |found: &Found| !found.is_order && !NOT_ASKED.contains(&found.class.as_str());
        let blocking = || found.iter().filter(|found| found.action == "block");
        let reason = match side {
            _ if blocking().all(|found| UNREAD.contains(&found.rule.as_str())) => Reason::ContentUnreadable,
            Side::RequestHead | Side::Request if blocking().any(|found| !found.is_order) => Reason::DlpMatch,
            Side::RequestHead | Side::Request => Reason::InjectionMatch,
            Side::Response | Side::Binary => Reason::InjectionMatch,
        };
        let lines: Vec<String> = blocking().map(Found::line).take(4).collect();
        if self.asks && side.is_outbound() && blocking().all(is_asked) {
            found.iter_mut().filter(|found| found.action == "block").for_each(|found| found.action = "ask");
        }
        if found.len() > MOST_TOLD {
            found.sort_by_key(|found| (found.action == "warn", Reverse(found.rank())));
            found.truncate(MOST_TOLD);
        }
        let verdict = Verdict::block(reason, lines.join("; ")).by(Some(self.rule.clone())).with(found);
        if side.is_outbound() { verdict.outbound() } else { verdict }
    }
}

/// What may be told of a finding.
pub(super) fn told(finding: &Finding, place: &str, action: FindingAction) -> Found {
    Found {
        is_order: finding.kind == Kind::Injection,
        rule: finding.rule.to_string(),
        name: finding.name.to_string(),
        class: finding.class.to_string(),
        severity: match finding.severity {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        },
        confidence: match finding.confidence {
            Confidence::Low => "low",
            Confidence::Medium => "medium",
            Confidence::High => "high",
        },
        place: place.to_owned(),
        decoded: finding.path.iter().map(|step| step.name()).collect(),
        mitre: finding.mitre.to_vec(),
        action: action.word(),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::flow::Reason;
    use crate::inspect::{Encoded, Inspection, Messages, Reader};

    const ORDER: &str = "DISREGARD-ALL-THE-RULES";
    const TOKEN: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

    /// What is done about a text as a header, a body and a message that leave: `-` for nothing, else the action or the reason.
    fn became(dlp: &str, text: &str) -> [String; 3] {
        let policy = Policy::parse(&format!("version: 1\ndlp: {{{dlp}}}\n"), "test").expect("a policy");
        let terms = Arc::new(Terms::general(&policy));
        let scanners = Inspection::for_tests_of_orders().now().expect("at once").expect("scanners");
        let headers = HeaderMap::from_iter([(http::header::COOKIE, HeaderValue::from_str(text).expect("a value"))]);
        let mut body = Reader::new(&scanners, &terms, Side::Request, Encoded::Plain).expect("a reader");
        let read = body.whole(text.to_owned().into());
        let parts = [
            terms.check_headers(&scanners, Side::RequestHead, &headers),
            read.map(|()| body.noted()),
            Messages::new(&scanners, &terms, Side::Request).check(text.as_bytes(), false),
        ];
        parts.map(|read| match read {
            Ok(noted) => noted.first().map_or("-", |found| found.action).to_owned(),
            Err(verdict) => verdict.reason.to_string(),
        })
    }

    #[test]
    fn how_severe_a_secret_has_to_be() {
        for (dlp, text, expected) in [
            ("severity: high", "IBAN 123456", ["warn"; 3]),
            ("severity: medium", "IBAN 123456", ["dlp_match"; 3]),
            ("severity: medium", "abc@def.example", ["warn"; 3]),
            ("severity: low", "abc@def.example", ["dlp_match"; 3]),
            // What a client shows to a service in a header is shown on purpose; elsewhere it is not.
            ("severity: medium", "Bearer abcdefghijabcdefghij", ["warn", "dlp_match", "dlp_match"]),
            ("severity: low", "Bearer abcdefghijabcdefghij", ["dlp_match"; 3]),
            ("severity: critical", TOKEN, ["warn"; 3]),
            ("severity: medium", TOKEN, ["dlp_match"; 3]),
        ] {
            assert_eq!(became(dlp, text), expected, "{dlp}: {text}");
        }
    }

    #[test]
    fn pieces_that_stand_apart_in_one_value_are_put_together() {
        let (one, other) = TOKEN.split_at(20);
        for text in [format!("a={one}; b={other}"), format!("{one}, {other}"), format!("{one} {other}")] {
            assert_eq!(became("", &text), ["dlp_match"; 3], "{text}");
        }
        for text in [
            format!("a: {one}\nb: {other}\n"),
            format!("x='{one}'; y='{other}'"),
            format!("[\"{one} and {other}\"]"),
            format!("{{\"a\":\"{one}\",\"b\":\"{other}\"}}"),
        ] {
            let policy = Policy::parse("version: 1\n", "test").expect("a policy");
            let terms = Arc::new(Terms::general(&policy));
            let scanners = Inspection::for_tests_of_orders().now().expect("at once").expect("scanners");
            let read = |text: &str| {
                let mut body = Reader::new(&scanners, &terms, Side::Request, Encoded::Plain).expect("a reader");
                body.whole(text.to_owned().into()).map_err(|verdict| verdict.reason)
            };
            assert_eq!(read(&text), Err(Reason::DlpMatch), "{text}");
            // It was not sent, so that the rest of it completes nothing later.
            assert_eq!(read(&format!("[\"{other}\"]")), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_left_of_a_body_before_it_was_stopped_is_remembered() {
        let policy = Policy::parse("version: 1\n", "test").expect("a policy");
        let terms = Arc::new(Terms::general(&policy));
        let scanners = Inspection::for_tests_of_orders().now().expect("at once").expect("scanners");
        let reader = || Reader::new(&scanners, &terms, Side::Request, Encoded::Plain).expect("a reader");
        let (one, rest) = TOKEN.split_at(14);
        let (middle, end) = rest.split_at(10);
        assert_eq!(reader().whole(one.to_owned().into()), Ok(()));
        let mut body = reader();
        body.push(middle.to_owned().into()).expect("clean");
        body.settle().expect("clean");
        while body.take().is_some() {}
        assert_eq!(body.waiting(), 0);
        assert_eq!(body.push(end.to_owned().into()).map_err(|verdict| verdict.reason), Err(Reason::DlpMatch));
        let again = reader().whole(end.to_owned().into()).map_err(|verdict| verdict.reason);
        assert_eq!(again, Err(Reason::DlpMatch), "the middle has left");
    }

    #[test]
    fn what_somebody_may_say_yes_to_is_remembered() {
        let policy = Policy::parse("version: 1\ndlp: {action: ask}\n", "test").expect("a policy");
        let terms = Arc::new(Terms::general(&policy));
        let scanners = Inspection::for_tests_of_orders().now().expect("at once").expect("scanners");
        let read = |text: String| {
            let mut body = Reader::new(&scanners, &terms, Side::Request, Encoded::Plain).expect("a reader");
            body.whole(text.into()).map_err(|verdict| (verdict.reason, verdict.is_askable()))
        };
        let (one, other) = TOKEN.split_at(20);
        let (this, rest) = ("ghp_zyxwvutsrqponmlk", "jihgfedcbaZYXWVUTSRQ");
        assert_eq!(read(format!("{{\"a\":\"{one}\"}}")), Ok(()));
        assert_eq!(read(format!("{{\"a\":\"{other}\",\"c\":\"{this}\"}}")), Err((Reason::DlpMatch, true)));
        assert_eq!(read(format!("{{\"c\":\"{rest}\"}}")), Err((Reason::DlpMatch, true)));
    }

    #[test]
    fn what_is_done_about_instructions_that_leave() {
        for (dlp, expected) in [
            ("instructions: block", ["injection_match"; 3]),
            ("instructions: warn", ["warn"; 3]),
            ("instructions: \"off\"", ["-"; 3]),
        ] {
            assert_eq!(became(dlp, ORDER), expected, "{dlp}");
        }
        // With a secret beside it, it is the secret that is told.
        let both = format!("{ORDER} {TOKEN}");
        assert_eq!(became("instructions: block", &both), ["dlp_match"; 3]);
        assert_eq!(became("instructions: block, action: warn", &both), ["injection_match"; 3]);
    }
}
