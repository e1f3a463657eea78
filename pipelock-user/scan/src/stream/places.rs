//! Where the characters of a long run are in the text: between line breaks they stand side by side. Called by
//! [`super::long`] and [`super::lane`].

use std::collections::VecDeque;

/// Stretches without line breaks: number of the first character, and its place in the text.
#[derive(Debug)]
pub(crate) struct Places {
    stretches: VecDeque<(u64, u64)>,
}

impl Places {
    /// Of a run whose first character is at `start`.
    pub(crate) fn new(start: u64) -> Self {
        Self { stretches: VecDeque::from([(0, start)]) }
    }

    /// The next characters, of which the first has that number, are at `at`. What is more than `keep` characters back is
    /// forgotten.
    pub(crate) fn note(&mut self, char: u64, at: u64, keep: u64) {
        if self.of(char) == at {
            return;
        }
        self.stretches.push_back((char, at));
        let behind = char.saturating_sub(keep);
        while self.stretches.get(1).is_some_and(|(first, _)| *first < behind) {
            self.stretches.pop_front();
        }
    }

    /// Where the character of that number is, or would be if no break came.
    pub(crate) fn of(&self, char: u64) -> u64 {
        let after = self.stretches.partition_point(|(first, _)| *first <= char);
        self.stretches.get(after.saturating_sub(1)).map_or(0, |(first, at)| at + char.saturating_sub(*first))
    }

    pub(crate) fn memory(&self) -> usize {
        self.stretches.capacity() * 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_go_over_breaks() {
        let mut places = Places::new(10);
        places.note(5, 15, 100);
        places.note(64, 76, 100);
        assert_eq!([0, 63, 64, 70].map(|char| places.of(char)), [10, 73, 76, 82]);
        places.note(300, 400, 100);
        assert_eq!((places.stretches.len(), places.of(301)), (2, 401));
    }
}
