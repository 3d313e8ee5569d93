//! Makes text from outside safe to show, and cuts it between characters or words.

use std::borrow::Cow;

use crate::hidden::Cleaned;

/// Removes escape sequences, invisible characters, and control characters other than newline and tab.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    Cleaned::new(text).text
}

/// Replaces bytes that are not UTF-8. The function of the standard library is slow for valid text.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Returns the first `limit` characters.
pub(crate) fn first_chars(text: &str, limit: usize) -> &str {
    text.char_indices().nth(limit).map_or(text, |(end, _)| &text[..end])
}

/// Returns the first `limit` bytes, or a few less to cut between characters.
pub(crate) fn first_bytes(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Returns the last `limit` bytes, or a few less to cut between characters.
pub(crate) fn last_bytes(text: &str, limit: usize) -> &str {
    let mut from = text.len().saturating_sub(limit);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// Returns the last `limit` bytes, or fewer: a cut text begins after the next white space, so that no word is cut in
/// half.
pub(crate) fn last_words(text: &str, limit: usize) -> &str {
    let end = last_bytes(text, limit);
    if end.len() == text.len() {
        return text;
    }
    end.split_once(char::is_whitespace).map_or("", |(_, words)| words)
}

/// The most bytes that are searched for the first name of an object, after white space and comments.
const BEFORE_A_NAME: usize = 4096;

/// Returns whether a text that begins with a brace continues like a JSON object: with a name in quotation marks,
/// possibly after comments.
pub(crate) fn begins_an_object(text: &str) -> bool {
    let mut rest = first_bytes(&text[1..], BEFORE_A_NAME).trim_start();
    while let Some(comment) = rest.strip_prefix('/') {
        let end = match comment.as_bytes().first() {
            Some(b'/') => "\n",
            Some(b'*') => "*/",
            _ => return false,
        };
        // The comment ends beyond the searched text, and anything may follow it.
        let Some((_, behind)) = comment[1..].split_once(end) else { return true };
        rest = behind.trim_start();
    }
    rest.starts_with(['"', '“', '”', '＂'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(first_chars("中文字", 2), "中文");
        assert_eq!(first_chars("ab", 5), "ab");
        assert_eq!(first_bytes("中文字", 7), "中文");
        assert_eq!(first_bytes("ab", 5), "ab");
        assert_eq!(last_bytes("中文字", 7), "文字");
        assert_eq!(last_bytes("ab", 5), "ab");
        assert_eq!(last_words("one two", 7), "one two");
        assert_eq!(last_words("one two three", 11), "two three");
        assert_eq!(last_words("onetwothree", 5), "");
    }

    #[test]
    fn an_object_begins_with_a_name_in_quotation_marks() {
        for text in ["{\"", "{ \n“", "{ // the answer\n \"", "{/**//* a */\"", "{/* without an end"]
        {
            assert!(begins_an_object(text), "{text}");
        }
        for text in ["{", "{}", "{ a", "{ // g()\n g() }", "{/ \"", "{/* a */}"] {
            assert!(!begins_an_object(text), "{text}");
        }
    }
}
