//! Folds text so that one spelling matches many: lower case, no accents, one space for white space, full-width and
//! mathematical letters as plain ones, invisible characters gone, tag characters as the ASCII they smuggle. Used for the
//! lexicon when it is loaded and for every window that is scored, so both sides always agree. Promises that every
//! position of the folded text leads back to the original.

use unicode_normalization::char::decompose_compatible;

/// Folded text with the way back.
#[derive(Debug, Default)]
pub(crate) struct Folded {
    /// The folded text.
    pub(crate) text: String,
    /// (position in `text`, position in the original), ascending, one entry wherever the distance between both changes.
    map: Vec<(u32, u32)>,
}

impl Folded {
    /// Bytes it takes beside itself.
    pub(crate) fn memory(&self) -> usize {
        self.text.capacity() + self.map.capacity() * size_of::<(u32, u32)>()
    }

    /// Folds `input`, reusing the memory of `self`.
    pub(crate) fn fill(&mut self, input: &str) {
        self.text.clear();
        self.map.clear();
        self.map.push((0, 0));
        self.text.reserve(input.len());
        let bytes = input.as_bytes();
        let mut at = 0;
        let mut space = false;
        while at < bytes.len() {
            let byte = bytes[at];
            if byte < 0x80 {
                if byte.is_ascii_whitespace() || byte == 0x0b {
                    if !space {
                        self.text.push(' ');
                    }
                    at += 1;
                    if space {
                        self.mark(at);
                    }
                    space = true;
                } else if byte == b'*' && emphasis(bytes, at) {
                    at += 1;
                    self.mark(at);
                } else {
                    space = false;
                    self.text.push(char::from(byte.to_ascii_lowercase()));
                    at += 1;
                }
                continue;
            }
            let Some(c) = input[at..].chars().next() else { break };
            let before = self.text.len();
            fold_char(c, space, &mut self.text);
            at += c.len_utf8();
            if self.text.len() > before {
                space = self.text.ends_with(' ');
            }
            if self.text.len() - before != c.len_utf8() {
                self.mark(at);
            }
        }
    }

    /// Notes that what follows in `text` comes from `original` on.
    fn mark(&mut self, original: usize) {
        let here = (self.text.len() as u32, original as u32);
        match self.map.last_mut() {
            Some(last) if last.0 == here.0 => *last = here,
            _ => self.map.push(here),
        }
    }

    /// The original position of the folded position `at`; for an `end`, the position just behind what ends there.
    pub(crate) fn original(&self, at: usize) -> usize {
        let index = self.map.partition_point(|&(folded, _)| folded as usize <= at).saturating_sub(1);
        let Some(&(folded, original)) = self.map.get(index) else { return 0 };
        let position = original as usize + at.saturating_sub(folded as usize);
        // Inside a letter that became several, the letter's end is the nearest place that exists.
        self.map.get(index + 1).map_or(position, |&(_, next)| position.min(next as usize))
    }
}

/// Is the star one of Markdown's emphasis: between a letter and what is none, or beside another star that is?
fn emphasis(bytes: &[u8], at: usize) -> bool {
    let beside = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte >= 0x80);
    let before = bytes[..at].iter().rev().take(3).find(|byte| **byte != b'*');
    let behind = bytes[at..].iter().take(3).find(|byte| **byte != b'*');
    // `a * b` and `a*b` are sums; a list item has a blank behind its star.
    beside(before) != beside(behind)
}

/// Folds one text on its own.
pub(crate) fn fold(input: &str) -> String {
    let mut folded = Folded::default();
    folded.fill(input);
    folded.text
}

/// Whether `c` is dropped: it is not displayed, or it is a mark over the letter before it.
fn is_dropped(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{61C}' | '\u{180B}'..='\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FE00}'..='\u{FE0F}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{E0000}'..='\u{E001F}' | '\u{E007F}' | '\u{E0100}'..='\u{E01EF}'
        | '\u{300}'..='\u{36F}' | '\u{591}'..='\u{5C7}' | '\u{610}'..='\u{61A}' | '\u{640}' | '\u{64B}'..='\u{65F}'
        | '\u{670}' | '\u{6D6}'..='\u{6ED}' | '\u{93C}' | '\u{9BC}' | '\u{A3C}' | '\u{1AB0}'..='\u{1AFF}'
        | '\u{20D0}'..='\u{20FF}' | '\u{FE20}'..='\u{FE2F}')
}

