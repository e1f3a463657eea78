//! Asks somebody, where the policy wants that, before something goes on.
//!
//! Called by `http` for requests and by `listen` and `http::explicit` for connections that nobody reads. It promises that no answer
//! is no: none in time, from nobody, broken off, under another policy by then, or where too many questions wait; and that what was
//! answered with "always" is asked once in a session, of the policy that it was answered under.

mod webhook;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;

use tokio::sync::{Semaphore, TryAcquireError};

pub use webhook::{Secret, SecretError, Webhook};

use crate::flow::{Answer, Asked, Asker, Flow, Question, Reason, Verdict, locked, shown};
use crate::policy::Rule;
use crate::proxy::ration::who;
use crate::proxy::shares::Shares;
use crate::proxy::state::{Proxy, Rules};

/// Questions that wait for an answer at a time; what comes beyond them is denied.
const MOST_WAITING: usize = 32;
/// Those of one who asks.
const MOST_OF_ONE: usize = 8;
/// Answers with "always" that are remembered.
const MOST_REMEMBERED: usize = 1024;
/// Findings of a question that are told.
const MOST_FINDINGS: usize = 8;

/// What an answer with "always" holds for: policy, rule, method, host and port.
type Same = (String, String, String, String);

/// What somebody is asked about.
pub(super) struct About<'a> {
    /// Who wants to.
    pub(super) flow: &'a Flow,
    /// The rule that allows it, or would.
    pub(super) rule: &'a str,
    /// The method of a request; CONNECT for a connection.
    pub(super) method: &'a str,
    /// Host and port.
    pub(super) place: String,
    /// What may be shown and kept of where it goes.
    pub(super) target: &'a str,
    /// What was found in it, unless it is the rule that wants somebody asked.
    pub(super) found: Option<&'a Verdict>,
}

/// Who can be asked, and what they said.
pub struct Asking {
    terminal: OnceLock<Arc<dyn Asker>>,
    /// One who reads at a terminal reads one question at a time.
    turn: Semaphore,
    waiting: Semaphore,
    /// How many wait, by who wants to.
    of_one: Shares,
    always: Mutex<HashMap<Same, Asked>>,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            terminal: OnceLock::new(),
            turn: Semaphore::new(1),
            waiting: Semaphore::new(MOST_WAITING),
            of_one: Shares::default(),
            always: Mutex::default(),
        }
    }
}

impl Asking {
    /// From now on a policy that names no webhook has this one asked.
    pub fn at(&self, terminal: Arc<dyn Asker>) {
        // There is one terminal.
        let _ = self.terminal.set(terminal);
    }

    /// True when somebody has said yes to this for good.
    pub(super) fn has_said_always(&self, rules: &Rules, about: &About<'_>) -> bool {
        about.found.is_none() && locked(&self.always).contains_key(&same(rules, about))
    }

