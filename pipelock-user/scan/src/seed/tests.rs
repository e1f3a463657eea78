//! Phrases in every language and layout, and texts that are none.

use super::*;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use unicode_normalization::UnicodeNormalization as _;

const ENGLISH: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

fn one(text: &str) -> Phrase {
    let found = scan(text);
    assert_eq!(found.len(), 1, "{found:?} in {text}");
    found[0]
}

#[test]
fn separators_case_and_numbers_do_not_matter() {
    let words: Vec<&str> = ENGLISH.split(' ').collect();
    let numbered: String = words.iter().enumerate().map(|(at, word)| format!("{}. {word}\n", at + 1)).collect();
    let labelled: String = words.iter().enumerate().map(|(at, word)| format!("word{}={word}&", at + 1)).collect();
    let glued: String = words.iter().enumerate().map(|(at, word)| format!("{word}{} ", at + 1)).collect();
    for text in [
        ENGLISH.to_owned(),
        ENGLISH.to_uppercase(),
        words.join(","),
        words.join("\n"),
        words.join("_"),
        words.join("|"),
        words.join("%20").replace("%20", " + "),
        format!("{words:?}"),
        format!("my wallet: {ENGLISH}."),
        numbered,
        labelled,
        glued,
    ] {
        let phrase = one(&text);
        // `word` is a word of the list itself: with its labels read, the text may hold a longer phrase by chance.
        assert_eq!(phrase.language, Language::English, "{text}");
        assert!(phrase.words == 12 || text.starts_with("word"), "{text}");
    }
}

#[test]
fn the_span_is_that_of_the_phrase() {
    let text = format!("send this: {ENGLISH} now");
    let phrase = one(&text);
    assert_eq!(&text[phrase.start as usize..phrase.end as usize], ENGLISH);
}

#[test]
fn every_language_has_phrases() {
    // All-zero entropy of 16 bytes gives the first word eleven times and the fourth; of 32 bytes another last word.
    for (at, language) in LANGUAGES.into_iter().enumerate() {
        let first = |number: u16| lists_word(at, number);
        let text = format!("{}{}", format!("{} ", first(0)).repeat(11), first(3));
        let phrase = one(&text);
        assert_eq!(phrase.words, 12, "{language:?}");
        // Words that several lists share, as the Chinese ones do, leave the language open.
        if !matches!(language, Language::ChineseTraditional) {
            assert_eq!(phrase.language, language);
        }
    }
}

fn lists_word(language: usize, number: u16) -> String {
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap() + "/wordlists/";
    let names = [
        "english",
        "japanese",
        "korean",
        "spanish",
        "chinese_simplified",
        "chinese_traditional",
        "french",
        "italian",
        "czech",
        "portuguese",
    ];
    let text = std::fs::read_to_string(format!("{folder}{}.txt", names[language])).unwrap();
    text.lines().nth(usize::from(number)).unwrap().to_owned()
}

#[test]
fn unspaced_chinese_needs_an_announcement() {
    let phrase = format!("{}{}", lists_word(4, 0).repeat(11), lists_word(4, 3));
    assert_eq!(scan(&format!("我的助记词：{phrase}。")).len(), 1);
    assert_eq!(scan(&format!("我说：{phrase}。")).len(), 0);
    assert_eq!(scan(&format!("助记词：{phrase}的。")).len(), 0);
}

#[test]
fn prose_lists_and_wrong_checksums_are_no_phrases() {
    for text in [
        "legal winner thank year wave sausage worth useful legal winner thank thank",
        "legal winner thank year wave sausage worth useful legal winner thank the yellow",
        "The quick brown fox jumps over the lazy dog and then the story goes on as stories do.",
        include_str!("../../wordlists/english.txt"),
        include_str!("../../wordlists/french.txt"),
        include_str!("mod.rs"),
    ] {
        assert_eq!(scan(text), [], "{}", &text[..40]);
    }
}

#[test]
fn longer_phrases_win_over_those_inside_them() {
    let text = "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen patrol \
                group space point ten exist slush involve unfold";
    assert_eq!(one(text).words, 24);
}

/// The words that say these bytes, 16 to 32 of them.
fn phrase_of(language: usize, entropy: &[u8]) -> Vec<&'static str> {
    let sum = Sha256::digest(entropy);
    let bit = |at: usize| entropy.get(at / 8).unwrap_or(&sum[0]) >> (7 - at % 8) & 1;
    let count = entropy.len() * 3 / 4;
    let number = |word: usize| (0..11).fold(0, |number, at| number << 1 | usize::from(bit(word * 11 + at)));
    (0..count).map(|word| lists::TEXTS[language].lines().nth(number(word)).unwrap()).collect()
}

