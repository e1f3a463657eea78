//! Telling a secret from what people write in its place: masks, sample words, keyboard rows, identifiers.
//!
//! Called through [`super::lookup`] by most rules. Three strengths, because the evidence a pattern gives differs:
//! [`unmasked`] for formats with a prefix of their own (there, `EXAMPLE` in the middle may still be a real leak),
//! [`not_placeholder`] for labelled values, [`random`] for values that nothing but their look gives away.
//! All are linear and look at no more than [`MAX`] bytes.

use super::stand_in;
use crate::entropy::{readable, unreadable};

/// Bytes of a secret that are looked at.
const MAX: usize = 1024;

/// Words that stand where a secret will be. Compared without case.
const WORDS: [&str; 37] = [
    "example",
    "sample",
    "placeholder",
    "changeme",
    "change_me",
    "change-me",
    "changeit",
    "replace",
    "insert",
    "your",
    "dummy",
    "fake",
    "redacted",
    "hidden",
    "masked",
    "omitted",
    "todo",
    "fixme",
    "foobar",
    "lorem",
    "xxxx",
    "****",
    "....",
    "----",
    "____",
    "####",
    "????",
    "0000",
    "1111",
    "aaaa",
    "1234567",
    "abcdef",
    "qwerty",
    "deadbeef",
    "undefined",
    "somekey",
    "sekrit",
];

/// Words that make no secret alone, but may be a part of one (`SuperSecretDBPass!2026`).
const FILLERS: [&str; 24] = [
    "password",
    "passwd",
    "passphrase",
    "pass",
    "secret",
    "token",
    "test",
    "default",
    "value",
    "null",
    "none",
    "user",
    "name",
    "admin",
    "root",
    "string",
    "here",
    "some",
    "that",
    "this",
    "key",
    "api",
    "my",
    "the",
];

/// Values that documents everywhere show: of RFC 5849, 6749 and 6750, of oauthlib, and what was copied from them.
const PUBLISHED: [&str; 11] = [
    "2YotnFZFEjr1zCsicMWpAA",
    "tGzv3JOkF0XG5Qx2TlKWIA",
    "SlAV32hkKG",
    "mF_9.B5f-4.1JqM",
    "h480djs93hd8",
    "kjfch2345sdf",
    "kkk9d7dh3k39sjv7",
    "ad180jjd733klru7",
    "hh5s93j4hdidpola",
    "sdf0o9823sjdfsdf",
    "sdlfkj452",
];

/// Letters and digits that must be left of a value without its fillers.
const REST: usize = 5;

/// Words that also stand in formats with a prefix: nobody's token holds them by chance.
const LOUD: [&str; 9] = ["your", "xxxx", "****", "....", "placeholder", "changeme", "redacted", "insert", "replace_"];

/// Bytes of noise that make a secret whatever stands around them.
const NOISE: usize = 20;

/// Share of a value, in percent, that mask characters may make up.
const MASK_SHARE: usize = 60;

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
}

