//! Adds up what test runners report.

/// Tests over all runners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Passed.
    pub(crate) passed: u64,
    /// Failed.
    pub(crate) failed: u64,
    /// Not run.
    pub(crate) ignored: u64,
}

impl Tally {
    /// Adds what a line of a runner's output reports, if it is such a line.
    pub(crate) fn read(&mut self, line: &str) {
        // test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next().and_then(|count| count.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }

    /// Adds a runner's tally. A runner that failed without a failed test (it did not compile, it crashed) is a failure.
    pub(crate) fn add(&mut self, other: Self, is_ok: bool) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        if !is_ok && other.failed == 0 {
            self.failed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_cargo_are_read() {
        let mut tally = Tally::default();
        tally.read("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s");
        tally.read("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tally.read("a test says: test result: ok. 99 passed;");
        assert_eq!(tally, Tally { passed: 13, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_runner_that_breaks_counts_as_a_failure() {
        let mut tally = Tally::default();
        tally.add(Tally { passed: 3, ..Tally::default() }, false);
        tally.add(Tally { failed: 2, ..Tally::default() }, false);
        assert_eq!(tally, Tally { passed: 3, failed: 3, ignored: 0 });
    }
}
