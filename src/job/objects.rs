//! Finds every JSON object in a text. Unambiguous slips are fixed and reported: comments, trailing commas, raw line
//! breaks and unknown escapes in strings, full-width punctuation, and a text that ends inside the object.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::CharIndices;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged as _;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};
use serde_json::{Map, Value};

use crate::kimi::text::{begins_an_object, first_chars};

/// The deepest nesting of brackets; `serde_json` has the same limit.
const DEPTH: usize = 128;
/// The most passes over a text, counted by its length, in search of slips.
const PASSES: usize = 8;
/// The most characters of a value that a warning shows.
pub(crate) const SHOWN: usize = 300;

/// An object, and the slips that were fixed in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FoundObject {
    pub(crate) fields: Map<String, Value>,
    /// The object as JSON.
    json: String,
    /// A message for each fixed slip.
    pub(crate) fixed: Vec<String>,
    /// True if the text ended inside the object; then it holds the complete parts.
    pub(crate) is_cut: bool,
}

impl FoundObject {
    /// A message for each repeated field. The last value counts.
    pub(crate) fn repeated(&self) -> Vec<String> {
        let strict = ParseOptions::default();
        let mut said = Vec::new();
        if let Ok(parsed) = parse_to_ast(&self.json, &CollectOptions::default(), &strict)
            && let Some(value) = &parsed.value
        {
            repeated(value, "", &self.json, &mut said);
        }
        said
    }
}

fn repeated(value: &ast::Value<'_>, place: &str, json: &str, said: &mut Vec<String>) {
    match value {
        ast::Value::Object(object) => {
            let mut seen = BTreeSet::new();
            for property in object.properties.iter().rev() {
                let name = property.name.as_str();
                if !seen.insert(name) {
                    let range = property.value.range();
                    let words = first_chars(&json[range.start..range.end], SHOWN);
                    said.push(format!(
                        "the field `{place}{name}` stood twice; the last one counts, another said: {words}"
                    ));
                }
                repeated(&property.value, &format!("{place}{name}/"), json, said);
            }
        }
        ast::Value::Array(array) => {
            for (at, value) in array.elements.iter().enumerate() {
                repeated(value, &format!("{place}{at}/"), json, said);
            }
        }
        _ => {}
    }
}

/// The outermost objects in a text, in order, without objects inside strings or other objects. They are read one at a
/// time, since a text may hold very many.
#[derive(Debug)]
pub(crate) struct Objects<'t> {
    text: &'t str,
    /// The offset at which the search continues.
    at: usize,
    /// The characters that may still be searched for slips.
    budget: usize,
    /// The bytes of failed parses.
    failed: usize,
    /// The line and column of the error in `broken`.
    furthest: (usize, usize),
    /// The syntax error of the largest unreadable object so far, with the line and column in the object.
    pub(crate) broken: Option<String>,
}

impl<'t> Objects<'t> {
    pub(crate) fn find_in(text: &'t str) -> Objects<'t> {
        let budget = PASSES * text.len();
        Objects { text, at: 0, budget, failed: 0, furthest: (0, 0), broken: None }
    }

    /// The distance to the next place to search after a failed parse. The text of a failed parse may hold a whole
    /// object, so it is searched too, until too many bytes were parsed more than once.
    fn step(&mut self, rest: &str, error: &serde_json::Error) -> usize {
        let lines = rest.split_inclusive('\n').take(error.line().saturating_sub(1));
        let parsed = (lines.map(str::len).sum::<usize>() + error.column()).max(1);
        self.failed += parsed;
        if self.failed > PASSES * self.text.len() { parsed } else { 1 }
    }
}

impl Iterator for Objects<'_> {
    type Item = FoundObject;

    fn next(&mut self) -> Option<FoundObject> {
        loop {
            self.at +=
                self.text.as_bytes().get(self.at..)?.iter().position(|&byte| byte == b'{')?;
            let rest = &self.text[self.at..];
            let mut stream =
                serde_json::Deserializer::from_str(rest).into_iter::<Map<String, Value>>();
            match stream.next() {
                Some(Ok(fields)) => {
                    let length = stream.byte_offset();
                    self.at += length;
                    let json = rest[..length].to_owned();
                    return Some(FoundObject { fields, json, fixed: Vec::new(), is_cut: false });
                }
                Some(Err(error)) => {
                    let step = self.step(rest, &error);
                    if begins_an_object(rest) {
                        if let Some((found, length)) =
                            Fixed::rewrite(rest, &mut self.budget).and_then(Fixed::read)
                        {
                            // The rest of a cut object may hold a whole one.
                            self.at += if found.is_cut { step } else { length };
                            return Some(found);
                        }
                        let place = (error.line(), error.column());
                        if place > self.furthest {
                            self.furthest = place;
                            self.broken = Some(error.to_string());
                        }
                    }
                    self.at += step;
                }
                None => self.at += 1,
            }
        }
    }
}

/// An object, rewritten as strict JSON.
#[derive(Default)]
struct Fixed {
    json: String,
    /// The length of the object in the text, bytes.
    length: usize,
    is_cut: bool,
    trailing_commas: usize,
    comments: usize,
    full_width: usize,
    raw_breaks: usize,
    escapes: usize,
}