fn distinct(bytes: &[u8]) -> u32 {
    let mut seen = [0u64; 4];
    for &byte in bytes {
        seen[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
    seen.iter().map(|word| word.count_ones()).sum()
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(MAX)]
}

/// Not masked out: `x`, `*`, `.` and the like make up less than 60 percent, at least four different bytes, and no word
/// such as `your` or `redacted` in it. For formats that are told by a prefix.
pub(super) fn unmasked(secret: &[u8]) -> bool {
    let secret = head(secret);
    let masks = secret.iter().filter(|byte| b"xX*.#?_<>$%".contains(byte)).count();
    let plain = masks * 100 < secret.len() * MASK_SHARE && distinct(secret) >= 4;
    plain && !LOUD.iter().any(|word| contains(secret, word)) || holds_noise(secret)
}

/// Whether a stretch of at least [`NOISE`] bytes between sample words, masks and marks is noise: a real secret stays one
/// when somebody writes `xxxx` or `your` behind it, or puts it in `${…}`.
fn holds_noise(secret: &[u8]) -> bool {
    let word_at = |at: usize| {
        let rest = secret.get(at..).unwrap_or_default();
        let found = LOUD
            .iter()
            .chain(&WORDS)
            .filter(|word| rest.get(..word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes())));
        found.map(|word| word.len()).max()
    };
    let noise = |piece: &[u8]| {
        piece.len() >= NOISE
            && piece.iter().filter(|byte| byte.is_ascii_digit()).count() >= 2
            && piece.iter().any(u8::is_ascii_alphabetic)
            && distinct(piece) >= 10
            && !row(piece, 6)
            && steps(piece) * 5 >= piece.len()
    };
    let (mut start, mut at) = (0, 0);
    while at < secret.len() {
        let byte = secret[at];
        let skip = word_at(at).unwrap_or(usize::from(!byte.is_ascii_alphanumeric() && !b"+/_-".contains(&byte)));
        if skip > 0 {
            if noise(&secret[start..at]) {
                return true;
            }
            start = at + skip;
        }
        at += skip.max(1);
    }
    noise(secret.get(start..).unwrap_or_default())
}

/// As [`unmasked`], and no byte makes up more than half of it: for tokens whose checksum is wrong.
pub(super) fn varied(secret: &[u8]) -> bool {
    let secret = head(secret);
    let mut counts = [0usize; 256];
    for &byte in secret {
        counts[usize::from(byte)] += 1;
    }
    unmasked(secret) && counts.iter().all(|&count| count * 2 <= secret.len())
}

/// A labelled value that somebody could use: varied, no sample word, no counting or alphabet row, no variable
/// (`${…}`, `%s`, `{{…}}`, `<…>`, `a.b.c()`).
pub(super) fn not_placeholder(secret: &[u8]) -> bool {
    let secret = head(secret);
    let template = contains(secret, "%s") || stand_in::is_template(secret);
    if PUBLISHED.iter().any(|known| secret == known.as_bytes()) {
        return false;
    }
    let plain = !template
        && !stand_in::is_reference(secret)
        && varied(secret)
        && !WORDS.iter().any(|word| contains(secret, word))
        && !row(secret, 6)
        && rest(secret) >= REST;
    plain || holds_noise(secret)
}

/// Letters and digits that are in no filler word.
fn rest(secret: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while let Some(&byte) = secret.get(at) {
        let filler = FILLERS.iter().find(|word| {
            secret.get(at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()))
        });
        count += usize::from(filler.is_none() && byte.is_ascii_alphanumeric());
        at += filler.map_or(1, |word| word.len());
    }
    count
}

/// A value that looks random: [`not_placeholder`], letters and digits mixed, or letters in such order as no words have them,
/// and not words joined together.
pub(super) fn random(secret: &[u8]) -> bool {
    not_placeholder(secret) && ((mixed(secret) || scrambled(secret)) && !worded(secret) || jumbled(secret))
}

/// Letters of both cases that cannot be words whatever their vowels: every second pair is none of a word, or capitals cut them into
/// pieces of fewer than four letters.
fn jumbled(secret: &[u8]) -> bool {
    let secret = head(secret);
    let has = |class: fn(&u8) -> bool| secret.iter().any(class);
    secret.len() >= 10
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_uppercase)
        && secret.iter().all(u8::is_ascii_alphabetic)
        && steps(secret) >= 2
        && (unreadable(secret) || steps(secret) >= 3 && (steps(secret) + 1) * 4 > secret.len() && !readable(secret))
}

/// Letters of both cases that do not read like words, as one in eight passwords of twelve letters and digits is by chance.
fn scrambled(secret: &[u8]) -> bool {
    let secret = head(secret);
    let has = |class: fn(&u8) -> bool| secret.iter().any(class);
    secret.len() >= 10
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_uppercase)
        && steps(secret) >= 3
        && !readable(secret)
        && secret.iter().all(|byte| byte.is_ascii_alphabetic() || b"!@#%^*+~-_=".contains(byte))
}

