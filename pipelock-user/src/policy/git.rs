//! `git`: which repositories may be fetched, and which branches and tags pushed, over smart HTTP.
//!
//! Read by `rule`; asked by `decide` for every request of such a rule, and by the proxy for what a push would change. It
//! promises that a request which a server could take for a push is one of the three that are known, or is refused, and that
//! repository and reference are compared exactly (gitprotocol-http(5)).
//!
//! | request | is |
//! |---|---|
//! | `GET R/info/refs?service=git-upload-pack`, `POST R/git-upload-pack` | a fetch of R |
//! | `GET R/info/refs?service=git-receive-pack` | the beginning of a push to R |
//! | `POST R/git-receive-pack` | a push to R; what it changes is in its body |
//!
//! R is the path in its normal form, without the slash in front and `.git` behind.

use std::fmt;

use serde_json::{Value, json};

use super::decide::shown;
use super::destination::Wrong;
use super::error::{Report, quote};
use super::keys::{Default, Section, Shape, key, tried_as};
use super::path::{PathPattern, normalise_path};
use super::read::{Field, Reader};
use super::types::Rule;
use crate::flow::{Reason, Verdict};

/// What branches are called in full.
const BRANCHES: &str = "refs/heads/";
/// How often a path is decoded to see what it says.
const MAX_ROUNDS: usize = 4;
/// Patterns that a message lists.
const MAX_SHOWN: usize = 8;

/// `egress[].git`.
pub(super) static GIT: Section = Section {
    name: "egress[].git",
    keys: &[
        tried_as(
            key(
                "fetch",
                Shape::FilledList(&Shape::Repository),
                Default::Absent,
                "Repositories that may be cloned and fetched, as patterns of their path: acme/widgets, acme/* (everything below acme), * (all). Left out: none.",
            ),
            &["clone", "pull", "read"],
        ),
        tried_as(
            key(
                "push",
                Shape::FilledList(&Shape::Section(&PUSH)),
                Default::Absent,
                "Repositories that may be pushed to, and what may be changed there. Left out: none.",
            ),
            &["write"],
        ),
    ],
};

/// `egress[].git.push[]`.
pub(super) static PUSH: Section = Section {
    name: "egress[].git.push[]",
    keys: &[
        tried_as(
            key(
                "repository",
                Shape::Repository,
                Default::Required,
                "The repository, as a pattern of its path: acme/widgets, acme/*, *.",
            ),
            &["repo", "repositories"],
        ),
        tried_as(
            key(
                "refs",
                Shape::FilledList(&Shape::Ref),
                Default::Required,
                "Branches (main, agent/*) and other references (refs/tags/v*) that may be created and changed. * at the end stands for whatever follows, and between slashes for one part of the name. Whether a change may drop commits (a forced push) is the server's to say.",
            ),
            &["branches", "branch", "ref"],
        ),
        tried_as(key("delete", Shape::Bool, Default::Bool(false), "Whether they may be deleted."), &["allow_delete"]),
        tried_as(
            key(
                "options",
                Shape::Bool,
                Default::Bool(false),
                "Whether a push may carry options (git push -o), by which some servers do more than the references say, such as merging.",
            ),
            &["push_options"],
        ),
    ],
};

/// What git may do under one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Git {
    fetch: Vec<PathPattern>,
    push: Vec<Push>,
}

/// One entry under `push`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Push {
    repository: PathPattern,
    refs: Vec<PathPattern>,
    delete: bool,
    options: bool,
}

/// A request of git's own, and the repository that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitRequest {
    /// A clone or fetch.
    Fetch(String),
    /// The beginning of a push, which changes nothing yet.
    Announce(String),
    /// A push.
    Push(String),
    /// It could be taken for one of these; why it is not.
    Unclear(&'static str),
}

