//! Which of many patterns may match a text, told by words: a pattern needs words, one of several at each
//! of some places, and it is not even compiled as long as no text holds them all.

use aho_corasick::AhoCorasick;
use regex_syntax::hir::{Hir, HirKind};

/// The shortest word that is looked for, bytes: shorter ones stand everywhere.
const SHORTEST: usize = 3;

/// What patterns need. Case does not matter.
pub(super) struct Needed {
    words: AhoCorasick,
    /// Of each pattern: the places, and of each place the words of which one must stand somewhere.
    patterns: Vec<Vec<Vec<usize>>>,
    count: usize,
}

impl Needed {
    /// What these patterns need.
    ///
    /// # Errors
    /// What is wrong with one of them, in words.
    pub(super) fn by(patterns: &[String]) -> Result<Needed, String> {
        let mut words: Vec<String> = Vec::new();
        let mut number = |word: String| {
            words.iter().position(|known| *known == word).unwrap_or_else(|| {
                words.push(word);
                words.len() - 1
            })
        };
        let mut all = Vec::new();
        for pattern in patterns {
            let hir = regex_syntax::parse(pattern).map_err(|error| error.to_string())?;
            let places = places(&hir).into_iter();
            all.push(places.map(|place| place.into_iter().map(&mut number).collect()).collect());
        }
        let count = words.len();
        let words = AhoCorasick::builder().ascii_case_insensitive(true).build(words);
        let words = words.map_err(|error| error.to_string())?;
        Ok(Needed { words, patterns: all, count })
    }

    /// The numbers of the patterns that have all they need in this text, in order.
    pub(super) fn stand_in(&self, text: &str) -> impl Iterator<Item = usize> {
        let mut stands = vec![false; self.count];
        for word in self.words.find_overlapping_iter(text) {
            stands[word.pattern().as_usize()] = true;
        }
        let has_all = move |places: &Vec<Vec<usize>>| {
            places.iter().all(|place| place.iter().any(|&word| stands[word]))
        };
        let numbered = self.patterns.iter().enumerate();
        numbered.filter(move |(_, places)| has_all(places)).map(|(at, _)| at)
    }
}

/// The places of a pattern at which words stand, whatever it matches, each with its words.
fn places(hir: &Hir) -> Vec<Vec<String>> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            let word = std::str::from_utf8(&literal.0).ok().and_then(plain);
            word.into_iter().map(|word| vec![word]).collect()
        }
        HirKind::Capture(capture) => places(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => places(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().flat_map(places).collect(),
        HirKind::Alternation(ways) => {
            // Of each way the place that says the most: whose shortest word is the longest.
            let says = |place: &Vec<String>| place.iter().map(String::len).min();
            let best = ways.iter().map(|way| places(way).into_iter().max_by_key(says));
            let place: Option<Vec<Vec<String>>> = best.collect();
            place.map(|words| vec![words.concat()]).unwrap_or_default()
        }
        HirKind::Repetition(_) | HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => {
            Vec::new()
        }
    }
}

/// The longest part of a literal whose case does not matter to a search that knows only that of ASCII;
/// nothing where that is too short.
fn plain(literal: &str) -> Option<String> {
    let has_case = |c: char| !c.is_ascii() && (c.is_lowercase() || c.is_uppercase());
    let longest = literal.split(has_case).max_by_key(|part| part.len())?;
    (longest.len() >= SHORTEST).then(|| longest.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, expected: &[&[&str]]) {
        let hir = regex_syntax::parse(pattern).unwrap();
        assert_eq!(places(&hir), expected, "{pattern}");
    }

    #[test]
    fn what_a_pattern_needs() {
        check("ignore[ \n](?:all )*(?:Earlier|prior)", &[&["ignore"], &["earlier", "prior"]]);
        check("(?:send|post) (?:it|this) ?x", &[&["send", "post"]]);
        check("(secret){2,}a", &[&["secret"]]);
        check("(?:now|)then", &[&["then"]]);
        check(r"\w+|word", &[]);
        check("sämtliche", &[&["mtliche"]]);
        check("忽略(?:之前|以上)", &[&["忽略"], &["之前", "以上"]]);
    }

    #[test]
    fn a_text_lets_those_patterns_through_that_have_all_they_need() {
        let patterns = ["ignore .* (?:rules|orders)", "[a-z]+", "ignored"].map(str::to_owned);
        let needed = Needed::by(&patterns).unwrap();
        let check = |text: &str, expected: &[usize]| {
            assert_eq!(needed.stand_in(text).collect::<Vec<_>>(), expected, "{text}");
        };
        check("", &[1]);
        check("Ignore the RULES", &[0, 1]);
        check("rules; ignored, ignore me", &[0, 1, 2]);
        check("orders", &[1]);
        assert!(Needed::by(&["(".to_owned()]).is_err());
    }
}
