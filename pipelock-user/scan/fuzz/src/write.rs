//! Ways of writing a text down, by number. Called by the targets `normalise` and `decode`.

use std::io::Write as _;

fn each(text: &[u8], write: impl Fn(u8) -> String) -> Vec<u8> {
    text.iter().flat_map(|byte| write(*byte).into_bytes()).collect()
}

/// Disguises that leave a text a text. Any of them may be laid over any other once.
pub fn disguise(text: &[u8], way: u8) -> Vec<u8> {
    match way % 8 {
        0 => each(text, |byte| format!("%{byte:02x}")),
        1 => each(text, |byte| format!("\\u{byte:04x}")),
        2 => each(text, |byte| format!("&#{byte};")),
        3 => each(text, |byte| format!("\\x{byte:02X}")),
        4 => each(text, |byte| format!("&#x{byte:x};")),
        5 => each(text, |byte| format!("%25{byte:02X}")),
        6 => each(text, |byte| format!("={byte:02X}")),
        _ => String::from_utf8_lossy(text).chars().flat_map(|char| [char, '\u{200b}']).collect::<String>().into_bytes(),
    }
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Codecs, whose output hides the text altogether.
pub fn codec(text: &[u8], way: u8) -> Vec<u8> {
    match way % 9 {
        0 => base64(text, STANDARD, true),
        1 => base64(text, URL, false),
        2 => each(text, |byte| format!("{byte:02x}")),
        3 => {
            let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            to.write_all(text).and_then(|()| to.finish()).unwrap_or_default()
        }
        4 => {
            let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
            to.write_all(text).and_then(|()| to.finish()).unwrap_or_default()
        }
        5 => each(text, |byte| format!("{byte:02X}:")),
        6 => each(text, |byte| format!("0x{byte:02x}, ")),
        7 => base85(text),
        _ => base64(text, STANDARD, true).chunks(76).collect::<Vec<_>>().join(&b"\r\n"[..]),
    }
}

/// As git and Python write it.
fn base85(bytes: &[u8]) -> Vec<u8> {
    let alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
    let mut out = Vec::new();
    for chunk in bytes.chunks(4) {
        let mut word = (0..4).fold(0u32, |word, at| word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        let mut digits = [0; 5];
        for digit in digits.iter_mut().rev() {
            *digit = alphabet[word as usize % 85];
            word /= 85;
        }
        out.extend_from_slice(&digits[..=chunk.len()]);
    }
    out
}

fn base64(bytes: &[u8], alphabet: &[u8; 64], pad: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, at| word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            if at <= chunk.len() {
                out.push(alphabet[(word >> (18 - 6 * at) & 63) as usize]);
            } else if pad {
                out.push(b'=');
            }
        }
    }
    out
}