/// Whether compatibility decomposition helps matching `c`. Hangul and kana would fall apart, CJK has nothing to gain.
fn is_decomposed(c: char) -> bool {
    !matches!(c, '\u{1100}'..='\u{11FF}' | '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7FF}')
}

fn fold_char(c: char, after_space: bool, out: &mut String) {
    // The letters that make up most of the text in their scripts need no table.
    match c {
        '\u{4E00}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}' | '\u{3041}'..='\u{30FF}' | '\u{E01}'..='\u{E30}' => {
            return out.push(c);
        }
        'а'..='и' | 'к'..='я' => return out.push(c),
        'А'..='И' | 'К'..='Я' => return out.extend(char::from_u32(c as u32 + 0x20)),
        '\u{905}'..='\u{928}' | '\u{92A}'..='\u{939}' | '\u{93E}'..='\u{94D}' => return out.push(c),
        _ => {}
    }
    if is_dropped(c) {
        return;
    }
    if let '\u{E0020}'..='\u{E007E}' = c {
        // Tag characters mirror ASCII at U+E0000 and are displayed by nobody.
        let ascii = (c as u32 - 0xE0000) as u8;
        if !(ascii == b' ' && after_space) {
            out.push(char::from(ascii.to_ascii_lowercase()));
        }
        return;
    }
    if c.is_whitespace() || c == '\u{2800}' {
        if !after_space {
            out.push(' ');
        }
        return;
    }
    if !is_decomposed(c) {
        out.push(c);
        return;
    }
    decompose_compatible(c, |part| {
        if is_dropped(part) {
            return;
        }
        match part {
            '‘' | '’' | 'ʼ' | '´' | '＇' => out.push('\''),
            '“' | '”' | '„' | '‟' => out.push('"'),
            '‐' | '‑' | '–' | '—' => out.push('-'),
            'ı' => out.push('i'),
            'ß' => out.push_str("ss"),
            'ø' | 'Ø' => out.push('o'),
            'ł' | 'Ł' => out.push('l'),
            'đ' | 'Đ' => out.push('d'),
            'æ' | 'Æ' => out.push_str("ae"),
            'œ' | 'Œ' => out.push_str("oe"),
            // Letters that Arabic and Persian writers and keyboards use for one another.
            'ى' | 'ی' => out.push('ي'),
            'ة' => out.push('ه'),
            'ک' => out.push('ك'),
            'ٱ' => out.push('ا'),
            _ => out.extend(part.to_lowercase().filter(|&c| !is_dropped(c))),
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Folded, fold};

    #[test]
    fn spellings_meet() {
        assert_eq!(fold("Ignorá  LAS\n\tinstrucciones"), "ignora las instrucciones");
        assert_eq!(fold("ig\u{200b}no\u{ad}re"), "ignore");
        assert_eq!(fold("ＩＧＮＯＲＥ 𝐢𝐠𝐧𝐨𝐫𝐞"), "ignore ignore");
        assert_eq!(fold("\u{E0049}\u{E0067}\u{E006E}"), "ign");
        assert_eq!(fold("İSTANBUL ısı"), "istanbul isi");
        assert_eq!(fold("Ёлка й"), "елка и");
        assert_eq!(fold("无视 の が"), "无视 の が");
        assert_eq!(fold("คำ"), fold("คํา"));
    }

    #[test]
    fn positions_lead_back() {
        let text = "a  b\u{200b}Straße \u{1F600} Ünï";
        let mut folded = Folded::default();
        folded.fill(text);
        for word in ["b", "strasse", "uni"] {
            let at = folded.text.find(word).unwrap();
            let original = folded.original(at);
            assert!(text.is_char_boundary(original), "{word}");
        }
        let at = folded.text.find("strasse").unwrap();
        assert!(text[folded.original(at)..].starts_with("Straße"));
        assert_eq!(folded.original(folded.text.len()), text.len());
    }

    proptest! {
        #[test]
        fn never_outside(text in "\\PC{0,80}") {
            let mut folded = Folded::default();
            folded.fill(&text);
            for at in 0..=folded.text.len() {
                if folded.text.is_char_boundary(at) {
                    prop_assert!(folded.original(at) <= text.len());
                }
            }
            prop_assert_eq!(fold(&folded.text).len() <= folded.text.len(), true);
        }
    }
}
