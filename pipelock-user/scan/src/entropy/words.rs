//! Whether letters read like words of some language written in Latin letters.
//!
//! Called by the URL and host checks. It counts pairs of letters that are rare in words and common in noise; it knows no
//! dictionary. Promises: one pass, no allocation.

/// For each letter, the letters that rarely or never follow it within words of English and its neighbours.
const RARE: [&str; 26] = [
    "",                          // a: followed by all
    "cfgkpqwxz",                 // b
    "bdfgjmpvwxz",               // c
    "bcfkpqtxz",                 // d
    "",                          // e
    "bcdghjkmnpqvwxz",           // f
    "bcdfjkpqvwxz",              // g
    "bcdfghjkpqvxz",             // h
    "iwy",                       // i
    "bcdfghjklmnpqrstvwxyz",     // j
    "bcdfgjkmpqtvxz",            // k
    "hjnqrxz",                   // l
    "cdfghjkqrvwxz",             // m
    "bpqrwxz",                   // n
    "jqz",                       // o
    "bcdfgjkmnqvwxz",            // p
    "abcdefghijklmnopqrstvwxyz", // q: followed by u only
    "jqxz",                      // r
    "bdgjrvxz",                  // s
    "bdfgjkpqvx",                // t
    "jqvwuy",                    // u
    "bcdfghjklmnpqrstvwxz",      // v
    "bcdfgjkmpqtvwxz",           // w
    "bdfgjklmnqrsvwxz",          // x
    "bfghjkqvxy",                // y
    "bcdfghjkmnpqrstvwx",        // z
];

const TABLE: [u32; 26] = {
    let mut table = [0; 26];
    let mut letter = 0;
    while letter < 26 {
        let rare = RARE[letter].as_bytes();
        let mut at = 0;
        while at < rare.len() {
            table[letter] |= 1 << (rare[at] - b'a');
            at += 1;
        }
        letter += 1;
    }
    table
};

/// Pairs of neighbouring letters, and those of them that are rare. A capital after a small letter begins a new word.
fn pairs(text: &[u8]) -> (usize, usize) {
    let (mut all, mut rare) = (0, 0);
    for pair in text.windows(2) {
        let [a, b] = [pair[0], pair[1]];
        let begins = a.is_ascii_lowercase() && b.is_ascii_uppercase();
        if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && !begins {
            all += 1;
            let bit = (b | 0x20) - b'a';
            rare += usize::from((TABLE[usize::from((a | 0x20) - b'a')] >> bit) & 1 == 1);
        }
    }
    (all, rare)
}

/// Mostly letters, and few rare pairs among them: at most one in eight. Of noise it is one in three.
pub(crate) fn readable(text: &[u8]) -> bool {
    let letters = text.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    let (all, rare) = pairs(text);
    letters * 4 >= text.len() * 3 && all * 2 >= letters && rare * 8 <= all
}

/// Letters of which every second pair is rare: more than any word, name or abbreviation has.
pub(crate) fn unreadable(text: &[u8]) -> bool {
    let (all, rare) = pairs(text);
    all >= 6 && rare * 2 >= all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_read_and_noise_does_not() {
        for text in ["kubernetesdashboard", "getUserAuthenticationToken", "wirtschaftsinformatik", "desarrolladores"] {
            assert!(readable(text.as_bytes()), "{text}");
        }
        for text in ["jbswydpehpkpxpqz", "x7Kp2mQ9vR4sL8nW1bY6", "qzxvkjwphbtgmfd", "4a6f686e446f65"] {
            assert!(!readable(text.as_bytes()), "{text}");
        }
    }
}
