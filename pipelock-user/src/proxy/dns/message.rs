//! DNS messages on the wire: reading a query strictly, writing a reply.
//!
//! Used by `answer` only. It promises that no input panics or costs more memory than its own length, that a reply
//! carries the id and the question exactly as they came (the case of the letters too, draft-vixie-dnsext-dns0x20),
//! and that nothing that is itself a reply is ever answered. Formats: RFC 1035, RFC 6891 (EDNS), RFC 8914 (extended
//! errors).

use hickory_proto::op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::flow::{Host, Reason};

/// Longest query that is read, in octets; a query is a name and a few options.
pub(super) const MAX_QUERY: usize = 4096;
/// Payload size announced with EDNS, in octets: never fragmented (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
/// How long an answer may be kept, in seconds.
const TTL: u32 = 60;
/// Length of the header, in octets.
const HEADER: usize = 12;
/// OPT, and perhaps a signature; nobody sends more with a query.
const MAX_ADDITIONALS: u16 = 4;
/// Option code of extended errors (RFC 8914 §2).
const EDE: u16 = 15;

/// Extended error codes (RFC 8914 §4).
#[derive(Clone, Copy)]
pub(super) enum Extended {
    /// 0: the text says it.
    Other = 0,
    /// 15: blocked by whoever runs the resolver.
    Blocked = 15,
}

/// A query that cannot be understood.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// What to send; none for what must not be answered.
    pub(super) reply: Option<Vec<u8>>,
    /// What is wrong with it.
    pub(super) detail: &'static str,
}

/// What the client said about itself with EDNS.
#[derive(Clone, Copy, Debug)]
struct Asked {
    version: u8,
    dnssec_ok: bool,
}

/// A well-formed query with its one question.
#[derive(Debug)]
pub(super) struct Question {
    header: Header,
    query: Query,
    edns: Option<Asked>,
}

