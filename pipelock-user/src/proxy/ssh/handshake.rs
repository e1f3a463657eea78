//! The clear part of an SSH handshake, as it passes by: version lines, then packets up to the one in which the server shows
//! its host key (RFC 4253 §4.2, §6, §7, §8; RFC 4419, RFC 5656).
//!
//! Fed by `ssh` with what either side sends. It promises that nothing but a handshake passes before that key was shown, that the
//! packet which shows it passes only when the key is pinned, that the answer does not depend on how the bytes are cut, and that
//! no more than [`MAX_BYTES`] of a side are taken in before.

use bytes::{Buf as _, Bytes, BytesMut};
use pipelock_receipt::codec::base64;
use sha2::{Digest as _, Sha256};

/// Bytes that a side may send before the key is shown.
pub(in crate::proxy) const MAX_BYTES: usize = 256 * 1024;
/// Bytes of a version line, its end included (RFC 4253 §4.2).
const MAX_LINE: usize = 255;
/// Bytes of a packet that every implementation takes (RFC 4253 §6.1), its length not counted.
const MAX_PACKET: usize = 35_000;
/// The least: padding to the block size of 8.
const MIN_PACKET: usize = 12;
const MIN_PADDING: usize = 4;

const DISCONNECT: u8 = 1;
const KEXINIT: u8 = 20;
/// KEXDH_REPLY and ECDH_REPLY; with group exchange the group, and then the reply is another.
const REPLY: u8 = 31;
const GROUP_REPLY: u8 = 33;
/// What a client answers KEXINIT with, by any of these methods.
const CLIENT_KEX: [u8; 3] = [30, 32, 34];
/// How many of those: the question for a group, a guess that was wrong, and what counts.
const MAX_KEX: usize = 3;
/// "host key not verifiable" (RFC 4253 §11.1).
const NOT_VERIFIABLE: u32 = 9;
/// The reasons that DISCONNECT gives; 0 is none, but some give it.
const REASONS: std::ops::RangeInclusive<u32> = 0..=15;
/// Bytes of the text and of the language tag of a DISCONNECT. The standard bounds neither; what is said in the clear to whoever is at
/// the other end is no longer than a line.
const MAX_WORDS: usize = 255;
const MAX_LANGUAGE: usize = 16;

/// Methods whose reply begins with the host key; what begins with one of these and not with [`GROUP_EXCHANGE`] is a plain one.
const METHODS: [&[u8]; 6] =
    [b"curve25519-", b"curve448-", b"ecdh-sha2-", b"diffie-hellman-group", b"sntrup761x25519-", b"mlkem"];
const GROUP_EXCHANGE: &[u8] = b"diffie-hellman-group-exchange-";

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Who {
    /// The client.
    Agent,
    /// The destination.
    Server,
}

/// Why the connection goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Refused {
    /// One of the two does not speak SSH 2, or says what does not belong into a handshake.
    NotSsh(Who, &'static str),
    /// The server has shown a key with this fingerprint, which is not pinned.
    HostKey(String),
}

/// The handshake of one connection.
#[derive(Debug)]
pub(in crate::proxy) struct Handshake {
    pins: Vec<String>,
    agent: Side,
    server: Side,
    shown: Option<String>,
}

/// What one side has sent.
#[derive(Debug, Default)]
struct Side {
    /// Not whole yet.
    held: BytesMut,
    /// Passed on so far.
    passed: usize,
    /// Messages of the key exchange in it, KEXINIT not counted.
    kex: usize,
    has_line: bool,
    /// It has said goodbye, which is the last that it may say (RFC 4253 §11.1).
    has_left: bool,
    /// The methods of key exchange that it offers, in its order.
    methods: Option<Vec<Bytes>>,
}

impl Handshake {
    /// One that may show a key with one of these fingerprints, as `SHA256:…`.
    pub(in crate::proxy) fn new(pins: &[String]) -> Self {
        Self { pins: pins.to_vec(), agent: Side::default(), server: Side::default(), shown: None }
    }

    /// The fingerprint of the key that was shown and is pinned, once there was one: from then on everything passes.
    pub(in crate::proxy) fn shown(&self) -> Option<&str> {
        self.shown.as_deref()
    }

