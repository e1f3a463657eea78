//! What is asked of the Scan API, as JSON.
//!
//! Called by `api`. It promises that what is not exactly a question is an error with a code of its own, and that no text is longer
//! than its limit.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Refusal;
use crate::inspect::{Told, tell};

/// Longest URL, in characters.
pub(super) const MOST_URL: usize = 8192;
/// Longest method.
pub(super) const MOST_METHOD: usize = 32;
/// Longest text and content.
pub(super) const MOST_TEXT: usize = 512 * 1024;
/// Longest name: of a tool, and of a request.
pub(super) const MOST_NAME: usize = 128;

/// A question.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) kind: Kind,
    /// What the client calls it.
    pub(super) request_id: Option<String>,
}

/// What it is about.
#[derive(Debug)]
pub(super) enum Kind {
    /// May this be asked for?
    Url { url: String, method: String },
    /// May this leave?
    Dlp(String),
    /// May an agent read this?
    Injection(String),
    /// May a tool be called so? The arguments as they are sent, and as their texts read.
    Tool { name: String, arguments: String },
}

impl Kind {
    /// Its word.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Url { .. } => "url",
            Self::Dlp(_) => "dlp",
            Self::Injection(_) => "prompt_injection",
            Self::Tool { .. } => "tool_call",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'q> {
    kind: String,
    #[serde(borrow)]
    input: &'q RawValue,
    #[serde(borrow, default)]
    context: Option<&'q RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Context {
    #[serde(default)]
    request_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Url {
    url: String,
    #[serde(default)]
    method: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    content: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tool<'q> {
    tool_name: String,
    #[serde(borrow)]
    arguments: &'q RawValue,
}

/// Reads a question.
///
/// # Errors
/// [`Refusal`], with a code for each way not to be one.
pub(super) fn read(body: &[u8]) -> Result<Question, Refusal> {
    let text = std::str::from_utf8(body).map_err(|_| Refusal::invalid_json("the body is no UTF-8"))?;
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| Refusal::invalid_json(&error.to_string()))?;
    let Envelope { kind, input, context } = of(whole, "the body")?;
    let context: Option<Context> = match context {
        Some(context) if context.get() != "null" => Some(of(context, "context")?),
        _ => None,
    };
    let request_id = context.and_then(|context| context.request_id);
    let request_id = request_id.map(|id| sized(id, "context.request_id", MOST_NAME)).transpose()?;
    let kind = match kind.as_str() {
        "url" => {
            let Url { url, method } = of(input, "input")?;
            let method = method.unwrap_or_else(|| "GET".to_owned());
            Kind::Url { url: sized(url, "input.url", MOST_URL)?, method: sized(method, "input.method", MOST_METHOD)? }
        }
        "dlp" => Kind::Dlp(sized(of::<Text>(input, "input")?.text, "input.text", MOST_TEXT)?),
        "prompt_injection" => {
            Kind::Injection(sized(of::<Content>(input, "input")?.content, "input.content", MOST_TEXT)?)
        }
        "tool_call" => {
            let Tool { tool_name, arguments } = of(input, "input")?;
            Kind::Tool { name: sized(tool_name, "input.tool_name", MOST_NAME)?, arguments: spelled(arguments)? }
        }
        _ => return Err(Refusal::invalid_kind()),
    };
    Ok(Question { kind, request_id })
}

/// An object: serde would take a list for one as well.
fn of<'q, T: Deserialize<'q>>(value: &'q RawValue, name: &str) -> Result<T, Refusal> {
    if !value.get().trim_ascii_start().starts_with('{') {
        return Err(Refusal::invalid_input(&format!("{name} is no object")));
    }
    serde_json::from_str(value.get()).map_err(|error| Refusal::invalid_input(&format!("{name}: {error}")))
}

/// A value as it is sent, and all texts in it, names among them, a line each: of two members with one name both.
fn spelled(value: &RawValue) -> Result<String, Refusal> {
    let mut texts = format!("{}\n", value.get());
    tell(value.get(), &mut Lines(&mut texts))
        .map_err(|error| Refusal::invalid_input(&format!("input.arguments: {error}")))?;
    Ok(texts)
}

