//! What the agent is told for a query: a pure function of the query, the rules and the pool.
//!
//! Called by `server` for every message, UDP or TCP. It promises a reply with the id and question of the query, or
//! none for what must not be answered; a verdict for the receipt in every case; and that a name which the rules do
//! not allow, or that says what must not leave, is neither looked up nor given an address.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, RecordType};

use crate::flow::{Found, Host, Reason, Verdict};
use crate::proxy::dns::message::{Extended, Question, Unreadable};
use crate::proxy::dns::pool::Pool;

/// Addresses in one real answer; with them every reply fits the 512 octets that any client takes.
const MAX_ADDRS: usize = 8;

/// What addresses the agent is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Addresses of the pool: no query leaves, and every connection has one name.
    Synthetic,
    /// The real ones, for programs that check or pass on the address.
    Real,
}

/// What the resolver needs to know of the policy.
pub trait NameRules: Send + Sync {
    /// True when some rule allows this name (canonical: lower case, no trailing dot), whatever the port.
    fn allowed(&self, name: &str) -> bool;
    /// What addresses to give.
    fn mode(&self) -> Mode;
    /// Reads a name that is allowed: whoever is asked for it learns what it says.
    fn read(&self, _name: &str) -> NameRead {
        NameRead::Clean(Vec::new())
    }
    /// True while a name cannot be told of in evidence, which it can once [`Self::ready`].
    fn is_early(&self, _host: &Host) -> bool {
        false
    }
    /// Waits until names can be read.
    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// What the reading of a name came to.
#[derive(Debug)]
pub enum NameRead {
    /// It may be asked for; this is to be noted.
    Clean(Vec<Found>),
    /// It may not.
    Stopped(Verdict),
    /// It cannot be told before [`NameRules::ready`].
    NotYet,
}

/// A query that has been decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The message to send; none for what must not be answered.
    pub reply: Option<Vec<u8>>,
    /// The name asked for, if it could be read and is one that hosts have.
    pub name: Option<Host>,
    /// The type asked for: `A`, `HTTPS`, `TYPE64`; `-` if it could not be read.
    pub qtype: String,
    /// What was decided, with the reason.
    pub verdict: Verdict,
}

impl Answered {
    /// The same with what was found in the name.
    fn noting(mut self, found: Vec<Found>) -> Self {
        self.verdict = self.verdict.with(found);
        self
    }

    /// The stable reason of the verdict.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.verdict.reason
    }

    /// For what could not be read.
    pub(super) fn malformed(reply: Option<Vec<u8>>, detail: &'static str) -> Self {
        let verdict = Verdict::block(Reason::DnsMalformed, detail);
        Self { reply, name: None, qtype: "-".to_owned(), verdict }
    }
}

/// What [`answer`] comes to.
#[derive(Debug)]
pub enum Outcome {
    /// Decided.
    Done(Answered),
    /// Allowed, but the real addresses have to be found first.
    NeedsLookup(Pending),
    /// Allowed, but it cannot be read yet; what is answered if that stays so.
    NotYet(Answered),
}

impl Outcome {
    /// The name asked for, if it could be read.
    pub(super) fn host(&self) -> Option<&Host> {
        match self {
            Self::Done(answered) | Self::NotYet(answered) => answered.name.as_ref(),
            Self::NeedsLookup(pending) => Some(&pending.host),
        }
    }
}

/// An allowed query that waits for real addresses.
#[derive(Debug)]
pub struct Pending {
    question: Question,
    host: Host,
    v6: bool,
    noted: Vec<Found>,
}

impl Pending {
    /// The canonical name to look up.
    #[must_use]
    pub fn name(&self) -> &str {
        self.host.name().unwrap_or_default()
    }

    /// What the receipt says that is written before the name is looked up: the question was let out.
    #[must_use]
    pub fn announced(&self) -> Answered {
        Answered {
            reply: None,
            name: Some(self.host.clone()),
            qtype: self.question.kind_text(),
            verdict: Verdict::allow(Reason::DnsAnswered, None).with(self.noted.clone()),
        }
    }

    /// Ends the wait before anything was looked up.
    #[must_use]
    pub fn refuse(self, reason: Reason) -> Answered {
        fail(&self.question, Some(self.host), reason).noting(self.noted)
    }

    /// The addresses among `found` that the reply will hold: those of the family asked for, eight at most.
    #[must_use]
    pub fn pick(&self, found: &[IpAddr]) -> Vec<IpAddr> {
        found.iter().map(|ip| ip.to_canonical()).filter(|ip| ip.is_ipv6() == self.v6).take(MAX_ADDRS).collect()
    }

    /// Ends the wait: with the addresses found, or with the reason why there are none.
    #[must_use]
    pub fn finish(self, found: Result<&[IpAddr], Reason>) -> Answered {
        match found {
            Ok(found) => {
                let records: Vec<RData> = self.pick(found).into_iter().map(address).collect();
                let reply = self.question.answer(records);
                done(&self.question, Some(self.host), reply, Verdict::allow(Reason::DnsAnswered, None))
            }
            Err(reason) => Answered {
                // The question has left, so it must not be called blocked.
                verdict: Verdict::let_out(reason, "looked up, but no address was found"),
                ..self.refuse(reason)
            },
        }
    }
}

