//! HTTP/1.1 in the clear: one authority, method and path by policy, a receipt for each request.

mod authority;
mod headers;
mod serve;
mod upstream;

pub(super) use serve::serve;