impl GitRequest {
    /// What git asks with this request; none when it is not git's. `path` is the path as it was sent, with the query; one
    /// without a normal form is nobody's.
    #[must_use]
    pub fn of(method: &str, path: &str) -> Option<Self> {
        let normal = normalise_path(path).ok()?;
        let query = path.split_once('?').map(|(_, query)| query);
        let repository = |end: &str| {
            let path = normal.strip_suffix(end)?;
            let name = path.strip_prefix('/').unwrap_or(path);
            Some(name.strip_suffix(".git").unwrap_or(name).to_owned())
        };
        if let Some(repository) = repository("/info/refs") {
            if could_push(&repository) {
                return Some(Self::Unclear("a server could take the request for a push"));
            }
            return match (method, query) {
                (_, None) => None,
                ("GET", Some("service=git-upload-pack")) => Some(Self::Fetch(repository)),
                ("GET", Some("service=git-receive-pack")) => Some(Self::Announce(repository)),
                _ => Some(Self::Unclear("info/refs is asked for with one service, which is git's, and nothing else")),
            };
        }
        match (method, query, repository("/git-upload-pack"), repository("/git-receive-pack")) {
            ("POST", None, Some(repository), _) => Some(Self::Fetch(repository)),
            ("POST", None, _, Some(repository)) => Some(Self::Push(repository)),
            _ if could_push(&normal) => Some(Self::Unclear("a server could take the request for a push")),
            _ => None,
        }
    }
}

/// True when some server may read `git-receive-pack` in the path, which others read in another way: in other letters, with
/// parameters or a slash behind it, encoded more than once.
fn could_push(normal: &str) -> bool {
    let mut text = normal.to_ascii_lowercase();
    for _ in 0..MAX_ROUNDS {
        if text.contains("git-receive-pack") {
            return true;
        }
        let decoded = decoded(&text);
        if decoded == text {
            return false;
        }
        text = decoded;
    }
    // Nobody encodes a path so often who does not mean to hide something.
    true
}

/// The text with its escapes taken for characters, once.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_at_checked(2).and_then(|(hex, rest)| Some((u8::from_str_radix(hex, 16).ok()?, rest))) {
            Some((byte, rest)) => {
                decoded.push(char::from(byte).to_ascii_lowercase());
                decoded.push_str(rest);
            }
            None => {
                decoded.push('%');
                decoded.push_str(part);
            }
        }
    }
    decoded
}

impl Rule {
    /// What git may do; none when the rule does not tell git from others.
    #[must_use]
    pub fn git(&self) -> Option<&Git> {
        self.git.as_ref()
    }

    /// The decision about a request that is git's, or would be one that nothing lists; none when methods and paths decide.
    pub(super) fn check_git(&self, method: &str, path: &str) -> Option<Verdict> {
        let git = self.git.as_ref()?;
        let denied = |detail: String| Some(Verdict::block(Reason::GitDenied, detail));
        let allowed = || Some(Verdict::allow(Reason::PolicyAllow, None));
        let listed = |list: &[PathPattern], name: &str| list.iter().any(|pattern| pattern.lists(name.as_bytes()));
        match GitRequest::of(method, path) {
            Some(GitRequest::Fetch(name)) if listed(&git.fetch, &name) => allowed(),
            Some(GitRequest::Fetch(name)) => denied(format!(
                "{} may not be fetched; to allow it, add it to git.fetch of {}",
                shown(&name),
                self.label()
            )),
            Some(GitRequest::Announce(name) | GitRequest::Push(name)) if git.pushes(&name).next().is_some() => {
                allowed()
            }
            Some(GitRequest::Announce(name) | GitRequest::Push(name)) => denied(format!(
                "{} may not be pushed to; to allow it, add it to git.push of {}",
                shown(&name),
                self.label()
            )),
            Some(GitRequest::Unclear(why)) => denied(why.to_owned()),
            None if self.paths.is_some() => None,
            None => match normalise_path(path) {
                Err(error) if path != "*" => Some(Verdict::block(Reason::RequestMalformed, error.to_string())),
                normal => {
                    let path = normal.unwrap_or_default();
                    let detail = format!("{} is no request of git's, and the rule lists no paths", shown(&path));
                    Some(Verdict::block(Reason::PathDenied, detail))
                }
            },
        }
    }

