//! The words that tell the series of a family apart: closed lists, fixed when pipelock is built.
//!
//! A family can be made only for a type that lists its words here, so a series cannot be named after anything that an agent,
//! a destination or a policy says: whoever chose such words could fill the memory of pipelock and of its Prometheus.

/// A closed list of words under one name.
pub trait Label: Copy + Send + Sync + 'static {
    /// Name of the label.
    const NAME: &'static str;
    /// The words.
    const WORDS: &'static [&'static str];
    /// The place of the word in [`Self::WORDS`].
    fn index(self) -> usize;
}

/// What a family is made for: one label, or up to three.
pub trait Labels: Copy + Send + Sync + 'static {
    /// How many series there can be.
    const COUNT: usize;
    /// Names of the labels.
    fn names() -> Vec<&'static str>;
    /// The words of the series with this number.
    fn words(index: usize) -> Vec<&'static str>;
    /// The number of the series, below [`Self::COUNT`].
    fn index(self) -> usize;
}

impl<L: Label> Labels for L {
    const COUNT: usize = L::WORDS.len();

    fn names() -> Vec<&'static str> {
        vec![L::NAME]
    }

    fn words(index: usize) -> Vec<&'static str> {
        vec![L::WORDS.get(index).copied().unwrap_or("other")]
    }

    fn index(self) -> usize {
        Label::index(self)
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    const COUNT: usize = A::WORDS.len() * B::WORDS.len();

    fn names() -> Vec<&'static str> {
        vec![A::NAME, B::NAME]
    }

    fn words(index: usize) -> Vec<&'static str> {
        [A::words(index / B::COUNT), B::words(index % B::COUNT)].concat()
    }

    fn index(self) -> usize {
        Label::index(self.0) * B::COUNT + Label::index(self.1)
    }
}

impl<A: Label, B: Label, C: Label> Labels for (A, B, C) {
    const COUNT: usize = A::WORDS.len() * B::WORDS.len() * C::WORDS.len();

    fn names() -> Vec<&'static str> {
        vec![A::NAME, B::NAME, C::NAME]
    }

    fn words(index: usize) -> Vec<&'static str> {
        [A::words(index / <(B, C)>::COUNT), <(B, C)>::words(index % <(B, C)>::COUNT)].concat()
    }

    fn index(self) -> usize {
        Label::index(self.0) * <(B, C)>::COUNT + Labels::index((self.1, self.2))
    }
}

/// Makes an enum that is a [`Label`]: `labels! { /// What it says. Side "side" { Agent = "agent", … } }`.
macro_rules! labels {
    ($($(#[$meta:meta])* $name:ident $label:literal { $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)? })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name { $($(#[$doc])* #[doc = concat!("`", $word, "`")] $variant),+ }

        impl $crate::telemetry::metrics::Label for $name {
            const NAME: &'static str = $label;
            const WORDS: &'static [&'static str] = &[$($word),+];
            fn index(self) -> usize { self as usize }
        }
    )+};
}
pub(crate) use labels;

#[cfg(test)]
mod tests {
    use super::*;

    labels! {
        /// Sides.
        Side "side" { Left = "left", Right = "right" }
        /// Sizes.
        Size "size" { Small = "small", Middle = "middle", Large = "large" }
        /// Colours.
        Colour "colour" { Red = "red", Blue = "blue" }
    }

    #[test]
    fn every_series_has_a_number_and_words_of_its_own() {
        let mut seen = Vec::new();
        for side in [Side::Left, Side::Right] {
            for size in [Size::Small, Size::Middle, Size::Large] {
                for colour in [Colour::Red, Colour::Blue] {
                    let key = (side, size, colour);
                    let words = <(Side, Size, Colour)>::words(Labels::index(key));
                    let expected =
                        [Side::WORDS[side as usize], Size::WORDS[size as usize], Colour::WORDS[colour as usize]];
                    assert_eq!(words, expected);
                    seen.push(Labels::index(key));
                }
            }
        }
        assert_eq!(seen, (0..<(Side, Size, Colour)>::COUNT).collect::<Vec<_>>());
        assert_eq!(<(Side, Size)>::names(), ["side", "size"]);
    }
}
