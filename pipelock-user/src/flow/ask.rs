//! A question to somebody, where the policy wants that.
//!
//! Asked by `proxy`; answered by whoever fills [`Asker`]: the terminal of `cli`, a webhook. It promises that what a person reads of
//! it holds no secret, and nothing that changes how a terminal shows it.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;

/// Characters of one text of a question.
const MOST_SHOWN: usize = 300;

/// What somebody is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// Its number, which cannot be guessed.
    pub id: String,
    /// The policy that wants it asked.
    pub policy: String,
    /// The rule, as the policy spells it.
    pub rule: String,
    /// Who wants to: the name of a process, or of a token.
    pub actor: String,
    /// Its process, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The method; CONNECT for a connection that nobody reads.
    pub method: String,
    /// Where to: a URL without its query, or host and port.
    pub target: String,
    /// What was found in it, in words; empty when it is the rule that wants somebody asked.
    pub findings: Vec<String>,
    /// Seconds until no answer is no.
    pub seconds: u64,
}

impl Question {
    /// How long it may take to answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// What somebody says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Yes,
    /// Yes, and to the same until the end of this session.
    Always,
    /// No.
    No,
}

/// Who was asked, and what came of it: for the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// `terminal`, `webhook`, or `nobody`.
    pub of: &'static str,
    /// `yes`, `always`, `no`, `none` for none in time, or `failed`.
    pub answer: &'static str,
    /// The question's number; of the one that was answered with always, when nobody was asked again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
}

/// What an asker promises: an answer, or why there is none.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Answer, String>> + Send + 'a>>;

/// Somebody who can be asked. Dropping the future withdraws the question.
pub trait Asker: Send + Sync {
    /// What the evidence calls it.
    fn name(&self) -> &'static str;
    /// Asks, and waits as long as it takes: whoever calls does not.
    fn ask<'a>(&'a self, question: &'a Question) -> Answering<'a>;
}

/// A text of somebody else's for a person: one line, cut, without characters that a terminal acts on or that are not seen.
#[must_use]
pub fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (count, char) in text.chars().enumerate() {
        if count == MOST_SHOWN {
            shown.push('…');
            break;
        }
        // What is beyond ASCII may look like something else, turn the line round or not be seen at all.
        match char {
            ' '..='~' => shown.push(char),
            _ => shown.extend(char.escape_unicode()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_reads_is_what_is_there() {
        for (text, expected) in [
            ("https://a.test/x?y", "https://a.test/x?y"),
            ("a\u{1b}[2Kb\r\nc\u{202e}d", "a\\u{1b}[2Kb\\u{d}\\u{a}c\\u{202e}d"),
            ("\u{430}.test", "\\u{430}.test"),
        ] {
            assert_eq!(shown(text), expected);
        }
        assert_eq!(shown(&"x".repeat(9999)).chars().count(), MOST_SHOWN + 1);
    }
}
