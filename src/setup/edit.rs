//! Adds one entry to the text of a host's file, or removes it. Everything else stays as it was: comments, order, layout
//! and line ends. An edit that would change anything else is refused.

use serde_json::{Map, Value, json};
use similar::{ChangeTag, TextDiff};

use super::{edit_json, edit_toml};
use crate::documents::{self, Format};
use crate::hosts::value_at;

/// The position of an entry in a file.
pub(super) struct Place<'a> {
    pub(super) format: Format,
    /// The keys of the table of servers, joined by dots.
    pub(super) table: &'a str,
    pub(super) name: String,
}

/// Returns the text with this entry.
pub(super) fn with_entry(text: &str, place: &Place<'_>, entry: &Value) -> Result<String, String> {
    edit_and_check(text, place, entry, |text, old| match place.format {
        Format::Toml => edit_toml::with_entry(text, place.table, &place.name, old, entry),
        Format::Json | Format::Jsonc => {
            edit_json::with_entry(text, place.format, place.table, &place.name, old, entry)
        }
    })
}

/// Returns the text without the entry.
pub(super) fn without_entry(text: &str, place: &Place<'_>) -> Result<String, String> {
    edit_and_check(text, place, &Value::Null, |text, _| match place.format {
        Format::Toml => edit_toml::without_entry(text, place.table, &place.name),
        Format::Json | Format::Jsonc => {
            edit_json::without_entry(text, place.format, place.table, &place.name)
        }
    })
}

/// Returns whether the text is the backup plus this entry and nothing else. A missing backup counts as an empty text.
pub(super) fn only_added(
    text: &str,
    backup: Option<&str>,
    place: &Place<'_>,
    entry: &Value,
) -> bool {
    with_entry(backup.unwrap_or_default(), place, entry).is_ok_and(|again| again == text)
}

/// Runs `edit` on the text without byte order mark and with LF line ends, restores both, and checks that only the entry
/// changed.
fn edit_and_check(
    text: &str,
    place: &Place<'_>,
    entry: &Value,
    edit: impl FnOnce(&str, &Value) -> Result<String, String>,
) -> Result<String, String> {
    const MARK: &str = "\u{feff}";
    let (mark, body) = text.strip_prefix(MARK).map_or(("", text), |body| (MARK, body));
    let mut expected = documents::parse(body, place.format)?;
    let old = &value_at(&expected, place.table)[&place.name];
    if old == entry {
        return Ok(text.to_owned());
    }
    let plain = body.replace("\r\n", "\n");
    let edited = edit(&plain, old)?;
    let edited = mark.to_owned() + &with_line_ends_of(body, &plain, &edited);
    set_entry(&mut expected, place, entry);
    let mut found = documents::parse(&edited, place.format)?;
    // An empty table counts as a missing one.
    for file in [&mut expected, &mut found] {
        remove_if_empty(file, place.table);
    }
    if found != expected {
        return Err(edit_toml::BY_HAND.to_owned());
    }
    Ok(edited)
}

/// Sets the entry in the parsed file; null removes it.
fn set_entry(file: &mut Value, place: &Place<'_>, entry: &Value) {
    let mut table = file;
    for key in place.table.split('.') {
        let Value::Object(fields) = table else { return };
        table = fields.entry(key).or_insert_with(|| Map::new().into());
    }
    let Value::Object(table) = table else { return };
    if entry.is_null() {
        table.shift_remove(&place.name);
    } else {
        table.insert(place.name.clone(), entry.clone());
    }
}

fn remove_if_empty(file: &mut Value, table: &str) {
    let (above, last) = table.rsplit_once('.').unwrap_or(("", table));
    let mut above = above.split('.').filter(|key| !key.is_empty());
    let holder = above.try_fold(file, |value, key| value.get_mut(key));
    if let Some(Value::Object(holder)) = holder
        && holder.get(last).is_some_and(|table| *table == json!({}))
    {
        holder.shift_remove(last);
    }
}

