//! What an agent has named, as evidence keeps it: without the secrets in it, where the policy has anything read.
//!
//! Called by `flows` and `joints` for every flow and every question of DNS. It promises that a name which nobody has read is not
//! kept, unless the policy itself spells it out: while scanners are on their way, and for good where they cannot be had.

use std::sync::Arc;

use crate::flow::Host;
use crate::inspect::Scanners;
use crate::policy::Policy;
use crate::proxy::Rules;

/// What is kept in the place of words that nobody has read.
const UNREAD: &str = "no scanner could read what the agent named, which is left out";

/// Who reads.
enum Reader {
    /// The policy has nothing read.
    NotWanted,
    /// These do.
    Scanners(Arc<Scanners>),
    /// Nobody can.
    Nobody,
}

/// Reads what an agent has named.
pub(super) struct Named<'a> {
    policy: &'a Policy,
    reader: Reader,
}

impl<'a> Named<'a> {
    /// Under these rules, as their scanners are at this moment.
    pub(super) fn under(rules: &'a Rules) -> Self {
        let reader = match rules.inspect.as_ref().map(|inspect| inspect.now()) {
            None => Reader::NotWanted,
            Some(Some(Ok(scanners))) => Reader::Scanners(scanners),
            Some(None | Some(Err(_))) => Reader::Nobody,
        };
        Self { policy: &rules.policy, reader }
    }

    /// Whether a name would be kept if somebody came to read it: scanners are on their way, and it says something.
    pub(super) fn is_early(rules: &Rules, host: &Host) -> bool {
        rules.inspect.as_ref().is_some_and(|inspect| inspect.now().is_none()) && !rules.policy.spells_out(host)
    }

    /// A name, with placeholders for the secrets in it; none where it is not kept.
    pub(super) fn host(&self, host: &Host) -> Option<String> {
        match &self.reader {
            Reader::NotWanted => Some(host.to_string()),
            Reader::Scanners(scanners) => Some(scanners.without_secrets(host.to_string())),
            Reader::Nobody => self.policy.spells_out(host).then(|| host.to_string()),
        }
    }

    /// The words of a verdict, which may repeat it.
    pub(super) fn detail(&self, detail: String) -> String {
        match &self.reader {
            Reader::NotWanted => detail,
            _ if detail.is_empty() => detail,
            Reader::Scanners(scanners) => scanners.without_secrets(detail),
            Reader::Nobody => UNREAD.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{Inspection, KNOWN_FOR_TESTS};
    use crate::net::Resolver;

    fn rules(inspect: Option<Arc<Inspection>>) -> Rules {
        let text =
            "version: 1\negress: [{destination: spelled.test}, {destination: '*.wild.test'}]\ndeny: [denied.test]\n";
        Rules {
            policy: Policy::parse(text, "test").expect("a policy"),
            resolver: Resolver::new(Box::new(|_| None)),
            hop: None,
            webhook: None,
            tls: None,
            inspect,
        }
    }

    #[test]
    fn what_nobody_has_read_is_not_kept() {
        let secret = format!("{KNOWN_FOR_TESTS}.wild.test");
        let kept = |rules: &Rules, name: &str| {
            let named = Named::under(rules);
            let host = Host::parse(name).expect("a name");
            (named.host(&host), named.detail(format!("{name} is not allowed")))
        };
        let whole = |name: &str| (Some(name.to_owned()), format!("{name} is not allowed"));
        for inspect in [Inspection::failed_for_tests(), Inspection::never_for_tests()] {
            let is_early = inspect.now().is_none();
            let rules = rules(Some(inspect));
            for name in [&secret, "other.wild.test", "nowhere.test"] {
                assert_eq!(kept(&rules, name), (None, UNREAD.to_owned()), "{name}");
                assert_eq!(Named::is_early(&rules, &Host::parse(name).expect("a name")), is_early, "{name}");
            }
            for name in ["spelled.test", "denied.test", "192.0.2.1"] {
                assert_eq!(kept(&rules, name), (Some(name.to_owned()), UNREAD.to_owned()), "{name}");
                assert!(!Named::is_early(&rules, &Host::parse(name).expect("a name")), "{name}");
            }
            assert_eq!(Named::under(&rules).detail(String::new()), "", "there is nothing to leave out");
        }
        assert_eq!(kept(&rules(None), &secret), whole(&secret), "nothing is looked for");
        let rules = rules(Some(Inspection::for_tests()));
        assert_eq!(kept(&rules, "other.wild.test"), whole("other.wild.test"));
        let placeholder = "<pipelock:credential:1>.wild.test";
        assert_eq!(kept(&rules, &secret), whole(placeholder));
    }
}