impl Question {
    /// Reads a query.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let &[id_high, id_low, flags, ..] = bytes else {
            return Err(Unreadable { reply: None, detail: "too short to hold an id and a direction" });
        };
        // Answering an answer is how two servers end up talking to each other for ever.
        if flags & 0x80 != 0 {
            return Err(Unreadable { reply: None, detail: "a response, not a query" });
        }
        let refuse = |code: ResponseCode, detail| {
            let reply = bare([id_high, id_low], flags, code);
            Unreadable { reply: Some(reply), detail }
        };
        if flags & 0x78 != 0 {
            return Err(refuse(ResponseCode::NotImp, "not a standard query"));
        }
        if bytes.len() > MAX_QUERY {
            return Err(refuse(ResponseCode::FormErr, "longer than any query"));
        }
        Self::read_body(bytes).map_err(|detail| refuse(ResponseCode::FormErr, detail))
    }

    fn read_body(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut decoder = BinDecoder::new(bytes);
        let header = Header::read(&mut decoder).map_err(|_| "the header is cut short")?;
        // Checked before anything is read for them: the counts are the client's word.
        if header.counts.queries != 1 {
            return Err("not exactly one question");
        }
        if header.counts.answers != 0 || header.counts.authorities != 0 || header.counts.additionals > MAX_ADDITIONALS {
            return Err("records that a query does not have");
        }
        let query = Query::read(&mut decoder).map_err(|_| "the question cannot be read")?;
        // A pointer in the first name can only point into the header: two readings of one name.
        let plain = if query.name().is_root() { 1 } else { query.name().len() + 1 };
        if decoder.index() != HEADER + plain + 4 {
            return Err("the name in the question is compressed");
        }
        let mut edns = None;
        for _ in 0..header.counts.additionals {
            let (kind, asked) = read_additional(&mut decoder).ok_or("an additional record cannot be read")?;
            if kind == RecordType::OPT && edns.replace(asked.ok_or("OPT with an owner name")?).is_some() {
                return Err("more than one OPT record");
            }
        }
        if !decoder.is_empty() {
            return Err("bytes after the last record");
        }
        Ok(Self { header, query, edns })
    }

    /// The type asked for.
    pub(super) fn kind(&self) -> RecordType {
        self.query.query_type()
    }

    /// The type as text: its mnemonic, or `TYPE64` for others (RFC 3597 §5).
    pub(super) fn kind_text(&self) -> String {
        match self.kind() {
            RecordType::Unknown(number) => format!("TYPE{number}"),
            known => known.to_string(),
        }
    }

    /// True for the class IN.
    pub(super) fn is_internet(&self) -> bool {
        self.query.query_class() == DNSClass::IN
    }

    /// False when the client speaks a version of EDNS that nobody does.
    pub(super) fn edns_version_known(&self) -> bool {
        self.edns.is_none_or(|asked| asked.version == 0)
    }

    /// The name asked for, if it is one that hosts have. Labels with other octets, the root, and what resolvers could
    /// take for an address are not.
    pub(super) fn host(&self) -> Option<Host> {
        let mut text = String::new();
        for label in self.query.name().iter() {
            // Anything else (a dot inside a label!) would read differently as text.
            if !label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|b| char::from(*b)));
        }
        Host::parse(&text).ok().filter(|host| host.name().is_some())
    }

    /// A reply with these records, owned by the name asked for; no records is "the name has none of this type".
    pub(super) fn answer(&self, records: impl IntoIterator<Item = RData>) -> Vec<u8> {
        self.reply(ResponseCode::NoError, records, None)
    }

    /// A reply that says no, with the reason as extended error if the client understands EDNS.
    pub(super) fn refusal(&self, code: ResponseCode, extended: Extended, reason: Reason) -> Vec<u8> {
        self.reply(code, [], Some((extended, reason)))
    }

    fn reply(
        &self,
        code: ResponseCode,
        records: impl IntoIterator<Item = RData>,
        extended: Option<(Extended, Reason)>,
    ) -> Vec<u8> {
        let mut message = Message::new(self.header.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = self.header.recursion_desired;
        message.metadata.checking_disabled = self.header.checking_disabled;
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.add_query(self.query.clone());
        let owner = self.query.name();
        message.add_answers(records.into_iter().map(|data| Record::from_rdata(owner.clone(), TTL, data)));
        if let Some(asked) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(PAYLOAD).set_dnssec_ok(asked.dnssec_ok);
            if let Some((extended, reason)) = extended {
                let mut option = (extended as u16).to_be_bytes().to_vec();
                option.extend_from_slice(format!("{}: {}", reason.code(), reason.hint()).as_bytes());
                edns.options_mut().insert(EdnsOption::Unknown(EDE, option));
            }
            message.set_edns(edns);
        }
        // Nothing here comes close to the limits of the format; if it did, the client still gets its id back.
        message.to_vec().unwrap_or_else(|_| {
            let [high, low] = self.header.id.to_be_bytes();
            bare([high, low], u8::from(self.header.recursion_desired), ResponseCode::ServFail)
        })
    }
}

/// Reads one additional record: its type, and for OPT what it says (none when its owner is not the root).
///
/// Not with the record reader of the library: of a query, nothing but the fixed part of OPT is of interest, and what
/// is not parsed cannot be parsed wrongly.
fn read_additional(decoder: &mut BinDecoder<'_>) -> Option<(RecordType, Option<Asked>)> {
    let owner = Name::read(decoder).ok()?;
    let kind = RecordType::from(decoder.read_u16().ok()?.unverified(/* any number is a type */));
    let _payload = decoder.read_u16().ok()?;
    let ttl = decoder.read_u32().ok()?.unverified(/* used as bit fields */);
    let length = decoder.read_u16().ok()?.unverified(/* read_slice checks it */);
    decoder.read_slice(length.into()).ok()?;
    let [_, version, flags, _] = ttl.to_be_bytes();
    let asked = owner.is_root().then_some(Asked { version, dnssec_ok: flags & 0x80 != 0 });
    Some((kind, asked))
}

/// A reply of a header alone, for queries whose question could not be read. `flags` is the third octet of the query:
/// opcode and "recursion desired" come back.
fn bare(id: [u8; 2], flags: u8, code: ResponseCode) -> Vec<u8> {
    let mut reply = vec![id[0], id[1], 0x80 | (flags & 0x79), 0x80 | code.low()];
    reply.resize(HEADER, 0);
    reply
}
