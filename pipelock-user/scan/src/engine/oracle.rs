//! The plain engine: keeps the whole text and, at its end, searches it rule by rule with the regex crate. It defines what
//! [`super::vector`] must find. Called by tests, fuzzing, and `cargo xtask bench scan`; never by the product.

use regex_automata::Input;

use super::confirm::{after_match, after_refusal, checks};
use super::{Begun, Engine, EngineError, Match, Matcher};
use crate::rule::RuleSet;
use crate::stream::Window;

/// Makes plain matchers.
#[derive(Debug)]
pub(crate) struct Oracle;

impl Engine for Oracle {
    fn open(&self) -> Result<Box<dyn Matcher>, EngineError> {
        Ok(Box::<Plain>::default())
    }

    fn reports(&self, _text: &[u8]) -> Result<u64, EngineError> {
        Ok(0)
    }

    fn matcher_size(&self) -> usize {
        0
    }

    fn reports_last(&self) -> bool {
        true
    }
}

#[derive(Debug, Default)]
struct Plain {
    text: Vec<u8>,
    start: u64,
}

impl Matcher for Plain {
    fn push(
        &mut self,
        rules: &RuleSet,
        telling: bool,
        window: &Window<'_>,
        last: bool,
        matches: &mut Vec<Match>,
    ) -> Result<(), EngineError> {
        if self.text.is_empty() {
            self.start = window.end() - window.new.len() as u64;
        }
        self.text.extend_from_slice(window.new);
        if last {
            for (index, rule) in rules.rules().iter().enumerate().filter(|(_, rule)| !telling || rule.is_telling()) {
                self.search(index, rule, matches);
            }
        }
        Ok(())
    }

    fn hold(&self, _rules: &RuleSet, _telling: bool, _window: &Window<'_>) -> u64 {
        self.start
    }

    fn begun(&self, _rules: &RuleSet, _pieces: bool, text: &[u8]) -> Begun {
        Begun::all(text.len())
    }

    fn reset(&mut self) {
        self.text.clear();
    }
}

impl Plain {
    fn search(&self, index: usize, rule: &crate::rule::Rule, matches: &mut Vec<Match>) {
        let Some(regex) = rule.pattern.regex() else { return };
        let mut captures = regex.create_captures();
        let mut at = 0;
        while at < self.text.len() {
            regex.search_captures(&Input::new(&self.text).range(at..), &mut captures);
            let Some(whole) = captures.get_group(0) else { break };
            let secret = captures.get_group(rule.secret).unwrap_or(whole);
            let span = self.start + whole.start as u64..self.start + whole.end as u64;
            if checks(rule, &self.text[whole.range()], &self.text[secret.range()]) {
                let secret = self.start + secret.start as u64..self.start + secret.end as u64;
                let found = Match { rule: index, span, secret };
                at = (after_match(&found) - self.start) as usize;
                matches.push(found);
            } else {
                at = (after_refusal(rule, &span) - self.start) as usize;
            }
        }
    }
}
