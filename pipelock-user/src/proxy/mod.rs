//! Faces the agent: the transparent listener, the resolver it must use, and the denials it reads.
//!
//! Started by `app`. It promises that nothing is forwarded without a permit, that every accepted flow is reported when
//! its connection ends however it ends, and that a request's receipt is written before its answer is released.

mod accept;
mod api;
mod aside;
mod ask;
mod counts;
mod detect;
pub mod dns;
mod fetch;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod git;
mod http;
mod identity;
mod idle;
mod intercept;
mod listen;
mod meter;
mod prefixed;
mod presence;
mod pump;
mod ration;
mod rescue;
mod scratch;
mod shares;
mod silent;
mod ssh;
mod state;
#[cfg(test)]
mod surfaces_tests;
mod through;
mod tls;
mod tunnel;
mod ws;

pub use ask::{Secret, SecretError, Webhook};
pub(crate) use counts::{COUNTS, Transport as KnockedBy};
pub use http::{Gate, Upstream, refused as refused_head, serve_explicit, serve_reverse};
pub use identity::{Identities, TokensError};
pub use listen::serve;
pub use state::{Origins, Proxy, Rules};
pub use tls::{
    CaError, CertificateAuthority, Interception, SYSTEM_BUNDLES, Trust, hop_tls, server_of, wrong_files_for_tls,
};
