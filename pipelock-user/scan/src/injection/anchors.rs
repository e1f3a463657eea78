//! The anchors: the words and phrases that wake the scorer. Read by the gates, which know where one may stand. Promises to say
//! whether it does, with the letters around it.

use super::around::is_space;
use super::lexicon::bounded;
use super::packed::Lying;
use super::tables::{Bytes, Table, Unread};

/// All of them; those of one marked word have numbers in a row.
#[derive(Debug)]
pub(crate) struct Anchors {
    texts: Bytes,
    lying: Table<Lying>,
}

impl Anchors {
    /// What [`super::packed`] wrote.
    pub(crate) fn read(from: &mut Unread) -> Option<Self> {
        Some(Self { texts: from.next()?, lying: from.table()? })
    }

    /// An anchor before its marked word and from there on, and whether a letter may stand behind it.
    #[cfg(test)]
    pub(crate) fn text(&self, number: usize) -> Option<(&str, &str, bool)> {
        let start = number.checked_sub(1).map_or(Some(0), |before| self.lying.get(before).map(|before| before.end))?;
        let Lying { end, mark, open_right, .. } = self.lying.get(number)?;
        let text = std::str::from_utf8(self.texts.get(start as usize..end as usize)?).ok()?;
        text.split_at_checked(usize::from(mark)).map(|(before, marked)| (before, marked, open_right))
    }

    /// Whether an anchor stands in `text` with its marked word at `at`: the case of ASCII letters and the amount of
    /// white space do not matter.
    pub(crate) fn stands(&self, number: usize, text: &str, at: usize) -> bool {
        let Some(Lying { end, mark, open_left, open_right }) = self.lying.get(number) else { return false };
        let start = number.checked_sub(1).and_then(|before| self.lying.get(before)).map_or(0, |before| before.end);
        let anchor = self.texts.get(start as usize..end as usize).unwrap_or_default();
        let Some((before, marked)) = anchor.split_at_checked(usize::from(mark)) else { return false };
        let bytes = text.as_bytes();
        let mut end = at;
        for &wanted in marked {
            match bytes.get(end) {
                Some(found) if wanted == b' ' && is_space(*found) => {
                    end += bytes.get(end..).map_or(0, |rest| rest.iter().take_while(|&&byte| is_space(byte)).count());
                }
                Some(found) if found.eq_ignore_ascii_case(&wanted) => end += 1,
                _ => return false,
            }
        }
        let mut start = at;
        for &wanted in before.iter().rev() {
            match start.checked_sub(1).and_then(|before| bytes.get(before)) {
                Some(found) if wanted == b' ' && is_space(*found) => {
                    start -=
                        bytes.get(..start).map_or(0, |text| text.iter().rev().take_while(|&&b| is_space(b)).count());
                }
                Some(found) if found.eq_ignore_ascii_case(&wanted) => start -= 1,
                _ => return false,
            }
        }
        bounded(text, start, end, open_left, open_right)
    }
}