/// Letters and digits, both.
pub(super) fn mixed(secret: &[u8]) -> bool {
    let secret = head(secret);
    secret.iter().any(u8::is_ascii_digit) && secret.iter().any(u8::is_ascii_alphabetic)
}

/// A prefixed token: [`unmasked`], and letters and digits mixed, so that `sk_live_and_learn` is none.
pub(super) fn token(secret: &[u8]) -> bool {
    mixed(secret) && unmasked(secret)
}

/// Names of hashes, ciphers and encodings, before a digit or a mark: `SHA256-hashed`, `base64-encoded`.
const FORMS: [&str; 19] = [
    "scram-sha",
    "sha",
    "md",
    "aes",
    "rsa",
    "des",
    "base",
    "utf",
    "argon",
    "bcrypt",
    "scrypt",
    "pbkdf",
    "hmac",
    "x",
    "iso",
    "oauth",
    "http",
    "rfc",
    "crc",
];

fn is_form(secret: &[u8]) -> bool {
    FORMS.iter().any(|word| {
        let named = secret.get(..word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()));
        let rest = secret.get(word.len()..).unwrap_or_default();
        let digits = rest.iter().skip_while(|byte| **byte == b'-').take_while(|byte| byte.is_ascii_digit()).count();
        // A number that is no part of noise: a word follows it, or nothing.
        let behind = rest.iter().skip_while(|byte| **byte == b'-').skip(digits);
        let word = behind.clone().take_while(|byte| byte.is_ascii_alphabetic() || **byte == b'-').count();
        named && digits > 0 && word == behind.count()
    })
}

/// A name of a program's, or of a file: small letters and a dot, and hardly a digit.
fn is_dotted(secret: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(byte);
    secret.contains(&b'.')
        && secret.iter().all(plain)
        && secret.iter().filter(|byte| byte.is_ascii_digit()).count() <= 2
}

/// A password somebody chose: [`not_placeholder`], a digit, two of lower case, upper case and other, and no path, name or form.
pub(super) fn strong_password(secret: &[u8]) -> bool {
    let secret = head(secret);
    let classes = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_punctuation];
    let present = classes.iter().filter(|class| secret.iter().any(class)).count();
    let path = secret.iter().filter(|byte| b"/\\:.,".contains(byte)).count() > 1;
    !path
        && !is_form(secret)
        && !is_dotted(secret)
        && present >= 2
        && secret.iter().any(u8::is_ascii_digit)
        && not_placeholder(secret)
}

/// The hash of a password, as crypt(3) and bcrypt write it: `$2b$10$…`. It has rules of its own.
fn is_hash(secret: &[u8]) -> bool {
    let Some(rest) = secret.strip_prefix(b"$") else { return false };
    let name = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-').count();
    (1..=12).contains(&name) && rest.get(name) == Some(&b'$')
}

/// A password that stands where one has to: [`random`], or [`strong_password`] with a sign or a number that no name of a program
/// holds.
pub(super) fn password(secret: &[u8]) -> bool {
    let noise = || random(secret) && !is_form(head(secret));
    let has_sign = || head(secret).iter().any(|byte| b"!@#$%^&*?+~".contains(byte));
    let chosen = || strong_password(secret) && (has_sign() || numbered(head(secret)));
    !is_hash(secret) && (noise() || chosen())
}

/// Words and a number of three to six digits, as `Harbour_winter2209`: versions and names of programs end in fewer.
fn numbered(secret: &[u8]) -> bool {
    let digits = secret.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (words, number) = secret.split_at(secret.len() - digits);
    let is_round = number.iter().skip(1).all(|byte| *byte == b'0');
    (3..=6).contains(&digits)
        && !is_round
        && words.len() >= 6
        && words.first().is_some_and(u8::is_ascii_uppercase)
        && words.iter().all(|byte| byte.is_ascii_alphabetic() || b"_-.".contains(byte))
}

