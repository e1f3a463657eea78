//! Phrases in every language and layout, and texts that are none.

use super::*;
use proptest::prelude::*;

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

proptest! {
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
