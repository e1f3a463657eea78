//! What a policy needs to have contents read: its scanners, and the values that they look for.
//!
//! Called by `tls::rules_of`. It promises that a policy which scans nothing loads nothing, and that a reload that looks for the same
//! values keeps its scanners, and with them what they remember of the session.

use std::sync::Arc;

use super::folders;
use super::withheld::Withheld;
use crate::inspect::{Inspection, InspectionError};
use crate::net::Login;
use crate::policy::{FindingAction, Policy};
use crate::proxy::Rules;

/// How findings name the password for the next hop.
const LOGIN: &str = "upstream.credentials";

/// What the agent has in its environment.
#[derive(Clone)]
pub enum Environment {
    /// Ours, which the command gets from us, without what is withheld from it.
    OfTheAgent(Withheld),
    /// Nothing that we know of, and ours is ours alone; but the agent is a client that has one of these tokens.
    Clients {
        /// Their tokens, each with what findings call it.
        tokens: Arc<[(String, Vec<u8>)]>,
        /// True when they are not those of before.
        are_new: bool,
    },
    /// What its processes were found with.
    Of(Arc<[(String, Vec<u8>)]>),
}

/// The scanners of a policy; none when it scans nothing. `login` is what they look for besides: what the next hop is told.
///
/// # Errors
/// [`InspectionError`].
pub(super) fn inspection(
    policy: &Policy,
    former: Option<&Rules>,
    environment: &Environment,
    login: Option<&Login>,
) -> Result<Option<Arc<Inspection>>, InspectionError> {
    if !policy.all_rules().any(|rule| rule.scan()) {
        return Ok(None);
    }
    let dlp = policy.dlp();
    // What is done about findings is not the scanners' matter; files may have changed under the same names.
    if let Some(former) = former
        && !matches!(environment, Environment::Clients { are_new: true, .. })
        && former.policy.dlp().scan_env == dlp.scan_env
        && (former.policy.dlp().instructions == FindingAction::Off) == (dlp.instructions == FindingAction::Off)
        && former.policy.dlp().secrets_files.is_empty()
        && dlp.secrets_files.is_empty()
        && former.hop.as_ref().and_then(|hop| hop.login()) == login
        // One that could not be loaded is tried again.
        && former.inspect.as_ref().is_some_and(|inspect| !matches!(inspect.now(), Some(Err(_))))
    {
        return Ok(former.inspect.clone());
    }
    let variables: Arc<[(String, Vec<u8>)]> = match environment {
        Environment::OfTheAgent(_) if dlp.scan_env => {
            let named = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
                Some((name.into_string().ok()?, value.into_encoded_bytes()))
            };
            std::env::vars_os().filter_map(named).collect()
        }
        Environment::Of(variables) if dlp.scan_env => variables.clone(),
        Environment::Clients { tokens, .. } => tokens.clone(),
        _ => Arc::default(),
    };
    let login = login.map(|login| (LOGIN, login.secret()));
    Inspection::new(policy, &variables, login, folders::rules()).map(Arc::new).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tls::hop_of;
    use crate::net::Resolver;

    fn rules_of(text: &str, former: Option<&Rules>) -> Rules {
        let policy = Policy::parse(text, "p.yaml").expect("a policy");
        let hop = hop_of(&policy);
        let login = hop.as_ref().and_then(|hop| hop.login());
        let inspect =
            inspection(&policy, former, &Environment::Clients { tokens: Arc::default(), are_new: false }, login)
                .expect("scanners");
        Rules { policy, resolver: Resolver::new(Box::new(|_| None)), hop, webhook: None, tls: None, inspect }
    }

    fn rules(text: &str, former: Option<&Rules>) -> Rules {
        rules_of(&format!("version: 1\negress: [{{destination: a.test}}]\n{text}"), former)
    }

    #[test]
    fn whoever_reads_anything_has_scanners() {
        for (text, is_read) in [
            ("{version: 1}", false),
            ("{version: 1, egress: [{destination: a.test, scan: false}]}", false),
            ("{version: 1, egress: [{destination: a.test}]}", true),
            ("{version: 1, default_deny: false}", true),
            ("{version: 1, default_deny: false, egress: [{destination: a.test, scan: false}]}", true),
        ] {
            assert_eq!(rules_of(text, None).scanner(), Ok(if is_read { "loading" } else { "off" }), "{text}");
        }
    }

    #[test]
    fn scanners_that_could_not_be_loaded_are_tried_again() {
        let mut former = rules("", None);
        former.inspect = Some(Inspection::failed_for_tests());
        assert_eq!(former.scanner(), Err("failed"), "health pages say so");
        assert!(rules("", Some(&former)).inspect.is_some_and(|inspect| inspect.now().is_none()));
    }

    #[test]
    fn a_reload_that_looks_for_the_same_keeps_what_is_remembered() {
        let former = rules("dlp: {action: block}\n", None);
        let is_kept = |text: &str, former: &Rules| {
            let pair = (rules(text, Some(former)).inspect, former.inspect.clone());
            matches!(pair, (Some(new), Some(old)) if Arc::ptr_eq(&new, &old))
        };
        for same in ["", "dlp: {action: warn}\n", "dlp: {entropy: block}\n", "response: {action: warn}\n"] {
            assert!(is_kept(same, &former), "{same}");
        }
        for other in ["dlp: {scan_env: false}\n", "dlp: {instructions: warn}\n"] {
            assert!(!is_kept(other, &former), "{other}");
        }
        let secrets = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(secrets.path(), "TOKEN=0123456789abcdef0123456789\n").expect("written");
        let named = format!("dlp: {{secrets_files: ['{}']}}\n", secrets.path().display());
        assert!(!is_kept(&named, &former));
        let former = rules(&named, None);
        assert!(!is_kept(&named, &former), "the file may have changed");
        assert!(!is_kept("", &former));
        let login = |password: &str| {
            std::fs::write(secrets.path(), format!("me:{password}\n")).expect("written");
            format!("upstream: {{proxy: 'http://127.0.0.1:9', credentials_file: '{}'}}\n", secrets.path().display())
        };
        let former = rules(&login("open-sesame-0815"), None);
        assert!(is_kept(&login("open-sesame-0815"), &former));
        assert!(!is_kept(&login("open-sesame-4711"), &former), "another password is looked for");
        assert!(!is_kept("", &former));
    }
}