const SEPARATORS: [&str; 25] = [
    " ", "  ", "\n", "\r\n", "\t", ",", ", ", "; ", "-", "_", "|", " | ", "/", ".", "\", \"", "', '", " 3. ", "\n12) ",
    " — ", "…", "。", "\u{3000}", "\u{b7}", " => ", "*",
];

/// What is left of a word that is typed without its accents.
fn bare(word: &str) -> String {
    word.nfkd().filter(|letter| !is_combining_mark(*letter)).collect()
}

#[test]
fn beginnings_of_words_are_enough() {
    let cut = |phrase: &str| phrase.split(' ').map(|word| &word[..word.len().min(4)]).collect::<Vec<_>>().join(" ");
    let long = "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen patrol \
                group space point ten exist slush involve unfold";
    assert_eq!(one(&cut(ENGLISH)).words, 12);
    assert_eq!(one(&cut(long).to_uppercase()).words, 24);
    // Short words of the list are no beginnings.
    assert_eq!(scan("also able acid also able acid aunt army atom auto axis baby"), []);
}

#[test]
fn single_characters_are_a_phrase_when_they_stand_alone() {
    let words = phrase_of(4, &[7, 91, 200, 13, 55, 128, 3, 77, 240, 9, 61, 30, 184, 2, 99, 17]);
    let (phrase, one) = (words.join(" "), |text: &str| scan(text).len());
    assert_eq!((one(&phrase), one(&words.join("、")), one(&format!("我的助记词是: {phrase}。"))), (1, 1, 1));
    assert_eq!((one(&format!("{phrase} 请保存好")), one(&format!("{phrase} 的一个"))), (1, 1));
    // A table of characters.
    assert_eq!((one(&format!("{phrase} 的 一")), one(&format!("的 {phrase}")), one(&words.join(" = ("))), (0, 0, 0));
    let numbered: String = words.iter().zip(1..).map(|(word, number)| format!("({number}) {word}\n")).collect();
    assert_eq!((one(&numbered), one(&format!("{phrase}{}的 一", "-".repeat(400)))), (1, 1));
}

proptest! {
    #[test]
    fn any_phrase_of_any_list_is_found(
        language in 0usize..10,
        entropy in (4usize..=8).prop_flat_map(|words| proptest::collection::vec(any::<u8>(), words * 4)),
        same in 0usize..25,
        others in proptest::collection::vec(0usize..25, 24),
        mixed in any::<bool>(),
        form in 0usize..5,
        before in "[a-zA-Z é的.:]{0,60}",
    ) {
        let words = phrase_of(language, &entropy);
        // A row of single characters is a phrase where it begins, and between the same marks.
        let single = words.iter().all(|word| word.chars().count() == 1);
        let mixed = mixed && !single;
        let mut text = if single { String::new() } else { format!("{before}: ") };
        for (at, word) in words.iter().enumerate() {
            let word = match form {
                0 => bare(word),
                1 => word.to_uppercase(),
                2 => word.nfc().collect(),
                3 => word.nfkd().collect(),
                _ => (*word).to_owned(),
            };
            text += &word;
            text += SEPARATORS[if mixed { others[at] } else { same }];
        }
        // Words said thrice again are taken for code, and Japanese ones that differ in a mark only for the first of them.
        let again = words.iter().enumerate().filter(|(at, word)| words[..*at].contains(word)).count();
        prop_assume!(again < 3 && (language != 1 && language != 2 || form > 1));
        // One in some thousands is a sentence.
        let number = |word: &&str| lists::TEXTS[0].lines().position(|known| known == *word);
        let english: Vec<u16> = words.iter().filter_map(number).map(|number| number as u16).collect();
        prop_assume!(english.len() < words.len() || !run::is_prose(&english));
        let found = scan(&text);
        prop_assert!(found.iter().any(|phrase| phrase.words >= words.len()), "{:?} {}", found, text);
    }

    #[test]
    fn a_cut_anywhere_changes_nothing(cuts in proptest::collection::vec(0usize..400, 0..6), upper in any::<bool>()) {
        let text = format!("déjà-vu 1. {ENGLISH} 助记词 ábaco, {ENGLISH}!");
        let text = if upper { text.to_uppercase() } else { text };
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % text.len()).filter(|&cut| text.is_char_boundary(cut)).collect();
        cuts.sort_unstable();
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        let mut detector = Detector::new();
        detector.feed(&text, &mut whole);
        detector.finish(&mut whole);
        let mut detector = Detector::new();
        let mut last = 0;
        for cut in cuts.into_iter().chain([text.len()]) {
            detector.feed(&text[last..cut], &mut pieces);
            last = cut;
        }
        detector.finish(&mut pieces);
        prop_assert_eq!(whole.len(), 2);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn nothing_panics(text in any::<String>()) {
        scan(&text);
    }

    #[test]
    fn numbers_and_words_mix(text in "[a-z0-9 é助种,.]{0,200}") {
        scan(&text);
    }
}
