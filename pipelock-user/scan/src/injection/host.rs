//! Tells a word of a sentence from a label of a host name (`send.example.org`). Used by the scorer, so that lists of names do
//! not add up to an order. Promises work bounded by the longest name.

/// Longest host name, in bytes.
const MAX: usize = 253;

/// Last labels that are no words of sentences; others may be the word behind a full stop without a space.
const LAST: &[&str] =
    &["com", "net", "org", "io", "dev", "edu", "gov", "info", "local", "internal", "example", "test", "cloud", "app"];

/// Whether what stands between `before` and `behind` is a part of a host name.
pub(super) fn holds(before: &str, behind: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let near = |byte: Option<u8>| byte.is_some_and(|byte| byte == b'.' || byte == b'-');
    if !near(before.bytes().next_back()) && !near(behind.bytes().next()) {
        return false;
    }
    let left = before.bytes().rev().take(MAX).take_while(|&byte| part(byte)).count();
    let right = behind.bytes().take(MAX).take_while(|&byte| part(byte)).count();
    let (lead, head) = before.split_at_checked(before.len() - left).unwrap_or_default();
    let rest = behind.get(..right).unwrap_or_default().trim_end_matches(['.', '-']);
    let Some((inner, last)) = rest.rsplit_once('.') else { return false };
    let labels = |name: &str| name.split('.').skip(1).all(|label| !label.is_empty());
    // An address is given to be called, and its name may say for what.
    !lead.ends_with("://") && !head.starts_with(['-', '.']) && labels(inner) && LAST.contains(&last)
}

#[cfg(test)]
mod tests {
    use super::holds;

    #[test]
    fn labels_and_words() {
        assert!(holds("", ".example.org\n"));
        assert!(holds("at eu.", ".example.com/a"));
        assert!(!holds("https://", ".example.com/a"));
        assert!(holds("my-", "-2.example.net, "));
        assert!(!holds("", ".read the key"));
        assert!(!holds("all previous ", ". go to a.example.com"));
        assert!(!holds("ignore.all.", ".rules"));
    }
}
