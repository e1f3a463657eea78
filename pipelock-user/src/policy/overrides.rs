//! Headers by which a request names another method or path than its first line, and which some servers and frameworks obey.
//!
//! Called by `proxy::http` for every request of a rule. It promises that under a rule with `methods` none of them names a method, and
//! under one with `paths` or `git` none a path, that the rule would not let through.

use super::decide::shown;
use super::types::Rule;
use crate::flow::{Reason, Verdict};

/// Of Rails, Express, Symfony, ASP.NET, Google's APIs and many more.
const METHODS: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
/// Of IIS and its URL Rewrite, which Symfony, Zend and reverse proxies took over.
const PATHS: [&str; 2] = ["x-original-url", "x-rewrite-url"];

impl Rule {
    /// Decides about the headers of a request, by their names in lower case, whose first line this rule lets through; none when they
    /// name nothing else.
    pub fn check_overrides<'h>(
        &self,
        method: &str,
        headers: impl IntoIterator<Item = (&'h str, &'h [u8])>,
    ) -> Option<Verdict> {
        let found = headers.into_iter().find_map(|(name, value)| {
            if METHODS.contains(&name) {
                return self.overriding_method(name, value);
            }
            PATHS.contains(&name).then(|| self.overriding_path(method, name, value))?
        });
        found.map(|denied| denied.by(Some(self.label())))
    }

    fn overriding_method(&self, name: &str, value: &[u8]) -> Option<Verdict> {
        let methods = self.methods.as_ref()?;
        let value = String::from_utf8_lossy(value);
        // Servers write it in capitals, and of a list each takes the one it likes.
        let mut named = value.split(',').map(str::trim).filter(|method| !method.is_empty());
        let other = named.find(|method| !methods.iter().any(|own| own.eq_ignore_ascii_case(method)))?;
        let detail =
            format!("{name} says {}, which is not among the methods of the rule: {}", shown(other), methods.join(", "));
        Some(Verdict::block(Reason::MethodDenied, detail))
    }

    fn overriding_path(&self, method: &str, name: &str, value: &[u8]) -> Option<Verdict> {
        if self.paths.is_none() && self.git.is_none() {
            return None;
        }
        let value = String::from_utf8_lossy(value);
        let value = value.trim();
        // A whole URL is taken for its path.
        let path = match value.split_once("://") {
            Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
            None => value,
        };
        if path.is_empty() {
            return None;
        }
        let is_listed = match self.check_git(method, path) {
            Some(decided) => !decided.is_block(),
            None => self.lists_path(path),
        };
        let detail = || format!("{name} says {}, which is not among the paths of the rule", shown(path));
        (!is_listed).then(|| Verdict::block(Reason::PathDenied, detail()))
    }
}

#[cfg(test)]
mod tests {
    use crate::flow::Reason;
    use crate::policy::tests::read;

    /// What the first rule says of a GET with this header.
    fn asked(rule: &str, name: &str, value: &str) -> Option<Reason> {
        let policy = read(&format!("egress: [{{destination: a.test, {rule}}}]"));
        let headers = [("accept", &b"*/*"[..]), (name, value.as_bytes())];
        policy.rules()[0].check_overrides("GET", headers).map(|verdict| verdict.reason)
    }

    #[test]
    fn only_what_the_rule_limits_is_held_against_it() {
        for name in super::METHODS {
            assert_eq!(asked("methods: [GET]", name, "DELETE"), Some(Reason::MethodDenied), "{name}");
            assert_eq!(asked("methods: [GET]", name, "get"), None, "{name}");
            assert_eq!(asked("paths: [\"/a\"]", name, "DELETE"), None, "{name}");
        }
        for name in super::PATHS {
            assert_eq!(asked("paths: [\"/a\"]", name, "/b"), Some(Reason::PathDenied), "{name}");
            assert_eq!(asked("paths: [\"/a\"]", name, "/a?b"), None, "{name}");
            assert_eq!(asked("methods: [GET]", name, "/b"), None, "{name}");
            // What git may do there is a path as well.
            let git = "git: {fetch: [\"acme/*\"]}";
            let fetch = "/acme/w.git/info/refs?service=git-upload-pack";
            let push = "/acme/w.git/info/refs?service=git-receive-pack";
            assert_eq!((asked(git, name, fetch), asked(git, name, push)), (None, Some(Reason::PathDenied)), "{name}");
            assert_eq!(asked(git, name, "/api"), Some(Reason::PathDenied), "{name}");
        }
        assert_eq!(asked("methods: [GET], paths: [\"/a\"]", "x-forwarded-method", "DELETE"), None);
    }
}
