//! git's protocol inside smart HTTP, as far as it has to be read: what a push would change, and how git is told no.
//!
//! Used by `http`. It does no reading and writing of its own: bytes in, answers out.

pub(super) mod push;
pub(super) mod report;

use http::{Request, Uri};

use crate::policy::GitRequest;

/// The path of a request as it was sent, with the query; empty where there was none.
pub(super) fn path_of(uri: &Uri) -> &str {
    match uri.path_and_query() {
        Some(both) if both.query().is_some() => both.as_str(),
        _ => uri.path(),
    }
}

/// What git asks with a request; none when it is not git's.
pub(super) fn asked<B>(request: &Request<B>) -> Option<GitRequest> {
    GitRequest::of(request.method().as_str(), path_of(request.uri()))
}