    /// True when the line with which a side says that it speaks SSH may go to the other.
    pub(in crate::proxy) fn has_greeted(&self, who: Who) -> bool {
        match who {
            Who::Agent => self.agent.has_line,
            Who::Server => self.server.has_line,
        }
    }

    /// Takes what a side sends; what of it, and of what was held, may go to the other. When what follows that is [`Refused`],
    /// nothing more goes either way.
    pub(in crate::proxy) fn take(&mut self, who: Who, bytes: &[u8]) -> (BytesMut, Result<(), Refused>) {
        let mut free = BytesMut::new();
        self.side(who).held.extend_from_slice(bytes);
        while self.shown.is_none() {
            match self.next(who) {
                Ok(Some(next)) => free.unsplit(next),
                judged => return (free, judged.map(drop)),
            }
        }
        // The last of what the agent has begun goes on with the rest of it.
        free.unsplit(std::mem::take(&mut self.side(who).held));
        (free, Ok(()))
    }

    /// The line or packet in front, which may go on; none while it is not whole.
    fn next(&mut self, who: Who) -> Result<Option<BytesMut>, Refused> {
        let side = self.side(who);
        if side.has_left && !side.held.is_empty() {
            return Err(Refused::NotSsh(who, "it goes on after its goodbye"));
        }
        let length = side.unit(who)?;
        if side.passed + length.unwrap_or(side.held.len()) > MAX_BYTES {
            return Err(Refused::NotSsh(who, "its handshake is longer than 256 KiB"));
        }
        let Some(length) = length else { return Ok(None) };
        if side.has_line {
            self.packet(who, length)?;
        }
        let side = self.side(who);
        side.has_line = true;
        side.passed += length;
        Ok(Some(side.held.split_to(length)))
    }

    fn side(&mut self, who: Who) -> &mut Side {
        match who {
            Who::Agent => &mut self.agent,
            Who::Server => &mut self.server,
        }
    }

    /// Judges the packet in front, which has this many bytes.
    fn packet(&mut self, who: Who, length: usize) -> Result<(), Refused> {
        let not = |what| Err(Refused::NotSsh(who, what));
        let Some(payload) = self.side(who).payload(length) else { return not("its packet has no room for a message") };
        let mut payload = payload.clone();
        let message = payload.get_u8();
        let side = self.side(who);
        match (message, who) {
            (DISCONNECT, _) => {
                side.has_left = is_goodbye(payload);
                if side.has_left { Ok(()) } else { not("its goodbye is longer than one is, or is none") }
            }
            (KEXINIT, _) if side.methods.is_none() => match methods(payload) {
                Some(methods) => {
                    side.methods = Some(methods);
                    Ok(())
                }
                None => not("its list of methods cannot be read"),
            },
            (message, Who::Agent) if CLIENT_KEX.contains(&message) && side.methods.is_some() && side.kex < MAX_KEX => {
                side.kex += 1;
                Ok(())
            }
            (REPLY | GROUP_REPLY, Who::Server) => match self.is_group_exchange() {
                None => not("the method of the key exchange is none that can be read"),
                // The group, before the reply.
                Some(true) if message == REPLY => Ok(()),
                Some(false) if message != REPLY => not("it says what does not belong into a handshake"),
                Some(_) => self.host_key(payload),
            },
            _ => not("it says what does not belong into a handshake"),
        }
    }

    /// Whether the method that both have agreed on has a reply of its own number; none when it is not known, or there is none.
    fn is_group_exchange(&self) -> Option<bool> {
        let (agent, server) = (self.agent.methods.as_ref()?, self.server.methods.as_ref()?);
        let agreed = agent.iter().find(|method| server.contains(method))?;
        METHODS.iter().any(|known| agreed.starts_with(known)).then(|| agreed.starts_with(GROUP_EXCHANGE))
    }

    /// Compares the key at the front of the reply.
    fn host_key(&mut self, mut reply: Bytes) -> Result<(), Refused> {
        let Some(key) = string(&mut reply) else {
            return Err(Refused::NotSsh(Who::Server, "its host key cannot be read"));
        };
        let shown = fingerprint(&key);
        if !self.pins.contains(&shown) {
            return Err(Refused::HostKey(shown));
        }
        self.shown = Some(shown);
        Ok(())
    }
}

