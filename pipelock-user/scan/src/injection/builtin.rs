//! The files of the rules and languages that ship with the crate: what the build script reads, for tests that compare.
//! Promises that the list names every file of the folder.

/// The concepts and rules.
pub(super) const RULES: (&str, &str) = ("rules.yaml", include_str!("../../rules/injection/lexicon/rules.yaml"));

/// Embeds the named language files.
macro_rules! languages {
    ($($tag:literal),+ $(,)?) => {
        &[$(($tag, include_str!(concat!("../../rules/injection/lexicon/", $tag, ".yaml"))),)+]
    };
}

/// The words, by BCP 47 tag.
pub(super) const LANGUAGES: &[(&str, &str)] = languages![
    "any", "en", "af", "ar", "az", "be", "bg", "bn", "ca", "cs", "da", "de", "el", "es", "et", "fa", "fi", "fr", "gl",
    "gu", "he", "hi", "hr", "hu", "hy", "id", "is", "it", "ja", "ka", "kk", "kn", "ko", "lt", "lv", "mk", "ml", "mr",
    "ms", "ne", "nl", "no", "pa", "pl", "pt", "ro", "ru", "sk", "sl", "sq", "sr", "sv", "sw", "ta", "te", "th", "tl",
    "tr", "uk", "ur", "vi", "zh",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_file_is_embedded() {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap() + "/rules/injection/lexicon";
        let on_disk: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".yaml").map(str::to_owned))
            .filter(|name| name != "rules")
            .collect();
        let embedded = super::LANGUAGES.iter().map(|(tag, _)| (*tag).to_owned()).collect();
        assert_eq!(on_disk, embedded);
    }
}
