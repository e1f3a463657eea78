//! The policy that most tests begin with.
//!
//! Used by tests of HTTP and what carries it. It promises one rule, for `web.test` on one port of this host.

/// A policy whose rule is for `web.test` on this port of 127.0.0.1; `members` are more of the rule, with the comma before
/// them, and `more` is what else the policy says.
#[must_use]
pub fn web_policy(port: u16, members: &str, more: &str) -> String {
    format!(
        "egress: [{{destination: web.test, ports: [{port}]{members}}}]\ndns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\n\
         ssrf: {{allow: [\"127.0.0.0/8\"]}}\n{more}"
    )
}