/// Restores the line ends: an unchanged line gets its original one, a new line the one that most lines have.
fn with_line_ends_of(original: &str, plain: &str, edited: &str) -> String {
    let crlf = original.matches("\r\n").count();
    if crlf == 0 {
        return edited.to_owned();
    }
    let most_common = if crlf * 2 >= plain.matches('\n').count() { "\r\n" } else { "\n" };
    let originals: Vec<&str> = original.split_inclusive('\n').collect();
    let mut text = String::with_capacity(edited.len() + crlf);
    for change in TextDiff::from_lines(plain, edited).iter_all_changes() {
        match (change.tag(), change.old_index()) {
            (ChangeTag::Equal, Some(line)) => text.push_str(originals.get(line).unwrap_or(&"")),
            (ChangeTag::Equal | ChangeTag::Insert, _) => {
                let line = change.value();
                let words = line.trim_end_matches('\n');
                text.push_str(words);
                if words.len() < line.len() {
                    text.push_str(most_common);
                }
            }
            (ChangeTag::Delete, _) => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> Value {
        json!({"command": "/b/kimi-bridge", "args": ["serve"], "env": {"ON": "1"}, "timeout": 1000})
    }

    fn place(format: Format) -> Place<'static> {
        let table = if format == Format::Toml { "mcp_servers" } else { "mcpServers" };
        Place { format, table, name: "kimi-bridge".to_owned() }
    }

    /// Adds the entry, adds it again without effect, and checks that it can be undone and removed.
    #[track_caller]
    fn check(format: Format, before: &str, after: &str) {
        let place = place(format);
        let with = with_entry(before, &place, &entry()).unwrap();
        assert_eq!(with, after);
        assert_eq!(with_entry(&with, &place, &entry()).unwrap(), with, "twice is once");
        let written = documents::parse(&with, format).unwrap()[place.table]["kimi-bridge"].take();
        assert!(only_added(&with, Some(before), &place, &written));
        assert!(without_entry(&with, &place).is_ok());
    }

    const FRESH: &str = r#"{
  "mcpServers": {
    "kimi-bridge": {
      "command": "/b/kimi-bridge",
      "args": ["serve"],
      "env": {
        "ON": "1"
      },
      "timeout": 1000
    }
  }
}
"#;

    #[test]
    fn json_keeps_its_layout() {
        let json = |before: &str, after: &str| check(Format::Jsonc, before, after);
        json("", FRESH);
        json("{}\n", FRESH);
        json("\u{feff}{}\n", &format!("\u{feff}{FRESH}"));
        json("{\r\n}\r\n", &FRESH.replace('\n', "\r\n"));
        // Tabs, comments and trailing commas are kept.
        let new = "\t\t\"kimi-bridge\": {\n\t\t\t\"command\": \"/b/kimi-bridge\",\n\t\t\t\"args\": [\"serve\"],\n\
                   \t\t\t\"env\": {\n\t\t\t\t\"ON\": \"1\",\n\t\t\t},\n\t\t\t\"timeout\": 1000,\n\t\t},\n";
        let before = "// mine\n{\n\t\"a\": 1, // one\n\t\"mcpServers\": {\n\t\t\"x\": {\"command\": \"y\"}, // other\n";
        let end = "\t},\n}";
        json(&format!("{before}{end}"), &format!("{before}{new}{end}"));
        // In an existing entry, only the fields that differ change.
        let existing = |command, limit| {
            format!(
                "{{\"mcpServers\": {{\"kimi-bridge\": {{\n // mine\n \"command\": \"{command}\", \"args\": [\"serve\"],\n \
                 \"env\": {{\"ON\": \"1\"}}, \"timeout\": {limit} /* ms */}}}}}}"
            )
        };
        json(&existing("old", 5), &existing("/b/kimi-bridge", 1000));
    }

    const SECTION: &str = "[mcp_servers.kimi-bridge]\ncommand = \"/b/kimi-bridge\"\nargs = [\"serve\"]\n\
                           env = { ON = \"1\" }\ntimeout = 1000\n";

    #[test]
    fn toml_gets_a_section_at_its_end() {
        let toml = |before: &str, after: &str| check(Format::Toml, before, after);
        toml("", SECTION);
        for before in [
            "model = 'm' # mine\n",
            "[mcp_servers.a]\ncommand = \"x\"\n# args = []\n",
            "[mcp_servers]\n[mcp_servers.a]\ncommand = \"x\"\n[tui]\na = 1 \n\n# end\n",
        ] {
            toml(before, &format!("{before}\n{SECTION}"));
        }
        toml("a = 1", &format!("a = 1\n\n{SECTION}"));
        toml("a = 1\r\n", &format!("a = 1\n\n{SECTION}").replace('\n', "\r\n"));
        let inline = "{ command = \"/b/kimi-bridge\", args = [\"serve\"], env = { ON = \"1\" }, timeout = 1000 }";
        toml("mcp_servers = {}\n", &format!("mcp_servers = {{ kimi-bridge = {inline} }}\n"));
        // In an existing entry, only the fields that differ change.
        let existing = |command, limit| {
            format!(
                "# top\n[mcp_servers.kimi-bridge]\ncommand = {command} # mine\nargs = ['serve']\nenv.ON = '1'\n{limit}\n# b\n[b]\n"
            )
        };
        toml(&existing("'old'", ""), &existing("\"/b/kimi-bridge\"", "timeout = 1000\n"));
    }

    #[test]
    fn removing_the_entry_keeps_other_comments_and_line_ends() {
        let check = |format, text: &str, expected: &str| {
            assert_eq!(without_entry(text, &place(format)).unwrap(), expected);
        };
        check(
            Format::Toml,
            "[a]\nx = 1\n# y = 2\n\n# about it\n[mcp_servers.kimi-bridge]\ncommand = 'c'\n[mcp_servers.kimi-bridge.env]\nA = '1'\n# z\n[b]\n",
            "[a]\nx = 1\n# y = 2\n# z\n[b]\n",
        );
        check(
            Format::Jsonc,
            "{\r\n \"mcpServers\": {\n  // a\r\n  \"a\": {},\r\n  \"kimi-bridge\": {}\r\n }\n}",
            "{\r\n \"mcpServers\": {\n  // a\r\n  \"a\": {}\r\n }\n}",
        );
    }

    #[test]
    fn a_file_that_cannot_be_edited_is_refused_with_the_reason() {
        let check = |format, text: &str, expected: &str| {
            assert_eq!(with_entry(text, &place(format), &entry()), Err(expected.to_owned()));
        };
        check(
            Format::Jsonc,
            "{\n  \"a\" 1\n}",
            "Expected colon after the string or word in object property on line 2 column 7",
        );
        check(Format::Json, "{\n // b\n}", "Comments are not allowed on line 2 column 2");
        check(Format::Jsonc, "[]", "it does not hold an object");
        check(Format::Jsonc, r#"{"mcpServers": []}"#, "`mcpServers` is not an object");
        check(
            Format::Toml,
            "a = 1\nb = x\n",
            "string values must be quoted, expected literal string on line 2",
        );
        check(Format::Toml, "mcp_servers = 1\n", "`mcp_servers` is not a table");
    }

    /// The value of a field, and the space or comment after it.
    fn field() -> impl Strategy<Value = (&'static str, &'static str)> {
        let value = prop_oneof![
            Just("1"),
            Just(r#""a\"b""#),
            Just("[ 1,2 ]"),
            Just(r#"{ "b": {} }"#),
            Just("{\n    \"command\": \"x\"\n  }"),
            Just("[\n]"),
        ];
        let after =
            prop_oneof![Just(""), Just(" "), Just(" /* c */"), Just("\n\n"), Just(" // c\n")];
        (value, after)
    }

    fn object(fields: &[(String, &str, &str)], last_comma: bool, between: &str) -> String {
        let mut text = "{".to_owned();
        for (at, (name, value, after)) in fields.iter().enumerate() {
            let comma = if last_comma || at + 1 < fields.len() { "," } else { "" };
            text.extend([between, "\"", name, "\": ", value, after, comma]);
        }
        text + if between.contains('\n') { "\n}" } else { "}" }
    }

    #[track_caller]
    fn check_kept(text: &str, format: Format) {
        let place = place(format);
        let with = with_entry(text, &place, &entry()).unwrap();
        assert_eq!(with_entry(&with, &place, &entry()), Ok(with.clone()));
        let written = documents::parse(&with, format).unwrap()[place.table]["kimi-bridge"].take();
        assert!(only_added(&with, Some(text), &place, &written));
        if text.contains("\r\n") {
            assert_eq!(with.matches('\n').count(), with.matches("\r\n").count());
        }
        let without = without_entry(&with, &place).unwrap();
        assert_eq!(without.matches(&['#', '/'][..]).count(), text.matches(&['#', '/'][..]).count());
    }

    proptest! {
        #[test]
        fn adding_and_removing_the_entry_keeps_the_rest_of_any_json(
            servers in proptest::option::of(proptest::collection::vec(field(), 0..3)),
            others in proptest::collection::vec(field(), 0..3),
            last_comma in any::<bool>(),
            between in prop_oneof![Just(""), Just(" "), Just("\n"), Just("\n  "), Just("\n\t")],
            end in prop_oneof![Just(""), Just("\n"), Just("\n// end")],
            crlf in any::<bool>(),
        ) {
            let named = |(at, (value, after))| (format!("f{at}"), value, after);
            let table = servers.map(|servers| {
                object(&servers.into_iter().enumerate().map(named).collect::<Vec<_>>(), last_comma, between)
            });
            let mut fields: Vec<_> = others.into_iter().enumerate().map(named).collect();
            if let Some(table) = &table {
                fields.push(("mcpServers".to_owned(), table, ""));
            }
            let text = object(&fields, last_comma, between) + end;
            let text = if crlf { text.replace('\n', "\r\n") } else { text };
            check_kept(&text, Format::Jsonc);
        }

        #[test]
        fn adding_and_removing_the_entry_keeps_the_rest_of_any_toml(
            lines in proptest::collection::vec(prop_oneof![
                Just("# c"),
                Just(""),
                Just("K = 1  # c"),
                Just("K = [ 1,\n 2 ]"),
                Just("[K]"),
                Just("[K.b] # c"),
                Just("[mcp_servers.K]"),
                Just("mcp_servers.K.command = 'x'"),
                Just("K = \"\"\"\na\n\"\"\""),
                Just("K.a = {b = 1}"),
            ], 0..8),
            last in prop_oneof![Just(""), Just("\n"), Just("\n\n")],
            crlf in any::<bool>(),
        ) {
            let lines = lines.iter().enumerate().map(|(at, line)| line.replace('K', &format!("k{at}")));
            let text = lines.collect::<Vec<_>>().join("\n") + last;
            let text = if crlf { text.replace('\n', "\r\n") } else { text };
            let plain = text.replace("\r\n", "\n");
            prop_assume!(plain.parse::<toml_edit::DocumentMut>().is_ok_and(|read| read.to_string() == plain));
            check_kept(&text, Format::Toml);
        }
    }
}
