//! The words that a pattern needs: whatever it matches, one of several words stands at each of some
//! places. And how long a key is, where a pattern matches nothing else.
//!
//! The build script alone knows this, and the tests: taking patterns apart costs more time and memory than
//! looking for the words.

use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{Class, ClassUnicode, Hir, HirKind};
use regex_syntax::{Error, parse};

use super::form::in_key;

/// The shortest word that is looked for, bytes: shorter ones stand everywhere.
const SHORTEST: usize = 3;
/// The most letters of a class that are looked for one by one.
const FEW: usize = 8;

/// Of each place of a pattern the words of which one stands there. Case does not matter.
pub(crate) fn needed(pattern: &str) -> Result<Vec<Vec<String>>, Error> {
    Ok(places(&parse(pattern)?))
}

/// Words of which one stands in whatever a pattern matches, those that say the most; none when that cannot
/// be told.
pub(super) fn best_words(pattern: &str) -> Result<Vec<String>, Error> {
    // The words are looked for in either case, and to see them takes a pattern that does not ask for that.
    // Two letters beyond ASCII count as s and k there, and do not here: no name is written with them.
    let pattern = pattern.strip_prefix("(?i)").unwrap_or(pattern);
    let hir = parse(pattern)?;
    let mut ends = [ExtractKind::Prefix, ExtractKind::Suffix].into_iter();
    let mut words = places(&hir)
        .into_iter()
        .max_by_key(says)
        .or_else(|| ends.find_map(|end| words_at(&hir, end)))
        .unwrap_or_default();
    words.sort_unstable();
    words.dedup();
    Ok(words)
}

/// All words that a pattern's matches begin or end with, where each is long enough.
fn words_at(hir: &Hir, end: ExtractKind) -> Option<Vec<String>> {
    let literals = Extractor::new().kind(end).extract(hir);
    let words = literals.literals()?.iter().map(|literal| plain(literal.as_bytes()));
    let words: Option<Vec<String>> = words.collect();
    words.filter(|words| !words.is_empty())
}

/// How much a place says: its shortest word's length.
fn says(place: &impl AsRef<[String]>) -> Option<usize> {
    place.as_ref().iter().map(String::len).min()
}

/// How many bytes that keys are made of (letters, digits, `_~.-`) stand in a row in whatever a pattern
/// matches; nothing where other characters may stand among them.
pub(super) fn row(pattern: &str) -> Result<Option<usize>, Error> {
    let hir = parse(pattern)?;
    Ok(if is_of_key(&hir) { hir.properties().minimum_len() } else { None })
}

fn is_of_key(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => literal.0.iter().copied().all(in_key),
        HirKind::Class(Class::Unicode(class)) => class
            .ranges()
            .iter()
            .all(|range| (range.start()..=range.end()).all(|c| u8::try_from(c).is_ok_and(in_key))),
        HirKind::Class(Class::Bytes(class)) => {
            class.ranges().iter().all(|range| (range.start()..=range.end()).all(in_key))
        }
        HirKind::Repetition(repetition) => is_of_key(&repetition.sub),
        HirKind::Capture(capture) => is_of_key(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().all(is_of_key),
    }
}

/// The places of a pattern at which words stand, whatever it matches, each with its words.
fn places(hir: &Hir) -> Vec<Vec<String>> {
    match hir.kind() {
        HirKind::Literal(literal) => plain(&literal.0).into_iter().map(|word| vec![word]).collect(),
        HirKind::Capture(capture) => places(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => places(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().flat_map(places).collect(),
        HirKind::Alternation(ways) => {
            // Of each way the place that says the most.
            let best = ways.iter().map(|way| places(way).into_iter().max_by_key(says));
            let place: Option<Vec<Vec<String>>> = best.collect();
            place.map(|words| vec![words.concat()]).unwrap_or_default()
        }
        HirKind::Class(Class::Unicode(class)) => few_letters(class).into_iter().collect(),
        HirKind::Repetition(_)
        | HirKind::Empty
        | HirKind::Class(Class::Bytes(_))
        | HirKind::Look(_) => Vec::new(),
    }
}

/// The letters of a class, where they are few and each is as long as a word: `(?:致|给)` is one for the parser.
fn few_letters(class: &ClassUnicode) -> Option<Vec<String>> {
    let letters = class.ranges().iter().flat_map(|range| range.start()..=range.end());
    let words = letters.take(FEW + 1).map(|letter| plain(letter.to_string().as_bytes()));
    let words: Vec<String> = words.collect::<Option<_>>()?;
    (1..=FEW).contains(&words.len()).then_some(words)
}

/// The longest part of a literal whose case does not matter to a search that knows only that of ASCII;
/// nothing where that is too short.
fn plain(literal: &[u8]) -> Option<String> {
    let literal = std::str::from_utf8(literal).ok()?;
    let is_caseless = |c: char| c.to_lowercase().eq([c]) && c.to_uppercase().eq([c]);
    let has_case = |c: char| !c.is_ascii() && !is_caseless(c);
    let longest = literal.split(has_case).max_by_key(|part| part.len())?;
    (longest.len() >= SHORTEST).then(|| longest.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, expected: &[&[&str]]) {
        assert_eq!(needed(pattern).unwrap(), expected, "{pattern}");
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
        check("(?:致|给)[a-z]", &[&["给", "致"]]);
        check("[给-致]|[éè]", &[]);
        check("\u{1f88}", &[]);
    }

    #[test]
    fn the_words_that_say_the_most_and_the_row_that_a_key_is() {
        let check = |pattern: &str, words: &[&str], in_a_row: Option<usize>| {
            assert_eq!(
                (&*best_words(pattern).unwrap(), row(pattern).unwrap()),
                (&*words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>(), in_a_row),
                "{pattern}"
            );
        };
        check(r"(?-u:\b)[a-z]{76}AZDO[a-z]{4}(?-u:\b)", &["azdo"], Some(84));
        check(r"(?i)(?:sessid|connect\.sid)=[a-z]{20,}", &["connect.sid", "sessid"], None);
        check(r"(?:SK|[0-9a-f]{4})[0-9a-f]{32}", &[], Some(34));
        check(
            r"g(?:old_x|o[0-9])",
            &["go0", "go1", "go2", "go3", "go4", "go5", "go6", "go7", "go8", "go9", "gold_x"],
            Some(3),
        );
        check(r"[a-z]{40}\s", &[], None);
        check("[a-zé]{40}", &[], None);
    }

    #[test]
    fn what_is_no_pattern_is_told() {
        assert!(needed("(").is_err() && best_words("(?i)(").is_err() && row("(").is_err());
    }
}
