//! Typed readers over the tree of values: every getter reports what is wrong and goes on, so that all mistakes show.
//!
//! Called by `parse`. It promises that keys, bounds, words and defaults come from the table in `keys` alone.

use super::error::{Pos, Report, quote};
use super::keys::{self, Default, Key, Section, Shape};
use super::near::nearest;
use super::raw::{Node, Value};

/// A value with its path in the file.
#[derive(Clone, Debug)]
pub(super) struct Field<'n> {
    pub(super) node: &'n Node,
    pub(super) path: String,
}

impl<'n> Field<'n> {
    pub(super) fn pos(&self) -> Pos {
        self.node.pos
    }

    /// Reports a mistake at this value.
    pub(super) fn wrong(&self, report: &mut Report, message: impl Into<String>, help: impl Into<String>) {
        report.push(self.node.pos, &self.path, message, help);
    }

    /// Reports that something else was expected.
    fn expected(&self, report: &mut Report, what: &str, help: impl Into<String>) {
        self.wrong(report, format!("expected {what}, found {}", self.node.value.kind()), help);
    }

    pub(super) fn text(&self, report: &mut Report, what: &str) -> Option<&'n str> {
        if let Value::Text(text) = &self.node.value {
            return Some(text);
        }
        let help = match &self.node.value {
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => "put it in quotes if it is meant as text",
            _ => "",
        };
        self.expected(report, what, help);
        None
    }

    fn bool(&self, report: &mut Report) -> Option<bool> {
        if let Value::Bool(value) = self.node.value {
            return Some(value);
        }
        let help = match &self.node.value {
            Value::Text(text) => match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "true" | "y" => "write true, without quotes",
                "no" | "off" | "false" | "n" => "write false, without quotes",
                _ => "",
            },
            _ => "",
        };
        self.expected(report, "true or false", help);
        None
    }

    fn number(&self, report: &mut Report, least: u64, most: u64) -> Option<u64> {
        let value = match &self.node.value {
            Value::Int(value) => u64::try_from(*value).ok(),
            other => {
                let help = if matches!(other, Value::Text(_)) { "write the number without quotes" } else { "" };
                self.expected(report, &format!("a whole number from {least} to {most}"), help);
                return None;
            }
        };
        let inside = value.filter(|value| (least..=most).contains(value));
        if inside.is_none() {
            self.expected(report, &format!("a whole number from {least} to {most}"), "");
        }
        inside
    }

    /// A TCP port.
    pub(super) fn port(&self, report: &mut Report) -> Option<u16> {
        self.number(report, 1, u64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
    }

    fn size(&self, report: &mut Report, least: u64, most: u64) -> Option<u64> {
        let value = match &self.node.value {
            Value::Int(value) => u64::try_from(*value).ok(),
            Value::Text(text) => size_of(text),
            _ => None,
        };
        let inside = value.filter(|value| (least..=most).contains(value));
        if inside.is_none() {
            let what = format!("a size from {least} to {most} bytes");
            self.expected(
                report,
                &what,
                "write bytes as a number, or a number with a unit: \"64KiB\", \"10MiB\", \"1GB\"",
            );
        }
        inside
    }

    fn word(&self, report: &mut Report, words: &'static [&'static str]) -> Option<&'static str> {
        let list = words.join(", ");
        let text = self.text(report, &format!("one of {list}"))?;
        let found = words.iter().find(|word| **word == text).copied();
        if found.is_none() {
            let help = match nearest(text, words.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!("use one of {list}"),
            };
            self.wrong(report, format!("{} is not known here", quote(text)), help);
        }
        found
    }

    /// The items of a list; a list that must not be empty and is, is reported.
    pub(super) fn items(&self, report: &mut Report, may_be_empty: bool) -> Vec<Field<'n>> {
        let Value::List(items) = &self.node.value else {
            let help = match &self.node.value {
                Value::Map(_) => "begin each item with `- `".to_owned(),
                Value::Text(text) => format!("write [{}]", quote(text)),
                Value::Int(number) => format!("write [{number}]"),
                _ => String::new(),
            };
            self.expected(report, "a list", help);
            return Vec::new();
        };
        if items.is_empty() && !may_be_empty {
            let help = "leave the key out for no restriction, or remove the rule to deny the destination";
            self.wrong(report, "the list is empty, so the rule would deny everything", help);
        }
        items.iter().enumerate().map(|(index, node)| Field { node, path: format!("{}[{index}]", self.path) }).collect()
    }
}