/// Texts and names, a line each.
struct Lines<'t>(&'t mut String);

impl Told for Lines<'_> {
    fn text(&mut self, _: &str, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn name(&mut self, place: &str, name: &str) {
        self.text(place, name);
    }
}

fn sized(text: String, name: &str, most: usize) -> Result<String, Refusal> {
    // As JSON Schema counts.
    match text.chars().count() {
        0 => Err(Refusal::invalid_input(&format!("{name} is empty"))),
        length if length > most => Err(Refusal::invalid_input(&format!("{name} is longer than {most} characters"))),
        _ => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(body: &str) -> &'static str {
        read(body.as_bytes()).map_or_else(|refusal| refusal.code, |question| question.kind.word())
    }

    #[test]
    fn each_kind_has_its_input_and_no_other() {
        let long =
            |name: &str, length| format!("{{\"kind\":\"dlp\",\"input\":{{\"{name}\":\"{}\"}}}}", "x".repeat(length));
        for (body, expected) in [
            (r#"{"kind":"url","input":{"url":"http://a.test/"}}"#, "url"),
            (r#"{"kind":"url","input":{"url":"http://a.test/","method":"POST"},"context":{"request_id":"7"}}"#, "url"),
            (r#"{"kind":"dlp","input":{"text":"x"},"context":null}"#, "dlp"),
            (r#"{"kind":"prompt_injection","input":{"content":"x"}}"#, "prompt_injection"),
            (r#"{"kind":"tool_call","input":{"tool_name":"x","arguments":{"a":[1]}}}"#, "tool_call"),
            (&long("text", MOST_TEXT), "dlp"),
            (&long("text", MOST_TEXT + 1), "invalid_input"),
            ("", "invalid_json"),
            ("{", "invalid_json"),
            ("[]", "invalid_input"),
            (r#"{"kind":"dlp","input":{"text":"x"}} x"#, "invalid_json"),
            (r#"{"kind":"dlp"}"#, "invalid_input"),
            (r#"["dlp",{"text":"x"}]"#, "invalid_input"),
            (r#"{"kind":"dlp","input":["x"]}"#, "invalid_input"),
            (r#"{"kind":"dlp","input":{"text":"x"},"context":["x"]}"#, "invalid_input"),
            (r#"{"kind":"dlp","input":{"text":"x"},"context":{}}"#, "dlp"),
            (r#"{"kind":"dlp","input":{"text":"x"},"more":1}"#, "invalid_input"),
            (r#"{"kind":"dlp","kind":"dlp","input":{"text":"x"}}"#, "invalid_input"),
            (r#"{"kind":"dlp","input":{"text":"x","text":"y"}}"#, "invalid_input"),
            (r#"{"kind":"dlp","input":{"text":""}}"#, "invalid_input"),
            (r#"{"kind":"dlp","input":{"content":"x"}}"#, "invalid_input"),
            (r#"{"kind":"dlp","input":{"text":1}}"#, "invalid_input"),
            (r#"{"kind":"email","input":{}}"#, "invalid_kind"),
            (r#"{"kind":"dlp","input":{"text":"x"},"context":{"request_id":""}}"#, "invalid_input"),
            (r#"{"kind":"tool_call","input":{"tool_name":"x"}}"#, "invalid_input"),
        ] {
            assert_eq!(code(body), expected, "{}", &body[..body.len().min(120)]);
        }
        let deep = format!(
            r#"{{"kind":"tool_call","input":{{"tool_name":"x","arguments":{}1{}}}}}"#,
            "[".repeat(5000),
            "]".repeat(5000)
        );
        assert!(code(&deep).starts_with("invalid"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "[\\[{\"kindinputx:,}\\]]{0,60}") {
            let _ = read(&bytes);
            let _ = read(text.as_bytes());
        }
    }
}
