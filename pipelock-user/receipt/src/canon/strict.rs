//! What a JSON text must be before anything in it is believed.
//!
//! Called by the verifier on every line. Parsers differ in what they do with duplicate members, deep nesting and large
//! or fractional numbers; such texts are refused, so that no two readers can see two things in one receipt.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::MAX_NUMBER;

/// Most levels of arrays and objects; the limit of the public verifiers.
pub const MAX_DEPTH: u32 = 128;

/// Checks that `json` is one JSON value without duplicate members, nested at most [`MAX_DEPTH`] deep, with whole
/// numbers within 2^53 - 1 only.
///
/// # Errors
/// A sentence that says what is wrong and at which column.
pub fn check(json: &str) -> Result<(), String> {
    let mut parser = serde_json::Deserializer::from_str(json);
    // serde_json's own recursion limit (127 levels) stands below ours and keeps the stack bounded.
    Level(MAX_DEPTH).deserialize(&mut parser).and_then(|()| parser.end()).map_err(|error| error.to_string())
}

/// Visits a value that may still hold this many levels, and keeps nothing of it.
#[derive(Clone, Copy)]
struct Level(u32);

impl Level {
    fn down<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("nested more than 128 levels deep"))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        if number > MAX_NUMBER { Err(E::custom("a number beyond 2^53 - 1")) } else { Ok(()) }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_u64(number.unsigned_abs())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Err(E::custom("a number that is not whole"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let level = self.down()?;
        while items.next_element_seed(level)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let level = self.down()?;
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            members.next_value_seed(level)?;
            if let Some(name) = names.replace(name) {
                return Err(A::Error::custom(format_args!("duplicate member {name:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_readers_see_differently_are_refused() {
        assert_eq!(check(r#"{"a":[{"b":1},{"b":-9007199254740991}],"c":"x"}"#), Ok(()));
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"[{"x":{"b":1,"c":2,"b":3}}]"#,
            r#"{"a":1,"\u0061":2}"#,
            "1.0",
            "1e3",
            "-0",
            "9007199254740992",
            "{} {}",
            "",
            "[1,]",
            "\u{feff}{}",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&format!("{}{}", "[".repeat(126), "]".repeat(126))).is_ok());
        assert!(check(&format!("{}{}", "[".repeat(129), "]".repeat(129))).is_err());
    }
}