/// "10MiB", "1 GB", "512" as bytes: units of 1000 (kB, MB, GB, TB) and of 1024 (KiB, MiB, GiB, TiB).
fn size_of(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let unit: u64 = match unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "kib" => 1024,
        "mib" => 1024_u64.pow(2),
        "gib" => 1024_u64.pow(3),
        "tib" => 1024_u64.pow(4),
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// One mapping, opened against its section of the table.
#[derive(Debug)]
pub(super) struct Reader<'n> {
    section: &'static Section,
    path: String,
    found: Vec<(&'static str, &'n Node)>,
}

impl<'n> Reader<'n> {
    /// A mapping that is not there: every key has its default.
    pub(super) fn absent(section: &'static Section) -> Self {
        Self { section, path: String::new(), found: Vec::new() }
    }

    /// Opens `field`; reports what is not a mapping, unknown keys, keys written twice, keys without value, keys missing.
    pub(super) fn open(report: &mut Report, field: &Field<'n>, section: &'static Section) -> Option<Self> {
        let Value::Map(entries) = &field.node.value else {
            let names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
            field.expected(report, "a mapping", format!("its keys are {}", names.join(", ")));
            return None;
        };
        let mut reader = Self { section, path: field.path.clone(), found: Vec::new() };
        let mut lines: Vec<(&'static str, usize)> = Vec::new();
        for (key, value) in entries {
            let Value::Text(name) = &key.value else {
                report.push(key.pos, &field.path, format!("expected a key, found {}", key.value.kind()), "");
                continue;
            };
            let Some(known) = section.key(name) else {
                unknown(report, section, &field.path, key.pos, name);
                continue;
            };
            let path = join(&field.path, known.name);
            if let Some((_, line)) = lines.iter().find(|(seen, _)| *seen == known.name) {
                report.push(
                    key.pos,
                    &path,
                    format!("the key is written twice, first in line {line}"),
                    "keep one of them",
                );
                continue;
            }
            lines.push((known.name, key.pos.line));
            if matches!(value.value, Value::Null) {
                let help = match known.shape {
                    Shape::List(_) => "write [] for an empty list, or remove the key",
                    _ => "write a value, or remove the key",
                };
                report.push(key.pos, &path, "the key has no value", help);
                continue;
            }
            reader.found.push((known.name, value));
        }
        for key in section.keys {
            let missing = matches!(key.default, Default::Required) && !lines.iter().any(|(name, _)| *name == key.name);
            if missing {
                let help = match key.shape {
                    Shape::Version => "add version: \"1.0\"",
                    _ => key.doc,
                };
                report.push(field.node.pos, &field.path, format!("the key \"{}\" is missing", key.name), help);
            }
        }
        Some(reader)
    }

    pub(super) fn key(&self, name: &str) -> Option<&'static Key> {
        debug_assert!(self.section.key(name).is_some(), "the reader asks for {name:?}, which the table does not list");
        self.section.key(name)
    }

