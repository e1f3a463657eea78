//! `protocol: ssh`: SSH to destinations whose host keys are pinned.
//!
//! Read by `rule`; kept by `proxy::ssh`. It promises that a rule for SSH pins at least one key, and that no other has any.

use super::error::{Report, quote};
use super::read::{Field, Reader};
use super::types::{Protocol, Rule};

/// The port of SSH.
pub(super) const SSH_PORT: u16 = 22;
/// Characters of a SHA-256 in base64, without padding.
const LENGTH: usize = 43;

impl Rule {
    /// Fingerprints of the SSH host keys that the destination may show, as `SHA256:…` without padding.
    #[must_use]
    pub fn host_keys(&self) -> &[String] {
        &self.host_keys
    }
}

/// Sorted, without repeats: their order says nothing.
pub(super) fn host_keys(report: &mut Report, reader: &Reader<'_>) -> Vec<String> {
    let mut keys: Vec<String> =
        reader.items(report, "host_keys").iter().filter_map(|item| fingerprint(report, item)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn fingerprint(report: &mut Report, item: &Field<'_>) -> Option<String> {
    let text = item.text(report, "a fingerprint like \"SHA256:…\"")?;
    let digest = text.strip_prefix("SHA256:").map(|digest| digest.strip_suffix('=').unwrap_or(digest));
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    // The last character stands for four bits, so that its lowest two are none.
    let is_digest = |digest: &&str| {
        digest.len() == LENGTH
            && digest.bytes().all(letter)
            && digest.ends_with(|last| "AEIMQUYcgkosw048".contains(last))
    };
    match digest.filter(is_digest) {
        Some(digest) => Some(format!("SHA256:{digest}")),
        None => {
            let message = format!("{} is no SHA-256 fingerprint of a host key", quote(text));
            item.wrong(
                report,
                message,
                "copy it from ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on the server: SHA256:…",
            );
            None
        }
    }
}

/// Reports a rule for SSH without keys, and keys without SSH.
pub(super) fn contradictions(report: &mut Report, (field, reader): (&Field<'_>, &Reader<'_>), rule: &Rule) {
    match (reader.get("host_keys"), rule.protocol) {
        (None, Protocol::Ssh) => {
            let at = reader.get("protocol").unwrap_or_else(|| field.clone());
            at.wrong(
                report,
                "protocol: ssh needs host_keys",
                "list the fingerprints that ssh-keygen -lf prints: host_keys: [\"SHA256:…\"]",
            );
        }
        (Some(at), protocol) if protocol != Protocol::Ssh => {
            at.wrong(report, "host_keys is about SSH", "write protocol: ssh and scan: false, or remove host_keys");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::Host;
    use crate::policy::{Policy, Protocol};

    const KEY: &str = "SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8";

    fn parse(rule: &str) -> Result<Policy, String> {
        let text = format!("version: 1\negress: [{{destination: a.test, {rule}}}]\n");
        Policy::parse(&text, "test").map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_rule_for_ssh_pins_keys_and_has_a_port_of_its_own() {
        let policy = parse(&format!("protocol: ssh, scan: false, host_keys: [\"{KEY}=\", \"{KEY}\"]")).expect("valid");
        let rule = &policy.rules()[0];
        assert_eq!((rule.protocol(), rule.host_keys()), (Protocol::Ssh, &[KEY.to_owned()][..]));
        assert!(rule.uses_port(22) && !rule.uses_port(443) && !rule.wants_reading());
        assert!(rule.unfit(true).is_some() && rule.unfit(false).is_some() && !policy.names_on(22));
        let again = Policy::parse(&policy.canonical_json(), "test").expect("the canonical form is a policy");
        assert_eq!((again.id(), again.rules()), (policy.id(), policy.rules()));
        let elsewhere = format!("protocol: ssh, scan: false, ports: [2222], host_keys: [\"{KEY}\"]");
        assert!(parse(&elsewhere).expect("valid").find(&Host::parse("a.test").expect("a name"), 2222).is_ok());
    }

    #[test]
    fn what_says_nothing_or_cannot_be_kept_is_refused() {
        for (rule, expected) in [
            ("protocol: ssh, scan: false", "protocol: ssh needs host_keys"),
            ("protocol: ssh, scan: false, host_keys: []", "the list is empty"),
            ("protocol: ssh, host_keys: [KEY]", "nothing can be scanned"),
            ("protocol: ssh, scan: false, paths: [/a], host_keys: [KEY]", "paths cannot be checked"),
            ("protocol: ssh, scan: false, git: {fetch: ['*']}, host_keys: [KEY]", "git cannot be checked"),
            ("protocol: tcp, scan: false, host_keys: [KEY]", "host_keys is about SSH"),
            ("host_keys: [KEY]", "host_keys is about SSH"),
            ("protocol: ssh, scan: false, host_keys: ['MD5:aa:bb']", "no SHA-256 fingerprint"),
            ("protocol: ssh, scan: false, host_keys: ['SHA256:abc']", "no SHA-256 fingerprint"),
            (
                "protocol: ssh, scan: false, host_keys: ['SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY9']",
                "no SHA-256",
            ),
        ] {
            let errors = parse(&rule.replace("KEY", &format!("'{KEY}'"))).expect_err(rule);
            assert!(errors.contains(expected), "{rule}: {errors}");
        }
    }
}
