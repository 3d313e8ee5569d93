//! Invisible characters in a text. They are removed, except those that emoji and scripts need, and counted, so that a
//! hidden instruction is reported.

use std::borrow::Cow;
use std::cell::LazyCell;
use std::sync::LazyLock;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// A text without its invisible characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned<'a> {
    /// The visible text.
    pub text: Cow<'a, str>,
    /// The number of removed characters, without those that honest texts hold.
    pub hidden: usize,
}

impl Cleaned<'_> {
    /// Removes escape sequences, control characters other than newline and tab, and invisible or direction-changing
    /// characters. A text without them is borrowed unchanged.
    #[must_use]
    pub fn new(text: &str) -> Cleaned<'_> {
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
        if text.bytes().all(is_plain) || !text.contains(is_hidden) {
            return Cleaned { text: Cow::Borrowed(text), hidden: 0 };
        }
        let is_right_to_left = LazyCell::new(|| RIGHT_TO_LEFT.is_match(text));
        let mut kept = String::with_capacity(text.len());
        let mut hidden = 0;
        let mut rest = text;
        while let Some(at) = rest.find(is_hidden) {
            let (plain, from) = rest.split_at(at);
            kept.push_str(plain);
            let (run, after) = from.split_at(run_length(from));
            let before = kept.chars().next_back();
            let around: String =
                before.into_iter().chain(run.chars()).chain(after.chars().next()).collect();
            let is_mark = matches!(run, "\u{200e}" | "\u{200f}" | "\u{61c}");
            if NEEDED.is_match(&around) {
                kept.push_str(run);
            } else if !(HARMLESS.is_match(&around) || is_mark && *is_right_to_left) {
                hidden += run.chars().count();
            }
            rest = after;
        }
        kept.push_str(rest);
        Cleaned { text: Cow::Owned(kept), hidden }
    }
}

/// The warning about the characters that were removed from a request; `None` when there were none.
pub(crate) fn request_warning(request: &Value) -> Option<String> {
    Some(format!("{} from the request", removed(count(request))?))
}

/// The number of characters that are removed from the texts of a JSON value.
fn count(value: &Value) -> usize {
    match value {
        Value::String(text) => Cleaned::new(text).hidden,
        Value::Array(values) => values.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

fn removed(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 invisible or control character was removed".to_owned()),
        count => Some(format!("{count} invisible or control characters were removed")),
    }
}

/// The warning about the characters that were removed from Kimi's text and from the results of its tools.
pub(crate) fn warning(in_words: usize, in_evidence: usize) -> Option<String> {
    let removed = removed(in_words + in_evidence)?;
    Some(match (in_words, in_evidence) {
        (_, 0) => format!("{removed} from Kimi's text"),
        (0, _) => format!("{removed} from what Kimi's tools returned"),
        (words, evidence) => {
            format!("{removed}: {words} from Kimi's text, {evidence} from what its tools returned")
        }
    })
}

/// Returns whether a character is invisible by itself, or changes the display of others.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control() && c != '\n' && c != '\t';
    }
    // Soft hyphen, Arabic letter mark, Hangul, Khmer and Mongolian fillers, zero-width characters,
    // direction marks, line and paragraph separators, word joiners, variation selectors, byte order
    // mark, annotations, controls of shorthand, hieroglyphs and music, and tags.
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The length in bytes of the escape sequence, or of the hidden characters, at the start of a text.
fn run_length(text: &str) -> usize {
    if let Some(sequence) = ESCAPE_SEQUENCE.find(text) {
        return sequence.end();
    }
    let goes_on = |c| is_hidden(c) && c != '\u{1b}' && !('\u{80}'..='\u{9f}').contains(&c);
    let end = text.char_indices().skip(1).find(|&(_, c)| !goes_on(c));
    end.map_or(text.len(), |(end, _)| end)
}

#[expect(clippy::expect_used, reason = "a test uses each pattern")]
fn pattern(text: &str) -> Regex {
    let mut pattern = RegexBuilder::new(text);
    pattern.ignore_whitespace(true).dot_matches_new_line(true);
    pattern.build().expect("the pattern compiles")
}