    /// The value of a key, if it was written.
    pub(super) fn get(&self, name: &str) -> Option<Field<'n>> {
        let key = self.key(name)?;
        let (_, node) = self.found.iter().find(|(found, _)| *found == key.name)?;
        Some(Field { node, path: join(&self.path, key.name) })
    }

    /// The mapping below a key; an absent one when it is not there or wrong.
    pub(super) fn section(&self, report: &mut Report, name: &str) -> Reader<'n> {
        let Some(Key { shape: Shape::Section(section), .. }) = self.key(name) else {
            return Reader::absent(&keys::ROOT);
        };
        self.get(name)
            .and_then(|field| Reader::open(report, &field, section))
            .unwrap_or_else(|| Reader::absent(section))
    }

    /// A boolean, or its default.
    pub(super) fn bool(&self, report: &mut Report, name: &str) -> bool {
        let written = self.get(name).and_then(|field| field.bool(report));
        written.unwrap_or(matches!(self.key(name).map(|key| key.default), Some(Default::Bool(true))))
    }

    /// One of the words of the key, or its default.
    pub(super) fn word(&self, report: &mut Report, name: &str) -> &'static str {
        let Some(Key { shape: Shape::Words(words), default: Default::Text(default), .. }) = self.key(name) else {
            return "";
        };
        self.get(name).and_then(|field| field.word(report, words)).unwrap_or(default)
    }

    /// The text that holds when the key is left out.
    pub(super) fn default_text(&self, name: &str) -> &'static str {
        match self.key(name).map(|key| key.default) {
            Some(Default::Text(text)) => text,
            _ => "",
        }
    }

    /// A number or size within the bounds of the key, or its default.
    pub(super) fn number(&self, report: &mut Report, name: &str) -> Option<u64> {
        let key = self.key(name)?;
        let written = self.get(name).and_then(|field| match key.shape {
            Shape::Number(least, most) => field.number(report, least, most),
            Shape::Size(least, most) => field.size(report, least, most),
            _ => None,
        });
        match key.default {
            Default::Number(default) => Some(written.unwrap_or(default)),
            _ => written,
        }
    }

    /// The items of a list; empty when it is not there.
    pub(super) fn items(&self, report: &mut Report, name: &str) -> Vec<Field<'n>> {
        let may_be_empty = !matches!(self.key(name).map(|key| &key.shape), Some(Shape::FilledList(_)));
        self.get(name).map(|field| field.items(report, may_be_empty)).unwrap_or_default()
    }
}

/// `egress[0]` + `methods` → `egress[0].methods`; names that are not plain words are put in brackets and quotes.
pub(super) fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty() && name.len() <= 60 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match (path.is_empty(), plain) {
        (true, true) => name.to_owned(),
        (false, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{}]", quote(name)),
    }
}

/// Where a key belongs that a section does not have: right below it, if there is such a place.
fn elsewhere(section: &Section, name: &str) -> Option<String> {
    let homes = || keys::ALL.iter().filter(|other| other.key(name).is_some()).map(|other| other.name);
    let is_below = |home: &&str| home.strip_prefix(section.name).is_some_and(|rest| rest.starts_with('.'));
    let below: Vec<&str> = homes().filter(is_below).collect();
    match (below.is_empty(), homes().next()?) {
        (false, _) => Some(format!("under {}", below.join(" or "))),
        (true, "") => Some("at the top of the file, not here".to_owned()),
        (true, home) => Some(format!("under {home}")),
    }
}

fn unknown(report: &mut Report, section: &'static Section, path: &str, pos: Pos, name: &str) {
    let names = || section.keys.iter().map(|key| key.name);
    let elsewhere = || elsewhere(section, name);
    let help = if report.is_full() {
        String::new()
    } else if name == "<<" {
        "merge keys are not supported; write the keys out".to_owned()
    } else if let Some(key) = section.keys.iter().find(|key| key.aka.contains(&name)) {
        // A word that is known for this is no slip of another's.
        format!("did you mean \"{}\"?", key.name)
    } else if let Some(meant) = nearest(name, names()) {
        format!("did you mean \"{meant}\"?")
    } else if let Some(home) = elsewhere() {
        format!("\"{name}\" belongs {home}")
    } else {
        format!("known keys here: {}", names().collect::<Vec<_>>().join(", "))
    };
    report.push(pos, path, format!("unknown key {}", quote(name)), help);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("10MiB", Some(10 * 1024 * 1024)),
            ("1 GB", Some(1_000_000_000)),
            ("512", Some(512)),
            ("64kib", Some(65_536)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5MB", None),
            ("99999999999TiB", None),
            ("é", None),
        ] {
            assert_eq!(size_of(text), bytes, "{text}");
        }
    }
}