impl Side {
    /// The bytes of the line or packet in front, once it is whole.
    fn unit(&self, who: Who) -> Result<Option<usize>, Refused> {
        if self.has_line { self.packet_length(who) } else { self.line(who) }
    }

    fn line(&self, who: Who) -> Result<Option<usize>, Refused> {
        const BEGIN: &[u8] = b"SSH-2.0-";
        let begin = self.held.get(..BEGIN.len().min(self.held.len())).unwrap_or_default();
        if !BEGIN.starts_with(begin) {
            return Err(Refused::NotSsh(who, "its first line is not SSH-2.0-"));
        }
        let end = self.held.iter().take(MAX_LINE).position(|byte| *byte == b'\n');
        let line = self.held.get(..end.unwrap_or(self.held.len().min(MAX_LINE))).unwrap_or_default();
        let is_text = |line: &[u8]| line.iter().all(|byte| matches!(byte, b' '..=b'~'));
        if !is_text(line.strip_suffix(b"\r").unwrap_or(line)) {
            return Err(Refused::NotSsh(who, "its first line holds what is no text"));
        }
        if end.is_none() && self.held.len() >= MAX_LINE {
            return Err(Refused::NotSsh(who, "its first line is longer than 255 bytes"));
        }
        Ok(end.map(|end| end + 1))
    }

    fn packet_length(&self, who: Who) -> Result<Option<usize>, Refused> {
        let Some(length) = self.held.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if !(MIN_PACKET..=MAX_PACKET).contains(&length) || !(length + 4).is_multiple_of(8) {
            return Err(Refused::NotSsh(who, "its packets are none of SSH"));
        }
        Ok((self.held.len() >= length + 4).then_some(length + 4))
    }

    /// What is in the packet in front, which is whole: at least the number of its message.
    fn payload(&self, length: usize) -> Option<Bytes> {
        let padding = usize::from(*self.held.get(4)?);
        let end = length.checked_sub(padding).filter(|end| *end > 5 && padding >= MIN_PADDING)?;
        Some(Bytes::copy_from_slice(self.held.get(5..end)?))
    }
}

/// Whether this is what DISCONNECT holds (RFC 4253 §11.1): a reason, a text and its language.
fn is_goodbye(mut payload: Bytes) -> bool {
    let reason = payload.try_get_u32().is_ok_and(|reason| REASONS.contains(&reason));
    let text = string(&mut payload).is_some_and(|text| text.len() <= MAX_WORDS);
    let language = string(&mut payload).is_some_and(|language| language.len() <= MAX_LANGUAGE);
    reason && text && language && payload.is_empty()
}

/// The methods of key exchange in a KEXINIT: the first of its lists, behind a cookie (RFC 4253 §7.1).
fn methods(mut payload: Bytes) -> Option<Vec<Bytes>> {
    const COOKIE: usize = 16;
    if payload.len() < COOKIE {
        return None;
    }
    payload.advance(COOKIE);
    let list = string(&mut payload)?;
    Some(list.split(|byte| *byte == b',').map(|method| list.slice_ref(method)).collect())
}

/// A string with its length in front (RFC 4251 §5), taken away.
fn string(from: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(from.try_get_u32().ok()?).ok()?;
    (from.len() >= length).then(|| from.split_to(length))
}

/// The fingerprint of a key as `ssh-keygen -l` prints it.
fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", base64(&Sha256::digest(key)).trim_end_matches('='))
}

/// A packet that tells a client why it goes no further, in the clear.
pub(in crate::proxy) fn goodbye(why: &str) -> Vec<u8> {
    let mut payload = vec![DISCONNECT];
    payload.extend_from_slice(&NOT_VERIFIABLE.to_be_bytes());
    for text in [why, "en"] {
        payload.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
        payload.extend_from_slice(text.as_bytes());
    }
    packet(&payload)
}

/// A packet in the clear.
pub(in crate::proxy) fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = MIN_PADDING + (8 - (5 + payload.len() + MIN_PADDING) % 8) % 8;
    let length = u32::try_from(1 + payload.len() + padding).unwrap_or(0);
    let mut packet = length.to_be_bytes().to_vec();
    packet.push(u8::try_from(padding).unwrap_or(u8::MAX));
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
