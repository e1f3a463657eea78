//! Signed additions to the rules, taken at run time: a YAML file and its Ed25519 signature. Called by whoever loads rules from
//! outside.
//!
//! Promises: nothing of a bundle is read before the signature over its exact bytes holds; an expired one is refused, and
//! one older than what was seen can be told; it adds rules and can neither replace nor switch off any, nor make its own core.

use ed25519_dalek::Signature;
pub use ed25519_dalek::VerifyingKey;
use serde::Deserialize;

use super::raw::{self, RawRule};
use super::{Rule, RuleError, RuleSet};

/// Most bytes of a bundle.
pub const MOST_BYTES: usize = 1 << 20;
/// Most rules of a bundle.
pub const MOST_RULES: usize = 1000;
const FORMAT: u32 = 2;

/// A bundle that was verified.
#[derive(Debug)]
pub struct Bundle {
    name: String,
    version: u64,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBundle {
    format_version: u32,
    name: String,
    /// For people: a calendar version.
    #[serde(default, rename = "version")]
    _version: String,
    /// For people.
    #[serde(default, rename = "description")]
    _description: String,
    /// Counts up; what is lower than one seen before is an old bundle played again.
    monotonic_version: u64,
    /// `2026-12-31T00:00:00Z`
    expires_at: String,
    rules: Vec<RawRule>,
}

impl Bundle {
    /// Checks a bundle: `signature` over `bytes` by one of `keys`, and not expired at `now` (seconds since 1970).
    /// Whoever remembers versions asks [`Self::check_seen`] next.
    ///
    /// # Errors
    /// [`RuleError::Bundle`] says which check failed; what is wrong in the rules comes as for rule files.
    pub fn verify(bytes: &[u8], signature: &[u8; 64], keys: &[VerifyingKey], now: u64) -> Result<Self, RuleError> {
        let refuse = |message: String| Err(RuleError::Bundle(message));
        if bytes.len() > MOST_BYTES {
            return refuse(format!("{} bytes, more than {MOST_BYTES}", bytes.len()));
        }
        let signature = Signature::from_bytes(signature);
        if !keys.iter().any(|key| key.verify_strict(bytes, &signature).is_ok()) {
            return refuse("no trusted key signed these bytes: get the bundle again from its source".into());
        }
        let text = std::str::from_utf8(bytes).map_err(|error| RuleError::Bundle(error.to_string()))?;
        let raw: RawBundle = serde_yaml::from_str(text).map_err(|error| RuleError::Bundle(error.to_string()))?;
        if raw.format_version != FORMAT {
            return refuse(format!(
                "format_version {} is not {FORMAT}: a newer pipelock may read it",
                raw.format_version
            ));
        }
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(3..=64).contains(&raw.name.len()) || !raw.name.bytes().all(word) {
            return refuse("a name is 3 to 64 characters of a-z, 0-9 and -".into());
        }
        if raw.monotonic_version == 0 {
            return refuse("versions begin with 1".into());
        }
        let Some(expires) = seconds(&raw.expires_at) else {
            return refuse(format!("expires_at `{}` is not of the form 2026-12-31T00:00:00Z", raw.expires_at));
        };
        if expires <= now {
            return refuse(format!("it expired at {}: get a newer one", raw.expires_at));
        }
        if raw.rules.len() > MOST_RULES {
            return refuse(format!("{} rules, more than {MOST_RULES}", raw.rules.len()));
        }
        let mut rules = Vec::with_capacity(raw.rules.len());
        for rule in raw.rules {
            let rule = raw::check(&raw.name, rule)?;
            let problem = match rule.pattern.check_size() {
                Err(problem) => Some(problem),
                Ok(()) if rule.core => Some("only shipped rules are core: take `core` out".into()),
                Ok(()) => None,
            };
            if let Some(message) = problem {
                return Err(RuleError::Rule { file: raw.name, rule: rule.id.to_string(), message });
            }
            rules.push(rule);
        }
        Ok(Self { name: raw.name, version: raw.monotonic_version, rules })
    }

    /// Sees that it is no older than the highest version of its name that was seen so far; 0 when there was none.
    ///
    /// # Errors
    /// [`RuleError::Bundle`] when it is.
    pub fn check_seen(&self, seen: u64) -> Result<(), RuleError> {
        if self.version < seen {
            let why = format!("version {} is older than {seen}, which was seen", self.version);
            return Err(RuleError::Bundle(why));
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version: to be kept, and given to [`Self::check_seen`] next time.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Adds its rules to `set`.
    ///
    /// # Errors
    /// When a rule has the id of one that is there; then nothing of it counts.
    pub fn add_to(self, set: RuleSet) -> Result<RuleSet, RuleError> {
        let mut set = set;
        set.extend(&self.name, self.rules)?;
        Ok(set)
    }
}

/// Seconds since 1970 of `2026-12-31T00:00:00Z` (RFC 3339 in UTC, no fractions).
fn seconds(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |(byte, shape): (&u8, &u8)| if *shape == b'd' { byte.is_ascii_digit() } else { byte == shape };
    if bytes.len() != shape.len() || !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    // Days of a year that starts in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    const TEXT: &str = "format_version: 2\nname: extra\nmonotonic_version: 7\nexpires_at: 2026-12-31T00:00:00Z\nrules:\n  \
                        - {id: extra-a, name: A, kind: dlp, class: credential, severity: low, pattern: 'zz[0-9]{4}'}\n";

    fn verify(text: &str, change: impl FnOnce(&mut Vec<u8>), now: u64) -> Result<Bundle, RuleError> {
        let key = SigningKey::from_bytes(&[7; 32]);
        let signature = key.sign(text.as_bytes()).to_bytes();
        let mut bytes = text.as_bytes().to_vec();
        change(&mut bytes);
        Bundle::verify(&bytes, &signature, &[key.verifying_key()], now)
    }

    #[test]
    fn a_good_bundle_adds_its_rules() {
        let set = RuleSet::read(&[]).unwrap();
        let set = verify(TEXT, |_| (), 1_700_000_000).unwrap().add_to(set).unwrap();
        assert_eq!(&*set.rules()[0].id, "extra-a");
        assert!(verify(TEXT, |_| (), 0).unwrap().add_to(set).is_err(), "an id twice");
    }

    #[test]
    fn everything_else_is_refused() {
        assert!(verify(TEXT, |bytes| bytes[20] ^= 1, 0).is_err());
        let bundle = verify(TEXT, |_| (), 0).unwrap();
        assert!(bundle.check_seen(7).is_ok() && bundle.check_seen(8).is_err());
        assert!(verify(&TEXT.replace("monotonic_version: 7", "monotonic_version: 0"), |_| (), 0).is_err());
        assert!(verify(TEXT, |_| (), seconds("2026-12-31T00:00:00Z").unwrap()).is_err());
        assert!(verify(&TEXT.replace("severity", "core: true, severity"), |_| (), 0).is_err());
        assert!(verify(&TEXT.replace("severity", "keywords: [''], severity"), |_| (), 0).is_err());
        assert!(verify(&TEXT.replace("{4}", "+"), |_| (), 0).is_err());
        assert!(verify(&TEXT.replace("name: extra", "disable: [x]\nname: extra"), |_| (), 0).is_err());
    }

    #[test]
    fn times_are_read() {
        // date --date … +%s
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2024-02-29T12:34:56Z"), Some(1_709_210_096));
        assert_eq!(seconds("2024-02-29 12:34:56Z"), None);
    }
}