/// What a label that names nothing else makes a password: a [`bare_password`], small letters that are no words, as mail services give
/// them to programs, or a [`passphrase`].
pub(super) fn sure_password(secret: &[u8]) -> bool {
    let secret = head(secret);
    let letters: Vec<u8> = secret.iter().copied().filter(|byte| *byte != b' ').collect();
    let small = letters.len() >= 12
        && letters.iter().all(u8::is_ascii_lowercase)
        && !readable(&letters)
        && distinct(&letters) >= 6
        && not_placeholder(&letters);
    small || !secret.contains(&b' ') && bare_password(secret)
}

/// The same of what has no quotes around it, where programs have no names either: any [`strong_password`].
pub(super) fn bare_password(secret: &[u8]) -> bool {
    let noise = || random(secret) && !is_form(head(secret)) && !is_dotted(head(secret));
    !is_hash(secret) && (noise() || strong_password(secret))
}

/// A password of words: [`not_placeholder`], and words or other characters joined by marks, or a digit among letters; a name
/// with dots (`self.password`) is none.
pub(super) fn passphrase(secret: &[u8]) -> bool {
    let secret = head(secret);
    let parts = secret.split(|byte| b"-_ +!~".contains(byte)).filter(|part| part.len() >= 3).count();
    !secret.contains(&b'.') && (parts >= 3 || strong_password(secret)) && not_placeholder(secret)
}

/// Hexadecimal that no counting row or repetition made: for keys that are told by a label only.
pub(super) fn hex(secret: &[u8]) -> bool {
    let secret = head(secret);
    secret.iter().all(u8::is_ascii_hexdigit)
        && mixed(secret)
        && distinct(secret) >= 8
        && varied(secret)
        && !row(secret, 6)
}

/// An ascending or descending row (`abcdef`, `987654`) of at least `least` bytes.
fn row(secret: &[u8], least: usize) -> bool {
    let (mut up, mut down) = (1, 1);
    for pair in secret.windows(2) {
        let alphanumeric = pair[0].is_ascii_alphanumeric() && pair[1].is_ascii_alphanumeric();
        up = if alphanumeric && pair[1] == pair[0].wrapping_add(1) { up + 1 } else { 1 };
        down = if alphanumeric && pair[0] == pair[1].wrapping_add(1) { down + 1 } else { 1 };
        if up >= least || down >= least {
            return true;
        }
    }
    false
}

/// A step from letter to digit, from digit to letter or from lower to upper case.
fn step(pair: &[u8]) -> bool {
    let [a, b] = pair else { return false };
    (a.is_ascii_alphabetic() && b.is_ascii_digit())
        || (a.is_ascii_digit() && b.is_ascii_alphabetic())
        || (a.is_ascii_lowercase() && b.is_ascii_uppercase())
}

pub(super) fn steps(secret: &[u8]) -> usize {
    secret.windows(2).filter(|pair| step(pair)).count()
}

/// Words rather than noise, by three signs together: steps from letter to digit, from digit to letter and from lower to
/// upper case are rarer than one in four bytes; half of it are runs of four or more letters of a case; and a quarter of
/// those letters are vowels. `getUserNameFromToken2` and `my-service-account-01` show all three, noise hardly ever.
///
/// A long part of its own (a service account's token behind its name and a dot) that is noise makes the whole noise.
fn worded(secret: &[u8]) -> bool {
    let parts = secret.split(|byte| b".-_:/".contains(byte)).filter(|part| part.len() >= NOISE);
    part_worded(secret) && parts.into_iter().all(part_worded)
}