    /// Whether a push may change a reference of a repository, or delete it.
    ///
    /// # Errors
    /// What is not allowed and what to add, in one line.
    pub fn check_ref(&self, repository: &str, name: &str, is_delete: bool) -> Result<(), String> {
        let entries = || self.git.iter().flat_map(|git| git.pushes(repository));
        let lists = |entry: &&Push| entry.refs.iter().any(|pattern| pattern.lists(name.as_bytes()));
        if entries().filter(lists).any(|entry| entry.delete || !is_delete) {
            return Ok(());
        }
        let (label, repository) = (self.label(), shown(repository));
        let short = shown(name.strip_prefix(BRANCHES).unwrap_or(name));
        Err(match entries().any(|entry| lists(&entry)) {
            true => format!(
                "{short} of {repository} may not be deleted; to allow it, write delete: true beside it under git.push of {label}"
            ),
            false => {
                let verb = if is_delete { "deleted" } else { "pushed" };
                let known: Vec<&str> = entries().flat_map(|entry| &entry.refs).take(MAX_SHOWN).map(short_of).collect();
                format!(
                    "{short} of {repository} may not be {verb} (allowed: {}); to allow it, add it to refs under git.push of {label}",
                    known.join(", ")
                )
            }
        })
    }

    /// Whether a push to a repository may carry options.
    ///
    /// # Errors
    /// As [`check_ref`](Self::check_ref).
    pub fn check_push_options(&self, repository: &str) -> Result<(), String> {
        if self.git.iter().flat_map(|git| git.pushes(repository)).any(|entry| entry.options) {
            return Ok(());
        }
        let label = self.label();
        Err(format!(
            "a push to {} may not carry options (push -o); to allow it, write options: true under git.push of {label}",
            shown(repository)
        ))
    }
}

/// A pattern of references as people write it.
fn short_of(pattern: &PathPattern) -> &str {
    pattern.as_str().strip_prefix(BRANCHES).unwrap_or(pattern.as_str())
}

impl Git {
    /// What a rule says under `git`; none when it says nothing.
    pub(super) fn read(report: &mut Report, rule: &Reader<'_>) -> Option<Self> {
        let field = rule.get("git")?;
        let reader = rule.section(report, "git");
        let mut fetch: Vec<PathPattern> =
            reader.items(report, "fetch").iter().filter_map(|item| pattern(report, item, repository)).collect();
        let mut push: Vec<Push> =
            reader.items(report, "push").iter().filter_map(|item| Push::read(report, item)).collect();
        if reader.get("fetch").is_none() && reader.get("push").is_none() {
            field.wrong(report, "git lists neither fetch nor push", "list what may be fetched: fetch: [\"*\"]");
        }
        // Their order says nothing.
        sort(&mut fetch);
        push.sort_by_cached_key(|entry| entry.canonical().to_string());
        push.dedup();
        Some(Self { fetch, push })
    }

    /// The entries for a repository.
    fn pushes(&self, repository: &str) -> impl Iterator<Item = &Push> {
        self.push.iter().filter(move |entry| entry.repository.lists(repository.as_bytes()))
    }

    pub(super) fn canonical(&self) -> Value {
        let mut value = serde_json::Map::new();
        if !self.fetch.is_empty() {
            value.insert("fetch".to_owned(), texts(&self.fetch).into());
        }
        if !self.push.is_empty() {
            value.insert("push".to_owned(), self.push.iter().map(Push::canonical).collect::<Vec<_>>().into());
        }
        value.into()
    }
}

