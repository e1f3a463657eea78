//! What stands for a secret without being one: templates, variables, references of secret stores, accounts whose password is
//! elsewhere.
//!
//! Called by [`super::placeholder`], which gives it the beginning of a value. Linear but for a value of brackets, which is short.

use super::placeholder::steps;

/// Is it a template, or a variable (`${…}`, `{{…}}`, `<…>`, `a.b.c()`, `$HOME`)?
pub(super) fn is_template(secret: &[u8]) -> bool {
    has_brackets(secret) || has_encoded(secret) || names_variable(secret)
}

/// Is something in brackets that stands for a value, as a name or an argument does (`{user}`, `get()`)? Those of a password seldom
/// meet their like.
fn has_brackets(secret: &[u8]) -> bool {
    let names = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.,:;/$%@\"' -".contains(byte);
    let pairs = [(b'{', b'}'), (b'<', b'>'), (b'(', b')'), (b'[', b']')];
    let pair = |(open, close)| {
        let mut rest = secret;
        while let Some(at) = rest.iter().position(|byte| *byte == open) {
            rest = rest.get(at + 1..).unwrap_or_default();
            let inside = rest.iter().position(|byte| *byte == close).and_then(|end| rest.get(..end));
            if inside.is_some_and(|inside| inside.iter().all(names)) {
                return true;
            }
        }
        false
    };
    let at_ends = [secret.first(), secret.last()].into_iter().flatten().any(|byte| b"{}<>()[]".contains(byte));
    secret.contains(&b'`') || at_ends || pairs.into_iter().any(pair)
}

/// Is a name in the braces of a template within a URL: `%7Buser%7D`? Alone they are a part of a password that holds the sign.
fn has_encoded(secret: &[u8]) -> bool {
    let brace = |text: &[u8], brace: &[u8; 3]| text.windows(3).position(|it| it.eq_ignore_ascii_case(brace));
    let names = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-$%".contains(byte);
    let mut rest = secret;
    while let Some(open) = brace(rest, b"%7b") {
        rest = rest.get(open + 3..).unwrap_or_default();
        let inside = brace(rest, b"%7d").and_then(|end| rest.get(..end));
        if inside.is_some_and(|inside| !inside.is_empty() && inside.iter().all(names)) {
            return true;
        }
    }
    false
}

/// Is there a variable of a shell in it: `$HOME`, `$db_pass`? What is no name is a part of a password that holds the sign.
fn names_variable(secret: &[u8]) -> bool {
    secret.split(|byte| *byte == b'$').skip(1).any(|rest| {
        let end = rest.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_').unwrap_or(rest.len());
        let name = &rest[..end];
        let all =
            |class: fn(&u8) -> bool| name.iter().all(|byte| class(byte) || byte.is_ascii_digit() || *byte == b'_');
        let begins = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_');
        // A whole value is a variable of whatever name, unless that is noise.
        let is_all = end + 1 == secret.len() && steps(name) * 5 <= name.len() * 2;
        let is_name = is_all || steps(name) <= 1 || all(u8::is_ascii_lowercase) || all(u8::is_ascii_uppercase);
        begins && name.len() >= 2 && is_name
    })
}

/// What a value begins with that says where the secret is: references of secret stores, paths.
const REFERENCES: [&str; 18] = [
    "op://",
    "vault:",
    "file:",
    "ref+",
    "ssm:",
    "arn:aws",
    "projects/",
    "env:",
    "/run/",
    "/etc/",
    "/var/",
    "/home/",
    "/root/",
    "/opt/",
    "/usr/",
    "/tmp/",
    "/secrets/",
    "./",
];

/// Does it say where the secret is, or that it is elsewhere?
pub(super) fn is_reference(secret: &[u8]) -> bool {
    is_account(secret)
        || REFERENCES
            .iter()
            .any(|word| secret.get(..word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes())))
}

/// Is it a line of /etc/passwd, whose password is elsewhere: `x:1000:1000:`?
fn is_account(secret: &[u8]) -> bool {
    let [b'x' | b'*', b':', rest @ ..] = secret else { return false };
    let mut fields = rest.split(|byte| *byte == b':');
    let mut number = || fields.next().is_some_and(|id| !id.is_empty() && id.iter().all(u8::is_ascii_digit));
    let ids = number() && number();
    ids && fields.next().is_some()
}
