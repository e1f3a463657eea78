//! Faces the agent: the transparent listener, the resolver it must use, and the denials it reads.
//!
//! Started by `app`. It promises that nothing is forwarded without a permit, that every accepted flow is reported when
//! its connection ends however it ends, and that a request's receipt is written before its answer is released.

mod detect;
pub mod dns;
mod http;
mod listen;
mod prefixed;
mod pump;
mod rescue;
mod tls;

pub use http::serve_explicit;
pub use listen::{Origins, Proxy, Rules, serve};