/// Decides one query.
#[must_use]
pub fn answer(query: &[u8], rules: &dyn NameRules, pool: &Pool) -> Outcome {
    let question = match Question::read(query) {
        Ok(question) => question,
        Err(Unreadable { reply, detail }) => return Outcome::Done(Answered::malformed(reply, detail)),
    };
    if !question.edns_version_known() {
        let reply = question.refusal(ResponseCode::BADVERS, Extended::Other, Reason::DnsMalformed);
        let verdict = Verdict::block(Reason::DnsMalformed, "a version of EDNS that does not exist");
        return Outcome::Done(done(&question, question.host(), reply, verdict));
    }
    let Some(host) = question.host().filter(|_| question.is_internet()) else {
        return Outcome::Done(refuse(&question, None, "not the name of a host in class IN"));
    };
    let name = host.name().unwrap_or_default();
    let kind = question.kind();

    // Neither asked of anybody nor a matter of policy.
    if Host::is_localhost(name) {
        let records = match kind {
            RecordType::A => Some(address(Ipv4Addr::LOCALHOST.into())),
            RecordType::AAAA => Some(address(Ipv6Addr::LOCALHOST.into())),
            _ => None,
        };
        return Outcome::Done(give(&question, host, records));
    }
    if kind == RecordType::PTR && is_reverse(name) {
        let target = reverse(name)
            .and_then(|addr| if addr.is_loopback() { Some("localhost".into()) } else { pool.lookup(addr) });
        return Outcome::Done(
            match target.and_then(|target| Name::from_labels(target.split('.').map(str::as_bytes)).ok()) {
                Some(target) => give(&question, host, [RData::PTR(PTR(target))]),
                None => refuse(&question, Some(host), "no name was given out for this address"),
            },
        );
    }
    if !rules.allowed(name) {
        let detail = format!("{host} is not allowed");
        return Outcome::Done(refuse(&question, Some(host), detail));
    }
    match rules.read(name) {
        NameRead::Clean(found) => resolve(question, host, rules.mode(), pool, found),
        NameRead::NotYet => Outcome::NotYet(fail(&question, Some(host), Reason::ScannerUnavailable)),
        NameRead::Stopped(verdict) => Outcome::Done(match verdict.reason {
            Reason::ScannerUnavailable => {
                Answered { verdict, ..fail(&question, Some(host), Reason::ScannerUnavailable) }
            }
            reason => {
                let reply = question.refusal(ResponseCode::Refused, Extended::Blocked, reason);
                done(&question, Some(host), reply, verdict)
            }
        }),
    }
}

/// Answers for a name that may be asked for.
fn resolve(question: Question, host: Host, mode: Mode, pool: &Pool, noted: Vec<Found>) -> Outcome {
    let name = host.name().unwrap_or_default();
    let v6 = match question.kind() {
        RecordType::A => false,
        RecordType::AAAA => true,
        // Everything else has no records. HTTPS and SVCB above all: they carry other addresses and the keys for
        // Encrypted ClientHello, which would hide the name that policy goes by.
        _ => return Outcome::Done(give(&question, host, []).noting(noted)),
    };
    match mode {
        Mode::Real => Outcome::NeedsLookup(Pending { question, host, v6, noted }),
        Mode::Synthetic => {
            let answered = match pool.assign(name) {
                Some(synthetic) => {
                    let addr: IpAddr = if v6 { synthetic.v6.into() } else { synthetic.v4.into() };
                    give(&question, host, [address(addr)])
                }
                None => fail(&question, Some(host), Reason::DnsExhausted),
            };
            Outcome::Done(answered.noting(noted))
        }
    }
}

/// "The server failed", with the reason, for a query whose real answer may not go out; none for what must not be
/// answered.
#[must_use]
pub fn servfail(query: &[u8], reason: Reason) -> Option<Vec<u8>> {
    match Question::read(query) {
        Ok(question) => Some(question.refusal(ResponseCode::ServFail, Extended::Other, reason)),
        Err(Unreadable { reply, .. }) => reply,
    }
}

fn done(question: &Question, name: Option<Host>, reply: Vec<u8>, verdict: Verdict) -> Answered {
    Answered { reply: Some(reply), name, qtype: question.kind_text(), verdict }
}

fn give(question: &Question, host: Host, records: impl IntoIterator<Item = RData>) -> Answered {
    done(question, Some(host), question.answer(records), Verdict::allow(Reason::DnsAnswered, None))
}

fn refuse(question: &Question, host: Option<Host>, detail: impl Into<String>) -> Answered {
    let reply = question.refusal(ResponseCode::Refused, Extended::Blocked, Reason::DnsDenied);
    done(question, host, reply, Verdict::block(Reason::DnsDenied, detail))
}

fn fail(question: &Question, host: Option<Host>, reason: Reason) -> Answered {
    let reply = question.refusal(ResponseCode::ServFail, Extended::Other, reason);
    done(question, host, reply, Verdict::block(reason, "allowed, but no address could be given"))
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(v4) => RData::A(A(v4)),
        IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
    }
}

fn is_reverse(name: &str) -> bool {
    name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa")
}

/// The whole address that a reverse name stands for (RFC 1035 §3.5, RFC 3596 §2.5); none for parts of one.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut bits = 0u32;
        let mut count = 0u32;
        for label in octets.split('.') {
            let octet: u8 = label.parse().ok()?;
            // One spelling per address: "01" and "+1" parse as well.
            if count == 4 || octet.to_string() != label {
                return None;
            }
            bits |= u32::from(octet) << (8 * count);
            count += 1;
        }
        return (count == 4).then(|| Ipv4Addr::from_bits(bits).into());
    }
    let nibbles = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0u128;
    let mut count = 0u32;
    for label in nibbles.split('.') {
        let &[digit] = label.as_bytes() else { return None };
        if count == 32 {
            return None;
        }
        bits |= u128::from(char::from(digit).to_digit(16)?) << (4 * count);
        count += 1;
    }
    (count == 32).then(|| Ipv6Addr::from_bits(bits).into())
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
