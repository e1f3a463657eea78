//! `deny`: destinations that nothing leads to, whatever the rules say.
//!
//! Read by `parse`; asked by `decide` for every destination and by `net` for every address that a name leads to. It promises that
//! an answer costs the labels of the name, not the length of the list.

use serde_json::{Value, json};

use super::decide::Index;
use super::destination::{Destination, List};
use super::error::Report;
use super::read::Reader;
use crate::flow::Host;

/// The list, as short as it can be said.
#[derive(Clone, Debug, Default)]
pub struct Denied {
    entries: Vec<Destination>,
    index: Index,
}

impl Denied {
    pub(super) fn read(report: &mut Report, root: &Reader<'_>) -> Self {
        let mut entries = Vec::new();
        for item in root.items(report, "deny") {
            let Some(text) = item.text(report, "a host, wildcard, address or network") else { continue };
            match Destination::parse_in(List::Denies, text) {
                Ok(destination) => entries.push(destination),
                Err((message, help)) => item.wrong(report, message, help),
            }
        }
        entries.sort_by_cached_key(ToString::to_string);
        entries.dedup();
        let index = Index::new(&entries);
        Self { entries, index }
    }

    pub(super) fn canonical(&self) -> Option<Value> {
        let entries: Vec<String> = self.entries.iter().map(ToString::to_string).collect();
        (!entries.is_empty()).then(|| json!(entries))
    }

    /// The entry that names this host. A wildcard names its domain too: who denies what is below means all of it.
    #[must_use]
    pub fn names(&self, host: &Host) -> Option<&Destination> {
        let candidates = self.index.candidates(host);
        candidates.into_iter().filter_map(|number| self.entries.get(number)).find(|entry| entry.matches(host, true))
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::{Host, Reason};
    use crate::policy::Policy;

    const LIST: &str = "version: 1\negress: [{destination: \"*.a.test\", include_apex: true}, {destination: 203.0.113.0/24}, {destination: \"2001:db8::/32\"}]\n\
                        deny: [\"*.evil.a.test\", x.a.test, 203.0.113.7, 203.0.113.128/25, \"::/0\", x.a.test]\n";

    #[test]
    fn what_is_denied_is_denied_whatever_the_rules_say() {
        let policy = Policy::parse(LIST, "test").expect("a policy");
        let decide = |host: &str| policy.find(&Host::parse(host).expect("a host"), 443).map(|rule| rule.label());
        for (host, is_allowed) in [
            ("a.test", true),
            ("b.a.test", true),
            ("x.a.test", false),
            ("y.x.a.test", true),
            ("evil.a.test", false),
            ("deep.down.evil.a.test", false),
            ("notevil.a.test", true),
            ("203.0.113.6", true),
            ("203.0.113.7", false),
            ("::ffff:203.0.113.7", false),
            ("203.0.113.200", false),
            ("2001:db8::7", false),
        ] {
            let found = decide(host);
            assert_eq!(found.is_ok(), is_allowed, "{host}: {found:?}");
            assert!(is_allowed || found == Err(Reason::HostDenied), "{host}: {found:?}");
            let asked =
                Host::parse(host).expect("a host").name().is_none_or(|name| policy.names_allowed(name) == is_allowed);
            assert!(asked, "{host} in DNS");
        }
        let verdict = policy.check_request(&Host::parse("evil.a.test").expect("a host"), 443, "GET", "/");
        assert!(verdict.detail.contains("deny") && verdict.detail.contains("*.evil.a.test"), "{}", verdict.detail);
        // What is advised helps: a rule does not undo it.
        for reason in [Reason::HostDenied, Reason::DnsDenied, Reason::AddressDenied] {
            assert!(reason.hint().contains("deny"), "{reason}");
        }
    }

    #[test]
    fn it_holds_where_nothing_else_is_denied() {
        let open = "version: 1\ndefault_deny: false\ndeny: [evil.test]\n";
        let policy = Policy::parse(open, "test").expect("a policy");
        let find = |host: &str| policy.find(&Host::parse(host).expect("a host"), 443).map(drop);
        assert_eq!((find("good.test"), find("evil.test")), (Ok(()), Err(Reason::HostDenied)));
    }

    #[test]
    fn it_is_part_of_what_a_policy_means() {
        let id = |text: &str| Policy::parse(text, "test").map(|policy| policy.id().clone()).map_err(|e| e.to_string());
        let without = id("version: 1\n").expect("a policy");
        assert_eq!(id("version: 1\ndeny: []\n").expect("a policy"), without);
        let one = id("version: 1\ndeny: [b.test, a.test]\n").expect("a policy");
        assert_ne!(one, without);
        assert_eq!(id("version: 1\ndeny: [A.test, b.test, a.test]\n").expect("a policy"), one);
        assert!(id("version: 1\ndeny: [\"https://a.test/\"]\n").expect_err("a URL").contains("a.test"));
        assert!(id("version: 1\nblocklist: [a.test]\n").expect_err("another word").contains("deny"));
    }
}