/// One escape sequence at the start of a text. A string sequence counts only if it ends on its line: a terminal would
/// swallow everything up to an end, but here the rest of the text must stay.
static ESCAPE_SEQUENCE: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\A(?: (?: \x1b\[ | \u{9b} ) [0-?]* [\ -/]* [@-~]
          | (?: \x1b[\]PX^_] | [\u{90}\u{98}\u{9d}-\u{9f}] )
            [^\x07\x1b\u{9c}\n]* (?: \x07 | \x1b\\ | \u{9c} )
          | \x1b [\ -/]* [0-~] )",
    )
});

/// Hidden characters that are legitimate between their neighbours. A hidden message needs a run of them, so one alone
/// in its proper place stays.
static NEEDED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\A(?: (?: \p{Extended_Pictographic}\u{fe0f}? | [\u{fe0f}\p{Emoji_Modifier}] )
            \u{200d} \p{Extended_Pictographic}
          | [\p{Emoji}--\p{ASCII}] [\u{fe0e}\u{fe0f}] [\n\t[^\p{Cc}\p{Cf}]]?
          # Digits, which are emoji as keys only.
          | [0-9\#*] \u{fe0f} \u{20e3}
          # The flags of England, Scotland and Wales, the only ones that are written in tags.
          | \u{1f3f4} \u{e0067} \u{e0062}
            (?: \u{e0065}\u{e006e}\u{e0067} | \u{e0073}\u{e0063}\u{e0074} | \u{e0077}\u{e006c}\u{e0073} )
            \u{e007f} [\n\t[^\p{Cc}\p{Cf}]]?
          | \p{Mongolian} [\u{180b}-\u{180f}] [\n\t[^\p{Cc}\p{Cf}]]?
          | [\p{Arab}\p{Syrc}\p{Mong}\p{Nkoo}\p{Deva}\p{Beng}\p{Guru}\p{Gujr}\p{Orya}\p{Taml}
             \p{Telu}\p{Knda}\p{Mlym}\p{Sinh}\p{Khmr}\p{Mymr}\p{Tibt}]
            [\u{200c}\u{200d}] [\n\t[^\p{Cc}\p{Cf}]]?
        )\z",
    )
});

/// Hidden characters that are removed without being counted, since honest texts hold them: line endings of Windows,
/// page breaks, byte order marks, hyphenation, and line breaks of scripts without spaces.
static HARMLESS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"\A(?: .? \r \n
          | .? \f .?
          | \s? \u{feff} .?
          | \p{Alphabetic} \u{ad} \p{Alphabetic}
          | [\p{Thai}\p{Laoo}\p{Khmr}\p{Mymr}\p{Tibt}] \u{200b} .?
        )\z",
    )
});

