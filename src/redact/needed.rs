//! Which of many patterns may match a text, told by words: a pattern needs words, one of several at each
//! of some places, and it is not even compiled as long as no text holds them all. Which words those are is
//! worked out when the program is built, by `build/words.rs`.

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::form::in_key;

/// Of each place of a pattern the words of which one must stand somewhere, by their numbers.
pub type Places = &'static [&'static [u16]];

/// What patterns need. Case does not matter.
#[derive(Debug)]
pub struct Needed {
    words: AhoCorasick,
    patterns: &'static [Places],
}

impl Needed {
    /// What these patterns need of these words, one a line.
    ///
    /// # Errors
    /// Why the words cannot be looked for.
    pub fn by(words: &str, patterns: &'static [Places]) -> Result<Needed, String> {
        Ok(Needed { words: finder(words.lines())?, patterns })
    }

    /// The numbers of the patterns that have all they need in this text, in order.
    pub fn stand_in(&self, text: &str) -> impl Iterator<Item = usize> {
        let mut stands = vec![false; self.words.patterns_len()];
        for word in self.words.find_overlapping_iter(text) {
            stands[word.pattern().as_usize()] = true;
        }
        let has_all = move |places: Places| {
            places.iter().all(|place| place.iter().any(|&word| stands[usize::from(word)]))
        };
        let numbered = self.patterns.iter().enumerate();
        numbered.filter(move |(_, places)| has_all(places)).map(|(at, _)| at)
    }
}

/// Looks for words in either case. Only where no word has begun is there a table of all bytes: with those
/// that it would have behind the first byte of each word, it takes two to three times the memory, and a
/// text of code is gone through about as fast.
pub(super) fn finder<W: AsRef<[u8]>>(
    words: impl IntoIterator<Item = W>,
) -> Result<AhoCorasick, String> {
    let mut builder = AhoCorasick::builder();
    builder.ascii_case_insensitive(true).kind(Some(AhoCorasickKind::ContiguousNFA)).dense_depth(1);
    builder.build(words).map_err(|error| error.to_string())
}

/// The most bytes in a row that keys are made of.
pub(super) fn longest_row(text: &str) -> usize {
    let rows = text.as_bytes().split(|&byte| !in_key(byte));
    rows.map(<[u8]>::len).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_lets_those_patterns_through_that_have_all_they_need() {
        // As of `ignore .* (?:rules|orders)`, `[a-z]+` and `ignored`.
        let words = "ignore\nrules\norders\nignored";
        let needed = Needed::by(words, &[&[&[0], &[1, 2]], &[], &[&[3]]]).unwrap();
        let check = |text: &str, expected: &[usize]| {
            assert_eq!(needed.stand_in(text).collect::<Vec<_>>(), expected, "{text}");
        };
        check("", &[1]);
        check("Ignore the RULES", &[0, 1]);
        check("rules; ignored, ignore me", &[0, 1, 2]);
        check("orders", &[1]);
    }

    #[test]
    fn the_longest_row_is_of_what_keys_are_made_of() {
        assert_eq!(longest_row("a_b-c d.e~f7 /etc/passwd"), 6);
        assert_eq!((longest_row(""), longest_row("é /")), (0, 0));
    }
}