impl fmt::Display for Git {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |patterns: &[PathPattern]| patterns.iter().map(short_of).collect::<Vec<_>>().join(", ");
        write!(f, "fetch {}", if self.fetch.is_empty() { "nothing".to_owned() } else { list(&self.fetch) })?;
        for entry in &self.push {
            write!(f, "; push to {}: {}", entry.repository.as_str(), list(&entry.refs))?;
            f.write_str(if entry.delete { ", and delete" } else { "" })?;
            f.write_str(if entry.options { ", with options" } else { "" })?;
        }
        f.write_str(if self.push.is_empty() { "; push to nothing" } else { "" })
    }
}

impl Push {
    fn read(report: &mut Report, field: &Field<'_>) -> Option<Self> {
        let reader = Reader::open(report, field, &PUSH)?;
        let to = reader.get("repository").and_then(|field| pattern(report, &field, repository));
        let mut refs: Vec<PathPattern> =
            reader.items(report, "refs").iter().filter_map(|item| pattern(report, item, reference)).collect();
        sort(&mut refs);
        let (delete, options) = (reader.bool(report, "delete"), reader.bool(report, "options"));
        Some(Self { repository: to?, refs, delete, options })
    }

    fn canonical(&self) -> Value {
        json!({
            "repository": self.repository.as_str(),
            "refs": texts(&self.refs),
            "delete": self.delete,
            "options": self.options,
        })
    }
}

fn texts(patterns: &[PathPattern]) -> Vec<&str> {
    patterns.iter().map(PathPattern::as_str).collect()
}

fn sort(patterns: &mut Vec<PathPattern>) {
    patterns.sort_by(|left, right| left.as_str().cmp(right.as_str()));
    patterns.dedup();
}

fn pattern(
    report: &mut Report,
    field: &Field<'_>,
    parse: fn(&str) -> Result<PathPattern, Wrong>,
) -> Option<PathPattern> {
    let text = field.text(report, "a name like \"acme/widgets\"")?;
    match parse(text) {
        Ok(pattern) => Some(pattern),
        Err((message, help)) => {
            field.wrong(report, message, help);
            None
        }
    }
}

/// A pattern of repositories, in the form in which the paths of requests are compared.
fn repository(text: &str) -> Result<PathPattern, Wrong> {
    let path = text.split_once("://").map_or(text, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.trim_matches('/');
    if path != text || path.is_empty() {
        let message = format!("{} is not the path of a repository", quote(text));
        return Err((message, format!("write {}", quote(if path.is_empty() { "acme/widgets" } else { path }))));
    }
    let normal = normalise_path(&format!("/{path}")).map_err(|error| {
        (format!("{} can match nothing: {error}", quote(text)), "write the path as the server has it".to_owned())
    })?;
    let name = normal.get(1..).unwrap_or_default();
    PathPattern::of_name(name.strip_suffix(".git").unwrap_or(name))
}

/// A pattern of references: what does not begin with `refs/` is a branch.
fn reference(text: &str) -> Result<PathPattern, Wrong> {
    let full = if text.starts_with("refs/") { text.to_owned() } else { format!("{BRANCHES}{text}") };
    // A * stands for a part of a name, so that what is around it can be looked at as if it were there.
    if let Some(why) = unsound_ref(&full.replace('*', "x")) {
        return Err((
            format!("{} can match nothing: {why}", quote(text)),
            "write it like agent/* or refs/tags/v1".to_owned(),
        ));
    }
    PathPattern::of_name(&full)
}

/// Why git takes no reference with this name (git-check-ref-format(1)), so that no two programs read it in two ways; none when
/// it does.
#[must_use]
pub fn unsound_ref(name: &str) -> Option<&'static str> {
    let odd = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    match () {
        () if !name.starts_with("refs/") => Some("it does not begin with refs/"),
        () if name.contains(odd) => Some("it holds characters that names of references do not have"),
        () if name.split('/').any(part) => Some("a part of it is empty, begins with a dot or ends in .lock"),
        () if name.contains("..") || name.contains("@{") || name.ends_with('.') => {
            Some("it holds .. or @{, or ends in a dot")
        }
        () => None,
    }
}

#[cfg(test)]
#[path = "git_tests.rs"]
mod tests;
