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

/// Of each byte: 0, or the number of a small letter from 1 on, or of a capital from 33 on.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut letter = 0;
    while letter < 26 {
        kinds[(b'a' + letter) as usize] = 1 + letter;
        kinds[(b'A' + letter) as usize] = 33 + letter;
        letter += 1;
    }
    kinds
};

/// Of each two kinds: 1 for a pair of letters, 3 for a rare one. A capital after a small letter begins a new word.
const PAIRS: [u8; 64 * 64] = {
    let mut pairs = [0; 64 * 64];
    let mut first = 0;
    while first < 26 {
        let rare = RARE[first].as_bytes();
        let mut second = 0;
        while second < 26 {
            let mut count = 1;
            let mut at = 0;
            while at < rare.len() {
                if rare[at] as usize == b'a' as usize + second {
                    count = 3;
                }
                at += 1;
            }
            let (small, capital) = (1 + first, 33 + first);
            pairs[small * 64 + 1 + second] = count;
            pairs[capital * 64 + 1 + second] = count;
            pairs[capital * 64 + 33 + second] = count;
            second += 1;
        }
        first += 1;
    }
    pairs
};

/// Pairs of neighbouring letters, and those of them that are rare.
fn pairs(text: &[u8]) -> (usize, usize) {
    let (mut all, mut rare, mut first) = (0, 0, 0);
    for byte in text {
        let second = KINDS[usize::from(*byte)];
        let pair = PAIRS[usize::from(first & 63) * 64 + usize::from(second & 63)];
        all += usize::from(pair & 1);
        rare += usize::from(pair >> 1);
        first = second;
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
    fn pairs_are_counted_within_words() {
        assert_eq!(pairs(b"committee"), (8, 0));
        assert_eq!(pairs(b"qz-qz Xk"), (3, 3));
        assert_eq!(pairs(b"qzQZqz"), (4, 4));
        assert_eq!(pairs(b"zQuay"), (3, 0));
        assert_eq!(pairs(b"q"), (0, 0));
    }

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
