//! Wires the rooms: the only place that knows kernel, proxy, recorder and sandbox at once.
//!
//! Called by `cli`. A [`Session`] is one attachment from its opening receipt to its closing one. The order of its steps
//! is the order of the promises: programs are attached (closed: they know no listener yet), listeners are bound and
//! made known, the chain is opened, the agent starts, capabilities are dropped, and only then is the first byte read.

mod addresses;
mod browsers;
mod capsule;
mod checked;
mod denials;
mod explicit;
mod flows;
pub mod folders;
mod inspection;
mod joints;
mod left;
mod listeners;
pub mod lock;
mod made;
mod named;
pub mod probe;
mod refusals;
pub mod runtime;
pub mod server;
mod serving;
mod session;
pub mod state;
pub mod tls;
mod trust;
mod watch;
mod withheld;

pub use checked::{UrlReader, wrong_files};
pub use explicit::{Alone, Bound, Doors};
pub use flows::kernel_code;
pub use inspection::Environment;
pub use left::Left;
pub use listeners::{Namespace, loopback_is_up};
pub use made::{Folder, make_folder, make_folders};
pub use serving::{Ended, Leave, Serving};
pub use session::{Recorded, Session, SessionConfig, SessionError};
pub use trust::{TrustFiles, TrustFolder};
pub use watch::count_reload;
pub use withheld::Withheld;
