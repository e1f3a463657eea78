//! The only spelling of a time: UTC, RFC 3339, up to nine fraction digits without trailing zeros.
//!
//! Written here rather than with a calendar crate: two conversions are all that is needed, and a second spelling of the
//! same moment would be a second signed text.

use std::fmt;
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment between 1970 and 9999, to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    secs: u64,
    nanos: u32,
}

/// Why a text is not a canonical timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical UTC time (YYYY-MM-DDTHH:MM:SS[.fraction without trailing zeros]Z, 1970 to 9999)")]
pub struct TimestampError;

/// 9999-12-31T23:59:59Z.
const LAST: u64 = 253_402_300_799;
const DAY: u64 = 86_400;

impl Timestamp {
    /// The present moment by the system clock.
    #[must_use]
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.secs * 1000 + u64::from(self.nanos / 1_000_000)
    }
}

/// Moments outside 1970 to 9999 become the nearest one inside.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() > LAST {
            return Self { secs: LAST, nanos: 0 };
        }
        Self { secs: since.as_secs(), nanos: since.subsec_nanos() }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.secs / DAY);
        let second = self.secs % DAY;
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)?;
        if self.nanos > 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        fn number(text: &str, from: usize, to: usize) -> Result<u64, TimestampError> {
            let digits = text.get(from..to).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
            digits.ok_or(TimestampError)?.parse().map_err(|_| TimestampError)
        }
        let fraction = text.get(19..).and_then(|rest| rest.strip_suffix('Z')).ok_or(TimestampError)?;
        let nanos = match fraction.strip_prefix('.') {
            Some(digits) if digits.len() <= 9 => number(&format!("{digits:0<9}"), 0, 9)?,
            Some(_) => return Err(TimestampError),
            None => 0,
        };
        let days =
            days_since_1970(number(text, 0, 4)?, number(text, 5, 7)?, number(text, 8, 10)?).ok_or(TimestampError)?;
        let secs = days * DAY + number(text, 11, 13)? * 3600 + number(text, 14, 16)? * 60 + number(text, 17, 19)?;
        let time = Self { secs, nanos: u32::try_from(nanos).map_err(|_| TimestampError)? };
        // Writing it again catches everything else: separators, day 31 of a short month, hour 24, trailing zeros.
        if secs <= LAST && time.to_string() == text { Ok(time) } else { Err(TimestampError) }
    }
}

/// Year, month and day of a day number. Howard Hinnant, "chrono-compatible low-level date algorithms".
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; `None` before 1970 and for months and days that no calendar has.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        for (secs, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 500_000_000, "2000-02-29T00:00:00.5Z"),
            (1_772_359_200, 1, "2026-03-01T10:00:00.000000001Z"),
            (LAST, 0, "9999-12-31T23:59:59Z"),
        ] {
            let time = Timestamp { secs, nanos };
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse(), Ok(time));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "2026-03-01T10:00:00.50Z",
            "2026-03-01T10:00:00.Z",
            "2026-03-01T10:00:00z",
            "2026-03-01T10:00:00+00:00",
            "2026-02-29T10:00:00Z",
            "2026-03-01T24:00:00Z",
            "2026-12-31T23:59:60Z",
            "2026-03-01 10:00:00Z",
            "2026-03-01T10:00:00.1234567890Z",
            "1969-12-31T23:59:59Z",
            "é026-03-01T10:00:00Z",
            "",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_sorts(a in 0..LAST, b in 0..LAST, nanos in 0_u32..1_000_000_000) {
            let (x, y) = (Timestamp { secs: a, nanos }, Timestamp { secs: b, nanos: 0 });
            prop_assert_eq!(x.to_string().parse(), Ok(x));
            prop_assert_eq!(y.to_string().parse(), Ok(y));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<Timestamp>();
        }
    }
}
