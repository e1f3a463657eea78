//! The texts of a JSON document with their places, and the names in it that may say something themselves.
//!
//! Called by `lanes` and `pieces`, and by the Scan API for what it is asked about. It promises that nothing is passed over because it
//! comes twice: of two fields with one name parsers keep the one or the other, and what leaves has both. [`Leaves`] is bounded:
//! [`MOST_TEXTS`] of each, [`MOST_NAME`] bytes of a name in a place.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Texts of one document, and names.
const MOST_TEXTS: usize = 64;
/// Bytes of a name that tell a place from others.
const MOST_NAME: usize = 64;

/// Shortest name with a digit or a capital within that may be a piece of a secret, and shortest without.
const LEAST_MIXED: usize = 5;
const LEAST_PLAIN: usize = 20;

/// Whoever is told what a document says, in its order.
pub(crate) trait Told {
    /// A text, where it stands.
    fn text(&mut self, place: &str, text: &str);
    /// The name of a field, where its object stands.
    fn name(&mut self, place: &str, name: &str);
}

/// Reads a document as JSON and tells what it says. Its depth is bounded by the parser.
///
/// # Errors
/// When it is none.
pub(crate) fn tell(document: &str, to: &mut impl Told) -> serde_json::Result<()> {
    let mut parser = serde_json::Deserializer::from_str(document);
    Walk { to, place: &mut String::new() }.deserialize(&mut parser)?;
    parser.end()
}

/// What a document says.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    /// Texts with their places (`.delta.text`), places in lists being one.
    pub(super) texts: Vec<(String, String)>,
    /// Names with the places of their fields; those that are words are none.
    pub(super) names: Vec<(String, String)>,
}

/// May the name of a field be a piece of a secret?
pub(super) fn may_tell(name: &str) -> bool {
    let is_mixed = || name.bytes().skip(1).any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    name.len() >= LEAST_PLAIN || name.len() >= LEAST_MIXED && is_mixed()
}

impl<'de> Deserialize<'de> for Leaves {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut leaves = Self::default();
        Walk { to: &mut leaves, place: &mut String::new() }.deserialize(from)?;
        Ok(leaves)
    }
}

impl Told for Leaves {
    fn text(&mut self, place: &str, text: &str) {
        if !text.is_empty() && self.texts.len() < MOST_TEXTS {
            self.texts.push((place.to_owned(), text.to_owned()));
        }
    }

    fn name(&mut self, place: &str, name: &str) {
        if self.names.len() < MOST_TEXTS && may_tell(name) {
            self.names.push((format!("{place}{{}}"), name.to_owned()));
        }
    }
}

struct Walk<'w, T> {
    to: &'w mut T,
    place: &'w mut String,
}

impl<T: Told> Walk<'_, T> {
    fn next(&mut self) -> Walk<'_, T> {
        Walk { to: self.to, place: self.place }
    }
}

impl<'de, T: Told> DeserializeSeed<'de> for Walk<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de, T: Told> Visitor<'de> for Walk<'_, T> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.to.text(self.place, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let before = self.place.len();
        self.place.push_str("[]");
        while items.next_element_seed(self.next())?.is_some() {}
        self.place.truncate(before);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        let before = self.place.len();
        while let Some(name) = fields.next_key::<String>()? {
            self.to.name(self.place, &name);
            self.place.push('.');
            self.place.push_str(&name[..name.floor_char_boundary(MOST_NAME)]);
            fields.next_value_seed(self.next())?;
            self.place.truncate(before);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_names_are_told_with_their_places() {
        let leaves: Leaves = serde_json::from_str(
            r#"{"a": "x", "a": ["y", {"b": "z"}, 7, ""], "n\u0031234": null, "words": {"c": true, "d": "\u00e9"}}"#,
        )
        .expect("JSON");
        let shown = |all: Vec<(String, String)>| {
            all.into_iter().map(|(place, text)| format!("{place}={text}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(leaves.texts), ".a=x .a[]=y .a[].b=z .words.d=é");
        assert_eq!(shown(leaves.names), "{}=n1234");
    }

    #[test]
    fn much_is_bounded_and_what_is_no_json_is_none() {
        let name = "é9".repeat(1000);
        let many: String = (0..1000).map(|at| format!("\"{name}{at}\":[\"x\"],")).collect();
        let leaves: Leaves = serde_json::from_str(&format!("{{{many}\"z\":1}}")).expect("JSON");
        assert_eq!((leaves.texts.len(), leaves.names.len()), (MOST_TEXTS, MOST_TEXTS));
        assert!(leaves.texts.iter().all(|(place, _)| place.len() <= MOST_NAME + 3));
        for text in ["{\"a\":", "{\"a\" 1}", "[1,]", "{} {}", &"[".repeat(1000)] {
            assert!(serde_json::from_str::<Leaves>(text).is_err(), "{text}");
        }
    }
}
