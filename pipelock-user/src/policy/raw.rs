//! The policy text as a tree of values, each with its place.
//!
//! Called by `parse`. It promises that duplicate keys survive (so that they can be reported), that nothing is expanded
//! (no aliases, no merge keys), that memory is bounded by the size of the text, and that a disagreement between the
//! parser of values and the parser of places moves a position, never a value.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, VariantAccess, Visitor};

use super::error::{Pos, Report, quote};
use super::position::{Place, Survey, survey};

/// Largest policy text, in bytes.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// Largest text, in bytes, that is read although the survey broke off; beyond that, hostile nesting that only the survey
/// would have seen could take minutes.
const MAX_UNSURVEYED: usize = 32 * 1024;
const HELP_YAML: &str = "check indentation, quotes and brackets";

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) pos: Pos,
    pub(super) value: Value,
}

/// What YAML can say. Integers beyond 128 bits arrive as floats or text; no key of ours takes either.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// A custom tag (`!name`), which we never use.
    Tagged(String),
}

impl Value {
    /// What kind of thing it is, for "expected …, found …".
    pub(super) fn kind(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("the boolean {value}"),
            Self::Int(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) => format!("the text {}", quote(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
            Self::Tagged(tag) => format!("a value with the tag {}", quote(tag)),
        }
    }
}

/// Reads `text`; what is wrong with it as YAML goes into the report.
pub(super) fn tree(text: &str, report: &mut Report) -> Option<Node> {
    if text.len() > MAX_BYTES {
        let message = format!("the policy is larger than {MAX_BYTES} bytes");
        report.push(Pos::default(), "", message, "replace lists of hosts by wildcards, or split the work");
        return None;
    }
    let survey = survey(text);
    if !survey.aliases.is_empty() {
        for pos in &survey.aliases {
            report.push(*pos, "", "aliases (*name) are not supported", "write the value out where it is used");
        }
        return None;
    }
    if let Some(pos) = survey.too_deep {
        report.push(pos, "", "the nesting is too deep", "a policy needs a few levels only");
        return None;
    }
    if let (Some((pos, why)), true) = (&survey.broken, text.len() > MAX_UNSURVEYED) {
        report.push(*pos, "", not_readable(why), HELP_YAML);
        return None;
    }
    // Without aliases, no text has more values or longer strings than this.
    let budget = Budget(Cell::new(text.len().saturating_mul(2).saturating_add(16)));
    match (NodeSeed { budget: &budget }).deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(mut root) => {
            locate(&mut root, survey.root.as_ref(), Pos { line: 1, column: 1 });
            Some(root)
        }
        Err(error) => {
            not_yaml(&error, &survey, report);
            None
        }
    }
}

fn not_yaml(error: &serde_yaml::Error, survey: &Survey, report: &mut Report) {
    if let Some(pos) = survey.second_document {
        report.push(pos, "", "a second document begins here", "keep one policy in a file, without a further `---`");
        return;
    }
    let pos = error.location().map_or(Pos { line: 1, column: 1 }, |at| Pos { line: at.line(), column: at.column() });
    // The parser's text ends with the place, which stands in front already.
    let text = error.to_string();
    report.push(pos, "", not_readable(text.split(" at line ").next().unwrap_or_default()), HELP_YAML);
}

/// The parsers may quote the file.
fn not_readable(why: &str) -> String {
    let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("this is not YAML that can be read: {why}")
}

/// Lays the places over the values. Where the shapes differ, everything below keeps the place of the last agreement.
fn locate(node: &mut Node, place: Option<&Place>, parent: Pos) {
    node.pos = place.map_or(parent, |place| place.pos);
    let pos = node.pos;
    let children = place.map(|place| place.children.as_slice()).unwrap_or_default();
    match &mut node.value {
        Value::List(items) => {
            let agree = items.len() == children.len();
            for (index, item) in items.iter_mut().enumerate() {
                locate(item, children.get(index).filter(|_| agree), pos);
            }
        }
        Value::Map(entries) => {
            let agree = entries.len().checked_mul(2) == Some(children.len());
            for (index, (key, value)) in entries.iter_mut().enumerate() {
                locate(key, children.get(index * 2).filter(|_| agree), pos);
                locate(value, children.get(index * 2 + 1).filter(|_| agree), pos);
            }
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Tagged(_) => {}
    }
}

/// How many values and bytes of text may still be made.
struct Budget(Cell<usize>);

impl Budget {
    fn spend<E: serde::de::Error>(&self, cost: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(cost).ok_or_else(|| E::custom("it repeats itself through aliases"))?;
        self.0.set(left);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct NodeSeed<'b> {
    budget: &'b Budget,
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.budget.spend::<D::Error>(1)?;
        deserializer.deserialize_any(self)
    }
}

fn node<E>(value: Value) -> Result<Node, E> {
    Ok(Node { pos: Pos::default(), value })
}

impl<'de> Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        node(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        node(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        node(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        node(Value::Int(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        node(Value::Int(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        node(Value::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        node(Value::Int(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        node(Value::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Node, E> {
        self.budget.spend::<E>(value.len())?;
        node(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        node(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key_seed(self)? {
            entries.push((key, access.next_value_seed(self)?));
        }
        node(Value::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Node, A::Error> {
        let (tag, content) = access.variant::<String>()?;
        self.budget.spend::<A::Error>(tag.len())?;
        // Read and dropped, so that the parser goes on behind it.
        content.newtype_variant_seed(self).map_err(A::Error::custom)?;
        node(Value::Tagged(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, path: &[usize]) -> (usize, usize) {
        let mut report = Report::new();
        let root = tree(text, &mut report).expect("readable");
        let mut node = &root;
        for step in path {
            node = match &node.value {
                Value::List(items) => &items[*step],
                Value::Map(entries) => &entries[*step].1,
                other => panic!("no children: {other:?}"),
            };
        }
        (node.pos.line, node.pos.column)
    }

    #[test]
    fn values_carry_their_places() {
        let text = "# comment\nversion: \"1.0\"\negress:\n  - destination: a.example\n    methods: [GET, 7]\n";
        assert_eq!(place(text, &[0]), (2, 10));
        assert_eq!(place(text, &[1, 0, 0]), (4, 18));
        assert_eq!(place(text, &[1, 0, 1, 1]), (5, 20));
    }

    #[test]
    fn an_alias_that_the_survey_did_not_see_is_still_bounded() {
        let long = "x".repeat(1000);
        let text = format!("a: &a {long}\nb: [*a, *a, *a]\n");
        let budget = Budget(Cell::new(text.len() * 2));
        let read = NodeSeed { budget: &budget }.deserialize(serde_yaml::Deserializer::from_str(&text));
        assert!(read.expect_err("over budget").to_string().contains("aliases"));
    }
}