/// Scripts that run from right to left; honest text in them holds direction marks.
static RIGHT_TO_LEFT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"[\p{Arab}\p{Hebr}\p{Syrc}\p{Thaa}\p{Nkoo}]"));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str, hidden: usize) {
        let cleaned = Cleaned::new(text);
        assert_eq!((&*cleaned.text, cleaned.hidden), (expected, hidden), "{text:?}");
    }

    #[test]
    fn every_pattern_compiles() {
        for pattern in [&ESCAPE_SEQUENCE, &NEEDED, &HARMLESS, &RIGHT_TO_LEFT] {
            assert!(!pattern.is_match("plain"));
        }
    }

    #[test]
    fn invisible_characters_are_removed_and_counted() {
        check("plain\n\ttext, 中文 and émoji 🎉", "plain\n\ttext, 中文 and émoji 🎉", 0);
        check("a\u{200b}b\u{202e}c\u{feff}d\u{e0041}e", "abcde", 4);
        check(
            "bell\u{7} null\0 back\u{8} delete\u{7f} alone\rend",
            "bell null back delete aloneend",
            5,
        );
        check("tags \u{e0069}\u{e0067}\u{e006e}\u{e006f}\u{e0072}\u{e0065}.", "tags .", 6);
        check("if a\u{202e}\u{2066}// admin\u{2069}\u{2066} {", "if a// admin {", 4);
        check("fill\u{3164}\u{ffa0}\u{115f} sep\u{2028}\u{2029}", "fill sep", 5);
        // Data in variation selectors, and joiners where nothing is joined.
        check("😀\u{fe01}\u{fe0f}\u{e0131}\u{e0132}!", "😀!", 4);
        check("1\u{fe0f} a\u{200d}b\u{200c}c ج\u{200c}\u{200d}\u{200c}ا", "1 abc جا", 6);
        check("🏴\u{e0072}\u{e006d}\u{e007f}", "🏴", 3);
    }

    #[test]
    fn escape_sequences_are_removed_whole() {
        check("\u{1b}[31mred\u{1b}[0m", "red", 9);
        check("\u{1b}]8;;https://evil\u{7}link\u{1b}]8;;\u{7}", "link", 24);
        check("\u{1b}]52;c;cm0gLXJm\u{1b}\\copied", "copied", 17);
        check("\u{1b}]0;title\u{9c}\u{1b}P1;2|data\u{1b}\\\u{1b}cx", "x", 24);
        check("c1 \u{9b}2J\u{9d}0;t\u{7}x\u{9b}", "c1 x", 9);
        check("\u{1b}(Bx\u{1b}", "x", 4);
        // An unterminated sequence does not swallow the rest of the text.
        check("\u{1b}]0;\"and so on\"\nnext", "0;\"and so on\"\nnext", 2);
        check("\u{9d}8;;https://evil", "8;;https://evil", 1);
    }

    #[test]
    fn characters_that_emoji_and_scripts_need_stay() {
        for text in [
            "👩\u{200d}🚀 👩🏽\u{200d}💻 👨\u{200d}👩\u{200d}👧 ❤\u{fe0f}\u{200d}🔥 🏳\u{fe0f}\u{200d}🌈",
            "⚠\u{fe0f} ☎\u{fe0e} 1\u{fe0f}\u{20e3} 🤷\u{200d}♂\u{fe0f} 🇩🇪",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            "کتاب\u{200c}ها می\u{200c}خواهم ه\u{200d}.",
            "क्\u{200d}ष श्री\u{200c}मान් ශ්\u{200d}රී",
        ] {
            check(text, text, 0);
        }
    }

    #[test]
    fn invisible_characters_of_honest_texts_are_not_counted() {
        check("\u{feff}first\r\n1\t\u{feff}second\r\n\u{c}third", "first\n1\tsecond\nthird", 0);
        check("Silben\u{ad}trennung", "Silbentrennung", 0);
        check("ខ្មែរ\u{200b}ភាសា", "ខ្មែរភាសា", 0);
        check("\u{200f}עברית\u{200e} C++\u{200e}", "עברית C++", 0);
        check("English\u{200e} only", "English only", 1);
    }

    #[test]
    fn the_warning_names_the_source() {
        assert_eq!(warning(0, 0), None);
        let request = serde_json::json!({"a": ["x\u{200b}y", 1], "b": "\u{1b}[1m", "c": "d\r\n"});
        let expected = "5 invisible or control characters were removed from the request";
        assert_eq!(request_warning(&request).as_deref(), Some(expected));
        let check = |words, evidence, expected: &str| {
            assert_eq!(warning(words, evidence).as_deref(), Some(expected));
        };
        check(37, 0, "37 invisible or control characters were removed from Kimi's text");
        check(0, 1, "1 invisible or control character was removed from what Kimi's tools returned");
        check(
            2,
            3,
            "5 invisible or control characters were removed: 2 from Kimi's text, 3 from what its tools returned",
        );
    }

    proptest! {
        #[test]
        fn visible_text_is_never_lost(
            text in "([a-c ]|\u{1b}|\\[|\\]|;|m|\u{7}|\r|\n|\u{200b}|\u{fe0f}|\u{200d}|👩|\u{e0041}|\u{9d}){0,40}"
        ) {
            let cleaned = Cleaned::new(&text);
            let visible_chars = |text: &str| text.chars().filter(|&c| !is_hidden(c)).count();
            // Only the contents of an escape sequence go with it.
            if !text.contains(['\u{1b}', '\u{9d}']) {
                prop_assert_eq!(visible_chars(&cleaned.text), visible_chars(&text));
            }
            let unwanted = ['\u{1b}', '\u{7}', '\r', '\u{200b}', '\u{e0041}', '\u{9d}'];
            prop_assert_eq!(cleaned.text.find(unwanted), None);
            prop_assert_eq!(Cleaned::new(&cleaned.text).text, cleaned.text.clone());
        }
    }
}
