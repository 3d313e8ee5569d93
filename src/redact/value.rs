//! The value behind a secret name: its beginning, its end, and the decision that it is a secret.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::look;
use super::names::normal;
use super::pieces::boundary;
use super::placeholder::is_placeholder;
use super::sheet::Assignment;

/// The furthest place behind a name at which its value may begin, bytes.
const REACH: usize = 160;
/// The longest part of a value that is judged, bytes; all of the value is replaced.
const JUDGED: usize = 512;

/// The text between a name and the quote that opens its value: an operator, perhaps with a type or a call.
#[expect(clippy::expect_used, reason = "tests use it")]
static QUOTED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?x)^(?-u:
            (?P<closed> \\*["'`] )? [\])]?
            (?: (?: [\ \t]*:[\ \t]*[&A-Za-z_][A-Za-z0-9_<>\[\]&',.:|?\ ]{0,40}=  # key: string =
                  | \s{0,20}(?: :=|=>|[=!]={0,2}|:|\|\|=|\?\?=|\?= )             # key =
                  | [\ \t]+[A-Za-z][A-Za-z0-9_.*]{0,30}[\ \t]*=                  # key string =
                  | \(                                                           # key(
                )\s{0,20}
              | (?P<comma> , )[\ \t]{0,4}                                        # "key",
            )
            (?: (?:new\ )?[A-Za-z_][A-Za-z0-9_:.!]{0,40}\([\ \t]* )?             # Some(
            [bBrRuUfF@$&\#]{0,2}
            (?P<quote> \\*["'`] )
            (?: (?:[Bb]earer|[Bb]asic|[Tt]oken)\  )?                             # "Bearer
        )"#,
    )
    .expect("the pattern compiles")
});

/// The text between a name and a value without quotes.
#[expect(clippy::expect_used, reason = "tests use it")]
static BARE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r#"(?x)^(?-u:
            (?: \\*["'`] )? \]?
            (?: [\ \t]{0,20}(?: :=|=>|\?=|[=!]={0,2}|: )[\ \t]{0,20}
                (?: (?:[Bb]earer|[Bb]asic|[Tt]oken)\  )?
              | (?P<tag> > )
              | (?P<flag> [\ \t]{1,4} )
            )
        )"#,
    )
    .expect("the pattern compiles")
});

/// The secret that is assigned to the name at `place`, if any, and the place at which the search for names continues.
/// A part of an endless value is skipped, so that the search takes linear time even if a text repeats a name. `core` is
/// the part of the name that matched.
pub(super) fn behind(
    text: &str,
    place: Range<usize>,
    assignment: &Assignment,
    core: &str,
) -> (Option<Range<usize>>, usize) {
    let Some((start, ending)) = opening(text, &place) else { return (None, place.end) };
    let rest = &text[start..];
    let window = &rest[..boundary(rest, JUDGED)];
    let end = ending.find(window);
    let value = &window[..end.unwrap_or(window.len())];
    let is_bare = matches!(ending, ValueEnd::Bare { .. });
    let is_code = is_bare && is_code(value, &rest[value.len()..], core);
    if !is_code && is_secret(value, assignment) {
        let end = start + ending.find(rest).unwrap_or(rest.len());
        return (Some(start..end), end);
    }
    let is_endless = is_bare && end.is_none() && window.len() < rest.len();
    (None, if is_endless { start + value.len() } else { place.end })
}

/// Returns whether a value looks like a secret of this assignment.
pub(super) fn is_secret(value: &str, assignment: &Assignment) -> bool {
    let value = &value[..boundary(value, JUDGED)];
    !value.contains(char::is_whitespace)
        && !value.contains("://")
        && !is_placeholder(value)
        && (look::is_random(value) || (assignment.made_up && look::is_made_up(value)))
}

/// Finds the beginning of the value behind a name, and the form of its end.
fn opening<'a>(text: &'a str, place: &Range<usize>) -> Option<(usize, ValueEnd<'a>)> {
    let (before, name, rest) = (&text[..place.start], &text[place.clone()], &text[place.end..]);
    let near = &rest[..boundary(rest, REACH)];
    if let Some(found) = QUOTED.captures(near) {
        // `password, "…"` names no value, `"password", "…"` does.
        let is_named = found.name("comma").is_none() || found.name("closed").is_some();
        let quote = found.name("quote").filter(|_| is_named)?;
        return Some((place.end + found[0].len(), ValueEnd::Quote(quote.as_str())));
    }
    let found = BARE.captures(near)?;
    let is_placed = (found.name("flag").is_none() || name.starts_with("--"))
        && (found.name("tag").is_none() || before.ends_with('<'));
    let in_query = before.ends_with(['?', '&', '#']);
    is_placed.then(|| (place.end + found[0].len(), ValueEnd::Bare { in_query }))
}

/// The form of the end of a value.
#[derive(Clone, Copy)]
enum ValueEnd<'a> {
    /// The quote that opened the value, or the end of the line.
    Quote(&'a str),
    /// A character that cannot be part of a value without quotes.
    Bare { in_query: bool },
}

impl ValueEnd<'_> {
    /// Finds the end of the value that a text begins with.
    fn find(self, rest: &str) -> Option<usize> {
        match self {
            ValueEnd::Quote(quote) => {
                let line = rest.find('\n');
                rest[..line.unwrap_or(rest.len())].find(quote).or(line)
            }
            ValueEnd::Bare { in_query } => {
                let end = rest.find(|c| ends_bare(c, in_query)).unwrap_or(rest.len());
                let sentence = rest[..end].trim_end_matches(['.', ':', '?']).len();
                (sentence < rest.len()).then_some(sentence)
            }
        }
    }
}

fn ends_bare(c: char, in_query: bool) -> bool {
    c.is_whitespace()
        || "\"'`,;|()[]{}<>\\".contains(c)
        // Punctuation of languages that put no space behind it.
        || ('\u{2000}'..='\u{303f}').contains(&c)
        || ('\u{ff00}'..='\u{ffef}').contains(&c)
        || (in_query && (c == '&' || c == '#'))
}

/// Returns whether a value without quotes is a call, an index, a path of a module, a field, or a type with the
/// words of the name.
fn is_code(value: &str, follows: &str, core: &str) -> bool {
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let are_names = value.split('.').all(is_name);
    let is_field = are_names && value.contains('.') && !look::is_random(value);
    let normal = normal(value);
    let is_named_for_it =
        are_names && normal.contains(core) && !normal.split(core).any(look::is_random);
    follows.starts_with(['(', '[', '{'])
        || value.starts_with([':', '&', '@', '!'])
        || value.starts_with("--")
        || value.contains("::")
        || value.contains("->")
        || is_field
        || is_named_for_it
}