fn part_worded(secret: &[u8]) -> bool {
    let (mut letters, mut vowels) = (0, 0);
    for run in secret.chunk_by(|a, b| a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && !step(&[*a, *b])) {
        if run.len() >= 4 && run[0].is_ascii_alphabetic() {
            letters += run.len();
            vowels += run.iter().filter(|byte| b"aeiouAEIOU".contains(byte)).count();
        }
    }
    steps(secret) * 4 < secret.len() && letters * 2 >= secret.len() && vowels * 4 >= letters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_no_secrets_whatever_their_prefix() {
        for text in ["ghp_xxxxxxxxxxxxxxxxxxxxxxxx", "sk-****************", "sk-ant-your-key-here-1234", "xxx", ""] {
            assert!(!unmasked(text.as_bytes()), "{text}");
        }
        for text in ["sk-proj-FAKE0000000000000000TEST0000", "AKIAIOSFODNN7EXAMPLE", "SG.FAKE_TEST_KEY_00.FAKE_00000"] {
            assert!(unmasked(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn labelled_values_must_be_usable() {
        for text in ["changeme123", "${DB_PASSWORD}", "<password>", "abcdefgh12", "my-secret-value", "os.environ()"] {
            assert!(!not_placeholder(text.as_bytes()), "{text}");
        }
        for text in ["kV8wQ2zL9nT4", "correct-horse-battery", "SuperSecretDBPass!2026", "9f86d081884c7d65"] {
            assert!(not_placeholder(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn brackets_of_a_password_are_told_from_those_of_a_template() {
        for text in ["Zqumpm08(hsE8JNpj", "qE3B]rTEz(efRjP5", "a9<Kq2!mZ{x7", "8-h*@u+2(&^!o)g-qap6"] {
            assert!(not_placeholder(text.as_bytes()), "{text}");
        }
        for text in ["{user}4kV8wQ", "kV8wQ2(zL9nT4)", "row[12]kV8", "x()kV8wQ2zL", "<kV8wQ2zL9nT4", "kV8wQ2zL9nT4]"] {
            assert!(!not_placeholder(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_only_begins_as_a_template_or_an_account_is_a_secret() {
        for text in ["pa%7Bss9xKq", "pa%7B%7Dss9xKq", "%7b9xKq2mZ&pL", "x:1Tr0ub4dor&3xKq!9", "*:7Lq9Wm2xZv&k"] {
            assert!(not_placeholder(text.as_bytes()), "{text}");
        }
        for text in
            ["%7Buser%7D9xKq2mZ", "a%7b%7Bdb.pass%7d%7D9xKq", "x:1000:1000:Bob:/home/bob", "*:0:0:", "x:65534:99:"]
        {
            assert!(!not_placeholder(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_placeholder_beside_a_secret_does_not_hide_it() {
        let real = "kV8wQ2zL9nT4pR6mX1cB7yD3";
        for text in
            ["{}xxxxxxxx", "your-{}", "{}EXAMPLE", "example{}example", "${{}}", "<{}>", "{}....", "insert{}0000"]
        {
            let text = text.replace("{}", real);
            assert!(unmasked(text.as_bytes()) && not_placeholder(text.as_bytes()), "{text}");
        }
        let buried = format!("{real}{}", "x".repeat(200));
        assert!(unmasked(buried.as_bytes()) && not_placeholder(buried.as_bytes()));
        let referred = format!("./{real}");
        assert!(not_placeholder(referred.as_bytes()));
        for text in [
            "${SERVICE_ACCOUNT_TOKEN_V2_NAME}",
            "your-openai-api-key-goes-here-2024",
            "<insert-your-token-number-12-here>",
        ] {
            assert!(!not_placeholder(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn random_is_not_an_identifier() {
        for text in ["getUserNameFromTokenStore2", "my-service-account-01", "aVeryLongIdentifierName1"] {
            assert!(!random(text.as_bytes()), "{text}");
        }
        assert!(random(b"x7Kp2mQ9vR4sL8nW1bY6cT3fA0jH5dE"));
        assert!(random(b"9f86d081884c7d659a2feaa0c55ad015"));
        assert!(random(b"kVwQzLnTpRmX") && random(b"fGhTrWqLpZsN"));
        for text in ["epcXwvqxvVVVog", "OEUZlWHjaRixFH", "QxhTzAqoKwpRv"] {
            assert!(random(text.as_bytes()), "{text}");
        }
        for text in [
            "getDatabaseTokenStore",
            "XMLHttpRequestBody",
            "myPasswordHere",
            "DBUserPwdConfig",
            "isOkToDoItNow",
            "someVeryLongName",
            "kvwqzlntprmx",
        ] {
            assert!(!random(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_chosen_password_is_no_identifier() {
        for text in ["SuperSecretDBPass!2026", "kV8wQ2zL9nT4", "rT7#pLw02qZx"] {
            assert!(strong_password(text.as_bytes()), "{text}");
        }
        for text in ["getPassword", "my-secret-name", "config.db.Password1", "/etc/Secret1/x", "Required!"] {
            assert!(!strong_password(text.as_bytes()), "{text}");
        }
        for text in ["x7Kp2mQ9vR4s", "Base64Kq8!vTz", "tiger.Woods77", "sha-7Qk!pz2W"] {
            assert!(strong_password(text.as_bytes()), "{text}");
        }
        for text in ["SHA256-hashed", "base64-encoded", "form.password1", "UTF-8-encoded", "file:/etc/s3cret/Jwt"] {
            assert!(!strong_password(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn words_with_a_number_are_a_password() {
        for text in ["Harbour_winter2209", "Lantern.orchid884", "Coppersaddle2231"] {
            assert!(password(text.as_bytes()), "{text}");
        }
        for text in ["Version_name2", "GetAccessToken10", "Resource_type1000", "port_number_8443", "Changeme_now1234"] {
            assert!(!password(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn small_letters_are_a_password_where_nothing_else_is() {
        for text in ["qzkwvxjtrpld", "wkqz pvxj trnl hgfd", "kV8wQ2zL9nT4"] {
            assert!(sure_password(text.as_bytes()), "{text}");
        }
        for text in ["administrator", "the user chooses", "getpassword", "mypassword", "some words that are text"] {
            assert!(!sure_password(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_dollar_sign_is_a_part_of_a_password_or_begins_a_variable() {
        for text in ["k7$Tq9LmW2xZv", "Hamburg$2998", "Tq9LmW2xZv$", "a$9kV8wQ2z", "Xk2$$Qp9Lm4z"] {
            assert!(password(text.as_bytes()), "{text}");
        }
        for text in [
            "$dbAdminPwd1",
            "$myDbUserPw2",
            "$2b$10$N9qo8uLOickgx2ZMRZoMye",
            "$DB_PASSWORD2",
            "x-$db_pass_2",
            "pre9$Version",
            "k7$HOME-9aB",
            "$password1",
        ] {
            assert!(!password(text.as_bytes()), "{text}");
        }
        for text in ["Hamburg!2998", "kV8wQ2zL9nT4", "705bdd77bfe71ac0"] {
            assert!(password(text.as_bytes()) && bare_password(text.as_bytes()), "{text}");
        }
        assert!(!password(b"getUserPasswordField2") && !password(b"changeme!23"));
    }

    #[test]
    fn a_passphrase_is_of_several_words() {
        for text in ["correct-horse-battery-staple", "purple_monkey_dishwasher", "kV8wQ2zL9nT4"] {
            assert!(passphrase(text.as_bytes()), "{text}");
        }
        for text in ["my-secret-name", "required", "self.password", "your-password-here", "config.db.user_pass_word"] {
            assert!(!passphrase(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn hexadecimal_without_variety_is_none() {
        assert!(hex(b"9f86d081884c7d659a2feaa0c55ad015"));
        assert!(!hex(b"0123456789abcdef0123456789abcdef"));
        assert!(!hex(b"00000000000000000000000000000001"));
    }
}
