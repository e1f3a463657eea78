//! Whether a ClientHello carries an extension that rustls does not tell of. Called by `sniff` on hellos that rustls has
//! read whole; promises no panic and no answer on anything else.

/// `encrypted_client_hello` (RFC 9849 §5).
///
/// It hides the name that the client really wants, and whether it does cannot be told: clients that have nothing to hide
/// send the same extension with random bytes ("GREASE ECH", §6.2), made to look alike to whoever is on the path. Chromium
/// (since 117) and Firefox (since 119) do so with every hello; curl, Python, Go, Java, Node.js and git send none. A real
/// one leads to another host behind the same front as an allowed name, so the safe choice is to refuse both.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// What hides the name that the client wants: that, its drafts 8 to 12, those of draft 7 and 6, and `encrypted_server_name` of those
/// before (draft-ietf-tls-esni-06 §11.1), which carries no other name at all. Some servers speak them still.
pub(super) const HIDE_NAMES: &[u16] =
    &[ENCRYPTED_CLIENT_HELLO, 0xfe08, 0xfe09, 0xfe0a, 0xfe0b, 0xfe0c, 0xff02, 0xff03, 0xffce];

/// Whether the ClientHello at the front of these TLS records has one of the extensions; none when it cannot be found out.
pub(super) fn has_any(records: &[u8], wanted: &[u16]) -> Option<bool> {
    let message = handshake(records)?;
    let mut hello = Reader(&message);
    // RFC 8446 §4.1.2: version, random, session id, cipher suites, compression methods, extensions.
    hello.take(2 + 32)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    if hello.0.is_empty() {
        return Some(false);
    }
    let mut extensions = Reader(hello.vector(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2)?;
        extensions.vector(2)?;
        if wanted.iter().any(|wanted| kind == usize::from(*wanted)) {
            return Some(true);
        }
    }
    Some(false)
}

/// The body of the first handshake message, out of as many records as it takes (RFC 8446 §5.1).
fn handshake(records: &[u8]) -> Option<Vec<u8>> {
    let mut records = Reader(records);
    let mut message = Vec::new();
    loop {
        if let [_kind, a, b, c, body @ ..] = message.as_slice() {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if let Some(body) = body.get(..length) {
                return Some(body.to_vec());
            }
        }
        if records.number(1)? != 22 {
            return None;
        }
        records.take(2)?;
        message.extend_from_slice(records.vector(2)?);
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many octets.
    fn number(&mut self, octets: usize) -> Option<usize> {
        Some(self.take(octets)?.iter().fold(0, |number, octet| number << 8 | usize::from(*octet)))
    }

    /// A vector whose length stands before it in so many octets.
    fn vector(&mut self, octets: usize) -> Option<&'a [u8]> {
        let length = self.number(octets)?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, length in 0u8..80) {
            let _ = has_any(&bytes, HIDE_NAMES);
            let hello = [&[22, 3, 1, 0, length.saturating_add(4), 1, 0, 0, length][..], &bytes].concat();
            let _ = has_any(&hello, HIDE_NAMES);
        }
    }
}