impl Fixed {
    /// Rewrites the object at the beginning of a text. `None` if its brackets do not match, or if the budget of
    /// characters is used up.
    fn rewrite(text: &str, budget: &mut usize) -> Option<Fixed> {
        let mut fixed = Fixed::default();
        let mut closers = Vec::new();
        // The place of a comma that may be a trailing one.
        let mut comma = None;
        // The length and depth of the last complete part: a field, or an item of a list.
        let mut complete = None;
        let mut chars = text.char_indices().peekable();
        while let Some((at, char)) = chars.next() {
            *budget = budget.checked_sub(1)?;
            let in_list = matches!(closers[..], [_] | [_, ']']);
            match char {
                '{' | '[' => {
                    closers.push(if char == '{' { '}' } else { ']' });
                    if closers.len() > DEPTH {
                        return None;
                    }
                    fixed.json.push(char);
                    comma = None;
                }
                '}' | ']' => {
                    if closers.pop() != Some(char) {
                        return None;
                    }
                    if let Some(comma) = comma.take() {
                        fixed.json.remove(comma);
                        fixed.trailing_commas += 1;
                    }
                    fixed.json.push(char);
                    if closers.is_empty() {
                        fixed.length = at + 1;
                        return Some(fixed);
                    }
                    if matches!(closers[..], [_] | [_, ']']) {
                        complete = Some((fixed.json.len(), closers.len()));
                    }
                }
                ',' | '，' => {
                    fixed.full_width += usize::from(char == '，');
                    if in_list {
                        complete = Some((fixed.json.len(), closers.len()));
                    }
                    comma = Some(fixed.json.len());
                    fixed.json.push(',');
                }
                '：' => {
                    fixed.full_width += 1;
                    fixed.json.push(':');
                }
                '"' | '“' | '”' | '＂' => {
                    comma = None;
                    if !fixed.string(char, &mut chars, budget) {
                        break;
                    }
                }
                '/' if fixed.comment(&mut chars, budget) => {}
                char if char.is_whitespace() => fixed.json.push(char),
                char => {
                    comma = None;
                    fixed.json.push(char);
                }
            }
        }
        let (length, depth) = complete?;
        fixed.json.truncate(length);
        fixed.json.extend(closers[..depth].iter().rev());
        fixed.length = text.len();
        fixed.is_cut = true;
        Some(fixed)
    }

    /// Reads the rest of a string. Returns whether it ends.
    fn string(
        &mut self,
        opened_by: char,
        chars: &mut Peekable<CharIndices<'_>>,
        budget: &mut usize,
    ) -> bool {
        self.full_width += usize::from(opened_by != '"');
        self.json.push('"');
        while let Some((_, char)) = chars.next() {
            *budget = budget.saturating_sub(1);
            match char {
                '"' if opened_by == '"' => {
                    self.json.push('"');
                    return true;
                }
                '”' | '＂' if opened_by != '"' => {
                    self.json.push('"');
                    return true;
                }
                '"' => self.json.push_str("\\\""),
                '\\' => match chars.peek() {
                    Some((_, next)) if "\"\\/bfnrtu".contains(*next) => {
                        self.json.push('\\');
                        self.json.push(*next);
                        chars.next();
                    }
                    Some(_) => {
                        self.escapes += 1;
                        self.json.push_str("\\\\");
                    }
                    None => {}
                },
                char if char.is_control() && u32::from(char) < 0x20 => {
                    self.raw_breaks += 1;
                    let _ = write!(self.json, "\\u{:04x}", u32::from(char));
                }
                char => self.json.push(char),
            }
        }
        false
    }

    /// Skips a comment after its first slash. Returns whether it is a comment.
    fn comment(&mut self, chars: &mut Peekable<CharIndices<'_>>, budget: &mut usize) -> bool {
        let Some((_, second @ ('/' | '*'))) = chars.peek().copied() else { return false };
        self.comments += 1;
        chars.next();
        let mut before = ' ';
        for (_, char) in chars {
            *budget = budget.saturating_sub(1);
            if (second == '/' && char == '\n') || (second == '*' && (before, char) == ('*', '/')) {
                break;
            }
            before = char;
        }
        true
    }

