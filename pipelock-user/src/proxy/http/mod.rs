//! HTTP/1.1 in the clear: strict framing, one authority, method and path by policy, a receipt for each request.

mod authority;
mod converse;
mod explicit;
mod framing;
mod guarded;
mod headers;
mod serve;
mod upstream;
#[cfg(test)]
mod world;

pub use explicit::serve_explicit;
pub(super) use serve::serve;
