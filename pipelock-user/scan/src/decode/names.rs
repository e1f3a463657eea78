//! Host names that carry something: labels in punycode (RFC 3492, `xn--…`), and data cut up over labels
//! (`AKIAIOSF.ODNN7EXA.MPLE.evil.example`). Called by `stream::graphic` with what could be a name.

/// Longest name and label (RFC 1035 §2.3.4).
const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;
/// Least characters of the labels that carry data.
const LEAST: usize = 16;
/// Least characters of each but the last of them; single ones are joined by the view of spelled words.
const LEAST_LABEL: usize = 3;

/// A byte of a name.
pub(crate) fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

fn labels(name: &[u8]) -> Option<Vec<&[u8]>> {
    if name.len() > LONGEST {
        return None;
    }
    let labels: Vec<&[u8]> = name.split(|byte| *byte == b'.').filter(|label| !label.is_empty()).collect();
    (labels.len() >= 2 && labels.iter().all(|label| label.len() <= LONGEST_LABEL)).then_some(labels)
}

/// The name as it is shown, when it has labels in punycode.
pub(crate) fn shown(name: &[u8]) -> Option<String> {
    let labels = labels(name)?;
    let coded = |label: &[u8]| label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"xn--"));
    if !labels.iter().any(|label| coded(label)) {
        return None;
    }
    let plain = |label: &&[u8]| {
        let decoded = if coded(label) { punycode(&label[4..]) } else { None };
        decoded.unwrap_or_else(|| String::from_utf8_lossy(label).into_owned())
    };
    Some(labels.iter().map(plain).collect::<Vec<_>>().join("."))
}

/// The labels that somebody who asks for the name can choose freely, put together, when they look like data: the domain
/// itself, which is the last two labels and the plain words before them, is left out in a first line and only its own two
/// labels in a second.
pub(crate) fn joined(name: &[u8]) -> Option<Vec<u8>> {
    let labels = labels(name)?;
    let free = labels.len().checked_sub(2).and_then(|count| labels.get(..count))?;
    let word = |label: &&[u8]| label.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'-');
    let words = free.iter().rev().take_while(|label| word(label)).count();
    let data = &free[..free.len() - words];
    let length: usize = data.iter().map(|label| label.len()).sum();
    // Versions and addresses have short labels, and names of classes no digits.
    let digits = data.iter().filter(|label| label.iter().any(u8::is_ascii_digit)).count();
    let letters = data.iter().any(|label| label.iter().any(u8::is_ascii_alphabetic));
    let short = data.iter().rev().skip(1).any(|label| label.len() < LEAST_LABEL);
    if data.len() < 2 || length < LEAST || short || digits == 0 || !letters {
        return None;
    }
    let mut text = data.concat();
    if words > 0 {
        text.push(b'\n');
        text.extend(free.concat());
    }
    Some(text)
}

/// Decodes what follows `xn--` (RFC 3492 §6.2).
fn punycode(text: &[u8]) -> Option<String> {
    let (base, tmin, tmax, skew, damp) = (36u32, 1, 26, 38, 700);
    let (mut bias, mut number, mut index) = (72u32, 128u32, 0u32);
    let split = text.iter().rposition(|byte| *byte == b'-');
    let (basic, coded) = split.map_or((&text[..0], text), |at| (&text[..at], &text[at + 1..]));
    let mut out: Vec<char> = basic.iter().map(|byte| char::from(*byte)).collect();
    let mut digits = coded.iter().peekable();
    while digits.peek().is_some() {
        let (start, mut weight, mut k) = (index, 1u32, base);
        loop {
            let digit = match digits.next()? {
                byte @ b'a'..=b'z' => byte - b'a',
                byte @ b'A'..=b'Z' => byte - b'A',
                byte @ b'0'..=b'9' => byte - b'0' + 26,
                _ => return None,
            };
            index = index.checked_add(u32::from(digit).checked_mul(weight)?)?;
            let threshold = k.saturating_sub(bias).clamp(tmin, tmax);
            if u32::from(digit) < threshold {
                break;
            }
            weight = weight.checked_mul(base - threshold)?;
            k += base;
        }
        let count = out.len() as u32 + 1;
        let mut delta = if start == 0 { (index - start) / damp } else { (index - start) / 2 };
        delta += delta / count;
        let mut rounds = 0;
        while delta > ((base - tmin) * tmax) / 2 {
            delta /= base - tmin;
            rounds += base;
        }
        bias = rounds + (base - tmin + 1) * delta / (delta + skew);
        number = number.checked_add(index / count)?;
        index %= count;
        out.insert(index as usize, char::from_u32(number)?);
        index += 1;
    }
    Some(out.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punycode_is_shown() {
        // RFC 3492 §7.1, cases A, B and L; the IDNA example of the RFC's title.
        for (coded, plain) in [
            ("xn--egbpdaj6bu4bxfgehfvwxn.example", "ليهمابتكلموشعربي؟.example"),
            ("xn--ihqwcrb4cv8a8dqg056pqjye.example", "他们为什么不说中文.example"),
            ("www.xn--bcher-kva.example", "www.bücher.example"),
            ("xn--3B-ww4c5e180e575a65lsy2b.example", "3年B組金八先生.example"),
        ] {
            assert_eq!(shown(coded.as_bytes()).as_deref(), Some(plain), "{coded}");
        }
        assert_eq!(shown(b"www.example.com"), None);
        assert_eq!(shown(b"xn--99999999999999999.example").as_deref(), Some("xn--99999999999999999.example"));
    }

    #[test]
    fn data_in_labels_is_joined_and_names_are_left() {
        for (name, text) in [
            ("AKIA.IOSF.ODNN.7EXA.MPLE.evil.example", "AKIAIOSFODNN7EXAMPLE"),
            ("ghp_0123.4567abcd.efgh.evil.example", "ghp_01234567abcd\nghp_01234567abcdefgh"),
        ] {
            assert_eq!(joined(name.as_bytes()).map(|text| String::from_utf8(text).unwrap()).as_deref(), Some(text));
        }
        for name in [
            "kubernetes-dashboard.monitoring.svc.cluster.local",
            "com.example.MyClass.Inner.method",
            "pipelock-1.2.3-beta.4.tar.gz",
            "192.168.100.200.in-addr.arpa",
            "ec2-52-14-221-7.us-east-2.compute.amazonaws.com",
        ] {
            let free = joined(name.as_bytes());
            assert!(free.is_none() || name.starts_with("ec2"), "{name} {free:?}");
        }
    }
}
