//! The JSON Schema of the policy file, made from the table the reader goes by.
//!
//! Called by the command line and by the test that keeps `policies/schema.json` fresh. It promises that it lists exactly
//! the keys the reader takes. It is a little wider than the reader where a schema cannot say more (host spellings,
//! rules that repeat each other).

use serde_json::{Map, Value, json};

use super::keys::{Default, Key, ROOT, Section, Shape};

/// The schema of the policy file: JSON Schema, draft 2020-12.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    schema.insert("$id".to_owned(), "urn:pipelock:policy:1.0".into());
    schema.insert("title".to_owned(), "pipelock egress policy".into());
    schema.extend(section(&ROOT));
    Value::Object(schema)
}

fn section(section: &Section) -> Map<String, Value> {
    let properties: Map<String, Value> = section.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required: Vec<&str> =
        section.keys.iter().filter(|key| matches!(key.default, Default::Required)).map(|key| key.name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("additionalProperties".to_owned(), false.into());
    schema
}

fn property(key: &Key) -> Value {
    let mut schema = shape(&key.shape);
    schema.insert("description".to_owned(), key.doc.into());
    match key.default {
        Default::Required | Default::Absent => {}
        Default::Bool(value) => drop(schema.insert("default".to_owned(), value.into())),
        Default::Number(value) => drop(schema.insert("default".to_owned(), value.into())),
        Default::Text(value) => drop(schema.insert("default".to_owned(), value.into())),
        Default::Ports(value) => drop(schema.insert("default".to_owned(), value.into())),
    }
    schema.into()
}

fn shape(shape_of: &Shape) -> Map<String, Value> {
    let port = || json!({ "type": "integer", "minimum": 1, "maximum": 65535 });
    let value = match shape_of {
        Shape::Version => json!({ "enum": ["1.0", "1", 1] }),
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Words(words) => json!({ "enum": words }),
        Shape::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Size(least, most) => json!({ "anyOf": [
            { "type": "integer", "minimum": least, "maximum": most },
            { "type": "string", "pattern": "^[0-9]+ ?([kKmMgGtT][iI]?)?[bB]?$" },
        ]}),
        Shape::Port => port(),
        Shape::Ports => json!({ "anyOf": [port(), { "type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$" }] }),
        Shape::Destination => json!({ "type": "string", "minLength": 1, "pattern": "^(\\*\\.)?[^*\\s]+$" }),
        Shape::Method => json!({ "type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}$" }),
        Shape::Path => json!({ "type": "string", "pattern": "^/[^?#\\s]*$" }),
        Shape::Repository => json!({ "type": "string", "pattern": "^[^/?#\\s][^?#\\s]*$" }),
        Shape::Ref => json!({ "type": "string", "pattern": "^[^/\\s~^:?\\[\\\\][^\\s~^:?\\[\\\\]*$" }),
        Shape::Fingerprint => json!({ "type": "string", "pattern": "^SHA256:[A-Za-z0-9+/]{43}=?$" }),
        Shape::Cidr => json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$" }),
        Shape::Address => json!({ "type": "string", "pattern": "^([0-9.]+|\\[[0-9a-fA-F:.]+\\]):[1-9][0-9]{0,4}$" }),
        Shape::File => json!({ "type": "string", "minLength": 1, "maxLength": 4096 }),
        Shape::Secret => json!({ "type": "string", "pattern": "^([a-z0-9-]{1,128}|env:[!-<>-~]{1,124})$" }),
        Shape::ProxyPath => json!({ "type": "string", "maxLength": 256, "pattern": "^/[^?#\\s]*\\?[^?#\\s]*=$" }),
        Shape::ProxyUrl => {
            json!({ "type": "string", "pattern": "^(https?|socks5)://([^/?#@:\\s\\[\\]]+|\\[[0-9a-fA-F:.]+\\]):[1-9][0-9]{0,4}/?$" })
        }
        Shape::Url => json!({ "type": "string", "maxLength": 4096, "pattern": "^https?://[^/?#@\\s]+[^#\\s]*$" }),
        Shape::Variable => json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]{0,127}$" }),
        Shape::Hosts => {
            let address = json!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+$" });
            json!({
                "type": "object",
                "additionalProperties": {
                    "anyOf": [address, { "type": "array", "items": address, "minItems": 1, "maxItems": 64 }]
                },
            })
        }
        Shape::Section(of) => section(of).into(),
        Shape::List(of) => json!({ "type": "array", "items": shape(of) }),
        Shape::FilledList(of) => json!({ "type": "array", "items": shape(of), "minItems": 1 }),
    };
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
