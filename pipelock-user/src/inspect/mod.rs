//! Policy and scanner together: what may go out, what may come in, and the right to act on it.
//!
//! Called by the proxy. Once policy has said yes, `head` reads URL and headers of what is to be scanned, and only then is a
//! [`Permit`] asked for, which the net room demands before it opens a connection; [`Reader`]s then read the bodies as they
//! stream by. It promises that no permit exists without an allowing verdict for exactly that host and port, and that what
//! cannot be read is stopped.
//!
//! `scanners` loads the engine, `clients` remembers who sent what, `terms` knows what the policy does about findings.

mod clients;
mod counts;
mod cuts;
mod encoded;
mod events;
mod grpc;
mod head;
mod judging;
mod lanes;
mod leaves;
mod messages;
#[cfg(test)]
mod names_tests;
mod permit;
mod pieces;
mod reader;
mod scanners;
mod terms;
mod whole;

pub(crate) use counts::COUNTS;
pub use encoded::Encoded;
pub use events::Form;
pub(crate) use head::is_chosen;
pub(crate) use leaves::{Told, tell};
pub use messages::Messages;
pub use permit::Permit;
pub use reader::Reader;
#[cfg(test)]
pub(crate) use scanners::KNOWN_FOR_TESTS;
pub use scanners::{Inspection, InspectionError, Scanners};
pub use terms::{Side, Terms};

use crate::flow::{Host, Verdict};

/// The permit for one connection to `host:port`, if `verdict` allows it.
///
/// # Errors
/// The verdict itself when it blocks, so that the caller has the reason at hand.
pub fn permit_flow(verdict: &Verdict, host: Host, port: u16) -> Result<Permit, Verdict> {
    if verdict.is_block() { Err(verdict.clone()) } else { Ok(Permit::mint(host, port, verdict.rule.clone())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Reason;

    #[test]
    fn only_an_allowing_verdict_yields_a_permit() {
        let host = Host::parse("api.example.com").expect("a name");
        let allow = Verdict::allow(Reason::PolicyAllow, Some("egress[0] api.example.com".into()));
        let permit = permit_flow(&allow, host.clone(), 443).expect("allowed");
        assert_eq!(
            (permit.host(), permit.port(), permit.rule()),
            (&host, 443, Some("egress[0] api.example.com")),
            "the permit is for what was decided"
        );

        let block = Verdict::block(Reason::HostDenied, "no rule");
        assert_eq!(permit_flow(&block, host, 443).map(|_| ()), Err(block));
    }
}
