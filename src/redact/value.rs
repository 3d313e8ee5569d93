//! The value behind a name that says secret: where it begins, where it ends, and whether it is one.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::assignment::Name;
use super::boundary;
use super::look;
use super::names::normal;
use super::placeholder::is_placeholder;
use super::sheet::Assignment;

/// How far behind a name its value may begin, bytes.
const REACH: usize = 160;
/// How much of a value is judged, bytes; all of it is replaced.
const JUDGED: usize = 512;

/// Behind a name, up to the quote that opens its value: an operator, perhaps with a type or a call.
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

/// Behind a name, up to a value without quotes.
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

/// What stands behind a name; places are counted from the end of the name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A secret.
    Secret(Range<usize>),
    /// No secret, and without an end up to here: names within it are not looked at, since the time
    /// that a text takes must not grow with what it repeats.
    Endless(usize),
    /// No secret, or no value.
    Nothing,
}

/// What the value of a name is.
pub(super) fn of(name: Name<'_>) -> Verdict {
    let [before, _, rest] = name.parts;
    let near = &rest[..boundary(rest, REACH)];
    if let Some(found) = QUOTED.captures(near) {
        // `password, "…"` names no value, `"password", "…"` does.
        if found.name("comma").is_some() && found.name("closed").is_none() {
            return Verdict::Nothing;
        }
        let quote = found.name("quote").map_or("", |quote| quote.as_str());
        let start = found.get(0).map_or(0, |found| found.end());
        let value = Open::new(rest, start, |rest| end_of_quoted(rest, quote));
        return value.secret(name.assignment).map_or(Verdict::Nothing, Verdict::Secret);
    }
    let Some(found) = BARE.captures(near) else { return Verdict::Nothing };
    let misplaced = (found.name("flag").is_some() && !name.parts[1].starts_with("--"))
        || (found.name("tag").is_some() && !before.ends_with('<'));
    if misplaced {
        return Verdict::Nothing;
    }
    let in_query = before.ends_with(['?', '&', '#']);
    let start = found.get(0).map_or(0, |found| found.end());
    let value = Open::new(rest, start, |rest| end_of_bare(rest, in_query));
    let end = start + value.judged.len();
    let is_code = is_code(value.judged, &rest[end..], name.core);
    match if is_code { None } else { value.secret(name.assignment) } {
        Some(secret) => Verdict::Secret(secret),
        None if value.is_endless => Verdict::Endless(end),
        None => Verdict::Nothing,
    }
}

/// Whether a value is a secret of such a name.
pub(super) fn is_secret(value: &str, assignment: &Assignment) -> bool {
    let value = &value[..boundary(value, JUDGED)];
    !value.contains(char::is_whitespace)
        && !value.contains("://")
        && !is_placeholder(value)
        && (look::is_random(value) || (assignment.made_up && look::is_made_up(value)))
}

/// A value that begins somewhere in a text.
struct Open<'a, E> {
    text: &'a str,
    start: usize,
    /// Where it ends in what follows, if it does.
    ends: E,
    /// As much of it as is judged.
    judged: &'a str,
    is_endless: bool,
}

impl<'a, E: Fn(&str) -> Option<usize>> Open<'a, E> {
    fn new(text: &'a str, start: usize, ends: E) -> Open<'a, E> {
        let rest = &text[start..boundary(text, start + JUDGED)];
        let end = ends(rest);
        let judged = &rest[..end.unwrap_or(rest.len())];
        let is_endless = end.is_none() && start + rest.len() < text.len();
        Open { text, start, ends, judged, is_endless }
    }

    /// All of it, if it is a secret.
    fn secret(&self, assignment: &Assignment) -> Option<Range<usize>> {
        if !is_secret(self.judged, assignment) {
            return None;
        }
        let rest = &self.text[self.start..];
        Some(self.start..self.start + (self.ends)(rest).unwrap_or(rest.len()))
    }
}

/// The quote that closes, or the end of the line where none does.
fn end_of_quoted(rest: &str, quote: &str) -> Option<usize> {
    let line = rest.find('\n');
    rest[..line.unwrap_or(rest.len())].find(quote).or(line)
}

/// What cannot be part of a value without quotes.
fn end_of_bare(rest: &str, in_query: bool) -> Option<usize> {
    let ends = |c: char| {
        c.is_whitespace()
            || "\"'`,;|()[]{}<>\\".contains(c)
            // Punctuation of languages that put no space behind it.
            || ('\u{2000}'..='\u{303f}').contains(&c)
            || ('\u{ff00}'..='\u{ffef}').contains(&c)
            || (in_query && (c == '&' || c == '#'))
    };
    let end = rest.find(ends).unwrap_or(rest.len());
    let sentence = rest[..end].trim_end_matches(['.', ':', '?']).len();
    (sentence < rest.len()).then_some(sentence)
}

/// Whether a value without quotes is a call, an index, a path of a module, a field, or a type that is
/// named for what it holds.
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
