//! The choice of the patterns that a text is tried with: those with a word in the text.
//!
//! Most texts hold no word of any pattern. One search for all words replaces the search for each pattern, and
//! a pattern is not compiled before a text holds a word of it.

use regex::{RegexSet, RegexSetBuilder};

/// The search for the words of many patterns, without regard to ASCII case. It matches the numbers of the patterns to
/// try on a text; a pattern without words is tried on every text.
#[expect(clippy::expect_used, reason = "tests search with the words, which are compiled in")]
pub(crate) fn prefilter<'a>(patterns: impl IntoIterator<Item = &'a [String]>) -> RegexSet {
    let any_word = |words: &'a [String]| {
        let words: Vec<String> = words.iter().map(|word| regex::escape(word)).collect();
        words.join("|")
    };
    let mut set = RegexSetBuilder::new(patterns.into_iter().map(any_word));
    set.case_insensitive(true).unicode(false).build().expect("the words can be searched for")
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::string::string_regex_parsed;
    use proptest::test_runner::TestRunner;
    use regex_syntax::hir::{Hir, HirKind};

    use super::*;

    /// The number of matching texts that are generated for each pattern.
    const SAMPLES: usize = 100;
    /// The most repetitions in a generated text.
    const REPEATED: u32 = 20;

    /// Panics unless each of many texts that a pattern matches holds one of its words.
    #[track_caller]
    pub(crate) fn check_words(pattern: &str, words: &[String]) {
        assert!(!words.is_empty(), "no words: {pattern}");
        let parsed = shortened(regex_syntax::parse(pattern).unwrap());
        let samples = string_regex_parsed(&parsed).unwrap();
        let prefilter = prefilter([words]);
        let mut runner = TestRunner::deterministic();
        for _ in 0..SAMPLES {
            let sample = samples.new_tree(&mut runner).unwrap().current();
            // In patterns without case, two letters beyond ASCII count as s and k.
            let sample = sample.replace('\u{17f}', "s").replace('\u{212a}', "k");
            assert!(prefilter.is_match(&sample), "{words:?} not in {sample:?}");
        }
    }

    /// A pattern with short repetitions, without anchors and word boundaries, from which samples can be generated.
    fn shortened(hir: Hir) -> Hir {
        match hir.into_kind() {
            HirKind::Empty | HirKind::Look(_) => Hir::empty(),
            HirKind::Literal(literal) => Hir::literal(literal.0),
            HirKind::Class(class) => Hir::class(class),
            HirKind::Repetition(mut repetition) => {
                *repetition.sub = shortened(*repetition.sub);
                repetition.min = repetition.min.min(REPEATED);
                repetition.max = Some(repetition.max.unwrap_or(REPEATED).min(REPEATED));
                Hir::repetition(repetition)
            }
            HirKind::Capture(capture) => shortened(*capture.sub),
            HirKind::Concat(parts) => Hir::concat(parts.into_iter().map(shortened).collect()),
            HirKind::Alternation(ways) => {
                Hir::alternation(ways.into_iter().map(shortened).collect())
            }
        }
    }

    #[test]
    fn a_text_is_tried_with_the_patterns_of_its_words_and_those_without_words() {
        let words = [vec!["ignore".to_owned(), "忽略".to_owned()], vec![], vec!["nor".to_owned()]];
        let words = words.each_ref().map(Vec::as_slice);
        let check = |text: &str, expected: &[usize]| {
            let found: Vec<usize> = prefilter(words).matches(text).iter().collect();
            assert_eq!(found, expected, "{text}");
        };
        check("", &[1]);
        check("neither NOR either", &[1, 2]);
        check("IGNORE", &[0, 1, 2]);
        check("忽略", &[0, 1]);
    }
}
