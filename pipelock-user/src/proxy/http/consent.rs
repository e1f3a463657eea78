//! What somebody has to agree to before a request goes on.
//!
//! Gathered by `serve` from the rule and from what was read; asked of [`crate::proxy::ask`] once for the whole request. It promises
//! that a request for which somebody has to be asked goes on only with a yes.

use http::Method;

use super::authority::Authority;
use super::reading::Reading;
use super::serve::Session;
use crate::flow::{Asked, Found, Reason, Verdict};
use crate::proxy::ask::About;
use crate::proxy::presence::Wanted;
use crate::proxy::state::Rules;

/// What is said of a request for which somebody has to be asked, when it is only asked about.
const WOULD_BE_ASKED: &str =
    "before such a request goes on somebody is asked; nobody was, since this only asks what would become of it";

/// What somebody has to be asked.
pub(super) struct Consent {
    /// The rule wants them asked.
    pub(super) by_rule: bool,
    /// What was found that they have to be asked about.
    pub(super) wanted: Option<Verdict>,
    /// Whether the client still wants that, where it can say so of one request alone.
    pub(super) still: Option<Wanted>,
}

/// What they said yes to.
#[derive(Default)]
pub(super) struct Agreed {
    pub(super) asked: Option<Box<Asked>>,
    pub(super) findings: Vec<Found>,
}

impl Consent {
    /// The same, with what was found in the body.
    pub(super) fn and(mut self, more: Option<Verdict>) -> Self {
        if let Some(more) = more {
            more.add_to(&mut self.wanted);
        }
        self
    }
}

impl Session {
    /// The same for a request that is only asked about: nobody is asked, so what somebody would be asked about is refused.
    ///
    /// # Errors
    /// What was found, or [`Reason::AskDenied`].
    pub(super) fn would_consent(
        &self,
        rules: &Rules,
        authority: &Authority,
        method: &Method,
        consent: Consent,
    ) -> Result<(), Verdict> {
        if let Some(wanted) = consent.wanted {
            let detail = format!("{}; {WOULD_BE_ASKED}", wanted.detail);
            return Err(Verdict { detail, ..wanted });
        }
        if !consent.by_rule {
            return Ok(());
        }
        let Authority { host, port } = authority;
        let rule = rules.policy.find(host, *port).map(crate::policy::Rule::label).unwrap_or_default();
        let (flow, place) = (self.identified(), format!("{host}:{port}"));
        let about = About { flow: &flow, rule: &rule, method: method.as_str(), place, target: "", found: None };
        if self.proxy.asking.has_said_always(rules, &about) {
            return Ok(());
        }
        Err(Verdict::block(Reason::AskDenied, WOULD_BE_ASKED))
    }

    /// Asks, if somebody has to be asked.
    ///
    /// # Errors
    /// What [`crate::proxy::ask::Asking::ask`] says.
    pub(super) async fn consented(
        &self,
        rules: &Rules,
        authority: &Authority,
        (method, path): (&Method, &str),
        consent: Consent,
        reading: Option<&Reading>,
    ) -> Result<Agreed, Verdict> {
        if !consent.by_rule && consent.wanted.is_none() {
            return Ok(Agreed::default());
        }
        let Authority { host, port } = authority;
        let rule = rules.policy.find(host, *port).map(crate::policy::Rule::label).unwrap_or_default();
        let place = format!("{host}:{port}");
        let target = format!("{}://{place}{}", self.scheme(), path);
        let (method, target) = self.tellable(rules, reading, (method, target)).await;
        let flow = self.identified();
        let about =
            About { flow: &flow, rule: &rule, method: &method, place, target: &target, found: consent.wanted.as_ref() };
        let taken_back = async {
            match consent.still {
                Some(still) => still.ended().await,
                None => std::future::pending().await,
            }
        };
        let over = async {
            tokio::select! {
                over = self.deserted() => over,
                over = taken_back => over,
            }
        };
        let asked = self.proxy.asking.ask((&self.proxy, rules), about, over).await?;
        let findings = consent.wanted.map(|wanted| wanted.findings).unwrap_or_default();
        Ok(Agreed { asked: Some(Box::new(asked)), findings })
    }
}
