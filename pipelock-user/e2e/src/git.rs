//! A git server: what makes a site of Node.js hand each request to git's own CGI program.
//!
//! Used with [`crate::TlsServer::node`]; the first argument is the folder with the repositories.

/// Defines `handler`.
pub const GIT_SITE: &str = include_str!("../agents/git.js");
