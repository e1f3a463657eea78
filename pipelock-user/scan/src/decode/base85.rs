//! Five characters for four bytes: Ascii85 (btoa, Adobe's PostScript Language Reference §3.13.3), base85 (RFC 1924's alphabet, as git
//! and Python write it) and Z85 (ZeroMQ RFC 32). Called by `stream::graphic`.
//!
//! The alphabets hold most of ASCII, so source code is full of what could be base85. Text shows by its groups: four in a row
//! that all decode to printable characters are no chance.

const NONE: u8 = 255;

/// The alphabets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alphabet {
    Ascii85,
    Rfc1924,
    Z85,
}

static ASCII85: [u8; 256] = {
    let mut table = [NONE; 256];
    let mut at = 0;
    while at < 85 {
        table[at + 33] = at as u8;
        at += 1;
    }
    table
};
static RFC1924: [u8; 256] =
    table(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~");
static Z85: [u8; 256] = table(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#");

const fn table(alphabet: &[u8; 85]) -> [u8; 256] {
    let mut table = [NONE; 256];
    let mut at = 0;
    while at < 85 {
        table[alphabet[at] as usize] = at as u8;
        at += 1;
    }
    table
}

/// Groups in a row that must be text.
const GROUPS: usize = 4;
/// Characters that decide whether something is base85 text.
pub(crate) const DECIDES: usize = (2 * GROUPS + 1) * 5;

impl Alphabet {
    pub(crate) const ALL: [Self; 3] = [Self::Ascii85, Self::Rfc1924, Self::Z85];

    fn values(self) -> &'static [u8; 256] {
        match self {
            Self::Ascii85 => &ASCII85,
            Self::Rfc1924 => &RFC1924,
            Self::Z85 => &Z85,
        }
    }

    /// Is the byte one of its characters?
    pub(crate) fn has(self, byte: u8) -> bool {
        self.values()[usize::from(byte)] != NONE
    }

    /// The four bytes of a group; `None` when it stands for none.
    pub(crate) fn group(self, text: &[u8]) -> Option<[u8; 4]> {
        let values = self.values();
        let mut word = 0u64;
        for byte in text.get(..5)? {
            let value = values[usize::from(*byte)];
            if value == NONE {
                return None;
            }
            word = word * 85 + u64::from(value);
        }
        u32::try_from(word).ok().map(u32::to_be_bytes)
    }

    /// The bytes of a last group of fewer characters: one less than there are.
    pub(crate) fn rest(self, text: &[u8]) -> Vec<u8> {
        let mut whole = [0; 5];
        // The highest digit: `u`, `~` or `#`.
        whole.fill(match self {
            Self::Ascii85 => b'u',
            Self::Rfc1924 => b'~',
            Self::Z85 => b'#',
        });
        let count = text.len().min(4);
        whole[..count].copy_from_slice(&text[..count]);
        let bytes = self.group(&whole).unwrap_or_default();
        bytes[..count.saturating_sub(1)].to_vec()
    }

    /// Where the first of [`GROUPS`] groups of text begins that have their start at a multiple of 5 from `text`'s; all of
    /// `text` is of this alphabet.
    fn aligned(self, text: &[u8]) -> Option<usize> {
        let readable = |at: usize| {
            let Some(group) = text.get(at * 5..at * 5 + 5) else { return false };
            // The first digit alone decides most: that of a printable byte, or of a tab or line end.
            let first = self.values()[usize::from(group[0])];
            matches!(first, 2..=4 | 9..=41) && self.group(group).is_some_and(|bytes| bytes.into_iter().all(printable))
        };
        let count = text.len() / 5;
        let mut at = GROUPS - 1;
        while at < count {
            if !readable(at) {
                at += GROUPS;
                continue;
            }
            let before = (0..at).rev().take_while(|at| readable(*at)).count();
            let after = (at + 1..count).take(GROUPS).take_while(|at| readable(*at)).count();
            if before + 1 + after >= GROUPS {
                // The text may begin within the group before.
                return Some((at - before).saturating_sub(1) * 5);
            }
            at += GROUPS;
        }
        None
    }

    /// Where text begins that is written in this alphabet, if there is such in `text`, all of which is of the alphabet.
    pub(crate) fn text_in(self, text: &[u8]) -> Option<usize> {
        (0..5).filter_map(|skip| Some(self.aligned(text.get(skip..)?)? + skip)).min()
    }
}

fn printable(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) || matches!(byte, b'\n' | b'\r' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(alphabet: Alphabet, text: &[u8]) -> Vec<u8> {
        let groups = text.chunks_exact(5);
        let rest = alphabet.rest(groups.remainder());
        groups.flat_map(|group| alphabet.group(group).unwrap()).chain(rest).collect()
    }

    #[test]
    fn known_vectors_decode() {
        // Python: base64.a85encode, base64.b85encode; ZeroMQ RFC 32's test case for Z85.
        assert_eq!(all(Alphabet::Ascii85, b"87cURD]i,\"Ebo80"), b"Hello World!");
        assert_eq!(all(Alphabet::Ascii85, b"87cURD]i,\"Ebo7"), b"Hello World");
        assert_eq!(all(Alphabet::Rfc1924, b"NM&qnZy;B1a%^NF"), b"Hello World!");
        assert_eq!(all(Alphabet::Z85, b"HelloWorld"), [0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b]);
        assert_eq!(Alphabet::Ascii85.group(b"uuuuu"), None);
    }

    #[test]
    fn text_is_told_from_code() {
        assert_eq!(Alphabet::Ascii85.text_in(b"ab,c87cURD]i,\"Ebo80+E2.*AS-"), Some(4));
        for code in [
            "https://example.com/a/b?c=d&e=f#ghijklmnopqrstuvwxyz",
            "if(a[0]==b&&c>=(d+1)*2){return[e,f,g.h];}else{i=j;}",
        ] {
            for alphabet in Alphabet::ALL {
                for part in code.as_bytes().split(|byte| !alphabet.has(*byte)) {
                    assert_eq!(alphabet.text_in(part), None, "{alphabet:?} {code}");
                }
            }
        }
    }
}
