//! Chinese phrases written without spaces, after a word that announces one.
//!
//! Called by [`super::scan`]. See there why the announcement is asked for. Promises: linear in the text.

use super::lists::{LANGUAGES, wide};
use super::run::{LENGTHS, checksum};
use super::{Language, Phrase};

/// Words that announce a phrase.
const ANNOUNCEMENTS: [&str; 12] =
    ["助记词", "助記詞", "助记詞", "种子", "種子", "恢复", "恢復", "钱包", "錢包", "mnemonic", "seed", "phrase"];
/// How far behind the announcement a phrase may start, in bytes.
const REACH: usize = 160;

/// Adds unspaced Chinese phrases to `found`.
pub(super) fn scan(text: &str, found: &mut Vec<Phrase>) {
    // No ideograph, no work: their first bytes are 0xe3 to 0xe9.
    if text.is_ascii() || !text.bytes().any(|byte| (0xe3..=0xe9).contains(&byte)) {
        return;
    }
    let lower = text.to_ascii_lowercase();
    let mut announced = 0..0;
    let mut piece: Vec<(usize, char)> = Vec::new();
    for (at, letter) in text.char_indices().chain([(text.len(), '\n')]) {
        if ANNOUNCEMENTS.iter().any(|word| lower[at..].starts_with(word)) {
            announced = at..at + REACH;
        }
        if ('\u{3400}'..='\u{9fff}').contains(&letter) {
            piece.push((at, letter));
            continue;
        }
        if let Some(&(start, _)) = piece.first() {
            // The announcement may be glued to the phrase with nothing but its own characters before it.
            if announced.contains(&start) && LENGTHS.contains(&piece.len()) {
                found.extend(phrase(&piece, start, at));
            }
            piece.clear();
        }
    }
}

fn phrase(piece: &[(usize, char)], start: usize, end: usize) -> Option<Phrase> {
    [Language::ChineseSimplified, Language::ChineseTraditional].into_iter().find_map(|language| {
        let numbers: Option<Vec<u16>> = piece
            .iter()
            .map(|(_, letter)| {
                let entries = wide(letter.encode_utf8(&mut [0; 4]));
                entries
                    .iter()
                    .find(|entry| LANGUAGES[usize::from(entry.language)] == language)
                    .map(|entry| entry.number)
            })
            .collect();
        numbers.filter(|numbers| checksum(numbers)).map(|numbers| Phrase {
            language,
            words: numbers.len(),
            start: start as u64,
            end: end as u64,
        })
    })
}