    /// Whether it goes on. `ended` is what ends the wait, as when whoever wanted it has gone.
    ///
    /// # Errors
    /// [`Reason::AskDenied`], or [`Reason::DlpMatch`] where it is about a finding, with who was asked and what they said; what
    /// ended the wait.
    pub(super) async fn ask(
        &self,
        (proxy, rules): (&Proxy, &Rules),
        about: About<'_>,
        ended: impl Future<Output = Verdict>,
    ) -> Result<Asked, Verdict> {
        let found = about.found;
        let denied = |asked: Asked, why: String| {
            let (reason, detail) = match found {
                Some(found) => (found.reason, format!("{}; {why}", found.detail)),
                None => (Reason::AskDenied, why),
            };
            let mut verdict = Verdict::block(reason, detail).by(Some(about.rule.to_owned()));
            verdict.asked = Some(Box::new(asked));
            verdict.with(found.map(|found| found.findings.clone()).unwrap_or_default())
        };
        let same = same(rules, &about);
        let former = || locked(&self.always).get(&same).filter(|_| found.is_none()).cloned();
        if let Some(former) = former() {
            return Ok(former);
        }
        let webhook = rules.webhook.clone().map(|webhook| webhook as Arc<dyn Asker>);
        let is_webhook = webhook.is_some();
        let Some(asker) = webhook.or_else(|| self.terminal.get().cloned()) else {
            let asked = Asked { of: "nobody", answer: "none", id: String::new() };
            let why = "nobody can be asked: there is no terminal, and the policy names no webhook (ask.webhook)";
            return Err(denied(asked, why.into()));
        };
        let asked = |answer, id: &str| Asked { of: asker.name(), answer, id: id.to_owned() };
        let _waiting = match self.waiting.try_acquire() {
            Ok(place) => place,
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => {
                return Err(denied(asked("none", ""), format!("{MOST_WAITING} other questions wait for an answer")));
            }
        };
        let Some(_own) = self.of_one.take(who(about.flow), MOST_OF_ONE) else {
            return Err(denied(
                asked("none", ""),
                format!("{MOST_OF_ONE} questions of the same client wait for an answer"),
            ));
        };
        let timeout = rules.policy.ask().timeout;
        let Some(id) = number() else { return Err(denied(asked("failed", ""), "no number for it".into())) };
        let question = Question {
            id,
            policy: rules.policy.id().to_string(),
            rule: shown(about.rule),
            actor: actor(about.flow),
            pid: (about.flow.id.0 != 0).then_some(about.flow.origin.pid),
            method: shown(about.method),
            target: shown(about.target),
            findings: found.map(lines).unwrap_or_default(),
            seconds: timeout.as_secs(),
        };
        let answer = async {
            let _turn = if is_webhook { None } else { self.turn.acquire().await.ok() };
            // Somebody may have said so while this one waited for its turn.
            if let Some(former) = former() {
                return Err(former);
            }
            Ok(tokio::time::timeout(timeout, asker.ask(&question)).await)
        };
        let ended = async {
            tokio::select! {
                over = over(proxy, rules) => over,
                ended = ended => ended,
            }
        };
        tokio::pin!(answer);
        // First what ends it: a yes that comes together with another policy is a yes to the former.
        let answer = tokio::select! {
            biased;
            ended = ended => match poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx))).await {
                // It was said before: who interrupts the agent says no first, and then its client hangs up.
                Poll::Ready(Ok(no @ Ok(Ok(Answer::No)))) => no,
                _ => return Err(Verdict { asked: Some(Box::new(asked("none", &question.id))), ..not_out(ended) }),
            },
            answer = &mut answer => match answer {
                Ok(answer) => answer,
                Err(former) => return Ok(former),
            },
        };
        match answer {
            Ok(Ok(Answer::Yes)) => Ok(asked("yes", &question.id)),
            // What was found is this once's alone: the next may hold another secret.
            Ok(Ok(Answer::Always)) if found.is_some() => Ok(asked("yes", &question.id)),
            Ok(Ok(Answer::Always)) => {
                let asked = asked("always", &question.id);
                let mut always = locked(&self.always);
                if always.len() < MOST_REMEMBERED {
                    always.insert(same.clone(), asked.clone());
                }
                Ok(asked)
            }
            Ok(Ok(Answer::No)) => {
                Err(denied(asked("no", &question.id), format!("the {} was asked and said no", asker.name())))
            }
            Ok(Err(why)) => {
                Err(denied(asked("failed", &question.id), format!("the {} could not be asked: {why}", asker.name())))
            }
            Err(_) => {
                let why = format!("the {} was asked and did not answer within {timeout:?}", asker.name());
                Err(denied(asked("none", &question.id), why))
            }
        }
    }
}

/// Whether a connection that nobody reads goes on, where its rule wants somebody asked.
///
/// # Errors
/// What [`Asking::ask`] says; what ended the wait.
pub(super) async fn connection(
    proxy: &Proxy,
    rules: &Rules,
    (rule, flow): (&Rule, &Flow),
    place: String,
    ended: impl Future<Output = Verdict>,
) -> Result<Option<Box<Asked>>, Verdict> {
    if !rule.asks() {
        return Ok(None);
    }
    let (label, target) = (rule.label(), place.clone());
    let about = About { flow, rule: &label, method: "CONNECT", place, target: &target, found: None };
    Ok(Some(Box::new(proxy.asking.ask((proxy, rules), about, ended).await?)))
}

/// Who wants to, for a person: the name of a token or of a process, else where a client is.
fn actor(flow: &Flow) -> String {
    match &flow.origin.identity {
        Some(identity) => shown(identity),
        None => match flow.origin.peer {
            Some(peer) => format!("a client at {}", peer.ip()),
            None => shown(&flow.origin.comm),
        },
    }
}

/// What ends every wait for an answer: evidence that is lost, the end of the proxy, another policy.
async fn over(proxy: &Proxy, rules: &Rules) -> Verdict {
    tokio::select! {
        cut = proxy.evidence_lost() => cut,
        () = proxy.closed() => Proxy::stopped(),
        cut = proxy.disallowed(Some(rules.policy.id()), |_| false) => cut,
    }
}

/// Nothing has left yet, whatever ended the wait.
fn not_out(verdict: Verdict) -> Verdict {
    Verdict { action: crate::flow::Action::Block, ..verdict }
}

fn same(rules: &Rules, about: &About<'_>) -> Same {
    (rules.policy.id().to_string(), about.rule.to_owned(), about.method.to_owned(), about.place.clone())
}

fn lines(found: &Verdict) -> Vec<String> {
    let mut asked: Vec<_> = found.findings.iter().filter(|found| found.action == "ask").collect();
    asked.sort_by_key(|found| Reverse(found.rank()));
    let rest = asked.len().saturating_sub(MOST_FINDINGS);
    let more = (rest > 0).then(|| format!("and at least {rest} more, none more severe"));
    asked.iter().take(MOST_FINDINGS).map(|found| shown(&found.line())).chain(more).collect()
}

/// A number that nobody can guess.
fn number() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(pipelock_receipt::codec::hex(&bytes))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
