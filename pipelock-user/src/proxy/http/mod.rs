//! HTTP/1.1 and HTTP/2, in the clear and inside TLS that was opened: strict framing, one authority, method and path by
//! policy, a receipt for each request.

mod afterword;
mod arriving;
mod authority;
mod call;
mod consent;
mod converse;
mod doors;
mod errand;
mod explicit;
mod filing;
mod framing;
mod gate;
mod guarded;
mod headers;
mod http2;
mod inside;
mod outgoing;
mod pace;
mod passing;
#[cfg(test)]
mod peers_tests;
pub(super) mod place;
pub(in crate::proxy) mod pool;
mod pushing;
mod reading;
mod reverse;
mod send;
mod serve;
mod shared;
mod socket;
mod upgrade;
mod upstream;
mod witness;
#[cfg(test)]
pub(in crate::proxy) mod world;
#[cfg(test)]
pub(in crate::proxy) mod world_evidence;

pub(super) use errand::{Answer, Errand};
pub use explicit::serve_explicit;
pub use framing::refused;
#[cfg(any(test, fuzzing))]
pub(super) use framing::through;
pub use gate::Gate;
pub use reverse::{Upstream, serve_reverse};
pub(super) use serve::{Session, serve, serve_http2};
