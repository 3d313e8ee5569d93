//! Text from outside, made safe to show: no escape sequences, no control characters, nothing that a
//! reader cannot see.

use std::borrow::Cow;

/// Strips ANSI sequences, control characters other than newline and tab, and invisible or
/// direction-changing characters. Text that holds none of them is returned as it is.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unwanted) {
        return Cow::Borrowed(text);
    }
    let plain = anstream::adapter::strip_str(text).to_string();
    Cow::Owned(plain.chars().filter(|&c| !is_unwanted(c)).collect())
}

/// The first `limit` characters, cut between characters.
#[must_use]
pub fn first_chars(text: &str, limit: usize) -> &str {
    text.char_indices().nth(limit).map_or(text, |(end, _)| &text[..end])
}

/// The last `limit` bytes, or a few less: cut between characters.
#[must_use]
pub fn last_bytes(text: &str, limit: usize) -> &str {
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

fn is_unwanted(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        // Soft hyphen, Arabic letter mark, Hangul and Mongolian fillers, zero-width characters,
        // direction marks, line and paragraph separators, word joiners, byte order mark,
        // annotations, tags and the variation selectors that no emoji needs.
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => true,
        _ => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_stripped_and_the_rest_stays() {
        let check = |text: &str, expected: &str| assert_eq!(clean(text), expected, "{text:?}");
        check(
            "plain\n\ttext, 中文 and émoji 🎉\u{fe0f}",
            "plain\n\ttext, 中文 and émoji 🎉\u{fe0f}",
        );
        check("\u{1b}[31mred\u{1b}[0m", "red");
        check("\u{1b}]8;;https://evil\u{7}link\u{1b}]8;;\u{7}", "link");
        check("a\u{200b}b\u{202e}c\u{feff}d\u{e0041}e\u{ad}f", "abcdef");
        check("bell\u{7} null\0 back\u{8} c1\u{9b}", "bell null back c1");
        check("line\r\nend", "line\nend");
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(first_chars("中文字", 2), "中文");
        assert_eq!(first_chars("ab", 5), "ab");
        assert_eq!(last_bytes("中文字", 7), "文字");
        assert_eq!(last_bytes("ab", 5), "ab");
    }
}