    /// Parses the rewritten object. Returns it with the messages for its slips, and its length in the text.
    fn read(self) -> Option<(FoundObject, usize)> {
        let fields = serde_json::from_str(&self.json).ok()?;
        let slips = [
            (self.trailing_commas, "a trailing comma", "trailing commas"),
            (self.comments, "a comment", "comments"),
            (self.full_width, "a full-width mark", "full-width marks"),
            (self.raw_breaks, "a raw line break in a string", "raw line breaks in strings"),
            (self.escapes, "an unknown escape in a string", "unknown escapes in strings"),
        ];
        let fixed = slips.into_iter().filter_map(|(count, one, many)| match count {
            0 => None,
            1 => Some(format!("fixed: {one}")),
            count => Some(format!("fixed: {count} {many}")),
        });
        let found =
            FoundObject { fields, json: self.json, fixed: fixed.collect(), is_cut: self.is_cut };
        Some((found, self.length))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[Value]) {
        let found = Objects::find_in(text);
        let found: Vec<_> = found.map(|found| Value::Object(found.fields)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn objects_are_found_anywhere_in_a_text() {
        check(r#"a {"b": {"c": 1}} {d} {} "#, &[json!({"b": {"c": 1}}), json!({})]);
        check(r#"{"a": "{\"b\": 1}"} [{"c": 2}]"#, &[json!({"a": "{\"b\": 1}"}), json!({"c": 2})]);
        check(r#"{"open": {"inner": 1}"#, &[json!({"open": {"inner": 1}}), json!({"inner": 1})]);
        check("中{\"a\": \"中\"}中", &[json!({"a": "中"})]);
    }

    #[test]
    fn unambiguous_slips_are_fixed_and_reported() {
        #[track_caller]
        fn check(text: &str, expected: &Value, fixed: &[&str]) {
            let found: Vec<_> = Objects::find_in(text).collect();
            let [found] = found.as_slice() else { panic!("{text}: {found:?}") };
            assert_eq!(Value::Object(found.fields.clone()), *expected, "{text}");
            assert_eq!(found.fixed, fixed, "{text}");
        }
        check(
            r#"{"a": [1, 2, ], "b": ",}", }"#,
            &json!({"a": [1, 2], "b": ",}"}),
            &["fixed: 2 trailing commas"],
        );
        check(
            "{\"a\": 1, // one } {\n /* two\n } */ \"b\": \"//\"}",
            &json!({"a": 1, "b": "//"}),
            &["fixed: 2 comments"],
        );
        check(
            "{\"a\": \"one\ntwo\tthree\"}",
            &json!({"a": "one\ntwo\tthree"}),
            &["fixed: 2 raw line breaks in strings"],
        );
        check(
            "{“a”：“say \"x\"”，＂b＂：1}",
            &json!({"a": "say \"x\"", "b": 1}),
            &["fixed: 6 full-width marks"],
        );
        check(
            r#"{"a": "\d+ \' \n"}"#,
            &json!({"a": "\\d+ \\' \n"}),
            &["fixed: 2 unknown escapes in strings"],
        );
    }

    #[test]
    fn the_complete_parts_of_a_cut_object_are_kept() {
        let check = |text: &str, expected: Option<Value>| {
            let cut = Objects::find_in(text).find(|found| found.is_cut);
            assert_eq!(cut.map(|found| Value::Object(found.fields)), expected, "{text}");
        };
        check(
            r#"{"r": "all", "f": [{"c": 1, "d": [2]}, {"c": 3, "d": [4"#,
            Some(json!({"r": "all", "f": [{"c": 1, "d": [2]}]})),
        );
        check(r#"{"r": "all", "f": {"c": 1, "d": "ha"#, Some(json!({"r": "all"})));
        check(r#"{"r": "all", "f": [], "g": "ha"#, Some(json!({"r": "all", "f": []})));
        check(r#"{"r": "hal"#, None);
    }

    #[test]
    fn a_repeated_field_is_reported_with_its_value() {
        let text = r#"{"a": [{"c": "one", "c": "two"}], "b": 1, "b": 2, "b": 3}"#;
        let found: Vec<_> = Objects::find_in(text).collect();
        assert_eq!(found[0].fields["b"], 3);
        assert_eq!(
            found[0].repeated(),
            [
                "the field `b` stood twice; the last one counts, another said: 2",
                "the field `b` stood twice; the last one counts, another said: 1",
                "the field `a/0/c` stood twice; the last one counts, another said: \"one\"",
            ]
        );
    }

    #[test]
    fn an_unreadable_object_is_reported_with_the_place() {
        let broken = |text| {
            let mut objects = Objects::find_in(text);
            objects.by_ref().for_each(drop);
            objects.broken
        };
        assert_eq!(
            broken("{\"a\": 1,\n \"b\" 2}").as_deref(),
            Some("expected `:` at line 2 column 6")
        );
        assert_eq!(
            broken(r#"{"a": 1,,}"#).as_deref(),
            Some("key must be a string at line 1 column 9")
        );
        assert_eq!(broken("{x} {} no object"), None);
    }

    #[test]
    fn hostile_nesting_ends() {
        check(&"{".repeat(20_000), &[]);
        check(&"{\"a\":".repeat(10_000), &[]);
        check(&"{\"a\":[1,],".repeat(10_000), &[]);
        check(&"{/*".repeat(10_000), &[]);
        check(&"{\"".repeat(10_001), &[]);
    }

    #[test]
    fn deep_nesting_is_parsed_a_bounded_number_of_times_and_the_object_behind_it_is_found() {
        let text = "{\"a\":".repeat(20_000) + "\n} {\"b\": 1}";
        let mut objects = Objects::find_in(&text);
        let found: Vec<_> = objects.by_ref().map(|found| Value::Object(found.fields)).collect();
        assert_eq!(found.last(), Some(&json!({"b": 1})));
        let passes = objects.failed / text.len();
        assert!(passes <= PASSES + 1, "{passes} passes");
    }
}
