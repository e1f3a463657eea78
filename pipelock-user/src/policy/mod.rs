//! The egress policy: from the text of a file to typed rules, and from there to decisions.
//!
//! Used by inspect, net, proxy, kernel, recorder, app and cli. It promises that a [`Policy`] is valid and never changes,
//! that a file with a mistake is refused with every mistake at once, that what no rule names is denied, and that no
//! text, however hostile, makes it panic or grow beyond a small multiple of the file.
//!
//! `raw` + `position` read values and places, `read` walks them by the table in `keys`, `parse` + `rule` build the types,
//! `decide` answers, `id` names the policy by its meaning, `schema` tells editors, `warn` tells people.

mod ask;
mod content;
mod decide;
mod deny;
mod destination;
mod error;
mod git;
mod id;
mod keys;
mod metrics;
mod near;
mod overrides;
mod parse;
mod path;
mod position;
mod rates;
mod raw;
mod read;
mod rule;
mod schema;
mod ssh;
mod tls;
mod types;
mod upstream;
mod warn;

#[cfg(test)]
mod tests;

pub use ask::{Ask, Webhook};
pub use content::{Dlp, FindingAction, Responses};
pub use deny::Denied;
pub use destination::Destination;
pub use error::{PolicyError, PolicyErrors};
pub use git::{Git, GitRequest, unsound_ref};
pub use metrics::Metrics;
pub use parse::OWN_DOORS;
pub use path::{PathError, PathPattern, normalise_path};
pub use rates::{Per, Rates, RatesOfAll};
pub use schema::json_schema;
pub use tls::{KeyPair, Tls};
pub use types::{Budgets, DnsMode, Limits, Listen, Policy, PortRange, Protocol, Rule, WebSocket};
pub use upstream::{CredentialsIn, HopProtocol, NextHop};
