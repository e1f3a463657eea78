//! Tests of `git`: which requests are git's, and what a rule says of them.

use proptest::prelude::*;

use super::*;
use crate::flow::Host;
use crate::policy::Policy;

const RULE: &str = "version: 1
egress:
  - destination: git.test
    git:
      fetch: [\"acme/*\", tools, \"team/*/public.git\"]
      push:
        - {repository: acme/widgets.git, refs: [\"agent/*\", \"refs/tags/v*\", \"user/*/wip\"]}
        - {repository: \"acme/*\", refs: [trash], delete: true}
        - {repository: acme/site, refs: [\"*\"], options: true}
";

fn policy(text: &str) -> Policy {
    Policy::parse(text, "test").unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> String {
    Policy::parse(&format!("version: 1\negress: [{{destination: a.test, {text}}}]\n"), "test")
        .expect_err(text)
        .to_string()
}

fn asked(policy: &Policy, request: &str) -> String {
    let (method, path) = request.split_once(' ').expect("method and path");
    let verdict = policy.check_request(&Host::parse("git.test").expect("a name"), 443, method, path);
    format!("{} {}", verdict.reason, verdict.detail)
}

#[test]
fn the_requests_of_git_are_told_from_others() {
    let is = |request: &str| {
        let (method, path) = request.split_once(' ').expect("method and path");
        GitRequest::of(method, path)
    };
    let some = |name: &str, of: fn(String) -> GitRequest| Some(of(name.to_owned()));
    for (request, expected) in [
        ("GET /a/b.git/info/refs?service=git-upload-pack", some("a/b", GitRequest::Fetch)),
        ("GET /a/b/info/refs?service=git-upload-pack", some("a/b", GitRequest::Fetch)),
        ("GET /info/refs?service=git-upload-pack", some("", GitRequest::Fetch)),
        ("GET /%61/b.git/info/refs?service=git-receive-pack", some("a/b", GitRequest::Announce)),
        ("POST /a/b.git/git-upload-pack", some("a/b", GitRequest::Fetch)),
        ("POST /a/b.git/git-receive-pack", some("a/b", GitRequest::Push)),
        ("POST /a/b.git/%67it-receive-pack", some("a/b", GitRequest::Push)),
        ("POST /a/b.git.git/git-receive-pack", some("a/b.git", GitRequest::Push)),
        ("GET /a/b.git/info/refs", None),
        ("GET /a/b.git/HEAD", None),
        ("POST /a/b.git/info/lfs/objects/batch", None),
        ("GET /a/../b/git-receive-pack", None),
    ] {
        assert_eq!(is(request), expected, "{request}");
    }
    for unclear in [
        "GET /a/b.git/info/refs?service=git-upload-pack&service=git-receive-pack",
        "GET /a/b.git/info/refs?service=git%2Dreceive-pack",
        "GET /a/b.git/info/refs?%73ervice=git-receive-pack",
        "GET /a/b.git/info/refs?service=git-upload-archive",
        "GET /a/b.git/info/refs?",
        "HEAD /a/b.git/info/refs?service=git-receive-pack",
        "post /a/b.git/git-receive-pack",
        "PUT /a/b.git/git-receive-pack",
        "POST /a/b.git/git-receive-pack?x",
        "POST /a/b.git/git-receive-pack/",
        "POST /a/b.git/git-receive-pack;x",
        "POST /a/b.git/git-receive-pack.json",
        "POST /a/b.git/Git-Receive-Pack",
        "POST /a/b.git/%2567it-receive-pack",
        "POST /a/b.git/git%25252Dreceive-pack",
        "POST /a/b.git/git-receive-pack;/info/refs",
        "GET /a/b.git/git-receive-pack/info/refs?service=git-upload-pack",
        "POST /a/b.git/%2525252525252525252541x",
    ] {
        assert!(matches!(is(unclear), Some(GitRequest::Unclear(_))), "{unclear}: {:?}", is(unclear));
    }
}

#[test]
fn a_rule_lets_the_requests_of_git_through_that_it_lists() {
    let policy = policy(RULE);
    for (request, expected) in [
        ("GET /acme/x.git/info/refs?service=git-upload-pack", "policy_allow "),
        ("POST /acme/x/y/git-upload-pack", "policy_allow "),
        ("POST /tools.git/git-upload-pack", "policy_allow "),
        ("POST /team/a/public/git-upload-pack", "policy_allow "),
        (
            "POST /team/a/b/public/git-upload-pack",
            "git_denied team/a/b/public may not be fetched; to allow it, add it to git.fetch of egress[0] git.test",
        ),
        (
            "POST /Acme/x/git-upload-pack",
            "git_denied Acme/x may not be fetched; to allow it, add it to git.fetch of egress[0] git.test",
        ),
        ("GET /acme/widgets.git/info/refs?service=git-receive-pack", "policy_allow "),
        ("POST /acme/widgets.git/git-receive-pack", "policy_allow "),
        (
            "GET /tools/info/refs?service=git-receive-pack",
            "git_denied tools may not be pushed to; to allow it, add it to git.push of egress[0] git.test",
        ),
        (
            "POST /tools/git-receive-pack",
            "git_denied tools may not be pushed to; to allow it, add it to git.push of egress[0] git.test",
        ),
        ("GET /acme/x/HEAD", "path_denied /acme/x/HEAD is no request of git's, and the rule lists no paths"),
        ("OPTIONS *", "path_denied  is no request of git's, and the rule lists no paths"),
        ("GET /acme/../x", "request_malformed the path holds a . or .. segment"),
    ] {
        assert_eq!(asked(&policy, request), expected, "{request}");
    }
    assert!(asked(&policy, "POST /acme/widgets/git-receive-pack/").starts_with("git_denied a server could"));
    assert!(policy.rules()[0].wants_reading());
}

#[test]
fn beside_git_go_the_paths_that_are_listed() {
    let policy = policy(
        "version: 1\negress: [{destination: git.test, scan: false, paths: ['/api/*'], methods: [GET], git: {fetch: ['*']}}]\n",
    );
    for (request, expected) in [
        ("GET /api/x", "policy_allow"),
        ("POST /api/x", "method_denied"),
        ("GET /x", "path_denied"),
        // Git's own are no matter of methods.
        ("POST /x/git-upload-pack", "policy_allow"),
        ("GET /api/git-receive-pack", "git_denied"),
    ] {
        assert!(asked(&policy, request).starts_with(expected), "{request}: {}", asked(&policy, request));
    }
    assert!(policy.rules()[0].wants_reading());
}

#[test]
fn a_push_changes_only_what_is_listed() {
    let policy = policy(RULE);
    let check = |repository: &str, name: &str, is_delete| {
        policy.rules()[0].check_ref(repository, name, is_delete).err().unwrap_or_default()
    };
    for (repository, name, is_delete) in [
        ("acme/widgets", "refs/heads/agent/x", false),
        ("acme/widgets", "refs/heads/agent/x/y", false),
        ("acme/widgets", "refs/tags/v1.0", false),
        ("acme/widgets", "refs/heads/user/me/wip", false),
        ("acme/widgets", "refs/heads/trash", true),
        ("acme/site", "refs/heads/main", false),
    ] {
        assert_eq!(check(repository, name, is_delete), "", "{name}");
    }
    for (repository, name, is_delete) in [
        ("acme/widgets", "refs/heads/main", false),
        ("acme/widgets", "refs/heads/agent", false),
        ("acme/widgets", "refs/heads/Agent/x", false),
        ("acme/widgets", "refs/tags/w1", false),
        ("acme/widgets", "refs/heads/refs/tags/v1", false),
        ("acme/widgets", "refs/heads/user/me/you/wip", false),
        ("acme/widgets", "agent/x", false),
        ("acme/site", "refs/tags/v1", false),
        ("acme/other", "refs/heads/main", false),
        ("tools", "refs/heads/trash", false),
    ] {
        assert!(check(repository, name, is_delete).contains("may not be pushed"), "{name}");
    }
    assert_eq!(
        check("acme/widgets", "refs/heads/main", false),
        "main of acme/widgets may not be pushed (allowed: trash, agent/*, user/*/wip, refs/tags/v*); to allow it, add it to refs \
         under git.push of egress[0] git.test"
    );
    assert!(check("acme/widgets", "refs/heads/agent/x", true).contains("delete: true"));
    assert!(policy.rules()[0].check_push_options("acme/widgets").expect_err("options").contains("options: true"));
    assert!(policy.rules()[0].check_push_options("acme/site").is_ok());
}

#[test]
fn the_canonical_form_means_the_same_and_order_says_nothing() {
    let one = policy(RULE);
    let again = policy(&one.canonical_json());
    assert_eq!((again.id(), again.rules()), (one.id(), one.rules()));
    let other = RULE
        .replace("[\"acme/*\", tools,", "[tools, \"acme/*\",")
        .replace("\"agent/*\", \"refs/tags/v*\"", "\"refs/tags/v*\", \"refs/heads/agent/*\"");
    assert_eq!(policy(&other).id(), one.id());
    assert_ne!(policy(&RULE.replace("delete: true", "delete: false")).id(), one.id());
    assert_eq!(
        one.rules()[0].git().map(ToString::to_string).as_deref(),
        Some(
            "fetch acme/*, team/*/public, tools; push to acme/*: trash, and delete; push to acme/site: *, with options; \
             push to acme/widgets: agent/*, user/*/wip, refs/tags/v*"
        )
    );
}

#[test]
fn what_would_mislead_is_refused_with_a_way_out() {
    for (text, expected) in [
        ("git: {}", "neither fetch nor push"),
        ("git: {fetch: []}", "the list is empty"),
        ("git: {fetch: [/a/b]}", "write \"a/b\""),
        ("git: {fetch: ['https://a.test/a/b.git']}", "write \"a/b.git\""),
        ("git: {fetch: ['a/v*/c']}", "inside the segment"),
        ("git: {fetch: ['a/**']}", "inside the segment"),
        ("git: {fetch: [a/../b]}", ". or .. segment"),
        ("git: {push: [{repository: a/b}]}", "the key \"refs\" is missing"),
        ("git: {push: [{refs: [main]}]}", "the key \"repository\" is missing"),
        ("git: {push: [{repository: a/b, refs: [main], branches: [x]}]}", "did you mean \"refs\""),
        ("git: {push: [{repository: a/b, refs: ['a b']}]}", "characters"),
        ("git: {push: [{repository: a/b, refs: ['/main']}]}", "a part of it is empty"),
        ("git: {push: [{repository: a/b, refs: ['a..b']}]}", "holds .."),
        ("git: {push: [{repository: a/b, refs: ['**']}]}", "inside the segment"),
        ("git: {fetch: ['*']}, methods: [GET]", "add paths, or remove methods"),
        ("git: {fetch: ['*']}, protocol: tcp, scan: false", "git cannot be checked"),
    ] {
        assert!(errors(text).contains(expected), "{text}: {}", errors(text));
    }
}

proptest! {
    #[test]
    fn what_git_is_asked_for_never_panics(method in "[A-Z]{1,5}", path in "/[ -~é]{0,40}") {
        let _ = GitRequest::of(&method, &path);
        let _ = GitRequest::of(&method, &format!("{path}/git-receive-pack"));
    }
}
